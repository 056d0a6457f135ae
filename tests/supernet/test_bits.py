"""Precision as axes of a space: what the axes mean, and what counting many architectures at once says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from toolchain.arrays import draw_arrays, to_arrays
from toolchain.errors import UsageError
from toolchain.records import Workload
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration, find_families

BERT = declaration("bert")
SPACES = {
    f"{family} {name} {labels}": declaration(family).resolve(
        space, vocabulary_size=777, labels=labels, maximum_length=32
    )
    for family in find_families()
    for name, space in declaration(family).SPACES.items()
    for labels in ((0,) if family == "translation" else (0, 3))
}
WITH_BITS = {name: BERT.with_bits(space) for name, space in SPACES.items() if space.family == "bert"}


def put(space: SearchSpace, **axes: Any) -> Architecture:
    """The largest architecture, all fp32 but for these."""
    return Architecture("bert", BERT.at_bits(space.largest(), 32).axes | axes)


@pytest.mark.parametrize("name", SPACES)
def test_counting_many_at_once_is_counting_each(name: str) -> None:
    space = SPACES[name]
    declared, rng = declaration(space.family), np.random.default_rng(0)
    for drawn_from in (space, *([WITH_BITS[name]] if name in WITH_BITS else [])):
        drawn = [drawn_from.sample(rng) for _ in range(30)] + [drawn_from.smallest(), drawn_from.largest()]
        counted = declared.counts(drawn_from, to_arrays(drawn_from, drawn))
        assert counted["parameters"].tolist() == [declared.parameters(drawn_from, one) for one in drawn]
        fp32 = [row for row, one in enumerate(drawn) if declared.precision(one) == "fp32"]
        assert fp32
        assert (counted["weight_bytes"][fp32] == 4 * counted["parameters"][fp32]).all()


def test_a_space_with_bits_is_the_space_with_four_more_axes() -> None:
    space = tiny.resolved()
    with_bits = BERT.with_bits(space)
    assert with_bits.name == "made-bits"
    assert with_bits.fixed == space.fixed
    assert {axis.name: (axis.choices, axis.per) for axis in with_bits.axes[len(space.axes) :]} == {
        "embedding_bits": ((8, 32), None),
        "head_bits": ((8, 32), None),
        "attention_bits": ((8, 32), "depth"),
        "ffn_bits": ((8, 32), "depth"),
    }
    narrowed = space.narrowed(space.largest())
    assert BERT.with_bits(narrowed) == with_bits


@given(seed=st.integers(0, 2**32))
def test_without_its_bits_an_architecture_is_one_the_supernet_knows(seed: int) -> None:
    space = tiny.resolved()
    one = BERT.with_bits(space).sample(np.random.default_rng(seed))
    plain = BERT.without_bits(one)
    space.check(plain)
    assert BERT.has_bits(one)
    assert not BERT.has_bits(plain)
    assert BERT.without_bits(plain) == plain
    for bits in (8, 32):
        BERT.with_bits(space).check(BERT.at_bits(one, bits))
        assert BERT.without_bits(BERT.at_bits(one, bits)) == plain


def test_a_policy_names_the_modules_it_is_about() -> None:
    space = tiny.resolved(labels=0)
    assert BERT.int8_modules(space.largest()) == frozenset()
    assert BERT.int8_modules(put(space)) == frozenset()
    assert BERT.int8_modules(put(space, ffn_bits=(32, 8, 32))) == {"blocks.1.fc1", "blocks.1.fc2"}
    attention = {f"blocks.0.{name}" for name in ("query", "key", "value", "output")}
    assert BERT.int8_modules(put(space, attention_bits=(8, 32, 32))) == {"links.0", *attention}
    assert BERT.int8_modules(put(space, embedding_bits=8)) == {"word"}
    assert "head.dense" in BERT.int8_modules(put(space, head_bits=8))


def test_a_file_is_mixed_only_where_both_are_in_it() -> None:
    space = tiny.resolved()
    assert [BERT.precision(one) for one in (space.largest(), put(space), put(space, head_bits=8))] == [
        *("fp32", "fp32", "mixed")
    ]
    assert BERT.precision(BERT.at_bits(space.smallest(), 8)) == "int8"


@pytest.mark.parametrize("name", WITH_BITS)
def test_the_work_of_a_pass_is_split_between_precisions_and_none_is_lost(name: str) -> None:
    space, with_bits, workload = SPACES[name], WITH_BITS[name], Workload(batch=2, sequence_length=16)
    arrays = draw_arrays(with_bits, 200, np.random.default_rng(0))
    plain = BERT.features(space, {axis.name: arrays[axis.name] for axis in space.axes}, workload)
    mixed = BERT.features(with_bits, arrays, workload)
    assert not any("int8" in feature or feature == "quantised" for feature in plain)
    for feature in ("dense", "head", "decoder"):
        np.testing.assert_allclose(mixed[feature] + mixed[f"{feature}_int8"], plain[feature])
    for feature in plain.keys() - {"dense", "head", "decoder"}:
        np.testing.assert_array_equal(mixed[feature], plain[feature])
    assert {feature for own in BERT.BLOCKS.values() for feature in own} == mixed.keys()
    fp32 = BERT.features(with_bits, to_arrays(with_bits, [put(space)]), workload)
    assert all(fp32[feature] == 0 for feature in mixed.keys() - plain.keys())
    int8 = BERT.features(with_bits, to_arrays(with_bits, [BERT.at_bits(space.largest(), 8)]), workload)
    assert all(int8[feature] > 0 for feature in mixed.keys() - plain.keys())
    assert int8["dense"] == int8["head"] == int8["decoder"] == 0


def test_eight_bits_anywhere_make_a_file_smaller_but_an_untied_decoder() -> None:
    space = tiny.resolved(labels=0)
    with_bits = BERT.with_bits(space)
    policies = {
        "fp32": put(space),
        "embedding": put(space, embedding_bits=8),
        "head": put(space, head_bits=8),
        "attention": put(space, attention_bits=(8, 8, 8)),
        "ffn": put(space, ffn_bits=(8, 8, 8)),
    }
    counted = BERT.counts(with_bits, to_arrays(with_bits, list(policies.values())))["weight_bytes"]
    size = dict(zip(policies, counted.tolist(), strict=True))
    assert max(size["embedding"], size["attention"], size["ffn"]) < size["fp32"]
    assert size["head"] > size["embedding"]  # the decoder needs a copy where the table it shares stays fp32


def test_a_translation_model_has_no_precisions_to_choose_from() -> None:
    declared = declaration("translation")
    space = SPACES["translation tiny 0"]
    with pytest.raises(UsageError, match="one precision for all its layers"):
        declared.with_bits(space)
    largest = space.largest()
    assert not declared.has_bits(largest)
    assert declared.without_bits(largest) is declared.at_bits(largest, 32) is largest
    assert (declared.precision(largest), declared.int8_modules(largest)) == ("fp32", frozenset())
    with pytest.raises(UsageError, match="8-bit"):
        declared.at_bits(largest, 8)
