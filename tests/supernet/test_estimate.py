"""What a training is said to take, against what it takes."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from toolchain.records import Mixture, Training
from toolchain.space import SearchSpace
from toolchain.supernet import estimate as estimating
from toolchain.supernet.estimate import estimate
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.loss import answer_loss
from toolchain.supernet.module import Batch, Supernet

PLAIN = Mixture(kind="plain", experts=1)
TASKS: list[dict[str, Any]] = [
    {"task": "classify", "batch_size": 32, "sequence_length": 32, "vocabulary_size": 500},
    {"task": "regress", "batch_size": 32, "sequence_length": 32, "vocabulary_size": 500},
    {"task": "mlm", "batch_size": 16, "sequence_length": 48, "vocabulary_size": 4000},
    {"task": "translate", "batch_tokens": 512, "sequence_length": 16, "vocabulary_size": 300},
    {"task": "translate", "batch_tokens": 512, "sequence_length": 16, "vocabulary_size": 8000},
    {"task": "translate", "batch_size": 16, "sequence_length": 32, "vocabulary_size": 300, "label_smoothing": 0.1},
]


def declared(training: Training) -> SearchSpace:
    return declaration("translation" if training.task == "translate" else "bert").SPACES["tiny"]


def resolved(training: Training) -> SearchSpace:
    labels = {"classify": 2, "regress": 1}.get(training.task, 0)
    space = declared(training)
    return declaration(space.family).resolve(
        space, vocabulary_size=training.vocabulary_size, labels=labels, maximum_length=training.sequence_length
    )


def full_batch(training: Training) -> tuple[Batch, torch.Tensor]:
    """The largest micro-batch there can be, and its targets."""
    length = training.sequence_length
    rows = training.batch_tokens // length if training.batch_tokens else training.batch_size
    ids = torch.full((rows, length), 7)
    asked = {"mlm": round(0.15 * rows * length), "translate": rows * length}.get(training.task, rows)
    places = torch.stack([torch.arange(asked) % rows, torch.arange(asked) % length], dim=1)
    targets = torch.zeros(asked) if training.task == "regress" else torch.full((asked,), 1)
    batch = Batch(
        ids,
        torch.ones_like(ids),
        places if training.task in ("mlm", "translate") else None,
        ids.clone() if training.task == "translate" else None,
    )
    return batch, targets


def peak_bytes(supernet: Supernet, training: Training) -> int:
    """What the largest subnet's way forth and back takes at its most beside weights and gradients, by the allocator."""
    batch, targets = full_batch(training)

    def pass_through() -> None:
        answer_loss(supernet(batch, supernet.space.largest()), targets, training).backward()  # type: ignore[no-untyped-call]

    pass_through()
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        pass_through()
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    held = most = 0
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("mixture", [PLAIN, Mixture(), Mixture(kind="layer", attention=True)], ids=["plain", "n", "l"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task['task']}-{task['vocabulary_size']}")
def test_what_is_kept_is_what_the_allocator_is_asked_for(task: dict[str, Any], mixture: Mixture) -> None:
    training = Training(**task, mixture=mixture)
    found = estimate(declared(training), training)
    peak = peak_bytes(build_supernet(resolved(training), mixture, training.dropout).train(), training)
    assert 0.8 < found.activation_bytes / peak < 1.25, (found.activation_bytes, peak)


@pytest.mark.parametrize("kind", ["sandwich", "single-path", "one subnet"])
@pytest.mark.parametrize("task", TASKS[:4], ids=lambda task: task["task"])
def test_what_is_counted_is_counted(task: dict[str, Any], kind: str) -> None:
    training = Training(**task, accumulate=3, recipe="single-path" if kind == "single-path" else "sandwich")
    space = declared(training)
    if kind == "one subnet":
        space, training = space.narrowed(space.smallest()), msgspec.structs.replace(training, mixture=PLAIN)
    found = estimate(space, training)
    supernet = build_supernet(
        resolved(training).narrowed(space.point) if space.point else resolved(training), training.mixture, 0.0
    )
    assert found.shared_parameters == sum(one.numel() for one in supernet.parameters())
    for name in ("smallest", "largest"):
        subnet = supernet.materialize(getattr(supernet.space, name)())
        assert getattr(found, f"{name}_parameters") == sum(one.numel() for one in subnet.parameters())
    assert found.state_bytes == held_by_training(supernet)
    assert found.tokens_per_update == 3 * full_batch(training)[0].ids.numel()
    assert found.subnets == (1 if kind == "one subnet" else declared(training).size())
    assert found.device == "cpu" or torch.cuda.is_available()


def held_by_training(supernet: Supernet) -> int:
    """Weights, gradients and AdamW's moments, as they are; its step counts, 4 bytes a tensor, aside."""
    optimizer = torch.optim.AdamW(supernet.parameters(), fused=True)
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [tensor for state in optimizer.state.values() for name, tensor in state.items() if name != "step"]
    gradients = [parameter.grad for parameter in supernet.parameters()]
    return sum(one.numel() * one.element_size() for one in (*supernet.parameters(), *gradients, *moments))


def test_work_grows_with_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_multiplication_flops", lambda _: 1e9)
    training = Training(**TASKS[0])
    space = declared(training)
    once = estimate(space, training)
    assert once.update_s == pytest.approx(once.flops_per_update / 0.5e9)
    twice = estimate(space, msgspec.structs.replace(training, accumulate=2))
    assert twice.flops_per_update == 2 * once.flops_per_update
    assert twice.activation_bytes == once.activation_bytes
    single = estimate(space, msgspec.structs.replace(training, recipe="single-path"))
    assert single.flops_per_update < once.flops_per_update / 2
    alone = estimate(space.narrowed(space.largest()), msgspec.structs.replace(training, mixture=PLAIN))
    rows, length = training.batch_size, training.sequence_length
    weights = alone.largest_parameters - 24 * training.vocabulary_size  # embeddings are looked up, not multiplied
    assert alone.flops_per_update == pytest.approx(3 * 2 * rows * length * weights, rel=0.5)


def test_an_estimate_needs_no_memory_for_what_it_estimates() -> None:
    """HAT's space with six experts, whose weights alone are 1.4 GB."""
    space = declaration("translation").SPACES["hat-wmt"]
    training = Training(
        task="translate", batch_tokens=4096, sequence_length=256, vocabulary_size=32768, mixture=Mixture(experts=6)
    )
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        found = estimate(space, training)
    assert found.state_bytes > 4 << 30
    assert profiled.profiler is not None
    asked = [one.nbytes() for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    assert sum(size for size in asked if size > 0) < 256 << 20
