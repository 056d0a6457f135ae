"""finetune: one subnet, cut out of its supernet, trained on: on the data it knows, or on a labelled task."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import Tensor

from toolchain import text
from toolchain.errors import IntegrityError, UsageError
from toolchain.files import disk_errors, sha256_bytes, write_bytes
from toolchain.pipeline.data import Reading, Source, read_source
from toolchain.pipeline.project import CHECKPOINT_FILE, Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.train import Extras, Start, Teacher, train_read
from toolchain.progress import ProgressListener, silent
from toolchain.records import CheckpointInfo, Data, Mixture, Origin, Training, read_record
from toolchain.space import Architecture
from toolchain.supernet.module import Batch, Supernet

ALONE = Mixture(kind="plain", experts=1)
"""A subnet of its own mixes nothing."""

_ANSWERS = "head.labels."
"""The weights that answer with one label each; those before them only read."""


def find_supernet(project: Project, given: Path | None) -> Path:
    """The run to cut a subnet out of: the one given, else the newest of many subnets, else the newest.

    So the command that made a run of one subnet still means the same when it is given again.

    Raises:
        UsageError: there is none, or it was not trained to the end.
    """
    if given is not None:
        return project.find_run(given)
    found = project.find_runs()
    return next((folder for folder in found if _holds_many(folder)), found[0])


def finetune(
    project: Project,
    run: Run,
    architecture: Architecture,
    training: Training,
    *,
    source: Source | None = None,
    teacher: Teacher | None = None,
    track: str | None = None,
    compiled: bool = False,
    out: Path | None = None,
    fresh: bool = False,
    listener: ProgressListener = silent,
) -> Run:
    """Train an extracted subnet; the result is a run of that one architecture, which exports like any other.

    Without a `source` it goes on with the task and the data of `run` (the paper's additional training). With one it
    learns that labelled task, with the tokenizer of `run`; a head that does not fit the task starts anew. What bits an
    architecture names are left out: training knows fp32 alone, and export is told them again.

    Raises:
        UsageError: the data, the task or the lengths do not fit the subnet.
    """
    architecture = run.declared.without_bits(architecture)
    space = run.info.space.narrowed(architecture)
    check_fit(run, training, source)
    weights = dict(run.supernet.materialize(architecture).named_parameters())
    tokenizer = text.read_tokenizer(run.data_folder)

    def fill(supernet: Supernet) -> None:
        supernet.start_from(weights)

    def read(listener: ProgressListener) -> Reading:
        if source is None:
            return _own_data(run)
        reading = read_source(source, training, listener, tokenizer)
        if reading.labels != run.info.data.labels:
            for name in [name for name in weights if name.startswith(_ANSWERS)]:
                del weights[name]
        return reading

    extras = Extras(Start(_origin(run, architecture), fill, tokenizer), teacher, track, compiled)
    return train_read(
        project,
        space,
        msgspec.structs.replace(training, mixture=ALONE),
        read,
        extras,
        out=out,
        fresh=fresh,
        listener=listener,
    )


def read_teacher(run: Run, architecture: Architecture, student: Run, training: Training) -> Teacher:
    """A subnet of `run` as the teacher of a subnet of `student`.

    Raises:
        UsageError: the two do not read the same tokens, or the teacher not as many.
    """
    if run.info.tokenizer_sha256 != student.info.tokenizer_sha256:
        raise UsageError(
            f"{run.folder} has another tokenizer than {student.folder}",
            why="a teacher and its student must read the same tokens",
            hint="fine-tune the teacher from the same supernet first",
        )
    longest = run.info.space.fixed["maximum_length"]
    if training.sequence_length > longest:
        raise UsageError(
            f"the teacher reads {longest} tokens at most, {training.sequence_length} are to be learned from",
            hint=f"--sequence-length {longest} or less, with --data",
        )
    supernet = run.supernet
    architecture = run.declared.without_bits(architecture)
    run.info.space.check(architecture)

    def answer(batch: Batch) -> Tensor:
        with torch.no_grad():
            return supernet.to(batch.ids.device)(batch, architecture)  # type: ignore[no-any-return]  # torch's modules return Any

    return Teacher(_origin(run, architecture), answer, run.info.training.task, run.info.data.labels)


def check_fit(run: Run, training: Training, source: Source | None) -> None:
    """What is asked for fits the subnet and, where there is no `source`, the data it was trained on.

    Raises:
        UsageError: it does not.
    """
    parent, longest = run.info.training, run.info.space.fixed["maximum_length"]
    if training.sequence_length > longest:
        raise UsageError(
            f"the subnet reads {longest} tokens at most, {training.sequence_length} are asked for",
            hint=f"--sequence-length {longest} or less",
        )
    if source is None:
        if training.task != parent.task:
            raise UsageError(
                f"the data of {run.folder} are for the task {parent.task!r}, not {training.task!r}",
                hint=f"give data of the task {training.task!r} with --data",
            )
        if training.sequence_length != parent.sequence_length:
            raise UsageError(
                f"the data of {run.folder} were cut at {parent.sequence_length} tokens",
                hint="leave --sequence-length out, or give --data",
            )
    elif parent.task == "translate":
        raise UsageError(
            f"{run.folder} translates, and cannot learn another task or other data",
            hint="leave --data out: it is trained on with its own",
        )
    elif training.task not in ("classify", "regress"):
        raise UsageError(
            f"new data are for a labelled task, not {training.task!r}", hint="--task classify or regress, with --data"
        )


def _origin(run: Run, architecture: Architecture) -> Origin:
    return Origin(
        title=f"{architecture.id} of {run.folder.resolve().name}",
        sha256=sha256_bytes(f"{run.checkpoint_sha256} {architecture.id}".encode()),
    )


def _holds_many(folder: Path) -> bool:
    """Whether a run has more than one subnet; not if it cannot be read."""
    try:
        return read_record(folder / CHECKPOINT_FILE, CheckpointInfo).space.point is None
    except (IntegrityError, UsageError):
        return False


def _own_data(run: Run) -> Reading:
    """The data a run was trained on, as it lies in its folder."""

    def prepare(folder: Path, _: ProgressListener) -> Data:
        with disk_errors(folder):
            for path in sorted(run.data_folder.iterdir(), key=lambda path: path.name == "data.json"):
                if not (folder / path.name).exists():
                    write_bytes(folder / path.name, path.read_bytes())
        return text.read_prepared(folder)

    return Reading(run.info.data.sha256, prepare, run.info.data.labels)
