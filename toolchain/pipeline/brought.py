"""Bring your own: a model that mostool did not make is compiled, measured and shipped like a subnet."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from toolchain import export
from toolchain.errors import ParityError, UsageError
from toolchain.files import sha256_bytes, write_bytes
from toolchain.pipeline.compiling import TRANSLATOR_PRECISIONS, Built, device_kind
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import SplitName
from toolchain.pipeline.shipped import Exported
from toolchain.pipeline.shipping import Wanted, ship
from toolchain.pipeline.subjects import Example
from toolchain.progress import ProgressListener, silent
from toolchain.records import (
    TRANSLATOR_INPUTS,
    AnyManifest,
    Environment,
    FilePrecision,
    ModelFile,
    ModelInput,
    ModelTask,
    Origin,
    Quality,
    Workload,
)
from toolchain.targets import Runtime, Target

_USUAL_LENGTH = 128
_ROWS = 4
_EXAMPLES: tuple[str, ...] = (
    "The cable car runs from the harbour to the old fort every ten minutes.",
    "Nobody in the village had seen so much snow in October before.",
    "She opened the letter, read it twice and put it back into the drawer.",
    "Two of the three bridges are closed until the engineers have looked at them.",
)
"""What it is asked, besides random words, where its tokenizer is here."""


class Source(NamedTuple):
    """A model as it was brought.

    Attributes:
        plain: its fp32 file, portable; of a translation model the one that translates in one call.
        checks: what that answers, or what the model in transformers does.
        fused: the same in fewer operators, for ONNX Runtime on a processor.
        graphs: of a translation model, the three that ship beside it.
        files: what else ships, by name.
    """

    name: str
    task: ModelTask
    plain: bytes
    checks: export.Checks
    inputs: tuple[ModelInput, ...]
    maximum_length: int
    vocabulary_size: int
    parameters: int
    opset: int
    error: float | None
    sha256: str
    fused: Callable[[], bytes]
    graphs: export.Parts | None = None
    marks: export.Marks | None = None
    labels: tuple[str, ...] = ()
    tokenizer: Path | None = None
    files: Mapping[str, Path] = {}
    pairs: bool = False
    batch: int | None = None


class Brought:
    """A subject of export that belongs to no run."""

    own_precision: FilePrecision = "fp32"

    def __init__(self, source: Source) -> None:
        self._source = source
        self.task = source.task
        self.inputs = source.inputs
        self.maximum_length = source.maximum_length
        self.vocabulary_size = source.vocabulary_size

    def build(self, path: Path, runtime: Runtime, precision: FilePrecision, environment: Environment | None) -> Built:
        source, kind = self._source, device_kind(runtime, environment)
        if source.graphs is not None and source.marks is not None:
            return _translator(source, source.graphs, source.marks, path, precision, kind)
        recipe = "brought"
        if precision == "fp32":
            model = source.fused() if kind.fuses else source.plain
            recipe += "+fused" if kind.fuses and model != source.plain else ""
        else:
            modules = export.matrix_modules(source.plain)
            model = export.to_precision(
                source.plain, precision, modules=modules, calibration=source.checks.inputs, **kind.as_arguments()
            )
            recipe += "+" + export.recipe_of(precision, **kind.as_arguments())
        options = runtime.options if runtime.engine == "onnxruntime" else {}
        checks, error = source.checks, source.error
        others: float | None = None
        if precision == "fp32":
            worst = export.check_parity(export.open_session(model, options), checks, _allowed(checks))
            error = worst if error is None else max(error, worst)
        else:
            checks, others = export.own_answers(export.open_session(model, options), checks)
        write_bytes(path, model)
        return Built(_file(source, path, model, precision, recipe, error, others), checks)  # type: ignore[arg-type]

    def quality(self, model: Path, built: Built, options: Mapping[str, str], split: SplitName) -> Quality | None:  # noqa: ARG002
        return None

    def precisions(self, environment: Environment) -> tuple[FilePrecision, ...]:
        possible = export.precisions_for(environment)
        return tuple(one for one in possible if self._source.graphs is None or one in TRANSLATOR_PRECISIONS)

    def candidates(self, environment: Environment) -> tuple[FilePrecision, ...]:
        raise UsageError(
            "there is nothing to judge the precisions by",
            why="a model that was brought has no held-out text",
            hint=f"choose one with --precision: {', '.join(self.precisions(environment))}",
        )

    @property
    def tokenizer(self) -> Path | None:
        return self._source.tokenizer

    @property
    def examples(self) -> Sequence[Example]:
        return _EXAMPLES

    def further(self, built: Built) -> Mapping[str, bytes | Path]:
        return {**built.further, **self._source.files}

    def reference(self, scratch: Path, environment: Environment) -> tuple[Path | None, float | None]:  # noqa: ARG002
        return None, None

    @property
    def predicted_s(self) -> float | None:
        return None

    def tell(self, manifest: AnyManifest) -> AnyManifest:
        source = self._source
        origin = Origin(title=source.name, sha256=source.sha256)
        return msgspec.structs.replace(manifest, labels=source.labels, origin=origin)


def export_brought(
    project: Project,
    given: Path,
    target: Target,
    wanted: Wanted,
    *,
    tokenizer: Path | None = None,
    batch: int | None = None,
    length: int | None = None,
    out: Path | None = None,
    listener: ProgressListener = silent,
) -> Exported:
    """Compile an ONNX file or the folder of a Hugging Face checkpoint for a device, measure it there, and ship it.

    Raises:
        UsageError: it is no model that can be compiled; what cannot be run is named.
        IntegrityError: it is damaged, or leads out of its folder.
        ParityError: what was compiled answers otherwise than what was given; nothing is written.
        DeviceError: it does not run on the device.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = _folder(given, Path(scratch)) if given.is_dir() else _file_given(given, tokenizer, length)
        longest = source.maximum_length
        workload = Workload(batch=batch or source.batch or 1, sequence_length=length or min(longest, _USUAL_LENGTH))
        if workload.sequence_length > longest or (source.batch or workload.batch) != workload.batch:
            raise UsageError(
                f"batch {workload.batch} of {workload.sequence_length} tokens is no workload of {given}",
                hint=f"the length may be 1 to {longest}"
                + (f", the batch is {source.batch}" if source.batch is not None else ""),
            )
        folder = out or project.bundles / source.name
        return ship(project.root, Brought(source), target, workload, folder, wanted, listener)


# -- an ONNX file ------------------------------------------------------------------------------------------------------


def _file_given(path: Path, tokenizer: Path | None, length: int | None) -> Source:
    found = export.read_brought(path)
    beside = path.parent / "tokenizer.json"
    words = tokenizer or (beside if beside.is_file() else None)
    if tokenizer is not None and not tokenizer.is_file():
        raise UsageError(f"there is no file {tokenizer}", hint="--tokenizer takes the path of a tokenizer.json")
    longest = found.length or _longest(found, length)
    inputs = _questions(
        found.inputs, found.batch or _ROWS, longest, found.vocabulary_size, fixed=found.length is not None
    )
    session = export.open_session(found.model, {})
    checks = export.Checks(inputs, [session.run(None, dict(one))[0] for one in inputs])
    export.check_parity(session, checks)  # its own answers are finite, and always the same
    return Source(
        name=path.stem if path.stem != "model" else path.resolve().parent.name,
        task="encode",
        plain=found.model,
        checks=checks,
        inputs=found.inputs,
        maximum_length=longest,
        vocabulary_size=found.vocabulary_size,
        parameters=found.parameters,
        opset=found.opset,
        error=None,
        sha256=sha256_bytes(found.model),
        fused=lambda: _fused(found.model, checks),
        tokenizer=words,
        batch=found.batch,
    )


def _longest(found: export.BroughtFile, asked: int | None) -> int:
    """How long its texts may be: as long as was asked, else the longest of usual length that it answers to.

    Raises:
        UsageError: it does not answer to any, or not to the length asked for.
    """
    session = export.open_session(found.model, {})

    def answers(tokens: int) -> bool:
        (one,) = _questions(found.inputs, found.batch or 1, tokens, found.vocabulary_size, fixed=True)[:1]
        with contextlib.suppress(*export.RUNTIME_ERRORS):
            session.run(None, one)
            return True
        return False

    if asked is not None and not answers(asked):
        raise UsageError(f"the model does not run on {asked} tokens", hint="give a smaller --length")
    if asked is not None or answers(_USUAL_LENGTH):
        return asked or _USUAL_LENGTH
    runs, fails = 0, _USUAL_LENGTH
    while fails - runs > 1:
        middle = (runs + fails) // 2
        runs, fails = (middle, fails) if answers(middle) else (runs, middle)
    if runs == 0:
        raise UsageError("the model does not run on any number of tokens", hint="does it need other inputs?")
    return runs


def _questions(
    inputs: Sequence[ModelInput], rows: int, longest: int, vocabulary_size: int, *, fixed: bool
) -> list[dict[str, npt.NDArray[np.int64]]]:
    """Random words: all that fit, and where any length will do one, two and few; whole, padded and with holes."""
    rng = np.random.default_rng(0)
    asked = []
    for tokens in (longest,) if fixed else dict.fromkeys((longest, 1, min(2, longest), max(1, longest // 3))):
        ids = rng.integers(min(5, vocabulary_size - 1), vocabulary_size, size=(rows, tokens))
        whole = np.ones_like(ids)
        left, right, holes = whole.copy(), whole.copy(), whole.copy()
        left[:, : tokens // 3], right[:, tokens - tokens // 3 :], holes[:, 1::3] = 0, 0, 0
        for mask in (whole, left, right, holes):
            known = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
            asked.append({one.name: known[one.role].astype(one.dtype) for one in inputs})
            if "mask" not in {one.role for one in inputs}:
                break
    return asked


def _fused(plain: bytes, checks: export.Checks) -> bytes:
    """In fewer operators, where what that makes answers the same; as it was, where it does not."""
    model = export.fuse(plain)
    try:
        export.check_parity(export.open_session(model, {}), checks, _allowed(checks))
    except ParityError:
        return plain
    return model


def _allowed(checks: export.Checks) -> float:
    """The tolerance of answers that may be large: hidden states of a foreign model are not scaled like logits."""
    return export.TOLERANCE * max(1.0, *(float(np.abs(one).max()) for one in checks.expected))


# -- a checkpoint's folder ---------------------------------------------------------------------------------------------


def _folder(folder: Path, scratch: Path) -> Source:
    made = export.export_folder(folder, scratch / "exported")
    files = {name: path for name, path in made.files.items() if not name.startswith("model.onnx")}
    name = folder.resolve().name
    if made.marks is not None:
        return _foreign_translator(made, files, name)
    assert made.checks is not None  # noqa: S101 - an encoder's
    return Source(
        name=name,
        task=made.task,
        plain=made.model.read_bytes(),
        checks=made.checks,
        inputs=made.inputs,
        maximum_length=made.maximum_length,
        vocabulary_size=made.vocabulary_size,
        parameters=made.parameters,
        opset=made.opset,
        error=made.error,
        sha256=made.sha256,
        fused=lambda: export.fuse_foreign(made, {}).model,
        labels=made.labels,
        tokenizer=made.tokenizer,
        files={name: path for name, path in files.items() if name != "tokenizer.json"},
    )


def _foreign_translator(made: export.ForeignModel, files: Mapping[str, Path], name: str) -> Source:
    """Its three graphs as one that translates in one call, which must say what they say."""
    assert made.marks is not None  # noqa: S101
    if made.marks.forced is not None:
        raise UsageError(
            f"{name} begins each translation with the word of its language",
            why="which a model that translates in one call cannot be told yet",
            hint="take a model of one pair of languages, such as Marian's",
        )
    graphs = export.Parts(*(made.files[one].read_bytes() for one in export.GRAPHS))
    plain, shared = export.assembled(graphs, made.marks)
    ids = np.random.default_rng(0).integers(5, made.vocabulary_size, size=(_ROWS, 12))
    ids[1, 7:] = made.padding
    translation = export.Translation(made.model.parent, export.TranslationMarks(*made.marks[:3]))
    longest = min(made.maximum_length, _USUAL_LENGTH) - 1

    def said(words: Any, mask: Any, most: int) -> list[list[int]]:
        return translation.beam_search(words.numpy(), mask.numpy(), most, beam=1)

    checks = export.build_token_checks(said, ids, made.marks, longest, padding=made.padding)
    return Source(
        name=name,
        task="translate",
        plain=plain,
        checks=checks,
        inputs=TRANSLATOR_INPUTS,
        maximum_length=made.maximum_length,
        vocabulary_size=made.vocabulary_size,
        parameters=made.parameters,
        opset=made.opset,
        error=made.error,
        sha256=made.sha256,
        fused=lambda: plain,
        graphs=shared,
        marks=made.marks,
        tokenizer=None,
        files={one: path for one, path in files.items() if not one.endswith(".onnx")},
    )


def _translator(
    source: Source,
    graphs: export.Parts,
    marks: export.Marks,
    path: Path,
    precision: FilePrecision,
    kind: export.DeviceKind,
) -> Built:
    if not kind.fuses or precision not in TRANSLATOR_PRECISIONS:
        raise UsageError(
            f"a translation model has no {precision} file for {kind.engine} {kind.provider}".rstrip(),
            hint=f"on onnxruntime's CPU it has {', '.join(TRANSLATOR_PRECISIONS)}",
        )
    whole, parts, checks, others = source.plain, graphs, source.checks, None
    if precision == "fp32":
        export.check_parity(export.open_session(whole, {}), checks, 0.0)
    else:
        whole, parts = export.assembled(export.quantise_parts(graphs, precision, paired=kind.int8.paired), marks)  # type: ignore[arg-type]
        checks, others = export.own_answers(export.open_session(whole, {}), checks)
    write_bytes(path, whole)
    file = _file(source, path, whole, precision, "brought+assembled", source.error, others)
    return Built(file, checks, export.further_files(whole, parts))  # type: ignore[arg-type]


def _file(
    source: Source,
    path: Path,
    model: bytes,
    precision: FilePrecision,
    recipe: str,
    error: float | None,
    others: float | None,
) -> ModelFile:
    return ModelFile(
        file=path.name,
        format="onnx",
        precision=precision,
        recipe=recipe,
        opset=source.opset,
        sha256=sha256_bytes(model),
        size_bytes=len(model),
        parameters=source.parameters,
        parity_max_abs_error=error,
        quantised_max_abs_error=others,
    )
