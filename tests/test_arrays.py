from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import spaces

from toolchain.arrays import architecture_at, count, draw_arrays, part, present_layers, to_arrays
from toolchain.errors import UsageError
from toolchain.records import Workload
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.supernet.families import declaration, find_families

SEEDS = st.integers(0, 2**32)
SPACE = SearchSpace(
    "small", "bert", (Axis("heads", (1, 2), per="depth"), Axis("width", (8, 16, 32)), Axis("depth", (1, 3)))
)
SHIPPED = [(family, name) for family in find_families() for name in declaration(family).SPACES]


@given(spaces(), SEEDS, st.integers(1, 6))
def test_architectures_come_back_from_their_arrays(space: SearchSpace, seed: int, number: int) -> None:
    assume(space.axes)
    rng = np.random.default_rng(seed)
    architectures = [space.sample(rng) for _ in range(number)]
    arrays = to_arrays(space, architectures)
    assert list(arrays) == [axis.name for axis in space.axes]
    assert count(arrays) == number
    back = [architecture_at(space, arrays, row) for row in range(number)]
    assert back == architectures
    assert [one.id for one in back] == [one.id for one in architectures]


def test_layers_that_an_architecture_does_not_have_hold_zero() -> None:
    short, tall = (
        Architecture("bert", {"heads": heads, "width": 16, "depth": len(heads)}) for heads in ((2,), (2, 1, 2))
    )
    arrays = to_arrays(SPACE, [short, tall])
    assert arrays["heads"].tolist() == [[2, 0, 0], [2, 1, 2]]
    assert arrays["depth"].tolist() == [1, 3]
    assert all(values.dtype == np.float64 for values in arrays.values())
    np.testing.assert_array_equal(present_layers(arrays["depth"], 3), arrays["heads"] > 0)


@given(spaces(), SEEDS, st.integers(1, 6))
def test_what_is_drawn_is_in_the_space_and_the_same_seed_draws_it_again(
    space: SearchSpace, seed: int, number: int
) -> None:
    assume(space.axes)
    arrays = draw_arrays(space, number, np.random.default_rng(seed))
    assert count(arrays) == number
    drawn = [architecture_at(space, arrays, row) for row in range(number)]
    for one in drawn:
        space.check(one)
    for name, values in to_arrays(space, drawn).items():
        np.testing.assert_array_equal(arrays[name], values)
    for name, values in draw_arrays(space, number, np.random.default_rng(seed)).items():
        np.testing.assert_array_equal(arrays[name], values)


def test_each_choice_is_drawn_as_often_as_the_others() -> None:
    arrays = draw_arrays(SPACE, 20_000, np.random.default_rng(0))
    for name, values in arrays.items():
        entries = values[values > 0]
        choices, counts = np.unique(entries, return_counts=True)
        assert tuple(choices) == SPACE.axis(name).choices
        np.testing.assert_allclose(counts / len(entries), 1 / len(choices), atol=0.015)


def test_layers_are_drawn_independently() -> None:
    deep = SearchSpace("deep", "bert", (Axis("depth", (2,)), Axis("heads", (1, 2), per="depth")))
    heads = draw_arrays(deep, 20_000, np.random.default_rng(0))["heads"]
    for pair in itertools.product((1, 2), repeat=2):
        assert np.mean((heads == pair).all(axis=1)) == pytest.approx(0.25, abs=0.015)


@given(spaces(), SEEDS, st.integers(1, 5))
def test_of_a_space_narrowed_to_one_architecture_only_that_is_drawn(space: SearchSpace, seed: int, number: int) -> None:
    assume(space.axes)
    point = space.sample(np.random.default_rng(seed))
    narrowed = space.narrowed(point)
    arrays = draw_arrays(narrowed, number, np.random.default_rng(seed + 1))
    assert count(arrays) == number
    assert {architecture_at(narrowed, arrays, row) for row in range(number)} == {point}


def test_a_part_is_the_same_rows_of_every_axis() -> None:
    arrays = draw_arrays(SPACE, 10, np.random.default_rng(0))
    whole = [architecture_at(SPACE, arrays, row) for row in range(10)]
    for rows in (slice(2, 7), np.array([9, 0, 0, 4], dtype=np.intp)):
        some = part(arrays, rows)
        expected = [whole[row] for row in np.arange(10)[rows]]
        assert count(some) == len(expected)
        assert [architecture_at(SPACE, some, row) for row in range(len(expected))] == expected


# -- what the families count on them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("resolved", [False, True], ids=["declared", "resolved"])
@pytest.mark.parametrize(("family", "name"), SHIPPED)
@settings(max_examples=5)
@given(seed=SEEDS, batch=st.integers(1, 8), length=st.integers(1, 128))
def test_features_of_many_are_those_of_each_alone(
    family: str, name: str, resolved: bool, seed: int, batch: int, length: int
) -> None:
    declared = declaration(family)
    space = declared.SPACES[name]
    if resolved:
        space = declared.resolve(space, vocabulary_size=1000, labels=0, maximum_length=128)
    workload = Workload(batch=batch, sequence_length=length)
    rng = np.random.default_rng(seed)
    architectures = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(6))]
    together = declared.features(space, to_arrays(space, architectures), workload)
    for row, architecture in enumerate(architectures):
        alone = declared.features(space, to_arrays(space, [architecture]), workload)
        assert list(alone) == list(together)
        for kind, values in together.items():
            assert values.shape == (len(architectures),)
            np.testing.assert_allclose(values[row], alone[kind][0], rtol=1e-12)


@pytest.mark.parametrize("family", find_families())
def test_features_begin_with_the_pass_and_every_block_is_made_of_some(family: str) -> None:
    declared = declaration(family)
    for space in declared.SPACES.values():
        arrays = draw_arrays(space, 20, np.random.default_rng(0))
        features = declared.features(space, arrays, Workload())
        assert next(iter(features)) == "pass"
        assert np.all(features["pass"] == 1)
        assert all(np.isfinite(values).all() and values.min() >= 0 for values in features.values())
        owned = [name for names in declared.BLOCKS.values() for name in names]
        assert len(owned) == len(set(owned))
        with contextlib.suppress(UsageError):  # a family without bits has all its features already
            wide = declared.with_bits(space)
            features |= declared.features(wide, draw_arrays(wide, 20, np.random.default_rng(0)), Workload())
        assert set(owned) == set(features)


@given(SEEDS)
def test_averages_over_the_layers_count_the_same_work_of_a_translator(seed: int) -> None:
    """Published tables (HAT's) tell no more than averages: all that is counted are sums over layers."""
    declared = declaration("translation")
    space = declared.SPACES["hat-wmt"]
    exact = draw_arrays(space, 5, np.random.default_rng(seed))
    averaged = {
        axis.name: exact[axis.name]
        if axis.per is None
        else (exact[axis.name].sum(axis=1) / exact[axis.per])[:, None] * (exact[axis.name] > 0)
        for axis in space.axes
    }
    expected = declared.features(space, exact, Workload())
    for kind, values in declared.features(space, averaged, Workload()).items():
        np.testing.assert_allclose(values, expected[kind], rtol=1e-12, err_msg=kind)
