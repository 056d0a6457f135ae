"""train: text in, a trained supernet out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain import text
from toolchain.errors import UsageError, unknown_name
from toolchain.files import locked, set_aside, sha256_bytes, sha256_file
from toolchain.pipeline.project import CHECKPOINT_FILE, Project, versions, write_run_info
from toolchain.pipeline.runs import Run
from toolchain.progress import ProgressListener, silent
from toolchain.records import CheckpointInfo, Data, Quality, Training, now, write_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.supernet.inference import supernet_predictor
from toolchain.supernet.module import Supernet
from toolchain.supernet.train import train

_LARGEST_SPACE_BYTES = 1 << 20


class Source(NamedTuple):
    """Where the text comes from: files or folders, or (none given) the prose of this machine's own Python."""

    data: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    text_column: str | None = None
    label_column: str | None = None


def read_space(family: str, given: str) -> SearchSpace:
    """A shipped space by name, or one from a TOML file.

    Raises:
        UsageError: neither, or it does not describe the family.
    """
    declared = declaration(family)
    if given in declared.SPACES:
        return declared.SPACES[given]
    path = Path(given)
    if not path.is_file():
        raise unknown_name("space", given, declared.SPACES)
    data = path.read_bytes()
    if len(data) > _LARGEST_SPACE_BYTES:
        raise UsageError(f"{path} is too large to be a space")
    try:
        space = msgspec.toml.decode(data, type=SearchSpace)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not a valid space", why=str(error), hint="the README shows one") from error
    if space.family != family:
        raise UsageError(f"{path} is a space of family {space.family!r}", hint=f"add --family {space.family}")
    declared.check_space(space)
    return space


def train_supernet(
    project: Project,
    source: Source,
    space: SearchSpace,
    training: Training,
    *,
    out: Path | None = None,
    fresh: bool = False,
    listener: ProgressListener = silent,
) -> Run:
    """Train a supernet, go on with one that was stopped, or find it finished: the same call does each.

    Raises:
        UsageError: bad data, or `out` holds another run.
        MostoolError: the loss is not finite.
    """
    started_at = now()
    corpus, held_out = _read(source, training.task, listener)
    data_digest = text.data_digest(
        corpus,
        task=training.task,
        sequence_length=training.sequence_length,
        vocabulary_size=training.vocabulary_size,
        seed=training.seed,
        held_out=held_out,
    )
    digest = sha256_bytes(msgspec.json.encode([space, training, data_digest]))
    folder = out or project.runs / f"{space.family}-{training.task}-{digest[:6]}"
    if fresh:
        set_aside(folder)
    _refuse_other(folder, digest)
    with locked(folder / "lock"):
        if (folder / CHECKPOINT_FILE).exists():
            return Run(folder)
        (folder / "digest").write_text(digest)
        data = text.prepare(
            corpus,
            task=training.task,
            sequence_length=training.sequence_length,
            vocabulary_size=training.vocabulary_size,
            seed=training.seed,
            folder=folder / "data",
            listener=listener,
            held_out=held_out,
        )
        info = _train(folder, digest, space, training, data, listener)
        write_record(folder / CHECKPOINT_FILE, info)
        for moments in folder.glob("optimizer-*.safetensors"):
            moments.unlink()
        arguments = {"space": space.name, "data": data.title, **msgspec.structs.asdict(training)}
        outputs = (folder / CHECKPOINT_FILE, folder / info.weights)
        write_run_info(folder / "run.json", "train", arguments, started_at, inputs=data.files, outputs=outputs)
    return Run(folder)


def _train(
    folder: Path, digest: str, space: SearchSpace, training: Training, data: Data, listener: ProgressListener
) -> CheckpointInfo:
    data_folder = folder / "data"
    vocabulary_size = text.read_tokenizer(data_folder).get_vocab_size()
    declared = declaration(space.family)
    resolved = declared.resolve(
        space, vocabulary_size=vocabulary_size, labels=len(data.labels), maximum_length=training.sequence_length
    )
    looked_at = text.evaluation_batches(
        text.read_split(data_folder, "validation"), training.task, vocabulary_size, whole=False
    )

    def validate(supernet: Supernet, architecture: Architecture) -> Quality:
        return text.evaluate(supernet_predictor(supernet, architecture), looked_at, training.task, "validation")

    supernet, state = train(
        resolved,
        training,
        text.TrainingBatches(text.read_split(data_folder, "train"), training, vocabulary_size),
        validate,
        folder,
        digest,
        listener,
    )
    return CheckpointInfo(
        space=resolved,
        training=training,
        data=data,
        vocabulary_size=vocabulary_size,
        updates_done=state.update,
        weights=state.weights,
        weights_sha256=state.weights_sha256,
        tokenizer_sha256=sha256_file(data_folder / "tokenizer.json"),
        parameters=sum(parameter.numel() for parameter in supernet.parameters()),
        metrics=state.curve[-1].quality,
        versions=versions(),
        created_at=now(),
    )


def _read(source: Source, task: str, listener: ProgressListener) -> tuple[text.Corpus, text.Corpus | None]:
    if not source.data:
        return text.read_prose(listener), None

    def read(paths: Sequence[Path]) -> text.Corpus:
        if task == "mlm":
            return text.read_documents(paths)
        return text.read_labelled(paths, source.text_column, source.label_column)

    return read(source.data), read(source.validation) if source.validation else None


def _refuse_other(folder: Path, digest: str) -> None:
    """A folder that holds something else is not written into."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="choose another --out")
    mark = folder / "digest"
    if mark.is_file():
        if mark.read_text() != digest:
            raise UsageError(
                f"{folder} holds a run with other settings, space or data",
                hint="choose another --out, or --fresh to move that run aside and start anew",
            )
    elif any(path.name != "lock" for path in folder.iterdir()):
        raise UsageError(f"{folder} holds something that is not a run", hint="choose another --out")
