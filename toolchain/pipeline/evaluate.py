"""evaluate: one subnet's quality, as the supernet, the materialized subnet or the shipped file computes it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from toolchain import export
from toolchain.errors import UsageError
from toolchain.files import replacing, write_bytes, write_text
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run, SplitName
from toolchain.pipeline.shipping import MODEL_FILE
from toolchain.pipeline.translate import of_files, translate, translate_files
from toolchain.progress import ProgressListener, silent
from toolchain.records import Manifest, Quality
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
    translates = run.info.training.task == "translate"
    if words is not None and not translates:
        raise UsageError(f"{run.folder} does not translate", hint="leave --beam, --limit and --dump-text out")
    folder = _find_bundle(project, run, architecture, bundle) if form == "bundle" else None
    built = form == "bundle" and folder is None
    if translates:
        quality = _translated(run, architecture, form, split, folder, dump_logits, words or Words(), listener)
        return Evaluated(architecture, form, quality, built=built)
    predict = _predict(run, architecture, form, folder)
    if dump_logits is not None:
        _dump(predict, run, split, dump_logits)
    ignored = form != "bundle" and bool(run.declared.int8_modules(architecture))
    return Evaluated(architecture, form, run.quality(predict, split), built=built, bits_ignored=ignored)


def _translated(
    run: Run,
    architecture: Architecture,
    form: Form,
    split: SplitName,
    bundle: Path | None,
    dump_logits: Path | None,
    words: Words,
    listener: ProgressListener,
) -> Quality:
    if form == "bundle":
        with _files(run, architecture, bundle) as (folder, model, options):
            if dump_logits is not None:
                _dump(of_files(run, folder, options, model=model).predict, run, split, dump_logits)
            done = translate_files(
                run, folder, options, split, model=model, beam=words.beam, limit=words.limit, listener=listener
            )
    else:
        if dump_logits is not None:
            _dump(_predict(run, architecture, form, None), run, split, dump_logits)
        done = translate(run, architecture, form, split, beam=words.beam, limit=words.limit, listener=listener)
    if words.dump is not None:
        write_text(words.dump, "".join(f"{line}\n" for line in done.hypotheses))
    return done.quality


def _dump(predict: Predict, run: Run, split: SplitName, path: Path) -> None:
    with replacing(path) as part, part.open("wb") as stream:
        np.save(stream, predict(run.batches(split)[0]), allow_pickle=False)


def _find_bundle(project: Project, run: Run, architecture: Architecture, given: Path | None) -> Path | None:
    """The bundle that is meant; None where the architecture has none of this very run."""
    folder = given or project.bundle_folder(run.folder, architecture)
    if given is None and not folder.is_dir():
        return None
    if given is None and not isinstance(export.read_manifest(folder), Manifest):
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
    with _files(run, architecture, bundle) as (folder, model, options):
        return export.predictor(folder / model, options)


@contextlib.contextmanager
def _files(run: Run, architecture: Architecture, bundle: Path | None) -> Iterator[tuple[Path, str, Mapping[str, str]]]:
    """Where the files that ship are, which of them is run here, and with which options of a session.

    Without a bundle they are built, and gone afterwards. An engine's answers are those of the file it was built from.
    """
    if bundle is not None:
        manifest = export.read_manifest(bundle)
        export.verify_files(bundle, manifest)
        yield (bundle, MODEL_FILE, {}) if manifest.engine else (bundle, manifest.artifact.file, manifest.options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        built = run.build(architecture, folder / MODEL_FILE)
        for name, content in built.further.items():
            write_bytes(folder / name, content)
        yield folder, MODEL_FILE, {}
