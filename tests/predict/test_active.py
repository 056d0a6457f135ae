from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.arrays import Floats
from toolchain.predict import most_telling

from .made_device import draw, matrix

SLACK = 1e-3
"""What the ridge may change in a log determinant."""


def networks(count: int, seed: int) -> Floats:
    return matrix(draw(count, seed))


def information(rows: Floats) -> float:
    """The log determinant of what the rows tell of all costs: `pass` is the intercept."""
    return float(np.linalg.slogdet(rows.T @ rows)[1])


@settings(max_examples=40)
@given(candidates=st.integers(1, 40), measured=st.integers(0, 20), count=st.integers(0, 50), seed=st.integers(0, 2**32))
def test_none_is_chosen_twice_and_the_same_are_chosen_again(
    candidates: int, measured: int, count: int, seed: int
) -> None:
    """However few there are: where fewer are left than asked for, all of them."""
    those, known = networks(candidates, seed), networks(20, 1)[:measured]
    chosen = most_telling(those, known, count)
    assert len(chosen) == len(set(chosen)) == min(count, candidates)
    assert set(chosen) <= set(range(candidates))
    assert chosen == most_telling(those, known, count)
    assert most_telling(those, known, count // 2) == chosen[: min(count // 2, candidates)]


@pytest.mark.parametrize("seed", range(4))
def test_the_first_tells_more_of_all_costs_than_any_other_would(seed: int) -> None:
    measured, candidates = networks(12, seed), networks(200, 100 + seed)
    told = [information(np.vstack([measured, one])) for one in candidates]
    (chosen,) = most_telling(candidates, measured, 1)
    assert told[chosen] > max(told) - SLACK
    assert np.median(told) < max(told) - 100 * SLACK


@pytest.mark.parametrize("seed", range(4))
def test_every_other_is_chosen_given_all_before_it_and_those_between_in_their_order(seed: int) -> None:
    measured, candidates = networks(12, seed), networks(100, 100 + seed)
    chosen = most_telling(candidates, measured, 10)
    left = list(range(100))
    for place, row in enumerate(chosen):
        told = {one: information(np.vstack([measured, candidates[one]])) for one in left}
        assert row == left[0] if place % 2 else told[row] > max(told.values()) - SLACK
        left.remove(row)
        measured = np.vstack([measured, candidates[row]])


@pytest.mark.parametrize("seed", range(4))
def test_they_tell_more_than_random_ones(seed: int) -> None:
    """Than any of two hundred random choices, although half of them are in no order."""
    measured, candidates = networks(12, seed), networks(500, 100 + seed)
    chosen = information(np.vstack([measured, candidates[most_telling(candidates, measured, 10)]]))
    draws = [np.random.default_rng((seed, one)).choice(500, 10, replace=False) for one in range(200)]
    assert chosen > max(information(np.vstack([measured, candidates[one]])) for one in draws)


def test_a_kind_of_work_that_was_never_seen_to_differ_comes_first() -> None:
    """All rows had 4 layers; of a hundred candidates one has 3, and but for that it is a network already measured."""
    measured, candidates = networks(30, 0), networks(100, 1)
    layers = 1
    measured[:, layers] = candidates[:, layers] = 4
    ordinary = np.argmin((((measured - measured.mean(axis=0)) / (measured.std(axis=0) + 1e-9)) ** 2).sum(axis=1))
    candidates[50] = measured[ordinary]
    assert 50 not in most_telling(candidates, measured, 20)
    candidates[50, layers] = 3
    assert most_telling(candidates, measured, 20)[0] == 50
