"""A supernet filled with a pretrained model: its largest subnet is that model, and its experts can still part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny
import torch
from torch import Tensor, nn

from toolchain.errors import IntegrityError, UsageError
from toolchain.progress import silent
from toolchain.records import Mixture
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families import build_supernet
from toolchain.supernet.families.bert.model import build_subnet
from toolchain.supernet.mixture import _PRETRAINED_NOISE, MixedLinear, Router
from toolchain.supernet.module import Supernet
from toolchain.supernet.train import Plan, train

from .toy_task import settings, toy_batch, toy_quality

MIXTURES = {
    "plain": Mixture(kind="plain", experts=1),
    "layer": Mixture(kind="layer", experts=2),
    "neuron": Mixture(kind="neuron", experts=2),
    "neuron, six experts": Mixture(kind="neuron", experts=6, attention=True),
    "layer, four experts": Mixture(kind="layer", experts=4, attention=True),
}
MIXED = [name for name in MIXTURES if name != "plain"]


def space_for(labels: int) -> SearchSpace:
    """The tiny space, its layers as wide as the backbone."""
    space = tiny.resolved(labels=labels)
    axes = tuple(Axis("hidden", (8, 12, 24), "depth") if axis.name == "hidden" else axis for axis in space.axes)
    return msgspec.structs.replace(space, axes=axes)


def pretrained(labels: int = 0, seed: int = 3) -> dict[str, Tensor]:
    """Plain weights of the largest architecture, its links identities, nothing else zeros or ones."""
    torch.manual_seed(seed)
    space = space_for(labels)
    subnet = build_subnet(space, space.largest(), 0.0)
    with torch.no_grad():
        for name, parameter in subnet.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if name.startswith("links."):
                (nn.init.eye_ if name.endswith("weight") else nn.init.zeros_)(parameter)
    return {name: parameter.detach() for name, parameter in subnet.named_parameters()}


def router_as_it_is(_: Supernet) -> None:
    pass


def router_far_from_uniform(supernet: Supernet) -> None:
    for module in supernet.modules():
        if isinstance(module, Router):
            nn.init.normal_(module.mix.weight, std=3.0)


ROUTERS = {"as it is": router_as_it_is, "far from uniform": router_far_from_uniform}


def started(
    mixture: str, weights: Mapping[str, Tensor], route: Callable[[Supernet], None] = router_as_it_is, labels: int = 0
) -> Supernet:
    torch.manual_seed(0)
    supernet = build_supernet(space_for(labels), MIXTURES[mixture], 0.0).eval()
    route(supernet)
    supernet.start_from(weights)
    return supernet


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("router", ROUTERS)
def test_the_largest_subnet_is_the_model_whatever_the_routers_say(mixture: str, router: str) -> None:
    weights = pretrained()
    supernet = started(mixture, weights, ROUTERS[router])
    folded = supernet.fold(supernet.space.largest())
    assert folded.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(folded[name], weight, rtol=0, atol=2e-6, msg=name)


@pytest.mark.parametrize("mixture", MIXED)
@pytest.mark.parametrize("router", ROUTERS)
def test_other_subnets_are_slices_of_it_to_within_the_noise(mixture: str, router: str) -> None:
    """Off by at most sqrt(2) of the noise, by the root mean square, and by much less while routers are near uniform."""
    weights = pretrained()
    supernet, plain = started(mixture, weights, ROUTERS[router]), started("plain", weights)
    worst = 0.0
    for architecture in tiny.samples(supernet.space, 12):
        mixed, sliced = supernet.fold(architecture), plain.fold(architecture)
        for name in (name for name in mixed if name.endswith("weight")):
            off = (mixed[name] - sliced[name]).detach()
            worst = max(worst, float(off.square().mean().sqrt() / weights[name].std()))
    assert worst < 1.1 * 2**0.5 * _PRETRAINED_NOISE  # slices are small: their own spread is some per cent off
    if router == "as it is":
        assert worst < 0.5 * _PRETRAINED_NOISE
    else:
        assert worst > 0.3 * _PRETRAINED_NOISE  # so the bound above says something


@pytest.mark.parametrize("mixture", MIXED)
@pytest.mark.parametrize("labels", [0, 3])
def test_every_expert_and_every_router_has_a_gradient(mixture: str, labels: int) -> None:
    supernet = started(mixture, pretrained(labels), labels=labels)
    logits = supernet(tiny.batch(), supernet.space.largest())
    targets = torch.arange(logits.flatten(0, -2).shape[0]) % logits.shape[-1]
    nn.functional.cross_entropy(logits.flatten(0, -2), targets).backward()
    experts = routers = 0
    for module in supernet.modules():
        if isinstance(module, MixedLinear) and module.weight.shape[0] > 1:
            assert module.weight.grad is not None
            assert module.weight.grad.abs().amax((1, 2)).min() > 0
            experts += 1
        elif isinstance(module, Router):
            assert module.mix.weight.grad is not None
            assert module.mix.weight.grad.abs().amax(1).min() > 0
            assert module.read.weight.grad is not None
            assert module.read.weight.grad.abs().max() > 0
            routers += 1
    attention = MIXTURES[mixture].attention
    assert experts == 3 * (6 if attention else 2)
    assert routers == 3 * ((2 if attention else 1) if MIXTURES[mixture].kind == "layer" else (6 if attention else 2))


@pytest.mark.parametrize("kind", ["layer", "neuron"])
def test_experts_part_in_training_where_routers_tell_subnets_apart(tmp_path: Path, kind: Any) -> None:
    """Where the coefficients are nearly the same for all subnets, so are the gradients of all experts."""
    before: dict[str, float] = {}

    def fill(supernet: Supernet) -> None:
        router_far_from_uniform(supernet)
        supernet.start_from(weights)
        before.update(supernet.mixture_figures())

    weights = pretrained(labels=2)
    training = settings(mixture=tiny.mixture(kind, experts=2), updates=60, evaluate_every=15, dropout=0.0)
    plan = Plan(lambda update, *_: [toy_batch(update)], toy_quality, start=fill)
    _, state = train(space_for(2), training, plan, tmp_path, "toy", silent)
    distances = [before["expert_distance"], *(point.mixture["expert_distance"] for point in state.curve)]
    assert distances[0] == pytest.approx(_PRETRAINED_NOISE * 0.5**0.5, rel=0.1)
    assert distances == sorted(distances)
    assert distances[-1] > 1.02 * distances[0]


def test_plain_sharing_takes_the_weights_bit_for_bit() -> None:
    weights = pretrained()
    supernet = started("plain", weights)
    folded = supernet.fold(supernet.space.largest())
    assert all(torch.equal(folded[name], weight) for name, weight in weights.items() if not name.startswith("links"))


def test_the_same_seed_gives_the_same_supernet() -> None:
    one, other = (started("neuron", pretrained()).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_weight_of_one_number_everywhere_does_no_harm() -> None:
    weights = pretrained()
    for name in ("blocks.0.fc1.weight", "blocks.1.fc2.weight"):
        weights[name] = torch.full_like(weights[name], 0.25)
    supernet = started("neuron", weights)
    assert all(torch.isfinite(one).all() for one in supernet.state_dict().values())


def test_the_answers_of_a_labelled_task_are_learned_from_nothing() -> None:
    weights = pretrained()
    supernet = started("neuron", weights, labels=3)
    folded = supernet.fold(supernet.space.largest())
    shared = [name for name in folded if not name.startswith("head.labels")]
    assert {"head.dense.weight", "word.weight", "blocks.2.fc2.bias"} <= set(shared)
    for name in shared:
        torch.testing.assert_close(folded[name], weights[name], rtol=0, atol=2e-6, msg=name)
    torch.manual_seed(0)
    fresh = build_supernet(space_for(3), MIXTURES["neuron"], 0.0)
    assert torch.equal(folded["head.labels.weight"], fresh.fold(fresh.space.largest())["head.labels.weight"]), (
        "the head is as it was made"
    )


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("mixture", ["plain", "neuron"])
def test_weights_of_another_model_change_nothing(mixture: str, labels: int) -> None:
    wrong: dict[str, Callable[[dict[str, Tensor]], object]] = {
        "blocks.1.query.weight": lambda one: one.update({"blocks.1.query.weight": torch.zeros(3, 3)}),
        "norm.bias": lambda one: one.pop("norm.bias"),
        "word.weight": lambda one: one.update({"word.weight": one["word.weight"][:-1]}),
    }
    for name, change in wrong.items():
        weights = pretrained()
        change(weights)
        torch.manual_seed(0)
        supernet = build_supernet(space_for(labels), MIXTURES[mixture], 0.0)
        before = {key: one.clone() for key, one in supernet.state_dict().items()}
        with pytest.raises(IntegrityError, match="do not fit") as refusal:
            supernet.start_from(weights)
        assert name in refusal.value.why
        assert refusal.value.hint
        assert all(torch.equal(one, before[key]) for key, one in supernet.state_dict().items())


def test_layers_narrower_than_the_backbone_are_refused() -> None:
    supernet = build_supernet(tiny.resolved(labels=0), MIXTURES["plain"], 0.0)
    with pytest.raises(UsageError, match="narrower"):
        supernet.start_from(pretrained())
