"""The latencies of a table, whoever measured them, as what a predictor is fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import profiling, tables
from toolchain.arrays import AxisArrays, Floats, to_arrays
from toolchain.files import sha256_file
from toolchain.records import Environment, Source, TableInfo, Timed, Workload, read_record
from toolchain.space import SearchSpace
from toolchain.supernet.families import declaration


class Latencies(NamedTuple):
    """One latency (p50) per network, in the order they were measured; ids [n], arrays [n], latency_s [n]."""

    folder: Path
    target: str
    workload: Workload
    space: SearchSpace
    source: Source
    environment: Environment | None
    ids: tuple[str, ...]
    arrays: AxisArrays
    latency_s: Floats
    sha256: str

    @property
    def features(self) -> dict[str, Floats]:
        """What each network takes, by kind of work: [n] each."""
        return declaration(self.space.family).features(self.space, self.arrays, self.workload)


class Header(NamedTuple):
    """What a table says of itself, without its rows; `sha256` is that of the rows."""

    target: str
    workload: Workload
    space: SearchSpace
    source: Source
    environment: Environment | None
    sha256: str


def header_file(folder: Path) -> Path:
    """Where a table says what it is; it is touched when the table is asked for."""
    imported = folder / tables.HEADER
    return imported if imported.is_file() else folder / profiling.TABLE


def is_table(folder: Path) -> bool:
    return header_file(folder).is_file()


def read_header(folder: Path) -> Header:
    """The header of a measured or imported table.

    Raises:
        IntegrityError: it is damaged.
    """
    if (folder / tables.HEADER).is_file():
        imported = tables.read_header(folder)
        sha256 = _sha256_of_rows(folder / tables.ROWS)
        return Header(imported.target, imported.workload, imported.space, "imported", None, sha256)
    info = read_record(folder / profiling.TABLE, TableInfo)
    journal = folder / profiling.JOURNAL
    sha256 = _sha256_of_rows(journal)
    return Header(info.target, info.workload, info.space, info.environment.source, info.environment, sha256)


def _sha256_of_rows(journal: Path) -> str:
    return sha256_file(journal) if journal.is_file() else ""


def read_latencies(folder: Path) -> Latencies:
    """All latencies of a measured or imported table.

    Raises:
        UsageError: there is no table.
        IntegrityError: it is damaged.
    """
    if (folder / tables.HEADER).is_file():
        imported, read = tables.read_imported(folder)
        ids = tuple(tables.row_id(imported.space, row) for row in read)
        arrays = tables.to_axis_arrays(imported.space, read)
        latency_s = np.array([row.latency_s for row in read])
    else:
        info, rows = profiling.read_table(folder)
        timed = [(row.architecture, row.outcome) for row in rows if isinstance(row.outcome, Timed)]
        anchor = profiling.anchor_s(outcome for _, outcome in timed)
        ids = tuple(architecture.id for architecture, _ in timed)
        arrays = to_arrays(info.space, [architecture for architecture, _ in timed])
        latency_s = np.array([profiling.latency(outcome, anchor).median_s for _, outcome in timed])
    header = read_header(folder)
    return Latencies(
        folder,
        header.target,
        header.workload,
        header.space,
        header.source,
        header.environment,
        ids,
        arrays,
        latency_s,
        header.sha256,
    )
