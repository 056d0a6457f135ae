"""Bring your own: a model that mostool did not make is compiled, measured and shipped like a subnet."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from toolchain import export
from toolchain.errors import IntegrityError, UsageError
from toolchain.export.preparing import opset_in, prepare_to_quantise
from toolchain.files import sha256_bytes, write_bytes
from toolchain.pipeline.brought_file import ROWS, USUAL_LENGTH, Given, file_given, with_text
from toolchain.pipeline.brought_text import SENTENCES, Asked, Words
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
    Origin,
    Quality,
    Workload,
)
from toolchain.targets import Runtime, Target


class Brought:
    """A subject of export that belongs to no run."""

    own_precision: FilePrecision = "fp32"

    def __init__(self, given: Given) -> None:
        self._given = given
        self._notes = given.notes
        self.task = given.task
        self.inputs = given.inputs
        self.maximum_length = given.maximum_length
        self.vocabulary_size = given.vocabulary_size

    def build(self, path: Path, runtime: Runtime, precision: FilePrecision, environment: Environment | None) -> Built:
        given, kind = self._given, device_kind(runtime, environment)
        if given.graphs is not None and given.marks is not None:
            return _translator(given, given.graphs, given.marks, path, precision, kind)
        options = runtime.options if runtime.engine == "onnxruntime" else {}
        checks, error = given.checks, given.error
        others: float | None = None
        if precision == "fp32":
            model, recipe = self._plain(kind)
            worst = export.check_parity(export.open_session(model, options), checks)
            error = worst if error is None else max(error, worst)
        else:
            model = _quantised(given, precision, kind)
            recipe = f"brought+{export.recipe_of(precision, **kind.as_arguments())}"
            checks, others = export.own_answers(export.open_session(model, options), checks)
        write_bytes(path, model)
        return Built(_file(given, path, model, precision, recipe, error, others), checks)  # type: ignore[arg-type]

    def _plain(self, kind: export.DeviceKind) -> tuple[bytes, str]:
        """The fp32 file that suits the device, and its recipe; where it could not be fused, that is noted."""
        if not kind.fuses or self._given.fused is None:
            return self._given.plain, "brought"
        fused = self._given.fused()
        if fused.why:
            self._notes = (*self._given.notes, f"not fused: {fused.why}")
        return fused.model, "brought+fused" if fused.attends else "brought"

    def quality(self, model: Path, built: Built, options: Mapping[str, str], split: SplitName) -> Quality | None:  # noqa: ARG002
        return None

    def precisions(self, environment: Environment) -> tuple[FilePrecision, ...]:
        possible = export.precisions_for(environment)
        return tuple(one for one in possible if self._given.graphs is None or one in TRANSLATOR_PRECISIONS)

    def candidates(self, environment: Environment) -> tuple[FilePrecision, ...]:
        raise UsageError(
            "there is nothing to judge the precisions by",
            why="a model that was brought has no held-out text",
            hint=f"choose one with --precision: {', '.join(self.precisions(environment))}",
        )

    @property
    def tokenizer(self) -> Path | None:
        return self._given.tokenizer

    @property
    def examples(self) -> Sequence[Example]:
        if self.tokenizer is None:
            return SENTENCES[:ROWS]
        return Words(self.tokenizer).examples(masked=self.task == "mlm")

    def further(self, built: Built) -> Mapping[str, bytes | Path]:
        return {**built.further, **self._given.files}

    def reference(self, scratch: Path, environment: Environment) -> tuple[Path | None, float | None]:  # noqa: ARG002
        return None, None

    @property
    def predicted_s(self) -> float | None:
        return None

    def tell(self, manifest: AnyManifest) -> AnyManifest:
        given = self._given
        origin = Origin(title=given.name, sha256=given.sha256, notes=self._notes)
        return msgspec.structs.replace(manifest, labels=given.labels, origin=origin)


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
        source = _folder(given, Path(scratch)) if given.is_dir() else file_given(given, tokenizer, length)
        workload = _workload(source, given, batch, length)
        folder = out or project.bundles / source.name
        if out is None:
            _check_place(folder, source)
        return ship(project.root, Brought(source), target, workload, folder, wanted, listener)


def _workload(given: Given, path: Path, batch: int | None, length: int | None) -> Workload:
    """One row of usual length, or as asked; of a model of one shape, that one."""
    longest = given.maximum_length
    workload = Workload(
        batch=batch or given.batch or 1, sequence_length=length or given.length or min(longest, USUAL_LENGTH)
    )
    right = (given.batch or workload.batch, given.length or min(workload.sequence_length, longest))
    if right != (workload.batch, workload.sequence_length):
        lengths = f"1 to {longest}" if given.length is None else f"{longest} alone"
        raise UsageError(
            f"batch {workload.batch} of {workload.sequence_length} tokens is no workload of {path}",
            hint=f"the length may be {lengths}" + (f", the batch is {given.batch}" if given.batch is not None else ""),
        )
    return workload


def _check_place(folder: Path, given: Given) -> None:
    """Raise UsageError where the bundle of another model has the name that this one's would have."""
    if not (folder / "manifest.json").is_file():
        return
    try:
        origin = export.read_manifest(folder).origin
    except IntegrityError:
        origin = None
    if origin is None or origin.sha256 != given.sha256:
        raise UsageError(
            f"{folder} is the bundle of another model",
            why=f"it was made of {origin.sha256[:12]}, this is {given.sha256[:12]}" if origin else "it is of a run",
            hint="choose --out, another folder",
        )


def _quantised(given: Given, precision: FilePrecision, kind: export.DeviceKind) -> bytes:
    """Raises UsageError where it cannot be."""
    if precision == "int8-static" and not given.calibration:
        raise UsageError(
            "int8-static needs real text, to see what ranges its numbers have",
            why=f"there is no tokenizer.json with {given.name}",
            hint="give its tokenizer.json with --tokenizer, or take --precision int8",
        )
    model = prepare_to_quantise(given.plain, given.checks)
    modules = export.matrix_modules(model)
    if not modules:
        raise UsageError(
            "there is nothing to quantise",
            why="the model has no product with a constant matrix",
            hint="take --precision fp32",
        )
    arguments = kind.as_arguments()
    return export.to_precision(model, precision, modules=modules, calibration=given.calibration, **arguments)


# -- a checkpoint's folder ---------------------------------------------------------------------------------------------


def _folder(folder: Path, scratch: Path) -> Given:
    made = export.export_folder(folder, scratch / "exported")
    files = {name: path for name, path in made.files.items() if not name.startswith("model.onnx")}
    name = folder.resolve().name
    if made.marks is not None:
        return _foreign_translator(made, files, name)
    assert made.checks is not None  # noqa: S101 - an encoder's
    plain, checks = made.model.read_bytes(), made.checks
    calibration: list[Asked] = []
    if made.tokenizer is not None:
        session = export.open_session(plain, {})
        checks, calibration = with_text(checks, session, made.tokenizer, made.inputs, made.maximum_length)
    return Given(
        name=name,
        task=made.task,
        plain=plain,
        checks=checks,
        calibration=calibration,
        inputs=made.inputs,
        maximum_length=made.maximum_length,
        vocabulary_size=made.vocabulary_size,
        parameters=made.parameters,
        error=made.error,
        sha256=made.sha256,
        fused=lambda: export.fuse_foreign(made._replace(checks=checks), {}),
        labels=made.labels,
        tokenizer=made.tokenizer,
        files={name: path for name, path in files.items() if name != "tokenizer.json"},
    )


def _foreign_translator(made: export.ForeignModel, files: Mapping[str, Path], name: str) -> Given:
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
    ids = np.random.default_rng(0).integers(5, made.vocabulary_size, size=(ROWS, 12))
    ids[1, 7:] = made.padding
    translation = export.Translation(made.model.parent, export.TranslationMarks(*made.marks[:3]))
    longest = min(made.maximum_length, USUAL_LENGTH) - 1

    def said(words: Any, mask: Any, most: int) -> list[list[int]]:
        return translation.beam_search(words.numpy(), mask.numpy(), most, beam=1)

    checks = export.build_token_checks(said, ids, made.marks, longest, padding=made.padding)
    return Given(
        name=name,
        task="translate",
        plain=plain,
        checks=checks,
        inputs=TRANSLATOR_INPUTS,
        maximum_length=made.maximum_length,
        vocabulary_size=made.vocabulary_size,
        parameters=made.parameters,
        error=made.error,
        sha256=made.sha256,
        graphs=shared,
        marks=made.marks,
        tokenizer=None,
        files={one: path for one, path in files.items() if not one.endswith(".onnx")},
    )


def _translator(
    given: Given,
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
    whole, parts, checks, others = given.plain, graphs, given.checks, None
    if precision == "fp32":
        export.check_parity(export.open_session(whole, {}), checks, 0.0)
    else:
        whole, parts = export.assembled(export.quantise_parts(graphs, precision, paired=kind.int8.paired), marks)  # type: ignore[arg-type]
        checks, others = export.own_answers(export.open_session(whole, {}), checks)
    write_bytes(path, whole)
    file = _file(given, path, whole, precision, "brought+assembled", given.error, others)
    return Built(file, checks, export.further_files(whole, parts))  # type: ignore[arg-type]


def _file(
    given: Given,
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
        opset=opset_in(model),
        sha256=sha256_bytes(model),
        size_bytes=len(model),
        parameters=given.parameters,
        parity_max_abs_error=error,
        quantised_max_abs_error=others,
    )
