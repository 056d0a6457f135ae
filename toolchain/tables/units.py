"""Whether latencies are in the unit that they are said to be in.

A table in milliseconds that calls itself seconds fits a perfect predictor, a thousand times off. So: no pass of a
Transformer takes microseconds or hours; a device does not get a thousand times faster between two tables; and it does
so many multiply-adds a second, but not any number of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.records import Unit

SECONDS: Mapping[Unit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6}

_WORDS: Mapping[Unit, str] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_FASTEST_PASS_S, _SLOWEST_PASS_S = 2e-6, 3600.0
_SLIPS = (1e3, 1e-3, 1e6, 1e-6)
_SLIP_MARGIN = 3.0
_LEAST_MACS_PER_S, _MOST_MACS_PER_S = 2e7, 1.5e11
"""What CPUs do with Transformers, a Pi translating and a server's batch among them; a GPU's table is asked about."""
_OVERHEAD_S = 0.05
_APART = 100.0


def check_range(path: Path, latencies_s: list[float], unit: Unit) -> None:
    """Raise UsageError, asking for the unit, where the median is no time that a pass takes.

    Not to be asked of a unit that the user gave; what a column is called is what may be wrong.
    """
    median_s = statistics.median(latencies_s)
    if not _may_be_a_pass(median_s):
        raise _doubt(path, median_s, unit, "a pass takes from microseconds to minutes", _may_be_a_pass)


def check_unit(
    path: Path,
    latencies_s: list[float],
    unit: Unit,
    *,
    like_s: float | None = None,
    work_macs: float | None = None,
) -> None:
    """Raise UsageError, asking for the unit, where the median does not fit what else is known; as `check_range`.

    Args:
        like_s: the median latency of another table of the same device and space.
        work_macs: the median multiply-adds of the networks.
    """
    median_s = statistics.median(latencies_s)
    if like_s is not None and not _like(median_s, like_s):
        raise _doubt(
            path, median_s, unit, f"in another table of this device it is {like_s:.3g} s", lambda s: _near(s, like_s)
        )
    if work_macs and not _feasible(median_s, work_macs):
        why = f"that would be {work_macs / median_s:.2g} multiply-adds per second"
        raise _doubt(path, median_s, unit, why, lambda s: _feasible(s, work_macs))


def check_mixed(path: Path, latencies_s: list[float], work_macs: list[float]) -> None:
    """Raise UsageError, naming the first row, where rows are a hundred times off the others for the work they do.

    Args:
        work_macs: multiply-adds of each row's network.
    """
    speeds = [work / latency for work, latency in zip(work_macs, latencies_s, strict=True)]
    usual = statistics.median(speeds)
    off = [row for row, speed in enumerate(speeds) if usual > 0 and not 1 / _APART < speed / usual < _APART]
    if off:
        raise UsageError(
            f"{path}: row {off[0] + 1}: the latency is {usual / max(speeds[off[0]], 1e-300):.3g} times what the others "
            "let expect",
            why=f"{len(off)} of {len(speeds)} rows are a hundred times off: are the units mixed?",
            hint="give all latencies in one unit, and leave out rows that failed",
        )


def _may_be_a_pass(median_s: float) -> bool:
    return _FASTEST_PASS_S <= median_s <= _SLOWEST_PASS_S


def _like(median_s: float, like_s: float) -> bool:
    ratio = median_s / like_s
    return not any(slip / _SLIP_MARGIN <= ratio <= slip * _SLIP_MARGIN for slip in _SLIPS)


def _near(median_s: float, like_s: float) -> bool:
    return 1e-2 < median_s / like_s < 1e2


def _feasible(median_s: float, work_macs: float) -> bool:
    """Whether a device may take so long: small networks take a little whatever they compute."""
    speed = work_macs / median_s
    return speed <= _MOST_MACS_PER_S and (speed >= _LEAST_MACS_PER_S or median_s <= _OVERHEAD_S)


def _doubt(path: Path, median_s: float, unit: Unit, why: str, likely: Callable[[float], bool]) -> UsageError:
    written = median_s / SECONDS[unit]
    others = [one for one, scale in SECONDS.items() if one != unit and likely(written * scale)]
    question = " or ".join(_WORDS[one] for one in others)
    say = " or ".join(f"--unit {one}" for one in others)
    hint = f"were these {question}? say {say};" if others else "which unit are they in?"
    hint += f" if they are {_WORDS[unit]} all the same, say --unit {unit}"
    return UsageError(f"{path}: can {written:.4g} be {_WORDS[unit]}, as half the latencies are?", why=why, hint=hint)
