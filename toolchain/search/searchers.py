"""The searchers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toolchain.errors import unknown_name
from toolchain.search.assisted import Assisted
from toolchain.search.baselines import Evolution, Nsga2, Random
from toolchain.search.problem import Problem
from toolchain.search.proposing import Searcher

SEARCHERS: Mapping[str, Callable[[Problem, int], Searcher]] = {
    "assisted": Assisted,
    "evolution": Evolution,
    "nsga2": Nsga2,
    "random": Random,
}


def build_searcher(name: str, problem: Problem, seed: int) -> Searcher:
    """The searcher of that name. Raises UsageError for a name that nobody knows."""
    if name not in SEARCHERS:
        raise unknown_name("searcher", name, SEARCHERS)
    return SEARCHERS[name](problem, seed)
