"""evaluate: one subnet's quality, as the supernet, the materialized subnet or the shipped file computes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from toolchain import export
from toolchain.errors import UsageError
from toolchain.files import replacing, write_text
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run, SplitName
from toolchain.pipeline.translate import translate
from toolchain.progress import ProgressListener, silent
from toolchain.records import Quality
from toolchain.space import Architecture
from toolchain.supernet.inference import Predict

Form = Literal["supernet", "subnet", "bundle"]


class Words(NamedTuple):
    """How a translation is found (1: greedily, else by beam search), of how many items, and the file to write it to."""

    beam: int = 1
    limit: int | None = None
    dump: Path | None = None


class Evaluated(NamedTuple):
    """A subnet's quality, and the form it was asked in."""

    architecture: Architecture
    form: Form
    quality: Quality
    built: bool
    """Whether there was no bundle, and the file was built for this."""
    bits_ignored: bool = False
    """Whether the architecture has bits that this form, which is fp32, knows nothing of."""


def evaluate(
    project: Project,
    run: Run,
    architecture: Architecture,
    form: Form,
    split: SplitName,
    *,
    bundle: Path | None = None,
    dump_logits: Path | None = None,
    words: Words | None = None,
    listener: ProgressListener = silent,
) -> Evaluated:
    """The same metric on the same data from each form, so that "what was searched is what ships" can be checked.

    Form `bundle` is the bundle given, else the architecture's in bundles/, else the file export would put into it.
    The supernet and the subnet are fp32; only the file has what bits an architecture names.
    `dump_logits` gets the logits of the first batch, float32 [n, classes], as .npy. A translation is judged by what it
    says, word by word: `words` says how.

    Raises:
        UsageError: the bundle given is of another architecture or run.
        IntegrityError: the bundle was tampered with.
    """
    if run.info.training.task == "translate":
        return _translated(run, architecture, form, split, dump_logits, words or Words(), listener)
    if words is not None:
        raise UsageError(f"{run.folder} does not translate", hint="leave --beam, --limit and --dump-text out")
    folder = _find_bundle(project, run, architecture, bundle) if form == "bundle" else None
    predict = _predict(run, architecture, form, folder)
    if dump_logits is not None:
        with replacing(dump_logits) as part, part.open("wb") as stream:
            np.save(stream, predict(run.batches(split)[0]), allow_pickle=False)
    built = form == "bundle" and folder is None
    ignored = form != "bundle" and bool(run.declared.int8_modules(architecture))
    return Evaluated(architecture, form, run.quality(predict, split), built=built, bits_ignored=ignored)


def _translated(
    run: Run,
    architecture: Architecture,
    form: Form,
    split: SplitName,
    dump_logits: Path | None,
    words: Words,
    listener: ProgressListener,
) -> Evaluated:
    if form == "bundle":
        raise UsageError("a translation model has no bundle yet", hint="--source subnet or supernet")
    if dump_logits is not None:
        with replacing(dump_logits) as part, part.open("wb") as stream:
            np.save(stream, _predict(run, architecture, form, None)(run.batches(split)[0]), allow_pickle=False)
    done = translate(run, architecture, form, split, beam=words.beam, limit=words.limit, listener=listener)
    if words.dump is not None:
        write_text(words.dump, "".join(f"{line}\n" for line in done.hypotheses))
    return Evaluated(architecture, form, done.quality, built=False)


def _find_bundle(project: Project, run: Run, architecture: Architecture, given: Path | None) -> Path | None:
    """The bundle that is meant; None where the architecture has none of this very run."""
    folder = given or project.bundle_folder(run.folder, architecture)
    if given is None and not folder.is_dir():
        return None
    manifest = export.read_subnet_manifest(folder)
    if manifest.checkpoint_sha256 != run.checkpoint_sha256:
        if given is None:
            return None
        raise UsageError(f"{folder} was not made from {run.folder}", hint="name its run with --run")
    if manifest.artifact.architecture != architecture:
        raise UsageError(
            f"{folder} holds {manifest.artifact.architecture.id}, not {architecture.id}",
            hint="leave --arch out, and the bundle says which it is",
        )
    return folder


def _predict(run: Run, architecture: Architecture, form: Form, bundle: Path | None) -> Predict:
    if form == "supernet":
        return run.supernet_predict(run.declared.without_bits(architecture))
    if form == "subnet":
        return run.subnet_predict(run.declared.without_bits(architecture))
    if bundle is not None:
        manifest = export.read_manifest(bundle)
        export.verify_files(bundle, manifest)
        return export.predictor(bundle / manifest.artifact.file, manifest.options)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        run.build(architecture, model)
        return export.predictor(model, {})
