"""Measuring models in groups: candidates and a device in, one `Timed` or `Failed` for each candidate out.

A worker serves one group and is then ended. When it dies, the group is measured candidate by candidate, and the one
with which it happens again has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.devices import Device
from toolchain.devices.device import Claim
from toolchain.devices.package import packed_sha256
from toolchain.errors import DeviceError
from toolchain.files import sha256_bytes, sha256_file
from toolchain.onboard.model import median
from toolchain.profiling import messages
from toolchain.profiling.session import InputShape, RefusedError, Session, WorkerLostError, unexpected
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Environment, Failed, NoiseFloor, Timed
from toolchain.targets import Measure

_COPIES = 4
_RESTARTS = 1


class Candidate(NamedTuple):
    """A model file to be measured. The name is for the progress line and for messages."""

    name: str
    path: Path


class Spent:
    """Where the time of measuring went, in seconds: inside inferences, and in workers altogether."""

    def __init__(self) -> None:
        self.called_s = 0.0
        self.elapsed_s = 0.0


def measure(
    candidates: Sequence[Candidate],
    reference: Path,
    inputs: Mapping[str, InputShape],
    device: Device,
    seed: int,
    *,
    listener: ProgressListener = silent,
    spent: Spent | None = None,
    settings: Measure | None = None,
    expected: Environment | None = None,
) -> Iterator[tuple[Candidate, Timed | Failed]]:
    """Measure every candidate, interleaved with the reference model; outcomes come as they settle, in no order.

    All models take the same `inputs`, drawn from `seed`, which also decides the order of turns. `settings` are the
    target's unless others are given, and the device must be the one that was `expected`. What a mostool that was
    killed had started on the device is heard first, and not measured again.

    Raises:
        DeviceError: the device, engine, provider or reference fails: nothing a candidate could be blamed for.
    """
    job = _Job(reference, inputs, device, settings or device.target.measure, seed, spent or Spent(), expected)
    left = list(candidates)
    for candidate, outcome in _heard_late(job, left, listener):
        left.remove(candidate)
        yield candidate, outcome
    done, size = len(candidates) - len(left), job.settings.group
    for start in range(0, len(left), size):
        group = left[start : start + size]
        tally = _Tally(group, done + start, len(candidates), listener)
        for number, outcome in _measure_group(job, group, tally):
            yield group[number], outcome
        for candidate in group:
            device.discard(candidate.path)


def noise_floor(
    reference: Path,
    inputs: Mapping[str, InputShape],
    device: Device,
    listener: ProgressListener = silent,
    spent: Spent | None = None,
    expected: Environment | None = None,
) -> NoiseFloor:
    """An A/A test: the reference as several candidates of one group, which differ by nothing but noise.

    Raises:
        DeviceError: as `measure`, or a copy fails.
    """
    copies = [Candidate(f"copy {number} of the reference", reference) for number in range(1, _COPIES + 1)]
    job = _Job(reference, inputs, device, device.target.measure, 0, spent or Spent(), expected)
    ratios = []
    for _, outcome in _measure_group(job, copies, _Tally(copies, 0, len(copies), listener)):
        if isinstance(outcome, Failed):
            raise WorkerLostError(device.target, f"the reference failed: {outcome.error}", None)
        ratios.append(median([min(turn.wall_s) / turn.reference_fastest_s for turn in outcome.rounds]))
    return NoiseFloor(value=round(max(ratios) / min(ratios) - 1, 6), copies=len(ratios))


# -- a group ---------------------------------------------------------------------------------------------------------


class _Tally(NamedTuple):
    """Where a group stands among all candidates, for the listener."""

    group: Sequence[Candidate]
    done: int
    total: int
    listener: ProgressListener

    def narrowed(self, number: int) -> _Tally:
        return _Tally([self.group[number]], self.done + number, self.total, self.listener)

    def tell(self, step: messages.Step) -> None:
        if step.step == "rounds":
            note = f"round {step.rounds}, worst ±{100 * step.half_width:.1f} %"
        elif step.step == "cool-down":
            note = f"waiting for the device to recover: {step.note}"
        else:
            name = self.group[step.candidate].name if step.candidate >= 0 else "reference"
            note = f"{step.step} {name}"
        self.listener(Progress("profile", self.done, self.total, note))


class _Job(NamedTuple):
    """What all groups share."""

    reference: Path
    inputs: Mapping[str, InputShape]
    device: Device
    settings: Measure
    seed: int
    spent: Spent
    expected: Environment | None

    @property
    def key(self) -> str:
        """Names all that is asked but the models and the order of turns. What answers says itself what it is."""
        target = self.device.target
        facts = (sha256_file(self.reference), dict(self.inputs), target.runtime, self.settings, packed_sha256())
        return sha256_bytes(msgspec.json.encode(facts, order="sorted"))


def _heard_late(
    job: _Job, wanted: Sequence[Candidate], listener: ProgressListener
) -> Iterator[tuple[Candidate, Timed | Failed]]:
    """What workers of a mostool that is gone have measured of the candidates, or still do."""
    by_content = {sha256_file(candidate.path): candidate for candidate in wanted}
    for claim, connection in job.device.left_over(job.key):
        group = [by_content.get(sha256) for sha256 in claim.models]
        if not any(group):
            connection.close()
            continue
        listener(Progress("profile", 0, len(wanted), "listening to what was started before"))
        shown = [candidate or Candidate("another", job.reference) for candidate in group]
        with Session(job.device.target, connection) as session:
            try:
                session.hear_hello()
                for number, outcome in _outcomes(session, shown, _Tally(shown, 0, len(wanted), listener), job):
                    candidate = group[number]
                    if candidate is not None and by_content.pop(claim.models[number], None) is not None:
                        yield candidate, outcome
            except (WorkerLostError, RefusedError, OtherDeviceError):
                continue  # then it is measured now


def _measure_group(
    job: _Job, group: Sequence[Candidate], tally: _Tally, restarts: int = _RESTARTS
) -> Iterator[tuple[int, Timed | Failed]]:
    """The outcome of each candidate with its number in the group, as it settles, whatever becomes of the worker.

    A device that is restarted in mid-group is nobody's fault, but for `restarts` times: a model may be too much for its
    power supply.
    """
    left = set(range(len(group)))
    try:
        for number, outcome in _attempt(job, group, tally):
            left.remove(number)
            yield number, outcome
    except WorkerLostError as lost:
        if lost.restarted and restarts:
            numbers = sorted(left)
            rest = tally._replace(group=[group[number] for number in numbers], done=tally.done + len(group) - len(left))
            again = _measure_group(job, rest.group, rest, restarts - 1)
            yield from ((numbers[number], outcome) for number, outcome in again)
            return
        if lost.about is None:
            raise
        if left and len(group) == 1:
            left.clear()
            yield 0, Failed(stage="worker", error=lost.how)
    for number in sorted(left):
        for _, outcome in _measure_group(job, [group[number]], tally.narrowed(number), restarts):
            yield number, outcome


def _attempt(job: _Job, group: Sequence[Candidate], tally: _Tally) -> Iterator[tuple[int, Timed | Failed]]:
    """Measure a group in one fresh worker; outcomes come as they are settled, each candidate's exactly once."""
    device = job.device
    reference, candidates = device.place(job.reference), [device.place(candidate.path) for candidate in group]
    claim = Claim(job.key, tuple(sha256_file(candidate.path) for candidate in group))
    with Session(device.target, device.start_worker(claim)) as session:
        session.ask(
            "measure",
            reference=reference,
            candidates=candidates,
            inputs=dict(job.inputs),
            seed=job.seed,
            measure=job.settings,
        )
        yield from _outcomes(session, group, tally, job)


def _outcomes(
    session: Session, group: Sequence[Candidate], tally: _Tally, job: _Job
) -> Iterator[tuple[int, Timed | Failed]]:
    left = set(range(len(group)))
    while True:
        match session.listen():
            case messages.Described(environment=environment):
                _check_device(session, environment, job.expected)
            case messages.Step() as step if step.candidate < len(group):
                tally.tell(step)
            case messages.CandidateTimed(candidate=number, timed=timed) if number in left:
                left.remove(number)
                yield number, timed
            case messages.CandidateFailed(candidate=number, stage=stage, error=error) if number in left:
                left.remove(number)
                yield number, Failed(stage=stage, error=_one_line(error, group[number]))
            case messages.Done(called_s=called_s, elapsed_s=elapsed_s) if not left:
                job.spent.called_s += called_s
                job.spent.elapsed_s += elapsed_s
                return
            case answer:
                raise unexpected(session.target, answer)


class OtherDeviceError(DeviceError):
    """What answers is not the device that was asked."""


def _check_device(session: Session, found: Environment, expected: Environment | None) -> None:
    if expected is not None and found.fingerprint != expected.fingerprint:
        names = [name for name in found.__struct_fields__ if getattr(found, name) != getattr(expected, name)]
        raise OtherDeviceError(
            f"{session.target.id} has changed while it was measured",
            why=", ".join(f"{name}: {getattr(expected, name)} -> {getattr(found, name)}" for name in names)[:500],
            hint="run the same command again: it says what becomes of the table",
        )


def _one_line(error: str, candidate: Candidate) -> str:
    """An engine's message without line breaks and without the folder the model is in."""
    return " ".join(error.replace(str(candidate.path.resolve()), candidate.name).split())
