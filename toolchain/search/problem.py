"""What is searched: a space, what its architectures cost, the limits, and what quality is traded against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from toolchain.arrays import AxisArrays, Floats
from toolchain.records import Budget
from toolchain.space import Architecture, SearchSpace


class Priced(NamedTuple):
    """What n architectures cost, by the costs' names: values [n], and the upper bounds [n] that budgets hold to."""

    values: Mapping[str, Floats]
    uppers: Mapping[str, Floats]


Price = Callable[[AxisArrays], Priced]
"""Cheap: predictors and counts, of many architectures at once."""


class Told(NamedTuple):
    """What an architecture turned out to be: its quality (higher is better), its costs in the objectives' order.

    One that does not fit after all (a measurement said so) teaches what quality is to be had, and stands on no front.
    """

    architecture: Architecture
    quality: float
    costs: tuple[float, ...]
    fits: bool = True


class Problem(NamedTuple):
    """A search problem. `objectives` are names of costs (at least one): quality is traded against them."""

    space: SearchSpace
    price: Price
    budgets: tuple[Budget, ...]
    objectives: tuple[str, ...]

    def judge(self, arrays: AxisArrays) -> tuple[Floats, Floats]:
        """Costs in the objectives' order [n, objectives], and by how much the budgets are exceeded [n] (0: kept)."""
        priced = self.price(arrays)
        return np.stack([priced.values[name] for name in self.objectives], axis=1), violations(priced, self.budgets)


def violations(priced: Priced, budgets: Sequence[Budget]) -> Floats:
    """[n]: 0 where all budgets are kept, else the sum of relative excesses of the upper bounds."""
    total = np.zeros(len(next(iter(priced.uppers.values()))))
    for budget in budgets:
        total += np.maximum(0.0, priced.uppers[budget.key] / budget.limit - 1)
    return total
