"""What a run learns from, by task: read, prepared in the run's folder, and handed out in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolchain import text
from toolchain.errors import UsageError
from toolchain.progress import ProgressListener
from toolchain.records import Data, Task, Training

if TYPE_CHECKING:
    from toolchain.supernet.train import Batches, TokenBatch

SYSTEM = "system"
"""As `--data`: the translation catalogues installed on this machine; `system:fr` names the language."""

HUB = "hf:"
"""`hf:glue/mrpc` as `--data` is a name of the `datasets` library."""


COLUMNS = ("text_column", "label_column", "second_column")
NOT_WITHOUT_DATA = ("validation", *COLUMNS)
"""What of a Source says nothing where there are no labelled data, or no data at all."""

_MOST_NUMBERS = 20
"""More labels than this that are numbers, and not whole ones, are no classes."""


class Source(NamedTuple):
    """Where the text comes from: files or folders, or (none given) the prose of this machine's own Python."""

    data: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    text_column: str | None = None
    label_column: str | None = None
    second_column: str | None = None


def missing_files(source: Source) -> list[str]:
    """The files and folders of a source that are not there; what is no path (`system`, `hf:NAME`) is not looked for."""
    paths = (*source.data, *source.validation)
    named = [path for path in paths if str(path).partition(":")[0] not in (SYSTEM, HUB.rstrip(":"))]
    return [str(path) for path in named if not path.exists()]


class Reading(NamedTuple):
    """Text that was read: what it will be called when prepared, how to prepare it in a folder, and its labels."""

    digest: str
    prepare: Callable[[Path, ProgressListener], Data]
    labels: tuple[str, ...] = ()


def read_source(
    source: Source, training: Training, listener: ProgressListener, tokenizer: Any | None = None
) -> Reading:
    """Read a task's text. With a `tokenizer`, that one is used; else one is trained.

    Raises:
        UsageError: the data cannot be read, or does not fit the task.
    """
    if training.task == "translate":
        return _read_translation(source, training)
    corpus, held_out = _read_texts(source, training.task, listener)
    settings: dict[str, Any] = {
        "task": training.task,
        "sequence_length": training.sequence_length,
        "vocabulary_size": training.vocabulary_size,
        "seed": training.seed,
        "held_out": held_out,
        "tokenizer": tokenizer,
    }

    def prepare(folder: Path, listener: ProgressListener) -> Data:
        return text.prepare(corpus, folder=folder, listener=listener, **settings)

    labels = corpus.label_names if training.task == "classify" else ()
    return Reading(text.data_digest(corpus, **settings), prepare, labels)


def outputs_of(task: Task, data: Data) -> int:
    """How many answers a model of this task gives for a whole text: 0 where it answers for tokens."""
    return {"classify": len(data.labels), "regress": 1}.get(task, 0)


def training_batches(folder: Path, training: Training, vocabulary_size: int) -> Batches:
    if training.task == "translate":
        return text.TranslationBatches(text.read_parallel_split(folder, "train"), training)
    return text.TrainingBatches(text.read_split(folder, "train"), training, vocabulary_size)


def held_out_batches(
    folder: Path, split: text.SplitName, task: Task, vocabulary_size: int, *, whole: bool
) -> Sequence[TokenBatch]:
    """Held-out items in a fixed order with fixed masks; all of them, or the first few hundred."""
    if task == "translate":
        return text.translation_evaluation_batches(text.read_parallel_split(folder, split), whole=whole)
    return text.evaluation_batches(text.read_split(folder, split), task, vocabulary_size, whole=whole)


def _read_translation(source: Source, training: Training) -> Reading:
    refuse_idle(source, "goes with labelled data", COLUMNS)
    if not source.data:
        raise UsageError(
            "a translation needs pairs of texts",
            hint="give two files, --data train.en train.de, or --data system for this machine's own catalogues",
        )
    first, _, language = str(source.data[0]).partition(":")
    if first == SYSTEM:
        if source.validation or len(source.data) > 1:
            raise UsageError(f"--data {SYSTEM} stands alone", hint="leave the other files out")
        corpus, held_out = text.read_catalogues(language or None), None
    else:
        corpus = text.read_parallel(source.data)
        held_out = text.read_parallel(source.validation) if source.validation else None
    settings: dict[str, Any] = {
        "sequence_length": training.sequence_length,
        "vocabulary_size": training.vocabulary_size,
        "seed": training.seed,
        "held_out": held_out,
    }

    def prepare(folder: Path, listener: ProgressListener) -> Data:
        return text.prepare_translation(corpus, folder=folder, listener=listener, **settings)

    return Reading(text.translation_digest(corpus, **settings), prepare)


def _read_texts(source: Source, task: Task, listener: ProgressListener) -> tuple[text.Corpus, text.Corpus | None]:
    if not source.data:
        refuse_idle(source, "goes with --data", NOT_WITHOUT_DATA)
        return text.read_prose(listener), None
    if task == "mlm":
        refuse_idle(source, "goes with labelled data", COLUMNS)
        return text.read_documents(source.data), text.read_documents(source.validation) if source.validation else None
    corpus, held_out = _read_labelled(source, listener, numeric=task == "regress")
    _refuse_numbers(corpus)
    return corpus, held_out


def _read_labelled(
    source: Source, listener: ProgressListener, *, numeric: bool
) -> tuple[text.Corpus, text.Corpus | None]:
    columns = (source.text_column, source.label_column, source.second_column)
    name = str(source.data[0])
    if name.startswith(HUB):
        if source.validation or len(source.data) > 1:
            raise UsageError(f"--data {name} brings its own held-out data", hint="leave the other files out")
        return text.read_hub(name, *columns, numeric=numeric, listener=listener)
    held_out = text.read_labelled(source.validation, *columns, numeric=numeric) if source.validation else None
    return text.read_labelled(source.data, *columns, numeric=numeric), held_out


def _refuse_numbers(corpus: text.Corpus) -> None:
    """Many labels, all numbers and not all of them whole, are measurements that were taken for names."""
    numbers = [_number(name) for name in corpus.label_names]
    found = [number for number in numbers if number is not None]
    whole = all(number.is_integer() for number in found)
    if len(numbers) > _MOST_NUMBERS and len(found) == len(numbers) and not whole:
        raise UsageError(
            f"the labels of {corpus.title} are {len(numbers)} different numbers",
            why="classification takes them for names, with no order and nothing between them",
            hint="--task regress learns numbers; --label-column names another column",
        )


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def refuse_idle(source: Source, rule: str, names: Sequence[str]) -> None:
    """An option that would be read by nobody is a mistake."""
    flags = {
        "validation": "--valid",
        "text_column": "--text-column",
        "label_column": "--label-column",
        "second_column": "--second-column",
    }
    for name in names:
        if getattr(source, name):
            raise UsageError(f"{flags[name]} {rule}", hint=f"add what it needs, or leave {flags[name]} out")
