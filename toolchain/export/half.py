"""A portable ONNX file in fp16, for GPUs: by ONNX Runtime's own converter, which writes standard operators."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from toolchain.errors import UsageError

HALF_RECIPE = "fp16-v1"
"""Names how numbers are narrowed."""

LARGEST = 65504.0
"""What fp16 holds at most."""

SUMMING = ("LayerNormalization",)
"""Operators that sum squares; TensorRT computes them in the type they are given, and they overflow
(github.com/NVIDIA/TensorRT issues 2564, 4493). ONNX Runtime's CUDA kernel sums in fp32 whatever it is given."""


def to_half(model: bytes, *, kept: Collection[str] = SUMMING) -> bytes:
    """The model in fp16, inputs and outputs but for logits' type as they were; the same for the same.

    Args:
        model: portable, in fp32.
        kept: operators that stay fp32, beside those that have no fp16 form.

    Raises:
        UsageError: a weight or constant is larger than fp16 holds, or operators are not ONNX's own.
    """
    proto = onnx.load_from_string(model)
    _check(proto)
    with warnings.catch_warnings():
        # Weights below 6e-8 become 6e-8 or zero, of which it warns for each tensor.
        warnings.simplefilter("ignore")
        narrow = convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *kept})
        )
    OnnxModel.graph_topological_sort(narrow.graph)  # it appends its casts at the end
    del narrow.graph.value_info[:]
    onnx.checker.check_model(narrow)
    return narrow.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _check(proto: onnx.ModelProto) -> None:
    foreign = sorted({node.domain for node in proto.graph.node} - {"", "ai.onnx"})
    if foreign:
        why = f"it has operators of {foreign[0]}"
        raise UsageError("only a portable file becomes fp16", why=why, hint="convert before operators are fused")
    constants = [attribute.t for node in proto.graph.node if node.op_type == "Constant" for attribute in node.attribute]
    for one in (*proto.graph.initializer, *constants):
        if one.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(one)).max(initial=0))
            if not largest <= LARGEST:
                why = f"it holds {largest:g}, fp16 at most {LARGEST:g}"
                raise UsageError(f"{one.name or 'a constant'} does not fit fp16", why=why, hint="leave it at fp32")
