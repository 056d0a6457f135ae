"""What a worker says, as records: whatever is not one of these is garbage."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import msgspec
import numpy as np

from toolchain.errors import DeviceError
from toolchain.onboard.channel import PROTOCOL, REFERENCE
from toolchain.records import Environment, Record, Seconds, Timed

_LONGEST_TEXT = 2000
_LONGEST_PART = 1 << 21

Count = Annotated[int, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=REFERENCE)]
Text = Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)]


class Hello(Record, frozen=True, tag="hello"):
    protocol: int
    python: Text
    machine: Text


class Step(Record, frozen=True, tag="step"):
    """What the worker is about to do, and to which candidate (-1: the reference)."""

    step: Text
    candidate: Number
    rounds: Count
    half_width: float
    note: Text = ""


class Beat(Record, frozen=True, tag="beat"):
    """It is still alive."""


class Described(Record, frozen=True, tag="environment"):
    environment: Environment


class CandidateTimed(Record, frozen=True, tag="timed"):
    candidate: Count
    timed: Timed


class CandidateFailed(Record, frozen=True, tag="failed"):
    candidate: Count
    stage: Literal["load", "run", "memory"]
    error: Text


class Done(Record, frozen=True, tag="done"):
    """All that was asked for has been said. Of the seconds it took, `called_s` were spent inside inferences."""

    called_s: Seconds = 0.0
    elapsed_s: Seconds = 0.0


class Memory(Record, frozen=True, tag="memory"):
    bytes: Count


class Output(Record, frozen=True):
    """An array that follows in parts."""

    dtype: Literal["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
    shape: tuple[Count, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Ran(Record, frozen=True, tag="ran"):
    outputs: tuple[Output, ...]


class Part(Record, frozen=True, tag="part"):
    """The next bytes of an output, in base64."""

    output: Count
    data: Annotated[str, msgspec.Meta(max_length=_LONGEST_PART)]


class Planned(Record, frozen=True, tag="planned"):
    """An engine was built; its bytes follow in parts of output 0."""

    builder: Text
    version: Text
    compute_capability: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+(,\d+\.\d+)*$", max_length=_LONGEST_TEXT)]
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]


class Refused(Record, frozen=True, tag="error"):
    """The request as a whole cannot be met."""

    kind: Literal["request", "engine", "provider", "reference", "load", "run", "memory", "throttled"]
    message: Text


Message = (
    Hello | Step | Beat | Described | CandidateTimed | CandidateFailed | Done | Memory | Ran | Part | Planned | Refused
)

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode_message(line: bytes) -> Message:
    """The message in a line.

    Raises:
        DeviceError: the line is not one; its beginning is quoted, as far as it is printable.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as fault:
        start = re.sub(r"[^ -~]+", "?", line[:80].decode("utf-8", "replace"))
        raise DeviceError(
            "the worker sent garbage",
            why=f"{fault}; the line begins {start!r}",
            hint="does something on the device print when a shell starts? is its mostool of another version?",
        ) from fault


__all__ = ["PROTOCOL", "REFERENCE", "decode_message"]
