"""Labelled texts and pairs of texts: .tsv, .csv and .jsonl files, their columns found by name."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.errors import UsageError
from toolchain.text.corpus import Corpus, check_size, check_values, collapse, index_labels, shortened
from toolchain.text.opening import Opened, file_digests, open_text, shown
from toolchain.text.reading import title_of

TEXT_COLUMNS = ("sentence", "text", "review", "content", "comment", "message", "utterance", "tweet", "body", "document")
PAIR_COLUMNS = (
    ("premise", "hypothesis"),
    ("question", "sentence"),
    *((f"{name}{one}", f"{name}{two}") for name in (*TEXT_COLUMNS, "question") for one, two in ("12", "ab")),
    *((f"{name}_{one}", f"{name}_{two}") for name in (*TEXT_COLUMNS, "question") for one, two in ("12", "ab")),
)
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "rating")
VALUE_COLUMNS = ("label", "score", "value", "target", "rating", "similarity")
LARGEST_VALUE = 3.4e38
"""The largest number a float32 holds, and a little less."""
_FORMATS = (".tsv", ".csv", ".jsonl")
_COLUMN_HINT = "name the columns with --text-column and --label-column"
_PAIR_HINT = "name the columns with --text-column, --second-column and --label-column"


class Row(NamedTuple):
    number: int
    values: dict[str, object]


class Table(NamedTuple):
    """Rows with named columns; `unit` is what a row's number counts: lines of a file, rows of a data set."""

    where: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    unit: str = "line"


class Columns(NamedTuple):
    """Which column holds what; `second` where the items are pairs."""

    text: str
    second: str | None
    label: str


class Items(NamedTuple):
    """What the rows of some tables held; `dropped` counts the rows that lack a part."""

    texts: list[str]
    seconds: list[str] | None
    labels: list[str]
    values: list[float]
    dropped: int = 0


def read_labelled(
    paths: Sequence[Path],
    text_column: str | None = None,
    label_column: str | None = None,
    second_column: str | None = None,
    *,
    numeric: bool = False,
) -> Corpus:
    """Texts or pairs of texts with their labels from tables with a header (.tsv .csv .jsonl, each also .gz).

    tsv is GLUE's: a tab between fields, quotes are text. csv is quoted as in RFC 4180. jsonl holds one object per line.
    The columns are those named, else the two of PAIR_COLUMNS or the one of TEXT_COLUMNS, and the one of LABEL_COLUMNS,
    that are there (in any case). `text_column` without `second_column` reads single texts. With `numeric` the label is
    a number to predict (`Corpus.values`, found as one of VALUE_COLUMNS), else labels are told apart by spelling.
    Rows that lack a text or a label are dropped and counted in a note.

    Raises:
        UsageError: a file cannot be read (see `open_text`) or parsed (the message names the line), its columns are
            ambiguous or missing, a value is no finite number, some files hold pairs and some single texts, fewer than 2
            labels or values or more than MAXIMUM_LABELS labels, fewer than MINIMUM_ITEMS items.
    """
    if not paths:
        raise UsageError("no labelled text was given", hint="give a .tsv, .csv or .jsonl file with --data")
    notes: list[str] = []
    opened: list[Opened] = []
    read: list[Items] = []
    for path in paths:
        kind = _kind(path)
        one = open_text(path)
        opened.append(one)
        table = _read_json_lines(one) if kind == ".jsonl" else _read_delimited(one, "\t" if kind == ".tsv" else ",")
        columns = choose_columns(table.where, table.columns, text_column, label_column, second_column, numeric=numeric)
        read.append(gather_items(table, columns, numeric=numeric))
        notes += dropped_note(shown(Path(path.name)), read[-1])
    where = shown(paths[0]) if len(paths) == 1 else f"the data of {len(paths)} files"
    files = file_digests(opened)
    return labelled_corpus(where, _joined(where, read), title_of(files), files, tuple(notes), numeric=numeric)


# -- items -------------------------------------------------------------------------------------------------------------


def gather_items(table: Table, columns: Columns, *, numeric: bool) -> Items:
    """The rows of a table that lack nothing.

    Raises:
        UsageError: a text is no text, a label neither text nor number, or (`numeric`) a value no finite number; the
            message names the row and the column.
    """
    items = Items([], None if columns.second is None else [], [], [])
    dropped = 0
    for row in table.rows:
        text = _value(table, row, columns.text, is_text=True)
        second = "" if columns.second is None else _value(table, row, columns.second, is_text=True)
        label = _value(table, row, columns.label, is_text=False)
        if not (text and label and (second or columns.second is None)):
            dropped += 1
            continue
        items.texts.append(text)
        if items.seconds is not None:
            items.seconds.append(second)
        if numeric:
            items.values.append(_number(table, row, columns.label, label))
        else:
            items.labels.append(label)
    return items._replace(dropped=dropped)


def dropped_note(name: str, items: Items) -> list[str]:
    """A sentence on the rows that were left out, if any were."""
    if not items.dropped:
        return []
    rows = "1 row" if items.dropped == 1 else f"{items.dropped} rows"
    return [f"{name}: {rows} without {'text' if items.seconds is None else 'both texts'} or label left out"]


def labelled_corpus(
    where: str,
    items: Items,
    title: str,
    files: dict[str, str],
    notes: tuple[str, ...],
    *,
    numeric: bool,
    order: Sequence[str] | None = None,
) -> Corpus:
    """A corpus of these items; `order` is that of the label names, where the data have one of their own.

    Raises:
        UsageError: too few items, or labels or values that cannot be learned.
    """
    parts = "text and label" if items.seconds is None else "both texts and label"
    rows = "row" if len(items.texts) == 1 else "rows"
    check_size(len(items.texts), where, f"{rows} with {parts}", "give more labelled rows")
    corpus = Corpus(tuple(items.texts), None, (), None, title, files, notes)
    if items.seconds is not None:
        corpus = corpus._replace(seconds=tuple(items.seconds))
    if numeric:
        check_values(items.values, where)
        return corpus._replace(values=tuple(items.values))
    labels, names = index_labels(items.labels, where, order)
    return corpus._replace(labels=labels, label_names=names)


def _joined(where: str, read: Sequence[Items]) -> Items:
    if len({items.seconds is None for items in read}) > 1:
        raise UsageError(f"{where}: some hold pairs of texts and some single texts", hint=_PAIR_HINT)
    chain = itertools.chain.from_iterable
    return Items(
        list(chain(items.texts for items in read)),
        None if read[0].seconds is None else list(chain(items.seconds or () for items in read)),
        list(chain(items.labels for items in read)),
        list(chain(items.values for items in read)),
    )


# -- columns -----------------------------------------------------------------------------------------------------------


def choose_columns(
    where: str,
    columns: Sequence[str],
    text: str | None,
    label: str | None,
    second: str | None,
    *,
    numeric: bool,
) -> Columns:
    """Which of `columns` hold the text or the pair, and the label; a name given must be there, in any case.

    Raises:
        UsageError: one is missing or ambiguous, or one column would be two things.
    """
    label_names = VALUE_COLUMNS if numeric else LABEL_COLUMNS
    chosen = Columns(*_text_columns(where, columns, text, second), _find(where, columns, label, label_names, "label"))
    roles = [(role, column) for role, column in chosen._asdict().items() if column is not None]
    for (role, column), (other, same) in itertools.combinations(roles, 2):
        if column == same:
            hint = _COLUMN_HINT if chosen.second is None else _PAIR_HINT
            raise UsageError(f"{where}: {role} and {other} are both column {column!r}", hint=hint)
    return chosen


def _text_columns(where: str, columns: Sequence[str], text: str | None, second: str | None) -> tuple[str, str | None]:
    """The columns of the first text and, of pairs, of the second."""
    pairs = _known_pairs(columns)
    if text is None and second is None and pairs:
        others = set(_matching(columns, TEXT_COLUMNS)).difference(*pairs)
        if len(pairs) > 1 or others:
            raise UsageError(
                f"{where}: more than one column could be a text of a pair", why=_seen(columns), hint=_PAIR_HINT
            )
        return pairs[0]
    found = None if second is None else _find(where, columns, second, (), "second")
    if text is None and found is not None:
        partners = {one for pair in pairs if found in pair for one in pair} - {found}
        if len(partners) == 1:
            return partners.pop(), found
        columns = [column for column in columns if column != found]
    return _find(where, columns, text, TEXT_COLUMNS, "text"), found


def _find(where: str, columns: Sequence[str], asked: str | None, known: Sequence[str], role: str) -> str:
    if asked is not None:
        found = [column for column in columns if column == asked] or _matching(columns, (asked,))
        if len(found) == 1:
            return found[0]
        problem = "has no column" if not found else "has more than one column"
        raise UsageError(f"{where} {problem} {asked!r}", why=_seen(columns), hint=f"give one with --{role}-column")
    found = _matching(columns, known)
    if len(found) == 1:
        return found[0]
    problem = f"more than one column could be the {role}" if found else f"no column is known to be the {role}"
    raise UsageError(f"{where}: {problem}", why=_seen(columns), hint=f"{_COLUMN_HINT}; the file needs a header line")


def _known_pairs(columns: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for names in PAIR_COLUMNS:
        first, second = (_matching(columns, (name,)) for name in names)
        pairs += [(one, two) for one in first for two in second]
    return pairs


def _matching(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns with one of these names, in any case."""
    folded = {name.casefold().strip() for name in names}
    return [column for column in columns if column.casefold().strip() in folded]


def _seen(columns: Sequence[str]) -> str:
    return (
        "its columns: "
        + ", ".join(repr(shortened(column)) for column in columns[:20])
        + (", ..." if len(columns) > 20 else "")
    )


def _value(table: Table, row: Row, column: str, *, is_text: bool) -> str:
    value = row.values.get(column)
    if isinstance(value, str):
        return collapse(value)
    if value is None:
        return ""
    if not is_text and isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    wanted = "text" if is_text else "text or a number"
    raise UsageError(
        f"{table.where}, {table.unit} {row.number}: column {column!r} holds a {type(value).__name__}",
        why=f"{wanted} is wanted",
        hint=_COLUMN_HINT,
    )


def _number(table: Table, row: Row, column: str, text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)  # to Python 1_000 is a number
    except ValueError:
        value = math.nan
    if abs(value) <= LARGEST_VALUE:
        return value
    raise UsageError(
        f"{table.where}, {table.unit} {row.number}: column {column!r} holds {shortened(text)!r}",
        why="a finite number is wanted",
        hint="--label-column names the column of numbers; labels that are names suit --task classify",
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


def _read_delimited(opened: Opened, delimiter: str) -> Table:
    rows = _split_rows(opened, delimiter)
    header = next(rows, None)
    if header is None:
        raise UsageError(f"{shown(opened.path)} has no header line", hint=_COLUMN_HINT)
    columns = tuple(header[1])
    return Table(shown(opened.path), columns, _named_rows(opened, columns, rows))


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


def _named_rows(opened: Opened, columns: tuple[str, ...], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for line, fields in rows:
        if len(fields) != len(columns):
            raise UsageError(
                f"{shown(opened.path)}, line {line}: {len(fields)} columns where the header has {len(columns)}",
                hint="is a tab or a comma part of the text? In .csv, put such text in quotes",
            )
        yield Row(line, dict(zip(columns, fields, strict=True)))


def _read_json_lines(opened: Opened) -> Table:
    rows = _decode_lines(opened)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{shown(opened.path)} has no objects", hint="one JSON object per line is wanted")
    return Table(shown(opened.path), tuple(first.values), itertools.chain([first], rows))


def _decode_lines(opened: Opened) -> Iterator[Row]:
    for line, text in enumerate(opened.text.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            yield Row(line, msgspec.json.decode(text, type=dict[str, object]))
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise UsageError(
                f"{shown(opened.path)}, line {line}: not a JSON object",
                why=shortened(str(error), 120),
                hint='one object per line is wanted, such as {"text": "...", "label": "..."}',
            ) from error
