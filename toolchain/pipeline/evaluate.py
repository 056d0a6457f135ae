"""evaluate: one subnet's quality, as the supernet, the materialized subnet or the shipped file computes it."""

from __future__ import annotations

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

    `dump_logits` gets the logits of the first batch, float32 [n, classes], as .npy.

    Raises:
        UsageError: form `bundle`, and there is no bundle of this architecture.
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
    folder = bundle or _find_bundle(project, run, architecture)
    manifest = export.read_manifest(folder)
    export.verify_files(folder, manifest)
    if manifest.files["tokenizer.json"] != run.info.tokenizer_sha256:
        raise UsageError(f"{folder} was trained with another tokenizer than this run", hint="name its run with --run")
    if manifest.artifact.architecture != architecture:
        raise UsageError(f"{folder} holds {manifest.artifact.architecture.id}, not {architecture.id}")
    return export.predictor(folder / manifest.artifact.file, manifest.options)


def _find_bundle(project: Project, run: Run, architecture: Architecture) -> Path:
    folder = project.bundles / f"{run.folder.name}-{architecture.id}"
    if not folder.is_dir():
        raise UsageError(
            f"there is no bundle of {architecture.id}",
            hint=f"build it: mostool export --arch {architecture.id}, or name one with --bundle",
        )
    return folder
