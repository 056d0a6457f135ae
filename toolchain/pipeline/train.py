"""train: text in, a trained supernet out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from torch import Tensor

from toolchain import text
from toolchain.errors import UsageError
from toolchain.files import locked, set_aside, sha256_bytes, sha256_file, write_text
from toolchain.pipeline.data import Reading, Source, held_out_batches, outputs_of, read_source, training_batches
from toolchain.pipeline.project import CHECKPOINT_FILE, Project, versions, write_run_info
from toolchain.pipeline.runs import Run
from toolchain.progress import ProgressListener, silent
from toolchain.records import (
    CheckpointInfo,
    Origin,
    Quality,
    Task,
    Training,
    TrainingPoint,
    decode_record,
    now,
    read_record,
    write_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.supernet.inference import supernet_predictor
from toolchain.supernet.mixture import mixture_warnings
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.parallel import Ranks, check_share, joined
from toolchain.supernet.state import STATE_FILE, TrainingState
from toolchain.supernet.tracking import find_tracker, start_tracker
from toolchain.supernet.train import Plan, train

DIGEST_FILE = "digest"


class Start(NamedTuple):
    """What a new supernet is filled with before it trains, and the name of exactly that."""

    origin: Origin
    fill: Callable[[Supernet], None]
    tokenizer: Any


class Teacher(NamedTuple):
    """Whose answers are learned from: logits [n, classes] of a batch, for the labels in this order."""

    origin: Origin
    answer: Callable[[Batch], Tensor]
    task: Task
    labels: tuple[str, ...]


class Extras(NamedTuple):
    """What a training may be given besides its data, its space and its settings."""

    start: Start | None = None
    teacher: Teacher | None = None
    track: str | None = None
    compiled: bool = False


NOTHING_MORE = Extras()


def read_only(space: SearchSpace, given: str) -> Architecture:
    """The architecture that is to be trained alone, by a name (smallest, middle, largest), JSON, or a file of it.

    Raises:
        UsageError: it is none of these, or not a point of the space.
    """
    named = {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}
    if given in named:
        return named[given]()
    if given.lstrip().startswith("{"):
        architecture = decode_record(os.fsencode(given), Architecture, "the architecture", UsageError)
    else:
        architecture = read_record(Path(given), Architecture, UsageError)
    space.check(architecture)
    return architecture


def warnings_of(run: Run) -> list[str]:
    """What the user should know about a finished training: a mixture that has become plain sharing."""
    return mixture_warnings(curve_of(run))


def curve_of(run: Run) -> tuple[TrainingPoint, ...]:
    """The looks at a run's training."""
    return read_record(run.folder / STATE_FILE, TrainingState).curve


def train_supernet(
    project: Project,
    source: Source,
    space: SearchSpace,
    training: Training,
    *,
    extras: Extras = NOTHING_MORE,
    out: Path | None = None,
    fresh: bool = False,
    listener: ProgressListener = silent,
) -> Run:
    """Train a supernet, go on with one that was stopped, or find it finished: the same call does each.

    Where a launcher has started several processes, each makes this call and they train together.

    Raises:
        UsageError: bad data, or `out` holds another run.
        MostoolError: the loss is not finite, or memory ran out.
    """

    def read(listener: ProgressListener) -> Reading:
        return read_source(source, training, listener, extras.start.tokenizer if extras.start else None)

    return train_read(project, space, training, read, extras, out=out, fresh=fresh, listener=listener)


def train_read(
    project: Project,
    space: SearchSpace,
    training: Training,
    read: Callable[[ProgressListener], Reading],
    extras: Extras,
    *,
    out: Path | None,
    fresh: bool,
    listener: ProgressListener,
) -> Run:
    """Train on what `read` gives; see `train_supernet`."""
    with joined() as ranks:
        _check(space, training, extras)
        check_share(ranks, training.accumulate)
        if extras.track is not None:
            find_tracker(extras.track)
        heard = listener if ranks.first else silent
        reading = read(heard)
        _check_labels(reading, extras.teacher)
        digest = _digest(space, training, reading, extras)
        folder = out or project.runs / f"{space.family}-{training.task}-{digest[:6]}"
        with _held(folder, digest, fresh=fresh) if ranks.first else contextlib.nullcontext():
            if not ranks.agree((folder / CHECKPOINT_FILE).exists()):
                _train(folder, digest, space, training, reading, extras, heard, ranks)
    return Run(folder)


def _check(space: SearchSpace, training: Training, extras: Extras) -> None:
    """Settings that contradict each other."""
    translation = space.family == "translation"
    if translation != (training.task == "translate"):
        wanted = "translation" if training.task == "translate" else "bert"
        raise UsageError(
            f"a space of family {space.family!r} does not serve the task {training.task!r}",
            hint=f"name a space of the family {wanted!r}",
        )
    alone = space.point is not None
    if training.distill and extras.teacher is None and (alone or training.recipe == "single-path"):
        raise UsageError(
            "there is nobody to distill from",
            why="in place, the largest subnet of an update teaches the others",
            hint="leave --distill out, train with --recipe sandwich, or give mostool finetune a --teacher",
        )
    if extras.teacher is not None and not training.distill:
        raise UsageError("a teacher whose answers weigh nothing", hint="give --distill a weight above 0, such as 0.5")
    if extras.teacher is not None and extras.teacher.task != training.task:
        raise UsageError(
            f"the teacher was trained for the task {extras.teacher.task!r}, not {training.task!r}",
            hint="fine-tune it on the task first",
        )
    if extras.compiled and not alone:
        raise UsageError(
            "a supernet is not compiled",
            why="each of its subnets would be compiled anew, which takes longer than it saves",
            hint="--compile is for one subnet: with --only, or with mostool finetune",
        )
    if training.batch_tokens and not translation:
        raise UsageError("--batch-tokens is for translation", hint="use --batch-size")


def _check_labels(reading: Reading, teacher: Teacher | None) -> None:
    """A teacher answers with its own labels, in its own order."""
    if teacher is not None and teacher.labels != reading.labels:
        theirs, ours = (", ".join(labels[:10]) or "none" for labels in (teacher.labels, reading.labels))
        raise UsageError(
            "the teacher knows other labels than the data",
            why=f"its labels: {theirs}; the data's: {ours}",
            hint="fine-tune the teacher on the same data first",
        )


def _digest(space: SearchSpace, training: Training, reading: Reading, extras: Extras) -> str:
    """The name of exactly this training: what decides its result, and nothing else."""
    others = [extra.origin.sha256 for extra in (extras.start, extras.teacher) if extra is not None]
    return sha256_bytes(msgspec.json.encode([space, training, reading.digest, *others]))


@contextlib.contextmanager
def _held(folder: Path, digest: str, *, fresh: bool) -> Iterator[None]:
    """The run's folder, marked as this run's and locked."""
    if fresh:
        _set_run_aside(folder)
    _refuse_other(folder, digest)
    with locked(folder / "lock"):
        if not (folder / CHECKPOINT_FILE).exists():
            write_text(folder / DIGEST_FILE, digest)
        yield


def _train(
    folder: Path,
    digest: str,
    space: SearchSpace,
    training: Training,
    reading: Reading,
    extras: Extras,
    listener: ProgressListener,
    ranks: Ranks,
) -> None:
    started_at = now()
    data_folder = folder / "data"
    if ranks.first:
        reading.prepare(data_folder, listener)
    ranks.wait()
    data = text.read_prepared(data_folder)
    vocabulary_size = text.read_tokenizer(data_folder).get_vocab_size()
    resolved = declaration(space.family).resolve(
        space,
        vocabulary_size=vocabulary_size,
        labels=outputs_of(training.task, data),
        maximum_length=max(training.sequence_length, space.fixed.get("maximum_length", 0)),
    )
    looked_at = held_out_batches(data_folder, "validation", training.task, vocabulary_size, whole=False)

    def validate(supernet: Supernet, architecture: Architecture) -> Quality:
        return text.evaluate(supernet_predictor(supernet, architecture), looked_at, training.task, "validation")

    arguments = {"space": space.name, "data": data.title, **msgspec.structs.asdict(training)}
    with start_tracker(extras.track if ranks.first else None, folder, arguments) as track:
        plan = Plan(
            batches=training_batches(data_folder, training, vocabulary_size),
            validate=validate,
            start=extras.start.fill if extras.start else None,
            teacher=extras.teacher.answer if extras.teacher else None,
            looked=track,
            compiled=extras.compiled,
        )
        supernet, state = train(resolved, training, plan, folder, digest, listener, ranks)
    if ranks.first:
        info = CheckpointInfo(
            space=resolved,
            training=training,
            data=data,
            vocabulary_size=vocabulary_size,
            updates_done=state.update,
            weights=state.weights,
            weights_sha256=state.weights_sha256,
            tokenizer_sha256=sha256_file(data_folder / "tokenizer.json"),
            prepared_sha256=sha256_file(data_folder / "data.json"),
            parameters=sum(parameter.numel() for parameter in supernet.parameters()),
            metrics=state.curve[-1].quality,
            versions=versions(),
            created_at=now(),
            origin=extras.start.origin if extras.start else None,
            teacher=extras.teacher.origin if extras.teacher else None,
        )
        outputs = (folder / info.weights,)
        write_run_info(folder / "run.json", "train", arguments, started_at, inputs=data.files, outputs=outputs)
        write_record(folder / CHECKPOINT_FILE, info)
        for moments in folder.glob("optimizer-*.safetensors"):
            moments.unlink()
    ranks.wait()


def _set_run_aside(folder: Path) -> None:
    """Move a run that nobody is training out of the way; anything else stays, and `_refuse_other` says so."""
    if (folder / DIGEST_FILE).is_file():
        with locked(folder / "lock"):
            set_aside(folder.resolve())


def _refuse_other(folder: Path, digest: str) -> None:
    """A folder that holds something else is not written into."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="choose another --out")
    mark = folder / DIGEST_FILE
    if mark.is_file():
        if mark.read_bytes() != digest.encode():
            raise UsageError(
                f"{folder} holds a run with other settings, space or data",
                hint="choose another --out, or --fresh to move that run aside and start anew",
            )
    elif any(path.name != "lock" and not path.name.startswith(f".{DIGEST_FILE}.") for path in folder.iterdir()):
        raise UsageError(f"{folder} holds something that is not a run", hint="choose another --out")
