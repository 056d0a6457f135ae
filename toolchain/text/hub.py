"""Labelled data by name, through the `datasets` library: of the Hugging Face hub, of its cache, or of a folder."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.text.corpus import MINIMUM_ITEMS, Corpus, collapse, shortened
from toolchain.text.labelled import (
    Columns,
    Items,
    Row,
    Table,
    choose_columns,
    dropped_note,
    gather_items,
    labelled_corpus,
)
from toolchain.text.opening import shown

PREFIX = "hf:"
OLDEST_LIBRARY = 4
"""Major version of `datasets`: older ones would ask the user whether to run the code that comes with a data set."""
_HELD_OUT = ("validation", "validation_matched", "dev", "test")
_MOVED = {"glue": "nyu-mll/glue"}
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STAGE = "reading data"
_ROWS = 1000


class _Place(NamedTuple):
    """What `load_dataset` is asked for."""

    path: str
    configuration: str | None


class _Read(NamedTuple):
    """One split, read; `order` is that of its label names where they have one."""

    items: Items
    order: tuple[str, ...] | None
    columns: Columns


def read_hub(
    name: str,
    text_column: str | None = None,
    label_column: str | None = None,
    second_column: str | None = None,
    *,
    numeric: bool = False,
    listener: ProgressListener = silent,
) -> tuple[Corpus, Corpus | None]:
    """The train split of a data set and, held out, its validation split, or else its test split if that has labels.

    `hf:imdb`, `hf:glue/mrpc` (a name and its configuration), `hf:owner/name`, `hf:owner/name/configuration`, or
    `hf:/path/to/folder` of csv, jsonl or parquet files. Columns are found as by `read_labelled`; class numbers become
    their names, in the data set's order. A split with too few labelled rows to test with is left aside with a note.
    Code that comes with a data set is never run.

    Raises:
        UsageError: `datasets` is not installed or too old, there is no such data set or it cannot be fetched, it has no
            train split, or what `read_labelled` refuses.
    """
    listener(Progress(_STAGE, 0, 1, name))
    library = _import_datasets()
    places, title = _places(name)
    splits = _load(library, places, title)
    train = _train_split(splits, title)
    read = _read_split(library, splits[train], f"{title}, {train}", (text_column, label_column, second_column), numeric)
    held_out, notes = None, dropped_note(f"{title}, {train}", read.items)
    for split in (split for split in _HELD_OUT if split in splits and split != train):
        where = f"{title}, {split}"
        other = _read_again(library, splits[split], where, read.columns, numeric)
        if len(other.items.texts) >= MINIMUM_ITEMS:
            held_out = _corpus(where, other, dropped_note(where, other.items), numeric)
            break
        notes.append(f"{where}: left aside, {len(other.items.texts)} of its rows have text and label")
    corpus = _corpus(f"{title}, {train}", read, notes, numeric)
    listener(Progress(_STAGE, 1, 1, name))
    return corpus, held_out


def _import_datasets() -> Any:
    hint = "pip install 'mostool[hf]'"
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise UsageError("data by name need the datasets library", why=str(error), hint=hint) from error
    version = str(library.__version__)
    if int(version.split(".", maxsplit=1)[0]) < OLDEST_LIBRARY:
        raise UsageError(f"datasets {version} is too old", why=f"{OLDEST_LIBRARY}.0 or newer is needed", hint=hint)
    library.disable_progress_bars()
    return library


# -- finding -----------------------------------------------------------------------------------------------------------


def _places(name: str) -> tuple[list[_Place], str]:
    """Where to look, first choice first, and what to call it: of a folder the last name only."""
    plain = name.removeprefix(PREFIX)
    try:
        folder = Path(plain).expanduser()
        is_folder = bool(plain) and folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a NUL
        is_folder = False
    if is_folder:
        real = folder.resolve()
        return [_Place(str(real), None)], f"{PREFIX}{shown(Path(real.name))}"
    if plain.startswith(("/", ".", "~")):
        raise UsageError(f"there is no folder {shortened(plain, 200)!r}", hint="check the path after hf:")
    parts = plain.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"{shortened(name, 200)!r} is not the name of a data set",
            hint="hf:imdb, hf:glue/mrpc, hf:owner/name and hf:/path/to/folder are",
        )
    title = f"{PREFIX}{plain}"
    if len(parts) == 1:
        return [_Place(plain, None)], title
    if len(parts) == 3:
        return [_Place("/".join(parts[:2]), parts[2])], title
    if parts[0] in _MOVED:
        return [_Place(_MOVED[parts[0]], parts[1])], title
    return [_Place(plain, None), _Place(parts[0], parts[1])], title


def _load(library: Any, places: Sequence[_Place], title: str) -> dict[str, Any]:
    missing: Exception | None = None
    formats = getattr(library.packaged_modules, "_PACKAGED_DATASETS_MODULES", {})
    for place in places:
        if place.path in formats:  # `load_dataset` would read whatever lies in the working directory
            raise UsageError(f"{title} is a format of files", hint="give the folder they are in: hf:/path/to/folder")
        try:
            return dict(library.load_dataset(place.path, place.configuration))
        except (library.exceptions.DatasetNotFoundError, ConnectionError) as error:
            missing = missing or error
        except Exception as error:  # whatever its readers raise
            cause = "" if error.__cause__ is None else f": {error.__cause__}"
            raise UsageError(
                f"{title} cannot be read",
                why=shortened(collapse(f"{error}{cause}"), 300) or type(error).__name__,
                hint="name its configuration, if it has several, as in hf:glue/mrpc; or get its files and give those",
            ) from error
    if isinstance(missing, ConnectionError):
        raise UsageError(
            f"{title} cannot be fetched",
            why=shortened(collapse(str(missing)), 300),
            hint="is there a network, and HF_HUB_OFFLINE not set? Files fetched elsewhere can be given as hf:/folder",
        ) from missing
    raise UsageError(
        f"there is no data set {title}",
        why=shortened(collapse(str(missing)), 300),
        hint="https://huggingface.co/datasets lists the public ones; for others log in first: hf auth login",
    ) from missing


def _train_split(splits: dict[str, Any], title: str) -> str:
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else next(iter(splits))
    raise UsageError(
        f"{title} has no train split", why=f"its splits: {', '.join(splits) or 'none'}", hint="give its files instead"
    )


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_split(
    library: Any, split: Any, where: str, asked: tuple[str | None, str | None, str | None], numeric: bool
) -> _Read:
    text, label, second = asked
    columns = choose_columns(where, tuple(split.column_names), text, label, second, numeric=numeric)
    return _read_again(library, split, where, columns, numeric)


def _read_again(library: Any, split: Any, where: str, columns: Columns, numeric: bool) -> _Read:
    """With the columns of the train split; a split that lacks one has no items."""
    wanted = [column for column in columns if column is not None]
    if not set(wanted) <= set(split.column_names):
        return _Read(Items([], None if columns.second is None else [], [], []), None, columns)
    feature = split.features[columns.label]
    names = tuple(collapse(name) for name in feature.names) if isinstance(feature, library.ClassLabel) else None
    table = Table(where, tuple(wanted), _rows(split.select_columns(wanted), columns.label, names), "row")
    return _Read(gather_items(table, columns, numeric=numeric), names, columns)


def _rows(split: Any, label: str, names: tuple[str, ...] | None) -> Iterator[Row]:
    number = 0
    for batch in split.iter(batch_size=_ROWS):
        for values in zip(*batch.values(), strict=True):
            number += 1
            row: dict[str, object] = dict(zip(batch, values, strict=True))
            if names is not None:
                row[label] = _class_name(row[label], names)
            yield Row(number, row)


def _class_name(value: object, names: tuple[str, ...]) -> str | None:
    """None for what has no class: GLUE's test splits say -1."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _corpus(where: str, read: _Read, notes: Sequence[str], numeric: bool) -> Corpus:
    items = read.items
    digest = sha256_bytes(msgspec.json.encode([items.texts, items.seconds, items.labels, items.values]))
    return labelled_corpus(where, items, where, {where: digest}, tuple(notes), numeric=numeric, order=read.order)
