from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import InfeasibleError, UsageError
from toolchain.progress import Progress
from toolchain.records import NEVER, Budget, metric_of
from toolchain.search import SEARCHERS, Found, Measuring, Search, Step, spell, violation
from toolchain.space import Architecture, SearchSpace

from .toy_problem import LATENCY, MEDIUM, SMALL, SPACE, Judged, ToyProblem, limit

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
    problem = ToyProblem(seed=seed, levels=levels)
    budgets = [problem.budget(latency)] + ([problem.budget(parameters, "parameters")] if parameters else [])
    try:
        found = problem.search(budgets, evaluations=20, seed=seed, searcher=searcher)
    except InfeasibleError:
        cheapest = problem.cost(SPACE.smallest())  # every price rises with every entry
        assert any(cheapest[budget.key].upper > budget.limit for budget in budgets)
        assert not problem.looked_at
        return
    for one in found.evaluations:
        assert one.feasible
        assert one.costs == problem.cost(one.architecture)
        assert all(one.costs[budget.key].upper <= budget.limit for budget in budgets)
    assert set(problem.looked_at.values()) == {1}
    assert set(problem.looked_at) == {one.architecture.id for one in found.evaluations}
    assert len(found.evaluations) <= 20
    check_front(found)


def check_front(found: Found) -> None:
    points = [(one.quality.value, -one.costs[LATENCY].value) for one in found.evaluations]
    assert found.picks[0].index is not None
    assert points[found.picks[0].index] == max(points)
    on_front = [found.evaluations[index] for index in found.front]
    assert (on_front[-1].quality.value, -on_front[-1].costs[LATENCY].value) == max(points)
    prices = [one.costs[LATENCY].value for one in on_front]
    assert prices == sorted(prices)
    for index, (value, price) in enumerate(points):
        dominated = any(
            other[0] >= value and other[1] >= price and (other != points[index] or earlier < index)
            for earlier, other in enumerate(points)
        )
        assert (index in found.front) != dominated


def test_a_budget_is_compared_with_the_upper_bound() -> None:
    """A subnet whose predicted latency fits, but with its doubt does not, is not looked at."""
    sure, doubtful = ToyProblem(doubt=0.0), ToyProblem(doubt=0.5)
    budget = sure.budget(0.4)
    found = sure.search([budget])
    assert max(one.costs[LATENCY].value for one in found.evaluations) > budget.limit / 1.5
    for one in doubtful.search([budget]).evaluations:
        assert one.costs[LATENCY].value <= budget.limit / 1.5


def test_a_violation_is_the_sum_of_relative_excesses() -> None:
    costs = ToyProblem(doubt=0.0).cost(SPACE.smallest())
    latency, parameters = costs[LATENCY].upper, costs["parameters"].upper
    assert violation(costs, []) == 0
    assert violation(costs, [limit(latency)]) == 0
    assert violation(costs, [limit(latency / 2)]) == pytest.approx(1)
    both = [limit(latency / 1.5), limit(parameters / 1.25, "parameters")]
    assert violation(costs, both) == pytest.approx(0.75)
    assert violation(costs, [both[0], limit(2 * parameters, "parameters")]) == pytest.approx(0.5)


def test_where_nothing_fits_the_nearest_is_named_and_what_would_have_to_give() -> None:
    problem = ToyProblem()
    smallest = SPACE.smallest()
    takes = problem.cost(smallest)[LATENCY].upper
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([limit(takes / 1.25)])
    assert smallest.id in refusal.value.why
    assert f"{1e3 * takes:.3g} ms" in refusal.value.why
    assert f"{1e3 * takes / 1.25:.3g} ms" in refusal.value.why
    assert "25 % over" in refusal.value.why
    assert f"{1.01e3 * takes:.3g} ms on made" in refusal.value.hint
    problem.search([limit(1.01 * takes)], evaluations=1)
    assert sum(problem.looked_at.values()) == 1
    assert problem.priced < 40_000


def test_the_nearest_is_told_as_it_was_measured_where_it_was() -> None:
    """And one that was measured may be nearer than all that are predicted."""
    problem = ToyProblem()
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([limit(1e-6)])
    assert refusal.value.why.count("takes at most") == 1
    assert "ms on made (predicted) where 0.001 ms on made is allowed" in refusal.value.why
    assert "times the budget)" in refusal.value.why
    assert refusal.value.hint.split(";")[0].endswith("it would fit, as predicted")
    quick = SPACE.middle()
    problem.measured[quick.id], problem.known = 2e-3, [quick]
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([limit(1e-6)])
    assert refusal.value.why.startswith(f"the nearest, {quick.id} (")
    assert ", takes 2 ms on made (measured) where 0.001 ms on made is allowed (2,000 times the b" in refusal.value.why
    assert refusal.value.hint.startswith("with 2.02 ms on made it would fit, as measured")


def test_only_the_budgets_that_are_missed_are_named() -> None:
    problem = ToyProblem()
    with pytest.raises(InfeasibleError) as refusal:
        problem.search([problem.budget(0.5), limit(1, "parameters")])
    assert "parameters" in refusal.value.why
    assert "ms" not in refusal.value.why


def test_the_nearest_is_nearest_of_all() -> None:
    """Budgets that pull apart: no architecture of the whole space violates them less than the one that is named."""
    problem = ToyProblem(SMALL, seed=4)
    budgets = [problem.budget(-0.02), problem.budget(-0.01, "parameters")]
    ranked = sorted((violation(problem.cost(one), budgets), one.id) for one in SMALL.enumerate())
    assert ranked[0][0] > 0
    with pytest.raises(InfeasibleError) as refusal:
        problem.search(budgets)
    assert ranked[0][1] in refusal.value.why


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("seed", range(3))
def test_a_needle_is_found(seed: int, searcher: str) -> None:
    """Only the smallest and its nearest fit: random draws would hardly meet them."""
    problem = ToyProblem(seed=seed)
    found = problem.search([problem.budget(0.01)], evaluations=5, seed=seed, searcher=searcher)
    assert 1 <= len(found.evaluations) <= 5


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_the_same_seed_gives_the_same_search(searcher: str) -> None:
    def looked_at(seed: int) -> list[str]:
        problem = ToyProblem()
        found = problem.search([problem.budget(0.6)], seed=seed, searcher=searcher)
        return [one.architecture.id for one in found.evaluations]

    assert looked_at(1) == looked_at(1)
    assert looked_at(1) != looked_at(2)


def gains(better: str, worse: str, figure: str, evaluations: int) -> np.ndarray:
    """By how much one searcher beats another at equal evaluations, one number for each seed."""
    reached: dict[str, list[float]] = {better: [], worse: []}
    for searcher, seed in itertools.product(reached, range(6)):
        problem = ToyProblem(seed=seed)
        found = problem.search([problem.budget(0.5)], evaluations=evaluations, seed=seed, searcher=searcher)
        assert len(found.evaluations) == evaluations
        reached[searcher].append(getattr(found.trace[-1], figure))
    return np.array(reached[better]) - np.array(reached[worse])


@pytest.mark.parametrize(
    ("better", "worse", "figure", "evaluations"),
    [
        ("evolution", "random", "best", 150),
        ("nsga2", "random", "hypervolume", 150),
        ("assisted", "evolution", "best", 60),
        ("assisted", "nsga2", "hypervolume", 60),
    ],
)
def test_searchers_beat_what_they_should(better: str, worse: str, figure: str, evaluations: int) -> None:
    """On average over seeds, and by more than the spread between seeds."""
    gained = gains(better, worse, figure, evaluations)
    assert gained.mean() > 2 * gained.std() / np.sqrt(len(gained)) > 0


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("space", [SMALL, MEDIUM], ids=lambda space: space.name)
def test_a_small_space_is_walked_through_and_left(searcher: str, space: SearchSpace) -> None:
    problem = ToyProblem(space)
    budget = problem.budget(0.7)
    fits = [one for one in space.enumerate() if violation(problem.cost(one), [budget]) == 0]
    assert 3 < len(fits) < space.size()
    found = problem.search([budget], evaluations=1000, searcher=searcher)
    assert {one.architecture.id for one in found.evaluations} == {one.id for one in fits}
    assert found.picks[0].index is not None
    assert found.evaluations[found.picks[0].index].quality.value == max(problem.figure(one) for one in fits)
    assert set(problem.looked_at.values()) == {1}


def test_progress_counts_evaluations_and_says_how_good_they_are() -> None:
    problem, seen = ToyProblem(), list[Progress]()
    problem.begin([problem.budget(0.8)], evaluations=25, listener=seen.append).run()
    assert [(one.done, one.total) for one in seen] == [(n, 25) for n in (1, 6, 11, 16, 21, 25)]
    assert all("hypervolume" in one.note and "best" in one.note for one in seen)


def test_an_unknown_searcher_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="evolutoin") as refusal:
        ToyProblem().searcher([], "evolutoin")
    assert "evolution" in refusal.value.hint


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("latency_s@rpi", 0.0123, "12.3 ms on rpi"),
        ("latency_s.p90@rpi", 0.0123, "12.3 ms (p90) on rpi"),
        ("size_bytes", 3 * 2**20, "3 MiB"),
        ("peak_memory_bytes@rpi", 3 * 2**20, "3 MiB of memory on rpi"),
        ("energy_j@rpi", 0.0015, "1.5 mJ on rpi"),
        ("parameters", 1234567, "1,234,567 parameters"),
    ],
)
def test_costs_are_spelled_for_people(key: str, value: float, words: str) -> None:
    assert spell(key, value) == words
    assert metric_of(key) == key.split("@", maxsplit=1)[0].split(".", maxsplit=1)[0]


# -- several budgets in one go ----------------------------------------------------------------------------------------


def test_a_sweep_finds_the_best_for_each_set_of_budgets() -> None:
    problem = ToyProblem()
    limits = [problem.budget(share) for share in (0.7, 0.4, 0.1)]
    search = problem.begin(*([one] for one in limits), evaluations=60, searcher="assisted")
    search.run()
    found = search.found
    assert [pick.budgets for pick in found.picks] == [(one,) for one in limits]
    qualities = []
    for pick in found.picks:
        fits = [one for one in found.evaluations if violation(one.costs, pick.budgets) == 0]
        assert pick.index is not None
        assert found.evaluations[pick.index].quality.value == max(one.quality.value for one in fits)
        qualities.append(found.evaluations[pick.index].quality.value)
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > qualities[2]


def test_a_set_that_nothing_kept_says_what_came_nearest() -> None:
    problem = ToyProblem()
    search = problem.begin([problem.budget(0.7)], evaluations=10)
    search.run()
    impossible = Search(
        search._wanted._replace(budget_sets=((problem.budget(0.7),), (problem.budget(-0.02),))),
        problem.searcher([problem.budget(0.7)], "random"),
        problem.costs,
        problem.judge,
        before=search.found.evaluations,
        listener=lambda _: None,
    )
    best, none = impossible.found.picks
    assert best.index is not None
    assert none.index is None
    assert "is allowed" in none.nearest


# -- going on, and measuring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("after", [1, 3])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(searcher: str, after: int) -> None:
    budgets = [ToyProblem().budget(0.6)]
    kept: list[Step] = []
    whole = measured(ToyProblem(), budgets, searcher, kept)
    whole.run()
    problem = ToyProblem()
    again: list[Step] = []
    resumed = measured(problem, budgets, searcher, again)
    resumed.replay(kept[:after])
    resumed.run()
    assert resumed.found == whole.found
    assert kept[:after] + again == kept
    assert set(problem.looked_at.values()) == {1}
    assert len(problem.looked_at) < len(whole.found.evaluations)


def measured(problem: ToyProblem, budgets: Sequence[Budget], searcher: str, kept: list[Step]) -> Search:
    """A search whose subnets turn out half as slow again as predicted when they are measured."""

    def measure(chosen: Sequence[Architecture]) -> None:
        for one in chosen:
            if one.id not in problem.measured:
                problem.measured[one.id] = 1.5 * problem.cost(one)[LATENCY].value

    measuring = Measuring(measure, at_once=2, rounds=2)
    return problem.begin(budgets, searcher=searcher, measuring=measuring, keep=kept.append)


def test_what_wins_was_measured_and_keeps_the_budget_as_measured() -> None:
    problem = ToyProblem(doubt=0.0)
    budget, kept = problem.budget(0.5), list[Step]()
    search = measured(problem, [budget], "assisted", kept)
    search.run()
    found = search.found
    assert found.picks[0].index is not None
    winner = found.evaluations[found.picks[0].index]
    assert winner.costs[LATENCY].source == "measured"
    assert winner.costs[LATENCY].upper <= budget.limit
    assert any(not one.feasible for one in found.evaluations)  # some kept the budget until they were measured
    assert all(one.feasible == (violation(one.costs, [budget]) == 0) for one in found.evaluations)
    chosen = [one.id for step in kept for one in step.to_measure]
    assert len(chosen) == len(set(chosen)) == len(problem.measured)


def test_the_hypervolume_told_last_is_that_of_what_was_found() -> None:
    """What is measured at the end, and a scale of its own, change it after the last subnets were looked at."""
    problem, told = ToyProblem(doubt=0.0), list[Progress]()
    search = measured(problem, [problem.budget(0.5)], "assisted", [])
    search._listener = told.append
    search.run()
    before = len(told)
    search.settle(search.scale)
    search.settle(search.scale._replace(best=2.0))
    assert told[-1].note.endswith(f"hypervolume {search.found.trace[-1].hypervolume:.3f}")
    again = len(told)
    assert again > before
    assert told[-1].done == told[before - 1].done
    search.settle(search.scale)
    assert len(told) == again


def test_what_was_known_before_teaches_wins_and_is_not_counted() -> None:
    problem = ToyProblem()
    budget = problem.budget(0.5)
    earlier = problem.search([budget], evaluations=60, searcher="assisted", seed=3)
    problem.looked_at.clear()
    search = problem.begin([budget], evaluations=10, searcher="assisted", before=earlier.evaluations)
    search.run()
    found = search.found
    assert len(found.evaluations) == 70
    assert not set(problem.looked_at) & {one.architecture.id for one in earlier.evaluations[1:]}
    assert [one.batch for one in found.evaluations[:60]] == [-1] * 60
    assert found.trace[-1].evaluations == 10
    assert found.trace[0].best >= earlier.trace[-1].best


def test_hopeless_subnets_are_raced_against_what_is_cheaper_and_cannot_win() -> None:
    problem = ToyProblem()
    raced: list[tuple[Architecture, Sequence[Architecture]]] = []

    def judge(asked: Sequence[Architecture], rivals: Sequence[Sequence[Architecture]]) -> list[Judged]:
        raced.extend(zip(asked, rivals, strict=True))
        return [Judged(problem.quality(one), stopped=bool(rivals[at])) for at, one in enumerate(asked)]

    search = problem.begin([problem.budget(0.6)], evaluations=40)
    search._judge = judge
    search.run()
    found = search.found
    known = {one.architecture.id: one for one in found.evaluations}
    assert any(against for _, against in raced)
    for one, against in raced:
        for rival in against:
            assert not known[rival.id].stopped
            assert all(
                known[rival.id].costs[key].value <= cost.value
                for key, cost in problem.cost(one).items()
                if key == LATENCY
            )
    assert not any(found.evaluations[index].stopped for index in found.front)
    assert not any(found.evaluations[pick.index].stopped for pick in found.picks if pick.index is not None)


def test_what_a_device_could_not_run_wins_nothing_whatever_is_limited() -> None:
    problem = ToyProblem()
    budget = problem.budget(0.9, "parameters")
    best = problem.search([budget], searcher="assisted").evaluations
    winner = max(best, key=lambda one: one.quality.value).architecture
    problem.measured[winner.id] = NEVER
    found = problem.search([budget], searcher="assisted")
    assert winner.id in {one.architecture.id for one in found.evaluations}
    assert all(one.feasible == (one.architecture != winner) for one in found.evaluations)
    assert found.picks[0].index is not None
    assert found.evaluations[found.picks[0].index].architecture != winner
    assert winner not in [found.evaluations[index].architecture for index in found.front]


def test_who_was_given_up_beside_one_that_does_not_fit_after_all_is_judged_again() -> None:
    """Whoever was raced against is measured far over the budget: what it had beaten comes back, judged in full."""
    problem, beaten_by = ToyProblem(doubt=0.0), set[str]()

    def judge(asked: Sequence[Architecture], rivals: Sequence[Sequence[Architecture]]) -> list[Judged]:
        beaten_by.update(rivals[at][0].id for at in range(len(asked)) if rivals[at])
        return [Judged(problem.quality(one), stopped=bool(rivals[at])) for at, one in enumerate(asked)]

    def measure(chosen: Sequence[Architecture]) -> None:
        problem.measured.update({one.id: 1.0 for one in chosen if one.id in beaten_by})

    budget = problem.budget(0.6)
    search = problem.begin([budget], searcher="assisted", measuring=Measuring(measure, at_once=40, rounds=2))
    search._judge = judge
    search.run()
    found = search.found
    assert problem.measured
    assert any(not one.feasible for one in found.evaluations)
    for one in found.evaluations:
        cheaper = [other for other in found.evaluations if other.feasible and not other.stopped and other != one]
        beaten = any(
            other.quality.value >= one.quality.value and other.costs[LATENCY].value <= one.costs[LATENCY].value
            for other in cheaper
        )
        assert not one.stopped or not one.feasible or beaten
    assert len({one.architecture.id for one in found.evaluations}) == len(found.evaluations) == 40
