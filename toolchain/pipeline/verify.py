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
from toolchain.pipeline.export import device_parity
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Failed, Manifest
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

    manifest: Manifest
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
    latency budget it is said to have met; elsewhere its speed is stated and nothing is judged.

    Raises:
        IntegrityError: a file is missing, changed, or leads out of the folder; the manifest contradicts itself or its
            model card, or describes no measurement.
        ParityError: the model's answers differ from the module's it was made from.
    """
    listener(Progress("verify", 1, 3, "files"))
    manifest = export.read_manifest(folder)
    export.verify_files(folder, manifest)
    checks = [Check("integrity", True, f"{len(manifest.files)} files match their sha256")]
    listener(Progress("verify", 2, 3, "parity"))
    model = folder / manifest.artifact.file
    evidence = load_checks(folder / CHECKS_FILE)
    allowed = min(manifest.parity_tolerance, export.TOLERANCE)
    stated = _target(manifest)
    if target is not None:  # its device, with the settings that the manifest tells of
        measure = msgspec.structs.replace(target.measure, thermal=stated.measure.thermal)
        stated = msgspec.structs.replace(target, runtime=stated.runtime, measure=measure)
    with contextlib.closing(devices.open_device(stated, project)) as device:
        if target is None:
            worst = export.check_parity(export.open_session(model, manifest.options), evidence, allowed)
        else:
            worst = device_parity(model, evidence, device, allowed)
        where = f" on {target.id}" if target else ""
        detail = f"{len(evidence.inputs)} inputs{where}, largest difference {worst:.1e} (allowed {allowed:.0e})"
        checks.append(Check("parity", True, detail))
        if speed:
            listener(Progress("verify", 3, 3, "speed"))
            checks += _speed(model, manifest, device)
    return Verified(manifest, checks)


def _speed(model: Path, manifest: Manifest, device: devices.Device) -> list[Check]:
    """On the manifest's device: as fast as stated, and within the budget; the best of a few attempts is judged."""
    environment = profiling.read_environment(device)
    measured_s = _median_s(model, manifest, device)
    if environment.fingerprint != manifest.environment.fingerprint:
        detail = (
            f"{1e3 * measured_s:.3f} ms {environment.source} here, which is not the device of the manifest: not judged"
        )
        return [Check("speed", True, detail)]
    stated_s = manifest.latency.median_s
    limits = {"speed": (_SLOWER * stated_s, f"{1e3 * stated_s:.3f} ms stated, ")}
    budgets = [one.budget.limit for one in manifest.budgets if one.budget.metric == "latency_s" and one.met]
    if budgets:
        limits["budget"] = (min(budgets), "")
    for _ in range(_ATTEMPTS - 1):
        if all(measured_s <= limit_s for limit_s, _ in limits.values()):
            break
        measured_s = min(measured_s, _median_s(model, manifest, device))
    return [
        Check(
            name,
            measured_s <= limit_s,
            f"{1e3 * measured_s:.3f} ms {environment.source}, {stated}at most {1e3 * limit_s:.3f} ms allowed",
        )
        for name, (limit_s, stated) in limits.items()
    ]


def _target(manifest: Manifest) -> Target:
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


def _median_s(model: Path, manifest: Manifest, device: devices.Device) -> float:
    """The model's own median: it is its own reference, for a bundle carries no other."""
    shape = (manifest.workload.batch, manifest.workload.sequence_length)
    inputs = {
        "input_ids": profiling.InputShape(dtype="int64", shape=shape, low=5, high=manifest.vocabulary_size),
        "attention_mask": profiling.InputShape(dtype="int64", shape=shape, low=1, high=2),
    }
    ((_, outcome),) = profiling.measure([profiling.Candidate("model", model)], model, inputs, device, seed=0)
    if isinstance(outcome, Failed):
        raise MostoolError("the model does not run here", why=f"{outcome.stage}: {outcome.error}")
    return profiling.latency(outcome, profiling.anchor_s([outcome])).raw_median_s
