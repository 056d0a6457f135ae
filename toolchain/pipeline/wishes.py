"""What a search is asked for, and what that means for a run and its devices' tables."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from toolchain import search as searching
from toolchain.errors import DeviceError, InfeasibleError, IntegrityError, MostoolError, UsageError
from toolchain.pipeline.course import earlier_results
from toolchain.pipeline.latencies import header_file
from toolchain.pipeline.pricing import Asked, Prices, price_on
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.records import (
    DEVICE_METRICS,
    MEDIAN,
    Budget,
    Evaluation,
    FilePrecision,
    Metric,
    Percentile,
    Quantity,
    Workload,
    cost_key,
)
from toolchain.space import Architecture, Axis, SearchSpace

_MOST_SETS = 100


class Limits(NamedTuple):
    """One or several limits of one cost: several make a sweep. `target` None: the device that is searched for."""

    metric: Metric
    limits: tuple[float, ...]
    target: str | None = None
    percentile: Percentile = 50


class Objective(NamedTuple):
    """What quality is traded against."""

    metric: Metric
    target: str | None = None
    percentile: Percentile = 50


class Wish(NamedTuple):
    """What a search is asked for.

    Attributes:
        limits: the budgets. With several limits the best subnet of each combination is looked for in one go.
        objectives: quality against these; none: against the first device's latency, else the first budget's cost.
        device: the device that is searched for; None: the one that was profiled last.
        workload: of whose table; None: the one profiled last.
        precision: of the files: `mixed` searches it with the architecture. None: as the device was profiled last.
        remeasure: so many of the best are measured on the device three times during the search, and winners at its
            end; 0: nothing is measured.
        racing: hopeless subnets are given up before they have seen all validation items.
        warm: what earlier searches of the run have evaluated is known from the start.
        workers, scheduler: who evaluates: see pipeline/workers.py.
    """

    limits: tuple[Limits, ...] = ()
    objectives: tuple[Objective, ...] = ()
    device: str | None = None
    workload: Workload | None = None
    precision: FilePrecision | None = None
    searcher: str = "assisted"
    evaluations: int = 100
    batch: int = searching.BATCH
    seed: int = 0
    remeasure: int = 3
    racing: bool = True
    warm: bool = False
    fresh: bool = False
    workers: int = 1
    scheduler: str | None = None

    @property
    def main(self) -> str | None:
        """The device that is searched for: the one that is named, first of all by `device`; None: the last profiled."""
        named = [*(one.target for one in self.limits), *(one.target for one in self.objectives)]
        return self.device or next((target for target in named if target is not None), None)


def resolved_space(project: Project, run: Run, wish: Wish) -> SearchSpace:
    """The run's space, or that with the precision of the weights as further axes."""
    precision = wish.precision
    if precision is None and run.mixes:
        tables = [project.find_table(wish.main, space, wish.workload) for space in (run.info.space, run.bits_space)]
        used_at = [header_file(table).stat().st_mtime_ns if table else -1 for table in tables]
        precision = "mixed" if used_at[1] > used_at[0] else "fp32"
    if precision in {None, "fp32"}:
        return run.info.space
    if precision == "mixed":
        return run.bits_space
    known = {axis.name for axis in run.info.space.axes}
    axes = tuple(axis if axis.name in known else Axis(axis.name, (8,), axis.per) for axis in run.bits_space.axes)
    return msgspec.structs.replace(run.bits_space, name=f"{run.info.space.name}-int8", axes=axes)


def costs_asked_for(project: Project, run: Run, space: SearchSpace, wish: Wish) -> list[Asked]:
    """What devices are asked for: the median latency of the one that is searched for first, where it has a table."""
    limits = [(one.metric, one.percentile, one.target) for one in wish.limits]
    objectives = [(one.metric, one.percentile, one.target) for one in wish.objectives]
    asked = [
        Asked(target or wish.main, Quantity(metric=metric, percentile=percentile))
        for metric, percentile, target in (*limits, *objectives)
        if metric in DEVICE_METRICS
    ]
    if asked or wish.device is not None or wish.workload is not None:
        return [Asked(wish.main, MEDIAN), *asked]
    try:
        price_on(project, run, space, Asked(None, MEDIAN), None)
    except UsageError:
        return []  # no table yet, or too few rows, and nothing asks for it
    except (DeviceError, IntegrityError):  # a table that may not be used: it is not needed where something else limits
        if not wish.limits:
            raise
        return []
    return [Asked(None, MEDIAN)]


def budget_sets_of(wish: Wish, prices: Prices) -> list[tuple[Budget, ...]]:
    """Every combination of the limits, the loosest first."""
    devices = {one.target: one for one in prices.devices}
    main = next(iter(devices), None)

    def budget(one: Limits, limit: float) -> Budget:
        if one.metric not in DEVICE_METRICS:
            return Budget(metric=one.metric, limit=limit)
        target = one.target or wish.main or main
        workload = devices[target].workload if target in devices else None
        return Budget(metric=one.metric, limit=limit, target=target, workload=workload, percentile=one.percentile)

    choices = [[budget(one, limit) for limit in sorted(set(one.limits), reverse=True)] for one in wish.limits]
    sets = list(itertools.product(*choices))
    keys = [budgets[0].key for budgets in choices]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UsageError(f"two options limit {twice}", hint="several limits of one cost go into one option: 2ms,5ms")
    if len(sets) > _MOST_SETS:
        raise UsageError(f"these limits make {len(sets)} combinations", hint=f"at most {_MOST_SETS} fit one sweep")
    return sets


def objectives_of(wish: Wish, prices: Prices, budget_sets: Sequence[tuple[Budget, ...]]) -> tuple[str, ...]:
    """The names of the costs that quality is traded against."""
    devices = [one.target for one in prices.devices]
    if wish.objectives:
        names = [
            cost_key(one.metric, one.target or wish.main or (devices[0] if devices else None), one.percentile)
            for one in wish.objectives
        ]
        return tuple(dict.fromkeys(names))
    budgets = budget_sets[0]
    latency = next((budget.key for budget in budgets if budget.metric == "latency_s"), None)
    if latency is None and devices:
        latency = cost_key("latency_s", devices[0])
    return (latency or (budgets[0].key if budgets else "parameters"),)


def halfway(prices: Prices, objective: str) -> Budget:
    small, large = prices.costs([prices.space.smallest(), prices.space.largest()])
    limit = (small[objective].upper + large[objective].upper) / 2
    for one in prices.predictors:
        if objective == cost_key(one.quantity.metric, one.target, one.quantity.percentile):
            quantity = one.quantity
            return Budget(
                metric=quantity.metric,
                limit=limit,
                target=one.target,
                workload=one.workload,
                percentile=quantity.percentile,
            )
    return Budget(metric="size_bytes" if objective == "size_bytes" else "parameters", limit=limit)


def first_subnets(prices: Prices, budget_sets: Sequence[tuple[Budget, ...]], seed: int) -> list[Architecture]:
    """One subnet for each set of budgets that can be kept, and of the extremes those that keep the loosest.

    What was measured is known to fit where a prediction's interval would leave it in doubt.

    Raises:
        InfeasibleError: the loosest set cannot be kept.
    """
    extremes = [prices.space.smallest(), prices.space.largest()]
    known = [*extremes, *prices.known()]
    costs = prices.costs(known)
    found: list[Architecture] = []
    for number, budgets in enumerate(budget_sets):
        fits = [one for one, cost in zip(known, costs, strict=True) if searching.violation(cost, budgets) == 0]
        try:
            found.append(
                fits[0]
                if fits
                else searching.fitting(prices.space, budgets, prices.price, seed, costs=prices.costs, known=known)
            )
        except InfeasibleError:
            if not number:
                raise  # of the others their picks will say so
    kept = [searching.violation(cost, budget_sets[0]) == 0 for cost in costs[:2]]
    return [*found, *(one for one, fit in zip(extremes, kept, strict=True) if fit)]


def earlier_evaluations(run: Run, space: SearchSpace) -> list[Evaluation]:
    """What earlier searches of this run have evaluated in full."""
    found: dict[str, Evaluation] = {}
    for result in earlier_results(run.search_folder):
        if result.checkpoint_sha256 == run.checkpoint_sha256:
            found |= {one.architecture.id: one for one in result.evaluations if not one.stopped}
    bits = space.axes != run.info.space.axes
    kept: dict[str, Evaluation] = {}
    for one in found.values():
        if bits and not run.declared.has_bits(
            one.architecture
        ):  # what the supernet answered is what the fp32 file does
            one = msgspec.structs.replace(one, architecture=run.declared.at_bits(one.architecture, 32))  # noqa: PLW2901
        with contextlib.suppress(MostoolError):
            space.check(one.architecture)
            kept[one.architecture.id] = one
    return [kept[name] for name in sorted(kept)]


def digested(
    run: Run,
    space: SearchSpace,
    wish: Wish,
    budget_sets: Sequence[tuple[Budget, ...]],
    objectives: tuple[str, ...],
    prices: Prices,
) -> dict[str, object]:
    """All that decides what a search does; not who evaluates, which changes nothing."""
    devices = [(one.target, one.workload.slug) for one in prices.devices]
    return {
        "space": space.digest,
        "checkpoint": run.checkpoint_sha256,
        "budgets": [[(budget.key, budget.limit) for budget in budgets] for budgets in budget_sets],
        "objectives": objectives,
        "devices": devices,
        **{
            name: getattr(wish, name)
            for name in ("searcher", "evaluations", "batch", "seed", "remeasure", "racing", "warm")
        },
    }
