"""The bundle: a folder that ships. Model, tokenizer, manifest with every file's sha256, model card, example to run."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

import toolchain
from toolchain.errors import IntegrityError, UsageError
from toolchain.export.card import render_card
from toolchain.export.inspecting import check_reads_inside
from toolchain.export.parity import Checks, save_checks
from toolchain.files import disk_errors, inside, sha256_file, sync_folder, write_bytes, write_text
from toolchain.records import AnyManifest, Manifest, read_record, write_record

MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
CHECKS_FILE = "parity.safetensors"
TOKENIZER_FILE = "tokenizer.json"
EXAMPLE_FILE = "run_example.py"
_BUILT_FROM = "model.onnx"
_SCRIPTS = {"translate": "run_translation.py"}
"""Which of the scripts here is the bundle's example, by its task."""


M = TypeVar("M", bound=AnyManifest)


def write_bundle(
    folder: Path,
    manifest: M,
    model: Path,
    tokenizer: Path | None,
    checks: Checks,
    examples: Sequence[str | tuple[str, str]],
    further: Mapping[str, bytes | Path] = MappingProxyType({}),
) -> M:
    """Build the bundle beside `folder` and put it in place when it is whole; a bundle that stood there is replaced.

    Until then what stood there stays as it was, and it is put back where the last step fails.

    Args:
        manifest: complete but for `files`, which is filled here.
        tokenizer: its tokenizer.json; without one the bundle has no example to run.
        examples: texts, or pairs of them, for the example to run on when it is given none.
        further: what else ships, by the names of the files.

    Raises:
        UsageError: `folder` holds something that is not a bundle.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder / MANIFEST_FILE).is_file():
        raise UsageError(f"{folder} is there and is not a bundle", hint="choose another place with --out")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            part.chmod(0o755)
            write_bytes(part / manifest.artifact.file, model.read_bytes())
            save_checks(checks, part / CHECKS_FILE)
            if tokenizer is not None:
                write_bytes(part / TOKENIZER_FILE, tokenizer.read_bytes())
                script = _SCRIPTS.get(manifest.task, EXAMPLE_FILE)
                write_bytes(part / EXAMPLE_FILE, Path(__file__).with_name(script).read_bytes())
                write_text(part / "examples.json", json.dumps(examples, ensure_ascii=False, indent=2) + "\n")
            for name, content in further.items():
                write_bytes(part / name, content if isinstance(content, bytes) else content.read_bytes())
            files = {path.name: sha256_file(path) for path in sorted(part.iterdir())}
            manifest = msgspec.structs.replace(manifest, files=files)  # the card says what there is
            write_text(part / CARD_FILE, render_card(manifest))
            files[CARD_FILE] = sha256_file(part / CARD_FILE)
            manifest = msgspec.structs.replace(manifest, files=dict(sorted(files.items())))
            write_record(part / MANIFEST_FILE, manifest)
            _put_in_place(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return manifest


def _put_in_place(part: Path, folder: Path) -> None:
    if not folder.exists():
        part.replace(folder)
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        folder.replace(old)
        try:
            part.replace(folder)
        except BaseException:
            old.replace(folder)
            raise
        shutil.rmtree(old)
    sync_folder(folder.parent)


def read_manifest(folder: Path) -> AnyManifest:
    """The manifest of a bundle: a `Manifest` where it is of a run's subnet that was measured.

    Raises:
        UsageError: `folder` is no bundle.
        IntegrityError: its manifest cannot be read.
    """
    if not folder.is_dir() or not (folder / MANIFEST_FILE).exists():
        raise UsageError(f"{folder} is not a bundle", why=f"it has no {MANIFEST_FILE}", hint="give a bundle's folder")
    path = inside(folder, MANIFEST_FILE)
    manifest = read_record(path, AnyManifest)
    return manifest if manifest.training is None or manifest.latency is None else read_record(path, Manifest)


def read_subnet_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle that holds a subnet of a run.

    Raises:
        UsageError: `folder` is no bundle, or one of a model that was brought, or that nobody has measured.
        IntegrityError: its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    if not isinstance(manifest, Manifest):
        raise UsageError(f"{folder} holds no subnet of a run that was measured", hint="give the bundle of a subnet")
    return manifest


def verify_files(folder: Path, manifest: AnyManifest) -> None:
    """Every file of the manifest is there, plain, inside the folder and unchanged; nothing else is.

    What the manifest says agrees with itself and, in words, with the model card it vouches for: figures that were
    changed in the manifest alone are found.

    Raises:
        IntegrityError: names the first file that is not, or what the manifest contradicts.
    """
    for name, sha256 in manifest.files.items():
        if sha256_file(inside(folder, name)) != sha256:
            raise IntegrityError(
                f"{name} was changed", why="its sha256 is not the manifest's", hint="get the bundle again"
            )
    expected = [manifest.artifact.file, CHECKS_FILE, CARD_FILE]
    if manifest.training is not None:
        expected.append(TOKENIZER_FILE)
    for name in expected:
        if name not in manifest.files:
            raise IntegrityError(f"the manifest does not vouch for {name}", hint="get the bundle again")
    if manifest.files[manifest.artifact.file] != manifest.artifact.sha256:
        raise IntegrityError("the manifest contradicts itself about the model's sha256", hint="get the bundle again")
    size_bytes = (folder / manifest.artifact.file).stat().st_size
    if manifest.artifact.size_bytes != size_bytes:
        why = f"it says {manifest.artifact.size_bytes} bytes, the file has {size_bytes}"
        raise IntegrityError("the manifest is wrong about the model's size", why=why, hint="get the bundle again")
    _check_agreement(manifest)
    # Another version words its card otherwise; then the card proves nothing.
    ours = manifest.versions.get("mostool") == toolchain.__version__
    if ours and render_card(manifest).encode() != (folder / CARD_FILE).read_bytes():
        raise IntegrityError(
            f"{MANIFEST_FILE} and the model card disagree",
            why=f"{CARD_FILE} is not what the manifest says in words",
            hint="one of them was changed: get the bundle again",
        )
    extra = sorted({path.name for path in folder.iterdir()} - manifest.files.keys() - {MANIFEST_FILE})
    if extra:
        raise IntegrityError(
            f"the bundle holds a file nobody vouches for: {extra[0]}", hint="remove it, or get the bundle again"
        )
    for name in sorted(manifest.files):
        if name.endswith(".onnx"):
            check_reads_inside(folder, name, manifest.files)


def _check_agreement(manifest: AnyManifest) -> None:
    """What the manifest says in two places must be the same.

    Raises:
        IntegrityError: it is not.
    """
    built_from = manifest.engine.built_from_sha256 if manifest.engine is not None else None
    if built_from is not None and manifest.files.get(_BUILT_FROM) != built_from:
        why = f"{_BUILT_FROM} is not what the manifest says {manifest.artifact.file} was built from"
        raise IntegrityError("the manifest contradicts itself about the engine", why=why, hint="get the bundle again")
    for one in manifest.budgets:
        if one.met != (one.value <= one.budget.limit):
            why = f"{one.value:g} of at most {one.budget.limit:g} is said to be {'met' if one.met else 'missed'}"
            raise IntegrityError(
                f"the manifest contradicts itself about {one.budget.metric}", why=why, hint="get the bundle again"
            )
