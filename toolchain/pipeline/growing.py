"""Which subnets a table gets next, and when it has enough: a number of them, or a predictor that is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from toolchain import predict as prediction
from toolchain import profiling
from toolchain.arrays import Floats, to_arrays
from toolchain.errors import UsageError
from toolchain.pipeline.run_records import RunRecords
from toolchain.records import Timed, Workload
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

FIRST = 12
"""Subnets measured before any are chosen by a model: the extremes, the middle, and a spread."""
BATCH = 6
SUBNETS = 40
"""What a table is to hold unless told otherwise."""
MOST = 200
"""What it holds at most with a goal, unless told otherwise."""
_CANDIDATES = 2000
_SEED = 1


class Goal(NamedTuple):
    """When to stop: a held-out error (MAPE plus its standard error) at most this, seconds spent, subnets measured."""

    target_error: float | None
    budget_s: float | None
    most: int = MOST


class Standing(NamedTuple):
    """How far a goal is: rows, and the held-out error so far with its standard error; None before there are enough."""

    rows: int
    mape: float | None = None
    doubt: float | None = None

    def meets(self, goal: Goal) -> bool:
        if goal.target_error is None or self.mape is None or self.doubt is None:
            return False
        return self.mape + self.doubt <= goal.target_error


def plan(space: SearchSpace, n: int) -> list[Architecture]:
    """The `n` architectures of a table, in order: the extremes and the middle, then random ones.

    Every other draw has layers all alike, which spreads the latencies wider. A longer plan begins with a shorter one.
    Where precision is among the axes, the smallest is all int8, the largest and the middle all fp32; then come the
    largest all int8 and the smallest all fp32.
    """
    rng = np.random.default_rng(0)
    first = [space.smallest(), space.largest(), space.middle()]
    declared = declaration(space.family)
    if declared.has_bits(space.largest()):
        first += [declared.at_bits(space.largest(), 8), declared.at_bits(space.smallest(), 32)]
    drawn = {one.id: one for one in first}
    limit = min(n, space.size())
    tries = 0
    while len(drawn) < limit and tries < 200 * n:
        one = space.sample_even(rng) if tries % 2 else space.sample(rng)
        drawn.setdefault(one.id, one)
        tries += 1
    return list(drawn.values())[:n]


def wanted(run: RunRecords, given: Sequence[Architecture], n: int, *, mixed: bool) -> list[Architecture]:
    """The architectures that are given, else the `n` of the plan; with `mixed` of the run's space with bits.

    Raises:
        UsageError: an architecture with bits for a table of fp32; a plan of mixed precisions for a run of one subnet.
    """
    declared = run.declared
    if not mixed and any(declared.has_bits(one) for one in given):
        raise UsageError(
            "an architecture with bits belongs in a table of mixed precision", hint="add --precision mixed"
        )
    if not mixed:
        return distinct(given or plan(run.info.space, n))
    if not given and run.info.space.point is not None:
        raise UsageError(
            f"{run.folder} holds one subnet, so there are no mixed precisions to draw from",
            hint="name the precisions to measure with --arch, or a supernet's run with --run",
        )
    all_bits = [one if declared.has_bits(one) else declared.at_bits(one, 32) for one in given]
    return distinct(all_bits or plan(run.bits_space, n))


def distinct(architectures: Sequence[Architecture]) -> list[Architecture]:
    return list({one.id: one for one in architectures}.values())


def batches(
    table: profiling.LatencyTable, goal: Goal, told: Callable[[Standing], None], began: float
) -> Iterator[list[Architecture]]:
    """What to measure next, until the goal is met: the start of the plan, then the most telling of random subnets.

    The choice depends on the table's rows alone, so a run that was stopped goes on as if it had not been. `began` is
    when the budget's clock started (time.monotonic).
    """
    space, workload = table.info.space, table.info.workload
    first = [one for one in plan(space, min(FIRST, goal.most)) if not table.done(one)]
    if first:
        yield first
    while True:
        known = table.measurements
        standing = _standing(table, space, workload)
        told(standing)
        spent = time.monotonic() - began
        if standing.meets(goal) or (goal.budget_s is not None and spent >= goal.budget_s) or len(known) >= goal.most:
            return
        chosen = [one for one in _next(table) if not table.done(one)][: goal.most - len(known)]
        if not chosen:
            return
        yield chosen


def _next(table: profiling.LatencyTable) -> list[Architecture]:
    """The batch that follows the table's last whole one: the same whether or not some of it is measured already.

    Fewer than a batch are, since they would make it a whole one: so there is always something left to measure.
    """
    space, workload = table.info.space, table.info.workload
    rows = table.measurements
    whole = rows[: max(FIRST, len(rows) - (len(rows) - FIRST) % BATCH)]
    drawn = _draw(space, {one.architecture.id for one in whole}, seed=len(whole))
    if not drawn:
        return []
    measured = _features(space, [one.architecture for one in whole], workload)
    telling = prediction.most_telling(_features(space, drawn, workload), measured, BATCH)
    return [drawn[row] for row in telling]


def _standing(table: profiling.LatencyTable, space: SearchSpace, workload: Workload) -> Standing:
    """How wrong a linear model of the rows so far is on those it has not seen."""
    timed = [(one.architecture, one.outcome) for one in table.measurements if isinstance(one.outcome, Timed)]
    if len(timed) < prediction.MINIMUM_ROWS:
        return Standing(len(timed))
    anchor = profiling.anchor_s(outcome for _, outcome in timed)
    architectures = [architecture for architecture, _ in timed]
    rows = prediction.Rows.of(
        tuple(one.id for one in architectures),
        declaration(space.family).features(space, to_arrays(space, architectures), workload),
        np.array([profiling.latency(outcome, anchor).median_s for _, outcome in timed]),
    )
    about = prediction.About(table.info.target, workload, space, "", "measured", table.info.environment)
    fitted = prediction.fit_predictor(rows, about, {"linear": prediction.KINDS["linear"]})
    errors = np.array([abs(guess / measured - 1) for _, measured, guess in fitted.points])
    return Standing(len(timed), float(errors.mean()), float(errors.std() / np.sqrt(len(errors))))


def _features(space: SearchSpace, architectures: list[Architecture], workload: Workload) -> Floats:
    features = declaration(space.family).features(space, to_arrays(space, architectures), workload)
    return np.stack(list(features.values()), axis=1)


def _draw(space: SearchSpace, known: set[str], seed: int) -> list[Architecture]:
    """Random subnets that the table does not hold: every tenth has layers all alike."""
    rng = np.random.default_rng((_SEED, seed))
    drawn: dict[str, Architecture] = {}
    for number in range(_CANDIDATES):
        one = space.sample_even(rng) if number % 10 == 9 else space.sample(rng)
        if one.id not in known:
            drawn.setdefault(one.id, one)
    return list(drawn.values())
