"""Budgets and how far over them a subnet is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolchain.records import Budget, Cost


def violation(costs: Mapping[str, Cost], budgets: Sequence[Budget]) -> float:
    """By how much a subnet exceeds its budgets: 0 when it keeps all, else the sum of relative excesses.

    A budget is compared with a cost's upper bound, so a predictor's doubt counts against the subnet.
    """
    return sum(max(0.0, costs[budget.metric].upper / budget.limit - 1) for budget in budgets)
