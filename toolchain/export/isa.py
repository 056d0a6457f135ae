"""Which form of a precision suits a device, and which precisions its engine can run at all.

Sources: onnxruntime docs/performance/model-optimizations/quantization.md, and the dispatch of its kernels by processor,
onnxruntime/core/mlas/lib/platform.cpp.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from toolchain.errors import UsageError

Precision = Literal["fp32", "fp16", "int8", "int8-static", "int4"]
"""Of a whole file; `mixed` is a file with some modules int8."""

_ENGINES: dict[str, dict[str, tuple[Precision, ...]]] = {
    "onnxruntime": {
        "CPUExecutionProvider": ("fp32", "int8", "int8-static", "int4"),
        "CUDAExecutionProvider": ("fp32", "fp16"),
        "TensorrtExecutionProvider": ("fp32", "fp16", "int8-static"),
        "NvTensorRTRTXExecutionProvider": ("fp32", "fp16", "int8-static"),
    },
    "tensorrt": {"": ("fp32", "fp16", "int8-static")},
    "tensorrt_rtx": {"": ("fp32", "fp16", "int8-static")},
}


class Int8Form(NamedTuple):
    """How products of integers are written.

    Attributes:
        paired: two neighbouring weights are small enough together that sums of their products fit 16 bits.
        signed: activations are int8, not uint8.
        symmetric: the zero point of activations is the middle of their range.
        standard: with the operators of ONNX alone, each number quantised and dequantised (QDQ), as TensorRT reads it;
            else with those of ONNX Runtime that add the bias in the same kernel.
        tables: what is looked up is int8 too.
    """

    paired: bool = True
    signed: bool = False
    symmetric: bool = False
    standard: bool = False
    tables: bool = True


def int8_form(machine: str, _isa: Collection[str], *, engine: str = "onnxruntime", provider: str = "") -> Int8Form:
    """The form of int8 for a device: as `Environment.machine`, `isa`, `engine` and `provider` say.

    Weights are paired for all. x86 without VNNI adds products by twos in 16 bits; what is proven on such a machine must
    be true of the device that it is for. Where they need not be paired, a trained model showed no gain: README.md.

    - TensorRT takes signed numbers around zero, weights and activations alike.
    - ARM64: signed by signed needs no correction for the zero point of weights.
    - x86: unsigned by signed is what its kernels are made for.
    """
    if is_tensorrt(engine, provider):
        return Int8Form(signed=True, symmetric=True, standard=True, tables=False)
    return Int8Form(signed=machine in {"aarch64", "arm64"})


def candidates(_machine: str, _isa: Collection[str], engine: str, provider: str) -> tuple[Precision, ...]:
    """The precisions to try for an encoder on a device, the surest first.

    Left out is what runs and cannot win: int4 multiplies no faster than fp32 where a pass has more than a few rows, and
    is for size. Measured: README.md.
    """
    return tuple(one for one in runnable(engine, provider) if one != "int4")


def runnable(engine: str, provider: str) -> tuple[Precision, ...]:
    """The precisions that an engine runs with its own kernels.

    Raises:
        UsageError: nothing is known of such an engine or provider.
    """
    by_provider = _ENGINES.get(engine, {})
    found = by_provider.get(provider) or by_provider.get("")
    if found is None:
        raise UsageError(f"which precisions {engine} {provider} runs is not known".replace("  ", " "))
    return found


def is_tensorrt(engine: str, provider: str) -> bool:
    return engine.startswith("tensorrt") or provider in {"TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"}
