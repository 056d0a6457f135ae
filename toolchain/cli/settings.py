"""Where an option's value comes from: flag, MOSTOOL_* variable, ./mostool.toml, the user's file, default.

A settings file has one table per command, with the command's long options as keys:

    [search]
    latency = "80ms"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from toolchain.errors import UsageError, unknown_name

PROJECT_FILE = "mostool.toml"
_LARGEST_BYTES = 1 << 20


def settings_files() -> list[Path]:
    """The settings files that exist, the one that wins last."""
    project = Path(PROJECT_FILE)
    return [*_own_file(), *([project] if project.is_file() else [])]


def _own_file() -> list[Path]:
    """The user's file, where there is one; no home, or one that cannot be looked into, is as good as none."""
    try:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        path = folder / "mostool" / "config.toml"
        return [path] if path.is_file() else []
    except (OSError, RuntimeError):  # Path.home() raises the latter
        return []


def read_settings(group: click.Group) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], str]]:
    """Each command's defaults, and for each (command, option) the file it came from.

    Raises:
        UsageError: a file is not TOML, names a command or an option that does not exist, or gives one a value that the
            flag would not take (`latency = 5` lacks its unit here too).
    """
    defaults: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    for path in settings_files():
        for command, values in _read(path).items():
            if command not in group.commands:
                raise _at(path, unknown_name("command", command, group.commands))
            if not isinstance(values, dict):
                raise UsageError(f"{path}: {command!r} is not a table of options", hint=f"write [{command}]")
            found = _typed(path, group.commands[command], values)
            defaults.setdefault(command, {}).update(found)
            origins.update(((command, name), str(path)) for name in found)
    return defaults, origins


def read_options(path: Path, command: click.Command) -> dict[str, Any]:
    """The options of one command, from a file that holds nothing else. Raises as `read_settings` does."""
    return _typed(path, command, _read(path))


def _typed(path: Path, command: click.Command, values: Mapping[str, object]) -> dict[str, Any]:
    options = _options(command)
    found = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in options:
            raise _at(path, unknown_name(f"option of {command.name}", key, options))
        found[name] = _as_typed(path, command, options[name], value)
    return found


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise UsageError(
            f"{path} is too large to be a settings file",
            why=f"it has more than {_LARGEST_BYTES >> 20} MiB",
            hint="is it the right file? it holds a few lines such as those `mostool config --origin` prints",
        )
    try:
        return tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path} is not valid TOML", why=why, hint="mend that place, or move the file away") from error


def _as_typed(path: Path, command: click.Command, option: click.Option, value: object) -> str | list[str]:
    """A value as it would be typed after the flag, so that flags and files are read by the same rules."""
    key = f"{path}: {command.name}.{option.name}"
    many = isinstance(value, list)
    if isinstance(value, dict) or (many and not option.multiple):
        raise UsageError(f"{key} is a {type(value).__name__}", hint="an option has one value")
    if option.is_flag is not isinstance(value, bool):
        wanted = "true or false" if option.is_flag else "a text or a number"
        raise UsageError(f"{key} is {value!r}", hint=f"write {wanted}")
    typed = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    context = click.Context(command, info_name=f"mostool {command.name}")
    for one in typed:
        try:
            option.type.convert(one, option, context)
        except click.BadParameter as error:
            hint = f"see mostool {command.name} --help"
            raise UsageError(f"{key}: {error.message.rstrip('.')}", hint=hint) from error
    return typed if option.multiple else typed[0]


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        parameter.name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name
    }


def _at(path: Path, error: UsageError) -> UsageError:
    return UsageError(f"{path}: {error.what}", hint=error.hint)
