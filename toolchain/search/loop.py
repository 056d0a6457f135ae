"""The search loop: costs are cheap and come first; a quality evaluation is spent only on what keeps the budgets.

Batch by batch the searcher asks, the judge tells what the subnets are worth, and now and then the best few are measured
on the device, after which everything found so far is priced anew. Each batch and each choice of what to measure is a
step; from the steps of a search that was stopped the same search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from toolchain.arrays import Floats
from toolchain.progress import Progress, ProgressListener
from toolchain.records import Budget, Cost, Evaluation, Pick, Quality, Stored, TracePoint
from toolchain.search.budgets import Costs, gap, spell, violation
from toolchain.search.front import front_indices, hypervolume
from toolchain.search.problem import Told
from toolchain.search.proposing import Searcher
from toolchain.space import Architecture

BATCH = 5
"""Small, since the model learns from each: five at a time needed fewer evaluations than ten."""
_RIVALS = 3
_FINAL_LOOKS = 8
"""How often a winner may turn out dearer than predicted before the search leaves it at that."""


class Judged(Protocol):
    """What a subnet is worth; `stopped`: estimated, since a rival that costs no more was surely better."""

    @property
    def quality(self) -> Quality: ...
    @property
    def stopped(self) -> bool: ...


Judge = Callable[[Sequence[Architecture], Sequence[Sequence[Architecture]]], Sequence[Judged]]
"""Evaluates subnets, each beside its rivals: subnets known in full that cost no more in any respect."""


class Step(Stored, frozen=True):
    """One step of a search: a batch that was evaluated, or else subnets (or none) that were chosen to be measured."""

    evaluations: tuple[Evaluation, ...] = ()
    to_measure: tuple[Architecture, ...] = ()


class Measuring(NamedTuple):
    """Re-measurement: `measure` measures subnets on the devices, of which `costs` knows from then on.

    `at_once` subnets are measured `rounds` times over the search, and winners at its end until one keeps its promise.
    """

    measure: Callable[[Sequence[Architecture]], None]
    at_once: int
    rounds: int = 3


class Scale(NamedTuple):
    """What hypervolume is measured against: the cheapest costs and the dearest [objectives], the quality of each."""

    cheapest: Floats
    dearest: Floats
    worst: float
    best: float


class Wanted(NamedTuple):
    """What a search is to find: the front in quality and `objectives`, and the best for each set of budgets.

    The first set is the loosest: what exceeds it is not looked at.
    """

    objectives: tuple[str, ...]
    budget_sets: tuple[tuple[Budget, ...], ...]
    evaluations: int
    scale: Scale
    batch: int = BATCH


class Found(NamedTuple):
    """What a search found: every subnet it looked at, the front as indices, a pick for each set of budgets."""

    evaluations: list[Evaluation]
    front: list[int]
    picks: tuple[Pick, ...]
    trace: tuple[TracePoint, ...]


class Search:
    """A search under way. `found` is what it amounts to so far, whenever it is asked, on the scale of `settle`."""

    def __init__(
        self,
        wanted: Wanted,
        searcher: Searcher,
        costs: Costs,
        judge: Judge,
        *,
        measuring: Measuring | None = None,
        first: Sequence[Architecture] = (),
        before: Sequence[Evaluation] = (),
        keep: Callable[[Step], None] = lambda _: None,
        listener: ProgressListener,
    ) -> None:
        """
        Args:
            first: looked at before the searcher is asked: some that keep budgets which hardly a draw would keep.
            before: evaluations of earlier searches: they teach, they may win, and they are not counted.
        """
        self._wanted, self._searcher, self._costs, self._judge = wanted, searcher, costs, judge
        self.scale = wanted.scale
        self._measuring, self._keep, self._listener = measuring, keep, listener
        self._evaluations = [msgspec.structs.replace(one, batch=-1) for one in before]
        self._before = len(before)
        self._first = {one.id: one for one in first}
        self._measured: set[str] = set()
        self._rounds = 0
        self._batches = 0
        self._told = ""
        self._price_anew()

    # -- going on -----------------------------------------------------------------------------------------------

    def replay(self, steps: Sequence[Step]) -> None:
        """Take up a search that was stopped, where it was."""
        for step in steps:
            self._take(step.evaluations)
            self._batches += bool(step.evaluations)
            if not step.evaluations:
                self._rounds += 1
                self._measure(step.to_measure)
        self._price_anew()

    def run(self) -> None:
        """Search to the end: until the evaluations are spent, or the searcher has nothing new that fits."""
        wanted = self._wanted
        known = {one.architecture.id for one in self._evaluations}
        first = [one for name, one in self._first.items() if name not in known]
        if not self._batches and first:
            self._look_at(first[: wanted.evaluations])
        while self._spent < wanted.evaluations:
            self._measure_if_due()
            self._reopen()
            asked = self._searcher.ask(min(wanted.batch, wanted.evaluations - self._spent))
            if not asked:
                break
            self._look_at(asked)
        self._confirm()

    @property
    def _spent(self) -> int:
        return len(self._evaluations) - self._before

    def _look_at(self, asked: Sequence[Architecture], *, racing: bool = True) -> None:
        costs = self._costs(asked)
        judged = self._judge(asked, [self._rivals(cost) if racing else [] for cost in costs])
        fresh = [
            Evaluation(
                architecture=architecture,
                quality=one.quality,
                costs=cost,
                feasible=violation(cost, self._wanted.budget_sets[0]) == 0,
                stopped=one.stopped,
                batch=self._batches,
            )
            for architecture, cost, one in zip(asked, costs, judged, strict=True)
        ]
        self._batches += 1
        self._take(fresh)
        self._keep(Step(evaluations=tuple(fresh)))
        self._price_anew()  # all in one go, as the one that takes this up will: last bits depend on what goes together
        self._tell_progress()

    def settle(self, scale: Scale) -> None:
        """At the end, on a scale of what is known by now: figures that it, or the last measurements, changed are told
        again."""
        self.scale = scale
        if self._told and self._note() != self._told:
            self._tell_progress()

    def _tell_progress(self) -> None:
        self._told = self._note()
        self._listener(Progress("search", self._spent, self._wanted.evaluations, self._told))

    def _take(self, evaluations: Sequence[Evaluation]) -> None:
        """Add these; one that was known already is known anew, in its place."""
        places = {one.architecture.id: place for place, one in enumerate(self._evaluations)}
        for one in evaluations:
            place = places.get(one.architecture.id)
            if place is None:
                self._evaluations.append(one)
            else:
                self._evaluations[place] = msgspec.structs.replace(one, batch=self._evaluations[place].batch)

    def _reopen(self) -> None:
        """Judge in full what was given up beside a rival that does not beat it after all: prices have changed since."""
        again = [
            one.architecture for one in self._evaluations if one.stopped and one.feasible and not self._beaten(one)
        ]
        if again:
            self._look_at(again, racing=False)

    def _beaten(self, stopped: Evaluation) -> bool:
        """Whether something known in full is better than it was estimated to be, and costs no more."""
        rivals = {one.id for one in self._rivals(stopped.costs)}
        return any(
            one.architecture.id in rivals and one.quality.value >= stopped.quality.value for one in self._evaluations
        )

    def _rivals(self, costs: dict[str, Cost]) -> list[Architecture]:
        """The best known in full that cost no more in any respect that counts."""
        names = {*self._wanted.objectives, *(budget.key for budgets in self._wanted.budget_sets for budget in budgets)}
        cheaper = [
            one
            for one in self._evaluations
            if one.batch >= 0  # of what earlier searches told the judge need not know all answers
            and not one.stopped
            and one.feasible
            and all(_no_dearer(one.costs[name], costs[name]) for name in names)
        ]
        best = sorted(cheaper, key=lambda one: (-one.quality.value, one.architecture.id))
        return [one.architecture for one in best[:_RIVALS]]

    def _tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._searcher.tell(
            [Told(one.architecture, one.quality.value, self._objectives(one), one.feasible) for one in evaluations]
        )

    def _objectives(self, one: Evaluation) -> tuple[float, ...]:
        return tuple(one.costs[name].value for name in self._wanted.objectives)

    # -- measuring what was found -------------------------------------------------------------------------------

    def _measure_if_due(self) -> None:
        if self._measuring is None:
            return
        due = self._spent * (self._measuring.rounds + 1) // self._wanted.evaluations
        if due > self._rounds:
            self._choose_and_measure(self._worth_measuring()[: self._measuring.at_once])

    def _confirm(self) -> None:
        """Measure the winners, until what wins has been measured."""
        if self._measuring is None:
            return
        for _ in range(_FINAL_LOOKS):
            self._reopen()
            picked = [self._evaluations[index].architecture for index in self._picked() if index is not None]
            unsure = {one.id: one for one in picked if one.id not in self._measured}
            if not unsure:
                return
            self._choose_and_measure(list(unsure.values()))

    def _choose_and_measure(self, chosen: Sequence[Architecture]) -> None:
        self._rounds += 1
        self._keep(Step(to_measure=tuple(chosen)))
        self._measure(chosen)
        self._price_anew()

    def _worth_measuring(self) -> list[Architecture]:
        """The picks, then the front from its best on: each as long as nobody measured it."""
        front = self._front()
        numbers = [*(index for index in self._picked() if index is not None), *front[::-1]]
        found = {self._evaluations[index].architecture.id: self._evaluations[index].architecture for index in numbers}
        return [one for name, one in found.items() if name not in self._measured]

    def _measure(self, chosen: Sequence[Architecture]) -> None:
        if self._measuring is not None and chosen:
            self._measuring.measure(chosen)
            self._measured |= {one.id for one in chosen}

    def _price_anew(self) -> None:
        """What is known of costs has changed: of everything found, and of what the searcher was told."""
        if not self._evaluations:
            return
        costs = self._costs([one.architecture for one in self._evaluations])
        loosest = self._wanted.budget_sets[0]
        self._evaluations = [
            msgspec.structs.replace(one, costs=cost, feasible=violation(cost, loosest) == 0)
            for one, cost in zip(self._evaluations, costs, strict=True)
        ]
        self._tell(self._evaluations)

    # -- what it amounts to -------------------------------------------------------------------------------------

    @property
    def found(self) -> Found:
        return Found(self._evaluations, self._front(), tuple(self._picks()), tuple(self._trace()))

    def _front(self) -> list[int]:
        numbers = [index for index, one in enumerate(self._evaluations) if one.feasible and not one.stopped]
        if not numbers:
            return []
        costs = np.array([self._objectives(self._evaluations[index]) for index in numbers])
        return [numbers[at] for at in front_indices([self._quality(index) for index in numbers], costs)]

    def _quality(self, index: int) -> float:
        return self._evaluations[index].quality.value

    def _picked(self) -> list[int | None]:
        """For each set of budgets the best that keeps it: of equally good ones the cheapest."""
        picked: list[int | None] = []
        for budgets in self._wanted.budget_sets:
            fit = [
                index
                for index, one in enumerate(self._evaluations)
                if not one.stopped and violation(one.costs, budgets) == 0
            ]
            best = max(fit, key=lambda index: (self._quality(index), *self._cheapness(index)), default=None)
            picked.append(best)
        return picked

    def _cheapness(self, index: int) -> Iterator[float]:
        return (-cost for cost in self._objectives(self._evaluations[index]))

    def _picks(self) -> Iterator[Pick]:
        for budgets, index in zip(self._wanted.budget_sets, self._picked(), strict=True):
            yield Pick(budgets=budgets, index=index, nearest="" if index is not None else self._nearest(budgets))

    def _nearest(self, budgets: tuple[Budget, ...]) -> str:
        if not self._evaluations:
            return "nothing was evaluated"
        seen = [one for one in self._evaluations if not one.stopped] or self._evaluations
        nearest = min(seen, key=lambda one: (violation(one.costs, budgets), one.architecture.id))
        gaps = (
            gap(budget, nearest.costs[budget.key])
            for budget in budgets
            if nearest.costs[budget.key].upper > budget.limit
        )
        return f"the nearest that was looked at, {nearest.architecture.id}, takes {', '.join(gaps)}"

    def _trace(self) -> Iterator[TracePoint]:
        """After each batch, with what costs are known to be now."""
        counted = self._evaluations[self._before :]
        ends = [n for n in range(1, len(counted) + 1) if n == len(counted) or counted[n].batch != counted[n - 1].batch]
        for end in ends:
            yield self._trace_point(self._evaluations[: self._before + end], end)

    def _trace_point(self, evaluations: Sequence[Evaluation], spent: int) -> TracePoint:
        known = [one for one in evaluations if one.feasible and not one.stopped]
        if not known:
            return TracePoint(evaluations=spent, hypervolume=0.0, best=0.0)
        scale = self.scale
        quality = np.array([one.quality.value for one in known])
        costs = np.array([self._objectives(one) for one in known])
        volume = hypervolume(
            (quality - scale.worst) / max(scale.best - scale.worst, 1e-12),
            (costs - scale.cheapest) / np.maximum(scale.dearest - scale.cheapest, 1e-12),
        )
        return TracePoint(evaluations=spent, hypervolume=volume, best=float(quality.max()))

    def _note(self) -> str:
        """The best so far for each set of budgets, what it costs, and the hypervolume."""
        sets = self._wanted.budget_sets
        best = []
        for budgets, index in zip(sets, self._picked(), strict=True):
            # What all sets have in common tells none of them apart.
            limits = [spell(one.key, one.limit) for one in budgets if not all(one in others for others in sets)]
            under = f" under {' and '.join(limits)}" if limits else ""
            best.append(f"{self._in_words(index)}{under}" if index is not None else f"none{under}")
        volume = self._trace_point(self._evaluations, self._spent).hypervolume
        shown = best if len(best) <= 3 else [*best[:3], "..."]
        return f"best {', '.join(shown)}; hypervolume {volume:.3f}"

    def _in_words(self, index: int) -> str:
        """A subnet's quality, and what it costs by the first objective."""
        cost = self._wanted.objectives[0]
        return f"{100 * self._quality(index):.1f} % at {spell(cost, self._evaluations[index].costs[cost].value)}"


def _no_dearer(one: Cost, other: Cost) -> bool:
    return one.value <= other.value and one.upper <= other.upper
