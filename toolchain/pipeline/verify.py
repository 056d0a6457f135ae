"""verify: is a bundle whole, does it compute what it should here, and is it as fast as it says?"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain import devices, export, profiling
from toolchain.errors import IntegrityError, MostoolError
from toolchain.export.bundle import CHECKS_FILE
from toolchain.export.parity import load_checks
from toolchain.pipeline import engines
from toolchain.pipeline.compiling import MARKS
from toolchain.pipeline.measured import device_parity
from toolchain.pipeline.shipping import MODEL_FILE
from toolchain.pipeline.workloads import input_shapes
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import (
    DEVICE_METRICS,
    MEDIAN,
    AnyManifest,
    Environment,
    Failed,
    Source,
    cost_key,
    names_of,
    spelled,
)
from toolchain.targets import Measure, Runtime, Target

_ATTEMPTS = 6
_SLOWER = 1.25
"""On the same device, a file this many times slower than its manifest says is not what it says."""


class Check(NamedTuple):
    """One part of a verification."""

    name: str
    passed: bool
    detail: str


class Verified(NamedTuple):
    """A bundle's manifest and how it fared."""

    manifest: AnyManifest
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(
    folder: Path,
    *,
    speed: bool = True,
    target: Target | None = None,
    project: Path = Path(),
    listener: ProgressListener = silent,
) -> Verified:
    """Check a bundle on this machine, or its answers and speed on a target's device. Needs nothing but the folder.

    It runs with the settings the manifest tells of, whatever the target's are.

    Where the device is the one the manifest was measured on, the file must be about as fast as stated, and within the
    budgets on latency and memory it is said to have met; elsewhere its speed is stated and nothing is judged.
    Where this machine lacks what the manifest's device runs it with, a GPU say, there is no speed to state.

    Raises:
        IntegrityError: a file is missing, changed, or leads out of the folder; the manifest contradicts itself or its
            model card, or describes no measurement.
        ParityError: the model's answers differ from the module's it was made from, or those of a quantised file from
            what it answered where it was built.
    """
    manifest = export.read_manifest(folder)
    listener(Progress("verify", 1, 3, "files"))
    export.verify_files(folder, manifest)
    checks = [Check("integrity", True, f"{len(manifest.files)} files match their sha256")]
    listener(Progress("verify", 2, 3, "parity"))
    evidence = _evidence(folder, manifest)
    stated = _target(manifest)
    if target is not None:  # its device, with the settings that the manifest tells of
        measure = msgspec.structs.replace(target.measure, thermal=stated.measure.thermal)
        stated = msgspec.structs.replace(target, runtime=stated.runtime, measure=measure)
    with contextlib.closing(devices.open_device(stated, project)) as device:
        runs = manifest.engine is None or engines.can_run(device)
        checks += _parity(folder, manifest, evidence, device, there=target is not None, runs=runs)
        if speed and not runs:
            checks.append(Check("speed", True, "not judged: there is no GPU here that the engine was built for"))
        elif speed:
            listener(Progress("verify", 3, 3, "speed"))
            try:
                environment = profiling.read_environment(device)
            except profiling.RefusedError as refused:
                if target is not None:
                    raise
                checks.append(Check("speed", True, f"not judged: {refused.why or refused}"))
            else:
                checks += _speed(folder / manifest.artifact.file, manifest, device, environment)
    return Verified(manifest, checks)


def _parity(
    folder: Path,
    manifest: AnyManifest,
    evidence: export.Checks,
    device: devices.Device,
    *,
    there: bool,
    runs: bool,
) -> list[Check]:
    """What the file answers, here or `there`; of an engine also what the ONNX file it was built from answers here."""
    model = folder / manifest.artifact.file
    precision = manifest.artifact.precision
    allowed = min(manifest.parity_tolerance, export.tolerance(precision, evidence))
    checks = []
    if manifest.engine is not None:
        worst = export.check_parity(export.open_session(folder / MODEL_FILE, {}), evidence, allowed)
        checks.append(_compared(f"parity of {MODEL_FILE}", evidence, "", worst, allowed))
        if not runs:
            return checks
    if there or manifest.engine is not None:
        worst = device_parity(model, evidence, device, precision, allowed)
        checks.append(_compared("parity", evidence, f" on {device.target.id}", worst, allowed))
    else:
        worst = export.check_parity(export.open_session(model, manifest.options), evidence, allowed)
        checks.append(_compared("parity", evidence, "", worst, allowed))
    if manifest.task == "translate" and manifest.training is not None:
        marks = export.TranslationMarks(*MARKS)
        graphs = export.ByGraphs(export.Translation(folder, marks, options=manifest.options), marks.end)
        worst = export.check_parity(graphs, evidence, allowed)
        checks.append(_compared("parity of the three graphs", evidence, "", worst, allowed))
    return checks


def _compared(name: str, evidence: export.Checks, where: str, worst: float, allowed: float) -> Check:
    if evidence.expected and evidence.expected[0].dtype.kind in "iu":
        rows = sum(map(len, evidence.expected))
        other = f"{100 * worst:.0f} % with other words (allowed {100 * allowed:.0f} %)"
        return Check(name, True, f"{rows} translations{where}, {other}")
    inputs = len(evidence.inputs)
    return Check(name, True, f"{inputs} inputs{where}, largest difference {worst:.1e} (allowed {allowed:.0e})")


def _evidence(folder: Path, manifest: AnyManifest) -> export.Checks:
    """The questions that travel, which must be of the inputs that the manifest names."""
    evidence = load_checks(folder / CHECKS_FILE)
    names = {one.name for one in manifest.inputs}
    for one in evidence.inputs:
        if set(one) != names:
            why = f"it asks with {', '.join(sorted(one))}, the model reads {', '.join(sorted(names))}"
            raise IntegrityError(f"{CHECKS_FILE} is not of this model", why=why, hint="get the bundle again")
    return evidence


def _speed(model: Path, manifest: AnyManifest, device: devices.Device, environment: Environment) -> list[Check]:
    """On the manifest's device: as fast as stated, and within the budgets; the best of a few attempts is judged."""
    taken = _taken(model, manifest, device)
    measured_s = taken[MEDIAN.name]
    if environment.fingerprint != manifest.environment.fingerprint:
        detail = (
            f"{1e3 * measured_s:.3f} ms {environment.source} here, which is not the device of the manifest: not judged"
        )
        return [Check("speed", True, detail)]
    if manifest.latency is None:
        return [
            Check("speed", True, f"{1e3 * measured_s:.3f} ms {environment.source} here; none is stated: not judged")
        ]
    stated_s = manifest.latency.median_s
    limits = [_Limit("speed", MEDIAN.name, _SLOWER * stated_s, f"{1e3 * stated_s:.3f} ms stated, ")]
    limits += _budget_limits(manifest)
    for _ in range(_ATTEMPTS - 1):
        if all(taken.get(one.cost, 0.0) <= one.most for one in limits):
            break
        again = _taken(model, manifest, device)
        taken = {cost: min(value, taken.get(cost, value)) for cost, value in (taken | again).items()}
    return [one.check(taken.get(one.cost), environment.source) for one in limits]


class _Limit(NamedTuple):
    """What a cost, by its name on any device, may be at most, and which check that is."""

    check_name: str
    cost: str
    most: float
    stated: str = ""

    def check(self, value: float | None, source: Source) -> Check:
        limit = f"at most {spelled(self.cost, self.most)} allowed"
        if value is None:
            return Check(self.check_name, True, f"{limit}; so short a measurement does not tell: not judged")
        detail = f"{spelled(self.cost, value)} {source}, {self.stated}{limit}"
        return Check(self.check_name, value <= self.most, detail)


def _budget_limits(manifest: AnyManifest) -> list[_Limit]:
    """The tightest budget that is said to be met on each cost that only the device tells."""
    tightest: dict[str, float] = {}
    for one in manifest.budgets:
        cost = cost_key(one.budget.metric, None, one.budget.percentile)
        if one.met and one.budget.metric in DEVICE_METRICS:
            tightest[cost] = min(one.budget.limit, tightest.get(cost, one.budget.limit))
    names = names_of(tightest)
    return [
        _Limit("budget" if cost == MEDIAN.name else f"budget on {names[cost]}", cost, most)
        for cost, most in tightest.items()
    ]


def _target(manifest: AnyManifest) -> Target:
    """The device as the manifest describes it, which is anybody's word."""
    try:
        return Target(
            id=manifest.target,
            title="as in the manifest",
            runtime=Runtime(
                engine=manifest.environment.engine,  # type: ignore[arg-type]  # anybody's word, see below
                provider=manifest.environment.provider,
                threads=manifest.threads,
                options=manifest.options,
                provider_options=manifest.provider_options,
                cores=manifest.cores,
            ),
            measure=Measure(minimum_s=0.5, thermal=manifest.thermal),  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise IntegrityError(
            "the manifest describes no measurement", why=str(error), hint="get the bundle again"
        ) from error


def _taken(model: Path, manifest: AnyManifest, device: devices.Device) -> dict[str, float]:
    """What a pass takes, by the cost's name on any device; what a short measurement does not tell is left out.

    The model is its own reference, for a bundle carries no other: latencies are as the clock said.
    """
    inputs = input_shapes(manifest.inputs, manifest.workload, manifest.vocabulary_size)
    ((_, outcome),) = profiling.measure([profiling.Candidate("model", model)], model, inputs, device, seed=0)
    if isinstance(outcome, Failed):
        raise MostoolError("the model does not run here", why=f"{outcome.stage}: {outcome.error}")
    latency = profiling.latency(outcome, profiling.anchor_s([outcome]))
    raw = latency.raw_median_s / latency.median_s
    found = {
        MEDIAN.name: latency.raw_median_s,
        cost_key("latency_s", None, 90): latency.p90_s and raw * latency.p90_s,
        cost_key("latency_s", None, 99): latency.p99_s and raw * latency.p99_s,
        "peak_memory_bytes": outcome.model_memory_bytes,
    }
    return {cost: float(value) for cost, value in found.items() if value is not None}
