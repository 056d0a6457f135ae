"""Several processes that train one model: started by torchrun or `accelerate launch`, on one machine or many.

Every process draws the same architectures and takes its share of an update's micro-batches; the gradients are summed in
one go before the step, so that a run computes the same (but for rounding) on any number of processes. Wrapping the
model as DistributedDataParallel does would not serve: a subnet leaves most of the shared weights without a gradient.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
import torch.distributed
from torch import nn

from toolchain.errors import MostoolError, ToldElsewhere, UsageError

_PATIENCE = dt.timedelta(days=1)
"""How long processes wait for one another: the first may have much data to prepare. A dead one is noticed at once."""

_MEETINGS = itertools.count()
"""What one training has left in the launcher's store is not for the next of the same processes."""

_LAUNCHER_SETS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_YES = ("1", "true", "yes", "y", "t", "on")


class Store(Protocol):
    """What the processes can all reach: of a number by name, `add` gives the sum so far."""

    def add(self, key: str, amount: int, /) -> int: ...


class Ranks(NamedTuple):
    """This process among the `size` that train together: number `rank`, on `device`.

    `store` is where they leave word for one another even when one of them has failed; None where one is alone.
    """

    rank: int
    size: int
    device: torch.device
    store: Store | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            with _others_alive():
                torch.distributed.barrier()

    def agree(self, said: bool) -> bool:
        """What the first process says, whatever the others do; waits for all of them."""
        return self.sum_figures({"said": float(said and self.first)})["said"] > 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum over the processes, which all have gradients for the same parameters."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        with _others_alive():
            torch.distributed.all_reduce(together)
        start = 0
        for gradient in gradients:
            gradient.copy_(together[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def sum_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's sum over the processes."""
        if self.size == 1:
            return dict(figures)
        together = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        with _others_alive():
            torch.distributed.all_reduce(together)
            summed = together.tolist()  # where a GPU's sum is waited for
        return dict(zip(figures, summed, strict=True))

    def speaks(self) -> bool:
        """Whether this process, which has failed, is the first that did: the others fail likewise, or because of it."""
        if self.store is None:
            return True
        try:
            return self.store.add("failed", 1) == 1
        except RuntimeError:  # the store has gone with the process that kept it: better said twice than not at all
            return True


def alone() -> Ranks:
    """One process, on the GPU where there is one."""
    return Ranks(0, 1, torch.device("cuda" if _use_gpu() else "cpu"))


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Train together with the processes that a launcher started, or alone.

    A failure ends them all, and one of them tells it: the others end with ToldElsewhere. Without that each would say
    the same, or that it has lost the one that did.

    Raises:
        UsageError: the launcher's variables make no sense.
        MostoolError: the processes do not find one another, or one of them has gone.
    """
    ranks = join_ranks()
    try:
        yield ranks
    except BaseException as error:
        if ranks.size > 1:
            _ignore_signals()
            if not ranks.speaks():
                raise ToldElsewhere(error.exit_code if isinstance(error, MostoolError) else 1) from error
        raise
    finally:
        leave_ranks()


def join_ranks() -> Ranks:
    """This process's place among those that a launcher started (RANK, WORLD_SIZE, ... in the environment), or alone.

    NCCL joins them on GPUs, gloo on CPUs.

    Raises:
        UsageError: the launcher's variables make no sense.
        MostoolError: the processes do not find one another.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return alone()
    rank, size, local = _place()
    device = torch.device("cuda", local) if _use_gpu() else torch.device("cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU of its own",
                why=f"there are {torch.cuda.device_count()}",
                hint="start one process for each GPU",
            )
        torch.cuda.set_device(device)
    try:
        launchers, _, _ = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]  # it exports both
        store = torch.distributed.PrefixStore(f"training {next(_MEETINGS)}", launchers)  # type: ignore[attr-defined]
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=_PATIENCE,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:  # torch's errors of networks and stores are RuntimeErrors
        raise MostoolError(
            f"process {rank} of {size} does not find the others",
            why=str(error).partition("\n")[0],
            hint="start them all with one torchrun or accelerate launch; across machines, check its address and port",
        ) from error
    return Ranks(rank, size, device, store)


def leave_ranks() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_share(ranks: Ranks, accumulate: int) -> None:
    """Raise UsageError where the processes cannot share the micro-batches of an update evenly."""
    if accumulate % ranks.size:
        raise UsageError(
            f"{ranks.size} processes cannot share {accumulate} micro-batches an update evenly",
            hint=f"--accumulate {ranks.size * max(1, round(accumulate / ranks.size))} gives each the same number",
        )


def _use_gpu() -> bool:
    """Whether there is a GPU, and `accelerate launch --cpu` does not say to leave it."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in _YES


def _place() -> tuple[int, int, int]:
    """Number, number of processes, number on this machine, as the launcher set them."""
    missing = [name for name in _LAUNCHER_SETS if not os.environ.get(name)]
    wrong = [f"{name} is not set" for name in missing]
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not missing:
        if all(number.isdecimal() for number in numbers) and int(numbers[0]) < int(numbers[1]):
            rank, size, local = map(int, numbers)
            return rank, size, local
        wrong = ["RANK {}, WORLD_SIZE {}, LOCAL_RANK {}".format(*numbers)]
    raise UsageError(
        "RANK is set, but not as a launcher sets it",
        why=", ".join(wrong),
        hint="start several processes with torchrun or accelerate launch; for one, unset RANK",
    )


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    """What torch says of a broken connection, in our words."""
    try:
        yield
    except RuntimeError as error:
        raise MostoolError(
            "lost the other processes of this training",
            why="one of them was ended, or the network failed",
            hint="the same command goes on where this one stopped",
        ) from error


def _ignore_signals() -> None:
    """Of a process that is ending already: launchers send several, and one too many would tear its last words."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
