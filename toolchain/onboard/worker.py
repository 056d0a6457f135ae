"""A worker: it answers requests about models, one JSON object per line on stdin, one or more on stdout.

The first answer is a `hello`, sent before numpy and the engine are imported, so that a device that lacks them can say
so. The protocol and its reasons: README.md.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import sys
from typing import Any

from . import machine
from .channel import LONGEST_ERROR, PROTOCOL, Channel, RefusalError, Request
from .engines import builder_of, engine_of
from .model import BUILD_S, Model, made_inputs
from .rounds import measure
from .trials import in_a_fork

_PART_BYTES = 3 << 18


def environment(request: Request, channel: Channel) -> None:
    """Say what machine and runtime this is; `to_build`: as one that compiles models, which may need no GPU."""
    to_build = request.get("to_build", False)
    engine = builder_of(request).describe_builder(request) if to_build else engine_of(request).describe(request)
    channel.send("environment", environment=machine.environment(engine))


def memory(request: Request, channel: Channel) -> None:
    """How far the peak resident set of a fresh process grows by loading and running one model."""
    channel.step("import")
    engine = engine_of(request)
    engine.describe(request)
    inputs = made_inputs(request)
    channel.step("try", 0)
    if engine.forks(request) and hasattr(os, "fork"):
        channel.send("memory", bytes=in_a_fork(request["model"], request, inputs))
        return
    machine.reset_peak()
    before = machine.peak_bytes()
    model = Model(0, request["model"], request, inputs, channel)
    for _ in range(3):
        model.call()
    channel.send("memory", bytes=max(machine.peak_bytes() - before, 0))


def run(request: Request, channel: Channel) -> None:
    """Run a model on each set of `inputs`, arrays named NUMBER.NAME in an .npz file, and send the outputs in parts."""
    channel.step("import")
    engine_of(request).describe(request)
    import numpy as np

    sets: dict[int, dict[str, Any]] = {}
    with np.load(request["inputs"], allow_pickle=False) as stored:
        for key in stored.files:
            number, _, name = key.partition(".")
            sets.setdefault(int(number), {})[name] = stored[key]
    for number in sorted(sets):
        model = Model(0, request["model"], request, sets[number], channel)
        arrays = [np.ascontiguousarray(array) for array in model.runner.outputs()]
        channel.send("ran", outputs=[{"dtype": array.dtype.name, "shape": list(array.shape)} for array in arrays])
        for output, array in enumerate(arrays):
            _send_parts(channel, output, array.tobytes())
    channel.send("done", called_s=0.0, elapsed_s=0.0)


def plan(request: Request, channel: Channel) -> None:
    """Compile a model for a GPU, fast at the shapes of `inputs`; send what it runs on, and its bytes in parts."""
    channel.step("import")
    builder = builder_of(request)
    builder.describe_builder(request)
    shapes = {name: tuple(form["shape"]) for name, form in request["inputs"].items()}
    channel.step("build", 0)
    with channel.busy(BUILD_S):
        built = builder.build(request["model"], request, shapes)
    channel.send(
        "planned",
        builder=request["engine"],
        version=built.version,
        compute_capability=built.capability,
        size_bytes=len(built.plan),
    )
    _send_parts(channel, 0, built.plan)
    channel.send("done", called_s=0.0, elapsed_s=0.0)


def _send_parts(channel: Channel, output: int, content: bytes) -> None:
    for start in range(0, len(content), _PART_BYTES):
        part = base64.b64encode(content[start : start + _PART_BYTES]).decode("ascii")
        channel.send("part", output=output, data=part)


OPERATIONS = {"environment": environment, "measure": measure, "memory": memory, "plan": plan, "run": run}


def answer(line: bytes, channel: Channel) -> None:
    """Carry out one request; what goes wrong in a way somebody can mend is an answer."""
    try:
        request = json.loads(line)
        operation = OPERATIONS[request["op"]]
    except (ValueError, KeyError, TypeError) as fault:
        channel.send("error", kind="request", message=f"not a request: {fault!r}"[:LONGEST_ERROR])
        return
    try:
        _pin(request)
        operation(request, channel)
    except RefusalError as refusal:
        channel.send("error", kind=refusal.kind, message=str(refusal)[:LONGEST_ERROR])
    except ImportError as fault:
        channel.send("error", kind="engine", message=f"numpy cannot be imported: {fault}"[:LONGEST_ERROR])
    except (KeyError, ValueError, TypeError, OSError) as fault:
        if isinstance(fault, BrokenPipeError):
            raise
        channel.send("error", kind="request", message=f"{request['op']}: {fault!r}"[:LONGEST_ERROR])


def _pin(request: Request) -> None:
    """Keep to the cores the target names, where it names any."""
    if request["cores"]:
        try:
            os.sched_setaffinity(0, request["cores"])
        except (OSError, AttributeError) as fault:
            raise RefusalError("request", f"cannot keep to the cores {request['cores']}: {fault}") from fault


def main() -> int:
    """Answer requests until stdin ends. Whatever else prints (onnxruntime does) goes to stderr."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy only draws inputs here, and a fork wants no threads
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    channel = Channel(protocol)
    try:
        channel.send("hello", protocol=PROTOCOL, python=platform.python_version(), machine=platform.machine())
        for line in sys.stdin.buffer:
            answer(line, channel)
    except BrokenPipeError:
        return 1
    return 0
