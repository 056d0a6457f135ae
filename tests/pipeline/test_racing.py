"""A race gives up what is surely worse, hardly ever what is not, and sees every length of text on the way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.pipeline.racing import ERROR, hopeless, looks, spread


def raced(differences: np.ndarray, batches: int) -> float:
    """The share of the texts that are seen when they come in this order, in so many batches."""
    *early, everything = looks(batches)
    for seen in early:
        texts = len(differences) * seen // everything
        if hopeless(differences[:texts], len(differences), len(early)):
            return seen / everything
    return 1.0


def population(texts: int, differ: int, lead: int, tokens: int = 1) -> np.ndarray:
    """[texts, tokens] of -1, 0 and 1: `differ` of them not 0, and `lead` more of them 1 than -1."""
    found = np.zeros(texts * tokens, np.int64)
    found[:differ] = np.where(np.arange(differ) < (differ + lead) // 2, 1, -1)
    return found.reshape(texts, tokens)


@pytest.mark.parametrize(("texts", "differ", "tokens"), [(1000, 300, 1), (1000, 60, 1), (250, 60, 1), (250, 800, 10)])
def test_what_is_as_good_is_hardly_ever_given_up(texts: int, differ: int, tokens: int) -> None:
    rng, draws = np.random.default_rng(0), 400
    equal = population(texts, differ, 0, tokens)
    stopped = sum(raced(rng.permuted(equal.ravel()).reshape(equal.shape).sum(axis=1), 16) < 1 for _ in range(draws))
    assert stopped / draws <= ERROR + 2 * np.sqrt(ERROR * (1 - ERROR) / draws)


def test_what_is_much_worse_is_given_up_early_and_what_is_better_never() -> None:
    rng = np.random.default_rng(0)
    worse, better = population(1000, 300, 120), population(1000, 300, -60)
    seen = [raced(rng.permutation(worse).sum(axis=1), 16) for _ in range(100)]
    assert np.mean(seen) < 0.3
    assert all(raced(rng.permutation(better).sum(axis=1), 16) == 1 for _ in range(100))


@given(st.integers(0, 6), st.integers(1, 6))
def test_a_handful_of_texts_proves_nothing(handful: int, times: int) -> None:
    assert not hopeless(np.ones(handful, np.int64), 1000, times) or (handful >= 5 and times == 1) or handful > 5


def test_equal_answers_prove_nothing() -> None:
    assert not hopeless(np.zeros(500, np.int64), 1000, 3)


@pytest.mark.parametrize(("batches", "expected"), [(16, (2, 4, 8, 16)), (4, (1, 2, 4)), (3, (1, 2, 3)), (1, (1,))])
def test_the_looks_end_with_all(batches: int, expected: tuple[int, ...]) -> None:
    assert looks(batches) == expected


@given(st.integers(0, 6), st.integers(0, 1000))
def test_every_beginning_covers_all_lengths(power: int, seed: int) -> None:
    count = 2**power
    order = spread(count, seed)
    assert sorted(order) == list(range(count))
    for parts in itertools.takewhile(lambda parts: parts <= count, (1, 2, 4, 8, 16, 32, 64)):
        assert sorted(number * parts // count for number in order[:parts]) == list(range(parts))


@given(st.integers(0, 70))
def test_the_order_is_of_all_and_fixed(count: int) -> None:
    assert sorted(spread(count)) == list(range(count))
    assert spread(count) == spread(count)
