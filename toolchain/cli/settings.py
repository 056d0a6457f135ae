"""Where an option's value comes from: flag, MOSTOOL_* variable, ./mostool.toml, the user's file, default.

A settings file has one table per command, with the command's long options as keys:

    [search]
    latency = "80ms"
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click

from toolchain.errors import UsageError, unknown_name

PROJECT_FILE = "mostool.toml"
_LARGEST_BYTES = 1 << 20


def settings_files() -> list[Path]:
    """The settings files that exist, the one that wins last."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [path for path in (home / "mostool" / "config.toml", Path(PROJECT_FILE)) if path.is_file()]


def read_settings(group: click.Group) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], str]]:
    """Each command's defaults, and for each (command, option) the file it came from.

    Raises:
        UsageError: a file is not TOML, or names a command or an option that does not exist.
    """
    defaults: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    for path in settings_files():
        for command, values in _read(path).items():
            if command not in group.commands:
                raise _at(path, unknown_name("command", command, group.commands))
            if not isinstance(values, dict):
                raise UsageError(f"{path}: {command!r} is not a table of options", hint=f"write [{command}]")
            options = _options(group.commands[command])
            for key, value in values.items():
                name = key.replace("-", "_")
                if name not in options:
                    raise _at(path, unknown_name(f"option of {command}", key, options))
                if isinstance(value, dict):
                    raise UsageError(f"{path}: {command}.{key} is a table", hint="an option has one value")
                defaults.setdefault(command, {})[name] = value
                origins[command, name] = str(path)
    return defaults, origins


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if len(data) > _LARGEST_BYTES:
        raise UsageError(f"{path} is too large to be a settings file")
    try:
        return tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML", why=str(error)) from error


def _options(command: click.Command) -> dict[str, click.Parameter]:
    return {
        parameter.name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name
    }


def _at(path: Path, error: UsageError) -> UsageError:
    return UsageError(f"{path}: {error.what}", hint=error.hint)
