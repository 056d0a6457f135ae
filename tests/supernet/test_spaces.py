from __future__ import annotations

from typing import Any

import msgspec
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from toolchain.arrays import to_arrays
from toolchain.errors import UsageError
from toolchain.records import Mixture, Workload
from toolchain.space import Axis
from toolchain.supernet.families import build_supernet, declaration, find_families

BERT = declaration("bert")


SHIPPED = [
    (family, name, labels)
    for family in find_families()
    for name in declaration(family).SPACES
    for labels in ((0,) if family == "translation" else (0, 4))
]


@pytest.mark.parametrize(("family", "name", "labels"), SHIPPED)
def test_every_space_that_ships_can_be_built(family: str, name: str, labels: int) -> None:
    declared = declaration(family)
    declared.check_space(declared.SPACES[name])
    space = declared.resolve(declared.SPACES[name], vocabulary_size=8000, labels=labels, maximum_length=64)
    declared.check_space(space)
    with torch.device("meta"):
        supernet = build_supernet(space, Mixture(), 0.1)
        for architecture in (space.smallest(), space.largest(), space.middle()):
            subnet = supernet.build_subnet(architecture, 0.0)
            assert sum(one.numel() for one in subnet.parameters()) == declared.parameters(space, architecture)
            shapes = {name: tensor.shape for name, tensor in supernet.fold(architecture).items()}
            assert shapes == {name: one.shape for name, one in subnet.named_parameters()}
    smallest, largest = (declared.parameters(space, one) for one in (space.smallest(), space.largest()))
    assert smallest < largest


def test_a_family_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="birt") as refusal:
        declaration("birt")
    assert "bert" in refusal.value.hint


def without(name: str) -> dict[str, Any]:
    return {"axes": tuple(axis for axis in tiny.declared().axes if axis.name != name)}


def changed(name: str, choices: tuple[int, ...], per: str | None) -> dict[str, Any]:
    return {"axes": tuple(Axis(name, choices, per) if axis.name == name else axis for axis in tiny.declared().axes)}


MALFORMED = {
    "no depth": ({"axes": ()}, "'depth'"),
    "no hidden": (without("hidden"), "'hidden'"),
    "no heads": (without("heads"), "'heads'"),
    "no ffn": (without("ffn"), "'ffn'"),
    "an axis too many": ({"axes": (*tiny.declared().axes, Axis("stride", (1, 2)))}, "'stride'"),
    "hidden for the network": (changed("hidden", (8, 12), None), "'hidden'"),
    "ffn for the network": (changed("ffn", (8, 12), None), "'ffn'"),
    "hidden above the width": (changed("hidden", (8, 32), "depth"), "'hidden'"),
    "an embedding above the width": (changed("embedding", (8, 32), None), "'embedding'"),
    "an embedding per layer": (changed("embedding", (8, 12), "depth"), "'embedding'"),
    "no width": ({"fixed": {"head_width": 4}}, "'width'"),
    "no head width": ({"fixed": {"width": 24}}, "'head_width'"),
    "a negative head width": ({"fixed": {"width": 24, "head_width": -4}}, "'head_width'"),
    "a size nobody reads": ({"fixed": {"width": 24, "head_width": 4, "heigth": 3}}, "'heigth'"),
    "heads that do not divide": (
        {"fixed": {"width": 24, "head_width": 0}, **changed("heads", (3,), "depth")},
        "'heads'",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_space_that_is_none_is_refused_by_what_is_wrong(case: str) -> None:
    changes, named = MALFORMED[case]
    space = msgspec.structs.replace(tiny.declared(), **changes)
    with pytest.raises(UsageError) as refusal:
        BERT.check_space(space)
    assert named in str(refusal.value)
    with pytest.raises(UsageError):
        build_supernet(space, Mixture(), 0.0)


def test_depth_per_layer_is_no_depth() -> None:
    axes = (Axis("layers", (1, 2)), Axis("depth", (1, 2), per="layers"), Axis("hidden", (8,), per="layers"))
    with pytest.raises(UsageError, match=r"'layers'|'depth'"):
        BERT.check_space(msgspec.structs.replace(tiny.declared(), axes=axes))


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("workload", [Workload(batch=1, sequence_length=12), Workload(batch=3, sequence_length=7)])
def test_features_count_the_multiply_adds_that_torch_counts(labels: int, workload: Workload) -> None:
    space = tiny.resolved(labels)
    for architecture in tiny.samples(space, 5):
        features = {name: float(one) for name, (one,) in _features(space, architecture, workload).items()}
        counted = 1e6 * sum(features[kind] for kind in ("dense", "attention", "head", "decoder"))
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            subnet = tiny_subnet(space, architecture)
            ids = torch.zeros((workload.batch, workload.sequence_length), dtype=torch.long)
            subnet(ids, ids)
        assert counter.get_total_flops() / 2 == pytest.approx(counted)
        assert features["layers"] == architecture.number("depth")


def _features(space: Any, architecture: Any, workload: Workload) -> dict[str, Any]:
    return BERT.features(space, to_arrays(space, [architecture]), workload)


def tiny_subnet(space: Any, architecture: Any) -> torch.nn.Module:
    return build_supernet(space, tiny.mixture("plain"), 0.0).build_subnet(architecture, 0.0).eval()
