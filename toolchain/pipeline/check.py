"""check: what is wrong with the rows of a latency table, found by what follows what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import predict as prediction
from toolchain import tables
from toolchain.errors import UsageError
from toolchain.pipeline.latencies import is_table, read_latencies
from toolchain.pipeline.predict import as_rows
from toolchain.records import Finding, Unit, Workload
from toolchain.space import SearchSpace
from toolchain.supernet.families import declaration


class Checked(NamedTuple):
    """How many rows a table has, how many a model leaves out or corrects, and why."""

    rows: int
    left_out: int
    corrected: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def check_table(
    path: Path,
    space: SearchSpace | None = None,
    *,
    unit: Unit | None = None,
    columns: Mapping[str, str] | None = None,
    length: int | None = None,
) -> Checked:
    """Look through a table's folder, or a file of one whose `space` is given.

    Raises:
        UsageError: there is no table, or its rows are too few or no latencies.
    """
    notes: list[str] = []
    if path.is_dir():
        if not is_table(path):
            raise UsageError(f"{path} holds no latency table", hint="profiles/DEVICE/TABLE does; or give a file")
        rows = as_rows(read_latencies(path))
    else:
        if space is None:
            raise UsageError(f"{path} is a file: of which space?", hint="add --space, or --run")
        read = tables.read_file(path, space, unit=unit, columns=columns or {})
        arrays = tables.to_axis_arrays(space, read.rows)
        features = declaration(space.family).features(space, arrays, Workload(batch=1, sequence_length=length or 32))
        ids = tuple(tables.row_id(space, row) for row in read.rows)
        rows = prediction.Rows.of(ids, features, np.array([row.latency_s for row in read.rows]))
        notes += read.notes
    prediction.check_rows(rows)
    found = prediction.inspect(rows)
    if len(rows.ids) < prediction.FEWEST_ROWS:
        notes.append(
            f"{len(rows.ids)} rows are too few to say anything of their order: it takes {prediction.FEWEST_ROWS}"
        )
    return Checked(
        len(rows.ids),
        int((~found.fitted).sum()),
        int((found.factors[found.fitted] != 1).sum()),
        found.findings,
        tuple(notes),
    )
