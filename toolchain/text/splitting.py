"""Splitting a corpus into train, validation and test so that nothing leaks from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from toolchain.errors import UsageError
from toolchain.text.corpus import Corpus, same_item_keys, shortened

SplitName = Literal["train", "validation", "test"]


class Part(NamedTuple):
    """The items of one split: texts, and what the corpus has beside them: label indices, second texts, values."""

    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    seconds: tuple[str, ...] | None = None
    values: tuple[float, ...] | None = None


class Parts(NamedTuple):
    train: Part
    validation: Part
    test: Part
    notes: tuple[str, ...] = ()

    def named(self) -> tuple[tuple[SplitName, Part], ...]:
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def split_corpus(corpus: Corpus, *, seed: int, by_group: bool = True, held_out: Corpus | None = None) -> Parts:
    """Train, validation and test of a corpus. The same items and seed give the same parts, in whatever order they came.

    Items with the same text (but for case and spacing; of pairs, both texts) stay together, and with `by_group` so do
    items of one group.
    Validation and test take `corpus.held_out_share` of the items each, at most `corpus.held_out_limit`. With
    `held_out`, that corpus is halved into validation and test, and all of `corpus` that is not also in it is train.

    Raises:
        UsageError: a split would be empty, a label does not occur in train, `held_out` has labels of its own, or one of
            the two holds pairs and the other single texts.
    """
    rng = np.random.default_rng(seed)
    notes: tuple[str, ...] = ()
    if held_out is None:
        share, limit = corpus.held_out_share, corpus.held_out_limit
        wanted = max(1, round(share * len(corpus.texts)))
        wanted = wanted if limit is None else min(wanted, limit)
        test, validation, train = deal(_shuffled_units(corpus, by_group, rng), (wanted, wanted))
        parts = Parts(_part(corpus, train), _part(corpus, validation), _part(corpus, test))
    else:
        _check_alike(corpus, held_out)
        other = _with_labels_of(corpus, held_out)
        test, rest, validation = deal(_shuffled_units(other, by_group, rng), (len(other.texts) // 2, 0))
        seen, keys = set(same_item_keys(other)), same_item_keys(corpus)
        everything = [item for unit in _shuffled_units(corpus, by_group, rng) for item in unit]
        train = [item for item in everything if keys[item] not in seen]
        parts = Parts(_part(corpus, train), _part(other, validation + rest), _part(other, test))
        if len(train) < len(everything):
            notes = (f"{len(everything) - len(train)} training items that are also held out were left out of training",)
    for name, part in parts.named():
        if not part.texts:
            raise UsageError(
                f"nothing is left for the {name} split of {corpus.title}",
                why="items with the same text, or from the same source, stay in one split",
                hint="give more text, with fewer repetitions",
            )
    _check_labels(corpus, parts.train)
    return parts._replace(notes=notes)


def _shuffled_units(corpus: Corpus, by_group: bool, rng: np.random.Generator) -> list[list[int]]:
    """Items that must stay together, in a random order that depends on their content alone."""
    keys = same_item_keys(corpus)
    targets: Sequence[float] = corpus.labels or corpus.values or [0] * len(keys)
    seconds: Sequence[str] = corpus.seconds or [""] * len(keys)
    order = sorted(range(len(keys)), key=lambda item: (keys[item], corpus.texts[item], seconds[item], targets[item]))
    ties: list[Sequence[object]] = [keys]
    if by_group and corpus.groups is not None:
        ties.append(corpus.groups)
    roots = connected(len(keys), ties)
    units: dict[int, list[int]] = {}
    for item in order:
        units.setdefault(roots[item], []).append(item)
    ordered = list(units.values())
    return [ordered[number] for number in rng.permutation(len(ordered))]


def connected(count: int, ties: Iterable[Sequence[object]]) -> list[int]:
    """For each item the representative of all it is tied to, directly or through others (disjoint sets)."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for tie in ties:
        first: dict[object, int] = {}
        for item, key in enumerate(tie):
            parent[root(item)] = root(first.setdefault(key, item))
    return [root(item) for item in range(count)]


def deal(units: Iterable[list[int]], wanted: tuple[int, int]) -> tuple[list[int], list[int], list[int]]:
    """Units in turn to the first of two piles that has room for the whole unit, else to the third."""
    piles: tuple[list[int], list[int], list[int]] = ([], [], [])
    for unit in units:
        room = (wanted[0] - len(piles[0]), wanted[1] - len(piles[1]))
        pile = piles[0] if len(unit) <= room[0] else piles[1] if len(unit) <= room[1] else piles[2]
        pile.extend(unit)
    return piles


def _part(corpus: Corpus, items: Sequence[int]) -> Part:
    return Part(
        texts=tuple(corpus.texts[item] for item in items),
        labels=None if corpus.labels is None else tuple(corpus.labels[item] for item in items),
        seconds=None if corpus.seconds is None else tuple(corpus.seconds[item] for item in items),
        values=None if corpus.values is None else tuple(corpus.values[item] for item in items),
    )


def _check_alike(corpus: Corpus, held_out: Corpus) -> None:
    if (corpus.seconds is None) != (held_out.seconds is None):
        pairs, single = (held_out, corpus) if corpus.seconds is None else (corpus, held_out)
        raise UsageError(
            f"{pairs.title} holds pairs of texts, {single.title} single texts",
            hint="training and held-out data must have the same columns",
        )


def _with_labels_of(corpus: Corpus, held_out: Corpus) -> Corpus:
    """`held_out` with the label indices of `corpus`."""
    if corpus.labels is None or held_out.labels is None:
        return held_out
    unknown = sorted(set(held_out.label_names) - set(corpus.label_names))
    if unknown:
        raise UsageError(
            f"{held_out.title} has the label {shortened(unknown[0])!r}, which {corpus.title} lacks",
            hint="held-out data must use the labels of the training data",
        )
    index = [corpus.label_names.index(name) for name in held_out.label_names]
    return held_out._replace(labels=tuple(index[label] for label in held_out.labels), label_names=corpus.label_names)


def _check_labels(corpus: Corpus, train: Part) -> None:
    if corpus.labels is None or train.labels is None:
        return
    missing = [corpus.label_names[label] for label in sorted(set(range(len(corpus.label_names))) - set(train.labels))]
    if missing:
        count = corpus.labels.count(corpus.label_names.index(missing[0]))
        raise UsageError(
            f"label {shortened(missing[0])!r} does not occur in the training split",
            why=f"{corpus.title} has {count} items of it",
            hint="give more items of that label, or leave it out",
        )
