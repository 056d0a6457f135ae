"""--config: the options of `train` from a file, or from one of the recipes that ship."""

from __future__ import annotations

from pathlib import Path

import click

from toolchain.cli import completing
from toolchain.cli.options import FILE
from toolchain.cli.settings import read_options
from toolchain.errors import UsageError, unknown_name

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def find_recipes() -> dict[str, Path]:
    """The recipes that ship, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def _take(context: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    """Make the file's values the defaults: flags and variables beat them, they beat mostool.toml."""
    if given is not None:
        recipes = find_recipes()
        path = given if given.is_file() else recipes.get(str(given))
        if path is None and (given.suffix or given.name != str(given)):
            raise UsageError(f"there is no file {given}", hint=f"check the path, or name one: {', '.join(recipes)}")
        if path is None:
            raise unknown_name("recipe", str(given), recipes)
        found = read_options(path, context.command)
        if "config" in found:
            raise UsageError(f"{path} names another file of options", hint="leave `config` out of it: one file is read")
        context.default_map = {**(context.default_map or {}), **found}
    return given


config_option = click.option(
    "--config",
    type=FILE,
    is_eager=True,
    callback=_take,
    shell_complete=completing.recipes,
    help="Options from a TOML file, or a recipe that ships: see toolchain/recipes. [none]",
)
