"""Latency tables that others have measured: files read into rows, kept in a folder, and written for others to read.

A file is CSV, JSON lines or Parquet, a row per network; published ones (HAT's) are known by their header. An imported
table is a folder with `imported.json` (what its rows share) and `rows.jsonl` (the rows, a journal).
"""

from toolchain.tables.folder import (
    HEADER,
    ROWS,
    Merged,
    read_header,
    read_imported,
    row_id,
    to_axis_arrays,
    write_imported,
)
from toolchain.tables.reading import Form, ReadTable, read_file
from toolchain.tables.units import check_mixed, check_unit
from toolchain.tables.writing import write_table

__all__ = [
    "HEADER",
    "ROWS",
    "Form",
    "Merged",
    "ReadTable",
    "check_mixed",
    "check_unit",
    "read_file",
    "read_header",
    "read_imported",
    "row_id",
    "to_axis_arrays",
    "write_imported",
    "write_table",
]
