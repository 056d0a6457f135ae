"""What a training run would take, before it starts: counted on shapes alone, timed by one multiplication."""

from __future__ import annotations

import math
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from toolchain.records import Record, Training
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.loss import answer_loss
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.parallel import alone
from toolchain.supernet.train import draw_architectures

_BACKWARD = 3
"""Forward and backward take three times the multiplications of forward alone."""

_EFFICIENCY = 0.5
"""Training reaches about this share of what one large multiplication does; see supernet/README.md."""

_TARGETS = {"regress": torch.float32}
_SIDE = 1024
_STATE_BYTES = 16
"""Of a parameter: itself, its gradient and AdamW's two moments, in fp32."""


class Estimate(Record, frozen=True):
    """Parameters, memory (bytes), tokens and time (seconds) of a training run. `device` is what the time is for."""

    subnets: int
    shared_parameters: int
    largest_parameters: int
    smallest_parameters: int
    state_bytes: int
    activation_bytes: int
    tokens_per_update: int
    flops_per_update: float
    update_s: float
    device: str


def estimate(space: SearchSpace, training: Training) -> Estimate:
    """Of a declared space: the vocabulary is taken to be as large as it may get, and every text as long."""
    declared = declaration(space.family)
    labels = {"classify": 2, "regress": 1}.get(training.task, 0)
    space = declared.resolve(
        space, vocabulary_size=training.vocabulary_size, labels=labels, maximum_length=training.sequence_length
    )
    with torch.device("meta"):
        supernet = build_supernet(space, training.mixture, training.dropout).train()
        batch = _batch(training)
        taken = {"largest": space.largest(), "smallest": space.smallest(), "random": space.middle()}
        passes = {role: _flops(supernet, architecture, batch) for role, architecture in taken.items()}
        # A recipe may train other subnets at its end than at its start.
        drawn = [draw_architectures(space, training, update) for update in (0, training.updates - 1)]
        flops = sum(passes[role] for roles in drawn for role in roles) / 2 * _BACKWARD * training.accumulate
        kept = _kept_bytes(supernet, space.largest(), batch, training)
    shared = sum(parameter.numel() for parameter in supernet.parameters())
    rows, length = batch.ids.shape
    return Estimate(
        subnets=space.size(),
        shared_parameters=shared,
        largest_parameters=declared.parameters(space, space.largest()),
        smallest_parameters=declared.parameters(space, space.smallest()),
        state_bytes=_STATE_BYTES * shared,
        activation_bytes=kept,
        tokens_per_update=rows * length * training.accumulate,
        flops_per_update=flops,
        update_s=flops / (_EFFICIENCY * _multiplication_flops(training)),
        device=str(alone().device),
    )


def _batch(training: Training) -> Batch:
    length = training.sequence_length
    rows = max(1, training.batch_tokens // length) if training.batch_tokens else training.batch_size
    ids = torch.zeros((rows, length), dtype=torch.long)
    if training.task == "translate":
        places = torch.zeros((rows * length, 2), dtype=torch.long)
        return Batch(ids, ids, places, ids)
    asked = max(1, math.ceil(0.15 * rows * length))
    return Batch(ids, ids, torch.zeros((asked, 2), dtype=torch.long) if training.task == "mlm" else None)


def _flops(supernet: Supernet, architecture: Architecture, batch: Batch) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        supernet(batch, architecture)
    return float(counter.get_total_flops())


def _kept_bytes(supernet: Supernet, architecture: Architecture, batch: Batch, training: Training) -> int:
    """What is held when the way back begins: all that the pass forward keeps for it, the weights aside, and the answers
    with the two gradients of that size that their loss sends back.

    Counted by storage, since most of what is kept are views of one another.
    """
    weights = {_storage(parameter)[0] for parameter in supernet.parameters()}
    kept: dict[int, int] = {}
    held: list[torch.Tensor] = []  # while a storage lives, no other is taken for it

    def note(tensor: torch.Tensor) -> torch.Tensor:
        place, size = _storage(tensor)
        if place not in weights:
            kept[place] = size
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = supernet(batch, architecture)
        answer_loss(logits, torch.zeros(len(logits), dtype=_TARGETS.get(training.task, torch.long)), training)
    place, size = _storage(logits)
    return sum((kept | {place: size}).values()) + 2 * size


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    """The memory behind a tensor: which it is, and its bytes."""
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()  # noqa: SLF001 - all of them are at address 0 of the device "meta"


def _multiplication_flops(training: Training) -> float:
    """Floating point operations a second of a large multiplication on this device: the best of a few."""
    device = alone().device
    kind = torch.bfloat16 if training.precision == "bf16" else torch.float32
    left, right = (torch.randn(_SIDE, _SIDE, device=device, dtype=kind) for _ in range(2))
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        (left @ right).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best
