"""Figures from recorded rounds: pure functions, the same answer for the same record.

A candidate's latency is how it compares with the reference model around the same moment, times what the reference takes
as a rule on that table (the anchor). README.md says why, and what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toolchain.errors import UsageError
from toolchain.onboard.model import quiet
from toolchain.records import Latency, Round, Timed

RESAMPLES = 2000
MOST_DRIFT = 1.15
LEAST_SHARE_KEPT = 0.5
SAMPLES_FOR_P90 = 64
"""The fewest samples from which order statistics bound p90 with 99 % confidence (the rule of MLPerf LoadGen)."""
SAMPLES_FOR_P99 = 662
WINDOWS = 5
TROUBLE = ("unstable", "not-steady")
"""The worker's flags that put a figure in doubt."""

_RESAMPLED_AT_ONCE = 1 << 20

Floats = npt.NDArray[np.float64]


def anchor_s(timed: Iterable[Timed]) -> float:
    """What the reference model takes on this table, in seconds: the median over measurements of its median over rounds.

    Not one median over all rounds: a measurement that would not settle has many times the rounds of the others.

    Raises:
        UsageError: there is no measurement.
    """
    typical = [float(np.median([turn.reference_wall_s for turn in one.rounds])) for one in timed]
    if not typical:
        raise UsageError("the latency table holds no latency", hint="measure some subnets with `mostool profile`")
    return float(np.median(typical))


class Medians(NamedTuple):
    """What a measurement says without its interval, which takes most of the time to compute: see `latency`."""

    median_s: float
    raw_median_s: float
    n: int
    status: tuple[str, ...]


def medians(timed: Timed, anchor_s: float) -> Medians:
    """The medians of one measurement and what puts them in doubt, as `latency` has them."""
    samples = undisturbed_s(timed)
    median_s = float(np.median(ratios(timed))) * anchor_s
    return Medians(median_s, float(np.median(samples)), len(samples), _status(timed))


def latency(timed: Timed, anchor_s: float) -> Latency:
    """The figures of one measurement; `anchor_s` is its table's.

    `median_s` is paired: the median over rounds of (own fastest call / the reference's), times the anchor; README.md
    says why the fastest. `half_width_s` is half its 95 % bootstrap interval over rounds. The other figures are of the
    samples that did not wait for a processor: `raw_median_s` and `cpu_median_s` as they are; mean, minimum, p90 and p99
    times median_s / raw_median_s, so that they stand on one scale with `median_s`. `status` names what puts the figure
    in doubt: unstable, not-steady, contended, drifted; empty when nothing does.
    """
    kept = [quiet(list(turn.wall_s), list(turn.delay_s)) for turn in timed.rounds]
    cpus = [turn.cpu_s[i] for turn, chosen in zip(timed.rounds, kept, strict=True) for i in chosen]
    compared, samples = ratios(timed), undisturbed_s(timed)
    median_s, raw_median_s = float(np.median(compared)) * anchor_s, float(np.median(samples))
    scale = median_s / raw_median_s
    return Latency(
        median_s=median_s,
        half_width_s=half_width(compared) * anchor_s,
        raw_median_s=raw_median_s,
        cpu_median_s=float(np.median(cpus)),
        mean_s=scale * float(samples.mean()),
        minimum_s=scale * float(samples.min()),
        p90_s=scale * float(np.quantile(samples, 0.9)) if len(samples) >= SAMPLES_FOR_P90 else None,
        p99_s=scale * float(np.quantile(samples, 0.99)) if len(samples) >= SAMPLES_FOR_P99 else None,
        n=len(samples),
        rounds=len(timed.rounds),
        drift=reference_drift(timed.rounds),
        share_kept=share_kept(timed.rounds),
        status=_status(timed),
    )


def undisturbed_s(timed: Timed) -> Floats:
    """The samples that did not wait for a processor, as the clock said, in the order they were taken: [n] seconds."""
    chosen = [(turn, quiet(list(turn.wall_s), list(turn.delay_s))) for turn in timed.rounds]
    return np.array([turn.wall_s[i] for turn, kept in chosen for i in kept])


def ratios(timed: Timed) -> Floats:
    """Of each round its own fastest call over the reference's, [rounds]."""
    return np.array([min(turn.wall_s) / turn.reference_fastest_s for turn in timed.rounds])


def _status(timed: Timed) -> tuple[str, ...]:
    status = [flag for flag in timed.flags if flag in TROUBLE]
    status += ["contended"] * (share_kept(timed.rounds) < LEAST_SHARE_KEPT)
    return (*status, *["drifted"] * (reference_drift(timed.rounds) > MOST_DRIFT))


def half_width(ratios: Floats) -> float:
    """Half the 95 % interval of the median of `ratios` (n,), by the percentile bootstrap with a fixed seed."""
    rng = np.random.default_rng(0)
    at_once = max(1, _RESAMPLED_AT_ONCE // len(ratios))
    medians: list[Floats] = []
    for start in range(0, RESAMPLES, at_once):
        drawn = rng.integers(0, len(ratios), (min(at_once, RESAMPLES - start), len(ratios)))
        medians.append(np.median(ratios[drawn], axis=1))
    low, high = np.quantile(np.concatenate(medians), (0.025, 0.975))
    return float(high - low) / 2


def reference_drift(rounds: Sequence[Round]) -> float:
    """How far the reference wandered: the largest over the smallest of its medians in five stretches of the rounds."""
    reference = np.array([turn.reference_wall_s for turn in rounds])
    medians = [float(np.median(stretch)) for stretch in np.array_split(reference, min(WINDOWS, len(reference)))]
    return max(medians) / min(medians)


def share_kept(rounds: Sequence[Round]) -> float:
    """The share of samples that waited for a processor no longer than max(20 us, 1 % of the call)."""
    quiet_ones = sum(
        delay <= max(20e-6, 0.01 * wall)
        for turn in rounds
        for wall, delay in zip(turn.wall_s, turn.delay_s, strict=True)
    )
    return quiet_ones / sum(len(turn.wall_s) for turn in rounds)
