"""Searchers: `ask` for architectures worth a look, `tell` what they were worth. They never measure and never train.

What a searcher asks for depends on its problem, its seed and what it was told, and on nothing else: one that is told
again what another was told goes on as that one would have. So a search that was killed can be taken up.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from toolchain.arrays import Floats
from toolchain.search.genes import Genes, Rows, keys
from toolchain.search.problem import Problem, Told
from toolchain.space import Architecture

_TRIES = 40
_AT_ONCE = 256
SMALL_SPACE = 10_000
"""Spaces up to this size are walked through to the end where a searcher has nothing new to offer."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """So small matrices gain nothing by two threads, and sums come out the same whatever cores a machine has."""
    with _threads().limit(limits=1):
        yield


@functools.cache
def _threads() -> ThreadpoolController:
    """Of all numerical libraries: made when they are all loaded."""
    return ThreadpoolController()


class Searcher(Protocol):
    """What the loop needs of a searcher."""

    def ask(self, n: int) -> list[Architecture]:
        """Up to `n` architectures that keep the budgets and were not told yet; none where there is nothing new."""
        ...

    def tell(self, told: Sequence[Told]) -> None:
        """What architectures turned out to be. One that was told before is known anew."""
        ...


class Proposing(ABC):
    """A searcher that proposes rows of genes; what is known already or over budget is sorted out here."""

    _FALLS_BACK = True
    """Whether variations of what is known are proposed where nothing else fits."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed
        self._genes = Genes(problem.space)
        self._told: dict[str, Told] = {}
        self._rows: Rows = np.empty((0, len(self._genes)), dtype=np.int16)

    def tell(self, told: Sequence[Told]) -> None:
        fresh = [one for one in told if one.architecture.id not in self._told]
        self._told |= {one.architecture.id: one for one in told}
        self._rows = np.concatenate([self._rows, self._genes.rows([one.architecture for one in fresh])])

    def ask(self, n: int) -> list[Architecture]:
        with one_thread():
            return self._ask(n)

    def _ask(self, n: int) -> list[Architecture]:
        if n < 1:
            return []
        rng = np.random.default_rng((self._seed, len(self._told)))
        found = self._genes.rows([])
        for attempt in range(_TRIES):
            if attempt % 2 and len(self._rows) and self._FALLS_BACK:
                drawn = self._rows[rng.integers(len(self._rows), size=_AT_ONCE)]
                proposed = self._genes.mutate(drawn, rng, attempt / _TRIES)
            else:
                proposed = self._propose(n - len(found), attempt, rng)
            fresh = self._fitting(proposed, found)
            found = np.concatenate([found, fresh[: n - len(found)]])
            if len(found) >= n:
                break
        if not len(found) and self._problem.space.size() <= SMALL_SPACE:
            left = [self._fitting(rows, found) for rows in self._genes.enumerate()]
            found = np.concatenate(left)[:n]
        return self._genes.architectures(found)

    @abstractmethod
    def _propose(self, n: int, attempt: int, rng: np.random.Generator) -> Rows:
        """Rows worth a look, best first; more than `n`, since some will be sorted out. `attempt` counts from 0."""

    def _fitting(self, rows: Rows, besides: Rows) -> Rows:
        """Those that keep the budgets and are not known, nor among those `besides`: each once, in their order."""
        fresh = self._fresh(rows, besides)
        return fresh[self._problem.judge(self._genes.arrays(fresh))[1] == 0] if len(fresh) else fresh

    def _fresh(self, rows: Rows, besides: Rows) -> Rows:
        seen = {*keys(self._rows), *keys(besides)}
        kept = []
        for number, key in enumerate(keys(rows)):
            if key not in seen:
                seen.add(key)
                kept.append(number)
        return rows[kept]

    def _known(self) -> tuple[Floats, Floats, Rows]:
        """Qualities [n], costs [n, objectives] and rows [n, genes] of what was told and keeps the budgets."""
        told = list(self._told.values())
        fits = np.array([one.fits for one in told], dtype=bool)
        costs = np.array([one.costs for one in told]).reshape(len(told), len(self._problem.objectives))
        return self._qualities()[fits], costs[fits], self._rows[fits]

    def _qualities(self) -> Floats:
        """[told], in the order of `_rows`."""
        return np.array([one.quality for one in self._told.values()])
