"""The searchers that learn nothing of how quality comes about: random draws, HAT's evolution, NSGA-II."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolchain.arrays import Floats
from toolchain.search.genes import Rows
from toolchain.search.proposing import Proposing

_AT_ONCE = 256
"""Rows proposed together."""


class Random(Proposing):
    """Independent draws: the baseline every searcher has to beat."""

    _FALLS_BACK = False

    def _propose(self, n: int, attempt: int, rng: np.random.Generator) -> Rows:
        del n, attempt
        return self._genes.sample(_AT_ONCE, rng)


class Evolution(Proposing):
    """HAT's evolutionary search (arXiv 2005.14187): the best few are mutated and crossed.

    It looks at quality alone, within the budgets. Until `parents` subnets are known the draws are random. Then half of
    what is asked for are mutants of a random parent (each entry redrawn with `mutation`), half are children of two.
    """

    parents, mutation = 12, 0.2

    def _propose(self, n: int, attempt: int, rng: np.random.Generator) -> Rows:
        del n, attempt
        quality, _, rows = self._known()
        if len(rows) < self.parents:
            return self._genes.sample(_AT_ONCE, rng)
        best = rows[np.argsort(-quality, kind="stable")[: self.parents]]
        first, second = (best[rng.integers(len(best), size=_AT_ONCE // 2)] for _ in range(2))
        mutants, children = self._genes.mutate(first, rng, self.mutation), self._genes.cross(first, second, rng)
        return np.stack([mutants, children], axis=1).reshape(-1, len(self._genes))


class Nsga2(Proposing):
    """NSGA-II (Deb et al., 2002): fronts within fronts, crowded points give way, children of tournament winners.

    The survivors of all that was told are the population; sorting and crowding are pymoo's.
    """

    population = 50

    def _propose(self, n: int, attempt: int, rng: np.random.Generator) -> Rows:
        del n
        quality, costs, rows = self._known()
        if len(rows) < self.population:
            return self._genes.sample(_AT_ONCE, rng)
        rank, crowding = _sorted(quality, costs)
        survivors = np.lexsort((-crowding, rank))[: self.population]

        def parents() -> Rows:
            """Winners of tournaments of two: survivors stand in order, so the earlier one wins."""
            winners = rng.integers(len(survivors), size=(_AT_ONCE, 2)).min(axis=1)
            chosen: Rows = rows[survivors[winners]]
            return chosen

        children = self._genes.cross(parents(), parents(), rng)
        return self._genes.mutate(children, rng, (1 + attempt) / len(self._genes))


def _sorted(quality: Floats, costs: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Each point's front, from 0, and how far its neighbours on that front are."""
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance  # noqa: PLC0415  # heavy
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting  # noqa: PLC0415

    points = np.column_stack([-quality, costs])
    rank, crowding = np.zeros(len(points), dtype=np.intp), np.zeros(len(points))
    for number, front in enumerate(NonDominatedSorting().do(points)):
        rank[front] = number
        crowding[front] = calc_crowding_distance(points[front])
    return rank, crowding
