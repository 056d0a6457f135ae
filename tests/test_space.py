import hashlib
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import spaces

from toolchain.errors import UsageError
from toolchain.space import Architecture, Axis, SearchSpace

SEEDS = st.integers(0, 2**32)
SPACE = SearchSpace(
    "small",
    "bert",
    (Axis("heads", (1, 2), per="depth"), Axis("width", (8, 16, 32)), Axis("depth", (1, 3))),
)
TALL = Architecture("bert", {"heads": (2, 1, 2), "width": 16, "depth": 3})


@given(spaces(), SEEDS)
def test_a_sample_is_in_its_space_and_the_same_seed_draws_it_again(space: SearchSpace, seed: int) -> None:
    drawn = space.sample(np.random.default_rng(seed))
    space.check(drawn)
    assert drawn == space.sample(np.random.default_rng(seed))
    assert drawn.id == space.sample(np.random.default_rng(seed)).id


@given(spaces())
def test_smallest_middle_and_largest_are_in_the_space(space: SearchSpace) -> None:
    for architecture in (space.smallest(), space.middle(), space.largest()):
        space.check(architecture)
    for axis in space.axes:
        assert np.all(np.asarray(space.smallest().axes[axis.name]) == axis.choices[0])
        assert np.all(np.asarray(space.largest().axes[axis.name]) == axis.choices[-1])


@given(spaces(), SEEDS, st.floats(0, 1))
def test_mutation_stays_inside(space: SearchSpace, seed: int, probability: float) -> None:
    rng = np.random.default_rng(seed)
    parent = space.sample(rng)
    space.check(space.mutate(parent, rng, probability))
    assert space.mutate(parent, rng, 0.0) == parent


@given(spaces(), SEEDS)
def test_every_entry_of_a_child_comes_from_a_parent_that_has_it(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    child = space.crossover(first, second, rng)
    space.check(child)
    for axis in space.axes:
        inherited = np.atleast_1d(child.axes[axis.name])
        parents = [np.atleast_1d(parent.axes[axis.name]) for parent in (first, second)]
        for layer, entry in enumerate(inherited):
            assert entry in [parent[layer] for parent in parents if layer < len(parent)]


def test_mutation_and_crossover_do_change_things() -> None:
    rng = np.random.default_rng(0)
    assert len({SPACE.mutate(TALL, rng, 0.5).id for _ in range(50)}) > 5
    assert len({SPACE.crossover(SPACE.smallest(), SPACE.largest(), rng).id for _ in range(50)}) > 5


@given(spaces())
def test_enumerate_gives_each_architecture_once_and_size_counts_them(space: SearchSpace) -> None:
    everything = list(space.enumerate())
    assert len(everything) == space.size()
    assert len({architecture.id for architecture in everything}) == len(everything)
    for architecture in everything[:50]:
        space.check(architecture)


@given(spaces())
def test_no_two_architectures_share_an_encoding(space: SearchSpace) -> None:
    encodings = [space.encode(architecture) for architecture in space.enumerate()]
    assert len(set(encodings)) == len(encodings)
    for encoding in encodings:
        assert len(encoding) == space.encoding_size()
        assert all(0 <= number <= 1 for number in encoding)


def test_samples_reach_every_architecture_of_a_small_space() -> None:
    rng = np.random.default_rng(1)
    assert {SPACE.sample(rng).id for _ in range(2000)} == {architecture.id for architecture in SPACE.enumerate()}


@given(spaces(), SEEDS, st.randoms(use_true_random=False))
def test_an_id_does_not_depend_on_the_order_of_the_axes_in_json(space: SearchSpace, seed: int, random) -> None:
    drawn = space.sample(np.random.default_rng(seed))
    plain = json.loads(msgspec.json.encode(drawn))
    names = list(plain["axes"])
    random.shuffle(names)
    respelt = json.dumps({"axes": {name: plain["axes"][name] for name in names}, "family": plain["family"]}, indent=3)
    again = msgspec.json.decode(respelt, type=Architecture)
    assert (again, again.id, hash(again)) == (drawn, drawn.id, hash(drawn))
    assert space.encode(again) == space.encode(drawn)


def test_an_id_is_stored_in_files_so_it_may_never_change() -> None:
    spelling = b'{"axes":{"depth":3,"heads":[2,1,2],"width":16},"family":"bert"}'
    assert TALL.id == hashlib.sha256(spelling).hexdigest()[:12] == "516a9bd97d75"


@pytest.mark.parametrize(
    ("axes", "at_fault"),
    [
        ({"heads": (2, 1, 2), "width": 9, "depth": 3}, "'width': 9"),
        ({"heads": (2, 1, 7), "width": 8, "depth": 3}, "'heads': 7"),
        ({"heads": (2, 1), "width": 8, "depth": 3}, "'heads' has (2, 1)"),
        ({"heads": 2, "width": 8, "depth": 1}, "'heads' has 2"),
        ({"heads": (2,), "width": (8,), "depth": 1}, "'width' has (8,)"),
        ({"heads": (2, 2), "width": 8, "depth": 2}, "'depth': 2"),
        ({"heads": (2, 2), "width": 8, "depth": (2,)}, "'depth' has (2,)"),
        ({"heads": (2,), "width": 8}, "'depth'"),
        ({"heads": (2,), "depth": 1}, "'width'"),
        ({"heads": (2,), "width": 8, "depth": 1, "widht": 8}, "'widht'"),
    ],
)
def test_check_names_the_axis_at_fault(axes: dict, at_fault: str) -> None:
    with pytest.raises(UsageError) as refused:
        SPACE.check(Architecture("bert", axes))
    assert at_fault in str(refused.value)
    assert refused.value.hint


def test_check_refuses_another_family() -> None:
    with pytest.raises(UsageError, match="'gpt'"):
        SPACE.check(Architecture("gpt", TALL.axes))


def test_numbers_and_layers_are_told_apart() -> None:
    assert (TALL.number("depth"), TALL.layers("heads")) == (3, (2, 1, 2))
    with pytest.raises(TypeError, match="heads"):
        TALL.number("heads")
    with pytest.raises(TypeError, match="depth"):
        TALL.layers("depth")


@pytest.mark.parametrize("choices", [(), (2, 1), (1, 1), (0, 1), (-3,)])
def test_an_axis_has_rising_positive_choices(choices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising order"):
        Axis("width", choices)


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ((Axis("a", (1,)), Axis("a", (2,))), "share a name"),
        ((Axis("a", (1,), per="b"),), "no depth axis"),
        ((Axis("a", (1,), per="a"),), "no depth axis"),
        ((Axis("a", (1,), per="b"), Axis("b", (1,), per="c"), Axis("c", (1,))), "no depth axis"),
    ],
)
def test_a_space_refuses_axes_that_contradict_each_other(axes: tuple[Axis, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SearchSpace("bad", "bert", axes)


@given(spaces())
def test_a_space_reads_back_as_the_same_space(space: SearchSpace) -> None:
    again = msgspec.json.decode(msgspec.json.encode(space), type=SearchSpace)
    assert (again, again.digest) == (space, space.digest)
