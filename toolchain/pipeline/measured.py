"""Model files measured on a device as they ship: their answers there, and their latencies side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy.typing as npt

from toolchain import devices, profiling
from toolchain import export as exporting
from toolchain.errors import DeviceError, ParityError
from toolchain.pipeline.subjects import Subject, shapes_of
from toolchain.records import Environment, Failed, FilePrecision, Latency, Workload
from toolchain.targets import Measure

_FINAL_SECONDS = 1.0
_FINAL_ROUNDS = 40


class Measured(NamedTuple):
    """A file's latency on a device, and what a call takes of its memory and energy; None where that is not told."""

    latency: Latency
    peak_memory_bytes: int | None
    energy_j: float | None = None


def measure_files(
    subject: Subject,
    files: Sequence[profiling.Candidate],
    device: devices.Device,
    environment: Environment,
    workload: Workload,
) -> dict[str, Measured | Failed]:
    """The files' latencies by their names, measured in turns; paired with the reference of the device's table, where
    there is one, else with what the subject is usually measured beside, else with the first of them.

    Raises:
        DeviceError: the device has another fingerprint than its table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        reference, anchor_s = subject.reference(Path(scratch), environment)
        found = dict[str, Measured | Failed]()
        timed = profiling.measure(
            files,
            reference or files[0].path,
            shapes_of(subject, workload),
            device,
            seed=0,
            settings=_longer(device.target.measure),
            expected=environment,
        )
        for candidate, outcome in timed:
            if isinstance(outcome, Failed):
                found[candidate.name] = outcome
                continue
            own_s = profiling.anchor_s([outcome]) if anchor_s is None else anchor_s
            energy_j = outcome.energy.joules_per_call if outcome.energy else None
            found[candidate.name] = Measured(profiling.latency(outcome, own_s), outcome.model_memory_bytes, energy_j)
        return found


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


def device_parity(
    model: Path,
    checks: exporting.Checks,
    device: devices.Device,
    precision: FilePrecision,
    allowed: float | None = None,
) -> float:
    """The largest difference between what the file answers on the device and what is expected of it.

    Raises:
        DeviceError: the file does not run there.
        ParityError: the difference exceeds what is `allowed`, or what files of this precision are.
    """
    answers = profiling.run_model(model, checks.inputs, device)
    most = exporting.tolerance(precision, checks) if allowed is None else allowed
    try:
        return exporting.check_parity(_Recorded(answers), checks, most)
    except ParityError as error:
        raise ParityError(f"on {device.target.id}: {error.what}", why=error.why, hint=error.hint) from error


def refused(what: str, failed: Failed, target: str) -> DeviceError:
    """A file that could not be measured, as the error that it is."""
    return DeviceError(f"{what} does not run on {target}", why=f"{failed.stage}: {failed.error}")
