from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import toolchain.supernet.train as train_module
from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.progress import Progress
from toolchain.records import Quality, Training, read_record
from toolchain.space import Architecture
from toolchain.supernet.checkpoint import load_tensors
from toolchain.supernet.mixture import MixtureState
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.parallel import alone
from toolchain.supernet.state import STATE_FILE, TrainingState
from toolchain.supernet.train import Plan, draw_architectures, learning_rate

from .toy_task import halves, settings, stop_at, toy_batch, toy_quality, toy_space, toy_train


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What was trained: (number of the first token of the batch, architecture id) for each pass forward."""
    passes: list[tuple[int, str]] = []
    forward = Supernet.forward

    def recording(self: Supernet, batch: Batch, architecture: Architecture) -> torch.Tensor:
        if self.training:
            passes.append((int(batch.ids[0, 0]), architecture.id))
        return forward(self, batch, architecture)

    monkeypatch.setattr(Supernet, "forward", recording)
    return passes


@pytest.mark.parametrize(
    ("recipe", "kind", "updates"),
    [
        ("sandwich", "plain", 40),
        ("sandwich", "layer", 40),
        ("sandwich", "neuron", 40),
        ("single-path", "neuron", 80),
        ("progressive", "neuron", 60),
    ],
)
def test_training_learns(tmp_path: Path, recipe: str, kind: str, updates: int) -> None:
    training = settings(
        recipe=recipe,
        mixture=tiny.mixture(kind, experts=2),
        updates=updates,
        evaluate_every=10,
        learning_rate=1e-2,
        dropout=0.0,
    )
    supernet, state = toy_train(tmp_path, training, batches=lambda update: [toy_batch(update, rows=16)])
    first, last = state.curve[0], state.curve[-1]
    assert [point.update for point in state.curve] == list(range(10, updates + 1, 10))
    assert last.quality["largest"].loss < 0.4 < first.quality["smallest"].loss
    assert last.quality["largest"].value > 0.85
    assert np.mean(list(last.losses.values())) < np.mean(list(first.losses.values()))
    assert set(last.mixture) == (set() if kind == "plain" else set(MixtureState._fields))
    assert not supernet.training


@pytest.mark.parametrize("recipe", ["sandwich", "single-path"])
@pytest.mark.parametrize("save", ["when evaluated", "at every update"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, save: str
) -> None:
    monkeypatch.setattr(train_module, "_CHECKPOINT_EVERY_S", math.inf if save == "when evaluated" else -1.0)
    monkeypatch.setattr(train_module, "_CHECKPOINT_SHARE", math.inf)
    training = settings(recipe=recipe, updates=7, evaluate_every=3)
    whole, end = toy_train(tmp_path / "whole", training)
    for update in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path / "stopped", training, listener=stop_at(update))
    seen: list[int] = []
    resumed, state = toy_train(tmp_path / "stopped", training, listener=lambda progress: seen.append(progress.done))
    assert seen[0] == (4 if save == "when evaluated" else 5)
    weights, expected = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (state.weights_sha256, state.optimizer_sha256) == (end.weights_sha256, end.optimizer_sha256)
    assert [point.quality for point in state.curve] == [point.quality for point in end.curve]
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == sorted(
        (STATE_FILE, state.weights, state.optimizer)
    )


def test_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    first, _ = toy_train(tmp_path, settings())
    steps: list[Progress] = []
    again, state = toy_train(tmp_path, settings(), listener=steps.append)
    assert not steps
    assert state.update == 8
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), again.parameters(), strict=True))
    assert not again.training


def test_another_run_is_not_written_over(tmp_path: Path) -> None:
    _, state = toy_train(tmp_path, settings(updates=1), digest="one")
    with pytest.raises(UsageError, match="other settings") as refusal:
        toy_train(tmp_path, settings(updates=1), digest="other")
    assert "--fresh" in refusal.value.hint
    assert read_record(tmp_path / STATE_FILE, TrainingState) == state


def diverging(training: Training, update: int) -> float:
    return 1e30 if update >= 5 else learning_rate(training, update)


def test_a_run_that_diverges_keeps_its_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "learning_rate", diverging)
    with pytest.raises(MostoolError, match=r"update [67]\b") as refusal:
        toy_train(tmp_path, settings())
    assert "--learning-rate" in refusal.value.hint
    assert last_good(tmp_path) == 4
    monkeypatch.undo()
    _, state = toy_train(tmp_path, settings())
    assert state.update == 8


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where each update is saved and the loss itself is fine."""
    monkeypatch.setattr(train_module, "_CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(train_module, "_CHECKPOINT_SHARE", math.inf)

    def poison(supernet: Supernet, architecture: Architecture) -> Quality:
        next(iter(supernet.parameters())).register_hook(lambda gradient: gradient * math.nan)
        return toy_quality(supernet, architecture)

    with pytest.raises(MostoolError, match="update 3") as refusal:
        toy_train(tmp_path, settings(), validate=poison)
    assert "gradient nan" in refusal.value.why
    assert last_good(tmp_path) == 2


def test_weights_that_overflow_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that breaks them had a finite loss and a finite gradient, and the next save is between two looks."""
    monkeypatch.setattr(train_module, "_CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(train_module, "_CHECKPOINT_SHARE", math.inf)
    monkeypatch.setattr(train_module, "learning_rate", lambda _, update: 1e39 if update == 3 else 1e-3)
    with pytest.raises(MostoolError, match="update 4") as refusal:
        toy_train(tmp_path, settings(evaluate_every=8))
    assert "largest weight" in refusal.value.why
    assert last_good(tmp_path) == 3


def last_good(folder: Path) -> int:
    """The update of the state in a folder, whose weights are read and found finite."""
    state = read_record(folder / STATE_FILE, TrainingState)
    for tensor in load_tensors(folder, state.weights, state.weights_sha256).values():
        assert torch.isfinite(tensor).all()
    return state.update


def test_damage_in_the_folder_is_noticed(tmp_path: Path) -> None:
    _, state = toy_train(tmp_path, settings(updates=2))
    for name in (state.weights, state.optimizer):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IntegrityError, match="not the file that was saved"):
            toy_train(tmp_path, settings(updates=2))
        (tmp_path / name).write_bytes(whole)


def test_two_halves_give_the_gradient_of_the_whole() -> None:
    space, gradients = toy_space(), []
    architectures = draw_architectures(space, settings(), 0)
    for micro_batches in ([toy_batch(0)], halves(toy_batch(0))):
        torch.manual_seed(0)
        supernet = train_module.build_supernet(space, settings().mixture, 0.0).train()
        plan = Plan(lambda *_, given=micro_batches: given, toy_quality)
        training = settings(accumulate=len(micro_batches))
        losses = train_module._add_gradients(supernet, architectures, plan, training, 0, alone())
        gradients.append({name: one.grad for name, one in supernet.named_parameters()})
    assert set(losses) == {"largest", "smallest", "random"}
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_micro_batches_of_an_update_train_the_same_architectures(
    tmp_path: Path, trained: list[tuple[int, str]]
) -> None:
    def batches(update: int) -> list[object]:
        parts = halves(toy_batch(update))
        for number, part in enumerate(parts):
            part.ids[0, 0] = 20 + number
        return parts  # type: ignore[return-value]

    training = settings(updates=4, accumulate=2)
    toy_train(tmp_path, training, batches=batches)  # type: ignore[arg-type]
    assert len(trained) == 4 * 2 * 3
    for update in range(4):
        here = trained[6 * update : 6 * update + 6]
        drawn = [one.id for one in draw_architectures(toy_space(), training, update).values()]
        assert [one for first, one in here if first == 20] == drawn
        assert [one for first, one in here if first == 21] == drawn


def test_single_path_trains_one_architecture_an_update(tmp_path: Path, trained: list[tuple[int, str]]) -> None:
    training = settings(recipe="single-path", updates=12)
    toy_train(tmp_path, training)
    assert len(trained) == 12
    assert len({architecture for _, architecture in trained}) > 6


def test_progressive_trains_the_largest_alone_and_then_the_sandwich() -> None:
    training = settings(recipe="progressive", updates=10)
    drawn = [draw_architectures(toy_space(), training, update) for update in range(10)]
    assert [list(roles) for roles in drawn] == [["largest"]] * 5 + [["largest", "smallest", "random"]] * 5
    sandwich = [draw_architectures(toy_space(), settings(updates=10), update) for update in range(5, 10)]
    assert drawn[5:] == sandwich


@pytest.mark.parametrize("recipe", ["sandwich", "single-path"])
def test_architectures_follow_the_seed(recipe: str) -> None:
    def drawn(seed: int) -> list[str]:
        training = settings(recipe=recipe, seed=seed)
        return [draw_architectures(toy_space(), training, update)["random"].id for update in range(30)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 20
    roles = draw_architectures(toy_space(), settings(recipe=recipe), 0)
    if recipe != "single-path":
        assert roles["largest"] == toy_space().largest()
        assert roles["smallest"] == toy_space().smallest()
    else:
        assert list(roles) == ["random"]


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    digests = [
        toy_train(tmp_path / name, settings(updates=2, seed=seed))[1].weights_sha256
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_learning_rate_rises_and_falls() -> None:
    training = settings(updates=100, warmup_updates=10, learning_rate=1.0)
    rates = [learning_rate(training, update) for update in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.02
    assert learning_rate(settings(updates=1, warmup_updates=10), 0) > 0


def test_only_matrices_decay() -> None:
    supernet = train_module.build_supernet(toy_space(), settings().mixture, 0.0)
    decayed, free = train_module.build_optimizer(supernet, settings(weight_decay=0.5)).param_groups
    names = {parameter: name for name, parameter in supernet.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    for parameter in free["params"]:
        name = names.pop(parameter)
        assert "router" in name or "norm" in name or name.endswith("bias")
    assert names.keys() == set(decayed["params"])
    assert {"word", "layers.0.ffn.fc1.weight"} <= set(names.values())
    assert not [name for name in names.values() if "router" in name or "norm" in name or name.endswith("bias")]
