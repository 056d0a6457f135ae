"""Searchers: `ask` for architectures worth a look, `tell` what they were worth. They never measure and never train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from toolchain.errors import unknown_name
from toolchain.space import Architecture, SearchSpace

if TYPE_CHECKING:
    import numpy as np


class Searcher(Protocol):
    """What the loop needs of a searcher."""

    def ask(self, n: int) -> list[Architecture]:
        """About `n` architectures to consider next; some may have been told already."""
        ...

    def tell(self, architecture: Architecture, quality: float) -> None:
        """The quality (higher is better) of a subnet that keeps the budgets."""
        ...


class Random:
    """Independent draws: the baseline every searcher has to beat."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng

    def ask(self, n: int) -> list[Architecture]:
        return [self._space.sample(self._rng) for _ in range(n)]

    def tell(self, architecture: Architecture, quality: float) -> None:
        """Random draws learn nothing."""


class Evolution:
    """HAT's evolutionary search (arXiv 2005.14187): the best few are mutated and crossed.

    Until `parents` subnets are known the draws are random. Then half of what is asked for are mutants of a random
    parent (each entry redrawn with `mutation`), half are children of two.
    """

    def __init__(
        self, space: SearchSpace, rng: np.random.Generator, *, parents: int = 12, mutation: float = 0.2
    ) -> None:
        self._space, self._rng = space, rng
        self._parents, self._mutation = parents, mutation
        self._known: list[tuple[float, Architecture]] = []

    def ask(self, n: int) -> list[Architecture]:
        if len(self._known) < self._parents:
            return [self._space.sample(self._rng) for _ in range(n)]
        best = [architecture for _, architecture in self._known[: self._parents]]
        asked: list[Architecture] = []
        for number in range(n):
            first, second = (best[int(self._rng.integers(len(best)))] for _ in range(2))
            if number % 2:
                asked.append(self._space.crossover(first, second, self._rng))
            else:
                asked.append(self._space.mutate(first, self._rng, self._mutation))
        return asked

    def tell(self, architecture: Architecture, quality: float) -> None:
        self._known.append((quality, architecture))
        self._known.sort(key=lambda known: (-known[0], known[1].id))


SEARCHERS: Mapping[str, Callable[[SearchSpace, np.random.Generator], Searcher]] = {
    "evolution": Evolution,
    "random": Random,
}


def build_searcher(name: str, space: SearchSpace, rng: np.random.Generator) -> Searcher:
    if name not in SEARCHERS:
        raise unknown_name("searcher", name, SEARCHERS)
    return SEARCHERS[name](space, rng)


def distinct(architectures: Iterable[Architecture], known: set[str]) -> list[Architecture]:
    """Those whose id is not in `known`, each once; their ids are added to it."""
    fresh = []
    for architecture in architectures:
        if architecture.id not in known:
            known.add(architecture.id)
            fresh.append(architecture)
    return fresh
