"""Splitting pairs of a parallel corpus so that neither side of one leaks from one split to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from toolchain.errors import UsageError
from toolchain.text.corpus import same_text_key
from toolchain.text.parallel import ParallelCorpus
from toolchain.text.splitting import SplitName, connected, deal

Pair = tuple[str, str]


class Pairs(NamedTuple):
    """Source and target of every pair of each split."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    def named(self) -> tuple[tuple[SplitName, tuple[Pair, ...]], ...]:
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def split_pairs(corpus: ParallelCorpus, *, seed: int, held_out: ParallelCorpus | None = None) -> Pairs:
    """Train, validation and test of a corpus, in the manner of `splitting.split_corpus`.

    Pairs whose sources or whose targets are the same text (but for case and spacing) stay together, directly or through
    others. With `held_out`, that is halved into validation and test, and a pair of `corpus` is left out of train where
    its source or its target is also held out. The same pairs and seed give the same splits, in whatever order they
    came.

    Raises:
        UsageError: a split would be empty, or `held_out` is of other languages.
    """
    rng = np.random.default_rng(seed)
    notes: tuple[str, ...] = ()
    if held_out is None:
        share, limit = corpus.held_out_share, corpus.held_out_limit
        wanted = max(1, round(share * len(corpus.sources)))
        wanted = wanted if limit is None else min(wanted, limit)
        test, validation, train = deal(_shuffled_units(corpus, rng), (wanted, wanted))
        pairs = Pairs(_picked(corpus, train), _picked(corpus, validation), _picked(corpus, test))
    else:
        _check_languages(corpus, held_out)
        test, rest, validation = deal(_shuffled_units(held_out, rng), (len(held_out.sources) // 2, 0))
        sources, targets = ({same_text_key(text) for text in side} for side in (held_out.sources, held_out.targets))
        everything = [item for unit in _shuffled_units(corpus, rng) for item in unit]
        train = [
            item
            for item in everything
            if same_text_key(corpus.sources[item]) not in sources and same_text_key(corpus.targets[item]) not in targets
        ]
        pairs = Pairs(_picked(corpus, train), _picked(held_out, validation + rest), _picked(held_out, test))
        if len(train) < len(everything):
            left = counted(len(everything) - len(train))
            notes = (f"{left} whose source or target is also held out left out of training",)
    for name, part in pairs.named():
        if not part:
            raise UsageError(
                f"nothing is left for the {name} split of {corpus.title}",
                why="pairs with the same source or the same target stay in one split",
                hint="give more text, with fewer repetitions",
            )
    return pairs._replace(notes=notes)


def _check_languages(corpus: ParallelCorpus, held_out: ParallelCorpus) -> None:
    unnamed = ("source", "target")
    if held_out.languages != corpus.languages and unnamed not in (held_out.languages, corpus.languages):
        raise UsageError(
            f"{held_out.title} translates {' to '.join(held_out.languages)}, "
            f"{corpus.title} {' to '.join(corpus.languages)}",
            hint="held-out data must be of the languages of the training data, in the same order",
        )


def _shuffled_units(corpus: ParallelCorpus, rng: np.random.Generator) -> list[list[int]]:
    """Items that must stay together, in a random order that depends on their content alone."""
    sources, targets = ([same_text_key(text) for text in side] for side in (corpus.sources, corpus.targets))
    order = sorted(
        range(len(sources)),
        key=lambda item: (sources[item], targets[item], corpus.sources[item], corpus.targets[item]),
    )
    roots = connected(len(sources), [sources, targets])
    units: dict[int, list[int]] = {}
    for item in order:
        units.setdefault(roots[item], []).append(item)
    ordered = list(units.values())
    return [ordered[number] for number in rng.permutation(len(ordered))]


def _picked(corpus: ParallelCorpus, items: Iterable[int]) -> tuple[Pair, ...]:
    return tuple((corpus.sources[item], corpus.targets[item]) for item in items)


def counted(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"
