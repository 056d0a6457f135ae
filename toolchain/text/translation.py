"""From a parallel corpus to the folder that a translation is trained from, and back out of it."""

from __future__ import annotations

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
from toolchain.files import disk_errors, sha256_file, write_bytes, write_text
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Data, Record, write_record
from toolchain.text.dataset import (
    DATA_FILE,
    EXAMPLES_FILE,
    MADE_ANEW,
    PREPARED_FILE,
    SHORTEST_SEQUENCE,
    Example,
    Examples,
    Prepared,
    find_prepared,
    opened_arrays,
)
from toolchain.text.pairs import Pair, Pairs, counted, split_pairs
from toolchain.text.parallel import ParallelCorpus
from toolchain.text.splitting import SplitName
from toolchain.text.subwords import encode_sentences, train_subwords
from toolchain.text.tokenizing import SPECIALS, TOKENIZER_FILE, Ids

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
            notes.append(f"{counted(long)} of {name} longer than {sequence_length} tokens {what}")
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
    return find_prepared(folder, sha256, _MADE)


def read_parallel_split(folder: Path, split: SplitName) -> ParallelSplit:
    """One split of a folder that `prepare_translation` filled.

    Raises:
        UsageError: the folder holds no data.
        IntegrityError: the file is damaged or not one that `prepare_translation` wrote.
    """
    with opened_arrays(folder) as stored:
        read = ParallelSplit(*(stored.get_tensor(f"{split}.{field}") for field in ParallelSplit._fields))
    whole = _holds_tokens(read.source, read.source_starts) and _holds_tokens(read.target, read.target_starts)
    if not whole or len(read.source_starts) != len(read.target_starts):
        raise IntegrityError(f"{folder / DATA_FILE} does not hold pairs of token ids", hint=MADE_ANEW)
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
