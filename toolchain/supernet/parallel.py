"""Several processes that train one model: started by torchrun or `accelerate launch`, on one machine or many.

Every process draws the same architectures and takes its share of an update's micro-batches; the gradients are summed in
one go before the step, so that a run computes the same (but for rounding) on any number of processes. Wrapping the
model as DistributedDataParallel does would not serve: a subnet leaves most of the shared weights without a gradient.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.distributed
from torch import nn

from toolchain.errors import UsageError


class Ranks(NamedTuple):
    """This process among the `size` that train together: number `rank`, on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum over the processes, which all have gradients for the same parameters."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
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
        torch.distributed.all_reduce(together)
        return dict(zip(figures, together.tolist(), strict=True))


def alone() -> Ranks:
    """One process, on the GPU where there is one."""
    return Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def join_ranks() -> Ranks:
    """This process's place among those that a launcher started (RANK, WORLD_SIZE, ... in the environment), or alone.

    NCCL joins them on GPUs, gloo on CPUs.

    Raises:
        UsageError: the launcher's variables make no sense.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return alone()
    try:
        rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as error:
        raise UsageError(
            "RANK is set, but not all that a launcher sets beside it",
            why=str(error),
            hint="start several processes with torchrun or accelerate launch; for one, unset RANK",
        ) from error
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=size)
    return Ranks(rank, size, torch.device("cuda", local) if cuda else torch.device("cpu"))


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
