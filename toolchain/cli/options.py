"""Options that several subcommands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from toolchain.records import Workload

FOLDER = click.Path(path_type=Path, file_okay=True)
FILE = click.Path(path_type=Path, exists=False)

run_option = click.option("--run", type=FOLDER, help="A run's folder or its name in runs/. [newest]")
seed_option = click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
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
