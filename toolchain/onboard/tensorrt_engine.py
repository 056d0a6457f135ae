"""TensorRT and TensorRT-RTX: a model compiled for this GPU, its tensors in buffers that stay there.

Timed is what the GPU is told to do and does: the inputs are copied once, the outputs when they are asked for.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from . import nvidia
from .channel import RefusalError, Request
from .cuda import Device
from .engines import Built
from .tensorrt_plan import (
    Shapes,
    build_plan,
    cache_file,
    cached_plan,
    compiles_when_loaded,
    is_plan,
    keep,
    kept,
    kind_of,
    log_of,
    module_of,
    settings_of,
)

_WATCHED_RUNS = 32
_ENQUEUE_BOUND = 0.8


def describe(request: Request) -> dict[str, str]:
    return {**_package(request), **nvidia.describe(nvidia.device_of(request))}


def describe_builder(request: Request) -> dict[str, str]:
    package = _package(request)
    if _gpu_to_build_on(request) is None:
        return {**package, "accelerator": "", "driver": ""}
    return describe(request)


def _package(request: Request) -> dict[str, str]:
    """The engine without the GPU; what is asked of it must make sense."""
    trt = module_of(request)
    strange = ", ".join(sorted(set(request["provider_options"]) - {"device_id"}))
    if request["provider"] or strange:
        wrong = f"provider {request['provider']!r}" if request["provider"] else f"provider option {strange}"
        raise RefusalError("provider", f"{request['engine']} has no {wrong}")
    settings_of(request)
    return {"engine": request["engine"], "engine_version": trt.__version__, "provider": ""}


def _gpu_to_build_on(request: Request) -> Device | None:
    """The GPU; None where there is none, and the engine builds for one that is named."""
    number = nvidia.device_of(request)
    try:
        return Device(number)
    except RefusalError as refusal:
        if not compiles_when_loaded(module_of(request)):
            said = "tensorrt builds on the GPU it builds for; without one, tensorrt_rtx does"
        elif settings_of(request).named:
            return None
        else:
            said = 'the GPU to build for has to be named: the option compute_capability, such as "8.9"'
        raise RefusalError(refusal.kind, f"{refusal}; {said}") from refusal


def errors() -> tuple[type[BaseException], ...]:
    return (RuntimeError, ValueError, TypeError, OSError, MemoryError)


def forks(request: Request) -> bool:  # noqa: ARG001 - like every engine's
    return False


def on_nvidia(request: Request) -> bool:  # noqa: ARG001 - every one of them
    return True


def open_model(path: str, request: Request, inputs: dict[str, Any]) -> Runner:
    """Of an ONNX file, which is built here, or of a plan that was built before."""
    device = Device(nvidia.device_of(request))
    content = _read(path)
    device.enter()
    shapes: Shapes = {name: tuple(array.shape) for name, array in inputs.items()}
    try:
        if is_plan(content):
            return Runner(content, device, request, inputs)
        try:
            return Runner(cached_plan(content, request, shapes, str(device)), device, request, inputs)
        except UnusablePlanError:
            return Runner(cached_plan(content, request, shapes, str(device), fresh=True), device, request, inputs)
    except UnusablePlanError as fault:
        which = "this engine" if is_plan(content) else "what it has built"
        said = f"{request['engine']} cannot load {which}: {fault}"
        raise RefusalError(kind_of(said), said) from fault
    except errors() as fault:
        raise RefusalError("load", f"{request['engine']}: {fault}") from fault


def build(path: str, request: Request, shapes: Shapes) -> Built:
    content, settings = _read(path), settings_of(request)
    version = module_of(request).__version__
    device = _gpu_to_build_on(request)
    try:
        if device is None or settings.named:  # for another GPU: nothing here could load it
            return Built(build_plan(content, request, shapes), version, settings.named)
        device.enter()
        plan = cached_plan(content, request, shapes, str(device))
        if _damage(plan, request):
            plan = cached_plan(content, request, shapes, str(device), fresh=True)
    except errors() as fault:
        raise RefusalError("load", f"{request['engine']}: {fault}") from fault
    damage = _damage(plan, request)
    if damage:
        said = f"{request['engine']} cannot load what it has built: {damage}"
        raise RefusalError(kind_of(said), said)
    return Built(plan, version, ".".join(map(str, device.capability)))


def _damage(plan: bytes, request: Request) -> str:
    """Why the plan cannot be loaded here; empty where it can."""
    trt = module_of(request)
    log = log_of(trt)
    return "" if trt.Runtime(log).deserialize_cuda_engine(plan) is not None else str(log.reason())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as fault:
        raise RefusalError("load", str(fault)) from fault


class UnusablePlanError(Exception):
    """A plan that cannot be loaded: damaged, or another machine's. A kept one is built again."""


class Runner:
    """A plan that is loaded, its inputs on the GPU; with the option `cuda_graph`, a graph that is replayed."""

    def __init__(self, plan: bytes, device: Device, request: Request, inputs: dict[str, Any]) -> None:
        self._trt, self._device = module_of(request), device
        self._log = log_of(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise UnusablePlanError(self._log.reason())
        self._compiled: Any = None
        self._compiled_file = cache_file(f"{request['engine']} {self._trt.__version__} {device}", "kernels")
        self._context = self._execution()
        self.names: list[str] = []
        self.flags: list[str] = []
        self._shares: list[float] = []
        self._addresses: dict[str, int] = {}
        self._outputs: dict[str, Any] = {}
        self._graph = 0
        self._stream = self._owned(device.stream(), device.drop_stream)
        self._place_inputs(inputs)
        self._place_outputs()
        if settings_of(request).cuda_graph:
            self._capture()

    def run(self) -> None:
        if len(self._shares) < _WATCHED_RUNS:
            self._watched_run()
            return
        self._start()
        self._device.synchronize(self._stream)

    def outputs(self) -> list[Any]:
        for name, array in self._outputs.items():
            self._device.download(self._addresses[name], array)
        return [array.copy() for array in self._outputs.values()]

    def _start(self) -> None:
        if self._graph:
            self._device.launch(self._graph, self._stream)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise RuntimeError(f"it does not run: {self._log.reason()}")

    def _watched_run(self) -> None:
        """One of the first runs, which tell whether the processor is what limits this model."""
        start = time.perf_counter()
        self._start()
        started = time.perf_counter()
        self._device.synchronize(self._stream)
        done = time.perf_counter()
        self._shares.append((started - start) / max(done - start, 1e-9))
        if len(self._shares) == 1:
            self._keep_kernels()
        if len(self._shares) == _WATCHED_RUNS and sorted(self._shares)[_WATCHED_RUNS // 2] > _ENQUEUE_BOUND:
            self.flags.append("enqueue-bound")

    def _execution(self) -> Any:
        """The engine's execution context. TensorRT-RTX compiles the kernels of these very shapes before it runs any.

        (Left to itself, it would begin with slower ones and change them in the midst of the measurement.)
        """
        if compiles_when_loaded(self._trt):
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            self._compiled = config.create_runtime_cache()
            stored = kept(self._compiled_file)
            if stored:
                self._compiled.deserialize(stored)  # what does not fit this GPU is left alone
            config.set_runtime_cache(self._compiled)
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise RefusalError("memory", f"no execution context: {self._log.reason()}")
        return context

    def _keep_kernels(self) -> None:
        if self._compiled is not None:
            keep(self._compiled_file, bytes(self._compiled.serialize()))

    def _place_inputs(self, inputs: dict[str, Any]) -> None:
        import numpy as np

        wanted = [name for name in self._tensors() if self._is_input(name)]
        if sorted(wanted) != sorted(inputs):
            raise RefusalError("load", f"its inputs are {', '.join(wanted)}, not {', '.join(inputs)}")
        for name in wanted:
            array = np.ascontiguousarray(inputs[name]).reshape(inputs[name].shape)
            dtype = self._dtype(name)
            if array.dtype != dtype:
                raise RefusalError("load", f"input {name!r} is {dtype} in the engine, not {array.dtype}")
            if not self._context.set_input_shape(name, tuple(array.shape)):
                raise RefusalError("load", f"input {name!r} cannot be {array.shape}: {self._log.reason()}")
            self._place(name, array.nbytes)
            self._device.upload(array, self._addresses[name])
        missing = self._context.infer_shapes()
        if missing:
            raise RefusalError("load", f"the shapes of {', '.join(missing)} are not known")

    def _place_outputs(self) -> None:
        import numpy as np

        for name in self._tensors():
            if self._is_input(name):
                continue
            shape = tuple(self._context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise RefusalError("load", f"the size of output {name!r} depends on the data, which is not supported")
            self.names.append(name)
            self._outputs[name] = np.empty(shape, dtype=self._dtype(name))
            self._place(name, self._outputs[name].nbytes)

    def _place(self, name: str, size: int) -> None:
        self._addresses[name] = self._owned(self._device.allocate(size), self._device.free)
        self._context.set_tensor_address(name, self._addresses[name])

    def _capture(self) -> None:
        """Replay what two ordinary runs do from now on; in the first of them the engine still makes itself ready."""
        for _ in range(2):
            self._enqueue()
            self._device.synchronize(self._stream)
        may = getattr(self._context, "is_stream_capturable", None)
        if may is not None and not may(self._stream):
            raise RefusalError("load", "this model cannot be captured as a CUDA graph: leave the option cuda_graph out")
        self._graph = self._owned(self._device.capture(self._stream, self._enqueue), self._device.drop_graph)

    def _owned(self, handle: int, release: Callable[[int], None]) -> int:
        """What goes with this runner; the last had, the first released."""
        weakref.finalize(self, release, handle).atexit = False  # the driver goes before that
        return handle

    def _tensors(self) -> list[str]:
        return [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def _dtype(self, name: str) -> Any:
        import numpy as np

        kind = self._engine.get_tensor_dtype(name)
        try:
            return np.dtype(self._trt.nptype(kind))
        except TypeError as fault:
            raise RefusalError("load", f"{name!r} is {kind}, which numpy has no type for") from fault
