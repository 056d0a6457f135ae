from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import InfeasibleError, UsageError
from toolchain.progress import Progress
from toolchain.records import Budget
from toolchain.search import SEARCHERS, Found, build_searcher, search, spell, violation
from toolchain.search.front import front_indices
from toolchain.space import SearchSpace

from .toy_problem import MEDIUM, SMALL, SPACE, Problem

SHARES = st.floats(0, 1.2)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    latency=SHARES,
    parameters=st.none() | SHARES,
    searcher=st.sampled_from(sorted(SEARCHERS)),
    levels=st.sampled_from([0, 8]),
)
def test_what_a_search_promises(
    seed: int, latency: float, parameters: float | None, searcher: str, levels: int
) -> None:
    """Nothing over a budget is looked at, nothing twice; the front is one, and ends in the winner."""
    problem = Problem(seed=seed, levels=levels)
    budgets = [problem.budget(latency)] + ([problem.budget(parameters, "parameters")] if parameters else [])
    try:
        found = problem.search(budgets, evaluations=20, seed=seed, searcher=searcher)
    except InfeasibleError:
        cheapest = problem.cost(SPACE.smallest())  # every price rises with every entry
        assert any(cheapest[budget.metric].upper > budget.limit for budget in budgets)
        assert not problem.looked_at
        return
    for one in found.evaluations:
        assert one.feasible
        assert one.costs == problem.cost(one.architecture)
        assert all(one.costs[budget.metric].upper <= budget.limit for budget in budgets)
    assert set(problem.looked_at.values()) == {1}
    assert set(problem.looked_at) == {one.architecture.id for one in found.evaluations}
    assert len(found.evaluations) <= 20
    check_front(found)


def check_front(found: Found) -> None:
    points = [(one.quality.value, -one.costs["latency_s"].value) for one in found.evaluations]
    assert found.winner == found.evaluations[points.index(max(points))]
    on_front = [found.evaluations[index] for index in found.front]
    assert on_front[-1] == found.winner
    prices = [one.costs["latency_s"].value for one in on_front]
    assert prices == sorted(prices)
    for index, (value, price) in enumerate(points):
        dominated = any(
            other[0] >= value and other[1] >= price and (other != points[index] or earlier < index)
            for earlier, other in enumerate(points)
        )
        assert (index in found.front) != dominated


def test_a_budget_is_compared_with_the_upper_bound() -> None:
    """A subnet whose predicted latency fits, but with its doubt does not, is not looked at."""
    sure, doubtful = Problem(doubt=0.0), Problem(doubt=0.5)
    budget = sure.budget(0.4)
    assert sure.search([budget]).winner.costs["latency_s"].value > budget.limit / 1.5
    for one in doubtful.search([budget]).evaluations:
        assert one.costs["latency_s"].value <= budget.limit / 1.5


def test_a_violation_is_the_sum_of_relative_excesses() -> None:
    costs = Problem(doubt=0.0).cost(SPACE.smallest())
    latency, parameters = costs["latency_s"].upper, costs["parameters"].upper

    def budget(metric: str, limit: float) -> Budget:
        return Budget(metric=metric, limit=limit)  # type: ignore[arg-type]

    assert violation(costs, []) == 0
    assert violation(costs, [budget("latency_s", latency)]) == 0
    assert violation(costs, [budget("latency_s", latency / 2)]) == pytest.approx(1)
    both = [budget("latency_s", latency / 1.5), budget("parameters", parameters / 1.25)]
    assert violation(costs, both) == pytest.approx(0.75)
    assert violation(costs, [both[0], budget("parameters", 2 * parameters)]) == pytest.approx(0.5)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_where_nothing_fits_the_nearest_is_named_and_the_gap(searcher: str) -> None:
    problem = Problem()
    smallest = SPACE.smallest()
    takes = problem.cost(smallest)["latency_s"].upper
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([Budget(metric="latency_s", limit=takes / 1.25)], searcher=searcher)
    assert smallest.id in refusal.value.why
    assert f"{1e3 * takes:.3g} ms" in refusal.value.why
    assert f"{1e3 * takes / 1.25:.3g} ms" in refusal.value.why
    assert "25 % over" in refusal.value.why
    assert refusal.value.hint
    assert not problem.looked_at
    assert problem.priced.total() < 20_000


def test_only_the_budgets_that_are_missed_are_named() -> None:
    problem = Problem()
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([problem.budget(0.5), Budget(metric="parameters", limit=1)])
    assert "parameters" in refusal.value.why
    assert "ms" not in refusal.value.why


def test_the_nearest_is_nearest_of_all() -> None:
    """Budgets that pull apart: no architecture of the whole space violates them less than the one that is named."""
    problem = Problem(SMALL, seed=4)
    budgets = [problem.budget(-0.02), problem.budget(-0.01, "parameters")]
    ranked = sorted((violation(problem.cost(one), budgets), one.id) for one in SMALL.enumerate())
    assert ranked[0][0] > 0
    with pytest.raises(InfeasibleError) as refusal:
        problem.search(budgets)
    assert ranked[0][1] in refusal.value.why


@pytest.mark.parametrize("seed", range(5))
def test_a_needle_is_found(seed: int) -> None:
    """Only the smallest and its nearest fit: random draws would hardly meet them."""
    problem = Problem(seed=seed)
    found = problem.search([problem.budget(0.01)], evaluations=5, seed=seed)
    assert 1 <= len(found.evaluations) <= 5


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_the_same_seed_gives_the_same_search(searcher: str) -> None:
    def looked_at(seed: int) -> list[str]:
        problem = Problem()
        found = problem.search([problem.budget(0.6)], seed=seed, searcher=searcher)
        return [one.architecture.id for one in found.evaluations]

    assert looked_at(1) == looked_at(1)
    assert looked_at(1) != looked_at(2)


def test_evolution_beats_random_draws() -> None:
    """At equal evaluations, on average over seeds, and by more than the spread between seeds."""
    best: dict[str, list[float]] = {"evolution": [], "random": []}
    for searcher, seed in itertools.product(best, range(6)):
        problem = Problem(seed=seed)
        found = problem.search([problem.budget(0.5)], evaluations=150, seed=seed, searcher=searcher)
        assert len(found.evaluations) == 150
        best[searcher].append(found.winner.quality.value)
    gains = np.array(best["evolution"]) - np.array(best["random"])
    assert gains.mean() > 2 * gains.std() / np.sqrt(len(gains)) > 0
    assert gains.mean() > 0.02


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("space", [SMALL, MEDIUM], ids=lambda space: space.name)
def test_a_small_space_is_walked_through_and_left(searcher: str, space: SearchSpace) -> None:
    problem = Problem(space)
    budget = problem.budget(0.7)
    fitting = [one for one in space.enumerate() if violation(problem.cost(one), [budget]) == 0]
    assert 3 < len(fitting) < space.size()
    found = problem.search([budget], evaluations=1000, searcher=searcher)
    assert {one.architecture.id for one in found.evaluations} == {one.id for one in fitting}
    assert found.winner.quality.value == max(problem.figure(one) for one in fitting)
    assert set(problem.looked_at.values()) == {1}


def test_progress_counts_evaluations() -> None:
    problem, seen = Problem(), list[Progress]()
    rng = np.random.default_rng(0)
    search(
        SPACE,
        build_searcher("random", SPACE, rng),
        [problem.budget(0.8)],
        problem.costs,
        problem.quality,
        front_metric="latency_s",
        evaluations=7,
        rng=rng,
        listener=seen.append,
    )
    assert [(one.done, one.total) for one in seen] == [(n, 7) for n in range(1, 8)]


def test_no_evaluation_is_no_search() -> None:
    problem = Problem()
    with pytest.raises(ValueError, match="at least one"):
        problem.search([problem.budget(0.5)], evaluations=0)
    assert len(problem.search([problem.budget(0.5)], evaluations=1).evaluations) == 1


def test_an_unknown_searcher_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="evolutoin") as refusal:
        build_searcher("evolutoin", SPACE, np.random.default_rng(0))
    assert "evolution" in refusal.value.hint


def test_costs_are_spelled_for_people() -> None:
    assert spell("latency_s", 0.0123) == "12.3 ms"
    assert spell("size_bytes", 3 * 2**20) == "3 MiB"
    assert spell("parameters", 1234567) == "1,234,567 parameters"


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12)


@given(POINTS)
def test_a_front_is_all_that_nothing_dominates(points: list[tuple[int, int]]) -> None:
    front = front_indices([merit for merit, _ in points], [cost for _, cost in points])
    for index, (merit, cost) in enumerate(points):
        beaten = any(
            other[0] >= merit and other[1] <= cost and (other != points[index] or earlier < index)
            for earlier, other in enumerate(points)
        )
        assert (index in front) != beaten
    assert [points[index][1] for index in front] == sorted({points[index][1] for index in front})
