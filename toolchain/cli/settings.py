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


def read_settings(group: click.Group) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """Each command's defaults, nested as its group is, and for each (command, option) the file it came from.

    Raises:
        UsageError: a file is not TOML, names a command or an option that does not exist, or gives one a value that the
            flag would not take (`latency = 5` lacks its unit here too).
    """
    defaults: dict[str, Any] = {}
    origins: dict[tuple[str, str], str] = {}
    for path in settings_files():
        _merge(path, _read(path), group, "", defaults, origins)
    return defaults, origins


def _merge(
    path: Path,
    tables: Mapping[str, Any],
    group: click.Group,
    within: str,
    defaults: dict[str, Any],
    origins: dict[tuple[str, str], str],
) -> None:
    """Add the tables of a file: `[search]`, and `[devices.add]` of a group within."""
    for name, values in tables.items():
        command = group.commands.get(name)
        if command is None:
            raise _at(path, unknown_name("command", name, group.commands))
        full = f"{within} {name}".strip()
        if not isinstance(values, dict):
            hint = f"write [{full.replace(' ', '.')}]"
            raise UsageError(f"{path}: {name!r} is not a table of options", hint=hint)
        known = defaults.setdefault(name, {})
        if isinstance(command, click.Group):
            _merge(path, values, command, full, known, origins)
            continue
        found = _typed(path, command, values)
        known.update(found)
        origins.update(((full, option), str(path)) for option in found)


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
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}", why=error.strerror or str(error), hint="mend it, or move it away"
        ) from error
    if len(data) > _LARGEST_BYTES:
        raise UsageError(
            f"{path} is too large to be a settings file",
            why=f"it has more than {_LARGEST_BYTES >> 20} MiB",
            hint="is it the right file? it holds a few lines such as those `mostool config --origin` prints",
        )
    try:
        return tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode())
    except (ValueError, RecursionError) as error:  # of a number with thousands of digits it is a plain ValueError
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path} is not valid TOML", why=why, hint="mend that place, or move the file away") from error


def _as_typed(path: Path, command: click.Command, option: click.Option, value: object) -> str | list[str]:
    """A value as it would be typed after the flag, so that flags and files are read by the same rules."""
    key = f"{path}: {command.name}.{option.name}"
    given = value if isinstance(value, list) and option.multiple else [value]
    if nested := [one for one in given if isinstance(one, dict | list)]:
        raise UsageError(f"{key} is a {type(nested[0]).__name__}", hint="an option has one value")
    if option.is_flag is not isinstance(value, bool):
        wanted = "true or false" if option.is_flag else "a text or a number"
        raise UsageError(f"{key} is {_spelt(key, value)!r:.80}", hint=f"write {wanted}")
    typed = [_spelt(key, one) for one in given]
    context = click.Context(command, info_name=f"mostool {command.name}")
    for one in typed:
        try:
            option.type.convert(one, option, context)
        except (click.BadParameter, ValueError) as error:  # the latter: a NUL in the name of a file
            said = error.message if isinstance(error, click.BadParameter) else str(error)
            raise UsageError(f"{key}: {said.rstrip('.')}", hint=f"see mostool {command.name} --help") from error
    return typed if option.multiple else typed[0]


def _spelt(key: str, value: object) -> str:
    try:
        return str(value)
    except ValueError as error:  # Python spells no whole number of more than some thousand digits
        raise UsageError(f"{key} is too large a number", why=str(error), hint="write a smaller one") from error


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        parameter.name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name
    }


def _at(path: Path, error: UsageError) -> UsageError:
    return UsageError(f"{path}: {error.what}", hint=error.hint)
