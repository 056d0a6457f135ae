"""Spaces by their name, or from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from toolchain.errors import UsageError, unknown_name
from toolchain.space import SearchSpace
from toolchain.supernet.families import declaration, find_families

_LARGEST_SPACE_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def read_space(family: str, given: str) -> SearchSpace:
    """A shipped space by name, or one from a TOML file.

    Raises:
        UsageError: neither, or it does not describe the family.
    """
    declared = declaration(family)
    if given in declared.SPACES:
        return declared.SPACES[given]
    path = Path(given)
    if not path.is_file():
        for other in find_families():
            if given in declaration(other).SPACES:
                raise _of_other_family(given, other)
        if path.name != given or path.suffix:
            raise UsageError(
                f"there is no file {given}", hint=f"check the path, or name one: {_names(declared.SPACES)}"
            )
        raise unknown_name("space", given, declared.SPACES)
    with path.open("rb") as stream:
        data = stream.read(_LARGEST_SPACE_BYTES + 1)
    if len(data) > _LARGEST_SPACE_BYTES:
        raise UsageError(f"{path} is too large to be a space", hint="a space is a few lines of TOML: is it that file?")
    try:
        space = msgspec.toml.decode(data.removeprefix(b"\xef\xbb\xbf"), type=SearchSpace)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not a valid space", why=str(error), hint="the README shows one") from error
    if space.family != family:
        raise _of_other_family(str(path), space.family)
    if not _PLAIN_NAME.fullmatch(space.name):
        raise UsageError(
            f"{path} names its space {space.name!r}", hint="letters, digits, - and _ only: folders are named after it"
        )
    declared.check_space(space)
    return space


def _of_other_family(what: str, family: str) -> UsageError:
    tasks = {"translation": "--task translate goes with it", "bert": "--task classify, regress or mlm goes with it"}
    hint = tasks.get(family, f"the families are {_names(tasks)}")
    return UsageError(f"{what} is a space of family {family!r}, which is not that of the task", hint=hint)


def _names(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))
