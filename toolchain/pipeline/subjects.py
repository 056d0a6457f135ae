"""What export makes a bundle of: a subnet of a run, or a model that was brought (brought.py)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from toolchain import export as exporting
from toolchain import profiling
from toolchain.errors import DeviceError, MostoolError
from toolchain.files import sha256_file
from toolchain.pipeline.building import build_reference
from toolchain.pipeline.compiling import TRANSLATOR_PRECISIONS, Built
from toolchain.pipeline.predict import predict, read_predictor
from toolchain.pipeline.profile import describe_table
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run, SplitName, example_texts
from toolchain.pipeline.translate import translate_files
from toolchain.pipeline.workloads import input_shapes
from toolchain.records import (
    AnyManifest,
    Environment,
    FilePrecision,
    Manifest,
    ModelFile,
    ModelInput,
    ModelTask,
    Quality,
    Source,
    TableInfo,
    Timed,
    Workload,
    read_record,
)
from toolchain.space import Architecture
from toolchain.targets import Runtime, Target

Example = str | tuple[str, str]


class Subject(Protocol):
    """A model that can be built in several precisions, and what a bundle tells of it."""

    task: ModelTask
    inputs: tuple[ModelInput, ...]
    maximum_length: int
    vocabulary_size: int
    own_precision: FilePrecision
    """The precision it is built in unless told otherwise."""

    def build(self, path: Path, runtime: Runtime, precision: FilePrecision, environment: Environment | None) -> Built:
        """Its file at `path` for that runtime, on a device of that kind; proven equal to what it was made from.

        Raises:
            ParityError: it is not; no file is left.
            UsageError: it has no file of this precision.
        """
        ...

    def quality(self, model: Path, built: Built, options: Mapping[str, str], split: SplitName) -> Quality | None:
        """What the file is worth, run here; None where there is nothing to judge it by."""
        ...

    def precisions(self, environment: Environment) -> tuple[FilePrecision, ...]:
        """Of which its files can be, where a device of that kind runs them."""
        ...

    def candidates(self, environment: Environment) -> tuple[FilePrecision, ...]:
        """Those that may be the fastest there, fp32 first.

        Raises:
            UsageError: there is nothing to judge their quality by.
        """
        ...

    @property
    def tokenizer(self) -> Path | None: ...

    @property
    def examples(self) -> Sequence[Example]: ...

    def further(self, built: Built) -> Mapping[str, bytes | Path]:
        """Other files that ship with it, by their names in the bundle."""
        ...

    def reference(self, scratch: Path, environment: Environment) -> tuple[Path | None, float | None]:
        """What it is measured beside, and that one's usual time, in seconds: those of the device's table, if any.

        Raises:
            DeviceError: the device is not the one the table was measured on.
        """
        ...

    @property
    def predicted_s(self) -> float | None:
        """What the device's predictor says of it, in seconds."""
        ...

    def tell(self, manifest: AnyManifest) -> AnyManifest:
        """The manifest with what there is to tell of where the model comes from."""
        ...


class Foreseen(NamedTuple):
    """What a device's table tells of a subnet before it is exported.

    Attributes:
        table_s: its latency in the table; None where it is not there, or failed.
        source: of the table's latencies.
        mape: the mean held-out error of the table's predictor, a share; None where there is none.
    """

    table_s: float | None
    source: Source
    mape: float | None


class SubnetOfRun:
    """A subnet of a run, for a device and a workload."""

    def __init__(self, project: Project, run: Run, architecture: Architecture, target: Target, workload: Workload):
        self.run, self.architecture, self.target, self.workload = run, architecture, target, workload
        self.task: ModelTask = run.info.training.task
        self.inputs = run.inputs
        self.maximum_length = run.info.space.fixed["maximum_length"]
        self.vocabulary_size = run.info.vocabulary_size
        self.own_precision = run.declared.precision(architecture)
        self._table, self._row = _table(project, run, architecture, target, workload)

    def build(self, path: Path, runtime: Runtime, precision: FilePrecision, environment: Environment | None) -> Built:
        asked = None if precision == self.own_precision else precision  # its own may differ from layer to layer
        return self.run.build(self.architecture, path, runtime, precision=asked, environment=environment)

    def quality(self, model: Path, built: Built, options: Mapping[str, str], split: SplitName) -> Quality | None:
        if self.task != "translate":
            return self.run.quality(exporting.predictor(model, options), split)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            shutil.copyfile(model, folder / "model.onnx")  # a link would lead out of the folder
            for name, content in built.further.items():
                (folder / name).write_bytes(content)
            return translate_files(self.run, folder, options, split).quality

    def precisions(self, environment: Environment) -> tuple[FilePrecision, ...]:
        possible = exporting.precisions_for(environment)
        return tuple(one for one in possible if self.task != "translate" or one in TRANSLATOR_PRECISIONS)

    def candidates(self, environment: Environment) -> tuple[FilePrecision, ...]:
        if self.task == "translate":  # one row at a time: there the smallest weights are the fastest
            return self.precisions(environment)
        return exporting.candidates_for(environment)

    @property
    def tokenizer(self) -> Path:
        return self.run.data_folder / "tokenizer.json"

    @property
    def examples(self) -> Sequence[Example]:
        return example_texts(self.run)

    def further(self, built: Built) -> Mapping[str, bytes | Path]:
        return {**built.further, **self.run.hub_files(self.architecture)}

    def reference(self, scratch: Path, environment: Environment) -> tuple[Path | None, float | None]:
        reference = self._table / profiling.REFERENCE
        if not reference.is_file():
            made = scratch / "reference.onnx"
            made.write_bytes(build_reference(self.run, self.target, environment))
            return made, None
        stored = read_record(self._table / profiling.TABLE, TableInfo)
        mixed = stored.precision == "mixed"
        sha256 = sha256_file(reference)
        wanted = describe_table(self.run, self.target, self.workload, environment, sha256, mixed=mixed)
        changes = profiling.differences(stored, wanted)
        if changes:
            raise DeviceError(
                f"{self.target.id} is not what its latency table was measured on",
                why="; ".join(changes),
                hint="start a new table: mostool profile --fresh",
            )
        _, rows = profiling.read_table(self._table)
        timed = [row.outcome for row in rows if isinstance(row.outcome, Timed)]
        return reference, profiling.anchor_s(timed) if timed else None

    @property
    def predicted_s(self) -> float | None:
        """Not having seen the subnet; None without a table, or with too small a one."""
        if not (self._table / profiling.TABLE).is_file():
            return None
        try:
            predictor = read_predictor(self._table)
            held_out = {name: guess_s for name, _, guess_s in predictor.points}
            return held_out.get(self._row.id) or predict(predictor, [self._row])[0].latency_s
        except MostoolError:
            return None

    @property
    def foreseen(self) -> Foreseen | None:
        """What the device's table tells of it; None without a table, or of one that is not sound.

        What is wrong with a table is told when its device is compared, which comes first for who reads it.
        """
        if not (self._table / profiling.TABLE).is_file():
            return None
        try:
            info, rows = profiling.read_table(self._table)
        except MostoolError:
            return None
        timed = {row.architecture.id: row.outcome for row in rows if isinstance(row.outcome, Timed)}
        own = timed.get(self._row.id)
        table_s = profiling.latency(own, profiling.anchor_s(list(timed.values()))).median_s if own else None
        mape = None
        with contextlib.suppress(MostoolError):  # too few rows for a predictor
            mape = read_predictor(self._table).error.mape
        return Foreseen(table_s, info.environment.source, mape)

    def tell(self, manifest: AnyManifest) -> AnyManifest:
        info = self.run.info
        told = {
            "labels": info.data.labels,
            "trivial_quality": info.data.majority_share,
            "data": info.data,
            "training": info.training,
            "checkpoint_sha256": self.run.checkpoint_sha256,
            "pairs": any(isinstance(example, tuple) for example in self.examples),
            "alone": info.space.point is not None,
            "origin": info.origin,
            "teacher": info.teacher,
        }
        known = {name: getattr(manifest, name) for name in manifest.__struct_fields__} | told
        if manifest.latency is not None and manifest.quality is not None:
            return Manifest(**known)
        file = {name: getattr(manifest.artifact, name) for name in ModelFile.__struct_fields__}
        return AnyManifest(**known | {"artifact": ModelFile(**file)})


def _table(
    project: Project, run: Run, architecture: Architecture, target: Target, workload: Workload
) -> tuple[Path, Architecture]:
    """Where the device's table of the architecture would be, and how it calls it: a mixed one also knows all fp32."""
    own = project.table_folder(target.id, run.space_of(architecture), workload)
    if (own / profiling.TABLE).is_file() or run.declared.has_bits(architecture) or not run.mixes:
        return own, architecture
    mixed = project.table_folder(target.id, run.bits_space, workload)
    if (mixed / profiling.TABLE).is_file():
        return mixed, run.declared.at_bits(architecture, 32)
    return own, architecture


def shapes_of(subject: Subject, workload: Workload) -> dict[str, profiling.InputShape]:
    """The model's inputs for timing."""
    return input_shapes(subject.inputs, workload, subject.vocabulary_size)
