"""finetune: one subnet, cut out of its supernet, trained on: on the data it knows, or on a labelled task."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import Tensor

from toolchain import text
from toolchain.errors import UsageError
from toolchain.files import disk_errors, sha256_bytes, write_bytes
from toolchain.pipeline.data import Reading, Source, read_source
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.train import Extras, Start, Teacher, train_read
from toolchain.progress import ProgressListener, silent
from toolchain.records import Data, Mixture, Origin, Training
from toolchain.space import Architecture
from toolchain.supernet.module import Batch, Supernet

ALONE = Mixture(kind="plain", experts=1)
"""A subnet of its own mixes nothing."""


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
    learns that labelled task, with the tokenizer of `run`; a head that does not fit the task starts anew.

    Raises:
        UsageError: the data, the task or the lengths do not fit the subnet.
    """
    space, parent = run.info.space.narrowed(architecture), run.info.training
    longest = space.fixed["maximum_length"]
    if training.sequence_length > longest:
        raise UsageError(
            f"the subnet reads {longest} tokens at most, {training.sequence_length} are asked for",
            hint=f"--sequence-length {longest} or less",
        )
    if source is None and training.task != parent.task:
        raise UsageError(
            f"the data of {run.folder} is for the task {parent.task!r}", hint="give --data for another task"
        )
    if source is not None and (training.task not in ("classify", "regress") or parent.task == "translate"):
        raise UsageError(
            "new data is for an encoder and a labelled task", hint="--task classify or regress, with --data FILE"
        )
    origin = Origin(
        title=f"{architecture.id} of {run.folder.name}",
        sha256=sha256_bytes(f"{run.checkpoint_sha256} {architecture.id}".encode()),
    )
    weights = dict(run.supernet.materialize(architecture).named_parameters())

    def fill(supernet: Supernet) -> None:
        supernet.start_from(weights)

    tokenizer = text.read_tokenizer(run.data_folder)
    extras = Extras(Start(origin, fill, tokenizer), teacher, track, compiled)

    def read(listener: ProgressListener) -> Reading:
        return _own_data(run) if source is None else read_source(source, training, listener, tokenizer)

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


def read_teacher(run: Run, architecture: Architecture, student: Run) -> Teacher:
    """A subnet of `run` as the teacher of a subnet of `student`.

    Raises:
        UsageError: the two do not read the same tokens.
    """
    if run.info.tokenizer_sha256 != student.info.tokenizer_sha256:
        raise UsageError(
            f"{run.folder} has another tokenizer than {student.folder}",
            why="a teacher and its student must read the same tokens",
            hint="fine-tune the teacher from the same supernet first",
        )
    supernet = run.supernet

    def answer(batch: Batch) -> Tensor:
        with torch.no_grad():
            return supernet.to(batch.ids.device)(batch, architecture)  # type: ignore[no-any-return]  # torch's modules return Any

    title = f"{architecture.id} of {run.folder.name}"
    return Teacher(
        Origin(title=title, sha256=sha256_bytes(f"{run.checkpoint_sha256} {architecture.id}".encode())),
        answer,
        run.info.training.task,
        run.info.data.labels,
    )


def _own_data(run: Run) -> Reading:
    """The data a run was trained on, as it lies in its folder."""

    def prepare(folder: Path, _: ProgressListener) -> Data:
        with disk_errors(folder):
            for path in sorted(run.data_folder.iterdir(), key=lambda path: path.name == "data.json"):
                if not (folder / path.name).exists():
                    write_bytes(folder / path.name, path.read_bytes())
        return text.read_prepared(folder)

    return Reading(run.info.data.sha256, prepare)
