"""An imported table on disk: `imported.json` says what its rows share, `rows.jsonl` is a journal of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.arrays import AxisArrays, stack_axes
from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import sha256_bytes
from toolchain.journal import Journal, read_journal
from toolchain.records import ImportedInfo, ImportedRow, read_record, write_record
from toolchain.space import Architecture, Axis, SearchSpace, Value
from toolchain.tables.axes import near_space

HEADER = "imported.json"
ROWS = "rows.jsonl"

_SHARED = ("target", "workload", "space", "precision", "threads", "runtime")
"""What tells one table from another."""
_ID_DIGITS = 12


class Merged(NamedTuple):
    """How many rows were written, and how many the table had already (or stand twice in what was brought)."""

    added: int
    already: int


def write_imported(folder: Path, info: ImportedInfo, rows: Sequence[ImportedRow]) -> Merged:
    """Keep `rows` in the table of `folder`, made where there is none; when this returns they survive a crash.

    A row with the axes and the latency of another one is not added. Killed half-way, the same call finishes the work:
    a file is named among the table's origins only once all its rows are there.

    Raises:
        DeviceError: the table is of another device, workload, space, precision, number of threads or runtime; the same
            file stands in it with other rows, as it was read in another unit or by other columns; or another mostool
            is writing it.
        IntegrityError: the table is damaged: its header, or there are rows without one.
    """
    with Journal(folder / ROWS, ImportedRow) as journal:
        stored = _settled_header(folder, info, empty=not journal.records)
        known = {_key(row) for row in journal.records}
        fresh = {key: row for row in rows if (key := _key(row)) not in known}
        if fresh:
            _refuse_reread(folder, stored, info)
        for row in fresh.values():
            journal.append(row)
        merged = msgspec.structs.replace(
            stored, columns=stored.columns | info.columns, origins=_merged_origins(stored.origins, info.origins)
        )
        if merged != stored:
            write_record(folder / HEADER, merged)
    return Merged(len(fresh), len(rows) - len(fresh))


def read_header(folder: Path) -> ImportedInfo:
    """What the rows of an imported table share.

    Raises:
        UsageError: there is no imported table.
        IntegrityError: its header is damaged.
    """
    if not (folder / HEADER).is_file():
        raise UsageError(f"there is no imported table in {folder}", hint="import one from a file first")
    return read_record(folder / HEADER, ImportedInfo)


def read_imported(folder: Path) -> tuple[ImportedInfo, list[ImportedRow]]:
    """An imported table's header and its rows, oldest first.

    Raises:
        UsageError: there is no imported table.
        IntegrityError: the table is damaged, or a row is not of its space.
    """
    info = read_header(folder)
    rows = read_journal(folder / ROWS, ImportedRow)
    for number, row in enumerate(rows, start=1):
        if wrong := _misfit(info.space, row):
            raise IntegrityError(f"{folder / ROWS}: record {number} is of another space", why=wrong, hint=_HINT)
    return info, rows


def to_axis_arrays(space: SearchSpace, rows: Sequence[ImportedRow]) -> AxisArrays:
    """These rows, all of the space, as toolchain.arrays has architectures."""
    return stack_axes(space, [row.axes for row in rows])


def row_id(space: SearchSpace, row: ImportedRow) -> str:
    """The name of the row's network: its architecture's id where all values are whole, else `row-` and a hash."""
    if all(value.is_integer() for entries in row.axes.values() for value in _entries(entries)):
        return Architecture(space.family, {axis.name: _whole(row.axes[axis.name]) for axis in space.axes}).id
    return f"row-{sha256_bytes(msgspec.json.encode(_plain_axes(row), order='sorted'))[:_ID_DIGITS]}"


# -- inside ----------------------------------------------------------------------------------------------------------

_HINT = "move the folder away and import its files anew"


def _settled_header(folder: Path, info: ImportedInfo, *, empty: bool) -> ImportedInfo:
    """The stored header; or the new one, stored without its origins: those are named once their rows are there."""
    path = folder / HEADER
    if not path.exists():
        if not empty:
            raise IntegrityError(f"{folder} holds rows but no {HEADER}", hint=_HINT)
        bare = msgspec.structs.replace(info, origins={})
        write_record(path, bare)
        return bare
    stored = read_record(path, ImportedInfo)
    changes = [
        f"{name}: {_shown(getattr(stored, name))} -> {_shown(getattr(info, name))}"
        for name in _SHARED
        if getattr(stored, name) != getattr(info, name)
    ]
    if changes:
        raise DeviceError(
            f"{folder} holds latencies of another kind",
            why="; ".join(changes),
            hint="give the other device or setting a name of its own with --device, or move the folder away",
        )
    return stored


def _refuse_reread(folder: Path, stored: ImportedInfo, info: ImportedInfo) -> None:
    """The same file with other rows would stand in the table twice, once of them wrong."""
    again = set(info.origins.values()) & set(stored.origins.values())
    changes = [
        f"{name}: {_shown(old)} -> {_shown(new)}"
        for name, old, new in (("unit", stored.unit, info.unit), ("columns", stored.columns, info.columns))
        if old != new
    ]
    if again and changes:
        names = ", ".join(name for name, sha256 in info.origins.items() if sha256 in again)
        raise DeviceError(f"{folder} holds {names} read otherwise", why="; ".join(changes), hint=_HINT)


def _merged_origins(stored: dict[str, str], brought: dict[str, str]) -> dict[str, str]:
    """Both; another file of a name that is there already gets the beginning of its sha256 as well."""
    origins = dict(stored)
    for name, sha256 in brought.items():
        if sha256 not in origins.values():
            origins[name if name not in origins else f"{name} ({sha256[:8]})"] = sha256
    return origins


def _key(row: ImportedRow) -> tuple[object, ...]:
    return (row.latency_s, *sorted(_plain_axes(row).items()))


def _misfit(space: SearchSpace, row: ImportedRow) -> str:
    """Why a row is not of the space; empty where it is."""
    if row.axes.keys() != {axis.name for axis in space.axes}:
        return f"it has the axes {', '.join(row.axes)}"
    return "; ".join(wrong for axis in space.axes if (wrong := _misfit_on(space, axis, row)))


def _misfit_on(space: SearchSpace, axis: Axis, row: ImportedRow) -> str:
    value = row.axes[axis.name]
    if isinstance(value, tuple) != (axis.per is not None):
        return f"{axis.name} is {_shown(value)}"
    layers = None if axis.per is None else row.axes[axis.per]
    if isinstance(value, tuple) and len(value) != layers:
        return f"{axis.name} has {len(value)} values"
    if not all(near_space(space, axis, entry) for entry in _entries(value)):
        return f"{axis.name} is {_shown(value)}"
    return ""


def _entries(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _whole(value: float | tuple[float, ...]) -> Value:
    return tuple(int(entry) for entry in value) if isinstance(value, tuple) else int(value)


def _plain_axes(row: ImportedRow) -> dict[str, tuple[float, ...]]:
    return {name: tuple(float(entry) for entry in _entries(value)) for name, value in row.axes.items()}


def _shown(value: object) -> str:
    """A field's value, short enough for a message."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:117]}..."
