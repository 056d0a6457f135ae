"""One worker, from its start to its end: what it is asked, and what its answers and its silence mean.

What it says is decoded strictly (messages.py). That it dies or falls silent is told as WorkerLostError, for others to
decide whose fault it was.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import msgspec
import numpy as np

from toolchain.devices import Connection, ConnectionLostError, Device
from toolchain.devices.checks import setup_hint
from toolchain.errors import DeviceError
from toolchain.extras import INSTEAD
from toolchain.onboard.sensors import cause
from toolchain.profiling import messages
from toolchain.records import Environment, Record
from toolchain.targets import Target

HELLO_TIMEOUT_S = 60.0

M = TypeVar("M")


class InputShape(Record, frozen=True):
    """One input of a model: random values from `low` up to, and without, `high`."""

    dtype: Literal["int64", "int32", "float32", "bool"]
    shape: tuple[int, ...]
    low: float = 0
    high: float = 1


class WorkerLostError(DeviceError):
    """The worker died or fell silent. `about` is the candidate it was busy with, None for the reference or none yet.

    `restarted`: it went with all of its device, so no candidate is to blame.
    """

    def __init__(self, target: Target, how: str, about: int | None, *, restarted: bool = False) -> None:
        super().__init__(
            f"the worker on {target.id} was lost",
            why=how,
            hint=setup_hint(target) if "SIGILL" in how else "run the same command again: it continues where it stopped",
        )
        self.how = how
        self.about = about
        self.restarted = restarted


class RefusedError(DeviceError):
    """The device cannot do what a request asks for."""


class ProviderRefusedError(RefusedError):
    """It lacks the provider, or the GPU, that a request asks for."""


class ModelRefusedError(RefusedError):
    """The one model of a request cannot be loaded or run."""


# -- requests about the device or one model ----------------------------------------------------------------------------


def read_environment(device: Device) -> Environment:
    """The machine and runtime a worker finds itself on.

    Raises:
        DeviceError: no worker there, or it lacks the engine or the provider asked for.
    """
    with Session(device.target, device.start_worker()) as session:
        session.ask("environment")
        found = session.await_message(messages.Described).environment
    asked = device.target.runtime.provider
    if asked and found.provider != asked:
        raise DeviceError(f"{device.target.id} cannot use {asked}", why=f"it would run on {found.provider}")
    return found


def read_builder(device: Device) -> Environment:
    """The machine and the engine that builds there; `accelerator` is empty where it builds for a GPU that is not there.

    Raises:
        DeviceError: as `read_environment`, or it does not build without a GPU.
    """
    with Session(device.target, device.start_worker()) as session:
        session.ask("environment", to_build=True)
        return session.await_message(messages.Described).environment


class Plan(NamedTuple):
    """A model compiled for a GPU.

    Attributes:
        content: of its file.
        builder: the engine that made it, of that `version`; no other loads it.
        compute_capability: of the GPUs it runs on, as `8.9` or `8.6,8.9`.
    """

    content: bytes
    builder: str
    version: str
    compute_capability: str


def build_plan(
    path: Path, inputs: Mapping[str, InputShape], device: Device, options: Mapping[str, str] | None = None
) -> Plan:
    """An ONNX file compiled by the device's engine, fast at the shapes of `inputs`.

    `options` come on top of the target's: `profile.min` and `profile.max` give the range of shapes it takes.

    Raises:
        DeviceError: as `read_builder`, or the engine cannot make it of this model.
    """
    runtime = device.target.runtime
    model = device.place(path)
    with Session(device.target, device.start_worker()) as session:
        session.ask("plan", model=model, inputs=dict(inputs), options={**runtime.options, **(options or {})})
        planned = session.await_message(messages.Planned)
        content = bytearray()
        while not isinstance(message := session.listen(), messages.Done):
            match message:
                case messages.Part(output=0, data=data) if len(content) < planned.size_bytes:
                    content += _decoded(session.target, data)
                case _:
                    raise unexpected(session.target, message)
    if len(content) != planned.size_bytes:
        raise _garbage(device.target, f"an engine of {len(content)} bytes, not {planned.size_bytes}")
    return Plan(bytes(content), planned.builder, planned.version, planned.compute_capability)


def peak_memory_bytes(path: Path, inputs: Mapping[str, InputShape], device: Device) -> int | None:
    """How far loading and running a model lifts a fresh process's peak memory; None where it does not survive that.

    Raises:
        DeviceError: as `read_environment`.
    """
    model = device.place(path)
    with Session(device.target, device.start_worker()) as session:
        session.ask("memory", model=model, inputs=dict(inputs), seed=0)
        try:
            return session.await_message(messages.Memory).bytes
        except ModelRefusedError:
            return None
        except WorkerLostError as lost:
            if lost.about is None:
                raise
            return None


Arrays = Mapping[str, np.ndarray[Any, Any]]


def run_model(path: Path, inputs: Sequence[Arrays], device: Device) -> list[list[np.ndarray[Any, Any]]]:
    """For each of `inputs` the model's outputs, in its own order, computed by the device's engine with its options.

    Raises:
        DeviceError: as `read_environment`, or the model cannot be loaded or run there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "inputs.npz"
        with given.open("wb") as stream:
            arrays = {f"{number}.{name}": array for number, one in enumerate(inputs) for name, array in one.items()}
            np.savez(stream, allow_pickle=False, **arrays)
        placed = device.place(given)
        try:
            with Session(device.target, device.start_worker()) as session:
                session.ask("run", model=device.place(path), inputs=placed)
                return _outputs(session, len(inputs))
        finally:
            device.discard(given)


def _outputs(session: Session, count: int) -> list[list[np.ndarray[Any, Any]]]:
    """The worker's answers to `count` sets of inputs: for each its outputs' forms, then their bytes in parts."""
    found: list[tuple[tuple[messages.Output, ...], list[bytearray]]] = []
    while not isinstance(message := session.listen(), messages.Done):
        match message:
            case messages.Step():
                continue
            case messages.Ran(outputs=forms) if len(found) < count:
                found.append((forms, [bytearray() for _ in forms]))
            case messages.Part(output=number, data=data) if found and number < len(found[-1][1]):
                forms, contents = found[-1]
                contents[number] += _decoded(session.target, data)
                if len(contents[number]) > forms[number].size_bytes:
                    raise _garbage(
                        session.target, f"output {number} is longer than its {forms[number].size_bytes} bytes"
                    )
            case _:
                raise unexpected(session.target, message)
    try:
        arrays = [
            [
                np.frombuffer(bytes(content), form.dtype).reshape(form.shape)
                for form, content in zip(forms, contents, strict=True)
            ]
            for forms, contents in found
        ]
    except (ValueError, OverflowError) as fault:
        raise _garbage(session.target, str(fault)) from fault
    if len(arrays) != count:
        raise _garbage(session.target, f"{len(arrays)} answers to {count} questions")
    return arrays


def _decoded(target: Target, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise _garbage(target, str(fault)) from fault


# -- one worker ------------------------------------------------------------------------------------------------------


class Session:
    """A worker from its hello to its end."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self.target = target
        self.connection = connection
        self.about: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def ask(self, operation: str, **fields: object) -> None:
        """Send the request, and hear the worker's hello."""
        runtime = self.target.runtime
        request = {"op": operation, **msgspec.to_builtins(runtime), **fields}
        try:
            self.connection.send(msgspec.json.encode(request))
        except ConnectionLostError as lost:
            raise WorkerLostError(self.target, str(lost), self.about) from lost
        self.hear_hello()

    def hear_hello(self) -> None:
        hello = self._receive(HELLO_TIMEOUT_S)
        if not isinstance(hello, messages.Hello):
            raise unexpected(self.target, hello)
        if hello.protocol != messages.PROTOCOL:
            raise DeviceError(
                f"the worker on {self.target.id} is of another version",
                why=f"it speaks protocol {hello.protocol}, this mostool {messages.PROTOCOL}",
            )

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
            raise unexpected(self.target, message)
        return message

    def _receive(self, timeout_s: float) -> messages.Message:
        try:
            return messages.decode_message(self.connection.receive(timeout_s))
        except TimeoutError:
            raise WorkerLostError(self.target, f"no sign of life for {timeout_s:g} s", self.about) from None
        except ConnectionLostError as lost:
            raise WorkerLostError(self.target, str(lost), self.about, restarted=lost.restarted) from lost


def unexpected(target: Target, message: messages.Message) -> DeviceError:
    return _garbage(target, f"an answer nobody expected: {message!r:.200}")


def _garbage(target: Target, why: str) -> DeviceError:
    return DeviceError(f"the worker on {target.id} sent garbage", why=why)


def _refusal(target: Target, refused: messages.Refused) -> RefusedError:
    why = " ".join(refused.message.split())
    match refused.kind:
        case "engine":
            hint = setup_hint(target)
            return RefusedError(f"{target.id} lacks {target.runtime.engine}", why=why, hint=hint)
        case "provider":
            hint = "change the runtime in the target's file, or install what is missing"
            if target.runtime.on_accelerator:
                hint = (
                    "a GPU needs its driver (nvidia-smi must work) and an engine built for it: onnxruntime-gpu "
                    f"in place of onnxruntime ({INSTEAD})"
                )
            name = target.runtime.provider or target.runtime.engine
            return ProviderRefusedError(f"{target.id} cannot use {name}", why=why, hint=hint)
        case "reference":
            hint = _newer_engine(target, why)
            return RefusedError(f"the reference model fails on {target.id}", why=why, hint=hint)
        case "load" | "run" | "memory":
            hint = _newer_engine(target, why)
            return ModelRefusedError(f"{target.id} cannot {refused.kind} the model", why=why, hint=hint)
        case "throttled":
            because, cure = cause(why)
            hint = f"{cure}; or --thermal sustained, which measures it as it is"
            return RefusedError(f"{target.id} does not run at full speed", why=f"{why} ({because})", hint=hint)
        case "request":
            return RefusedError(f"the worker on {target.id} did not understand", why=why)


def _newer_engine(target: Target, why: str) -> str:
    """How a newer engine comes to the device, where the model's opset or IR version is above what it knows; else empty.

    These are ONNX Runtime's words.
    """
    too_new = "till opset" in why or "max supported IR version" in why
    return setup_hint(target) if too_new else ""
