from __future__ import annotations

import itertools

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from toolchain.errors import UsageError
from toolchain.space import Architecture
from toolchain.supernet.families import declaration
from toolchain.supernet.inference import subnet_predictor, supernet_predictor
from toolchain.supernet.module import Batch, Supernet

from .toy_task import TokenBatch

BERT = declaration("bert")
KINDS = ("plain", "layer", "neuron")
PADDINGS = ("none", "right", "left", "holes")


@pytest.fixture(scope="module", params=list(itertools.product(KINDS, (0, 3), (0, 4))), ids=str)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    kind, labels, head_width = request.param
    return tiny.supernet(tiny.resolved(labels, head_width), kind)


def run(subnet: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return subnet(batch.ids, batch.attention_mask, batch.positions)


def run_inside(supernet: Supernet, batch: Batch, architecture: Architecture) -> Tensor:
    with torch.no_grad():
        return supernet(batch, architecture)


def test_a_subnet_computes_the_same_inside_the_supernet_and_cut_out(supernet: Supernet) -> None:
    for number, architecture in enumerate(tiny.samples(supernet.space, 6)):
        batch = tiny.batch(seed=number, padding=PADDINGS[number % 4])
        inside, cut_out = run_inside(supernet, batch, architecture), run(supernet.materialize(architecture), batch)
        labels = supernet.space.fixed["labels"]
        assert inside.shape == ((4, labels) if labels else (4, 9, tiny.VOCABULARY))
        assert inside.std() > 0.01
        torch.testing.assert_close(inside, cut_out, atol=1e-5, rtol=0)


def test_what_is_cut_out_is_plain_and_counted(supernet: Supernet) -> None:
    for architecture in tiny.samples(supernet.space, 6):
        subnet = supernet.materialize(architecture)
        assert sum(one.numel() for one in subnet.parameters()) == BERT.parameters(supernet.space, architecture)
        assert not [name for name in subnet.state_dict() if "router" in name or "expert" in name]
        assert not subnet.training
    whole = sum(parameter.numel() for parameter in supernet.parameters())
    assert whole > BERT.parameters(supernet.space, supernet.space.largest())


def test_what_is_cut_out_shares_nothing_with_the_supernet() -> None:
    supernet, batch = tiny.supernet(tiny.resolved()), tiny.batch()
    subnet = supernet.materialize(supernet.space.largest())
    before = run(subnet, batch)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    assert torch.equal(run(subnet, batch), before)


def test_different_architectures_give_different_answers(supernet: Supernet) -> None:
    batch = tiny.batch()
    middle = tiny.architecture(supernet.space, depth=2, hidden=(12, 12), heads=(2, 2), ffn=(16, 16))
    asked = {"itself": middle} | tiny.neighbours(supernet.space, middle)
    asked |= {one.id: one for one in tiny.samples(supernet.space, 8)}
    answers = {name: run_inside(supernet, batch, one) for name, one in asked.items()}
    for (first, one), (second, other) in itertools.combinations(answers.items(), 2):
        assert (one - other).abs().max() > 1e-4, (first, second)


def test_every_size_counts(supernet: Supernet) -> None:
    """A subnet larger in any one entry has more parameters; heads alone are free where they share the layer's width."""
    space = supernet.space
    smallest = tiny.architecture(space, depth=2, hidden=(8, 8), heads=(1, 1), ffn=(6, 6))
    least = BERT.parameters(space, smallest)
    for name, larger in tiny.neighbours(space, smallest).items():
        more = BERT.parameters(space, larger) - least
        if name.startswith("heads") and space.fixed["head_width"] == 0:
            assert more == 0, name
        else:
            assert (more < 0) if name == "embedding = 10" else (more > 0), name


@pytest.mark.parametrize("kind", KINDS)
def test_composed_bottlenecks_do_what_the_two_did(kind: str) -> None:
    supernet = tiny.supernet(tiny.resolved(), kind)
    architecture = tiny.architecture(supernet.space, depth=3, hidden=(8, 20, 12), heads=(2, 4, 1), ffn=(6, 16, 24))
    folded, full = supernet.fold(architecture), dict(supernet.named_parameters())
    torch.manual_seed(3)
    for layer, (leaving, entering) in enumerate([(8, 20), (20, 12)]):
        x = torch.randn(7, leaving)
        wide = x @ full[f"layers.{layer}.out.weight"][:, :leaving].T + full[f"layers.{layer}.out.bias"]
        after = f"layers.{layer + 1}.into"
        narrow = wide @ full[f"{after}.weight"][:entering].T + full[f"{after}.bias"][:entering]
        link = f"links.{layer + 1}"
        composed = x @ folded[f"{link}.weight"].T + folded[f"{link}.bias"]
        assert folded[f"{link}.weight"].shape == (entering, leaving)
        torch.testing.assert_close(composed, narrow, atol=1e-4, rtol=0)
    x = torch.randn(7, 12)
    wide = x @ full["layers.2.out.weight"][:, :12].T + full["layers.2.out.bias"]
    twice = wide @ full["head_dense.weight"][:16].T + full["head_dense.bias"][:16]
    once = x @ folded["head.dense.weight"].T + folded["head.dense.bias"]
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=0)
    assert torch.equal(folded["links.0.weight"], full["layers.0.into.weight"][:8, :16])


@pytest.mark.parametrize("kind", KINDS)
def test_positions_pick_from_the_full_answer(kind: str) -> None:
    supernet = tiny.supernet(tiny.resolved(labels=0), kind)
    positions = torch.tensor([[0, 1], [3, 0], [2, 8], [0, 4]])
    for architecture in tiny.samples(supernet.space, 3):
        batch = tiny.batch(padding="none")
        full = run_inside(supernet, batch, architecture)
        chosen = Batch(batch.ids, batch.attention_mask, positions)
        expected = full[positions[:, 0], positions[:, 1]]
        torch.testing.assert_close(run_inside(supernet, chosen, architecture), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(run(supernet.materialize(architecture), chosen), expected, atol=1e-5, rtol=0)


def test_dropout_is_for_training_alone() -> None:
    supernet, batch = tiny.supernet(tiny.resolved(), dropout=0.5), tiny.batch()
    architecture = supernet.space.largest()
    still = run_inside(supernet, batch, architecture)
    assert torch.equal(run_inside(supernet, batch, architecture), still)
    supernet.train()
    torch.manual_seed(0)
    first, second = (run_inside(supernet, batch, architecture) for _ in range(2))
    assert not torch.allclose(first, second)
    assert torch.equal(run_inside(supernet.eval(), batch, architecture), still)
    assert torch.equal(run(supernet.train().materialize(architecture), batch), still)


@pytest.mark.parametrize("labels", [0, 3])
def test_padding_never_changes_an_answer(labels: int) -> None:
    supernet = tiny.supernet(tiny.resolved(labels))
    together = tiny.batch(rows=5, length=10)
    for architecture in tiny.samples(supernet.space, 4):
        answers = run_inside(supernet, together, architecture)
        for row in range(5):
            length = int(together.attention_mask[row].sum())
            alone = Batch(together.ids[row : row + 1, :length], together.attention_mask[row : row + 1, :length])
            expected = answers[row] if labels else answers[row, :length]
            found = run_inside(supernet, alone, architecture)[0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    """More architectures than plain modules are kept for, and the first ones again."""
    supernet, batch = tiny.supernet(tiny.resolved()), tiny.batch()
    asked = tiny.samples(supernet.space, 80)
    first = [run_inside(supernet, batch, one) for one in asked]
    again = [run_inside(supernet, batch, one) for one in asked]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("labels", [0, 3])
def test_predictors_answer_once_per_target(labels: int) -> None:
    supernet = tiny.supernet(tiny.resolved(labels))
    tensors = tiny.batch()
    positions = None if labels else np.array([[0, 1], [3, 0]])
    batch = TokenBatch(tensors.ids.numpy(), tensors.attention_mask.numpy(), np.zeros(2), positions)
    for architecture in tiny.samples(supernet.space, 3):
        inside = supernet_predictor(supernet, architecture)(batch)
        cut_out = subnet_predictor(supernet.materialize(architecture))(batch)
        assert inside.shape == ((4, 3) if labels else (2, tiny.VOCABULARY))
        np.testing.assert_allclose(inside, cut_out, atol=1e-5)


def test_a_stranger_is_refused() -> None:
    supernet = tiny.supernet(tiny.resolved())
    stranger = tiny.architecture(supernet.space, depth=1, hidden=(9,), heads=(1,), ffn=(6,))
    with pytest.raises(UsageError, match="hidden"):
        supernet.materialize(stranger)
    with pytest.raises(UsageError, match="hidden"):
        supernet_predictor(supernet, stranger)
