"""The subcommand that says where options come from: config."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from toolchain.cli.app import app, common
from toolchain.cli.output import plain, print_result, table
from toolchain.cli.settings import read_settings
from toolchain.errors import unknown_name


class Setting(NamedTuple):
    """What an option is without its flag, as a text (None: it has none), and which variable or file says so."""

    option: str
    value: str | None
    origin: str
    computed: str = ""


def _complete_command(context: click.Context, _: click.Parameter, typed: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    known = [path for path, _ in _leaves(context.find_root().command)]
    typed_before = " ".join(context.params.get("command") or ())
    rest = [path.removeprefix(typed_before).strip() for path in known if path.startswith(typed_before)]
    return [CompletionItem(name) for name in dict.fromkeys(one.split(" ")[0] for one in rest) if name.startswith(typed)]


@app.command(short_help="what every option is set to here, and by what")
@click.argument("command", nargs=-1, shell_complete=_complete_command)
@click.option("--origin", is_flag=True, help="Show defaults too, and where each value comes from.")
@common
def config(command: tuple[str, ...], origin: bool, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """What variables and settings files set here, and what holds: a flag beats a MOSTOOL_* variable beats mostool.toml
    beats your own ~/.config/mostool/config.toml beats the default.

    \b
    mostool config                          # what is set otherwise than by default
    mostool config --origin                 # every option, its value and who says so
    mostool config --origin search          # of one command
    """
    asked = " ".join(command)
    commands = dict(_leaves(app))
    chosen = {path: one for path, one in commands.items() if not asked or f"{path} ".startswith(f"{asked} ")}
    if not chosen:
        raise unknown_name("command", asked, commands)
    defaults, origins = read_settings(app)
    found = [one for path, command_ in chosen.items() for one in _settings(path, command_, defaults, origins)]
    rows = [one for one in found if origin or one.origin != "default"]
    header = ["option", "value", "origin"] if origin else ["option", "value"]
    cells = [[one.option, one.value if one.value is not None else one.computed, one.origin] for one in rows]
    lines = table(header, [row[: len(header)] for row in cells])
    data = [{"option": one.option, "value": one.value, "origin": one.origin} for one in rows]
    print_result(
        plain(data),
        _strays(commands),
        lines if rows else ["nothing is set; every option has its default"],
        as_json=json,
        quiet=quiet,
    )


def _leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by what is typed after mostool."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, f"{path} {name}".strip())


def _options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and one.name]


def _variable(path: str, option: click.Option) -> str:
    return f"MOSTOOL_{path}_{option.name}".replace(" ", "_").upper()


def _settings(
    path: str,
    command: click.Command,
    defaults: Mapping[str, Any],
    origins: Mapping[tuple[str, str], str],
) -> Iterator[Setting]:
    for name in path.split(" "):
        defaults = defaults.get(name, {})
    for option in _options(command):
        name = str(option.name)
        shown, variable = f"{path.replace(' ', '.')}.{name}", _variable(path, option)
        if os.environ.get(variable):
            yield Setting(shown, os.environ[variable], variable)
        elif name in defaults:
            value = defaults[name]
            yield Setting(shown, ", ".join(value) if isinstance(value, list) else value, origins[path, name])
        else:
            yield Setting(shown, _default(option), "default", _computed(option))


def _default(option: click.Option) -> str | None:
    if option.is_flag:
        return "false"
    return str(option.default) if option.show_default else None


def _computed(option: click.Option) -> str:
    """`newest` of a help that ends with [newest]; a dash where nothing takes an option's place."""
    said = re.search(r"\[([^\[\]]+)\]\s*$", option.help or "")
    return f"({said[1]})" if said else "-"


def _strays(commands: Mapping[str, click.Command]) -> list[str]:
    """Variables that look like an option's and are none."""
    known = {_variable(path, option) for path, command in commands.items() for option in _options(command)}
    starts = tuple(f"MOSTOOL_{path}_".replace(" ", "_").upper() for path in commands)
    strays = sorted(name for name in os.environ if name.startswith(starts) and name not in known)
    near = {name: difflib.get_close_matches(name, known, n=1) for name in strays}
    return [f"nobody reads {name}{f': did you mean {one[0]}?' if one else ''}" for name, one in near.items()]
