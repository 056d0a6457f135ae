"""The search loop: costs are cheap and come first, a quality evaluation is spent only on what keeps the budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toolchain.errors import InfeasibleError
from toolchain.progress import Progress, ProgressListener
from toolchain.records import Budget, Cost, Evaluation, Quality
from toolchain.search.budgets import violation
from toolchain.search.front import front_indices
from toolchain.search.searchers import Searcher, distinct
from toolchain.space import Architecture, SearchSpace

if TYPE_CHECKING:
    import numpy as np

Costs = Callable[[Sequence[Architecture]], list[dict[str, Cost]]]
"""What architectures cost, by metric; cheap (a predictor, a count)."""

QualityOf = Callable[[Architecture], Quality]
"""What a subnet is worth; dear (a pass over held-out data)."""

_BATCH = 12
_CANDIDATES_PER_ASK = 64
_FRUITLESS_ASKS = 40
_SMALL_SPACE = 10_000
"""Spaces up to this size are walked through to the end where a searcher has nothing new to offer."""

_DESCENT_ROUNDS = 60
_DESCENT_WIDTH = 200


class Found(NamedTuple):
    """What a search found: every subnet it looked at, the best that keeps the budgets, the front as indices."""

    evaluations: list[Evaluation]
    winner: Evaluation
    front: list[int]


def search(
    space: SearchSpace,
    searcher: Searcher,
    budgets: Sequence[Budget],
    costs: Costs,
    quality: QualityOf,
    *,
    front_metric: str,
    evaluations: int,
    rng: np.random.Generator,
    listener: ProgressListener,
) -> Found:
    """Spend at most `evaluations` (at least 1) quality evaluations on distinct subnets that keep the budgets.

    Ends early when the searcher has nothing new to offer that fits; of a small space every subnet that fits has been
    looked at then. The winner is the best of the front: no other is better, and none as good is cheaper.

    Raises:
        InfeasibleError: no subnet keeps the budgets; names the nearest one and what would have to give.
    """
    if evaluations < 1:
        raise ValueError("a search takes at least one evaluation")
    seen: set[str] = set()
    done: list[Evaluation] = []
    pending = [fitting(space, budgets, costs, rng)]
    seen.add(pending[0].id)
    fruitless = 0
    while len(done) < evaluations:
        if not pending:
            fitted = _that_fit(distinct(searcher.ask(_CANDIDATES_PER_ASK), seen), budgets, costs)
            pending = fitted[:_BATCH]
            seen -= {architecture.id for architecture in fitted[_BATCH:]}
            fruitless = 0 if pending else fruitless + 1
            if fruitless > _FRUITLESS_ASKS and space.size() <= _SMALL_SPACE:
                pending = _that_fit(distinct(space.enumerate(), seen), budgets, costs)
            if fruitless > _FRUITLESS_ASKS and not pending:
                break
            continue
        architecture = pending.pop(0)
        evaluation = Evaluation(
            architecture=architecture,
            quality=quality(architecture),
            costs=costs([architecture])[0],
            feasible=True,
        )
        searcher.tell(architecture, evaluation.quality.value)
        done.append(evaluation)
        best = max(one.quality.value for one in done)
        listener(Progress("search", len(done), evaluations, f"best {100 * best:.1f} %"))
    front = front_indices([one.quality.value for one in done], [one.costs[front_metric].value for one in done])
    return Found(done, winner=done[front[-1]], front=front)


def _that_fit(architectures: list[Architecture], budgets: Sequence[Budget], costs: Costs) -> list[Architecture]:
    return [one for one, cost in zip(architectures, costs(architectures), strict=True) if violation(cost, budgets) == 0]


def fitting(space: SearchSpace, budgets: Sequence[Budget], costs: Costs, rng: np.random.Generator) -> Architecture:
    """Some architecture that keeps all budgets: descends on the violation, starting from the extremes and random draws.

    Raises:
        InfeasibleError: none was found; the nearest is named with each budget it misses.
    """
    pool = [space.smallest(), space.middle(), space.largest(), *(space.sample(rng) for _ in range(_DESCENT_WIDTH))]
    best: tuple[float, Architecture, Mapping[str, Cost]] | None = None
    for _ in range(_DESCENT_ROUNDS):
        priced = sorted(
            (
                (violation(cost, budgets), architecture.id, architecture, cost)
                for architecture, cost in zip(pool, costs(pool), strict=True)
            ),
            key=lambda one: one[:2],
        )
        if best is None or priced[0][0] < best[0]:
            best = priced[0][0], priced[0][2], priced[0][3]
        if best[0] == 0:
            return best[1]
        parents = [architecture for _, _, architecture, _ in priced[: _DESCENT_WIDTH // 4]]
        children = [space.mutate(parents[int(rng.integers(len(parents)))], rng, 0.2) for _ in range(_DESCENT_WIDTH)]
        pool = [*parents, *children]
    if best is None:
        raise ValueError("the descent has at least one round")
    raise _infeasible(best[1], best[2], budgets)


def _infeasible(nearest: Architecture, costs: Mapping[str, Cost], budgets: Sequence[Budget]) -> InfeasibleError:
    missed = [budget for budget in budgets if costs[budget.metric].upper > budget.limit]
    gaps = ", ".join(
        f"{spell(budget.metric, costs[budget.metric].upper)} where {spell(budget.metric, budget.limit)} is allowed "
        f"({100 * (costs[budget.metric].upper / budget.limit - 1):.0f} % over)"
        for budget in missed
    )
    entries = {name: (value,) if isinstance(value, int) else value for name, value in nearest.axes.items()}
    axes = ", ".join(f"{name} {'/'.join(map(str, values))}" for name, values in entries.items())
    return InfeasibleError(
        "no subnet of this space keeps the budgets",
        why=f"the nearest, {nearest.id} ({axes}), takes {gaps}",
        hint="raise the budget, or train a space with smaller choices",
    )


def spell(metric: str, value: float) -> str:
    """A cost in words a person reads: ms, MiB, parameters."""
    if metric == "latency_s":
        return f"{1e3 * value:.3g} ms"
    if metric == "size_bytes":
        return f"{value / 2**20:.3g} MiB"
    return f"{value:,.0f} parameters"
