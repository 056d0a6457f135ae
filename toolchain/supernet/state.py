"""Where a training run is, on disk: weights and optimizer under new names, then the state that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from toolchain.errors import IntegrityError, UsageError
from toolchain.records import TrainingPoint, read_record, write_record
from toolchain.supernet.checkpoint import load_tensors, load_weights, save_tensors, tensors_of
from toolchain.supernet.module import Supernet
from toolchain.supernet.training_state import STATE_FILE, TrainingState

__all__ = ["STATE_FILE", "TrainingState", "load_state", "save_state"]


def save_state(
    folder: Path,
    digest: str,
    update: int,
    seconds: float,
    curve: Sequence[TrainingPoint],
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
) -> TrainingState:
    """Write weights and optimizer under new names, then the state that names them, then drop the old ones."""
    weights, moments = f"weights-{update:07d}.safetensors", f"optimizer-{update:07d}.safetensors"
    state = TrainingState(
        digest=digest,
        update=update,
        seconds=seconds,
        curve=tuple(curve),
        weights=weights,
        weights_sha256=save_tensors(tensors_of(supernet), folder / weights),
        optimizer=moments,
        optimizer_sha256=save_tensors(_optimizer_tensors(optimizer), folder / moments),
    )
    write_record(folder / STATE_FILE, state)
    for pattern in ("weights-*.safetensors", "optimizer-*.safetensors"):
        for path in folder.glob(pattern):
            if path.name not in (weights, moments):
                path.unlink()
    return state


def load_state(folder: Path, digest: str, supernet: Supernet, optimizer: torch.optim.Optimizer) -> TrainingState | None:
    """Fill `supernet` and `optimizer` with what `folder` holds; None where it holds nothing yet.

    Raises:
        UsageError: it is of another run.
        IntegrityError: a file of it is damaged.
    """
    if not (folder / STATE_FILE).exists():
        return None
    state = read_record(folder / STATE_FILE, TrainingState)
    if state.digest != digest:
        raise UsageError(
            f"{folder} holds a run with other settings, space or data",
            hint="choose another --out, or --fresh to move that run aside and start anew",
        )
    load_weights(supernet, load_tensors(folder, state.weights, state.weights_sha256), state.weights)
    tensors = load_tensors(folder, state.optimizer, state.optimizer_sha256)
    _load_optimizer(optimizer, tensors, state.optimizer)
    return state


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": tensor
        for number, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], where: str) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or name not in ("step", "exp_avg", "exp_avg_sq"):
            raise IntegrityError(f"{where} does not hold the state of this optimizer")
        moments.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
