"""The predictor-assisted searcher: a model of quality says which of thousands of candidates are worth an evaluation.

In the manner of DyNAS-T's LINAS (arXiv 2205.10358): evaluate a few, fit a model, let an inner evolutionary search run
on the model alone, evaluate what it ends with, again. What differs, and why:

- costs are not modelled: they are known (a latency predictor, a count), so the model learns quality alone;
- the first subnets are spread over what networks cost, the extremes among them, where LINAS draws fifty at random;
- a batch is small, so the model learns early, and every candidate of it is one that nobody evaluated;
- candidates are chosen by the hypervolume they can be expected to add (Emmerich's expected improvement, in closed form
  since costs are certain), one after the other, each as if the ones before had turned out as expected: so a batch
  spreads along the front, and doubt counts for a candidate as much as promise does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from toolchain.arrays import Floats
from toolchain.search.front import front_indices
from toolchain.search.genes import Rows
from toolchain.search.problem import Problem
from toolchain.search.proposing import Proposing, one_thread
from toolchain.search.surrogate import Surrogate

FIRST = 12
"""Subnets that are evaluated before a model chooses any."""
_DRAWN = 3000
_GENERATIONS = 6
_CHILDREN = 1200
_EASILY_KNOWN = 250
_PARENTS = 96
_SHORTLIST = 400


class Candidates(NamedTuple):
    """Rows that keep the budgets [n, genes], their costs [n, objectives], the quality to expect and its doubt [n].

    `gain` [n] is the hypervolume each can be expected to add.
    """

    rows: Rows
    costs: Floats
    mean: Floats
    deviation: Floats
    gain: Floats

    def best(self, n: int) -> Candidates:
        """The `n` that promise most, best first."""
        return self.part(np.argsort(-self.gain, kind="stable")[:n])

    def part(self, numbers: npt.NDArray[np.intp]) -> Candidates:
        """Some of them."""
        return Candidates(*(values[numbers] for values in self))  # type: ignore[arg-type]  # arrays all, of two kinds

    def with_others(self, others: Candidates) -> Candidates:
        """These and the others."""
        both = zip(self, others, strict=True)
        return Candidates(*(np.concatenate(pair) for pair in both))  # type: ignore[arg-type]  # likewise


class Assisted(Proposing):
    """See the module."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self._surrogate = Surrogate(self._genes)
        self._learned = 0

    def _propose(self, n: int, attempt: int, rng: np.random.Generator) -> Rows:
        if len(self._rows) < FIRST or not len(self._known()[0]):
            return self._spread(n + attempt, rng)
        if attempt:
            return self._varied(self._rows, _CHILDREN, rng)
        # The model takes longer for each candidate the more it knows, and tells better which are worth it.
        children = int(_CHILDREN * min(1.0, _EASILY_KNOWN / len(self._rows)))
        return self._batch(self.search_inside(_GENERATIONS * children, rng), n)

    # -- before anything is known -------------------------------------------------------------------------------

    def _spread(self, n: int, rng: np.random.Generator) -> Rows:
        """The extremes, then rows spread evenly over the first cost, every other one with layers all alike."""
        drawn = np.concatenate([self._genes.sample_even(_DRAWN // 2, rng), self._genes.sample(_DRAWN // 2, rng)])
        drawn = self._fitting(drawn, self._genes.rows([]))
        chosen = [self._genes.extremes()] if not len(self._rows) else []
        if len(drawn):
            cost = self._problem.judge(self._genes.arrays(drawn))[0][:, 0]
            # Taken from the whole plan, so that the batches of a start that is asked for in parts do not repeat it.
            aims = np.geomspace(cost.min(), cost.max(), FIRST)
            aims = aims[rng.permutation(FIRST)][: max(1, n)]
            chosen.append(drawn[np.abs(np.log(cost)[:, None] - np.log(aims)).argmin(axis=0)])
        if len(self._rows):
            drawn = np.concatenate([drawn, self._varied(self._rows, _CHILDREN, rng)])  # where hardly a draw fits
        chosen.append(drawn)
        return np.concatenate(chosen)

    # -- with a model -------------------------------------------------------------------------------------------

    def search_inside(self, candidates: int, rng: np.random.Generator) -> Candidates:
        """An evolutionary search on the model alone, over so many candidates: the new ones that keep the budgets."""
        with one_thread():
            return self._search_inside(candidates, rng)

    def _search_inside(self, candidates: int, rng: np.random.Generator) -> Candidates:
        if self._learned != len(self._told):
            self._surrogate.fit(self._rows, self._qualities())
            self._learned = len(self._told)
        quality, costs, rows = self._known()
        front = rows[front_indices(quality.tolist(), costs)]
        per_generation = max(2, candidates // _GENERATIONS)
        half = per_generation // 2
        first = np.concatenate([self._varied(front, half, rng), self._genes.sample(half, rng)])
        seen = self._candidates(first, self._genes.rows([]))
        for _ in range(_GENERATIONS - 1):
            basis = np.concatenate([seen.best(_PARENTS).rows, front])
            fresh = self._candidates(self._varied(basis, per_generation, rng), seen.rows)
            seen = seen.with_others(fresh)
        return seen

    def _candidates(self, rows: Rows, besides: Rows) -> Candidates:
        fresh = self._fresh(rows, besides)
        costs, violation = self._problem.judge(self._genes.arrays(fresh))
        fits = violation == 0
        expected = self._surrogate.predict(fresh[fits])
        return Candidates(
            fresh[fits], costs[fits], *expected, expected_gain(costs[fits], *expected, *self._known()[:2])
        )

    def _varied(self, basis: Rows, n: int, rng: np.random.Generator) -> Rows:
        """`n` children: a third crossed, a third with genes drawn anew, a third with genes moved by one choice."""
        first, second = (basis[rng.integers(len(basis), size=n)] for _ in range(2))
        third = n // 3
        few = 1.5 / len(self._genes)
        return np.concatenate(
            [
                self._genes.mutate(self._genes.cross(first[:third], second[:third], rng), rng, few / 2),
                self._genes.mutate(first[third : 2 * third], rng, few),
                self._genes.step(first[2 * third :], rng, few),
            ]
        )

    def _batch(self, seen: Candidates, n: int) -> Rows:
        """The rows that promise most together, best first; then those that promise most alone."""
        quality, costs, _ = self._known()
        left = seen.best(_SHORTLIST)
        chosen: list[Rows] = []
        for _ in range(min(n, len(left.rows))):
            gain = expected_gain(left.costs, left.mean, left.deviation, quality, costs)
            best = int(gain.argmax())
            chosen.append(left.rows[[best]])
            quality = np.append(quality, left.mean[best])
            costs = np.concatenate([costs, left.costs[[best]]])
            left = left.part(np.delete(np.arange(len(left.rows)), best))
        return np.concatenate([*chosen, left.rows])


def expected_gain(at: Floats, mean: Floats, deviation: Floats, quality: Floats, costs: Floats) -> Floats:
    """How much hypervolume each candidate can be expected to add to what is known [n], in units of quality times cost.

    The candidates cost `at` [n, objectives]; known are `quality` [m] and `costs` [m, objectives].


    Exact with one objective: over each stretch of cost where one known point is the best that is as cheap, the expected
    improvement on its quality, times the stretch. With more, the expected improvement on the best point that is as
    cheap in all of them, times the room up to the dearest.
    """
    floor, dearest = float(quality.min()), costs.max(axis=0)
    if costs.shape[1] > 1:
        cheaper = (costs[None, :, :] <= at[:, None, :]).all(axis=2)
        level = np.where(cheaper, quality, floor).max(axis=1)
        span = np.where(dearest > 0, dearest, 1.0)
        room = np.clip(1.02 - at / span, 0.0, None).prod(axis=1)
        return np.asarray(_improvement(mean, deviation, level) * room)
    front = front_indices(quality.tolist(), costs)
    starts = np.concatenate([[-np.inf], costs[front, 0]])
    ends = np.concatenate([costs[front, 0], [max(dearest[0], costs[front[-1], 0]) * 1.02]])
    levels = np.concatenate([[floor], quality[front]])
    widths = np.clip(ends - np.maximum(starts, at), 0.0, None)
    gains = _improvement(mean[:, None], deviation[:, None], levels)
    return np.asarray((gains * widths).sum(axis=1))


def _improvement(mean: Floats, deviation: Floats, level: Floats) -> Floats:
    """The expected improvement on a level, of a normal variable."""
    z = (mean - level) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(deviation * (z * ndtr(z) + density))
