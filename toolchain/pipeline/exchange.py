"""exchange: latency tables from elsewhere become tables of this project, and tables of this project become files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import profiling, tables
from toolchain.arrays import AxisArrays, Floats
from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline.latencies import is_table, read_latencies
from toolchain.pipeline.project import Project
from toolchain.records import ImportedInfo, ImportedRow, TableInfo, Timed, Unit, Workload, now, read_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

IMPORTED_SUFFIX = "-imported"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_MULTIPLY_ADDS = frozenset(
    {
        *("dense", "attention", "head", "decoder"),
        *("encoder_dense", "encoder_attention", "decoder_dense", "cross_dense", "decoder_attention", "output"),
    }
)
"""The features of a family that count multiply-adds, in millions."""


class Imported(NamedTuple):
    """Where the latencies are kept, how many were new, how many were there already, and what to know about the file."""

    folder: Path
    rows_added: int
    rows_already: int
    notes: list[str]


def import_table(
    project: Project,
    source: Path,
    space: SearchSpace,
    device: str,
    workload: Workload,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    runtime: str = "",
    unit: Unit | None = None,
    columns: Mapping[str, str] = {},
) -> Imported:
    """Keep the latencies of a file, or of another project's table folder, among those of this project.

    A file's go to a folder of their own beside what was measured here; a measured table's are added to the measured
    ones. What is there already is not added twice.

    Raises:
        UsageError: the file is refused (`tables.read_file`), its latencies cannot be in the unit it says, or it says
            that it is of another device, precision, workload or number of threads.
        DeviceError: the project's table of this device, space and workload is of another kind.
        IntegrityError: a table is damaged.
    """
    if not _NAME.fullmatch(device) or device.endswith(".old"):
        raise UsageError(f"{device!r} cannot name a device", hint="letters, digits, dots, dashes and underscores")
    asked = _Asked(space, device, workload, precision, threads, runtime)
    if source.is_dir():
        if unit is not None or columns:
            raise UsageError(f"{source} is a table of mostool", hint="leave out --unit and --column: it knows its own")
        return _import_folder(project, source, asked)
    return _import_file(project, source, asked, unit, columns)


class _Asked(NamedTuple):
    """What the user says all rows share."""

    space: SearchSpace
    device: str
    workload: Workload
    precision: str
    threads: int | None
    runtime: str

    def imported_folder(self, project: Project) -> Path:
        folder = project.table_folder(self.device, self.space, self.workload)
        return folder.with_name(folder.name + IMPORTED_SUFFIX)


# -- files -----------------------------------------------------------------------------------------------------------


def _import_file(
    project: Project, source: Path, asked: _Asked, unit: Unit | None, columns: Mapping[str, str]
) -> Imported:
    read = tables.read_file(source, asked.space, unit=unit, columns=columns)
    _refuse_other(source, read.told, asked)
    work = _macs(asked.space, tables.to_axis_arrays(asked.space, read.rows), asked.workload)
    tables.check_mixed(source, [row.latency_s for row in read.rows], list(map(float, work)))
    if unit is None:
        like_s = _like_s(project, asked, float(np.median(work)))
        latencies = [row.latency_s for row in read.rows]
        tables.check_unit(source, latencies, read.unit, like_s=like_s, work_macs=float(np.median(work)))
    if read.told.get("source") not in {None, "measured", "imported"}:
        raise UsageError(
            f"{source} says that its latencies are {read.told['source']}",
            why="what is imported stands for what a device was measured at",
            hint="import a table of the device itself",
        )
    threads = int(read.told["threads"]) if "threads" in read.told else asked.threads
    info = ImportedInfo(
        target=asked.device,
        workload=asked.workload,
        space=asked.space,
        precision=asked.precision,
        threads=threads,
        runtime=asked.runtime,
        unit=read.unit,
        columns=read.columns,
        origins={source.name: sha256_file(source)},
        created_at=now(),
    )
    folder = asked.imported_folder(project)
    merged = tables.write_imported(folder, info, read.rows)
    return Imported(folder, merged.added, merged.already, list(read.notes))


def _refuse_other(source: Path, told: Mapping[str, str], asked: _Asked) -> None:
    """Raise UsageError where the file says that it is of something else than the user does."""
    wanted = {
        "device": (asked.device, "--device"),
        "precision": (asked.precision, "--precision"),
        "threads": (asked.threads, "--threads"),
        "batch": (asked.workload.batch, "--batch"),
        "sequence_length": (asked.workload.sequence_length, "--length"),
    }
    for name, (value, option) in wanted.items():
        if value is not None and told.get(name, str(value)) != str(value):
            raise UsageError(
                f"{source} was measured with another {name.replace('_', ' ')}",
                why=f"{name}: it says {told[name]}, asked for is {value}",
                hint=f"say {option} {told[name]}, or give the file that is meant",
            )


def _like_s(project: Project, asked: _Asked, work_macs: float) -> float | None:
    """What the device's other tables of this space let expect of such networks, in seconds; None where it has none.

    Of another workload the latencies are taken in proportion to the work.
    """
    for folder in sorted((project.root / "profiles" / asked.device).glob("*")):
        if folder.name.endswith(".old") or folder.name.startswith(".") or not is_table(folder):
            continue
        try:
            other = read_latencies(folder)
        except (IntegrityError, UsageError):  # damaged or empty: whoever uses that one is told
            continue
        if other.space == asked.space and len(other.values):
            there = float(np.median(_macs(other.space, other.arrays, other.workload)))
            return float(np.median(other.values)) * (work_macs / there if there and work_macs else 1.0)
    return None


def _macs(space: SearchSpace, arrays: AxisArrays, workload: Workload) -> Floats:
    """The multiply-adds of a pass, [n]."""
    features = declaration(space.family).features(space, arrays, workload)
    total: Floats = 1e6 * np.sum([values for name, values in features.items() if name in _MULTIPLY_ADDS], axis=0)
    return total


# -- folders ---------------------------------------------------------------------------------------------------------


def _import_folder(project: Project, source: Path, asked: _Asked) -> Imported:
    if (source / tables.HEADER).is_file():
        info, rows = tables.read_imported(source)
        _refuse_other_table(source, info, asked)
        folder = asked.imported_folder(project)
        merged = tables.write_imported(folder, info, rows)
        return Imported(folder, merged.added, merged.already, [])
    if not (source / profiling.TABLE).is_file():
        raise UsageError(
            f"{source} is no latency table", hint=f"give a folder that holds {profiling.TABLE}, or a file of latencies"
        )
    return _merge_measured(project, source, asked)


def _merge_measured(project: Project, source: Path, asked: _Asked) -> Imported:
    info, rows = profiling.read_table(source)
    _refuse_other_table(source, info, asked)
    folder = project.table_folder(info.target, info.space, info.workload)
    if (folder / profiling.TABLE).is_file():
        changes = profiling.differences(read_record(folder / profiling.TABLE, TableInfo), info)
        if changes:
            raise DeviceError(
                f"{source} and {folder} were not measured alike",
                why="; ".join(changes),
                hint="another board or setting is another device: give it a name of its own",
            )
    reference = source / profiling.REFERENCE
    if not reference.is_file():
        raise IntegrityError(f"{source} lacks {profiling.REFERENCE}", hint="copy the whole folder")
    if folder.resolve() == source.resolve():
        return Imported(folder, 0, len(rows), [])
    added = 0
    with profiling.open_table(folder, info, reference) as table:
        for row in rows:
            if not table.done(row.architecture, retry_failed=isinstance(row.outcome, Timed)):
                table.append(row)
                added += 1
        notes = list(table.repairs)
    return Imported(folder, added, len(rows) - added, notes)


def _refuse_other_table(source: Path, info: TableInfo | ImportedInfo, asked: _Asked) -> None:
    """Raise UsageError where a table is of something else than the user says."""
    told = {
        "device": info.target,
        "precision": info.precision,
        "batch": str(info.workload.batch),
        "sequence_length": str(info.workload.sequence_length),
    }
    if info.threads is not None:
        told["threads"] = str(info.threads)
    _refuse_other(source, told, asked)
    if info.space != asked.space:
        raise UsageError(
            f"{source} is of another space",
            why=f"it is of {info.space.name} {info.space.digest[:6]}, not {asked.space.name} {asked.space.digest[:6]}",
            hint="give the space it was measured on",
        )


# -- out -------------------------------------------------------------------------------------------------------------


def export_table(folder: Path, out: Path) -> int:
    """Write a measured or imported table to a .csv, .jsonl or .parquet file; how many rows. Latencies are in seconds.

    A measured one's have half the width of their 95 % interval and how many calls they rest on; an imported one's the
    spread, where its files told it.

    Raises:
        UsageError: there is no table or no latency in it, or the file cannot be written (`tables.write_table`).
        IntegrityError: the table is damaged.
    """
    if (folder / tables.HEADER).is_file():
        info, rows = tables.read_imported(folder)
        header = _header(info, "imported")
        columns = _columns(info.space, rows)
        if any(row.spread_s is not None for row in rows):
            columns["spread_s"] = [row.spread_s for row in rows]
    else:
        measured, measurements = profiling.read_table(folder)
        timed = [(row.architecture, row.outcome) for row in measurements if isinstance(row.outcome, Timed)]
        anchor = profiling.anchor_s(outcome for _, outcome in timed)
        figures = [profiling.latency(outcome, anchor) for _, outcome in timed]
        header = _header(measured, measured.environment.source)
        rows = [
            _as_row(architecture, figure.median_s) for (architecture, _), figure in zip(timed, figures, strict=True)
        ]
        columns = _columns(measured.space, rows)
        columns["half_width_s"] = [figure.half_width_s for figure in figures]
        columns["n"] = [figure.n for figure in figures]
    tables.write_table(out, header, columns)
    return len(rows)


def _as_row(architecture: Architecture, latency_s: float) -> ImportedRow:
    axes = {
        name: tuple(map(float, value)) if isinstance(value, tuple) else float(value)
        for name, value in architecture.axes.items()
    }
    return ImportedRow(axes=axes, latency_s=latency_s)


def _header(info: TableInfo | ImportedInfo, source: str) -> dict[str, str]:
    """What all rows of a file share; `threads` only where it is known."""
    header = {"device": info.target, "precision": info.precision}
    if info.threads is not None:
        header["threads"] = str(info.threads)
    workload = {"batch": str(info.workload.batch), "sequence_length": str(info.workload.sequence_length)}
    return header | workload | {"source": source}


def _columns(space: SearchSpace, rows: list[ImportedRow]) -> dict[str, list[float | int | str | None]]:
    """id, the axes (a column for each layer), latency_s."""
    columns: dict[str, list[float | int | str | None]] = {"id": [tables.row_id(space, row) for row in rows]}
    for axis in space.axes:
        if axis.per is None:
            columns[axis.name] = [_plain(row.axes[axis.name]) for row in rows]
            continue
        for layer in range(space.axis(axis.per).choices[-1]):
            columns[f"{axis.name}_{layer + 1}"] = [_plain(row.axes[axis.name], layer) for row in rows]
    columns["latency_s"] = [row.latency_s for row in rows]
    return columns


def _plain(value: float | tuple[float, ...], layer: int = 0) -> float | int | None:
    """The value, of this layer where there is one for each; None where there is no such layer. 2.0 is written 2."""
    entries = value if isinstance(value, tuple) else (value,)
    if layer >= len(entries):
        return None
    entry = float(entries[layer])
    return int(entry) if entry.is_integer() else entry
