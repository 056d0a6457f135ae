"""Engines: what TensorRT builds of a portable ONNX file, on the device that will run it or for a GPU that is named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import onnx

from toolchain import devices, profiling
from toolchain.errors import DeviceError, UsageError
from toolchain.files import sha256_file
from toolchain.records import Engine, Environment
from toolchain.targets import Runtime, Target

LARGEST_BATCH = 8
"""Up to so many sequences at a time an engine takes, unless a workload or its target asks for more."""
_BUILDERS = ("tensorrt", "tensorrt_rtx")
_ELSEWHERE = "take a device that does: gpu-tensorrt, jetson; or gpu-rtx, which needs no GPU to build for one"


def can_run(device: devices.Device) -> bool:
    """Whether the engine that the device builds runs there: its GPU is there, and one that is built for.

    Raises:
        DeviceError: the device builds no engines, is out of reach, or lacks what builds them.
    """
    _check(device.target)
    try:
        environment = profiling.read_environment(device)
    except profiling.ProviderRefusedError:
        return False
    named = _named(device.target.runtime)
    return not named or _capability(environment) in named


def environment_without_gpu(device: devices.Device) -> Environment:
    """The machine that builds an engine and cannot run it; its accelerator is empty, or another than is built for.

    Raises:
        DeviceError: the device is out of reach, lacks the engine, or cannot build without a GPU.
    """
    _check(device.target)
    try:
        return profiling.read_builder(device)
    except profiling.ProviderRefusedError as error:
        raise _without_gpu(device.target, error) from error


def build_engine(
    model: Path,
    shapes: Mapping[str, profiling.InputShape],
    device: devices.Device,
    *,
    maximum_length: int,
    maximum_batch: int = LARGEST_BATCH,
) -> tuple[bytes, Engine]:
    """The engine that the device makes of the portable file `model`, and what a manifest says of it.

    It is made to be fast at `shapes`, and takes all from one token up to the longest text and the largest batch, unless
    the target's options (`profile.min`, `profile.max`) say otherwise. Its precision is the file's own.

    Raises:
        UsageError: the target's options would give it another precision.
        DeviceError: the device does not build engines, lacks what it takes, or cannot make one of this model.
    """
    _check(device.target)
    ranges = _ranges(model, shapes, maximum_batch, maximum_length)
    options = {name: device.target.runtime.options.get(name, text) for name, text in ranges.items()}
    try:
        plan = profiling.build_plan(model, shapes, device, options)
    except profiling.ProviderRefusedError as error:
        raise _without_gpu(device.target, error) from error
    except profiling.ModelRefusedError as error:
        raise DeviceError(
            f"{device.target.id} cannot build an engine of the model",
            why=error.why,
            hint="--format onnx ships it as it is, for a device that runs onnxruntime",
        ) from error
    return plan.content, Engine(
        builder=plan.builder,
        builder_version=plan.version,
        compute_capability=plan.compute_capability,
        built_from_sha256=sha256_file(model),
    )


def _check(target: Target) -> None:
    """Raises where the target's runtime builds no engine, or one of another precision than the file's."""
    runtime = target.runtime
    if runtime.engine not in _BUILDERS:
        raise DeviceError(
            f"{target.id} builds no engines", why=f"it runs models with {runtime.engine}", hint=_ELSEWHERE
        )
    if runtime.options.get("fp16", "0") != "0":
        raise UsageError(
            f"the option fp16 of {target.id} leaves the precision to the builder",
            why="what ships says which it has",
            hint="leave the option out, and export with --precision fp16",
        )


def _without_gpu(target: Target, refused: profiling.ProviderRefusedError) -> DeviceError:
    hint = f"export where its GPU is, or {_ELSEWHERE}"
    return DeviceError(f"{target.id} cannot build an engine", why=refused.why, hint=hint)


def _named(runtime: Runtime) -> list[str]:
    """The compute capabilities that a target names; none where an engine is for the GPU it is built on."""
    text = runtime.options.get("compute_capability", "current")
    return [] if text in ("", "current") else [name.strip() for name in text.split(",")]


def _capability(environment: Environment) -> str:
    """That of the GPU in an environment, as `8.9`; empty where it has none."""
    found = re.search(r"\bsm_(\d+)(\d)$", environment.accelerator)
    return f"{found[1]}.{found[2]}" if found else ""


def _ranges(
    model: Path, shapes: Mapping[str, profiling.InputShape], maximum_batch: int, maximum_length: int
) -> dict[str, str]:
    """The options with the least and the largest shape of each input: whatever the model leaves open of [batch,
    sequence], and as it is given what has another form."""
    lowest, highest = dict[str, list[int]](), dict[str, list[int]]()
    for name, declared in _declared(model).items():
        if name not in shapes:
            continue  # the device says what is wrong
        lowest[name], highest[name] = list(shapes[name].shape), list(shapes[name].shape)
        if len(declared) == len(lowest[name]) == 2:
            for axis, most in enumerate((maximum_batch, maximum_length)):
                if not declared[axis]:
                    lowest[name][axis], highest[name][axis] = 1, max(highest[name][axis], most)
    return {"profile.min": _spelled(lowest), "profile.max": _spelled(highest)}


def _declared(model: Path) -> dict[str, list[int]]:
    """The sizes of a file's inputs; 0 is any."""
    graph = onnx.load(model, load_external_data=False).graph
    return {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in graph.input}


def _spelled(shapes: Mapping[str, list[int]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, sizes))}" for name, sizes in shapes.items())
