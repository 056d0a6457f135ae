"""A latency table as a file for others: CSV, JSON lines or Parquet, as `read_file` reads them back."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from toolchain.errors import UsageError
from toolchain.files import replacing, write_text
from toolchain.tables.opening import no_pyarrow

Cells = Sequence[float | int | str | None]


def write_table(path: Path, header: Mapping[str, str], columns: Mapping[str, Cells]) -> None:
    """Write `columns`, all of one length, to a .csv, .jsonl or .parquet file, whole or not at all.

    An axis with a value per layer is as many columns, `name_1` and on; None is a layer that is not there. What all rows
    share, the `header`, stands in CSV and JSON lines as columns that say the same in each row, and in Parquet in the
    schema's metadata.

    Raises:
        UsageError: unknown extension; no pyarrow for Parquet; the place cannot be written to.
    """
    if len({len(cells) for cells in columns.values()}) > 1 or header.keys() & columns.keys():
        raise ValueError("columns must have one length, and names of their own")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        _write_parquet(path, header, columns)
        return
    names = [*columns, *header]
    rows = [[*cells, *header.values()] for cells in zip(*columns.values(), strict=True)]
    if suffix == ".csv":
        stream = io.StringIO(newline="")
        csv.writer(stream, lineterminator="\n").writerows([names, *rows])
        write_text(path, stream.getvalue())
    elif suffix == ".jsonl":
        lines = [msgspec.json.encode(dict(zip(names, cells, strict=True))).decode() for cells in rows]
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        raise UsageError(f"{path}: unknown kind of table", hint="known: .csv, .jsonl, .parquet")


def _write_parquet(path: Path, header: Mapping[str, str], columns: Mapping[str, Cells]) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional package
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as fault:
        raise no_pyarrow() from fault
    table = pa.table({name: list(cells) for name, cells in columns.items()}).replace_schema_metadata(dict(header))
    with replacing(path) as part:
        parquet.write_table(table, part)
