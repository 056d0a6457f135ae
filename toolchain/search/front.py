"""Pareto fronts: what nothing else beats in quality without costing more."""

from __future__ import annotations

from collections.abc import Sequence


def front_indices(qualities: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Indices of the points that no other dominates (quality as high as possible, cost as low), by rising cost.

    Of points equal in both, the first counts.
    """
    front: list[int] = []
    for index in sorted(range(len(qualities)), key=lambda index: (costs[index], -qualities[index])):
        if not front or qualities[index] > qualities[front[-1]]:
            front.append(index)
    return front
