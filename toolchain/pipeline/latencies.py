"""The rows of a table, whoever measured them, as what a predictor of one quantity is fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import profiling, tables
from toolchain.arrays import AxisArrays, Floats, to_arrays
from toolchain.errors import UsageError
from toolchain.files import sha256_file
from toolchain.profiling.statistics import SAMPLES_FOR_P90, SAMPLES_FOR_P99
from toolchain.records import MEDIAN, Environment, Latency, Quantity, Source, TableInfo, Timed, Workload, read_record
from toolchain.space import SearchSpace
from toolchain.supernet.families import declaration

_SAMPLES = {90: SAMPLES_FOR_P90, 99: SAMPLES_FOR_P99}


class Latencies(NamedTuple):
    """One value of a quantity per network, in the order they were measured; ids [n], arrays [n], values [n].

    Latencies are in seconds, memory in bytes, energy in joules. Of the table's `rows` these are the ones that have the
    quantity; `samples` are the fewest and the most calls that count of one of them.
    """

    folder: Path
    target: str
    workload: Workload
    space: SearchSpace
    source: Source
    environment: Environment | None
    ids: tuple[str, ...]
    arrays: AxisArrays
    values: Floats
    sha256: str
    quantity: Quantity
    rows: int
    samples: tuple[int, int] | None

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


def read_latencies(folder: Path, quantity: Quantity = MEDIAN) -> Latencies:
    """All values of a quantity that a measured or imported table holds.

    Raises:
        UsageError: there is no table; or it is an imported one, and the quantity not the latency it holds.
        IntegrityError: it is damaged.
    """
    samples: tuple[int, int] | None = None
    if (folder / tables.HEADER).is_file():
        imported, read = tables.read_imported(folder)
        if quantity != MEDIAN:
            raise UsageError(
                f"{imported.target}'s table is imported: it holds one latency for a subnet, and no {quantity.words}",
                hint=f"measure there: mostool profile --device {imported.target}; or hold budgets to the median",
            )
        ids = tuple(tables.row_id(imported.space, row) for row in read)
        arrays = tables.to_axis_arrays(imported.space, read)
        values = np.array([row.latency_s for row in read])
        rows = len(read)
    else:
        info, measurements = profiling.read_table(folder)
        timed = [(row.architecture, row.outcome) for row in measurements if isinstance(row.outcome, Timed)]
        anchor = profiling.anchor_s(outcome for _, outcome in timed)
        figures = [profiling.latency(outcome, anchor) for _, outcome in timed]
        found = [value_of(quantity, one, outcome) for one, (_, outcome) in zip(figures, timed, strict=True)]
        have = [(architecture, value) for (architecture, _), value in zip(timed, found, strict=True) if value]
        ids = tuple(architecture.id for architecture, _ in have)
        arrays = to_arrays(info.space, [architecture for architecture, _ in have])
        values = np.array([value for _, value in have])
        rows, samples = len(timed), (min(one.n for one in figures), max(one.n for one in figures))
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
        values,
        header.sha256,
        quantity,
        rows,
        samples,
    )


def value_of(quantity: Quantity, latency: Latency, outcome: Timed) -> float | None:
    """What was measured of a quantity; None where it was not, or where nothing above zero could be told."""
    energy = outcome.energy.joules_per_call if outcome.energy else None
    found = {
        "latency_s": {50: latency.median_s, 90: latency.p90_s, 99: latency.p99_s}[quantity.percentile],
        "peak_memory_bytes": outcome.model_memory_bytes,
        "energy_j": energy,
    }[quantity.metric]
    return float(found) if found is not None and found > 0 else None


def refuse_few(table: Latencies, least: int) -> None:
    """Say how a quantity can be had that too few rows of a table have.

    A high percentile is had of subnets with many calls: the fast ones, and those that would not settle. Few of the rows
    are therefore no fair sample of the space.

    Raises:
        UsageError: fewer than `least`, or than half of the rows have it.
    """
    quantity, found = table.quantity, len(table.ids)
    if quantity == MEDIAN or table.rows < least or (found >= least and 2 * found >= table.rows):
        return
    device, percentile = table.target, quantity.percentile
    if quantity.metric == "energy_j":
        why = f"{device} has no sensor of it, or its target does not meter: measure.energy_s is 0"
        hint = f"mostool doctor --device {device}; what has a sensor is metered with energy_s = 2 under [measure]"
    elif quantity.metric == "peak_memory_bytes":
        why, hint = f"{device} does not tell what a process takes", "leave the budget on memory out"
    else:
        needed = _SAMPLES[percentile]
        low, high = table.samples or (0, 0)
        why = f"p{percentile} takes {needed} undisturbed calls of a subnet; its rows have {low} to {high}"
        hint = (
            f"give a target calls_per_turn x minimum_rounds well above {needed} under [measure], and an id of its own: "
            "then profile it"
        )
    few = f"only {found} of the {table.rows} rows" if found else "no row"
    what = f"{'an' if quantity.metric == 'energy_j' else 'a'} {quantity.words}"
    raise UsageError(f"{few} of {device}'s table {'have' if found else 'has'} {what}", why=why, hint=hint)
