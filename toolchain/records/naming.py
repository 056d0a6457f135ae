"""What a device can be asked of, and what costs are called: by their keys in files, in words for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from toolchain.records.choosing import Metric, Percentile, cost_key
from toolchain.records.storing import Record


class Quantity(Record, frozen=True):
    """What a predictor is of: a metric that only a device tells, a latency at its percentile."""

    metric: Metric = "latency_s"
    percentile: Percentile = 50

    @property
    def name(self) -> str:
        """`latency_s`, `latency_s.p90`, `peak_memory_bytes`: the name of its cost on any device."""
        return cost_key(self.metric, None, self.percentile)

    @property
    def words(self) -> str:
        """`latency (p50)`, `peak memory`: as a sentence has it."""
        return f"{WORDS[self.metric]} (p{self.percentile})" if self.metric == "latency_s" else WORDS[self.metric]


MEDIAN = Quantity()

WORDS: dict[str, str] = {
    "latency_s": "latency",
    "size_bytes": "size",
    "parameters": "parameters",
    "peak_memory_bytes": "peak memory",
    "energy_j": "energy",
}


class CostName(NamedTuple):
    """What the key of a cost tells: `latency_s.p90@rpi` is a latency at its 90th percentile on rpi."""

    metric: Metric
    percentile: Percentile
    target: str | None


def parts_of(key: str) -> CostName:
    """The key of a cost taken apart: the inverse of `cost_key`."""
    name, _, target = key.partition("@")
    metric, _, percentile = name.partition(".p")
    known = int(percentile) if percentile.isdecimal() else 50
    return CostName(cast("Metric", metric), cast("Percentile", known), target or None)


def names_of(keys: Iterable[str]) -> dict[str, str]:
    """What people call each of these costs: with percentile and device only where those tell costs apart.

    `latency` alone; `latency (p90)` where it is no median, or stands beside one; `on rpi` where devices are several.
    """
    parts = {key: parts_of(key) for key in keys}
    devices = {one.target for one in parts.values()} - {None}
    percentiles = {one.percentile for one in parts.values() if one.metric == "latency_s"}
    names = {}
    for key, one in parts.items():
        name = WORDS.get(one.metric) or one.metric.replace("_", " ")
        if one.metric == "latency_s" and (one.percentile != 50 or len(percentiles) > 1):
            name += f" (p{one.percentile})"
        names[key] = f"{name} on {one.target}" if one.target and len(devices) > 1 else name
    return names


def spelled(key: str, value: float) -> str:
    """A cost with its unit, by its key or its metric: `80.000 ms`, `2.00 MiB`, `1.500 mJ`, `1,234 parameters`."""
    metric = parts_of(key).metric
    if metric == "latency_s":
        return f"{1e3 * value:.3f} ms"
    if metric == "energy_j":
        return f"{1e3 * value:.3f} mJ" if abs(value) < 1 else f"{value:.3f} J"
    if metric in ("size_bytes", "peak_memory_bytes"):
        return f"{value / 2**20:.2f} MiB"
    return f"{value:,.0f} parameters"
