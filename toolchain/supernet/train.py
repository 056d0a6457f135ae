"""Training a supernet: every update trains several architectures on the same batch.

Everything random at update u is drawn from (seed, u), so a run that was killed and resumed takes the same steps as one
that was not: the architectures, the batches (handed in by update number) and the dropout.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.progress import Progress, ProgressListener
from toolchain.records import Quality, Stored, Training, TrainingPoint, read_record, write_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.checkpoint import load_tensors, load_weights, save_tensors
from toolchain.supernet.families import build_supernet
from toolchain.supernet.module import Batch, Supernet

if TYPE_CHECKING:
    import numpy.typing as npt

STATE_FILE = "training.json"
_CHECKPOINT_EVERY_S = 5.0
_CHECKPOINT_SHARE = 0.05
"""A state is saved every few seconds, but for no more than this share of the time."""


class TokenBatch(Protocol):
    """Arrays of one batch: ids and attention_mask int64 [b, t]; targets int64 [n], for `positions` [n, 2] if given."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def attention_mask(self) -> npt.NDArray[np.int64]: ...
    @property
    def targets(self) -> npt.NDArray[np.int64]: ...
    @property
    def positions(self) -> npt.NDArray[np.int64] | None: ...


class TrainingState(Stored, frozen=True):
    """Where a training run is: written last, so the files it names are always whole."""

    digest: str
    update: int
    seconds: float
    curve: tuple[TrainingPoint, ...]
    weights: str
    weights_sha256: str
    optimizer: str
    optimizer_sha256: str


def train(
    space: SearchSpace,
    training: Training,
    batches: Callable[[int], Sequence[TokenBatch]],
    validate: Callable[[Supernet, Architecture], Quality],
    folder: Path,
    digest: str,
    listener: ProgressListener,
) -> tuple[Supernet, TrainingState]:
    """Train a supernet of `space`, or go on where `folder` says an earlier call was stopped.

    Args:
        batches: the micro-batches of an update, by its number. All train the same architectures.
        validate: quality of one subnet on held-out data.
        digest: names what is being trained (space, settings, data); a folder of another digest is refused.

    Raises:
        UsageError: the folder holds another run.
        MostoolError: the loss is not finite; the last good state stays in the folder.
        IntegrityError: the files in the folder are damaged.
    """
    torch.manual_seed(training.seed)
    supernet = build_supernet(space, training.mixture, training.dropout)
    optimizer = build_optimizer(supernet, training)
    state = _resume(folder, digest, supernet, optimizer)
    curve = list(state.curve) if state else []
    update = state.update if state else 0
    before_s, started = (state.seconds if state else 0.0), time.perf_counter()
    saved_at, saving_s, losses = time.perf_counter(), 0.0, _Losses()

    def elapsed_s() -> float:
        return before_s + time.perf_counter() - started

    while update < training.updates:
        architectures = draw_architectures(space, training, update)
        rate = learning_rate(training, update)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_mixed_seed(training.seed, update))
        optimizer.zero_grad(set_to_none=True)
        values = _add_gradients(supernet.train(), architectures, batches(update))
        norm = nn.utils.clip_grad_norm_(supernet.parameters(), training.gradient_clip)
        update += 1
        _require_finite(update, values | {"gradient": float(norm)})
        optimizer.step()
        losses.add(values)
        listener(Progress("train", update, training.updates, losses.note()))
        looked = update % training.evaluate_every == 0 or update == training.updates
        if looked:
            extremes = {"largest": space.largest(), "smallest": space.smallest()}
            quality = {name: validate(supernet.eval(), subnet) for name, subnet in extremes.items()}
            _require_finite(update, {f"{name} validation": seen.loss for name, seen in quality.items()})
            curve.append(
                TrainingPoint(
                    update=update,
                    seconds=elapsed_s(),
                    learning_rate=rate,
                    losses=losses.take(),
                    quality=quality,
                    mixture=supernet.mixture_figures(),
                )
            )
        if looked or time.perf_counter() - saved_at > max(_CHECKPOINT_EVERY_S, saving_s / _CHECKPOINT_SHARE):
            saving_from = time.perf_counter()
            _require_finite(update, {"largest weight": _largest(supernet)})
            state = _save(folder, digest, update, elapsed_s(), curve, supernet, optimizer)
            saved_at = time.perf_counter()
            saving_s = saved_at - saving_from
    if state is None:
        raise UsageError("nothing to train", why="updates is 0")
    return supernet.eval(), state


def draw_architectures(space: SearchSpace, training: Training, update: int) -> dict[str, Architecture]:
    """The subnets trained at one update, by role. `sandwich`: the largest, the smallest and a random one."""
    rng = np.random.default_rng((training.seed, update))
    drawn = {"random": space.sample(rng)}
    if training.recipe == "sandwich":
        drawn = {"largest": space.largest(), "smallest": space.smallest()} | drawn
    return drawn


def learning_rate(training: Training, update: int) -> float:
    """Linear warm-up, then linear decay to zero at the last update."""
    warmup = min(training.warmup_updates, training.updates // 2)
    if update < warmup:
        return training.learning_rate * (update + 1) / warmup
    return training.learning_rate * (training.updates - update) / max(1, training.updates - warmup)


def to_batch(arrays: TokenBatch) -> Batch:
    positions = None if arrays.positions is None else torch.from_numpy(arrays.positions)
    return Batch(torch.from_numpy(arrays.ids), torch.from_numpy(arrays.attention_mask), positions)


def _add_gradients(
    supernet: Supernet, architectures: Mapping[str, Architecture], micro_batches: Sequence[TokenBatch]
) -> dict[str, float]:
    """Add the gradient of the mean loss over all architectures; each one's mean loss over the micro-batches."""
    losses = dict.fromkeys(architectures, 0.0)
    share = 1 / (len(architectures) * len(micro_batches))
    for arrays in micro_batches:
        batch, targets = to_batch(arrays), torch.from_numpy(arrays.targets)
        for name, architecture in architectures.items():
            loss = torch.nn.functional.cross_entropy(supernet(batch, architecture), targets)
            (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            losses[name] += float(loss.detach()) / len(micro_batches)
    return losses


def _require_finite(update: int, figures: Mapping[str, float]) -> None:
    wrong = [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise MostoolError(
            f"the loss, its gradient or the weights are not finite at update {update}",
            why=", ".join(wrong),
            hint="lower --learning-rate or raise --warmup-updates; the last good state is kept",
        )


def _largest(supernet: Supernet) -> float:
    """The largest weight by absolute value; NaN where there is one."""
    with torch.no_grad():
        return float(torch.stack([parameter.abs().max() for parameter in supernet.parameters()]).max())


def build_optimizer(supernet: Supernet, training: Training) -> torch.optim.Optimizer:
    """AdamW; biases, norms and routers are not decayed."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in supernet.named_parameters():
        matrix = parameter.dim() > 1 and not name.endswith("bias")  # the biases of experts have two dimensions
        (decayed if matrix and "routers" not in name else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)


def _save(
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
        weights_sha256=save_tensors(supernet.state_dict(), folder / weights),
        optimizer=moments,
        optimizer_sha256=save_tensors(_optimizer_tensors(optimizer), folder / moments),
    )
    write_record(folder / STATE_FILE, state)
    for pattern in ("weights-*.safetensors", "optimizer-*.safetensors"):
        for path in folder.glob(pattern):
            if path.name not in (weights, moments):
                path.unlink()
    return state


def _resume(folder: Path, digest: str, supernet: Supernet, optimizer: torch.optim.Optimizer) -> TrainingState | None:
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


def _mixed_seed(seed: int, update: int) -> int:
    return int(np.random.SeedSequence((seed, update)).generate_state(1)[0])


class _Losses:
    """Training losses since the last look, by subnet."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def note(self) -> str:
        return " ".join(f"{name} {np.mean(values[-20:]):.3f}" for name, values in self._values.items())

    def take(self) -> dict[str, float]:
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        self._values = {}
        return means
