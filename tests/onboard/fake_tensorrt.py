# ruff: noqa: ARG002, ARG005 - the signatures are the real ones
"""TensorRT 10, TensorRT 11 and TensorRT-RTX in Python, as far as toolchain/onboard uses them.

Every model has one input x of shape [any, 4] and one output y = 2 x. The names are those of the real bindings 10.3,
11.4 and 1.7; test_tensorrt.py holds the RTX ones against the real module where it is installed.
"""

import ctypes
import types
from functools import partial
from typing import Any

import numpy as np

from .fake_cuda import FakeCuda


class FakeTensorrt(types.ModuleType):
    """The module. `kind`: "10", "11" or "rtx". What is done to it stands in its `log`."""

    def __init__(self, kind: str, cuda: FakeCuda) -> None:
        rtx = kind == "rtx"
        super().__init__("tensorrt_rtx" if rtx else "tensorrt")
        self.cuda = cuda
        self.log: list[Any] = []
        self.works = self.captures = True
        self.plan = b"plan"
        self.layers: list[str] = []
        self.context: Context | None = None
        self.__version__ = {"10": "10.3.0", "11": "11.4.0", "rtx": "1.7.1"}[kind]
        self.ILogger = Logger
        for part in (Builder, OnnxParser, Runtime):
            setattr(self, part.__name__, partial(part, self))
        self.TensorIOMode = types.SimpleNamespace(INPUT="input", OUTPUT="output")
        self.LayerType = types.SimpleNamespace(QUANTIZE="quantize", DEQUANTIZE="dequantize")
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=0 if rtx else 1)
        own = {"FP16": "FP16", "INT8": "INT8"} if kind == "10" else {}
        self.BuilderFlag = types.SimpleNamespace(TF32="TF32", **own)
        self.nptype = lambda kind: np.float32
        if rtx:
            self.IRuntimeCache = RuntimeCache
            self.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(LAZY="lazy", EAGER="eager")
            self.ComputeCapability = types.SimpleNamespace(CURRENT="current", SM86="sm86")


class Logger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"

    def log(self, severity: str, message: str) -> None: ...


class Builder:
    def __init__(self, trt: FakeTensorrt, logger: Logger) -> None:
        self.trt = trt

    def create_network(self, flags: int) -> Any:
        self.trt.log.append(("create_network", flags))
        layers = [types.SimpleNamespace(type=kind) for kind in self.trt.layers]
        x = types.SimpleNamespace(name="x", shape=(-1, 4), is_shape_tensor=False)
        return types.SimpleNamespace(
            num_inputs=1, get_input=lambda _number: x, num_layers=len(layers), get_layer=layers.__getitem__
        )

    def create_builder_config(self) -> "Config":
        return Config(self.trt)

    def create_optimization_profile(self) -> Any:
        return types.SimpleNamespace(set_shape=lambda *arguments: self.trt.log.append(("set_shape", *arguments)))

    def build_serialized_network(self, network: Any, config: "Config") -> bytes | None:
        self.trt.log.append(("build", config.cache.content))
        config.cache.content += b" kernel"
        return self.trt.plan if self.trt.works else None


class OnnxParser:
    def __init__(self, trt: FakeTensorrt, network: Any, logger: Logger) -> None: ...

    def parse(self, content: bytes) -> bool:
        return True


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class Config:
    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt
        self.cache = TimingCache(b"")

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.trt.log.append((name, *arguments))

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not cache.content.startswith(b"another GPU's")

    def get_timing_cache(self) -> TimingCache:
        return self.cache


class Runtime:
    def __init__(self, trt: FakeTensorrt, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        if plan != b"plan":
            self.logger.log(Logger.ERROR, "magic tag does not match")
            return None
        return Engine(self.trt)


class Engine:
    num_io_tensors = 2

    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt

    def get_tensor_name(self, number: int) -> str:
        return "xy"[number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "x" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def create_runtime_config(self) -> "RuntimeConfig":
        return RuntimeConfig(self.trt)

    def create_execution_context(self, config: "RuntimeConfig | None" = None) -> "Context":
        strategy = config.dynamic_shapes_kernel_specialization_strategy if config else None
        self.trt.log.append(("create_execution_context", strategy))
        self.trt.context = Context(self.trt)
        return self.trt.context


class RuntimeCache:
    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt

    def deserialize(self, content: bytes) -> bool:
        self.trt.log.append(("kernels", content))
        return True

    def serialize(self) -> bytes:
        return b"compiled kernels"


class RuntimeConfig:
    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self.trt)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        return True


class Context:
    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.enqueued = self.runs = 0

    def is_stream_capturable(self, stream: int) -> bool:
        return self.trt.captures

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        self.enqueued += 1
        if self.trt.works:
            self.trt.cuda.put(self._double)
        return self.trt.works

    def _double(self) -> None:
        self.runs += 1
        floats = ctypes.POINTER(ctypes.c_float)
        x, y = (np.ctypeslib.as_array(ctypes.cast(self.addresses[name], floats), self.shape) for name in "xy")
        y[:] = 2 * x
