"""Search under budgets: searchers behind one ask/tell door, a loop that feeds them, budgets that hold."""

from toolchain.search.budgets import fitting, spell, violation
from toolchain.search.front import front_indices, hypervolume
from toolchain.search.loop import BATCH, Found, Measuring, Scale, Search, Step, Wanted
from toolchain.search.problem import Price, Priced, Problem, Told
from toolchain.search.proposing import Searcher
from toolchain.search.searchers import SEARCHERS, build_searcher

__all__ = [
    "BATCH",
    "SEARCHERS",
    "Found",
    "Measuring",
    "Price",
    "Priced",
    "Problem",
    "Scale",
    "Search",
    "Searcher",
    "Step",
    "Told",
    "Wanted",
    "build_searcher",
    "fitting",
    "front_indices",
    "hypervolume",
    "spell",
    "violation",
]
