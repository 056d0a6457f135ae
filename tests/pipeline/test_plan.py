from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.pipeline.growing import plan
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families.bert.declare import SPACES

FEW = SearchSpace("few", "bert", (Axis("depth", (1, 2)), Axis("hidden", (4, 8, 12), per="depth")), {})


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_a_plan_begins_with_the_extremes_and_repeats_nothing(space: SearchSpace) -> None:
    planned = plan(space, 40)
    assert len({one.id for one in planned}) == 40
    assert planned[:3] == [space.smallest(), space.largest(), space.middle()]
    for one in planned:
        space.check(one)


@given(shorter=st.integers(1, 40), longer=st.integers(1, 40))
def test_a_longer_plan_begins_with_a_shorter_one(shorter: int, longer: int) -> None:
    shorter, longer = sorted((shorter, longer))
    space = SPACES["tiny"]
    assert plan(space, longer)[:shorter] == plan(space, shorter)


@pytest.mark.parametrize("n", [12, 13, 500])
def test_a_plan_of_a_small_space_is_all_of_it(n: int) -> None:
    assert FEW.size() == 12
    assert {one.id for one in plan(FEW, n)} == {one.id for one in FEW.enumerate()}


def test_half_of_a_plan_has_layers_all_alike() -> None:
    """They spread the latencies wider than independent draws, whose layers average out."""
    space = SPACES["base"]
    even = [one for one in plan(space, 100) if all(len(set(one.layers(axis))) == 1 for axis in ("hidden", "ffn"))]
    assert 40 <= len(even) <= 65
