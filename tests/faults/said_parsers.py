"""What a device says: a worker's messages, an agent's frames, and the facts and jobs it tells."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from profiling.models import Replay, Started, timed

from toolchain import profiling
from toolchain.devices import ConnectionLostError
from toolchain.devices.facts import facts_there
from toolchain.devices.link import Link
from toolchain.devices.remote import RemoteDevice, RemoteWorker
from toolchain.errors import DeviceError
from toolchain.onboard import probe
from toolchain.onboard.frames import Frames
from toolchain.profiling import messages
from toolchain.profiling.groups import Candidate, measure
from toolchain.profiling.session import build_plan, peak_memory_bytes, read_environment, run_model
from toolchain.targets import Measure, Ssh, Target

from .parsing import Parse, Parser

# -- what a device says ------------------------------------------------------------------------------------------------

_BOARD = Target(id="board", title="a board", measure=Measure(call_timeout_s=1.0))
_FORMS = {"x": profiling.InputShape(dtype="float32", shape=(1, 8))}
_HELLO = b'{"type":"hello","protocol":%d,"python":"3.11.2","machine":"x86_64"}' % messages.PROTOCOL
_STEP = b'{"type":"step","step":"load","candidate":0,"rounds":0,"half_width":0.5}'
_SAID = {
    "timed": msgspec.json.encode({"type": "timed", "candidate": 0, "timed": timed([[0.1, 0.2]], [0.1])}),
    "failed": b'{"type":"failed","candidate":0,"stage":"load","error":"no"}',
    "done": b'{"type":"done","called_s":1.0,"elapsed_s":2.0}',
    "memory": b'{"type":"memory","bytes":4096}',
    "ran": b'{"type":"ran","outputs":[{"dtype":"float32","shape":[2]}]}',
    "part": b'{"type":"part","output":0,"data":"AACAPwAAAEA="}',
    "planned": b'{"type":"planned","builder":"tensorrt","version":"10.3.0","compute_capability":"8.7","size_bytes":8}',
    "error": b'{"type":"error","kind":"run","message":"no"}',
    "beat": b'{"type":"beat"}',
}


def _message(data: bytes, _: Path) -> None:
    message = messages.decode_message(data)
    assert messages.decode_message(msgspec.json.encode(message)) == message


def _worker(ask: Callable[[Started, Path], object]) -> Parse:
    """A worker that says these lines and then nothing more."""

    def parse(data: bytes, scratch: Path) -> None:
        model = scratch / "model.onnx"
        model.write_bytes(b"m")
        ask(Started(_BOARD, lambda: Replay([*data.split(b"\n"), TimeoutError()])), model)

    return parse


def _talk(*names: str) -> bytes:
    return b"\n".join([_HELLO, _STEP, *(_SAID[name] for name in names)])


_MOST_FRAMES = 1 << 16
"""What is timed is a message, or some thousand of them, not a flood."""


class Wired(Link):
    """A link whose other end is bytes that were written beforehand."""

    def __init__(self, data: bytes | bytearray, scratch: Path) -> None:
        self._data = data
        self._path = scratch / "said"
        super().__init__(_BOARD, Ssh(host="board"), scratch, lambda _: None)

    def _connect(self) -> None:
        self._path.write_bytes(self._data)
        self._ends = (os.open(self._path, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY))
        self._frames = Frames(*self._ends)

    def _last_words(self) -> str:
        return "it ended"

    def reconnect(self, why: str) -> None:
        raise DeviceError("board is out of reach", why=why)

    def close(self) -> None:
        self._frames = None
        for end in self._ends:
            os.close(end)
        self._ends = ()


def _link(use: Callable[[Wired], object]) -> Parse:
    """An agent that says this, each line a frame; or, where it begins so, bytes as they are."""

    def parse(data: bytes, scratch: Path) -> None:
        if data.startswith(b"raw"):
            said = data.removeprefix(b"raw")
        else:
            said = bytearray()
            for line in data.split(b"\n", _MOST_FRAMES):
                said += struct.pack("!I", len(line)) + line
        link = Wired(said, scratch)
        try:
            use(link)
        finally:
            link.close()

    return parse


def _jobs(link: Wired) -> None:
    device = RemoteDevice.__new__(RemoteDevice)  # without the ssh that its making starts
    device.target, device.link = _BOARD, link
    device.left_over("key")


def _heard(link: Wired) -> None:
    worker = RemoteWorker(link, "job", None, started=True)
    with contextlib.suppress(ConnectionLostError):  # for a Session to tell
        for _ in range(3):
            worker.receive(1.0)


_JOBS = (
    b'{"type":"progress","id":9,"note":"n"}\n'
    b'{"id":1,"jobs":[{"job":"a","attended":false,"label":{"key":"key","models":["m"]}}]}'
)
_FOLLOWED = (
    b'{"id":1}\n{"type":"said","offset":5,"text":"ab\\ncd\\n"}\n'
    b'{"type":"ended","status":1,"stderr":"x","free_bytes":9000000000}'
)


def said_parsers(project: Path) -> dict[str, Parser]:
    """Each by its name; the machine that is told of is that of a finished project."""
    (header,) = project.glob("profiles/*/*/table.json")
    facts = json.dumps({"id": 1, "facts": probe.facts(None, [])}).encode()
    return {
        "message": Parser("json", [_HELLO, _STEP, *_SAID.values()], _message),
        "worker's times": Parser("lines", [_talk("timed", "done"), _talk("failed", "done")], _worker(_times)),
        "worker's answers": Parser("lines", [_talk("ran", "part", "done")], _worker(_answers)),
        "worker's engine": Parser("lines", [_talk("planned", "part", "done")], _worker(_engine)),
        "worker's memory": Parser("lines", [_talk("memory")], _worker(_memory)),
        "worker's machine": Parser("lines", [_HELLO + b"\n" + _environment(header.read_bytes())], _worker(_machine)),
        "agent's jobs": Parser("lines", [_JOBS], _link(_jobs)),
        "agent's words": Parser("lines", [_FOLLOWED], _link(_heard)),
        "agent's facts": Parser("lines", [facts + b"\n" + facts.replace(b'"id": 1', b'"id": 2')], _link(_facts)),
    }


def _environment(header: bytes) -> bytes:
    found = json.loads(header)["environment"]
    return json.dumps({"type": "environment", "environment": found}).encode()


def _times(device: Started, model: Path) -> object:
    return list(measure([Candidate("model", model)], model, _FORMS, device, 0))


def _answers(device: Started, model: Path) -> object:
    return run_model(model, [{"x": np.zeros(1)}], device)


def _engine(device: Started, model: Path) -> object:
    return build_plan(model, _FORMS, device)


def _memory(device: Started, model: Path) -> object:
    return peak_memory_bytes(model, _FORMS, device)


def _machine(device: Started, _: Path) -> object:
    return read_environment(device)


def _facts(link: Wired) -> object:
    return facts_there(link, [])
