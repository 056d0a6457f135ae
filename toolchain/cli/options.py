"""Options that several subcommands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolchain.cli import completing
from toolchain.cli.help import Command
from toolchain.cli.values import NOT_NEGATIVE, POSITIVE, SHARE

if TYPE_CHECKING:
    from toolchain.records import Workload

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=True)
FILE = click.Path(path_type=Path, exists=False)

run_option = click.option(
    "--run", type=FOLDER, shell_complete=completing.runs, help="A run's folder or its name in runs/. [newest]"
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of all that is drawn at random."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what it would do and take, and start nothing.")
strict_option = click.option("--strict", is_flag=True, help="Exit code 6 where a measurement is in doubt.")


def asked_workload(batch: int | None, length: int | None) -> Workload | None:
    """The work that is meant by --batch and --length; None where neither is given."""
    if batch is None and length is None:
        return None
    from toolchain.records import Workload

    if length is None:
        raise click.UsageError("--batch needs a --length beside it")
    return Workload(batch=batch or 1, sequence_length=length)


def first_of_ranks() -> bool:
    """Whether this process speaks for those that a launcher started together, or is alone."""
    return os.environ.get("RANK", "0") == "0"


# -- of training -------------------------------------------------------------------------------------------------------


class FilesAfterData(Command):
    """`--data a b` means `--data a --data b`: a pair of files is given in one breath."""

    _SEVERAL = ("--data", "--valid")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        flag: str | None = None
        for given in args:
            if given.startswith("-"):
                if flag is not None and spread[-1] == flag:  # click would take the next option for a file's name
                    raise click.BadOptionUsage(flag, f"Option '{flag}' requires an argument", ctx)
                name = given.partition("=")[0]
                flag = name if name in self._SEVERAL else None  # of `--data=a b` too
                spread.append(given)
            elif flag is not None and spread[-1] != flag:
                spread += [flag, given]
            else:
                spread.append(given)
        return super().parse_args(ctx, spread)


def training_options(
    *, updates: int, batch_size: int, learning_rate: float, warmup: int, every: int
) -> Callable[[F], F]:
    """The options of every training; the arguments are their defaults."""

    def decorate(command: F) -> F:
        options = (
            click.option(
                "--updates", type=click.IntRange(1), default=updates, show_default=True, help="Optimizer steps."
            ),
            click.option(
                "--batch-size",
                type=click.IntRange(1),
                default=batch_size,
                show_default=True,
                help="Items in a micro-batch.",
            ),
            click.option(
                "--accumulate",
                type=click.IntRange(1),
                default=1,
                show_default=True,
                help="Micro-batches in an update; several processes share them.",
            ),
            click.option(
                "--learning-rate",
                type=POSITIVE,
                default=learning_rate,
                show_default=True,
                help="Step size of AdamW, after warm-up.",
            ),
            click.option(
                "--warmup-updates",
                type=click.IntRange(0),
                default=warmup,
                show_default=True,
                help="Updates in which the learning rate rises from 0.",
            ),
            click.option(
                "--weight-decay", type=NOT_NEGATIVE, default=0.01, show_default=True, help="Of AdamW, decoupled."
            ),
            click.option(
                "--dropout", type=SHARE, default=0.1, show_default=True, help="Share of activations, 0 to below 1."
            ),
            click.option(
                "--label-smoothing",
                type=SHARE,
                help="Share of the answer given to all others, 0 to below 1. [0.1 for translation, else 0]",
            ),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "bf16"]),
                default="fp32",
                show_default=True,
                help="Of the arithmetic; weights stay fp32. bf16 is for GPUs.",
            ),
            click.option(
                "--evaluate-every",
                type=click.IntRange(1),
                default=every,
                show_default=True,
                help="Updates between two evaluations on validation data.",
            ),
            click.option("--track", metavar="NAME", help="Log to tensorboard, wandb, mlflow ... through accelerate."),
            click.option(
                "--compile", "compile", is_flag=True, help="Let torch compile what is trained (one subnet only)."
            ),
            seed_option,
            click.option("--out", type=FOLDER, help="The run's folder. [runs/NAME]"),
            click.option("--fresh", is_flag=True, help="Start anew; what is there is moved aside."),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def data_options(help_text: str) -> Callable[[F], F]:
    """Where the text comes from."""

    def decorate(command: F) -> F:
        options = (
            click.option("--data", type=FILE, multiple=True, help=help_text),
            click.option("--valid", type=FILE, multiple=True, help="Held-out data of its own. [a part of --data]"),
            click.option("--text-column", help="Column of the text. [found by name]"),
            click.option("--second-column", help="Column of the second text of a pair. [found by name]"),
            click.option("--label-column", help="Column of the label. [found by name]"),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
