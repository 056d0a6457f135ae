"""Labelled texts for classification: .tsv, .csv and .jsonl files, their columns found by name."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.errors import UsageError
from toolchain.text.corpus import Corpus, check_size, collapse, index_labels, shortened
from toolchain.text.opening import Opened, file_digests, open_text, shown
from toolchain.text.reading import title_of

TEXT_COLUMNS = ("sentence", "text", "review", "content", "comment", "message", "utterance", "tweet", "body", "document")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "rating")
_FORMATS = (".tsv", ".csv", ".jsonl")
_COLUMN_HINT = "name the columns with --text-column and --label-column"


class _Row(NamedTuple):
    line: int
    values: dict[str, object]


class _Table(NamedTuple):
    columns: tuple[str, ...]
    rows: Iterator[_Row]


class _Chosen(NamedTuple):
    text: str
    label: str


def read_labelled(paths: Sequence[Path], text_column: str | None = None, label_column: str | None = None) -> Corpus:
    """Texts with their labels from tables with a header (.tsv .csv .jsonl, each also .gz).

    tsv is GLUE's: a tab between fields, quotes are text. csv is quoted as in RFC 4180. jsonl holds one object per line.
    The columns are those named, else the one of TEXT_COLUMNS and the one of LABEL_COLUMNS that is there (in any case).
    Rows that lack a text or a label are dropped and counted in a note. Labels are told apart by spelling.

    Raises:
        UsageError: a file cannot be read (see `open_text`) or parsed (the message names the line), its columns are
            ambiguous or missing, fewer than 2 labels or more than MAXIMUM_LABELS, fewer than MINIMUM_ITEMS items.
    """
    if not paths:
        raise UsageError("no labelled text was given", hint="give a .tsv, .csv or .jsonl file with --data")
    texts: list[str] = []
    labels: list[str] = []
    notes: list[str] = []
    opened: list[Opened] = []
    for path in paths:
        kind = _kind(path)
        one = open_text(path)
        opened.append(one)
        table = _read_json_lines(one) if kind == ".jsonl" else _read_delimited(one, "\t" if kind == ".tsv" else ",")
        chosen = _choose_columns(shown(path), table.columns, text_column, label_column)
        dropped = 0
        for row in table.rows:
            text = _value(one, row, chosen.text, is_text=True)
            label = _value(one, row, chosen.label, is_text=False)
            if text and label:
                texts.append(text)
                labels.append(label)
            else:
                dropped += 1
        if dropped:
            rows = "1 row" if dropped == 1 else f"{dropped} rows"
            notes.append(f"{shown(Path(path.name))}: {rows} without text or label left out")
    where = shown(paths[0]) if len(paths) == 1 else f"the data of {len(paths)} files"
    check_size(len(texts), where, "rows with text and label", "give more labelled rows")
    indices, names = index_labels(labels, where)
    files = file_digests(opened)
    return Corpus(tuple(texts), indices, names, None, title_of(files), files, tuple(notes))


# -- columns -----------------------------------------------------------------------------------------------------------


def _choose_columns(where: str, columns: tuple[str, ...], text: str | None, label: str | None) -> _Chosen:
    chosen = _Chosen(
        _find_column(where, columns, text, TEXT_COLUMNS, "text"),
        _find_column(where, columns, label, LABEL_COLUMNS, "label"),
    )
    if chosen.text == chosen.label:
        raise UsageError(f"{where}: text and label are both column {chosen.text!r}", hint=_COLUMN_HINT)
    return chosen


def _find_column(where: str, columns: tuple[str, ...], asked: str | None, known: tuple[str, ...], role: str) -> str:
    seen = ", ".join(repr(shortened(column)) for column in columns[:20]) + (", ..." if len(columns) > 20 else "")
    wanted = known if asked is None else (asked,)
    found = [column for column in columns if column in wanted]
    if not found or asked is None:
        folded = {name.casefold().strip() for name in wanted}
        found = [column for column in columns if column.casefold().strip() in folded]
    paired = asked is None and role == "text" and _has_pairs(columns)
    if len(found) == 1 and not paired:
        return found[0]
    if asked is not None:
        problem = "has no column" if not found else "has more than one column"
        raise UsageError(
            f"{where} {problem} {asked!r}", why=f"its columns: {seen}", hint=f"give one with --{role}-column"
        )
    if paired:
        problem = "it holds pairs of texts, which are not supported yet"
    elif found:
        problem = f"more than one column could be the {role}"
    else:
        problem = f"no column is known to be the {role}"
    raise UsageError(
        f"{where}: {problem}",
        why=f"its columns: {seen}",
        hint=f"{_COLUMN_HINT}; the file needs a header line",
    )


def _has_pairs(columns: tuple[str, ...]) -> bool:
    folded = {column.casefold().strip() for column in columns}
    numbered = ((f"{name}1", f"{name}2") for name in (*TEXT_COLUMNS, "question"))
    return any(folded.issuperset(pair) for pair in (("question", "sentence"), ("premise", "hypothesis"), *numbered))


def _value(opened: Opened, row: _Row, column: str, *, is_text: bool) -> str:
    value = row.values.get(column)
    if isinstance(value, str):
        return collapse(value)
    if value is None:
        return ""
    if not is_text and isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    wanted = "text" if is_text else "text or a number"
    raise UsageError(
        f"{shown(opened.path)}, line {row.line}: column {column!r} holds a {type(value).__name__}",
        why=f"{wanted} is wanted",
        hint=_COLUMN_HINT,
    )


# -- formats -----------------------------------------------------------------------------------------------------------


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        if path.is_dir():
            raise UsageError(
                f"{shown(path)} is a folder, a file is wanted",
                hint="give the .tsv, .csv or .jsonl in it; plain text suits --task mlm",
            )
        raise UsageError(
            f"{shown(path)} is not a table mostool can read",
            why=f"its name ends in none of {' '.join(_FORMATS)} (or these with .gz)",
            hint="save it as .tsv, .csv or .jsonl; plain text has no labels and suits --task mlm",
        )
    return suffixes[-1]


def _read_delimited(opened: Opened, delimiter: str) -> _Table:
    rows = _split_rows(opened, delimiter)
    header = next(rows, None)
    if header is None:
        raise UsageError(f"{shown(opened.path)} has no header line", hint=_COLUMN_HINT)
    columns = tuple(header[1])
    return _Table(columns, _named_rows(opened, columns, rows))


def _split_rows(opened: Opened, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the line each ends on."""
    stream = io.StringIO(opened.text, newline="")
    if delimiter == "\t":
        reader = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise UsageError(
            f"{shown(opened.path)}, line {reader.line_num}: cannot be split into columns",
            why=str(error),
            hint="is a quote left open, or the file of another format than its name says?",
        ) from error


def _named_rows(opened: Opened, columns: tuple[str, ...], rows: Iterator[tuple[int, list[str]]]) -> Iterator[_Row]:
    for line, fields in rows:
        if len(fields) != len(columns):
            raise UsageError(
                f"{shown(opened.path)}, line {line}: {len(fields)} columns where the header has {len(columns)}",
                hint="is a tab or a comma part of the text? In .csv, put such text in quotes",
            )
        yield _Row(line, dict(zip(columns, fields, strict=True)))


def _read_json_lines(opened: Opened) -> _Table:
    rows = _decode_lines(opened)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{shown(opened.path)} has no objects", hint="one JSON object per line is wanted")
    return _Table(tuple(first.values), itertools.chain([first], rows))


def _decode_lines(opened: Opened) -> Iterator[_Row]:
    for line, text in enumerate(opened.text.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            yield _Row(line, msgspec.json.decode(text, type=dict[str, object]))
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise UsageError(
                f"{shown(opened.path)}, line {line}: not a JSON object",
                why=shortened(str(error), 120),
                hint='one object per line is wanted, such as {"text": "...", "label": "..."}',
            ) from error
