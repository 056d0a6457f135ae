"""train: text in, a trained supernet out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain import text
from toolchain.errors import UsageError, unknown_name
from toolchain.files import locked, set_aside, sha256_bytes, sha256_file, write_text
from toolchain.pipeline.project import CHECKPOINT_FILE, Project, versions, write_run_info
from toolchain.pipeline.runs import Run
from toolchain.progress import ProgressListener, silent
from toolchain.records import CheckpointInfo, Data, Quality, Training, now, write_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.supernet.inference import supernet_predictor
from toolchain.supernet.module import Supernet
from toolchain.supernet.train import train

DIGEST_FILE = "digest"
_LARGEST_SPACE_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


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
        if path.name != given or path.suffix:
            raise UsageError(
                f"there is no file {given}", hint=f"check the path, or name one: {_names(declared.SPACES)}"
            )
        raise unknown_name("space", given, declared.SPACES)
    with path.open("rb") as stream:
        data = stream.read(_LARGEST_SPACE_BYTES + 1)
    if len(data) > _LARGEST_SPACE_BYTES:
        raise UsageError(f"{path} is too large to be a space", hint="a space is a few lines of TOML: is it that file?")
    try:
        space = msgspec.toml.decode(data.removeprefix(b"\xef\xbb\xbf"), type=SearchSpace)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not a valid space", why=str(error), hint="the README shows one") from error
    if space.family != family:
        raise UsageError(f"{path} is a space of family {space.family!r}", hint=f"add --family {space.family}")
    if not _PLAIN_NAME.fullmatch(space.name):
        raise UsageError(
            f"{path} names its space {space.name!r}", hint="letters, digits, - and _ only: folders are named after it"
        )
    declared.check_space(space)
    return space


def _names(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))


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
        _set_run_aside(folder)
    _refuse_other(folder, digest)
    with locked(folder / "lock"):
        if (folder / CHECKPOINT_FILE).exists():
            return Run(folder)
        write_text(folder / DIGEST_FILE, digest)
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
        arguments = {"space": space.name, "data": data.title, **msgspec.structs.asdict(training)}
        outputs = (folder / info.weights,)
        write_run_info(folder / "run.json", "train", arguments, started_at, inputs=data.files, outputs=outputs)
        write_record(folder / CHECKPOINT_FILE, info)
        for moments in folder.glob("optimizer-*.safetensors"):
            moments.unlink()
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
        prepared_sha256=sha256_file(data_folder / "data.json"),
        parameters=sum(parameter.numel() for parameter in supernet.parameters()),
        metrics=state.curve[-1].quality,
        versions=versions(),
        created_at=now(),
    )


def _read(source: Source, task: str, listener: ProgressListener) -> tuple[text.Corpus, text.Corpus | None]:
    if not source.data:
        _refuse_idle(source, "goes with --data", ("validation", "text_column", "label_column"))
        return text.read_prose(listener), None
    if task == "mlm":
        _refuse_idle(source, "goes with --task classify", ("text_column", "label_column"))

    def read(paths: Sequence[Path]) -> text.Corpus:
        if task == "mlm":
            return text.read_documents(paths)
        return text.read_labelled(paths, source.text_column, source.label_column)

    return read(source.data), read(source.validation) if source.validation else None


def _refuse_idle(source: Source, rule: str, names: Sequence[str]) -> None:
    """An option that would be read by nobody is a mistake."""
    flags = {"validation": "--valid", "text_column": "--text-column", "label_column": "--label-column"}
    for name in names:
        if getattr(source, name):
            raise UsageError(f"{flags[name]} {rule}", hint=f"add what it needs, or leave {flags[name]} out")


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
