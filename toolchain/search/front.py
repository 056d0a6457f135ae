"""Pareto fronts: what nothing else beats in quality without costing more, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolchain.arrays import Floats
from toolchain.extras import require

require("search")  # pymoo is imported when it is asked for the first time, and not before: it takes long


def front_indices(qualities: Sequence[float], costs: Floats) -> list[int]:
    """Indices of the points that no other dominates (quality high, every cost low), by rising first cost.

    Args:
        costs: [n, objectives]. Of points equal in all, the first counts.
    """
    quality = np.asarray(qualities, dtype=np.float64)
    order = np.lexsort((np.arange(len(quality)), *costs.T[:0:-1], -quality, costs[:, 0]))
    if costs.shape[1] == 1:
        ordered = quality[order]
        before = np.maximum.accumulate(np.append(-np.inf, ordered[:-1]))
        return [int(index) for index in order[ordered > before]]
    front: list[int] = []
    for index in order:
        others = np.array(front, dtype=np.intp)
        beaten = (quality[others] >= quality[index]) & (costs[others] <= costs[index]).all(axis=1)
        if not beaten.any():
            front.append(int(index))
    return [one for one in front if not _dominated(one, front, quality, costs)]


def _dominated(index: int, front: Sequence[int], quality: Floats, costs: Floats) -> bool:
    """Whether another of the front beats this one strictly: possible where first costs and qualities are equal."""
    others = np.array([one for one in front if one != index], dtype=np.intp)
    no_worse = (quality[others] >= quality[index]) & (costs[others] <= costs[index]).all(axis=1)
    better = (quality[others] > quality[index]) | (costs[others] < costs[index]).any(axis=1)
    return bool((no_worse & better).any())


def hypervolume(qualities: Floats, costs: Floats) -> float:
    """The volume that points dominate above quality 0 and below costs [n, objectives] of 1.

    In units of the scale's box: better qualities than its best make it exceed 1. With one cost it is
    computed here; with more by pymoo.
    """
    quality, cost = np.clip(qualities, 0.0, None), np.clip(costs, 0.0, None)
    inside = (cost < 1).all(axis=1) & (quality > 0)
    quality, cost = quality[inside], cost[inside]
    if not len(quality):
        return 0.0
    if cost.shape[1] == 1:
        order = np.argsort(cost[:, 0], kind="stable")
        best = np.maximum.accumulate(quality[order])
        widths = np.diff(np.append(cost[order, 0], 1.0))
        return float((widths * best).sum())
    from pymoo.indicators.hv import HV  # noqa: PLC0415  # a heavy import, and seldom needed

    points = np.column_stack([-quality, cost])
    return float(HV(ref_point=np.array([0.0, *[1.0] * cost.shape[1]]))(points))
