"""A corpus: texts, what they are labelled with, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from toolchain.errors import UsageError

MINIMUM_ITEMS = 50
MAXIMUM_LABELS = 1000


class Corpus(NamedTuple):
    """Texts to learn from.

    Attributes:
        texts: one entry per item, whitespace collapsed, never blank.
        labels: per item its index into `label_names`; None for text without labels.
        label_names: every label that occurs, in a fixed order.
        groups: per item the number of what it was taken from (its docstring), so that a split can keep neighbours
            together; None where items stand alone.
        title: what it is, in a few words.
        files: sha256 of each file read, by base name; a folder or a package of many files has one entry.
        notes: sentences on what was left out and why.
        held_out_share: the part of the items that validation and test each take.
        held_out_limit: the most items that validation and test each take; None for no limit.
        seconds: per item the second text of its pair, as `texts` holds the first; None where items are single texts.
        values: per item the number to predict, finite in float32, in place of a label; None where there is none.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    label_names: tuple[str, ...]
    groups: tuple[int, ...] | None
    title: str
    files: dict[str, str]
    notes: tuple[str, ...] = ()
    held_out_share: float = 0.10
    held_out_limit: int | None = 2000
    seconds: tuple[str, ...] | None = None
    values: tuple[float, ...] | None = None

    @property
    def sha256(self) -> str:
        """The digest of everything in it that can change what a model learns: items, labels, values, groups, files."""
        digest = hashlib.sha256()
        fields: tuple[Sequence[object] | None, ...] = (
            self.texts,
            self.labels,
            self.label_names,
            self.groups,
            sorted(self.files.items()),
            (self.held_out_share, self.held_out_limit),
            self.seconds,
            self.values,
        )
        for field in fields:
            digest.update(b"-;" if field is None else f"{len(field)};".encode())
            for entry in field or ():
                data = str(entry).encode()
                digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()


def collapse(text: str) -> str:
    """`text` on one line: every run of white space is one space, none at the ends."""
    return " ".join(text.split())


def same_text_key(text: str) -> str:
    """What two texts share when they are the same to a model that ignores case and spacing."""
    return collapse(text).casefold()


def same_item_keys(corpus: Corpus) -> list[tuple[str, ...]]:
    """Per item what it shares with its equals: the key of its text, or of both texts of its pair."""
    sides = (corpus.texts,) if corpus.seconds is None else (corpus.texts, corpus.seconds)
    return list(zip(*([same_text_key(text) for text in side] for side in sides), strict=True))


def index_labels(
    labels: Sequence[str], where: str, order: Sequence[str] | None = None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The labels as indices, and their names: in the `order` given, else by value (whole numbers) or by spelling.

    Raises:
        UsageError: fewer than 2 labels or more than MAXIMUM_LABELS.
    """
    distinct = set(labels)
    if len(distinct) < 2:
        raise UsageError(
            f"{where} has only one label",
            why=f"every item is labelled {shortened(next(iter(distinct), ''))!r}",
            hint="classification needs at least 2 labels; --label-column names the column that holds them",
        )
    if len(distinct) > MAXIMUM_LABELS:
        raise UsageError(
            f"{where} has {len(distinct)} different labels",
            why=f"at most {MAXIMUM_LABELS} are supported",
            hint="--label-column names the column that holds the labels; is it the right one?",
        )
    names = tuple(sorted(distinct, key=_label_order(distinct) if order is None else order.index))
    index = {name: number for number, name in enumerate(names)}
    return tuple(index[label] for label in labels), names


def check_values(values: Sequence[float], where: str) -> None:
    """Raise UsageError where all numbers to predict are the same one."""
    if len(set(values)) < 2:
        raise UsageError(
            f"{where} has only one value",
            why=f"every item has {values[0]!r}" if values else "",
            hint="regression needs numbers that differ; --label-column names the column that holds them",
        )


def check_size(count: int, where: str, unit: str, hint: str) -> None:
    """Raise UsageError where there are fewer than MINIMUM_ITEMS items to learn from and to test with."""
    if count < MINIMUM_ITEMS:
        raise UsageError(
            f"{where} has too little text", why=f"{count} {unit}, at least {MINIMUM_ITEMS} are needed", hint=hint
        )


def shortened(text: str, limit: int = 40) -> str:
    """`text` cut to `limit` characters, for messages."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class _Order:
    """Sorts whole numbers by value and everything else by spelling."""

    def __init__(self, numeric: bool) -> None:
        self.numeric = numeric

    def __call__(self, name: str) -> tuple[int, str]:
        return (int(name) if self.numeric else 0, name)


def _label_order(names: Iterable[str]) -> _Order:
    return _Order(all(_is_whole_number(name) for name in names))


def _is_whole_number(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18
