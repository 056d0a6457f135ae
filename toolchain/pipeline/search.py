"""search: the best subnets of a run under budgets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from toolchain import search as searching
from toolchain.errors import DeviceError, InfeasibleError, UsageError
from toolchain.pipeline.course import Course
from toolchain.pipeline.judging import Judge
from toolchain.pipeline.pricing import Prices
from toolchain.pipeline.profile import Request, profile
from toolchain.pipeline.project import Project, write_run_info
from toolchain.pipeline.runs import Run
from toolchain.pipeline.wishes import (
    Wish,
    budget_sets_of,
    costs_asked_for,
    digested,
    earlier_evaluations,
    first_subnets,
    halfway,
    objectives_of,
    resolved_space,
)
from toolchain.pipeline.workers import open_executor
from toolchain.progress import ProgressListener, silent
from toolchain.records import (
    Budget,
    Evaluation,
    PredictorInfo,
    SearchResult,
    now,
    write_record,
)
from toolchain.space import Architecture
from toolchain.targets import read_target

_USABLE_MAPE = 0.15
_USABLE_TAU = 0.8
"""A predictor that is worse than either on rows it has not seen is no ground for a choice."""


class Searched(NamedTuple):
    """A search's result, and what the user should know about it.

    Attributes:
        asked: validation items that subnets answered now; what was remembered is not among them.
        interrupted: it was stopped by Ctrl-C: the result is what was found until then.
    """

    result: SearchResult
    warnings: list[str]
    asked: int = 0
    interrupted: bool = False


def search(project: Project, run: Run, wish: Wish, *, listener: ProgressListener = silent) -> Searched:
    """Search the run's space; the result is kept in the run's folder and is what export builds next.

    Quality comes from the supernet (of subnets with int8 weights, from the file) on validation data, costs from the
    devices' tables: predicted at first, measured where it matters. Without budgets the limit is half-way between the
    smallest and the largest subnet. The same wish takes up a search that was stopped.

    Raises:
        InfeasibleError: no subnet keeps the budgets.
        UsageError: a budget on a device without a table.
        DeviceError: a device that is to be measured is not there.
    """
    if run.info.space.point is not None:
        raise UsageError(
            f"{run.folder} holds one subnet, there is nothing to search",
            hint="ship it with mostool export, or name a supernet's run with --run",
        )
    space = resolved_space(project, run, wish)
    prices = Prices(project, run, space, costs_asked_for(project, run, space, wish), wish.workload)
    budget_sets = budget_sets_of(wish, prices)
    warnings = [doubt for one in prices.predictors for doubt in _doubts(one)]
    objectives = objectives_of(wish, prices, budget_sets)
    course = Course(run.search_folder, digested(run, space, wish, budget_sets, objectives, prices), prices.folders)
    chosen: Budget | None = None
    if not budget_sets[0]:
        chosen = (course.find_budget() if not wish.fresh else None) or halfway(prices, objectives[0])
        budget_sets = [(chosen,)]
        limit = searching.spell(objectives[0], budget_sets[0][0].limit)
        warnings.append(
            f"no budget given: searched under {limit}, half-way between the smallest and the largest subnet"
        )
    # Of one under way the tables have grown since: whether it could begin now is not asked.
    first = [] if course.under_way(fresh=wish.fresh) else first_subnets(prices, budget_sets, wish.seed)
    course.open(earlier_evaluations(run, space) if wish.warm else (), fresh=wish.fresh, budget=chosen)
    with contextlib.closing(course):
        if course.result is not None:
            write_record(run.search_folder / "result.json", course.result)
            return Searched(course.result, [*warnings, "this search was done before: --fresh searches anew"])
        done = _Searching(project, run, wish, prices, budget_sets, objectives)
        searched = done.search(course, first, listener)
        return searched._replace(warnings=[*warnings, *course.repairs, *searched.warnings])


class _Searching:
    """One search, from what was resolved for it to its result."""

    def __init__(
        self,
        project: Project,
        run: Run,
        wish: Wish,
        prices: Prices,
        budget_sets: Sequence[tuple[Budget, ...]],
        objectives: tuple[str, ...],
    ) -> None:
        self._project, self._run, self._wish, self._prices = project, run, wish, prices
        self._budget_sets, self._objectives = tuple(budget_sets), objectives
        self._told: dict[str, list[str]] = {}

    def search(self, course: Course, first: Sequence[Architecture], listener: ProgressListener) -> Searched:
        started_at, wish, run, prices = now(), self._wish, self._run, self._prices
        problem = searching.Problem(prices.space, prices.price, self._budget_sets[0], self._objectives)
        with (
            open_executor(wish.workers, wish.scheduler) as executor,
            Judge(run, executor=executor, racing=wish.racing) as judge,
        ):
            smallest, largest = self._extremes(judge)
            under_way = searching.Search(
                searching.Wanted(
                    objectives=self._objectives,
                    budget_sets=self._budget_sets,
                    evaluations=wish.evaluations,
                    scale=self._scale(smallest, largest),
                    batch=wish.batch,
                ),
                searching.build_searcher(wish.searcher, problem, wish.seed),
                prices.costs,
                judge.judge,
                measuring=self._measuring(listener),
                first=first,
                before=course.before,
                keep=course.keep,
                listener=listener,
            )
            interrupted = False
            try:
                under_way.replay(list(course.steps))
                under_way.run()
            except KeyboardInterrupt:
                interrupted = True
            smallest, largest = self._extremes(judge)  # as they cost by now
            under_way.settle(self._scale(smallest, largest))
            found, repairs, asked = under_way.found, list(judge.repairs), judge.asked
        if not found.picks or found.picks[0].index is None:
            if interrupted:
                raise KeyboardInterrupt
            raise InfeasibleError(
                "no subnet that was looked at keeps the budgets, now that some were measured",
                why=found.picks[0].nearest,
                hint="raise the budget, profile more subnets, or give --evaluations more",
            )
        result = self._result(found, smallest, largest)
        write_record(run.search_folder / "result.json", result)
        if not interrupted:
            course.end(result)
        outputs = (run.search_folder / "result.json",)
        write_run_info(run.search_folder / "run.json", "search", wish._asdict(), started_at, outputs=outputs)
        return Searched(result, [*repairs, *self._remarks(found, result, interrupted=interrupted)], asked, interrupted)

    def _extremes(self, judge: Judge) -> tuple[Evaluation, Evaluation]:
        space, prices = self._prices.space, self._prices
        both = [space.smallest(), space.largest()]
        costs = prices.costs(both)
        small, large = (
            Evaluation(
                architecture=one,
                quality=judged.quality,
                costs=cost,
                feasible=searching.violation(cost, self._budget_sets[0]) == 0,
            )
            for one, cost, judged in zip(both, costs, judge.judge(both), strict=True)
        )
        return small, large

    def _scale(self, smallest: Evaluation, largest: Evaluation) -> searching.Scale:
        """Hypervolume in units of the smallest subnet's corner to the budgets', or the largest subnet's."""
        limits = {budget.key: budget.limit for budget in self._budget_sets[0]}
        cheapest = np.array([smallest.costs[name].value for name in self._objectives])
        dearest = np.array(
            [min(limits.get(name, np.inf), largest.costs[name].value) for name in self._objectives], dtype=np.float64
        )
        worst, best = sorted((smallest.quality.value, largest.quality.value))
        one_item = 1 / smallest.quality.n  # extremes that are equally good would make any figure of any gain
        return searching.Scale(cheapest, dearest, worst, max(best, worst + one_item))

    def _measuring(self, listener: ProgressListener) -> searching.Measuring | None:
        """Of the devices that somebody here has measured; an imported table's nobody here may have."""
        project, run, prices = self._project, self._run, self._prices
        devices = [one for one in prices.devices if one.source != "imported"][::-1]
        if not self._wish.remeasure or not devices:
            return None

        def measure(chosen: Sequence[Architecture]) -> None:
            for device in devices:  # the first of them last, so that its table stays the one used last
                target = read_target(device.target, project.root)
                request = Request(device.workload, len(chosen), list(chosen), mixed=prices.mixed_on(device.target))
                try:
                    self._told[device.target] = profile(project, run, target, request, listener=listener).warnings
                except DeviceError as error:
                    hint = f"{error.hint}; or search without measuring: --remeasure 0"
                    raise DeviceError(error.what, why=error.why, hint=hint) from error
            prices.read_anew()

        return searching.Measuring(measure, self._wish.remeasure)

    def _result(self, found: searching.Found, smallest: Evaluation, largest: Evaluation) -> SearchResult:
        devices, best = self._prices.devices, found.picks[0].index
        if best is None:
            raise ValueError("a result has a winner")
        return SearchResult(
            space=self._prices.space,
            searcher=self._wish.searcher,
            seed=self._wish.seed,
            budgets=self._budget_sets[0],
            winner=found.evaluations[best],
            smallest=smallest,
            largest=largest,
            evaluations=tuple(found.evaluations),
            front=tuple(found.front),
            checkpoint_sha256=self._run.checkpoint_sha256,
            target=devices[0].target if devices else None,
            workload=devices[0].workload if devices else None,
            predictor_sha256=devices[0].predictor_sha256 if devices else None,
            created_at=now(),
            objectives=self._objectives,
            devices=devices,
            picks=found.picks,
            trace=found.trace,
        )

    def _remarks(self, found: searching.Found, result: SearchResult, *, interrupted: bool) -> list[str]:
        spent = sum(one.batch >= 0 for one in found.evaluations)
        remarks = list(dict.fromkeys(told for several in self._told.values() for told in several))
        if spent < self._wish.evaluations and not interrupted:
            remarks.append(
                f"the search ended after {spent} subnet{'' if spent == 1 else 's'}: nothing new that fits was found"
            )
        remarks.extend(
            f"the winner's latency on {device} is extrapolated: it is far from all that was measured there; "
            "profile it with --arch, then search again"
            for device in dict.fromkeys(self._prices.extrapolated(result.winner.architecture))
        )
        return remarks


def _doubts(predictor: PredictorInfo) -> list[str]:
    """What a predictor's own error says against searching with it."""
    error, doubts = predictor.error, []
    if predictor.source == "imported":
        doubts.append(f"the latencies of {predictor.target} are imported: nobody here has measured them")
    if error.mape <= _USABLE_MAPE and error.kendall_tau >= _USABLE_TAU:
        return doubts
    doubts.append(
        f"the predictor of {predictor.target} is {100 * error.mape:.0f} % wrong in the mean and ranks subnets with "
        f"Kendall tau {error.kendall_tau:.2f}: its latencies are guesses; profile more subnets, on a quieter device"
    )
    return doubts
