"""What a user named, looked up: spaces, tables and architectures that need no run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.pipeline.project import Project
from toolchain.pipeline.spaces import read_space
from toolchain.records import Workload, decode_record, read_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import find_families
from toolchain.targets import read_target

_LARGEST_BYTES = 256 << 20
_EXTREMES = ("smallest", "middle", "largest")


def named_space(given: str) -> SearchSpace:
    """A space as FAMILY/NAME or FAMILY/FILE.

    Raises:
        UsageError: there is no such family or space.
    """
    family, slash, name = given.partition("/")
    if not slash or family not in find_families():
        families = ", ".join(find_families())
        raise UsageError(f"{given!r} names no space", hint=f"write FAMILY/NAME, as translation/hat-wmt ({families})")
    return read_space(family, name)


def find_table(
    project: Project, space: SearchSpace, device: str | None, *, batch: int | None = None, length: int | None = None
) -> Path:
    """The folder of the latency table that is meant.

    Raises:
        UsageError: there is none.
    """
    if batch is not None and length is None:
        raise UsageError("--batch goes with --length", hint="say how many tokens too: --length 32")
    workload = None if length is None else Workload(batch=batch or 1, sequence_length=length)
    folder = project.find_table(device, space, workload)
    if folder is None:
        if device is not None and project.find_table(device, space) is None:
            read_target(device, project.root)
        where = f" of {device}" if device else ""
        shape = f" at batch {workload.batch} x {workload.sequence_length} tokens" if workload else ""
        raise UsageError(
            f"there is no latency table{where} of this space{shape}",
            hint=f"mostool profile --device {device or 'cpu'}, or mostool predict --import FILE",
        )
    return folder


def find_known(project: Project, space: SearchSpace, device: str, workload: Workload) -> Path:
    """The table of another device to lean on. Raises UsageError where it has none of this space."""
    return project.find_known(device, space, workload) or find_table(project, space, device)


def read_architecture(given: str, space: SearchSpace) -> Architecture:
    """The architecture of a space that is meant by a name (smallest, middle, largest), JSON, or a file of it.

    Raises:
        UsageError: it is none of these, or not a point of the space.
    """
    if given in _EXTREMES:
        return {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}[given]()
    if given.lstrip().startswith("{"):
        architecture = decode_record(os.fsencode(given), Architecture, "the architecture", UsageError)
    elif _is_file(given):
        architecture = read_record(Path(given), Architecture, UsageError)
    else:
        raise UsageError(
            f"no architecture is known as {given!r:.200}", hint=f"give JSON, a file, or {', '.join(_EXTREMES)}"
        )
    space.check(architecture)
    return architecture


def read_architectures(path: Path) -> list[Architecture]:
    """A file with one architecture a line, as `mostool sample` prints them; empty lines do not count.

    Raises:
        UsageError: no file, or a line (named) that is no architecture.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="mostool sample --n 20 > architectures.jsonl makes one")
    if path.stat().st_size > _LARGEST_BYTES:
        raise UsageError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB", hint="split it")
    found = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if line.strip():
            found.append(decode_record(line, Architecture, f"{path}, line {number},", UsageError))
    if not found:
        raise UsageError(f"{path} holds no architecture", hint="one a line, as mostool sample prints them")
    return found


def _is_file(given: str) -> bool:
    with contextlib.suppress(OSError):  # a name no file system takes
        return Path(given).is_file()
    return False
