"""From a parallel corpus to the folder a translation is trained from, and from that folder to batches."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import disk_errors, inside, sha256_file, write_bytes, write_text
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Data, Record, Training, read_record, write_record
from toolchain.text.corpus import same_text_key
from toolchain.text.dataset import (
    DATA_FILE,
    EXAMPLES_FILE,
    PREPARED_FILE,
    SHORTEST_SEQUENCE,
    Example,
    Examples,
    Prepared,
)
from toolchain.text.parallel import ParallelCorpus
from toolchain.text.splitting import SplitName, _connected, _deal
from toolchain.text.subwords import encode_sentences, train_subwords
from toolchain.text.tokenizing import CLS, PAD, SEP, SPECIALS, TOKENIZER_FILE, Ids

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

REFERENCES_FILE = "references.jsonl"
_MADE = {TOKENIZER_FILE, DATA_FILE, REFERENCES_FILE, EXAMPLES_FILE}
_STAGE = "preparing data"
_LAYOUT = 1  # raise it when the same inputs no longer give the same arrays
_TOKENIZER_PAIRS = 1_000_000
"""More pairs than these say nothing new about how words are spelled, and take memory."""
_BATCH = 4096
_EXAMPLES = 8
_EXAMPLE_WORDS = range(5, 31)
_POOL_BATCHES = 64
"""Batches are cut from pools of about this many, sorted by length, so that little of a batch is padding."""


class ParallelSplit(NamedTuple):
    """The tokens of n pairs, without special tokens, end to end.

    Pair i has `source[source_starts[i]:source_starts[i + 1]]` and likewise its target. Tokens are int32, starts int64
    [n + 1].
    """

    source: Ids
    source_starts: Ints
    target: Ids
    target_starts: Ints

    @property
    def pairs(self) -> int:
        return len(self.source_starts) - 1


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


class Reference(Record, frozen=True):
    """A line of references.jsonl: a held-out pair as it was written."""

    split: SplitName
    source: str
    target: str


# -- preparing ---------------------------------------------------------------------------------------------------------


def translation_digest(
    corpus: ParallelCorpus,
    *,
    sequence_length: int,
    vocabulary_size: int,
    seed: int,
    held_out: ParallelCorpus | None = None,
) -> str:
    """The `sha256` that `prepare_translation` gives its Data record for these inputs: known before anything is made."""
    settings = {
        "layout": _LAYOUT,
        "corpus": corpus.sha256,
        "held_out": None if held_out is None else held_out.sha256,
        "task": "translate",
        "sequence_length": sequence_length,
        "vocabulary_size": vocabulary_size,
        "seed": seed,
    }
    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()


def prepare_translation(
    corpus: ParallelCorpus,
    *,
    sequence_length: int,
    vocabulary_size: int,
    seed: int,
    folder: Path,
    held_out: ParallelCorpus | None = None,
    listener: ProgressListener = silent,
) -> Data:
    """Fill `folder` with tokenizer, token arrays, references and examples, data.json last; return what was made.

    The corpus is split (`split_pairs`), one tokenizer is trained on both sides of the train split, and each split is
    encoded. Both a source with its [SEP] and a target with its [CLS] fit `sequence_length`: longer pairs are left out
    of training and cut where they are held out (their references are whole); the notes count them. A folder already
    made from the same inputs is left as it is.

    Raises:
        UsageError: a sequence or vocabulary too small, other languages held out, a corpus that cannot be split, nothing
            short enough to train on, no permission.
    """
    if sequence_length < SHORTEST_SEQUENCE:
        raise UsageError(
            f"a sequence of {sequence_length} tokens is too short", hint=f"use {SHORTEST_SEQUENCE} or more"
        )
    digest = translation_digest(
        corpus, sequence_length=sequence_length, vocabulary_size=vocabulary_size, seed=seed, held_out=held_out
    )
    done = find_prepared_translation(folder, digest)
    if done is not None:
        return done
    with disk_errors(folder):
        (folder / PREPARED_FILE).unlink(missing_ok=True)

    pairs = split_pairs(corpus, seed=seed, held_out=held_out)
    listener(Progress(_STAGE, 1, 4, "tokenizer"))
    some = pairs.train[:_TOKENIZER_PAIRS]
    tokenizer = train_subwords([text for side in (0, 1) for text in (pair[side] for pair in some)], vocabulary_size)
    notes = list(pairs.notes)
    splits: dict[str, ParallelSplit] = {}
    for number, (name, part) in enumerate(pairs.named(), start=2):
        listener(Progress(_STAGE, number, 4, name))
        whole = _encode_pairs(tokenizer, part)
        splits[name], long = _fitted(whole, sequence_length - 1, cut=name != "train")
        if long:
            what = "cut" if name != "train" else "left out"
            notes.append(f"{_counted(long)} of {name} longer than {sequence_length} tokens {what}")
    if not splits["train"].pairs:
        raise UsageError(
            f"no pair of {corpus.title} is short enough to train on",
            why=f"all are longer than {sequence_length} tokens",
            hint="use a greater --sequence-length",
        )
    data = Data(
        title=corpus.title,
        files=corpus.files
        | {f"{name} (held out)": value for name, value in (held_out.files if held_out else {}).items()},
        sha256=digest,
        train=splits["train"].pairs,
        validation=splits["validation"].pairs,
        test=splits["test"].pairs,
        languages=corpus.languages,
        notes=(*corpus.notes, *(held_out.notes if held_out else ()), *notes),
    )
    arrays = {f"{name}.{field}": array for name, split in splits.items() for field, array in split._asdict().items()}
    write_text(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True) + "\n")
    write_bytes(folder / DATA_FILE, safetensors.numpy.save(arrays))
    write_bytes(folder / REFERENCES_FILE, b"".join(_reference_lines(pairs)))
    write_record(folder / EXAMPLES_FILE, Examples(sentences=tuple(_examples(pairs.test))))
    made = {name: sha256_file(folder / name) for name in sorted(_MADE)}
    write_record(folder / PREPARED_FILE, Prepared(data=data, files=made))
    return data


def find_prepared_translation(folder: Path, sha256: str) -> Data | None:
    """The record of a folder that is complete and made from inputs with this `translation_digest`, else None.

    `dataset.verify_prepared` says what is wrong with one.
    """
    if not (folder / PREPARED_FILE).is_file():
        return None
    try:
        prepared = read_record(folder / PREPARED_FILE, Prepared)
        matching = set(prepared.files) == _MADE and all(
            sha256_file(inside(folder, name)) == digest for name, digest in prepared.files.items()
        )
    except IntegrityError:
        return None
    return prepared.data if matching and prepared.data.sha256 == sha256 else None


def read_parallel_split(folder: Path, split: SplitName) -> ParallelSplit:
    """One split of a folder that `prepare_translation` filled.

    Raises:
        UsageError: the folder holds no data.
        IntegrityError: the file is damaged or not one that `prepare_translation` wrote.
    """
    path = folder / DATA_FILE
    if not path.is_file():
        raise UsageError(f"there is no {path}", hint="train first: `mostool train` writes it")
    hint = "remove the file and run `mostool train` again: it is made anew"
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            read = ParallelSplit(*(stored.get_tensor(f"{split}.{field}") for field in ParallelSplit._fields))
    except (safetensors.SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint=hint) from error
    whole = _holds_tokens(read.source, read.source_starts) and _holds_tokens(read.target, read.target_starts)
    if not whole or len(read.source_starts) != len(read.target_starts):
        raise IntegrityError(f"{path} does not hold pairs of token ids", hint=hint)
    return read


def read_references(folder: Path, split: SplitName) -> list[tuple[str, str]]:
    """Source and target of each pair of a held-out split, as they were written, in the order of its token arrays.

    Raises:
        UsageError: the folder holds no references.
        IntegrityError: the file is damaged.
    """
    path = folder / REFERENCES_FILE
    if not path.is_file():
        raise UsageError(f"there is no {path}", hint="train first: `mostool train` writes it")
    try:
        lines = msgspec.json.Decoder(Reference).decode_lines(path.read_bytes())
    except (msgspec.DecodeError, ValueError, OSError) as error:
        raise IntegrityError(
            f"{path} cannot be read", why=str(error), hint="remove the file and run `mostool train` again"
        ) from error
    return [(line.source, line.target) for line in lines if line.split == split]


def _holds_tokens(tokens: Ids, starts: Ints) -> bool:
    return (
        tokens.dtype == np.int32
        and starts.dtype == np.int64
        and (tokens.ndim, starts.ndim) == (1, 1)
        and len(starts) > 0
        and (starts[0], starts[-1]) == (0, len(tokens))
        and bool((np.diff(starts) >= 0).all())
        and (tokens.size == 0 or int(tokens.min()) >= len(SPECIALS))
    )


def _reference_lines(pairs: Pairs) -> Iterator[bytes]:
    for name, part in pairs.named():
        if name != "train":
            for source, target in part:
                yield msgspec.json.encode(Reference(split=name, source=source, target=target)) + b"\n"


def _examples(test: Sequence[Pair]) -> Iterable[Example]:
    """Test sources, those of readable length first, none twice."""
    sources = list(dict.fromkeys(source for source, _ in test))
    for source in sorted(sources, key=lambda source: len(source.split()) not in _EXAMPLE_WORDS)[:_EXAMPLES]:
        yield Example(text=" ".join(source.split()[: _EXAMPLE_WORDS.stop - 1]))


def _counted(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


# -- splitting ---------------------------------------------------------------------------------------------------------

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
        test, validation, train = _deal(_shuffled_units(corpus, rng), (wanted, wanted))
        pairs = Pairs(_picked(corpus, train), _picked(corpus, validation), _picked(corpus, test))
    else:
        _check_languages(corpus, held_out)
        test, rest, validation = _deal(_shuffled_units(held_out, rng), (len(held_out.sources) // 2, 0))
        sources, targets = ({same_text_key(text) for text in side} for side in (held_out.sources, held_out.targets))
        everything = [item for unit in _shuffled_units(corpus, rng) for item in unit]
        train = [
            item
            for item in everything
            if same_text_key(corpus.sources[item]) not in sources and same_text_key(corpus.targets[item]) not in targets
        ]
        pairs = Pairs(_picked(corpus, train), _picked(held_out, validation + rest), _picked(held_out, test))
        if len(train) < len(everything):
            left = _counted(len(everything) - len(train))
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
    roots = _connected(len(sources), [sources, targets])
    units: dict[int, list[int]] = {}
    for item in order:
        units.setdefault(roots[item], []).append(item)
    ordered = list(units.values())
    return [ordered[number] for number in rng.permutation(len(ordered))]


def _picked(corpus: ParallelCorpus, items: Iterable[int]) -> tuple[Pair, ...]:
    return tuple((corpus.sources[item], corpus.targets[item]) for item in items)


# -- ragged arrays -----------------------------------------------------------------------------------------------------


def _encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> ParallelSplit:
    sides = (_encode(tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
    (source, source_starts), (target, target_starts) = sides
    return ParallelSplit(source, source_starts, target, target_starts)


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Ids, Ints]:
    """The tokens of all texts end to end, and where each starts. A list of lists of them would fill the memory."""
    parts = [np.zeros(0, np.int32)]
    lengths = [np.zeros(1, np.int64)]
    for start in range(0, len(texts), _BATCH):
        rows = encode_sentences(tokenizer, texts[start : start + _BATCH])
        lengths.append(np.array([len(row) for row in rows], np.int64))
        parts.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32))
    return np.concatenate(parts), np.cumsum(np.concatenate(lengths))


def _fitted(split: ParallelSplit, most: int, *, cut: bool) -> tuple[ParallelSplit, int]:
    """The split with at most `most` tokens on either side, longer pairs `cut` or left out, and how many those were."""
    lengths = (np.diff(split.source_starts), np.diff(split.target_starts))
    long = np.maximum(*lengths) > most
    rows = np.arange(split.pairs) if cut else np.flatnonzero(~long)
    source = _taken(split.source, split.source_starts, rows, most)
    target = _taken(split.target, split.target_starts, rows, most)
    return ParallelSplit(*source, *target), int(long.sum())


def _taken(tokens: Ids, starts: Ints, rows: Ints, most: int) -> tuple[Ids, Ints]:
    """The first `most` tokens of each of `rows`, end to end, and where each starts."""
    lengths = np.minimum(np.diff(starts)[rows], most)
    taken = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(taken[-1]) + np.repeat(starts[:-1][rows] - taken[:-1], lengths)
    return tokens[places], taken


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


# -- batches -----------------------------------------------------------------------------------------------------------


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
