"""Budgets: what keeps them, and what to say when nothing does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from toolchain.errors import InfeasibleError
from toolchain.records import NEVER, Budget, Cost, metric_of
from toolchain.search.genes import Genes
from toolchain.search.problem import Price, violations
from toolchain.space import Architecture, SearchSpace

_ROUNDS = 60
_WIDTH = 200
_MANIFOLD = 10
"""From so many times its limit on, a cost is told as a multiple of it."""

Costs = Callable[[Sequence[Architecture]], list[dict[str, Cost]]]
"""What architectures cost, by the costs' names: predicted, counted, or measured where it was."""


def violation(costs: Mapping[str, Cost], budgets: Sequence[Budget]) -> float:
    """By how much a subnet exceeds its budgets: 0 when it keeps all, else the sum of relative excesses.

    A budget is compared with a cost's upper bound, so a predictor's doubt counts against the subnet. What a device that
    is searched for could not run exceeds any, whatever is limited.
    """
    if any(cost.upper >= NEVER for cost in costs.values()):
        return math.inf
    return sum(max(0.0, costs[budget.key].upper / budget.limit - 1) for budget in budgets)


def fitting(
    space: SearchSpace,
    budgets: Sequence[Budget],
    price: Price,
    seed: int,
    *,
    costs: Costs,
    known: Sequence[Architecture] = (),
) -> Architecture:
    """Some architecture that keeps all budgets: descends on the violation from the extremes and random draws.

    Where none does, the nearest is looked for by `costs`, among those found and those `known` (some were measured).

    Raises:
        InfeasibleError: none was found; says the nearest one, each budget it misses and the limit that it would keep.
    """
    rng, genes = np.random.default_rng((seed, 1)), Genes(space)
    middle = genes.rows([space.smallest(), space.middle(), space.largest()])
    pool = np.concatenate([middle, genes.sample(_WIDTH, rng)])
    for _ in range(_ROUNDS):
        excess = violations(price(genes.arrays(pool)), budgets)
        order = np.argsort(excess, kind="stable")
        if excess[order[0]] == 0:
            return genes.architectures(pool[order[:1]])[0]
        parents = pool[order[: _WIDTH // 4]]
        children = parents[rng.integers(len(parents), size=_WIDTH)]
        pool = np.concatenate([parents, genes.mutate(children, rng, 0.2)])
    excess = violations(price(genes.arrays(pool)), budgets)
    found = {one.id: one for one in [*known, *genes.architectures(pool[np.argsort(excess, kind="stable")[:_WIDTH]])]}
    costed = zip(found.values(), costs([*found.values()]), strict=True)
    raise _infeasible(*min(costed, key=lambda pair: (violation(pair[1], budgets), pair[0].id)), budgets)


def _infeasible(nearest: Architecture, costs: Mapping[str, Cost], budgets: Sequence[Budget]) -> InfeasibleError:
    missed = [budget for budget in budgets if costs[budget.key].upper > budget.limit]
    gaps = ", ".join(f"{gap(budget, costs[budget.key])} ({_excess(budget, costs[budget.key])})" for budget in missed)
    entries = {name: (value,) if isinstance(value, int) else value for name, value in nearest.axes.items()}
    axes = ", ".join(f"{name} {'/'.join(map(str, values))}" for name, values in entries.items())
    would = " and ".join(spell(budget.key, 1.01 * costs[budget.key].upper) for budget in missed)
    sources = " and ".join(dict.fromkeys(costs[budget.key].source for budget in missed))
    return InfeasibleError(
        "no subnet of this space keeps the budgets",
        why=f"the nearest, {nearest.id} ({axes}), takes {gaps}",
        hint=f"with {would} it would fit, as {sources}; else train a space with smaller choices",
    )


def gap(budget: Budget, cost: Cost) -> str:
    """What a subnet takes beside what it may take; `at most`: the upper end of what is in doubt, as budgets see it."""
    most = "at most " if cost.upper > cost.value else ""
    taken, allowed = spell(budget.key, cost.upper), spell(budget.key, budget.limit)
    return f"{most}{taken} ({cost.source}) where {allowed} is allowed"


def _excess(budget: Budget, cost: Cost) -> str:
    ratio = cost.upper / budget.limit
    return f"{ratio:,.0f} times the budget" if ratio > _MANIFOLD else f"{100 * (ratio - 1):.0f} % over"


def spell(key: str, value: float) -> str:
    """A cost in words a person reads: ms, MiB, mJ, parameters; of which device and percentile, where it tells."""
    metric = metric_of(key)
    device = f" on {key.partition('@')[2]}" if "@" in key else ""
    if metric == "latency_s":
        percentile = f" (p{key.partition('.p')[2].partition('@')[0]})" if ".p" in key.partition("@")[0] else ""
        return f"{1e3 * value:.3g} ms{percentile}{device}"
    if metric in {"size_bytes", "peak_memory_bytes"}:
        what = " of memory" if metric == "peak_memory_bytes" else ""
        return f"{value / 2**20:.3g} MiB{what}{device}"
    if metric == "energy_j":
        return f"{1e3 * value:.3g} mJ{device}"
    return f"{value:,.0f} parameters"
