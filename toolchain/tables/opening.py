"""A table file as it is written: names of columns and rows of cells, whatever the form. Nothing is understood yet."""

from __future__ import annotations

import collections
import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from toolchain.errors import UsageError

LARGEST_BYTES = 64 << 20
KNOWN = ".csv, .jsonl, .ndjson (each also as .gz) and .parquet"

_MOST_CELLS = LARGEST_BYTES // 8
_NESTED = ("architecture", "axes")


class Sheet(NamedTuple):
    """The cells of a file. `typed`: numbers are numbers and lists lists; else (CSV) all is text.

    `header` holds what a Parquet file says of itself beside its columns.
    """

    path: Path
    form: Literal["csv", "jsonl", "parquet"]
    names: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    header: Mapping[str, str]

    @property
    def typed(self) -> bool:
        return self.form != "csv"

    def fault(self, what: str, hint: str, *, row: int | None = None, why: str = "") -> UsageError:
        """The error for something wrong in this file; `row` counts rows of data from 0, people are told it from 1."""
        where = f"{self.path}" if row is None else f"{self.path}: row {row + 1}"
        return UsageError(f"{where}: {printable(what)}", why=printable(why), hint=hint)

    def number(self, row: int, column: int) -> float | None:
        """The finite number in a cell, None where it is empty.

        Raises:
            UsageError: it holds something else.
        """
        return self.as_number(self.rows[row][column], row, self.names[column])

    def as_number(self, cell: object, row: int, name: str, *, spelt: bool = False) -> float | None:
        """What `number` gives for this cell, or for an entry of a list in it; `spelt`: text may spell it."""
        number = cell
        if isinstance(cell, str) and (spelt or not self.typed):
            if not cell:
                return None
            number = _parsed(cell)
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self.fault(f"{name} is {_shown(cell)}, not a number", "numbers are written like 12.5", row=row)
        try:
            value = float(number)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.fault(f"{name} is {_shown(cell)}, no finite number", "leave out rows that failed", row=row)
        return value


def printable(text: str) -> str:
    """The text with what a terminal would act on, or cannot show, spelt out: files are other people's."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def no_pyarrow() -> UsageError:
    return UsageError("Parquet files need pyarrow, which is not installed", hint="pip install 'mostool[tables]'")


def _parsed(text: str) -> object:
    """The number that a CSV cell spells, else the text: not Python's own 1_000, nor other scripts' digits."""
    if "_" in text or not text.isascii():
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _shown(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_sheet(path: Path) -> Sheet:
    """The cells of a CSV, JSON lines or Parquet file; the first two may be gzipped.

    In JSON lines the axes may stand in an `axes` object, or in an `architecture` that has one, as `mostool sample`
    prints them.

    Raises:
        UsageError: unknown extension; no such file; more than 64 MB, packed or unpacked; not UTF-8, not gzip, not the
            form its name says; ragged rows; a name of a column that stands there twice; fewer than two rows.
    """
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    packed = name.endswith(".gz")
    if suffix not in {".csv", ".jsonl", ".ndjson", ".parquet"} or (packed and suffix == ".parquet"):
        raise UsageError(f"{path}: unknown kind of table", hint=f"known: {KNOWN}")
    data = _content(path, packed=packed)
    if not data.strip():
        raise UsageError(f"{path} is empty", hint="a table has a row of names, and a row for each network")
    if suffix == ".parquet":
        sheet = _read_parquet(path, data)
    else:
        text = _decoded(path, data)
        sheet = _read_csv(path, text) if suffix == ".csv" else _read_jsonl(path, text)
    twice = [one for one, times in collections.Counter(sheet.names).items() if times > 1]
    if twice:
        raise sheet.fault(f"two columns are called {twice[0]!r}", "leave one of them out")
    if not sheet.rows:
        raise sheet.fault("there is no row beside the header", "a table has a row for each network")
    if len(sheet.rows) == 1:
        raise sheet.fault("there is a single row", "a predictor needs tens of measured networks")
    return sheet


def _content(path: Path, *, packed: bool) -> bytes:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="check the path")
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
            if packed:
                with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
                    data = unpacked.read(LARGEST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise UsageError(f"{path} is no whole gzip file", why=str(fault), hint="get the file again") from fault
    except OSError as fault:
        raise UsageError(
            f"cannot read {path}", why=fault.strerror or str(fault), hint="check its permissions"
        ) from fault
    if len(data) > LARGEST_BYTES:
        raise UsageError(f"{path} is too large for a latency table", hint=f"at most {LARGEST_BYTES >> 20} MB are read")
    return data


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        hint = "it looks gzipped: name it .gz" if data[:2] == b"\x1f\x8b" else "save it as UTF-8"
        raise UsageError(f"{path} is not UTF-8 text", why=f"byte {fault.start}", hint=hint) from fault


# -- CSV -------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, text: str) -> Sheet:
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except csv.Error as fault:
        raise UsageError(f"{path} is not CSV", why=str(fault), hint="parts are commas, quotes are doubled") from fault
    names, *rows = [line for line in lines if line] or [[]]
    sheet = Sheet(path, "csv", tuple(names), rows, {})
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise sheet.fault("its columns are not parted by commas", "save it with commas between the columns")
    for row, cells in enumerate(rows):
        if len(cells) != len(names):
            raise sheet.fault(
                f"{len(cells)} cells under {len(names)} names", "every row has a cell for each column", row=row
            )
    return sheet


# -- JSON lines ------------------------------------------------------------------------------------------------------


class _TwiceError(ValueError):
    """A key that an object has twice."""


def _read_jsonl(path: Path, text: str) -> Sheet:
    names: tuple[str, ...] = ()
    rows: list[list[object]] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        cells = _flat(path, _parse(path, line, len(rows)), len(rows))
        if not rows:
            names = tuple(cells)
        if cells.keys() != set(names):
            odd = sorted(cells.keys() ^ set(names))
            where = f"{path}: row {len(rows) + 1}"
            raise UsageError(f"{where}: {odd[0]!r} is not in every row", hint="every row has the same fields")
        rows.append([cells[name] for name in names])
    return Sheet(path, "jsonl", names, rows, {})


def _parse(path: Path, line: str, row: int) -> dict[str, object]:
    where = f"{path}: row {row + 1}"
    try:
        found = json.loads(line, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except _TwiceError as fault:
        raise UsageError(f"{where}: {fault} is there twice", hint="leave one of them out") from fault
    except (ValueError, RecursionError) as fault:
        raise UsageError(f"{where} is not JSON", why=str(fault), hint="JSON lines hold one object a line") from fault
    if not isinstance(found, dict) or not found:
        hint = 'a row is like {"depth": 2, "latency_s": 0.01}'
        raise UsageError(f"{where} is no JSON object that tells anything", hint=hint)
    return found


def _once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _TwiceError(repr(name))
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _flat(path: Path, cells: dict[str, object], row: int) -> dict[str, object]:
    """The fields of a row with those of its `architecture` and `axes` objects among them."""
    for nested in _NESTED:
        inner = cells.get(nested)
        if not isinstance(inner, dict):
            continue
        outer = {name: value for name, value in cells.items() if name != nested}
        for name in inner:
            if name in outer:
                raise UsageError(
                    f"{path}: row {row + 1}: {name!r} is there twice, once in {nested!r}", hint="leave one of them out"
                )
        cells = outer | inner
    return cells


# -- Parquet ---------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, data: bytes) -> Sheet:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional package
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as fault:
        raise no_pyarrow() from fault
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows * max(1, file.metadata.num_columns) > _MOST_CELLS:
            raise UsageError(f"{path} is too large for a latency table", hint=f"at most {_MOST_CELLS} cells are read")
        table = file.read()
        columns = [column.to_pylist() for column in table.columns]
        names = tuple(str(name).strip() for name in table.column_names)
        header = {
            name.decode(): value.decode()
            for name, value in (table.schema.metadata or {}).items()
            if name not in {b"pandas", b"ARROW:schema"}
        }
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as fault:
        why = (str(fault).splitlines() or [""])[0]
        raise UsageError(f"{path} is no Parquet file that can be read", why=why, hint="write it again") from fault
    return Sheet(path, "parquet", names, list(zip(*columns, strict=True)), header)
