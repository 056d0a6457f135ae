"""Measuring models through a worker: candidates and a target in, one `Timed` or `Failed` for each candidate out.

A worker process serves one group and is then ended. What it says is decoded strictly (messages.py). That it dies or
falls silent is an outcome, not an accident: the group is then measured candidate by candidate, and the one with which
it happens again has failed.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import msgspec
import numpy as np

from toolchain.errors import DeviceError
from toolchain.profiling import messages
from toolchain.profiling.connection import Connect, ConnectionLostError, connect
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Environment, Failed, Record, Timed
from toolchain.targets import Target

HELLO_TIMEOUT_S = 60.0

M = TypeVar("M")


class Candidate(NamedTuple):
    """A model file to be measured. The name is for the progress line and for messages."""

    name: str
    path: Path


class InputShape(Record, frozen=True):
    """One input of a model: random values from `low` up to, and without, `high`."""

    dtype: Literal["int64", "int32", "float32", "bool"]
    shape: tuple[int, ...]
    low: float = 0
    high: float = 1


class WorkerLostError(DeviceError):
    """The worker died or fell silent. `about` is the candidate it was busy with, None for the reference or none yet."""

    def __init__(self, target: Target, how: str, about: int | None) -> None:
        super().__init__(
            f"the worker on {target.id} was lost",
            why=how,
            hint="run the same command again: it continues where it stopped",
        )
        self.how = how
        self.about = about


class ModelRefusedError(DeviceError):
    """The one model of a request cannot be loaded or run."""


# -- the public door -------------------------------------------------------------------------------------------------


def read_environment(target: Target, *, connect: Connect = connect) -> Environment:
    """The machine and runtime the target's worker finds itself on.

    Raises:
        DeviceError: no worker there, or it lacks the engine or the provider asked for.
    """
    with _Session(target, connect) as session:
        session.ask("environment")
        return session.await_message(messages.Described).environment


def measure(
    candidates: Sequence[Candidate],
    reference: Path,
    inputs: Mapping[str, InputShape],
    target: Target,
    seed: int,
    *,
    listener: ProgressListener = silent,
    connect: Connect = connect,
) -> Iterator[tuple[Candidate, Timed | Failed]]:
    """Measure every candidate, interleaved with the reference model; outcomes come as they settle, in no order.

    All models take the same `inputs`, drawn from `seed`, which also decides the order of turns.

    Raises:
        DeviceError: the device, engine, provider or reference fails: nothing a candidate could be blamed for.
    """
    job = _Job(reference, inputs, target, seed, connect)
    size = target.measure.group
    for start in range(0, len(candidates), size):
        group = candidates[start : start + size]
        tally = _Tally(group, start, len(candidates), listener)
        for number, outcome in _measure_group(job, group, tally):
            yield group[number], outcome


def peak_memory_bytes(
    path: Path, inputs: Mapping[str, InputShape], target: Target, *, connect: Connect = connect
) -> int | None:
    """How far loading and running a model lifts a fresh worker's peak memory; None where the model does not survive it.

    Raises:
        DeviceError: as `read_environment`.
    """
    with _Session(target, connect) as session:
        session.ask("memory", model=str(path.resolve()), inputs=dict(inputs), seed=0)
        try:
            return session.await_message(messages.Memory).bytes
        except ModelRefusedError:
            return None
        except WorkerLostError as lost:
            if lost.about is None:
                raise
            return None


def run_model(
    path: Path, inputs: Mapping[str, np.ndarray[Any, Any]], target: Target, *, connect: Connect = connect
) -> list[np.ndarray[Any, Any]]:
    """The model's outputs, in its own order, for `inputs`, computed by the target's engine with its options.

    Raises:
        DeviceError: as `read_environment`, or the model cannot be loaded or run there.
    """
    with tempfile.TemporaryDirectory() as name, _Session(target, connect) as session:
        given, made = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        with given.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(inputs))
        session.ask("run", model=str(path.resolve()), inputs=str(given), outputs=str(made))
        count = session.await_message(messages.Ran).outputs
        try:
            with np.load(made, allow_pickle=False) as stored:
                return [stored[f"output_{i}"] for i in range(count)]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DeviceError(f"the worker on {target.id} saved no outputs that can be read", why=str(error)) from error


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
            note = f"round {step.rounds}, ±{100 * step.half_width:.1f} %"
        else:
            name = self.group[step.candidate].name if step.candidate >= 0 else "reference"
            note = f"{step.step} {name}"
        self.listener(Progress("profile", self.done, self.total, note))


class _Job(NamedTuple):
    """What all groups share."""

    reference: Path
    inputs: Mapping[str, InputShape]
    target: Target
    seed: int
    connect: Connect


def _measure_group(job: _Job, group: Sequence[Candidate], tally: _Tally) -> Iterator[tuple[int, Timed | Failed]]:
    """The outcome of each candidate with its number in the group, as it settles, whatever becomes of the worker."""
    left = set(range(len(group)))
    try:
        for number, outcome in _attempt(job, group, tally):
            left.remove(number)
            yield number, outcome
    except WorkerLostError as lost:
        if lost.about is None:
            raise
        if left and len(group) == 1:
            left.clear()
            yield 0, Failed(stage="worker", error=lost.how)
    for number in sorted(left):
        for _, outcome in _measure_group(job, [group[number]], tally.narrowed(number)):
            yield number, outcome


def _attempt(job: _Job, group: Sequence[Candidate], tally: _Tally) -> Iterator[tuple[int, Timed | Failed]]:
    """Measure a group in one fresh worker; outcomes come as they are settled, each candidate's exactly once."""
    left = set(range(len(group)))
    with _Session(job.target, job.connect) as session:
        session.ask(
            "measure",
            reference=str(job.reference.resolve()),
            candidates=[str(candidate.path.resolve()) for candidate in group],
            inputs=dict(job.inputs),
            seed=job.seed,
            measure=job.target.measure,
        )
        while True:
            match session.listen():
                case messages.Step() as step if step.candidate < len(group):
                    tally.tell(step)
                case messages.CandidateTimed(candidate=number, timed=timed) if number in left:
                    left.remove(number)
                    yield number, timed
                case messages.CandidateFailed(candidate=number, stage=stage, error=error) if number in left:
                    left.remove(number)
                    yield number, Failed(stage=stage, error=_one_line(error, group[number]))
                case messages.Done() if not left:
                    return
                case answer:
                    raise _unexpected(job.target, answer)


def _one_line(error: str, candidate: Candidate) -> str:
    """An engine's message without line breaks and without the folder the model is in."""
    return " ".join(error.replace(str(candidate.path.resolve()), candidate.name).split())


# -- one worker ------------------------------------------------------------------------------------------------------


class _Session:
    """A worker from its hello to its end."""

    def __init__(self, target: Target, connect: Connect) -> None:
        self.target = target
        self.connect = connect
        self.about: int | None = None

    def __enter__(self) -> Self:
        self.connection = self.connect(self.target)
        try:
            hello = self._receive(HELLO_TIMEOUT_S)
            if not isinstance(hello, messages.Hello):
                raise _unexpected(self.target, hello)
            if hello.protocol != messages.PROTOCOL:
                raise DeviceError(
                    f"the worker on {self.target.id} is of another version",
                    why=f"it speaks protocol {hello.protocol}, this mostool {messages.PROTOCOL}",
                )
        except BaseException:
            self.connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def ask(self, operation: str, **fields: object) -> None:
        runtime = self.target.runtime
        shared = {"provider": runtime.provider, "threads": runtime.threads, "options": runtime.options}
        try:
            self.connection.send(msgspec.json.encode({"op": operation, **shared, **fields}))
        except ConnectionLostError as lost:
            raise WorkerLostError(self.target, str(lost), self.about) from lost

    def listen(self) -> messages.Message:
        """The next message that is more than a sign of life."""
        while True:
            message = self._receive(self.target.measure.call_timeout_s)
            match message:
                case messages.Beat():
                    continue
                case messages.Step(candidate=candidate):
                    self.about = candidate if candidate != messages.REFERENCE else None
                case messages.Refused():
                    raise _refusal(self.target, message)
                case _:
                    pass
            return message

    def await_message(self, kind: type[M]) -> M:
        """The next message but steps, which must be of this kind."""
        while isinstance(message := self.listen(), messages.Step):
            pass
        if not isinstance(message, kind):
            raise _unexpected(self.target, message)
        return message

    def _receive(self, timeout_s: float) -> messages.Message:
        try:
            return messages.decode_message(self.connection.receive(timeout_s))
        except TimeoutError:
            raise WorkerLostError(self.target, f"no sign of life for {timeout_s:g} s", self.about) from None
        except ConnectionLostError as lost:
            raise WorkerLostError(self.target, str(lost), self.about) from lost


def _unexpected(target: Target, message: messages.Message) -> DeviceError:
    return DeviceError(f"the worker on {target.id} sent garbage", why=f"an answer nobody expected: {message!r:.200}")


def _refusal(target: Target, refused: messages.Refused) -> DeviceError:
    why = " ".join(refused.message.split())
    match refused.kind:
        case "engine":
            hint = f"install numpy and {target.runtime.engine} for the Python that runs the worker"
            return DeviceError(f"{target.id} lacks {target.runtime.engine}", why=why, hint=hint)
        case "provider":
            hint = "change runtime.provider in the target's file, or install the engine that has it"
            return DeviceError(f"{target.id} cannot use {target.runtime.provider}", why=why, hint=hint)
        case "reference":
            return DeviceError(f"the reference model fails on {target.id}", why=why)
        case "load" | "run":
            return ModelRefusedError(f"{target.id} cannot {refused.kind} the model", why=why)
        case "request":
            return DeviceError(f"the worker on {target.id} did not understand", why=why)
