"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=True)
FILE = click.Path(path_type=Path, exists=False)

run_option = click.option("--run", type=FOLDER, help="A run's folder or its name in runs/. [newest]")
seed_option = click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
strict_option = click.option("--strict", is_flag=True, help="Exit code 6 where a measurement is in doubt.")
