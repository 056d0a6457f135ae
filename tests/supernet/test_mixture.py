from __future__ import annotations

import itertools
from typing import cast

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from toolchain.records import Mixture, TrainingPoint
from toolchain.supernet.families import build_supernet
from toolchain.supernet.mixture import MixedLinear, MixtureState, Router, mixture_state, mixture_warnings

KINDS = ("layer", "neuron")
SPACE = tiny.resolved()


def encodings(count: int) -> list[Tensor]:
    return [torch.tensor(SPACE.encode(one)) for one in tiny.samples(SPACE, count)]


def make_router(kind: str, rows: int = 24, experts: int = 3) -> Router:
    torch.manual_seed(1)
    router = Router(kind, SPACE.encoding_size(), rows, tiny.mixture(kind, experts))  # type: ignore[arg-type]
    nn.init.normal_(router.mix.weight)  # far from uniform, as after training
    return router


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [0, 3])
def test_at_the_first_update_every_router_and_every_expert_learns(kind: str, labels: int) -> None:
    torch.manual_seed(0)
    space = tiny.resolved(labels=labels)
    supernet = build_supernet(space, Mixture(kind=kind, experts=3), 0.0)  # type: ignore[arg-type]
    logits = supernet(tiny.batch(), space.largest())
    targets = torch.arange(logits.flatten(0, -2).shape[0]) % logits.shape[-1]
    nn.functional.cross_entropy(logits.flatten(0, -2), targets).backward()
    routers = experts = 0
    for name, parameter in supernet.named_parameters():
        gradient = parameter.grad
        if "routers" in name:
            assert gradient is not None, name
            assert gradient.abs().max() > 0, name
            if "mix" in name:  # every output neuron's every expert; of `read`, some units are off for one architecture
                assert (gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]).abs().amax(1).min() > 0, name
            routers += 1
        elif ".fc" in name:
            assert gradient is not None, name
            assert gradient.flatten(2 if "weight" in name else 1).abs().amax(-1).min() > 0, name
            experts += 1
    assert routers == (3 * 4 if kind == "layer" else 3 * 8)
    assert experts == 3 * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("experts", [2, 4, 6])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_a_mixed_weight_starts_with_the_intended_spread(kind: str, experts: int, correlation: float) -> None:
    torch.manual_seed(0)
    mixture = Mixture(kind=kind, experts=experts, expert_correlation=correlation)  # type: ignore[arg-type]
    router = Router(kind, SPACE.encoding_size(), 200, mixture)  # type: ignore[arg-type]
    linear = MixedLinear(200, 150, mixture, std=0.07)
    for z in encodings(4):
        weight, bias = linear.fold(200, 150, router(z, 200))
        assert float(weight.detach().std()) == pytest.approx(0.07, rel=0.03)
        assert not bias.any()
    first, second = (linear.weight[expert].detach().flatten() for expert in (0, 1))
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) == pytest.approx(correlation, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_are_convex_combinations(kind: str) -> None:
    for z, rows in itertools.product(encodings(5), (6, 24)):
        coefficients = make_router(kind)(z, rows)
        assert coefficients.shape == ((3,) if kind == "layer" else (rows, 3))
        assert (coefficients > 0).all()
        torch.testing.assert_close(coefficients.sum(-1), torch.ones(coefficients.shape[:-1]))


def test_the_first_neurons_of_a_router_are_the_router_of_the_first_neurons() -> None:
    router = make_router("neuron")
    for z, rows in itertools.product(encodings(3), (1, 6, 16)):
        torch.testing.assert_close(router(z, rows), router(z, 24)[:rows])


@pytest.mark.parametrize("kind", KINDS)
def test_to_slice_and_mix_is_to_mix_and_slice(kind: str) -> None:
    router, linear = make_router(kind), MixedLinear(24, 20, tiny.mixture(kind), std=1.0)
    nn.init.normal_(linear.bias)
    for z in encodings(3):
        whole, whole_bias = linear.fold(24, 20, router(z, 24))
        weight, bias = linear.fold(16, 12, router(z, 16))
        torch.testing.assert_close(weight, whole[:16, :12])
        torch.testing.assert_close(bias, whole_bias[:16])


@pytest.mark.parametrize("kind", KINDS)
def test_a_mix_is_the_sum_that_the_method_names(kind: str) -> None:
    linear = MixedLinear(5, 4, tiny.mixture(kind), std=1.0)
    nn.init.normal_(linear.bias)
    z = encodings(1)[0]
    coefficients = make_router(kind, rows=5)(z, 5)
    table = coefficients.expand(5, 3) if kind == "layer" else coefficients
    weight, bias = linear.fold(5, 4, coefficients)
    torch.testing.assert_close(weight, torch.einsum("oe,eoi->oi", table, linear.weight))
    torch.testing.assert_close(bias, torch.einsum("oe,eo->o", table, linear.bias))


@pytest.mark.parametrize(("kind", "experts"), [("plain", 4), ("layer", 1), ("neuron", 1)])
def test_one_expert_is_plain_sharing_and_has_no_router(kind: str, experts: int) -> None:
    torch.manual_seed(0)
    supernet = build_supernet(SPACE, tiny.mixture(kind, experts), 0.0)
    assert not [name for name in supernet.state_dict() if "router" in name]
    assert supernet.mixture_figures() == {}
    for architecture in tiny.samples(SPACE, 4):
        folded = supernet.fold(architecture)
        for layer, (hidden, ffn) in enumerate(
            zip(architecture.layers("hidden"), architecture.layers("ffn"), strict=True)
        ):
            experts_of = cast("MixedLinear", supernet.get_submodule(f"layers.{layer}.ffn.fc1"))
            assert experts_of.weight.shape[0] == 1
            assert torch.equal(folded[f"blocks.{layer}.fc1.weight"], experts_of.weight[0, :ffn, :hidden])
            assert torch.equal(folded[f"blocks.{layer}.fc1.bias"], experts_of.bias[0, :ffn])


@pytest.mark.parametrize("kind", KINDS)
def test_a_router_tells_apart_whatever_differs_anywhere(kind: str) -> None:
    """One axis of one layer, the order of layers, the depth: each gives other coefficients."""
    torch.manual_seed(0)
    router = Router(kind, SPACE.encoding_size(), 24, Mixture(kind=kind))  # type: ignore[arg-type]
    axes = {"hidden": (8, 20, 12), "heads": (1, 4, 2), "ffn": (6, 24, 16)}
    middle = tiny.architecture(SPACE, depth=3, **axes)
    asked = {"itself": middle} | tiny.neighbours(SPACE, middle)
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            moved = {name: tuple(values[place] for place in order) for name, values in axes.items()}
            asked[f"layers in order {order}"] = tiny.architecture(SPACE, depth=3, **moved)
    for depth in (1, 2):
        fewer = {name: values[:depth] for name, values in axes.items()}
        asked[f"depth {depth}"] = tiny.architecture(SPACE, depth=depth, **fewer)
    assert len(asked) == 1 + 2 + 3 * 3 * 2 + 5 + 2
    answers = {name: router(torch.tensor(SPACE.encode(one)), 6).detach().numpy() for name, one in asked.items()}
    for (first, one), (second, other) in itertools.combinations(answers.items(), 2):
        assert np.abs(one - other).max() > 1e-6, (first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_of_a_mixture(kind: str) -> None:
    """A uniform mix has entropy 1; a blind router no contrast; equal experts no distance; either, no difference."""
    router, linear = make_router(kind), MixedLinear(24, 20, tiny.mixture(kind), std=1.0)
    largest, smallest = (torch.tensor(SPACE.encode(one)) for one in (SPACE.largest(), SPACE.smallest()))
    state = mixture_state(router, linear, largest, smallest)
    assert 0 < state.router_entropy < 1
    assert 0 < state.router_contrast < 1
    assert state.expert_distance > 0.1
    first, second = (linear.fold(24, 20, router(z, 24))[0] for z in (largest, smallest))
    expected = float(((first - second).norm() / linear.weight.mean(0).norm()).detach())
    assert state.weight_difference == pytest.approx(expected)
    equal = MixedLinear(24, 20, tiny.mixture(kind), std=1.0)
    with torch.no_grad():
        equal.weight.copy_(linear.weight[:1].expand_as(linear.weight))
    same = mixture_state(router, equal, largest, smallest)
    assert same.router_contrast == pytest.approx(state.router_contrast)
    assert (same.expert_distance, same.weight_difference) == pytest.approx((0, 0), abs=1e-6)
    with torch.no_grad():
        for parameter in router.mix.parameters():
            parameter.zero_()
    blind = mixture_state(router, linear, largest, smallest)
    assert blind.expert_distance == state.expert_distance
    assert blind[:2] + blind[3:] == pytest.approx((1, 0, 0), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_routers_can_start_apart(kind: str, spread: float) -> None:
    torch.manual_seed(0)
    supernet = build_supernet(SPACE, Mixture(kind=kind, experts=3, router_spread=spread), 0.0)  # type: ignore[arg-type]
    drawn = tiny.samples(SPACE, 200, seed=5)
    routers = [module for module in supernet.modules() if isinstance(module, Router)]
    assert routers
    for router in routers:
        encodings = torch.stack([supernet.encoding(one) for one in drawn])
        scores = router.mix(torch.relu(router.read(encodings)))
        assert scores.mean(0).abs().max() < 0.3 * spread  # of other architectures than it was set by
        assert float(scores.std(0).detach().mean()) == pytest.approx(spread, rel=0.15)
    near = build_supernet(SPACE, Mixture(kind=kind, experts=3), 0.0).mixture_figures()  # type: ignore[arg-type]
    apart = supernet.mixture_figures()
    assert apart["router_contrast"] > 0.3
    assert near["router_contrast"] < 0.1
    assert apart["weight_difference"] > 10 * near["weight_difference"]


def test_a_router_may_see_averages_alone() -> None:
    seeing = [build_supernet(SPACE, Mixture(router_sees=sees), 0.0) for sees in ("all", "averages")]  # type: ignore[arg-type]
    whole, averages = (one.encoding(SPACE.largest()) for one in seeing)
    assert (len(whole), len(averages)) == (SPACE.encoding_size(), len(SPACE.axes))
    first = tiny.architecture(SPACE, depth=2, hidden=(8, 20), heads=(1, 4), ffn=(6, 24))
    swapped = tiny.architecture(SPACE, depth=2, hidden=(20, 8), heads=(4, 1), ffn=(24, 6))
    assert torch.equal(seeing[1].encoding(first), seeing[1].encoding(swapped))
    assert not torch.equal(seeing[0].encoding(first), seeing[0].encoding(swapped))
    assert float(seeing[1].encoding(first)[2]) == pytest.approx((8 + 20) / 2 / 20)


def looks(**state: float) -> list[TrainingPoint]:
    whole = {"router_entropy": 0.99, "router_contrast": 0.4, "expert_distance": 0.5, "weight_difference": 0.2} | state
    return [TrainingPoint(update=1, seconds=1.0, learning_rate=0.1, losses={}, mixture=whole)]


def test_training_warns_of_a_mixture_that_is_none() -> None:
    assert set(looks()[0].mixture) == set(MixtureState._fields)
    assert mixture_warnings(looks()) == []
    assert mixture_warnings([]) == []
    assert mixture_warnings([TrainingPoint(update=1, seconds=1.0, learning_rate=0.1, losses={})]) == []
    (blind,) = mixture_warnings(looks(weight_difference=0.01, router_contrast=0.01))
    assert "plain sharing" in blind
    assert "router that is blind" in blind
    (alike,) = mixture_warnings(looks(weight_difference=0.001, expert_distance=0.002))
    assert "experts that are alike" in alike
