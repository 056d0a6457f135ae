"""export: a subnet becomes a bundle, and the file that ships is measured on the device before it does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy.typing as npt

from toolchain import devices, profiling
from toolchain import export as exporting
from toolchain.errors import DeviceError, MostoolError, ParityError, UnstableError
from toolchain.files import sha256_file
from toolchain.pipeline.building import build_reference, session_options
from toolchain.pipeline.predict import predict, read_predictor
from toolchain.pipeline.profile import check_workload, describe_table, input_shapes, usual_workload
from toolchain.pipeline.project import Project, versions
from toolchain.pipeline.runs import Run, example_texts
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import (
    DEVICE_METRICS,
    Artifact,
    Budget,
    BudgetOutcome,
    Environment,
    Failed,
    FilePrecision,
    Latency,
    Manifest,
    Source,
    TableInfo,
    Timed,
    Workload,
    names_of,
    now,
    read_record,
    spelled,
)
from toolchain.space import Architecture
from toolchain.targets import Measure, Target

_FINAL_SECONDS = 1.0
_FINAL_ROUNDS = 40
_STEPS = 5
_FAR_OFF = 1.25
"""A prediction off by such a factor is told."""


class Exported(NamedTuple):
    """The bundle that was built, and what the user should know about it."""

    folder: Path
    manifest: Manifest
    warnings: list[str]


class Measured(NamedTuple):
    """A file's latency on a device, and what a call takes of its memory and energy; None where that is not told."""

    environment: Environment
    latency: Latency
    peak_memory_bytes: int | None
    parity_max_abs_error: float
    energy_j: float | None = None


def export(
    project: Project,
    run: Run,
    architecture: Architecture,
    target: Target,
    workload: Workload,
    *,
    budgets: Sequence[Budget] = (),
    out: Path | None = None,
    strict: bool = False,
    listener: ProgressListener = silent,
) -> Exported:
    """Materialize a subnet, export it, prove the file equal to it, measure the file, and write the bundle.

    Raises:
        ParityError: the file and the module disagree; nothing is written.
        DeviceError: the device is not the one its table was measured on, or the file does not run there.
        UnstableError: with `strict`, the measurement did not settle; nothing is written.
    """
    check_workload(run, workload)
    folder = out or project.bundle_folder(run.folder, architecture)
    run.remember([architecture])
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        listener(Progress("export", 1, _STEPS, "materialize, export, compare"))
        artifact, checks = run.build(architecture, model, session_options(target))
        listener(Progress("export", 2, _STEPS, f"measure on {target.id}"))
        table, row = _table(project, run, architecture, target, workload)
        predicted_s = _predicted_s(table, row)

        def tell(note: str) -> None:
            listener(Progress("export", 2, _STEPS, note))

        with contextlib.closing(devices.open_device(target, project.root, tell)) as device:
            measured = measure_file(run, model, table, device, workload, checks, artifact.precision)
        if strict and measured.latency.status:
            raise UnstableError(
                f"the latency on {target.id} is in doubt: {', '.join(measured.latency.status)}",
                hint="make the machine quiet and export again; nothing was written",
            )
        listener(Progress("export", 3, _STEPS, "quality of the file"))
        quality = run.quality(exporting.predictor(model, session_options(target)), "test")
        listener(Progress("export", 4, _STEPS, "bundle"))
        examples = example_texts(run)
        manifest = Manifest(
            name=folder.name,
            task=run.info.training.task,
            labels=run.info.data.labels,
            artifact=artifact,
            target=target.id,
            workload=workload,
            environment=measured.environment,
            threads=target.runtime.threads,
            options=target.runtime.options,
            provider_options=target.runtime.provider_options,
            cores=target.runtime.cores,
            thermal=target.measure.thermal,
            device_parity_max_abs_error=measured.parity_max_abs_error,
            maximum_length=run.info.space.fixed["maximum_length"],
            vocabulary_size=run.info.vocabulary_size,
            predicted_s=predicted_s,
            latency=measured.latency,
            peak_memory_bytes=measured.peak_memory_bytes,
            quality=quality,
            trivial_quality=run.info.data.majority_share,
            budgets=tuple(
                outcome
                for budget in budgets
                if budget.target in (None, target.id) and budget.workload in (None, workload)
                if (outcome := _outcome(budget, artifact, measured)) is not None
            ),
            data=run.info.data,
            training=run.info.training,
            checkpoint_sha256=run.checkpoint_sha256,
            parity_tolerance=exporting.tolerance(artifact.precision, checks),
            created_at=now(),
            files={},
            versions=versions(),
            pairs=any(isinstance(example, tuple) for example in examples),
            alone=run.info.space.point is not None,
            origin=run.info.origin,
            teacher=run.info.teacher,
        )
        tokenizer = run.data_folder / "tokenizer.json"
        manifest = exporting.write_bundle(folder, manifest, model, tokenizer, checks, examples)
    listener(Progress("export", _STEPS, _STEPS))
    unjudged = [budget for budget in budgets if budget not in [outcome.budget for outcome in manifest.budgets]]
    return Exported(folder, manifest, [*_warnings(manifest), *_not_judged(unjudged, target, workload)])


def _table(
    project: Project, run: Run, architecture: Architecture, target: Target, workload: Workload
) -> tuple[Path, Architecture]:
    """Where the device's table of the architecture would be, and how it calls it: a mixed one also knows all fp32."""
    own = project.table_folder(target.id, run.space_of(architecture), workload)
    if (own / profiling.TABLE).is_file() or run.declared.has_bits(architecture) or not run.exports:
        return own, architecture
    mixed = project.table_folder(target.id, run.bits_space, workload)
    if (mixed / profiling.TABLE).is_file():
        return mixed, run.declared.at_bits(architecture, 32)
    return own, architecture


def usual_device(project: Project, run: Run, architecture: Architecture | None = None) -> tuple[str, Workload]:
    """The device and the work a subnet is built for unless told: of the last search, else profiled last, else cpu.

    Profiled last is in a table of the architecture's space, with bits or without, where there is one.
    """
    result = run.find_result()
    if result is not None and result.target is not None and result.workload is not None:
        return result.target, result.workload
    own = run.info.space if architecture is None else run.space_of(architecture)
    folder = project.find_table(None, own) or project.find_table(None, run.info.space)
    if folder is not None:
        info, _ = profiling.read_table(folder)
        return info.target, info.workload
    return "cpu", usual_workload(run)


def measure_file(
    run: Run,
    model: Path,
    table: Path,
    device: devices.Device,
    workload: Workload,
    checks: exporting.Checks,
    precision: FilePrecision = "fp32",
) -> Measured:
    """A file's answers and latency on a device; paired with the reference of the device's table where there is one.

    Answers of a file of another `precision` than fp32 may differ by more: see `export.tolerance`.

    Raises:
        DeviceError: the device has another fingerprint than its table, or the file does not load or run there.
        ParityError: the file answers otherwise there than the module does here.
    """
    environment = profiling.read_environment(device)
    target = device.target
    error = device_parity(model, checks, device, exporting.tolerance(precision, checks))
    inputs = input_shapes(run, workload)
    candidate = profiling.Candidate("the exported file", model)
    with tempfile.TemporaryDirectory() as scratch:
        anchor: float | None = None
        reference = table / profiling.REFERENCE
        if reference.is_file():
            stored = read_record(table / profiling.TABLE, TableInfo)
            wanted = describe_table(
                run, target, workload, environment, sha256_file(reference), mixed=stored.precision == "mixed"
            )
            changes = profiling.differences(stored, wanted)
            if changes:
                raise DeviceError(
                    f"{target.id} is not what its latency table was measured on",
                    why="; ".join(changes),
                    hint="start a new table: mostool profile --fresh",
                )
            _, rows = profiling.read_table(table)
            timed = [row.outcome for row in rows if isinstance(row.outcome, Timed)]
            anchor = profiling.anchor_s(timed) if timed else None
        else:
            reference = Path(scratch) / "reference.onnx"
            reference.write_bytes(build_reference(run, target))
        measure = _longer(target.measure)
        ((_, outcome),) = profiling.measure(
            [candidate], reference, inputs, device, seed=0, settings=measure, expected=environment
        )
        if isinstance(outcome, Failed):
            raise DeviceError(f"the exported file does not run on {target.id}", why=f"{outcome.stage}: {outcome.error}")
        latency = profiling.latency(outcome, profiling.anchor_s([outcome]) if anchor is None else anchor)
        energy_j = outcome.energy.joules_per_call if outcome.energy else None
        return Measured(environment, latency, outcome.model_memory_bytes, error, energy_j)


def _longer(measure: Measure) -> Measure:
    """What ships is measured longer than a row of a table."""
    return msgspec.structs.replace(
        measure,
        minimum_s=max(_FINAL_SECONDS, measure.minimum_s),
        minimum_rounds=max(_FINAL_ROUNDS, measure.minimum_rounds),
    )


class _Recorded(NamedTuple):
    """Answers that were computed elsewhere, asked for in their order."""

    answers: list[list[npt.NDArray[Any]]]

    def run(self, _outputs: None, _inputs: object) -> list[npt.NDArray[Any]]:
        return self.answers.pop(0)


def device_parity(model: Path, checks: exporting.Checks, device: devices.Device, tolerance: float) -> float:
    """The largest difference between what the file answers on the device and what the module does.

    Raises:
        DeviceError: the file does not run there.
        ParityError: the difference exceeds `tolerance`.
    """
    answers = profiling.run_model(model, checks.inputs, device)
    try:
        return exporting.check_parity(_Recorded(answers), checks, tolerance)
    except ParityError as error:
        raise ParityError(f"on {device.target.id}: {error.what}", why=error.why, hint=error.hint) from error


def _predicted_s(table: Path, architecture: Architecture) -> float | None:
    """What the device's predictor says, not having seen the subnet; None without a table, or with too small a one."""
    if not (table / profiling.TABLE).is_file():
        return None
    try:
        predictor = read_predictor(table)
        held_out = {name: guess_s for name, _, guess_s in predictor.points}
        return held_out.get(architecture.id) or predict(predictor, [architecture])[0].latency_s
    except MostoolError:
        return None


def _outcome(budget: Budget, artifact: Artifact, measured: Measured) -> BudgetOutcome | None:
    """A budget beside what the file takes; None where that was not measured."""
    latency = measured.latency
    value = {
        "latency_s": {50: latency.median_s, 90: latency.p90_s, 99: latency.p99_s}[budget.percentile],
        "peak_memory_bytes": measured.peak_memory_bytes,
        "energy_j": measured.energy_j,
        "size_bytes": artifact.size_bytes,
        "parameters": artifact.parameters,
    }[budget.metric]
    if value is None or (budget.metric == "energy_j" and value <= 0):  # less than the sensor can tell
        return None
    source: Source = measured.environment.source if budget.metric in DEVICE_METRICS else "counted"
    return BudgetOutcome(budget=budget, value=float(value), source=source, met=value <= budget.limit)


_UNMEASURED = {
    "latency_s": "the measurement has too few undisturbed calls",
    "peak_memory_bytes": "nothing tells what a process takes",
    "energy_j": "nothing was metered (no sensor, or its measure.energy_s is 0)",
}


def _not_judged(budgets: Sequence[Budget], target: Target, workload: Workload) -> list[str]:
    """A limit for one device and shape of work says nothing about another; what was not measured is not judged."""
    names = {budget: names_of([budget.key])[budget.key] for budget in budgets}
    return [
        f"the {names[budget]} budget for {budget.target} is not judged: this is {target.id}, {workload.slug}"
        if budget.target not in (None, target.id) or budget.workload not in (None, workload)
        else f"the {names[budget]} budget is not judged: on {target.id} {_UNMEASURED[budget.metric]}"
        for budget in budgets
    ]


def _warnings(manifest: Manifest) -> list[str]:
    names = names_of(one.budget.key for one in manifest.budgets)
    warnings = [
        f"the budget on {names[key]} is missed: {spelled(key, one.value)}, limit {spelled(key, one.budget.limit)}"
        for one in manifest.budgets
        for key in [one.budget.key]
        if not one.met
    ]
    if manifest.trivial_quality is not None and manifest.quality.value <= manifest.trivial_quality:
        warnings.append(
            f"it is no better than always giving the most frequent answer ({100 * manifest.trivial_quality:.1f} %): "
            "train longer, or on more data"
        )
    latency_s = manifest.latency.median_s
    if manifest.predicted_s and not 1 / _FAR_OFF < manifest.predicted_s / latency_s < _FAR_OFF:
        warnings.append(
            f"it was predicted to take {1e3 * manifest.predicted_s:.3f} ms and takes {1e3 * latency_s:.3f} ms: "
            "the predictor does not know this device; profile more subnets"
        )
    upper_s = latency_s + manifest.latency.half_width_s
    warnings += [
        f"the latency's interval reaches over its budget: {1e3 * upper_s:.3f} ms, limit {1e3 * one.budget.limit:.3f} ms"
        for one in manifest.budgets
        if one.budget.metric == "latency_s" and one.budget.percentile == 50 and one.met and upper_s > one.budget.limit
    ]
    if manifest.latency.status:
        warnings.append(f"the latency is in doubt: {', '.join(manifest.latency.status)}")
    return warnings
