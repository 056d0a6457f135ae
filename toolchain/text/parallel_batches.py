"""A split of pairs in batches: of each update for training, in a fixed order where they are held out."""

from __future__ import annotations

import bisect
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toolchain.errors import UsageError
from toolchain.records import Training
from toolchain.text.tokenizing import CLS, PAD, SEP, Ids
from toolchain.text.translation import ParallelSplit

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

_POOL_BATCHES = 64
"""Batches are cut from pools of about this many, sorted by length, so that little of a batch is padding."""


class ParallelBatch(NamedTuple):
    """b pairs as a model takes them, all int64.

    Attributes:
        ids: [b, s] source tokens, then [SEP], padded with 0.
        attention_mask: [b, s], 1 where `ids` is no padding.
        targets: [n] the target tokens of each row, then [SEP]; row after row.
        positions: [n, 2] row and place in `decoder_ids` at which each of `targets` is to be predicted.
        decoder_ids: [b, t] [CLS], then the target tokens, padded with 0.
    """

    ids: Ints
    attention_mask: Ints
    targets: Ints
    positions: Ints
    decoder_ids: Ints


class SourceBatch(NamedTuple):
    """Sources to translate: the numbers of the pairs [b] in their split, and `ids`, `attention_mask` [b, s], int64."""

    rows: Ints
    ids: Ints
    attention_mask: Ints


class TranslationBatches:
    """The micro-batches of an update, by its number: the same ones whenever they are asked for, and by whom.

    An epoch shows every pair once, in an order of its own. A batch is of `batch_size` pairs (what does not fill one is
    left out, another part each epoch), or with `batch_tokens` of as many as keep rows x width at most that on either
    side (nothing is left out; epochs may differ in their number of batches).
    """

    def __init__(self, split: ParallelSplit, training: Training) -> None:
        """Raises UsageError where one pair alone has more than `batch_tokens` tokens."""
        self._split = split
        self._training = training
        self._widths = np.maximum(np.diff(split.source_starts), np.diff(split.target_starts)) + 1
        longest = int(self._widths.max(initial=0))
        if 0 < training.batch_tokens < longest:
            raise UsageError(
                f"a batch of {training.batch_tokens} tokens is too small",
                why=f"the longest sentence has {longest}",
                hint="use a greater --batch-tokens or a smaller --sequence-length",
            )
        self._firsts = [0]
        """The number of the first batch of every epoch looked at so far, and of the one after them."""
        self._epoch = -1
        self._batches: list[Ints] = []

    def __call__(self, update: int, rank: int = 0, ranks: int = 1) -> list[ParallelBatch]:
        """Those of update number `update` that are `rank`'s, of `ranks` processes that share them in turn."""
        if not 0 <= rank < ranks:
            raise ValueError(f"there is no rank {rank} of {ranks}")
        first = update * self._training.accumulate
        return [self._batch(first + number) for number in range(rank, self._training.accumulate, ranks)]

    def _batch(self, number: int) -> ParallelBatch:
        if self._training.batch_tokens:
            epoch, place = self._found(number)
        else:
            epoch, place = divmod(number, max(1, self._split.pairs // self._training.batch_size))
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        return _parallel_batch(self._split, self._batches[place])

    def _found(self, number: int) -> tuple[int, int]:
        """The epoch of a batch and its place there. Epochs differ in length, so all before it must be counted once."""
        while number >= self._firsts[-1]:
            self._firsts.append(self._firsts[-1] + len(self._dealt(len(self._firsts) - 1)[0]))
        epoch = bisect.bisect_right(self._firsts, number) - 1
        return epoch, number - self._firsts[epoch]

    def _shuffled(self, epoch: int) -> list[Ints]:
        """The rows of each batch of an epoch, in order."""
        batches, rng = self._dealt(epoch)
        return [batches[index] for index in rng.permutation(len(batches))]

    def _dealt(self, epoch: int) -> tuple[list[Ints], np.random.Generator]:
        """The rows of each batch of an epoch, from short to long and back, and the generator to shuffle them with."""
        rng = np.random.default_rng((self._training.seed, 0, epoch))
        rows = rng.permutation(self._split.pairs)
        size, tokens = self._training.batch_size, self._training.batch_tokens
        if tokens:
            # Every other pool runs from long to short, so that a batch across two of them is of like lengths too.
            pool = _POOL_BATCHES * max(1, int(tokens / self._widths.mean()))
            rows = _sorted_in_pools(rows, self._widths, pool, turning=True)
            cuts = _cuts(self._widths[rows], tokens)
        else:
            # What does not fill a batch is left out here, at random: after the sorting it would always be the longest.
            rows = rows[: max(1, len(rows) // size) * size]
            rows = _sorted_in_pools(rows, self._widths, _POOL_BATCHES * size, turning=False)
            cuts = [*range(0, len(rows), size), len(rows)]
        return [rows[start:end] for start, end in itertools.pairwise(cuts)], rng


def translation_evaluation_batches(
    split: ParallelSplit, *, whole: bool, limit: int = 512, batch: int = 64
) -> list[ParallelBatch]:
    """Held-out pairs with their translations, sorted by length: all of them, or (not `whole`) the first `limit`."""
    return [_parallel_batch(split, rows) for rows in _in_order(split, None if whole else limit, batch)]


def source_batches(split: ParallelSplit, *, limit: int | None = None, batch: int = 64) -> list[SourceBatch]:
    """Held-out sources to be translated, sorted by length: the first `limit` of the split, or all of them."""
    return [SourceBatch(rows, *_sources(split, rows)) for rows in _in_order(split, limit, batch)]


def _in_order(split: ParallelSplit, limit: int | None, batch: int) -> list[Ints]:
    items = split.pairs if limit is None else min(split.pairs, limit)
    lengths = np.maximum(np.diff(split.source_starts), np.diff(split.target_starts))[:items]
    rows = np.argsort(lengths, kind="stable")
    return [rows[start : start + batch] for start in range(0, items, batch)]


def _sorted_in_pools(rows: Ints, widths: Ints, pool: int, *, turning: bool) -> Ints:
    """`rows` with each `pool` of them sorted by width, with `turning` every other pool the other way round."""
    pools = []
    for number, start in enumerate(range(0, len(rows), pool)):
        part = rows[start : start + pool]
        part = part[np.argsort(widths[part], kind="stable")]
        pools.append(part[::-1] if turning and number % 2 else part)
    return np.concatenate(pools)


def _cuts(widths: Ints, tokens: int) -> list[int]:
    """Where to cut rows of these widths so that each piece, as a rectangle, holds at most `tokens`; 0 and n too."""
    cuts = [0]
    while cuts[-1] < len(widths):
        start = cuts[-1]
        ahead = np.maximum.accumulate(widths[start : start + tokens // int(widths[start])])
        fits = ahead * np.arange(1, len(ahead) + 1) <= tokens
        cuts.append(start + (len(ahead) if fits.all() else int(fits.argmin())))
    return cuts


def _parallel_batch(split: ParallelSplit, rows: Ints) -> ParallelBatch:
    ids, attention_mask = _sources(split, rows)
    decoder_ids, lengths = _padded(split.target, split.target_starts, rows, first=CLS, last=None)
    wanted, _ = _padded(split.target, split.target_starts, rows, first=None, last=SEP)
    asked = np.arange(decoder_ids.shape[1]) < lengths[:, None]
    return ParallelBatch(ids, attention_mask, wanted[asked], np.argwhere(asked), decoder_ids)


def _sources(split: ParallelSplit, rows: Ints) -> tuple[Ints, Ints]:
    ids, lengths = _padded(split.source, split.source_starts, rows, first=None, last=SEP)
    return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)


def _padded(tokens: Ids, starts: Ints, rows: Ints, *, first: int | None, last: int | None) -> tuple[Ints, Ints]:
    """`rows` as a rectangle, `first` before and `last` behind each, padded with 0; and how long each row is."""
    lengths = np.diff(starts)[rows]
    width = int(lengths.max(initial=0))
    places = np.arange(width)
    held = places < lengths[:, None]
    ids = np.full((len(rows), width + (first is not None) + (last is not None)), PAD, np.int64)
    offset = 0
    if first is not None:
        ids[:, 0] = first
        offset = 1
    ids[:, offset : offset + width][held] = tokens[(starts[rows][:, None] + places)[held]]
    if last is not None:
        ids[np.arange(len(rows)), offset + lengths] = last
    return ids, offset + lengths + (last is not None)
