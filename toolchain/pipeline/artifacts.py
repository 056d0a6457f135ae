"""A folder of ready model files: written where there is torch, measured where there is none.

It is a `Supply`, as a run is: what measures it makes the same table of the same rows. `artifacts.json` says what is
there and is written anew with each file, so that a writing that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.errors import DeviceError, IntegrityError, ParityError, UsageError
from toolchain.files import inside, locked, set_aside, sha256_bytes, sha256_file, sweep, write_bytes
from toolchain.pipeline.growing import distinct
from toolchain.pipeline.profile import Request
from toolchain.pipeline.supply import Supply
from toolchain.pipeline.workloads import check_workload
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import (
    Artifact,
    ArtifactsInfo,
    Environment,
    ModelInput,
    Unbuilt,
    now,
    read_record,
    write_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import Declaration, declaration
from toolchain.targets import Runtime, Target

ARTIFACTS_FILE = "artifacts.json"
_REFERENCE = "reference.onnx"
_LOCK = ".lock"
_MIXED_MACHINE = "x86_64"
"""Which processors a file of int8 is made for as long as nobody has looked at the device: see `device_kind`."""
_SAME = ("space", "workload", "precision", "engine", "provider", "machine", "recipe", "inputs", "checkpoint_sha256")
"""What the files of one folder share."""
_AGAIN = "copy the whole folder again, or make it anew: mostool profile --build-only FOLDER"


class Built(NamedTuple):
    """What was built: the folder, how many files were made now, its record, and what could not be built."""

    folder: Path
    made_now: int
    info: ArtifactsInfo


# -- where there is torch ----------------------------------------------------------------------------------------------


def build_artifacts(
    supply: Supply,
    run: str,
    target: Target,
    request: Request,
    folder: Path,
    *,
    listener: ProgressListener = silent,
) -> Built:
    """Make the files that profiling `request` on `target` would measure, and the record that lets it be done elsewhere.

    Files that are there and whole are kept; asked for more subnets, the folder grows. `run` is the run's name.

    Raises:
        UsageError: the workload does not fit the model, or the folder holds files of something else.
        ParityError: already the reference is not what its module computes.
        DeviceError: another mostool is writing the folder.
    """
    check_workload(supply.table_space(mixed=request.mixed), request.workload)
    planned = supply.planned(request.architectures, request.n, mixed=request.mixed)
    if request.fresh:
        set_aside(folder)
    if folder.exists() and not (folder / ARTIFACTS_FILE).is_file() and any(_unknown(folder)):
        raise UsageError(f"{folder} is there and holds no artifacts", hint="name a folder that is new, or empty")
    with locked(folder / _LOCK):
        sweep(folder, older_than_s=0)
        info = _begun(supply, run, target, request, folder, planned)
        info = msgspec.structs.replace(
            info,
            artifacts=tuple(one for one in info.artifacts if _whole(folder, one)),
            failed=() if request.retry_failed else info.failed,
        )
        write_record(folder / ARTIFACTS_FILE, info)
        waiting = info.waiting
        for number, architecture in enumerate(waiting):
            listener(Progress("build", number, len(waiting), architecture.id))
            try:
                made = supply.make(architecture, folder / f"{architecture.id}.onnx", target.runtime, None)
                info = msgspec.structs.replace(info, artifacts=(*info.artifacts, made))
            except ParityError as error:
                unbuilt = Unbuilt(architecture=architecture, error=str(error))
                info = msgspec.structs.replace(info, failed=(*info.failed, unbuilt))
            write_record(folder / ARTIFACTS_FILE, info)
        listener(Progress("build", len(waiting), len(waiting)))
    return Built(folder, len(waiting), info)


def _unknown(folder: Path) -> list[Path]:
    """What lies in a folder that a writing which was stopped early would not have left."""
    if not folder.is_dir():
        return [folder]
    return [path for path in folder.iterdir() if path.name != _REFERENCE and not path.name.startswith(".")]


def _begun(
    supply: Supply, run: str, target: Target, request: Request, folder: Path, planned: list[Architecture]
) -> ArtifactsInfo:
    """The record of the folder with what is planned now; its reference is made where there is none.

    Raises UsageError where the folder holds files of something else.
    """
    stored = read_record(folder / ARTIFACTS_FILE, ArtifactsInfo) if (folder / ARTIFACTS_FILE).is_file() else None
    if stored is not None and _whole(folder, stored.reference):
        reference = stored.reference
    else:
        reference = supply.make(supply.reference, folder / _REFERENCE, target.runtime, None)
    wanted = ArtifactsInfo(
        run=run,
        space=supply.table_space(mixed=request.mixed),
        workload=request.workload,
        precision="mixed" if request.mixed else "fp32",
        engine=target.runtime.engine,
        provider=target.runtime.provider,
        machine=_MIXED_MACHINE if request.mixed else "",
        recipe=supply.recipe(target.runtime, None, mixed=request.mixed),
        inputs=supply.inputs,
        vocabulary_size=supply.vocabulary_size,
        checkpoint_sha256=supply.checkpoint_sha256,
        created_at=now(),
        reference=reference,
        planned=tuple(planned),
    )
    if stored is None:
        return wanted
    changed = [name for name in _SAME if getattr(stored, name) != getattr(wanted, name)]
    if changed:
        raise UsageError(
            f"{folder} holds artifacts of something else",
            why=f"another {', another '.join(changed)}",
            hint="name another folder, or add --fresh: then what is there is moved aside",
        )
    return msgspec.structs.replace(
        stored, reference=reference, planned=tuple(distinct([*stored.planned, *planned])), run=run
    )


def _whole(folder: Path, artifact: Artifact) -> bool:
    path = folder / artifact.file
    return path.is_file() and sha256_file(path) == artifact.sha256


# -- where there is none -----------------------------------------------------------------------------------------------


class ReadyArtifacts:
    """A folder of ready files, opened and whole: every file is the one its record names.

    Raises:
        UsageError: there is no such folder, it is not finished, or a file is missing.
        IntegrityError: the record is damaged, a name leads out of the folder, or a file is not what it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / ARTIFACTS_FILE).is_file():
            raise UsageError(
                f"there are no artifacts in {folder}",
                hint="where torch is installed: mostool profile --build-only FOLDER, then copy the folder",
            )
        self.info = read_record(folder / ARTIFACTS_FILE, ArtifactsInfo)
        try:
            self.declared.check_space(self.info.space)
        except UsageError as error:
            raise IntegrityError(
                f"{folder / ARTIFACTS_FILE} describes no model", why=str(error), hint=_AGAIN
            ) from error
        waiting = len(self.info.waiting)
        if waiting:
            raise UsageError(
                f"{folder} is not finished: {waiting} of {len(self.info.planned)} subnets have no file yet",
                hint="the command that builds it goes on where it was",
            )
        self._files = {one.architecture.id: one for one in (self.info.reference, *self.info.artifacts)}
        for artifact in {one.file: one for one in (self.info.reference, *self.info.artifacts)}.values():
            self._read(artifact)

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        return self.info.inputs

    @property
    def vocabulary_size(self) -> int:
        return self.info.vocabulary_size

    @property
    def checkpoint_sha256(self) -> str:
        return self.info.checkpoint_sha256

    @property
    def declared(self) -> Declaration:
        return declaration(self.info.space.family)

    @property
    def reference(self) -> Architecture:
        return self.info.reference.architecture

    def request(self, **settings: bool | str | None) -> Request:
        """What profiling the folder asks for; `settings` are fields of `Request` that are not its business."""
        mixed = self.info.precision == "mixed"
        return Request(self.info.workload, len(self.info.planned), mixed=mixed, **settings)  # type: ignore[arg-type]

    def check_runtime(self, target: Target) -> None:
        """Raise UsageError where a target runs another engine than the files are made for."""
        made, there = (self.info.engine, self.info.provider), (target.runtime.engine, target.runtime.provider)
        if made != there:
            raise UsageError(
                f"the files of {self.folder} are not for {target.id}",
                why=f"they are made for {' '.join(made).strip()}, it runs {' '.join(there).strip()}",
                hint=f"where torch is installed: mostool profile --device {target.id} --build-only FOLDER",
            )

    def table_space(self, *, mixed: bool) -> SearchSpace:  # noqa: ARG002 - it has one
        return self.info.space

    def recipe(self, runtime: Runtime, environment: Environment | None, *, mixed: bool) -> str:  # noqa: ARG002
        """Of the files that are there. Raises DeviceError where they multiply integers as another processor does."""
        if environment is not None and self.info.machine not in ("", environment.machine):
            raise DeviceError(
                f"the int8 weights of {self.folder} are for {self.info.machine}",
                why=f"the device is {environment.machine}",
                hint="where torch is installed, over ssh: mostool profile --device NAME --precision mixed",
            )
        return self.info.recipe

    def planned(self, given: Sequence[Architecture], n: int, *, mixed: bool) -> list[Architecture]:  # noqa: ARG002
        """All that is there; those that could not become a file last."""
        failed = {one.architecture.id for one in self.info.failed}
        return sorted(self.info.planned, key=lambda one: one.id in failed)

    def remember(self, architectures: list[Architecture]) -> None:
        """Their ids are names already: they are those of the files."""

    def load(self) -> None:
        """Nothing is shared."""

    def make(
        self,
        architecture: Architecture,
        path: Path,
        runtime: Runtime,  # noqa: ARG002
        environment: Environment | None,  # noqa: ARG002
    ) -> Artifact:
        """A copy of the architecture's file at `path`: see `Supply`."""
        artifact = self._files.get(architecture.id)
        if artifact is None:
            error = next((one.error for one in self.info.failed if one.architecture == architecture), "it is not there")
            raise ParityError(f"{architecture.id} has no file in {self.folder}", why=error)
        write_bytes(path, self._read(artifact))
        return artifact

    def _read(self, artifact: Artifact) -> bytes:
        """The content of a file, which is what its record says.

        Raises:
            UsageError: it is missing; IntegrityError: it is another one, or not of this folder.
        """
        name = artifact.file
        if Path(name).name == name and not (self.folder / name).exists() and not (self.folder / name).is_symlink():
            raise UsageError(f"{self.folder} lacks {name}", hint=_AGAIN)
        content = inside(self.folder, name).read_bytes()
        if sha256_bytes(content) != artifact.sha256:
            raise IntegrityError(
                f"{self.folder / name} is not the file that was built", why="its sha256 is another", hint=_AGAIN
            )
        return content
