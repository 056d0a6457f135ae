"""Training a supernet: every update trains several architectures on the same batch.

Everything random at update u is drawn from (seed, u), so a run that was killed and resumed takes the same steps as one
that was not, and so does one on several processes (parallel.py): the architectures, the batches (handed in by update
number) and the dropout.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.errors import MostoolError, UsageError
from toolchain.progress import Progress, ProgressListener
from toolchain.records import Quality, Training, TrainingPoint, read_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import build_supernet
from toolchain.supernet.loss import answer_loss
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.parallel import Ranks, alone, check_share
from toolchain.supernet.state import STATE_FILE, TrainingState, load_state, save_state

if TYPE_CHECKING:
    import numpy.typing as npt

_CHECKPOINT_EVERY_S = 5.0
_CHECKPOINT_SHARE = 0.05
"""A state is saved every few seconds, but for no more than this share of the time."""


class TokenBatch(Protocol):
    """Arrays of one batch: see text/batches.py. `targets` [n] are for `positions` [n, 2] where those are given."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def attention_mask(self) -> npt.NDArray[np.int64]: ...
    @property
    def targets(self) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]: ...
    @property
    def positions(self) -> npt.NDArray[np.int64] | None: ...
    @property
    def decoder_ids(self) -> npt.NDArray[np.int64] | None: ...


class Batches(Protocol):
    """The micro-batches of an update that fall to process `rank` of `ranks`, by the update's number."""

    def __call__(self, update: int, rank: int = 0, ranks: int = 1) -> Sequence[TokenBatch]: ...


class Plan(NamedTuple):
    """What a run trains besides its settings.

    Attributes:
        batches: where its micro-batches come from; all of an update train the same architectures.
        validate: quality of one subnet on held-out data.
        start: fills a new supernet with weights it is to start from; None starts from random ones.
        teacher: logits [n, classes] to learn from besides the targets.
        looked: is told of each look at the run.
        compiled: let torch compile the one architecture that is trained.
    """

    batches: Batches
    validate: Callable[[Supernet, Architecture], Quality]
    start: Callable[[Supernet], None] | None = None
    teacher: Callable[[Batch], Tensor] | None = None
    looked: Callable[[TrainingPoint], None] | None = None
    compiled: bool = False


def train(
    space: SearchSpace,
    training: Training,
    plan: Plan,
    folder: Path,
    digest: str,
    listener: ProgressListener,
    ranks: Ranks | None = None,
) -> tuple[Supernet, TrainingState]:
    """Train a supernet of `space`, or go on where `folder` says an earlier call was stopped.

    Args:
        digest: names what is being trained (space, settings, data); a folder of another digest is refused.
        ranks: the processes that train together; each makes this call. The first writes the folder.

    Raises:
        UsageError: the folder holds another run, or the processes cannot share an update.
        MostoolError: the loss is not finite, or memory ran out; the last good state stays in the folder.
        IntegrityError: the files in the folder are damaged.
    """
    ranks = ranks or alone()
    check_share(ranks, training.accumulate)
    torch.manual_seed(training.seed)
    supernet = build_supernet(space, training.mixture, training.dropout)
    if plan.start is not None:
        plan.start(supernet)
    supernet.to(ranks.device)
    optimizer = build_optimizer(supernet, training)
    state = load_state(folder, digest, supernet, optimizer)
    if plan.compiled:
        supernet.compile_subnet()
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
        optimizer.zero_grad(set_to_none=True)
        values = _add_gradients(supernet.train(), architectures, plan, training, update, ranks)
        ranks.sum_gradients(supernet.parameters())
        norm = nn.utils.clip_grad_norm_(supernet.parameters(), training.gradient_clip)
        update += 1
        _require_finite(update, values | {"gradient": float(norm)})
        optimizer.step()
        losses.add(values)
        listener(Progress("train", update, training.updates, losses.note()))
        looked = update % training.evaluate_every == 0 or update == training.updates
        if looked and ranks.first:
            quality = _look(supernet.eval(), plan, update)
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
            if plan.looked is not None:
                plan.looked(curve[-1])
        due = time.perf_counter() - saved_at > max(_CHECKPOINT_EVERY_S, saving_s / _CHECKPOINT_SHARE)
        if ranks.first and (looked or due):
            saving_from = time.perf_counter()
            _require_finite(update, {"largest weight": _largest(supernet)})
            state = save_state(folder, digest, update, elapsed_s(), curve, supernet, optimizer)
            saved_at = time.perf_counter()
            saving_s = saved_at - saving_from
    ranks.wait()
    if not ranks.first:  # has the weights; the files are the first's, which may be clearing up already
        state = read_record(folder / STATE_FILE, TrainingState)
    if state is None:
        raise UsageError("nothing to train", why="updates is 0")
    return supernet.eval(), state


def _look(supernet: Supernet, plan: Plan, update: int) -> dict[str, Quality]:
    """Quality of the extremes; of a supernet of one architecture, of that."""
    largest, smallest = supernet.space.largest(), supernet.space.smallest()
    extremes = {"largest": largest} if largest == smallest else {"largest": largest, "smallest": smallest}
    quality = {name: plan.validate(supernet, subnet) for name, subnet in extremes.items()}
    _require_finite(update, {f"{name} validation": seen.loss for name, seen in quality.items()})
    return quality


def draw_architectures(space: SearchSpace, training: Training, update: int) -> dict[str, Architecture]:
    """The subnets trained at one update, by role.

    `single-path` (HAT, arXiv 2005.14187): a random one. `sandwich` (arXiv 1903.05134): the largest, the smallest and a
    random one. `progressive` (after Once-for-All, arXiv 1908.09791): the largest alone for the first half of the
    updates, then the sandwich.
    """
    if space.point is not None:
        return {"largest": space.point}
    if training.recipe == "progressive" and update < training.updates // 2:
        return {"largest": space.largest()}
    rng = np.random.default_rng((training.seed, update))
    drawn = {"random": space.sample(rng)}
    if training.recipe != "single-path":
        drawn = {"largest": space.largest(), "smallest": space.smallest()} | drawn
    return drawn


def learning_rate(training: Training, update: int) -> float:
    """Linear warm-up, then linear decay to zero at the last update."""
    warmup = min(training.warmup_updates, training.updates // 2)
    if update < warmup:
        return training.learning_rate * (update + 1) / warmup
    return training.learning_rate * (training.updates - update) / max(1, training.updates - warmup)


def to_batch(arrays: TokenBatch, device: torch.device | str = "cpu") -> Batch:
    given = (arrays.ids, arrays.attention_mask, arrays.positions, arrays.decoder_ids)
    ids, mask, positions, decoder_ids = (None if one is None else torch.from_numpy(one).to(device) for one in given)
    if ids is None or mask is None:
        raise ValueError("a batch has ids and a mask")
    return Batch(ids, mask, positions, decoder_ids)


def _add_gradients(
    supernet: Supernet,
    architectures: Mapping[str, Architecture],
    plan: Plan,
    training: Training,
    update: int,
    ranks: Ranks,
) -> dict[str, float]:
    """Add the gradient of the mean loss over all architectures; each one's mean loss over the micro-batches."""
    losses = dict.fromkeys(architectures, 0.0)
    share = 1 / (len(architectures) * training.accumulate)
    for number, arrays in enumerate(plan.batches(update, ranks.rank, ranks.size)):
        batch = to_batch(arrays, ranks.device)
        targets = torch.from_numpy(arrays.targets).to(ranks.device)
        taught = plan.teacher(batch) if plan.teacher is not None else None
        for role, (name, architecture) in enumerate(architectures.items()):
            # The dropout of a micro-batch is the same whichever process it falls to.
            torch.manual_seed(_mixed_seed(training.seed, update, ranks.rank + number * ranks.size, role))
            short: BaseException | None = None
            try:
                loss, logits = _learn(supernet, architecture, batch, targets, training, taught, share)
            except (RuntimeError, MemoryError) as error:
                if out_of_memory(error):
                    short = error.with_traceback(None)  # which would hold all that the failed pass has allocated
                elif plan.compiled:
                    raise _not_compiled(error) from error
                else:
                    raise
            if short is not None:
                raise _too_large(supernet, architecture, batch, ranks) from short
            losses[name] += loss / training.accumulate
            if plan.teacher is None and training.distill and name == "largest":
                taught = logits
    return ranks.sum_figures(losses)


def _learn(
    supernet: Supernet,
    architecture: Architecture,
    batch: Batch,
    targets: Tensor,
    training: Training,
    taught: Tensor | None,
    share: float,
) -> tuple[float, Tensor]:
    """Add `share` of the gradient of one subnet's loss on one micro-batch; the loss, and the logits for its pupils."""
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        logits = supernet(batch, architecture)
    loss = answer_loss(logits, targets, training, taught)
    (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return float(loss.detach()), logits.detach()


# -- when it goes wrong ------------------------------------------------------------------------------------------------


def out_of_memory(error: BaseException) -> bool:
    """Whether torch says that memory ran out; on the CPU that is a RuntimeError with one of these texts."""
    said = ("not enough memory", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def _too_large(supernet: Supernet, architecture: Architecture, batch: Batch, ranks: Ranks) -> MostoolError:
    """Names the architecture, and the batch of its kind that does fit, found by trying halves."""
    for parameter in supernet.parameters():
        parameter.grad = None
    rows = len(batch.ids)
    shape = f"{rows} x {batch.ids.shape[1]} tokens"
    while rows > 1:
        rows //= 2
        part = Batch(
            batch.ids[:rows],
            batch.attention_mask[:rows],
            None if batch.positions is None else batch.positions[batch.positions[:, 0] < rows],
            None if batch.decoder_ids is None else batch.decoder_ids[:rows],
        )
        try:
            supernet(part, architecture).float().pow(2).mean().backward()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            continue
        tokens = rows * batch.ids.shape[1]
        smaller = f"--batch-size {rows}" if batch.decoder_ids is None else f"--batch-tokens {tokens}"
        return MostoolError(
            f"out of memory while training {architecture.id} on a batch of {shape}",
            why=f"a batch of {rows} fits on {ranks.device}",
            hint=f"{smaller}, and more --accumulate to make up for it",
        )
    return MostoolError(
        f"out of memory while training {architecture.id} on a batch of {shape}",
        why="one row of it does not fit either",
        hint="use a smaller space, or a shorter --sequence-length",
    )


def _not_compiled(error: BaseException) -> MostoolError:
    return MostoolError(
        "torch cannot compile this subnet",
        why=str(error).partition("\n")[0],
        hint="leave --compile out; on a CPU it needs a C++ compiler, such as g++",
    )


def _require_finite(update: int, figures: Mapping[str, float]) -> None:
    wrong = [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise MostoolError(
            f"the loss, its gradient or the weights are not finite at update {update}",
            why=", ".join(wrong),
            hint="lower --learning-rate or raise --warmup-updates; the last good state, if there is one, is kept",
        )


def _largest(supernet: Supernet) -> float:
    """The largest weight by absolute value; NaN where there is one."""
    with torch.no_grad():
        return float(torch.stack([parameter.abs().max() for parameter in supernet.parameters()]).max())


# -- the optimizer -----------------------------------------------------------------------------------------------------


def build_optimizer(supernet: Supernet, training: Training) -> torch.optim.Optimizer:
    """AdamW; biases, norms and routers are not decayed."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in supernet.named_parameters():
        matrix = parameter.dim() > 1 and not name.endswith("bias")  # the biases of experts have two dimensions
        (decayed if matrix and "routers" not in name else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)


def _mixed_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


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
