"""Pareto fronts: what nothing else beats in quality without costing more."""

from __future__ import annotations

from collections.abc import Sequence

Worth = tuple[float, float]
"""How good a subnet is, higher being better: its figure of merit, then what breaks ties in it."""


def front_indices(qualities: Sequence[Worth], costs: Sequence[float]) -> list[int]:
    """Indices of the points that no other dominates (quality as high as possible, cost as low), by rising cost.

    Of points equal in both, the first counts.
    """

    def cheapest_then_best(index: int) -> tuple[float, float, float]:
        merit, tie = qualities[index]
        return costs[index], -merit, -tie

    front: list[int] = []
    for index in sorted(range(len(qualities)), key=cheapest_then_best):
        if not front or qualities[index] > qualities[front[-1]]:
            front.append(index)
    return front
