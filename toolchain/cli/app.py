"""The command `mostool`: its group, and what every subcommand has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

import toolchain
from toolchain.cli.help import Group
from toolchain.cli.logs import tell_more
from toolchain.cli.settings import read_settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MOSTOOL", "max_content_width": 100},
)
@click.version_option(toolchain.__version__, prog_name="mostool")
@click.pass_context
def app(context: click.Context) -> None:
    """From one Mixture-of-Supernets Transformer to the best model each device can run, with proof.

    \b
    mostool demo                                                # the whole path on text your machine has
    mostool train --data reviews.tsv --task classify            # a supernet of your own text
    mostool profile --device cpu                                # measure subnets of it here
    mostool search --latency 5ms --size 4MiB                    # the best that keeps both budgets
    mostool export --format onnx                                # a folder that runs without mostool
    mostool verify bundles/NAME                                 # its files, its answers, its speed
    """
    context.default_map, _ = read_settings(app)


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """Let `main` know how a failure is to be printed, whoever asked for JSON: a flag, a variable or a settings file."""
    if value and isinstance(context.obj, dict):  # never back: `--run --json` takes it for a name, and is a failure
        context.obj["json"] = True
    return value


def _tell_more(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value and isinstance(context.obj, dict):  # a command that is run, not one that is only looked at
        tell_more(context.command_path)
    return value


def common(command: F) -> F:
    """The options every subcommand has.

    An option's name in the code is its long form: settings files and variables call it by that name.
    """
    options = (
        click.option("--json", is_flag=True, is_eager=True, callback=_note_json, help="Print one JSON object."),
        click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor results, only problems and JSON."),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_tell_more,
            help="Say on stderr what is done, how long it takes, which files are written and what ssh is asked.",
        ),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    )
    for option in reversed(options):
        command = option(command)
    return command


from toolchain.cli import train, make, export, search, demo, predict, look, devices, completion, config, docs  # noqa: E402, I001  # they add themselves to the group

__all__ = [
    "Group",
    "app",
    "common",
    "completion",
    "config",
    "demo",
    "devices",
    "docs",
    "export",
    "look",
    "make",
    "predict",
    "search",
    "train",
]
