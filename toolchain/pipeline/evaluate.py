"""evaluate: one subnet's quality, as the supernet, the materialized subnet or the shipped file computes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from toolchain import export
from toolchain.errors import UsageError
from toolchain.files import replacing
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run, SplitName
from toolchain.records import Quality
from toolchain.space import Architecture
from toolchain.supernet.inference import Predict

Form = Literal["supernet", "subnet", "bundle"]


class Evaluated(NamedTuple):
    """A subnet's quality, and the form it was asked in."""

    architecture: Architecture
    form: Form
    quality: Quality


def evaluate(
    project: Project,
    run: Run,
    architecture: Architecture,
    form: Form,
    split: SplitName,
    *,
    bundle: Path | None = None,
    dump_logits: Path | None = None,
) -> Evaluated:
    """The same metric on the same data from each form, so that "what was searched is what ships" can be checked.

    Form `bundle` is the bundle given, else the architecture's in bundles/, else the file export would put into it.
    `dump_logits` gets the logits of the first batch, float32 [n, classes], as .npy.

    Raises:
        UsageError: the bundle given is of another architecture or run.
        IntegrityError: the bundle was tampered with.
    """
    predict = _predict(project, run, architecture, form, bundle)
    if dump_logits is not None:
        with replacing(dump_logits) as part, part.open("wb") as stream:
            np.save(stream, predict(run.batches(split)[0]), allow_pickle=False)
    return Evaluated(architecture, form, run.quality(predict, split))


def _predict(project: Project, run: Run, architecture: Architecture, form: Form, bundle: Path | None) -> Predict:
    if form == "supernet":
        return run.supernet_predict(architecture)
    if form == "subnet":
        return run.subnet_predict(architecture)
    folder = bundle or project.bundle_folder(run.folder, architecture)
    if bundle is None and not folder.is_dir():
        return _file_predict(run, architecture)
    manifest = export.read_manifest(folder)
    export.verify_files(folder, manifest)
    if bundle is None and manifest.checkpoint_sha256 != run.checkpoint_sha256:
        return _file_predict(run, architecture)  # the bundle there is of a run that was trained anew since
    if manifest.files["tokenizer.json"] != run.info.tokenizer_sha256:
        raise UsageError(f"{folder} was trained with another tokenizer than this run", hint="name its run with --run")
    if manifest.artifact.architecture != architecture:
        raise UsageError(
            f"{folder} holds {manifest.artifact.architecture.id}, not {architecture.id}",
            hint="leave --arch out, and the bundle says which it is",
        )
    return export.predictor(folder / manifest.artifact.file, manifest.options)


def _file_predict(run: Run, architecture: Architecture) -> Predict:
    """Logits of the file as export builds it."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        run.build(architecture, model, {})
        return export.predictor(model, {})
