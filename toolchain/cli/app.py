"""The command `mostool`: its group, and what every subcommand has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

import toolchain
from toolchain.cli.settings import read_settings
from toolchain.errors import unknown_name

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


class Group(click.Group):
    """Subcommands in the order of the work, and the nearest name for one that does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click names it
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Group,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MOSTOOL", "max_content_width": 100},
)
@click.version_option(toolchain.__version__, prog_name="mostool")
@click.pass_context
def app(context: click.Context) -> None:
    """From one Mixture-of-Supernets Transformer to the best model each device can run, with proof."""
    context.default_map, _ = read_settings(app)


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """Let `main` know how a failure is to be printed, whoever asked for JSON: a flag, a variable or a settings file."""
    if isinstance(context.obj, dict):
        context.obj["json"] = value
    return value


def common(command: F) -> F:
    """The options every subcommand has.

    An option's name in the code is its long form: settings files and variables call it by that name.
    """
    for decorate in (
        click.option("--json", is_flag=True, is_eager=True, callback=_note_json, help="Print one JSON object."),
        click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor results, only problems."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ):
        command = decorate(command)
    return command


from toolchain.cli import train, make, export, search, demo, predict, look, devices  # noqa: E402, I001  # they add themselves to the group

__all__ = ["Group", "app", "common", "demo", "devices", "export", "look", "make", "predict", "search", "train"]
