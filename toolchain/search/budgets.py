"""Budgets: what keeps them, and what to say when nothing does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from toolchain.errors import InfeasibleError
from toolchain.records import NEVER, Budget, Cost, metric_of
from toolchain.search.genes import Genes
from toolchain.search.problem import Price, violations
from toolchain.space import Architecture, SearchSpace

_ROUNDS = 60
_WIDTH = 200


def violation(costs: Mapping[str, Cost], budgets: Sequence[Budget]) -> float:
    """By how much a subnet exceeds its budgets: 0 when it keeps all, else the sum of relative excesses.

    A budget is compared with a cost's upper bound, so a predictor's doubt counts against the subnet. What a device that
    is searched for could not run exceeds any, whatever is limited.
    """
    if any(cost.upper >= NEVER for cost in costs.values()):
        return math.inf
    return sum(max(0.0, costs[budget.key].upper / budget.limit - 1) for budget in budgets)


def fitting(space: SearchSpace, budgets: Sequence[Budget], price: Price, seed: int) -> Architecture:
    """Some architecture that keeps all budgets: descends on the violation from the extremes and random draws.

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
    best = pool[[int(excess.argmin())]]
    priced = price(genes.arrays(best))
    uppers = {name: float(upper[0]) for name, upper in priced.uppers.items()}
    raise _infeasible(genes.architectures(best)[0], uppers, budgets)


def _infeasible(nearest: Architecture, uppers: Mapping[str, float], budgets: Sequence[Budget]) -> InfeasibleError:
    missed = [budget for budget in budgets if uppers[budget.key] > budget.limit]
    gaps = ", ".join(
        f"{spell(budget.key, uppers[budget.key])} where {spell(budget.key, budget.limit)} is allowed "
        f"({100 * (uppers[budget.key] / budget.limit - 1):.0f} % over)"
        for budget in missed
    )
    entries = {name: (value,) if isinstance(value, int) else value for name, value in nearest.axes.items()}
    axes = ", ".join(f"{name} {'/'.join(map(str, values))}" for name, values in entries.items())
    would = " and ".join(f"{spell(budget.key, 1.01 * uppers[budget.key])}" for budget in missed)
    return InfeasibleError(
        "no subnet of this space keeps the budgets",
        why=f"the nearest, {nearest.id} ({axes}), takes {gaps}",
        hint=f"with {would} it would fit; else train a space with smaller choices",
    )


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
