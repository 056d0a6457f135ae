"""devices: try whether one works at all, install what it lacks."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from toolchain import devices, profiling
from toolchain.devices.checks import setup_hint
from toolchain.devices.link import Link
from toolchain.devices.setup import Installed, Way, set_up
from toolchain.errors import DeviceError, MostoolError, UsageError
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.targets import Local, Ssh, Target

_WIDTH, _LAYERS, _BATCH = 192, 3, 16
_TOLERANCE = 5e-3
"""Of the largest answer: an accelerator may compute with 10 bits of fraction."""
_QUICK = {"group": 4, "warmup_s": 0.1, "calls_per_turn": 2, "minimum_rounds": 5, "minimum_s": 0.05, "maximum_s": 2.0}
_ARBITRARY_SEED = 20


def where(target: Target) -> str:
    """Where a target's device is, for a person."""
    if isinstance(target.connection, Local):
        return "this machine"
    return f"ssh {target.connection.host}" if target.connection.host else "not said yet"


# -- setup -------------------------------------------------------------------------------------------------------------


def setup(
    target: Target,
    project: Path,
    way: Way,
    *,
    version: str = "",
    wheels: Path | None = None,
    listener: ProgressListener = silent,
) -> Installed:
    """Install on a device what it lacks to run models.

    Raises:
        UsageError: the device is this machine, or its target wants what cannot be installed in this way.
        DeviceError: as `devices.setup.set_up`.
    """
    if not isinstance(target.connection, Ssh):
        raise UsageError(f"{target.id} is this machine", hint="what it lacks: mostool doctor")
    runtime = target.runtime
    if runtime.engine != "onnxruntime":
        hint = setup_hint(target)
        raise UsageError(f"{target.id} runs models with {runtime.engine}, which setup does not install", hint=hint)
    if runtime.on_accelerator and wheels is None:
        raise UsageError(
            f"{target.id} wants {runtime.provider}, which the onnxruntime that setup fetches does not have",
            hint="give the wheels of the device's vendor: --wheels FOLDER",
        )

    def tell(note: str) -> None:
        listener(Progress(f"setup {target.id}", 0, 0, note))

    with contextlib.closing(Link(target, target.connection, project, tell)) as link:
        return set_up(link, way, version=version, folder=wheels, listener=listener)


# -- test --------------------------------------------------------------------------------------------------------------


NOISY = 0.1
"""Copies of one model that differ by more than so much: nothing finer can be told apart there."""


class Step(NamedTuple):
    """One thing that worked, and how long it took."""

    name: str
    found: str
    seconds: float


def try_device(target: Target, project: Path, listener: ProgressListener = silent) -> tuple[list[Step], float]:
    """Whether a device works at all: reached, its engine found, a small model computed right and timed.

    Also how far copies of that model differ in latency, as a fraction: its noise.

    Raises:
        DeviceError: it does not; the error's data are the steps until then.
    """
    steps: list[Step] = []
    names = ("connection", "environment", "answer", "noise")
    began = time.monotonic()

    def said(found: str) -> None:
        nonlocal began
        steps.append(Step(names[len(steps)], found, round(time.monotonic() - began, 3)))
        began = time.monotonic()
        listener(Progress(f"test {target.id}", len(steps), len(names), found))

    def tell(note: str) -> None:
        listener(Progress(f"test {target.id}", len(steps), len(names), note))

    quick = msgspec.structs.replace(target, measure=msgspec.structs.replace(target.measure, **_QUICK))
    try:
        with _small_model() as small, contextlib.closing(devices.open_device(quick, project, tell)) as device:
            said(where(target))
            here = profiling.read_environment(device)
            on = here.accelerator or here.board or here.cpu
            emulated = f", emulated by {here.emulator}" if here.emulator else ""
            said(f"{on}{emulated}: {here.engine} {here.engine_version} {here.provider}, Python {here.python}".rstrip())
            worst = _largest_difference(small, device)
            if not worst <= _TOLERANCE:
                raise DeviceError(
                    f"{target.id} computes something else", why=f"the largest difference is {worst:.1e} of the answer"
                )
            said(f"a small model computes what numpy does, within {worst:.0e}")
            inputs = {"x": profiling.InputShape(dtype="float32", shape=(_BATCH, _WIDTH))}
            floor = profiling.noise_floor(small.path, inputs, device, _under(listener, f"test {target.id}", 3))
            said(f"{floor.copies} copies of it differ by {100 * floor.value:.1f} %")
            device.discard(small.path)
    except MostoolError as error:
        error.data = [step._asdict() for step in steps]
        raise
    return steps, floor.value


def _under(listener: ProgressListener, stage: str, done: int) -> ProgressListener:
    return lambda progress: listener(Progress(stage, done, done + 1, progress.note))


class _Small(NamedTuple):
    """A model made here, an input for it, and what numpy computes."""

    path: Path
    inputs: dict[str, np.ndarray[Any, Any]]
    expected: np.ndarray[Any, Any]


@contextlib.contextmanager
def _small_model() -> Iterator[_Small]:
    """Three layers: y = relu(x W), each as old as ONNX itself."""
    import onnx  # noqa: PLC0415 - an extra, which no other command about devices needs

    rng = np.random.default_rng(_ARBITRARY_SEED)
    x = rng.standard_normal((_BATCH, _WIDTH), dtype=np.float32)
    nodes, weights, answer = [], [], x
    for layer in range(_LAYERS):
        weight = rng.standard_normal((_WIDTH, _WIDTH), dtype=np.float32) / np.float32(_WIDTH**0.5)
        weights.append(onnx.numpy_helper.from_array(weight, f"w{layer}"))
        given, made = "x" if layer == 0 else f"r{layer - 1}", "y" if layer == _LAYERS - 1 else f"r{layer}"
        nodes.append(onnx.helper.make_node("MatMul", [given, f"w{layer}"], [f"m{layer}"]))
        nodes.append(onnx.helper.make_node("Relu", [f"m{layer}"], [made]))
        answer = np.maximum(answer @ weight, 0)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [_BATCH, _WIDTH]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        onnx.save_model(model, path)
        yield _Small(path, {"x": x}, answer)


def _largest_difference(small: _Small, device: devices.Device) -> float:
    """From numpy's answer, as a part of the largest there is."""
    ((answer,),) = profiling.run_model(small.path, [small.inputs], device)
    if answer.shape != small.expected.shape:
        return float("inf")
    return float(np.abs(answer - small.expected).max() / np.abs(small.expected).max())
