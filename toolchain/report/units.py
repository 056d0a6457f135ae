"""Stored numbers as people read them. Only here do seconds become ms and bytes MiB."""

from __future__ import annotations

import math
from typing import NamedTuple

from toolchain.records import Cost, Quality, Workload, merit_words, metric_words, parts_of
from toolchain.space import Architecture


class Unit(NamedTuple):
    """How a stored metric is printed: `stored / scale` in `symbol`; on a chart `stored / axis_scale` along `axis`."""

    name: str
    symbol: str
    scale: float
    axis: str
    axis_scale: float


UNITS = {
    "latency_s": Unit("latency", "ms", 1e-3, "latency (p50), ms", 1e-3),
    "size_bytes": Unit("size", "MiB", float(1 << 20), "size, MiB", float(1 << 20)),
    "parameters": Unit("parameters", "parameters", 1.0, "parameters, millions", 1e6),
    "peak_memory_bytes": Unit("peak memory", "MiB", float(1 << 20), "peak memory, MiB", float(1 << 20)),
    "energy_j": Unit("energy", "mJ", 1e-3, "energy, mJ", 1e-3),
}


NO_COST = "failed or unknown,"
"""What stands for the cost of a subnet that a device could not run; its source word follows."""


def unit(key: str) -> Unit:
    """The unit of a metric, or of a cost by its key; one that is not known is printed as stored, under its own name."""
    metric, percentile, _ = parts_of(key)
    found = UNITS.get(metric) or Unit(metric.replace("_", " "), "", 1.0, metric.replace("_", " "), 1.0)
    return found if percentile == 50 else found._replace(axis=f"{found.name} (p{percentile}), {found.symbol}")


def amount(key: str, value: float) -> str:
    """A stored value with its unit: `12.3 ms`, `4.20 MiB`, `1,234,567 parameters`."""
    return f"{figure(key, value)} parameters" if key == "parameters" else figure(key, value)


def figure(key: str, value: float) -> str:
    """As `amount`, for a place that is headed by the metric's name: parameters are a bare number there."""
    if key == "parameters":
        return count(value)
    if parts_of(key).metric == "energy_j" and 1 <= abs(value) < math.inf:
        return f"{significant(value)} J"
    return f"{significant(value / unit(key).scale)} {unit(key).symbol}".strip()


def milliseconds(seconds: float | None) -> str:
    return "not enough samples" if seconds is None else amount("latency_s", seconds)


def measured_ms(median_s: float, half_width_s: float) -> str:
    """`12.30 ms ± 0.04`: as many decimals as the uncertainty's first digit needs, and at least three digits."""
    value, half = median_s * 1e3, half_width_s * 1e3
    if not (math.isfinite(value) and math.isfinite(half)):
        return f"{significant(value)} ms ± {significant(half)}"
    places = min(4, max(_places(value, 3), _places(half, 1)))
    return f"{value:,.{places}f} ms ± {half:,.{places}f}"


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits, whole numbers with thousands separators, never in exponents."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "unlimited"
    return f"{value:,.{_places(value, digits)}f}"


def count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else significant(value)


def percent(fraction: float, places: int = 1) -> str:
    return f"{100 * fraction:,.{places}f} %" if math.isfinite(fraction) else significant(fraction)


def quality_words(quality: Quality) -> str:
    """`accuracy 87.1 % on 872 test items`, `BLEU 11.3 on 2,000 test items`."""
    return f"{metric_name(quality)} {merit(quality)} on {items(quality)}"


def metric_name(quality: Quality) -> str:
    return metric_words(quality.metric)


def merit(quality: Quality, places: int = 1) -> str:
    """The figure of merit alone: `87.1 %`, of BLEU `11.3`."""
    return (
        merit_words(quality.metric, quality.value, places)
        if math.isfinite(quality.value)
        else significant(quality.value)
    )


def items(quality: Quality) -> str:
    """What a quality is of: `872 test items`."""
    return f"{count(quality.n)} {quality.split} items"


def cost_words(key: str, cost: Cost) -> str:
    """`12.0 ms predicted (at most 13.1 ms)`; the bound is left out where it is the value itself."""
    words = f"{amount(key, cost.value) if cost.known else NO_COST} {cost.source}"
    return words if cost.upper == cost.value else f"{words} (at most {amount(key, cost.upper)})"


def cost_figure(key: str, cost: Cost | None) -> str:
    """`12.0 ms` as `figure` has it; a dash where there is no such cost."""
    if cost is None:
        return "–"
    return figure(key, cost.value) if cost.known else NO_COST.rstrip(",")


def workload_words(workload: Workload) -> str:
    return f"batch {workload.batch}, {workload.sequence_length} tokens"


def architecture_words(architecture: Architecture) -> str:
    """`hidden 192, layers 2, heads 3 2`: the axes in their order, the entries of a layered axis one after the other."""
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in architecture.axes.items()
    )


def capital(name: str) -> str:
    """With a capital letter; the rest, a device's name among it, as it is."""
    return name[:1].upper() + name[1:]


def _places(value: float, digits: int) -> int:
    """The decimals that show `digits` significant digits of `value`."""
    rounded = abs(float(f"{value:.{digits - 1}e}"))
    return 0 if rounded == 0 else min(9, max(0, digits - 1 - math.floor(math.log10(rounded))))
