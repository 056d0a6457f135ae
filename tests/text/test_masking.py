from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolchain.text import IGNORED, mask_tokens
from toolchain.text.tokenizing import MASK, SPECIALS

FIRST = len(SPECIALS)
VOCABULARY = 60
IDS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
    elements=st.integers(0, VOCABULARY - 1),
)


@settings(deadline=None)
@given(ids=IDS, seed=st.integers(0, 1000), share=st.floats(0.01, 1))
def test_what_is_asked_for_is_what_was_there(ids: np.ndarray, seed: int, share: float) -> None:
    before = ids.copy()
    inputs, targets = mask_tokens(ids, np.random.default_rng(seed), VOCABULARY, share)
    asked = targets != IGNORED
    np.testing.assert_array_equal(ids, before)
    np.testing.assert_array_equal(targets[asked], ids[asked])
    np.testing.assert_array_equal(inputs[~asked], ids[~asked])
    assert (ids[asked] >= FIRST).all()
    assert np.isin(inputs[asked], [MASK, *range(FIRST, VOCABULARY)]).all()
    np.testing.assert_array_equal(asked.any(axis=1), (ids >= FIRST).any(axis=1))
    assert inputs.dtype == targets.dtype == np.int32


@settings(deadline=None)
@given(ids=IDS, seed=st.integers(0, 1000))
def test_the_same_seed_gives_the_same_masks(ids: np.ndarray, seed: int) -> None:
    once, again = (mask_tokens(ids, np.random.default_rng(seed), VOCABULARY) for _ in range(2))
    np.testing.assert_array_equal(once.inputs, again.inputs)
    np.testing.assert_array_equal(once.targets, again.targets)


def test_shares_are_those_of_bert() -> None:
    ids = np.full((2000, 100), VOCABULARY, dtype=np.int32)  # no random token equals it
    inputs, targets = mask_tokens(ids, np.random.default_rng(0), VOCABULARY)
    asked = targets != IGNORED
    assert asked.mean() == pytest.approx(0.15, abs=0.005)
    assert (inputs[asked] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (inputs[asked] == VOCABULARY).mean() == pytest.approx(0.1, abs=0.01)
    drawn = inputs[asked & (inputs != MASK) & (inputs != VOCABULARY)]
    assert set(drawn.tolist()) == set(range(FIRST, VOCABULARY))


def test_the_token_a_short_row_must_give_is_drawn_evenly() -> None:
    ids = np.full((3000, 3), FIRST, dtype=np.int32)
    _, targets = mask_tokens(ids, np.random.default_rng(0), VOCABULARY, share=1e-9)
    np.testing.assert_array_equal((targets != IGNORED).sum(axis=1), 1)
    assert (targets != IGNORED).mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize(("vocabulary", "share"), [(FIRST, 0.15), (60, 0.0), (60, 1.5)])
def test_impossible_requests(vocabulary: int, share: float) -> None:
    with pytest.raises(ValueError, match="cannot mask"):
        mask_tokens(np.full((1, 4), 7, dtype=np.int32), np.random.default_rng(0), vocabulary, share)
