"""From a corpus to the folder a training run reads: tokenizer, token arrays, examples, and what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import disk_errors, inside, sha256_bytes, sha256_file, write_bytes, write_text
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Data, Record, Stored, Task, read_record, write_record
from toolchain.text.corpus import Corpus
from toolchain.text.masking import mask_tokens
from toolchain.text.sentences import split_sentences
from toolchain.text.splitting import Part, Parts, SplitName, split_corpus
from toolchain.text.tokenizing import TOKENIZER_FILE, Ids, encode_blocks, encode_texts, parse_tokenizer, train_tokenizer

__all__ = [
    "Example",
    "Examples",
    "Prepared",
    "Split",
    "data_digest",
    "find_prepared",
    "mask_tokens",
    "prepare",
    "read_examples",
    "read_split",
]

DATA_FILE = "data.safetensors"
EXAMPLES_FILE = "examples.json"
PREPARED_FILE = "data.json"
_MADE = {TOKENIZER_FILE, DATA_FILE, EXAMPLES_FILE}
MADE_ANEW = "remove the file and run `mostool train` again: it is made anew"
SHORTEST_SEQUENCE = 8
_EXAMPLES = 8
_EXAMPLE_WORDS = range(5, 31)
_STAGE = "preparing data"
_LAYOUT = 2  # raise it when the same inputs no longer give the same arrays


class Split(NamedTuple):
    """Token ids int32 [n, sequence_length], padded with 0; labels int32 [n] or values float32 [n] where it has them."""

    ids: Ids
    labels: Ids | None
    values: npt.NDArray[np.float32] | None = None


class Example(Record, frozen=True):
    """A test sentence or pair, and where it has one the name of its label, or its value in figures."""

    text: str
    label: str | None = None
    second: str | None = None


class Examples(Stored, frozen=True):
    sentences: tuple[Example, ...]


class Prepared(Stored, frozen=True):
    """The last file written to a prepared folder: while it is missing or does not match, the folder is incomplete."""

    data: Data
    files: dict[str, str]


def data_digest(
    corpus: Corpus,
    *,
    task: Task,
    sequence_length: int,
    vocabulary_size: int,
    seed: int,
    by_group: bool = True,
    held_out: Corpus | None = None,
    tokenizer: Tokenizer | None = None,
) -> str:
    """The `sha256` that `prepare` gives its Data record for these inputs: known before anything is made.

    A `tokenizer` counts in place of the vocabulary's size.
    """
    settings = {
        "layout": _LAYOUT,
        "corpus": corpus.sha256,
        "held_out": None if held_out is None else held_out.sha256,
        "task": task,
        "sequence_length": sequence_length,
        "vocabulary_size": vocabulary_size if tokenizer is None else None,
        "tokenizer": None if tokenizer is None else sha256_bytes(tokenizer.to_str().encode()),
        "seed": seed,
        "by_group": by_group,
    }
    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()


def prepare(
    corpus: Corpus,
    *,
    task: Task,
    sequence_length: int,
    vocabulary_size: int,
    seed: int,
    folder: Path,
    listener: ProgressListener = silent,
    by_group: bool = True,
    held_out: Corpus | None = None,
    tokenizer: Tokenizer | None = None,
) -> Data:
    """Fill `folder` with tokenizer.json, data.safetensors, examples.json and data.json; return what was made.

    The corpus is split (`split_corpus`), the tokenizer is the one given or else trained on the train split alone, and
    each split is encoded: one row per text or pair for classification and regression, every text whole as blocks for
    masked words. Counts in the record are rows. Values are left as they are, in float32.
    Each file is written whole, data.json last; a folder already made from the same inputs is left as it is.

    Raises:
        UsageError: classification without labels, regression without values, a sequence too short, a corpus that cannot
            be split, no permission.
        IntegrityError: the tokenizer given has other special tokens (see `parse_tokenizer`).
    """
    _check_task(task, corpus, held_out)
    if sequence_length < SHORTEST_SEQUENCE:
        raise UsageError(
            f"a sequence of {sequence_length} tokens is too short", hint=f"use {SHORTEST_SEQUENCE} or more"
        )
    digest = data_digest(
        corpus,
        task=task,
        sequence_length=sequence_length,
        vocabulary_size=vocabulary_size,
        seed=seed,
        by_group=by_group,
        held_out=held_out,
        tokenizer=tokenizer,
    )
    done = find_prepared(folder, digest)
    if done is not None:
        return done
    with disk_errors(folder):
        (folder / PREPARED_FILE).unlink(missing_ok=True)

    parts = split_corpus(corpus, seed=seed, by_group=by_group, held_out=held_out)
    listener(Progress(_STAGE, 1, 4, "tokenizer"))
    if tokenizer is None:
        chosen = train_tokenizer(_running_text(parts.train), vocabulary_size)
    else:
        chosen = parse_tokenizer(tokenizer.to_str(), "the tokenizer given")
    arrays: dict[str, npt.NDArray[np.int32 | np.float32]] = {}
    for number, (name, part) in enumerate(parts.named(), start=2):
        listener(Progress(_STAGE, number, 4, name))
        arrays |= {f"{name}.{field}": array for field, array in _encoded(chosen, part, task, sequence_length).items()}
    data = Data(
        title=corpus.title,
        files=corpus.files
        | {f"{name} (held out)": value for name, value in (held_out.files if held_out else {}).items()},
        sha256=digest,
        train=len(arrays["train.ids"]),
        validation=len(arrays["validation.ids"]),
        test=len(arrays["test.ids"]),
        labels=corpus.label_names if task == "classify" else (),
        majority_share=_majority_share(parts) if task == "classify" else None,
        notes=(*corpus.notes, *(held_out.notes if held_out else ()), *parts.notes),
    )
    write_text(folder / TOKENIZER_FILE, chosen.to_str(pretty=True) + "\n")
    write_bytes(folder / DATA_FILE, safetensors.numpy.save(arrays))
    write_record(folder / EXAMPLES_FILE, Examples(sentences=tuple(_examples(corpus, parts.test, task))))
    made = {name: sha256_file(folder / name) for name in sorted(_MADE)}
    write_record(folder / PREPARED_FILE, Prepared(data=data, files=made))
    return data


def find_prepared(folder: Path, sha256: str, made: set[str] = _MADE) -> Data | None:
    """The record of a folder that holds the files `made`, from inputs with this digest (`data_digest`), else None."""
    if not (folder / PREPARED_FILE).is_file():
        return None
    try:
        prepared = read_record(folder / PREPARED_FILE, Prepared)
        matching = set(prepared.files) == made and all(
            sha256_file(inside(folder, name)) == digest for name, digest in prepared.files.items()
        )
    except IntegrityError:
        return None
    return prepared.data if matching and prepared.data.sha256 == sha256 else None


def read_prepared(folder: Path) -> Data:
    """The record of a prepared folder. Raises as `records.read_record` does."""
    return read_record(folder / PREPARED_FILE, Prepared).data


def verify_prepared(folder: Path) -> None:
    """Raise IntegrityError, naming the file, where a prepared folder is not as `prepare` left it."""
    prepared = read_record(folder / PREPARED_FILE, Prepared)
    for name, digest in prepared.files.items():
        if sha256_file(inside(folder, name)) != digest:
            raise IntegrityError(
                f"{folder / name} was changed since it was prepared",
                hint="get the run's folder again, or train with --fresh",
            )


@contextlib.contextmanager
def opened_arrays(folder: Path) -> Iterator[Any]:
    """The token arrays of a prepared folder, opened for reading by name.

    Raises:
        UsageError: the folder holds no data.
        IntegrityError: the file is damaged, or lacks an array that is read within.
    """
    path = folder / DATA_FILE
    if not path.is_file():
        raise UsageError(f"there is no {path}", hint="train first: `mostool train` writes it")
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            yield stored
    except (safetensors.SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint=MADE_ANEW) from error


def read_split(folder: Path, split: SplitName) -> Split:
    """One split of a prepared folder.

    Raises:
        UsageError: the folder holds no data.
        IntegrityError: the file is damaged or not one that `prepare` wrote.
    """
    path, hint = folder / DATA_FILE, MADE_ANEW
    with opened_arrays(folder) as stored:
        ids = stored.get_tensor(f"{split}.ids")
        names = set(stored.keys())
        labels = stored.get_tensor(f"{split}.labels") if f"{split}.labels" in names else None
        values = stored.get_tensor(f"{split}.values") if f"{split}.values" in names else None
    fits = ids.dtype == np.int32 and ids.ndim == 2 and (labels is None or labels.shape == ids.shape[:1])
    if not fits or (ids.size and ids.min() < 0):
        raise IntegrityError(f"{path} does not hold token ids", hint=hint)
    if values is not None and not (
        values.dtype == np.float32 and values.shape == ids.shape[:1] and np.isfinite(values).all()
    ):
        raise IntegrityError(f"{path} does not hold a finite value for each item", hint=hint)
    return Split(ids, labels, values)


def read_examples(folder: Path) -> tuple[Example, ...]:
    """The test sentences that `prepare` picked. Raises as `records.read_record` does."""
    return read_record(folder / EXAMPLES_FILE, Examples).sentences


def _check_task(task: Task, corpus: Corpus, held_out: Corpus | None) -> None:
    if task == "translate":
        raise ValueError("translations are prepared elsewhere: they are no Corpus")
    for one in (corpus, held_out):
        if task == "classify" and one is not None and one.labels is None:
            hint = "classification needs labelled data; plain text suits --task mlm"
            raise UsageError(f"{one.title} has no labels", hint=hint)
        if task == "regress" and one is not None and one.values is None:
            hint = "regression needs a column of numbers; labels that are names suit --task classify"
            raise UsageError(f"{one.title} has no values", hint=hint)


def _encoded(
    tokenizer: Tokenizer, part: Part, task: Task, sequence_length: int
) -> dict[str, npt.NDArray[np.int32 | np.float32]]:
    """The arrays of one split: the fields of Split that the task has."""
    if task == "mlm":
        return {"ids": encode_blocks(tokenizer, _running_text(part), sequence_length)}
    ids = encode_texts(tokenizer, part.texts, sequence_length, part.seconds)
    if task == "regress":
        return {"ids": ids, "values": np.array(part.values, dtype=np.float32)}
    return {"ids": ids, "labels": np.array(part.labels, dtype=np.int32)}


def _running_text(part: Part) -> Sequence[str]:
    """Every text of a split, the two of a pair one after the other."""
    if part.seconds is None:
        return part.texts
    return [text for pair in zip(part.texts, part.seconds, strict=True) for text in pair]


def _majority_share(parts: Parts) -> float:
    """The share of the most frequent train label in test: the accuracy of always answering it."""
    train, test = np.array(parts.train.labels), np.array(parts.test.labels)
    return float(np.mean(test == np.bincount(train).argmax()))


def _examples(corpus: Corpus, test: Part, task: Task) -> Iterable[Example]:
    """Test items in split order, of running text a sentence; for classification every label in turn."""
    if task == "mlm":
        for text in test.texts[:_EXAMPLES]:
            yield Example(text=_sentence(text))
        return
    seconds: Sequence[str | None] = test.seconds or [None] * len(test.texts)
    if test.labels is None:
        valued = zip(test.texts, seconds, test.values or (), strict=True)
        for text, second, value in itertools.islice(valued, _EXAMPLES):
            yield Example(text=text, second=second, label=f"{value:g}")
        return
    turns: dict[int, int] = {}
    ranked: list[tuple[int, int]] = []
    for item, label in enumerate(test.labels):
        ranked.append((turns.get(label, 0), item))
        turns[label] = turns.get(label, 0) + 1
    for _, item in sorted(ranked)[:_EXAMPLES]:
        name = corpus.label_names[test.labels[item]]
        yield Example(text=test.texts[item], second=seconds[item], label=name)


def _sentence(text: str) -> str:
    """The first sentence of readable length, else the first words."""
    for sentence in split_sentences(text):
        if len(sentence.split()) in _EXAMPLE_WORDS and sentence[0].isalpha():
            return sentence
    return " ".join(text.split()[: _EXAMPLE_WORDS.stop - 1])
