"""How a subject becomes a bundle: its candidates are built, measured side by side on the device, and one ships."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from toolchain import devices, profiling
from toolchain import export as exporting
from toolchain.errors import DeviceError, IntegrityError, ParityError, UnstableError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline import engines
from toolchain.pipeline.building import session_options
from toolchain.pipeline.compiling import Built
from toolchain.pipeline.measured import Measured, device_parity, measure_files, refused
from toolchain.pipeline.project import versions
from toolchain.pipeline.shipped import Exported, bundle_in, outcome_of, warnings_of
from toolchain.pipeline.subjects import Subject, shapes_of
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import (
    AnyManifest,
    Budget,
    Engine,
    Environment,
    FileFormat,
    FilePrecision,
    ModelFile,
    Quality,
    Tried,
    Workload,
    now,
)
from toolchain.targets import Target

MODEL_FILE, ENGINE_FILE = "model.onnx", "model.engine"
_STEPS = 5


class Wanted(NamedTuple):
    """What a bundle is to be.

    Attributes:
        precision: of its file; `auto` tries what the device may run; None: as the subject has it.
        max_drop: of `auto`: the share of the fp32 file's quality on validation items that may be given up.
        budgets: what it is judged by.
        strict: a latency that is in doubt is an error.
        licence: what the model card says of it.
        format: of what runs: the ONNX file, or an engine that the device builds of it.
    """

    precision: FilePrecision | Literal["auto"] | None = None
    max_drop: float = 0.01
    budgets: Sequence[Budget] = ()
    strict: bool = False
    licence: str = ""
    format: FileFormat = "onnx"


class _Candidate:
    """A file that may ship, and what is found out about it."""

    def __init__(self, precision: FilePrecision, path: Path) -> None:
        self.precision, self.path = precision, path
        self.built: Built | None = None
        self.engine: tuple[Path, Engine] | None = None
        self.measured: Measured | None = None
        self.device_error: float | None = None
        self.quality: Quality | None = None
        self.why = ""

    @property
    def name(self) -> str:
        return f"the {self.precision} file"

    @property
    def runs(self) -> Path:
        """What the device runs: the engine, or the file itself."""
        return self.engine[0] if self.engine else self.path

    @property
    def files(self) -> Built:
        """What was built.

        Raises:
            ParityError: nothing was, for it could not be proven.
        """
        if self.built is None:
            raise ParityError(f"{self.name} was not built", why=self.why)
        return self.built

    def artifact(self) -> ModelFile:
        """What ships of it."""
        artifact = self.files.artifact
        if self.engine is None:
            return msgspec.structs.replace(artifact, file=MODEL_FILE)
        path, _ = self.engine
        size_bytes, sha256 = path.stat().st_size, sha256_file(path)
        return msgspec.structs.replace(
            artifact, file=ENGINE_FILE, format="tensorrt", sha256=sha256, size_bytes=size_bytes
        )

    def tried(self) -> Tried:
        return Tried(
            precision=self.precision,
            size_bytes=self.artifact().size_bytes if self.built else 0,
            latency=self.measured.latency if self.measured else None,
            quality=self.quality,
            why=self.why,
        )


def ship(
    project: Path,
    subject: Subject,
    target: Target,
    workload: Workload,
    folder: Path,
    wanted: Wanted,
    listener: ProgressListener = silent,
) -> Exported:
    """Build, prove, measure and judge the subject's file, and write the bundle; nothing is written where that fails.

    Raises:
        UsageError: there is no file of the precision asked for on this device, or `folder` holds no bundle.
        ParityError: the file and what it was made from disagree, here or on the device.
        DeviceError: the device is not the one its table was measured on, or the file does not run or cannot be built
            there.
        UnstableError: with `strict`, the measurement did not settle.
    """
    replaced = bundle_in(folder)
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.closing(
            devices.open_device(target, project, lambda note: listener(Progress("export", 1, _STEPS, note)))
        ) as device,
    ):
        work = _Work(subject, device, workload, wanted, Path(scratch), listener)
        candidates = [
            _Candidate(precision, Path(scratch) / f"{precision}.onnx")
            for precision in _precisions(subject, work.environment, wanted)
        ]
        work.build(candidates)
        work.measure(candidates)
        chosen = candidates[0] if len(candidates) == 1 else work.choose(candidates)
        if wanted.strict and chosen.measured is not None and chosen.measured.latency.status:
            raise UnstableError(
                f"the latency on {target.id} is in doubt: {', '.join(chosen.measured.latency.status)}",
                hint="make the machine quiet and export again; nothing was written",
            )
        manifest = work.describe(chosen, folder.name)
        if len(candidates) > 1:
            tried = tuple(one.tried() for one in candidates)
            manifest = msgspec.structs.replace(manifest, tried=tried, max_drop=wanted.max_drop)
        listener(Progress("export", 4, _STEPS, "bundle"))
        manifest = exporting.write_bundle(
            folder,
            subject.tell(manifest),
            chosen.runs,
            subject.tokenizer,
            chosen.files.checks,
            subject.examples,
            _further(subject, chosen),
        )
    listener(Progress("export", _STEPS, _STEPS))
    return Exported(folder, manifest, warnings_of(manifest, wanted.budgets, target, workload), replaced)


def _precisions(subject: Subject, environment: Environment, wanted: Wanted) -> tuple[FilePrecision, ...]:
    """What is built: one file, or all that may be the fastest on the device, fp32 first."""
    if wanted.precision == "auto":
        return tuple(dict.fromkeys((*subject.candidates(environment), subject.own_precision)))
    if wanted.precision is None:
        return (subject.own_precision,)
    possible = subject.precisions(environment)
    if wanted.precision not in possible:
        runtime = f"{environment.engine}{f' on {environment.provider}' if environment.provider else ''}"
        raise UsageError(
            f"there is no {wanted.precision} file of this model for {runtime}",
            hint=f"choose one with --precision: {', '.join(possible)}",
        )
    return (wanted.precision,)


def _further(subject: Subject, chosen: _Candidate) -> Mapping[str, bytes | Path]:
    further = dict(subject.further(chosen.files))
    if chosen.engine is not None:
        further[MODEL_FILE] = chosen.path
    return further


class _Work:
    """Building, proving, measuring and judging candidates over an open device.

    Attributes:
        environment: of the device; of one that builds engines for GPUs it lacks, of the machine that builds.
    """

    def __init__(
        self,
        subject: Subject,
        device: devices.Device,
        workload: Workload,
        wanted: Wanted,
        scratch: Path,
        listener: ProgressListener,
    ) -> None:
        self.subject, self.device, self.workload, self.wanted = subject, device, workload, wanted
        self._scratch, self._listener = scratch, listener
        self._runs_there = wanted.format == "onnx" or engines.can_run(device)
        if self._runs_there:
            self.environment = profiling.read_environment(device)
        elif wanted.precision == "auto":
            raise DeviceError(
                f"{device.target.id} cannot run what it builds, so nothing can be chosen by measuring",
                hint="name a precision: --precision fp16",
            )
        else:
            self.environment = engines.environment_without_gpu(device)

    def build(self, candidates: Sequence[_Candidate]) -> None:
        """Build the files and compare their answers, here and on the device. Of several, one that fails is left out,
        but for the first."""
        for number, candidate in enumerate(candidates):
            self._listener(Progress("export", 1, _STEPS, f"build, compare {candidate.name}"))
            try:
                self._build(candidate)
            except (IntegrityError, UsageError, DeviceError) as error:
                if not number or getattr(error, "restarted", False):  # the device itself is gone
                    raise
                candidate.built, candidate.why = None, str(error)
                self.device.discard(candidate.runs)

    def _build(self, candidate: _Candidate) -> None:
        target = self.device.target
        candidate.built = self.subject.build(candidate.path, target.runtime, candidate.precision, self.environment)
        if self.wanted.format == "tensorrt":
            content, engine = engines.build_engine(
                candidate.path,
                shapes_of(self.subject, self.workload),
                self.device,
                maximum_length=self.subject.maximum_length,
            )
            path = self._scratch / f"{candidate.precision}.engine"
            path.write_bytes(content)
            candidate.engine = path, engine
        if self._runs_there:
            checks = candidate.built.checks
            candidate.device_error = device_parity(candidate.runs, checks, self.device, candidate.precision)
        if candidate.engine is not None:
            self.device.discard(candidate.path)

    def measure(self, candidates: Sequence[_Candidate]) -> None:
        """Their latencies side by side, where the device can run them."""
        if not self._runs_there:
            return
        self._listener(Progress("export", 2, _STEPS, f"measure on {self.device.target.id}"))
        built = [one for one in candidates if one.built is not None]
        files = [profiling.Candidate(one.name, one.runs) for one in built]
        found = measure_files(self.subject, files, self.device, self.environment, self.workload)
        for one in built:
            outcome = found[one.name]
            if isinstance(outcome, Measured):
                one.measured = outcome
            elif one is candidates[0]:
                raise refused("the exported file", outcome, self.device.target.id)
            else:
                one.why = f"{outcome.stage}: {outcome.error}"

    def choose(self, candidates: Sequence[_Candidate]) -> _Candidate:
        """The fastest that gives up no more than `max_drop` of the fp32 file's quality on validation items; of several
        that are as fast, within the noise, the best."""
        whole = [one for one in candidates if one.built is not None and one.measured is not None]
        for one in whole:
            self._listener(Progress("export", 3, _STEPS, f"quality of {one.name}"))
            one.quality = self._quality(one, "validation")
        plain = candidates[0].quality
        assert plain is not None  # noqa: S101 - a subject with nothing to judge by has no candidates
        floor = plain.value - self.wanted.max_drop * abs(plain.value)
        for one in whole:
            if one.quality is not None and one.quality.value < floor:
                one.why = f"it gives up more than {100 * self.wanted.max_drop:g} % of the fp32 file's quality"
        kept = sorted((one for one in whole if not one.why), key=_latency_s)
        level = [one for one in kept if _latency_s(one) - _latency_s(kept[0]) <= _doubt_s(one) + _doubt_s(kept[0])]
        chosen = max(level, key=lambda one: (one.quality.value if one.quality else 0.0, -candidates.index(one)))
        for one in kept:
            if one is not chosen:
                one.why = "no faster, within the noise, and no better" if one in level else "slower"
        return chosen

    def _quality(self, one: _Candidate, split: Literal["validation", "test"]) -> Quality | None:
        """Of the ONNX file, run here: an engine's answers were compared with its."""
        return self.subject.quality(one.path, one.files, session_options(self.device.target), split)

    def _predicted_s(self, chosen: _Candidate) -> float | None:
        """What was predicted stands beside the file it was predicted of, not one of another precision or format."""
        same = chosen.precision == self.subject.own_precision and chosen.engine is None
        return self.subject.predicted_s if same else None

    def describe(self, chosen: _Candidate, name: str) -> AnyManifest:
        """The manifest of what ships, without what the subject has to tell."""
        self._listener(Progress("export", 3, _STEPS, "quality of the file"))
        target, measured, artifact = self.device.target, chosen.measured, chosen.artifact()
        judged = [
            one
            for one in self.wanted.budgets
            if one.target in (None, target.id) and one.workload in (None, self.workload)
        ]
        outcomes = [outcome_of(budget, artifact, measured, self.environment) for budget in judged]
        return AnyManifest(
            name=name,
            task=self.subject.task,
            labels=(),
            artifact=artifact,
            target=target.id,
            workload=self.workload,
            environment=self.environment,
            threads=target.runtime.threads,
            options=target.runtime.options,
            provider_options=target.runtime.provider_options,
            cores=target.runtime.cores,
            thermal=target.measure.thermal,
            device_parity_max_abs_error=chosen.device_error,
            maximum_length=self.subject.maximum_length,
            vocabulary_size=self.subject.vocabulary_size,
            inputs=self.subject.inputs,
            predicted_s=self._predicted_s(chosen),
            latency=measured.latency if measured else None,
            peak_memory_bytes=measured.peak_memory_bytes if measured else None,
            quality=self._quality(chosen, "test"),
            trivial_quality=None,
            budgets=tuple(outcome for outcome in outcomes if outcome is not None),
            parity_tolerance=exporting.tolerance(chosen.precision, chosen.files.checks),
            created_at=now(),
            files={},
            versions=versions(),
            engine=chosen.engine[1] if chosen.engine else None,
            licence=self.wanted.licence,
        )


def _latency_s(one: _Candidate) -> float:
    return one.measured.latency.median_s if one.measured else float("inf")


def _doubt_s(one: _Candidate) -> float:
    return one.measured.latency.half_width_s if one.measured else 0.0
