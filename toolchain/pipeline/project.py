"""Where things are in the folder a user works in: runs/, profiles/, bundles/, targets/."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import toolchain
from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline.latencies import header_file, is_table, read_header
from toolchain.records import RunInfo, Workload, now, write_record
from toolchain.space import Architecture, SearchSpace

CHECKPOINT_FILE = "checkpoint.json"
_PREFERRED = ("emulated", "imported", "measured")
_DISTRIBUTIONS = (
    *("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers", "safetensors", "scikit-learn"),
    "msgspec",
)


class Project(NamedTuple):
    """A working folder."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    def table_folder(self, device: str, space: SearchSpace, workload: Workload) -> Path:
        """profiles/<device>/<workload>/: one table for each device, space and shape of work."""
        return self.root / "profiles" / device / f"{space.family}-{space.name}-{space.digest[:6]}-{workload.slug}"

    def bundle_folder(self, run: Path, architecture: Architecture) -> Path:
        """bundles/<run>-<architecture>, where export puts a subnet unless told otherwise."""
        return self.bundles / f"{run.resolve().name}-{architecture.id}"

    def find_run(self, run: Path | None) -> Path:
        """The folder of the run that is meant: the one given, by path or by name in runs/, else the newest.

        Raises:
            UsageError: there is none, or it was not trained to the end.
        """
        if run is not None:
            folder = run if run.is_dir() else self.runs / run
            if not folder.is_dir():
                raise UsageError(f"there is no run {run}", hint=f"runs here: {', '.join(self._run_names()) or 'none'}")
        else:
            folder = self.find_runs()[0]
        if not (folder / CHECKPOINT_FILE).exists():
            raise UsageError(
                f"the run {folder} is not finished", hint="the command that trains it goes on where it was"
            )
        return folder

    def name_of(self, folder: Path) -> str:
        """What `find_run` is given to find this run: its name where it is in runs/, else its path.

        A folder of that name in the project itself comes before the one in runs/, which is then named with it.
        """
        runs, own = self.runs.resolve(), folder.resolve()
        if own.parent != runs:
            return str(folder)
        return own.name if not (self.root / own.name).is_dir() else f"{self.runs.name}/{own.name}"

    def find_runs(self) -> list[Path]:
        """The folders of the finished runs in runs/, newest first.

        Raises:
            UsageError: there is none.
        """
        finished = [path for path in self.runs.glob(f"*/{CHECKPOINT_FILE}") if _current(path.parent)]
        if not finished:
            raise UsageError(
                f"there is no trained run in {self.runs}", hint="train one first: mostool train --data FILE"
            )
        return [path.parent for path in sorted(finished, key=lambda path: (path.stat().st_mtime_ns, path))[::-1]]

    def has_runs(self) -> bool:
        return any(_current(path.parent) for path in self.runs.glob(f"*/{CHECKPOINT_FILE}"))

    def newest_bundle(self) -> Path:
        """The folder of the bundle that was written last.

        Raises:
            UsageError: there is none.
        """
        found = [path for path in self.bundles.glob("*/manifest.json") if _current(path.parent)]
        if not found:
            raise UsageError(f"there is no bundle in {self.bundles}", hint="make one first: mostool export")
        return max(found, key=lambda path: (path.stat().st_mtime_ns, path)).parent

    def newest_space(self, device: str | None) -> SearchSpace | None:
        """The space of the latency table that was profiled last, on that device or on any; None where there is none.

        Raises:
            IntegrityError: that table is damaged.
        """
        folders = [
            folder
            for folder in (self.root / "profiles").glob(f"{device or '*'}/*")
            if _current(folder) and is_table(folder)
        ]
        if not folders:
            return None
        return read_header(max(folders, key=lambda folder: header_file(folder).stat().st_mtime_ns)).space

    def find_table(self, device: str | None, space: SearchSpace, workload: Workload | None = None) -> Path | None:
        """The latency table of this space that was profiled last, on that device and workload or on any; or None.

        An imported table is taken only where none was measured, and an emulated device's only where there is no other.

        Raises:
            IntegrityError: there is none but a damaged one.
        """
        found: list[tuple[int, int, Path]] = []
        damage: IntegrityError | None = None
        for folder in (self.root / "profiles").glob(f"{device or '*'}/*"):
            if not _current(folder) or not is_table(folder):
                continue
            try:
                header = read_header(folder)
            except IntegrityError as error:
                damage = error
                continue
            if header.space == space and workload in {None, header.workload}:
                rank = _PREFERRED.index(header.source)
                found.append((rank, header_file(folder).stat().st_mtime_ns, folder))
        if not found and damage is not None:
            raise damage
        return max(found)[2] if found else None

    def find_known(self, device: str, space: SearchSpace, workload: Workload) -> Path | None:
        """The table of another device to lean on: of the same workload where there is one, else of any; or None."""
        return self.find_table(device, space, workload) or self.find_table(device, space)

    def _run_names(self) -> list[str]:
        return sorted(path.name for path in self.runs.glob("*") if path.is_dir())


def _current(folder: Path) -> bool:
    """Whether a folder is in use: not moved aside by --fresh, and not half written."""
    return not folder.name.endswith(".old") and not folder.name.startswith(".")


def versions() -> dict[str, str]:
    """The versions of everything that has a say in a result."""
    found = {"mostool": toolchain.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_run_info(
    path: Path,
    command: str,
    arguments: Mapping[str, object],
    started_at: dt.datetime,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Iterable[Path] = (),
) -> None:
    """Keep beside the results what was asked: arguments, versions, revision, inputs and outputs by sha256."""
    write_record(
        path,
        RunInfo(
            command=command,
            arguments={name: str(value) for name, value in arguments.items()},
            versions=versions(),
            revision=_revision(),
            started_at=started_at,
            finished_at=now(),
            inputs=dict(inputs or {}),
            outputs={file.name: sha256_file(file) for file in outputs},
        ),
    )


def _revision() -> str:
    """The git revision of this checkout; empty for an installed wheel."""
    source = Path(toolchain.__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return ""
    try:
        asked = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],  # noqa: S607  # the user's own git
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return asked.stdout.strip()
