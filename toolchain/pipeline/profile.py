"""profile: subnets are built, measured on a device, and added to its latency table."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import export, profiling
from toolchain import predict as prediction
from toolchain.errors import ParityError, UnstableError, UsageError
from toolchain.files import sha256_bytes
from toolchain.pipeline.predict import read_predictor
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
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
from toolchain.supernet.families import declaration
from toolchain.targets import Target


class Profiled(NamedTuple):
    """What a profiling call did: the table's folder, how many subnets it measured now, holds, and could not measure."""

    folder: Path
    info: TableInfo
    measured_now: int
    timed: int
    failed: int
    predictor: PredictorInfo | None
    warnings: list[str]


def profile(
    project: Project,
    run: Run,
    target: Target,
    workload: Workload,
    *,
    n: int,
    architectures: Sequence[Architecture] = (),
    fresh: bool = False,
    retry_failed: bool = False,
    strict: bool = False,
    listener: ProgressListener = silent,
) -> Profiled:
    """Grow the latency table of `target` and `workload` to `n` subnets of the run's space, or by `architectures`.

    What the table holds is not measured again, so the same call continues one that was stopped.

    Raises:
        UsageError: the workload does not fit the model.
        DeviceError: the device cannot do what is asked, is busy, or is not the one the table was measured on.
        UnstableError: with `strict`, a latency of the table is in doubt; the table is kept.
    """
    check_workload(run, workload)
    space = run.info.space
    folder = project.table_folder(target.id, space, workload)
    environment = profiling.read_environment(target)
    reference = _reference(folder, run, target, fresh=fresh)
    info = describe_table(run, target, workload, environment, sha256_bytes(reference))
    wanted = list({one.id: one for one in architectures or plan(space, n)}.values())
    run.remember(wanted)
    with profiling.open_table(folder, info, reference, fresh=fresh) as table, tempfile.TemporaryDirectory() as scratch:
        missing = [one for one in wanted if not table.done(one, retry_failed=retry_failed)]
        if missing:
            run.build(space.smallest(), Path(scratch) / "first.onnx", target.runtime.options)  # damage shows here
        group = target.measure.group
        for start in range(0, len(missing), group):

            def report(progress: Progress, done: int = start) -> None:
                listener(Progress("profile", done, len(missing), progress.note))

            _measure_group(table, missing[start : start + group], run, target, Path(scratch), report)
        listener(Progress("profile", len(missing), len(missing)))
        timed = sum(isinstance(row.outcome, Timed) for row in table.measurements)
        failed = len(table.measurements) - timed
        doubts = _doubts(table.measurements)
        warnings = [*table.repairs, *doubts]
    if strict and doubts:
        raise UnstableError(doubts[0], hint="make the machine quiet, then profile --fresh; the table is kept")
    (folder / profiling.TABLE).touch()  # the table that was asked for last is the one that search takes
    predictor = read_predictor(folder) if timed >= prediction.MINIMUM_ROWS else None
    return Profiled(folder, info, len(missing), timed, failed, predictor, warnings)


def describe_table(
    run: Run, target: Target, workload: Workload, environment: Environment, reference_sha256: str
) -> TableInfo:
    """The header of a table that measurements made now would belong to."""
    return TableInfo(
        target=target.id,
        environment=environment,
        workload=workload,
        space=run.info.space,
        recipe=export.RECIPE,
        precision="fp32",
        threads=target.runtime.threads,
        options=target.runtime.options,
        reference_sha256=reference_sha256,
        created_at=now(),
    )


def plan(space: SearchSpace, n: int) -> list[Architecture]:
    """The `n` architectures of a table, in order: the extremes and the middle, then random ones.

    Every other draw has layers all alike, which spreads the latencies wider. A longer plan begins with a shorter one.
    """
    rng = np.random.default_rng(0)
    drawn = {one.id: one for one in (space.smallest(), space.largest(), space.middle())}
    limit = min(n, space.size())
    tries = 0
    while len(drawn) < limit and tries < 200 * n:
        one = space.sample_even(rng) if tries % 2 else space.sample(rng)
        drawn.setdefault(one.id, one)
        tries += 1
    return list(drawn.values())[:n]


def usual_workload(run: Run) -> Workload:
    """One sequence as long as the run takes, at most 128 tokens."""
    return Workload(batch=1, sequence_length=min(run.info.space.fixed["maximum_length"], 128))


def _doubts(measurements: Sequence[Measurement]) -> list[str]:
    """One sentence where figures of the table are in doubt: how many of how many, and why."""
    timed = [row.outcome for row in measurements if isinstance(row.outcome, Timed)]
    if not timed:
        return []
    anchor = profiling.anchor_s(timed)
    reasons = Counter(reason for outcome in timed for reason in profiling.latency(outcome, anchor).status)
    if not reasons:
        return []
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    advice = "the machine was busy; a quiet one and --fresh give firmer figures"
    return [f"of {len(timed)} latencies, some are in doubt ({listed}): {advice}"]


def check_workload(run: Run, workload: Workload) -> None:
    longest = run.info.space.fixed["maximum_length"]
    if not 1 <= workload.sequence_length <= longest or workload.batch < 1:
        raise UsageError(
            f"batch {workload.batch} of {workload.sequence_length} tokens is no workload of this run",
            hint=f"the length may be 1 to {longest}, the batch 1 or more",
        )


def input_shapes(run: Run, workload: Workload) -> dict[str, profiling.InputShape]:
    """The model's inputs for timing: random words (no special tokens), nothing masked."""
    shape = (workload.batch, workload.sequence_length)
    return {
        "input_ids": profiling.InputShape(dtype="int64", shape=shape, low=5, high=run.info.vocabulary_size),
        "attention_mask": profiling.InputShape(dtype="int64", shape=shape, low=1, high=2),
    }


def _measure_group(
    table: profiling.LatencyTable,
    architectures: Sequence[Architecture],
    run: Run,
    target: Target,
    scratch: Path,
    listener: ProgressListener,
) -> None:
    """Build and measure up to a group of subnets; each outcome, failures too, becomes a row of the table."""
    artifacts: dict[str, Artifact] = {}
    for architecture in architectures:
        listener(Progress("profile", 0, 0, f"build {architecture.id}"))
        path = scratch / f"{architecture.id}.onnx"
        try:
            artifacts[architecture.id] = run.build(architecture, path, target.runtime.options).artifact
        except ParityError as error:
            failure = Failed(stage="build", error=str(error))
            table.append(_row(table.info, run, architecture, None, failure))
    started_at = now()
    candidates = [profiling.Candidate(name, scratch / artifact.file) for name, artifact in artifacts.items()]
    outcomes = profiling.measure(
        candidates,
        table.folder / profiling.REFERENCE,
        input_shapes(run, table.info.workload),
        target,
        seed=len(table.measurements),
        listener=listener,
    )
    for candidate, outcome in outcomes:
        artifact = artifacts[candidate.name]
        table.append(_row(table.info, run, artifact.architecture, artifact, outcome, started_at=started_at))
        candidate.path.unlink()


def _row(
    info: TableInfo,
    run: Run,
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
        parameters=declaration(architecture.family).parameters(run.info.space, architecture),
        workload=info.workload,
        target=info.target,
        fingerprint=info.environment.fingerprint,
        precision=info.precision,
        threads=info.threads,
        started_at=started_at or now(),
        outcome=outcome,
    )


def _reference(folder: Path, run: Run, target: Target, *, fresh: bool) -> bytes:
    """The model everything on this table is paired with: the one it has, else the space's middle subnet."""
    stored = folder / profiling.REFERENCE
    if stored.is_file() and not fresh:
        return stored.read_bytes()
    return build_reference(run, target)


def build_reference(run: Run, target: Target) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "reference.onnx"
        run.build(run.info.space.middle(), path, target.runtime.options)
        return path.read_bytes()
