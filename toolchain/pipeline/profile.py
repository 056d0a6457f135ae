"""profile: subnets are built, measured on a device, and added to its latency table."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from toolchain import devices, profiling
from toolchain import predict as prediction
from toolchain.errors import MostoolError, UnstableError, UsageError
from toolchain.files import sha256_bytes
from toolchain.pipeline.building import Group, build_reference, built_groups
from toolchain.pipeline.growing import Goal, Standing, batches
from toolchain.pipeline.latencies import read_header
from toolchain.pipeline.predict import fit_table, read_predictor
from toolchain.pipeline.project import Project
from toolchain.pipeline.remarks import doubts_of, remarks_on
from toolchain.pipeline.supply import Supply
from toolchain.pipeline.workloads import check_workload, input_shapes
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import (
    Artifact,
    Environment,
    Failed,
    Measurement,
    PredictorInfo,
    TableInfo,
    Timed,
    Workload,
    now,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.targets import Local, Target


class Request(NamedTuple):
    """What a table is to hold: `n` subnets of the supply's plan, or these architectures, or what meets a goal.

    `like` names a device whose table the predictor leans on. `mixed`: precision is part of what is measured, so the
    table is one of the space with bits; architectures without any are taken as all fp32.
    """

    workload: Workload
    n: int
    architectures: Sequence[Architecture] = ()
    goal: Goal | None = None
    like: str | None = None
    fresh: bool = False
    retry_failed: bool = False
    self_test: bool = False
    mixed: bool = False


class Profiled(NamedTuple):
    """What a profiling call did: the table's folder, how many subnets it measured now, holds, and could not measure.

    `called_s` of `elapsed_s` were spent inside inferences.
    """

    folder: Path
    info: TableInfo
    measured_now: int
    timed: int
    failed: int
    predictor: PredictorInfo | None
    warnings: list[str]
    called_s: float = 0.0
    elapsed_s: float = 0.0
    goal: Goal | None = None
    standing: Standing | None = None


def profile(
    project: Project,
    supply: Supply,
    target: Target,
    request: Request,
    *,
    strict: bool = False,
    listener: ProgressListener = silent,
) -> Profiled:
    """Grow the latency table of `target` and the request's workload.

    What the table holds is not measured again, so the same call continues one that was stopped.

    Raises:
        UsageError: the workload does not fit the model.
        DeviceError: the device cannot do what is asked, is busy, or is not the one the table was measured on.
        UnstableError: with `strict`, a latency of the table is in doubt; the table is kept.
    """
    check_workload(supply.table_space(mixed=request.mixed), request.workload)
    supply.planned(request.architectures, request.n, mixed=request.mixed)

    def tell(note: str) -> None:
        listener(Progress("profile", 0, 0, note))

    with contextlib.closing(devices.open_device(target, project.root, tell)) as device:
        done, doubts = _grow(project, supply, device, request, listener)
    if strict and doubts:
        raise UnstableError(doubts[0], hint="make the machine quiet, then profile --fresh; the table is kept")
    return done


def profile_all(
    project: Project,
    supply: Supply,
    targets: Sequence[Target],
    request: Request,
    *,
    strict: bool,
    listener: ProgressListener,
) -> list[Profiled | MostoolError]:
    """Profile several devices at once, each over a connection of its own; what became of each, in order.

    Raises:
        UsageError: one of them is this machine, which cannot build for the others and be measured at once.
    """
    if any(isinstance(target.connection, Local) for target in targets):
        raise UsageError(
            "this machine is not measured together with other devices",
            why="it builds the models for them meanwhile",
            hint="two commands: mostool profile --device cpu, and the other devices in another",
        )
    check_workload(supply.table_space(mixed=request.mixed), request.workload)
    supply.planned(request.architectures, request.n, mixed=request.mixed)
    supply.load()
    stopped = threading.Event()

    def one(target: Target) -> Profiled | MostoolError:
        def report(progress: Progress) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            listener(progress._replace(stage=target.id))

        try:
            return profile(project, supply, target, request, strict=strict, listener=report)
        except MostoolError as error:
            return error

    with ThreadPoolExecutor(len(targets)) as pool:
        futures = [pool.submit(one, target) for target in targets]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stopped.set()
            raise


def _grow(
    project: Project, supply: Supply, device: devices.Device, request: Request, listener: ProgressListener
) -> tuple[Profiled, list[str]]:
    """Fill the table over an open device; what was done, and what puts its latencies in doubt."""
    began, spent, target = time.monotonic(), profiling.Spent(), device.target
    space = supply.table_space(mixed=request.mixed)
    _known(project, request, space)  # refused before anything is measured
    folder = project.table_folder(target.id, space, request.workload)
    environment = profiling.read_environment(device)
    reference = _reference(folder, supply, target, environment, fresh=request.fresh)
    info = describe_table(supply, target, request.workload, environment, sha256_bytes(reference), mixed=request.mixed)
    inputs = input_shapes(supply.inputs, request.workload, supply.vocabulary_size)
    with (
        profiling.open_table(folder, info, reference, fresh=request.fresh) as table,
        tempfile.TemporaryDirectory() as scratch,
    ):
        work = _Work(supply, device, table, listener, spent)
        began_measuring = time.monotonic()
        if request.self_test:
            work.test_noise(inputs, environment)
        for batch in work.batches(request, began_measuring):
            if table.info.noise_floor is None:
                work.test_noise(inputs, environment)
            work.measure(batch, Path(scratch))
        listener(Progress("profile", work.done, work.done))
        timed = sum(isinstance(row.outcome, Timed) for row in table.measurements)
        failed = len(table.measurements) - timed
        doubts = doubts_of(table.measurements)
        warnings = [*table.repairs, *device.remarks, *doubts, *remarks_on(table.info, table.measurements)]
        info = table.info
    (folder / profiling.TABLE).touch()  # the table that was asked for last is the one that search takes
    predictor = _predictor(project, folder, timed, request)
    elapsed_s = time.monotonic() - began
    done = Profiled(folder, info, work.done, timed, failed, predictor, warnings, spent.called_s, elapsed_s)
    return done._replace(goal=request.goal, standing=work.standing), doubts


def _predictor(project: Project, folder: Path, timed: int, request: Request) -> PredictorInfo | None:
    """The table's predictor, where it has rows enough; leaning on another device's table, where one is named."""
    if request.like is None:
        return read_predictor(folder) if timed >= prediction.MINIMUM_ROWS else None
    known = _known(project, request, read_header(folder).space)
    return fit_table(folder, known) if timed >= prediction.MINIMUM_ROWS_TRANSFERRED else None


def _known(project: Project, request: Request, space: SearchSpace) -> Path | None:
    """The table the request leans on; None where it leans on none.

    Raises:
        UsageError: the device it names has none of this space.
    """
    if request.like is None:
        return None
    known = project.find_known(request.like, space, request.workload)
    if known is None:
        raise UsageError(
            f"{request.like} has no latency table of this space", hint=f"mostool profile --device {request.like}"
        )
    return known


class _Work:
    """Measuring into an open table over an open device, batch by batch.

    Attributes:
        done: subnets measured so far, failures too.
        standing: how far the request's goal is, where it has one.
    """

    def __init__(
        self,
        supply: Supply,
        device: devices.Device,
        table: profiling.LatencyTable,
        listener: ProgressListener,
        spent: profiling.Spent,
    ) -> None:
        self.supply, self.device, self.table, self.listener, self.spent = supply, device, table, listener, spent
        self.done = 0
        self.standing: Standing | None = None
        self._expected = 0

    def batches(self, request: Request, began: float) -> Iterator[list[Architecture]]:
        """What the request wants and the table has not."""
        if request.goal is not None:
            self._expected = request.goal.most - len(self.table.measurements)
            yield from batches(self.table, request.goal, self._tell, began)
            return
        retry = request.retry_failed
        planned = self.supply.planned(request.architectures, request.n, mixed=request.mixed)
        missing = [one for one in planned if not self.table.done(one, retry_failed=retry)]
        self._expected = len(missing)
        if missing:
            yield missing

    def _tell(self, standing: Standing) -> None:
        self.standing = standing

    def test_noise(self, inputs: dict[str, profiling.InputShape], environment: Environment) -> None:
        reference = self.table.folder / profiling.REFERENCE
        floor = profiling.noise_floor(reference, inputs, self.device, self.listener, self.spent, environment)
        self.table.note_noise_floor(floor)

    def measure(self, architectures: list[Architecture], scratch: Path) -> None:
        """Build and measure these; each outcome, failures too, becomes a row of the table."""
        self.supply.remember(architectures)
        folder, environment = Path(tempfile.mkdtemp(dir=scratch)), self.table.info.environment
        for group in built_groups(self.supply, self.device.target, environment, architectures, folder):
            _measure_group(self.table, group, self.supply, self.device, self._report, self.spent)
            self.done += len(group)

    def _report(self, progress: Progress) -> None:
        error = ""
        if self.standing is not None and self.standing.mape is not None:
            error = f"held-out error {100 * self.standing.mape:.1f} %, "
        self.listener(Progress("profile", self.done, self._expected, error + progress.note))


def describe_table(
    supply: Supply,
    target: Target,
    workload: Workload,
    environment: Environment,
    reference_sha256: str,
    *,
    mixed: bool = False,
) -> TableInfo:
    """The header of a table that measurements made now would belong to."""
    return TableInfo(
        target=target.id,
        environment=environment,
        workload=workload,
        space=supply.table_space(mixed=mixed),
        recipe=supply.recipe(target.runtime, environment, mixed=mixed),
        precision="mixed" if mixed else "fp32",
        threads=target.runtime.threads,
        options=target.runtime.options,
        provider_options=target.runtime.provider_options,
        cores=target.runtime.cores,
        thermal=target.measure.thermal,
        reference_sha256=reference_sha256,
        created_at=now(),
    )


def _measure_group(
    table: profiling.LatencyTable,
    group: Group,
    supply: Supply,
    device: devices.Device,
    listener: ProgressListener,
    spent: profiling.Spent,
) -> None:
    """Measure a group of subnets; each outcome, failures too, becomes a row of the table."""
    for architecture, failure in group.failed:
        table.append(_row(table.info, supply, architecture, None, failure))
    artifacts = {artifact.architecture.id: artifact for artifact, _ in group.artifacts}
    started_at = now()
    outcomes = profiling.measure(
        [profiling.Candidate(artifact.architecture.id, path) for artifact, path in group.artifacts],
        table.folder / profiling.REFERENCE,
        input_shapes(supply.inputs, table.info.workload, supply.vocabulary_size),
        device,
        seed=len(table.measurements),
        listener=listener,
        spent=spent,
        expected=table.info.environment,
    )
    for candidate, outcome in outcomes:
        artifact = artifacts[candidate.name]
        table.append(_row(table.info, supply, artifact.architecture, artifact, outcome, started_at=started_at))


def _row(
    info: TableInfo,
    supply: Supply,
    architecture: Architecture,
    artifact: Artifact | None,
    outcome: Timed | Failed,
    started_at: dt.datetime | None = None,
) -> Measurement:
    return Measurement(
        architecture=architecture,
        artifact_sha256=artifact.sha256 if artifact else "",
        recipe=info.recipe,
        size_bytes=artifact.size_bytes if artifact else 0,
        parameters=supply.declared.parameters(info.space, architecture),
        workload=info.workload,
        target=info.target,
        fingerprint=info.environment.fingerprint,
        precision=supply.declared.precision(architecture),
        threads=info.threads,
        started_at=started_at or now(),
        outcome=outcome,
    )


def _reference(folder: Path, supply: Supply, target: Target, environment: Environment, *, fresh: bool) -> bytes:
    """The model everything on this table is paired with: the one it has, else the space's middle subnet."""
    stored = folder / profiling.REFERENCE
    if stored.is_file() and not fresh:
        return stored.read_bytes()
    return build_reference(supply, target, environment)
