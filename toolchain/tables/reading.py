"""A file that somebody else measured, as rows of a space. HAT's published tables are known by their header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from toolchain.errors import unknown_name
from toolchain.records import ImportedRow, Unit
from toolchain.space import SearchSpace
from toolchain.tables.axes import AxisColumns, AxisValue, between_choices, beyond_choices, find_axes, read_axes
from toolchain.tables.opening import Sheet, printable, read_sheet
from toolchain.tables.units import SECONDS, check_range

Form = Literal["hat", "csv", "jsonl", "parquet"]

_LATENCIES: Mapping[str, Unit | None] = {"latency_s": "s", "latency_ms": "ms", "latency_us": "us", "latency": None}
_TOLD = ("device", "target", "precision", "threads", "sequence_length", "batch", "source")
_COUNTS = ("threads", "sequence_length", "batch")
_OURS = frozenset({"id", "half_width_s", "n", "schema", "family"})
"""Columns of an exported table that an import has no use for."""

_HAT_AXES = {
    "encoder_embedding": "encoder_embed_dim",
    "encoder_depth": "encoder_layer_num",
    "encoder_ffn": "encoder_ffn_embed_dim_avg",
    "encoder_heads": "encoder_self_attention_heads_avg",
    "decoder_embedding": "decoder_embed_dim",
    "decoder_depth": "decoder_layer_num",
    "decoder_ffn": "decoder_ffn_embed_dim_avg",
    "decoder_heads": "decoder_self_attention_heads_avg",
    "cross_heads": "decoder_ende_attention_heads_avg",
    "cross_layers": "decoder_arbitrary_ende_attn_avg",
}
_HAT_TIMES = ("latency_mean_encoder", "latency_mean_decoder")
_HAT_SPREADS = ("latency_std_encoder", "latency_std_decoder")
_HAT = frozenset({*_HAT_AXES.values(), *_HAT_TIMES, *_HAT_SPREADS})


class ReadTable(NamedTuple):
    """What a file holds. Latencies are in seconds; `unit` is what the file has them in.

    `columns` maps each axis the file tells, and `latency`, to the file's name for it. `told` is what the file says that
    all its rows share: device, precision, threads, sequence_length, batch, source.
    """

    rows: list[ImportedRow]
    columns: dict[str, str]
    unit: Unit
    form: Form
    notes: list[str]
    told: dict[str, str]


def read_file(
    path: Path, space: SearchSpace, *, unit: Unit | None = None, columns: Mapping[str, str] = {}
) -> ReadTable:
    """The latencies in a CSV, JSON lines or Parquet file, a row per network of `space`.

    Args:
        unit: of the latencies, whatever their column is called; needed where it is called `latency`.
        columns: what the file calls an axis, or a latency (`latency_ms`), or what its rows share. An axis `h` with a
            value per layer is `h_1`, `h.1` or `h1` and so on; or `h`, one value for all layers or, in JSON, a list.

    Raises:
        UsageError: naming the file, the row (from 1) and the field: what `read_sheet`, `find_axes` and `read_axes`
            refuse; no latency or two; a latency that is not above zero; all of them the same; or a median that no pass
            of a Transformer takes, in the unit that the column's name says.
    """
    sheet = read_sheet(path)
    published = set(sheet.names) >= _HAT
    if published and space.family != "translation":
        raise sheet.fault(
            f"HAT's networks translate, the space {space.name!r} is of family {space.family!r}",
            "give a translation space that holds them with --space",
        )
    _check_family(sheet, space)
    _check_mapped(sheet, space, columns)
    mapped = {axis.name: columns[axis.name] for axis in space.axes if axis.name in columns}
    found = find_axes(sheet, space, (_HAT_AXES if published else {}) | mapped)
    taken = {place for one in found.values() for place in one.places}
    times = _find_times(sheet, columns, unit, taken, published=published)
    told, told_places = _read_told(sheet, columns, taken)
    axes = read_axes(sheet, space, found)
    latencies = [_latency(sheet, times, row) for row in range(len(axes))]
    if len(set(latencies)) == 1:
        raise sheet.fault("all latencies are the same", "what does not differ tells nothing: look at the column")
    if unit is None:
        check_range(path, latencies, times.unit)
    rows = [
        _row(sheet, times, row, values, latency_s)
        for row, (values, latency_s) in enumerate(zip(axes, latencies, strict=True))
    ]
    read = {name: one.called for name, one in found.items()}
    read["latency"] = " + ".join(sheet.names[place] for place in times.places)
    unread = [
        name
        for place, name in enumerate(sheet.names)
        if name and name not in _OURS and place not in {*taken, *told_places, *times.places, *times.spreads}
    ]
    notes = _notes(sheet, space, found, axes, unread)
    return ReadTable(rows, read, times.unit, "hat" if published else sheet.form, notes, told)


def _check_family(sheet: Sheet, space: SearchSpace) -> None:
    if "family" not in sheet.names:
        return
    place = sheet.names.index("family")
    for row, cells in enumerate(sheet.rows):
        if cells[place] != space.family:
            raise sheet.fault(
                f"the network is of family {cells[place]!r:.40}, the space {space.name!r} of {space.family!r}",
                "give the space it is of with --space",
                row=row,
            )


def _check_mapped(sheet: Sheet, space: SearchSpace, columns: Mapping[str, str]) -> None:
    axes = {axis.name for axis in space.axes}
    for name, column in columns.items():
        if name not in axes | {*_LATENCIES, *_TOLD}:
            raise unknown_name("axis or field to map a column to", name, axes | {*_LATENCIES, *_TOLD})
        if name not in axes and column not in sheet.names:
            raise sheet.fault(f"there is no column {column!r}", f"it has {', '.join(sheet.names[:32])}")


# -- latencies -------------------------------------------------------------------------------------------------------


class _Times(NamedTuple):
    """The columns whose sum is the latency, and those of their standard deviations, all in `unit`."""

    places: tuple[int, ...]
    spreads: tuple[int, ...]
    unit: Unit


def _find_times(
    sheet: Sheet, columns: Mapping[str, str], unit: Unit | None, taken: set[int], *, published: bool
) -> _Times:
    place = {name: index for index, name in enumerate(sheet.names) if index not in taken}
    asked = {name: columns[name] for name in _LATENCIES if name in columns}
    if published and not asked:
        times, spreads = (tuple(place[name] for name in names) for names in (_HAT_TIMES, _HAT_SPREADS))
        return _Times(times, spreads, unit or "ms")
    there = asked or {name: name for name in _LATENCIES if name in place}
    if not there:
        raise sheet.fault(
            "there is no latency column",
            "call it latency_s, latency_ms or latency_us, or say which with --column latency_ms=COLUMN",
            why=f"it has {', '.join(sheet.names[:32])}",
        )
    if len(there) > 1:
        raise sheet.fault(f"{' and '.join(there)} are two latencies", "say which with --column latency_s=COLUMN")
    ((name, column),) = there.items()
    if column not in place:
        raise sheet.fault(f"the column {column!r} cannot be an axis and the latency", "name another with --column")
    known = unit or _LATENCIES[name]
    if known is None:
        raise sheet.fault(
            f"which unit is {column!r} in?", "say --unit s, ms or us; or call the column latency_s, latency_ms, ..."
        )
    spread = place.get(name.replace("latency", "spread"))
    return _Times((place[column],), () if spread is None else (spread,), known)


def _latency(sheet: Sheet, times: _Times, row: int) -> float:
    """The row's latency in seconds."""
    total = 0.0
    for place in times.places:
        value, name = sheet.number(row, place), sheet.names[place]
        if value is None:
            raise sheet.fault(f"{name} is empty", "leave out rows that were not measured", row=row)
        if value <= 0:
            raise sheet.fault(f"{name} is {value:g}", "a latency is above zero; leave out rows that failed", row=row)
        total += value
    return SECONDS[times.unit] * total


def _row(sheet: Sheet, times: _Times, row: int, axes: dict[str, AxisValue], latency_s: float) -> ImportedRow:
    spreads: list[float] = []
    for place in times.spreads:
        spread = sheet.number(row, place)
        if spread is not None and spread < 0:
            raise sheet.fault(f"{sheet.names[place]} is {spread:g}", "a spread is not negative", row=row)
        if spread is not None:
            spreads.append(spread)
    told = bool(spreads) and len(spreads) == len(times.spreads)
    spread_s = SECONDS[times.unit] * math.hypot(*spreads) if told else None
    if not 1e-9 <= latency_s <= 1e6 or (spread_s or 0.0) > 1e6:
        name = sheet.names[times.places[0]]
        raise sheet.fault(f"{name} makes a latency of {latency_s:g} s", "is the unit right? say --unit", row=row)
    return ImportedRow(axes=axes, latency_s=latency_s, spread_s=spread_s)


# -- what all rows share ---------------------------------------------------------------------------------------------


def _read_told(sheet: Sheet, columns: Mapping[str, str], taken: set[int]) -> tuple[dict[str, str], set[int]]:
    """What the file says of all its rows, by our name for it, and the columns that say so."""
    place = {name: index for index, name in enumerate(sheet.names) if index not in taken}
    told: dict[str, str] = {}
    places: set[int] = set()
    for name in _TOLD:
        column = place.get(columns.get(name, name))
        if column is None:
            said = {printable(sheet.header[name])} if name in sheet.header else set()
        else:
            places.add(column)
            said = {_constant(sheet, row, column, counted=name in _COUNTS) for row in range(len(sheet.rows))}
        if len(said) > 1:
            few = ", ".join(repr(one) for one in sorted(said)[:4])
            raise sheet.fault(f"{sheet.names[column or 0]} is not the same in all rows: {few}", "one file for each")
        ours = "device" if name == "target" else name
        value = "".join(said)
        if value and told.setdefault(ours, value) != value:
            raise sheet.fault(f"device and target differ: {told[ours]!r}, {value!r}", "keep one of the two")
    return told, places


def _constant(sheet: Sheet, row: int, column: int, *, counted: bool) -> str:
    """The cell as text; a whole number the same whether it is written 1, 1.0 or "1"."""
    cell, name = sheet.rows[row][column], sheet.names[column]
    if not counted:
        if cell is not None and not isinstance(cell, str):
            raise sheet.fault(f"{name} is {cell!r:.40}, not a name", "write it as text", row=row)
        return printable((cell or "").strip())
    number = sheet.as_number(cell, row, name, spelt=True)
    if number is not None and (number < 1 or number != int(number)):
        raise sheet.fault(f"{name} is {number:g}", "it is a whole number from 1", row=row)
    return "" if number is None else str(int(number))


def _notes(
    sheet: Sheet,
    space: SearchSpace,
    found: dict[str, AxisColumns],
    axes: list[dict[str, AxisValue]],
    unread: list[str],
) -> list[str]:
    absent = [axis for axis in space.axes if axis.name not in found]
    filled = ", ".join(axis.name for axis in absent if len(axis.choices) == 1)
    counted = ", ".join(axis.name for axis in absent if len(axis.choices) > 1)
    between = between_choices(space, axes)
    notes = []
    if filled:
        notes.append(f"{filled}: not in the file, and the space leaves no choice")
    if counted:
        notes.append(f"{counted}: counted from the layers that are filled in")
    if between:
        notes.append(f"{between} of {len(axes)} rows hold values between the space's choices, as averages do")
    beyond = beyond_choices(space, axes)
    if beyond:
        notes.append(
            f"{beyond} of {len(axes)} rows hold values beyond the space {space.name!r}, and count all the same"
        )
    if unread:
        notes.append(f"columns that were not read: {printable(', '.join(unread[:16]))}")
    return [f"{sheet.path.name}: {note}" for note in notes]
