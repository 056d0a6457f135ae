"""The command `mostool`: its group, and what every subcommand has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

import toolchain
from toolchain.cli.settings import read_settings

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = """\b
Examples:
  mostool train --data reviews.tsv --task classify
  mostool profile --device cpu
  mostool search --latency 5ms --size 4MiB
  mostool export --format onnx
  mostool verify bundles/NAME
Each command says more with --help. Every option can stand in mostool.toml or in a MOSTOOL_* variable:
`mostool config --origin` shows what holds, and why."""


class _Group(click.Group):
    """Subcommands in the order of the work, and the nearest name for one that does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click names it
        return list(self.commands)


@click.group(
    cls=_Group,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MOSTOOL", "max_content_width": 100},
)
@click.version_option(toolchain.__version__, prog_name="mostool")
@click.pass_context
def app(context: click.Context) -> None:
    """From one Mixture-of-Supernets Transformer to the best model each device can run, with proof."""
    context.default_map, _ = read_settings(app)


def common(command: F) -> F:
    """The options every subcommand has."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor results, only problems."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ):
        command = decorate(command)
    return command


from toolchain.cli import look, make  # noqa: E402  # they add themselves to the group

__all__ = ["app", "common", "look", "make"]
