from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.text.corpus import same_text_key
from toolchain.text.pairs import split_pairs

from .made_pairs import corpus


def test_nothing_leaks_through_either_side() -> None:
    """Sources that share a translation, and translations that share a source, are tied; also through one another."""
    whole = corpus(300)
    sources = [*whole.sources, *(f"{text.upper()} " for text in whole.sources[:100]), *(f"new {i}" for i in range(100))]
    targets = [*whole.targets, *(f"neu {i}" for i in range(100)), *(f"Neu  {i}" for i in range(100))]
    tied = whole._replace(sources=tuple(sources), targets=tuple(targets), held_out_share=0.25)
    pairs = split_pairs(tied, seed=3)
    assert sorted(pairs.train + pairs.validation + pairs.test) == sorted(zip(sources, targets, strict=True))
    assert (len(pairs.validation), len(pairs.test)) == (125, 125)
    for side in (0, 1):
        keys = [{same_text_key(pair[side]) for pair in part} for _, part in pairs.named()]
        assert all(one.isdisjoint(other) for one, other in itertools.combinations(keys, 2))


@given(
    words=st.lists(st.tuples(st.sampled_from("abcdefghAB"), st.sampled_from("rstuvwxyzRS")), min_size=4, max_size=40),
    seed=st.integers(0, 5),
)
def test_any_pairs_are_split_without_leaking_or_refused(words: list[tuple[str, str]], seed: int) -> None:
    whole = corpus()._replace(sources=tuple(one for one, _ in words), targets=tuple(two for _, two in words))
    try:
        pairs = split_pairs(whole, seed=seed)
    except UsageError as error:
        assert "nothing is left" in str(error)  # noqa: PT017 -- one of two right outcomes
        return
    assert sorted(pairs.train + pairs.validation + pairs.test) == sorted(words)
    for side in (0, 1):
        keys = [{pair[side].casefold() for pair in part} for _, part in pairs.named()]
        assert all(one.isdisjoint(other) for one, other in itertools.combinations(keys, 2))


def test_the_order_of_lines_changes_nothing() -> None:
    whole = corpus(300)
    order = np.random.default_rng(1).permutation(300)
    mixed = whole._replace(
        sources=tuple(whole.sources[i] for i in order), targets=tuple(whole.targets[i] for i in order)
    )
    assert split_pairs(mixed, seed=0) == split_pairs(whole, seed=0)
    assert split_pairs(whole, seed=1) != split_pairs(whole, seed=0)


def test_held_out_pairs_are_halved_and_leave_training() -> None:
    whole, other = corpus(200), corpus(101, start=300)
    sources = [other.sources[0].upper(), "another source", *whole.sources[2:]]
    targets = ["another target", other.targets[50], *whole.targets[2:]]
    pairs = split_pairs(whole._replace(sources=tuple(sources), targets=tuple(targets)), seed=0, held_out=other)
    assert (len(pairs.train), len(pairs.validation), len(pairs.test)) == (198, 51, 50)
    assert sorted(pairs.validation + pairs.test) == sorted(zip(other.sources, other.targets, strict=True))
    assert pairs.notes == ("2 pairs whose source or target is also held out left out of training",)
    assert split_pairs(whole, seed=0, held_out=other).notes == ()


def test_what_cannot_be_split() -> None:
    whole = corpus(100)
    with pytest.raises(UsageError, match="nothing is left for the train split"):
        split_pairs(whole, seed=0, held_out=whole)
    with pytest.raises(UsageError, match="nothing is left for the validation split"):
        split_pairs(whole._replace(targets=("the same",) * 100), seed=0)
    with pytest.raises(UsageError, match="de to en"):
        split_pairs(whole, seed=0, held_out=corpus(60, start=100)._replace(languages=("de", "en")))
    unnamed = corpus(60, start=100)._replace(languages=("source", "target"))
    assert len(split_pairs(whole, seed=0, held_out=unnamed).train) == 100
