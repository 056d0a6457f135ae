"""Subnets as groups of model files, built while a device of its own measures the group before."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import ParityError
from toolchain.pipeline.supply import Supply
from toolchain.records import Artifact, Environment, Failed
from toolchain.space import Architecture
from toolchain.targets import Local, Target

_building = threading.Lock()
"""torch traces one module at a time."""


class Group(NamedTuple):
    """Subnets as files, and those that could not become one, each with why."""

    artifacts: list[tuple[Artifact, Path]]
    failed: list[tuple[Architecture, Failed]]

    def __len__(self) -> int:
        return len(self.artifacts) + len(self.failed)


def built_groups(
    supply: Supply, target: Target, environment: Environment, architectures: Sequence[Architecture], scratch: Path
) -> Iterator[Group]:
    """Groups of model files, each gone again when the next is asked for.

    A device of its own measures one group while this machine builds the next. This machine itself does one thing at a
    time: building would disturb the measuring.
    """
    size = target.measure.group
    parts = [architectures[start : start + size] for start in range(0, len(architectures), size)]
    folders = [scratch / f"group-{number}" for number in range(len(parts))]
    with ThreadPoolExecutor(1) as pool:

        def start(number: int) -> Future[Group]:
            folders[number].mkdir()
            return pool.submit(_build, supply, target, environment, parts[number], folders[number], first=not number)

        ahead = not isinstance(target.connection, Local)
        building = [start(0)] if parts else []
        for number, folder in enumerate(folders):
            if ahead and number + 1 < len(parts):
                building.append(start(number + 1))
            yield building.pop(0).result()
            shutil.rmtree(folder)
            if not ahead and number + 1 < len(parts):
                building.append(start(number + 1))


def _build(
    supply: Supply,
    target: Target,
    environment: Environment,
    architectures: Sequence[Architecture],
    folder: Path,
    *,
    first: bool,
) -> Group:
    """A subnet that cannot be built has failed; but the first of all, which shows damage of the run, is raised."""
    group = Group([], [])
    for architecture in architectures:
        path = folder / f"{architecture.id}.onnx"
        try:
            with _building:
                artifact = supply.make(architecture, path, target.runtime, environment)
                group.artifacts.append((artifact, path))
        except ParityError as error:
            if first and not group.artifacts:
                raise
            group.failed.append((architecture, Failed(stage="build", error=str(error))))
    return group


def session_options(target: Target) -> dict[str, str]:
    """The session settings a file is compared with here, where the device's engine is one that this machine has too."""
    return target.runtime.options if target.runtime.engine == "onnxruntime" else {}


def build_reference(supply: Supply, target: Target, environment: Environment) -> bytes:
    """The model that everything on a table is paired with, as a file."""
    with _building, tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "reference.onnx"
        supply.make(supply.reference, path, target.runtime, environment)
        return path.read_bytes()
