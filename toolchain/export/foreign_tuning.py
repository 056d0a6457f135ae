"""Faster forms of a foreign encoder's ONNX file, by optimum's ORTOptimizer and ORTQuantizer.

Our own fusing and quantising go by the names of our own modules; these find their places in the graphs that
transformers makes. ORTOptimizer's default takes padding to be on the right and is silently wrong elsewhere (measured:
a difference of 1.8 in logits of a two-layer BERT padded on the left), so it is told to keep the mask as it is, and what
it makes is compared all the same. Its SkipLayerNormalization is left out: that kernel is slower than what it replaces.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import onnx

from toolchain.errors import ParityError
from toolchain.export.foreign import ForeignModel
from toolchain.export.optimum_calls import load, offline, quietly
from toolchain.export.parity import TOLERANCE, Checks, check_parity
from toolchain.export.session import open_session

Isa = Literal["avx2", "avx512", "avx512_vnni", "arm64"]

_MATRICES = ["MatMul", "Gemm"]
"""What is quantised: with all kinds of operators that ONNX Runtime can quantise, quality was lost (guide, D)."""


class Fused(NamedTuple):
    """The file to use, how many operators of each kind of com.microsoft's are in it, and, where there are none, why."""

    model: bytes
    operators: dict[str, int]
    why: str = ""


def fuse_foreign(foreign: ForeignModel, options: Mapping[str, str]) -> Fused:
    """An encoder's file with attention and activations fused for ONNX Runtime; as it was, where that does not work.

    options: of the session it will run in.

    It is as it was where ORTOptimizer does not know the type of model, finds nothing to fuse, or what it makes answers
    otherwise on some check.
    """
    plain = foreign.model.read_bytes()
    if foreign.checks is None:
        return Fused(plain, {}, "only encoders are fused")
    library = load("optimum.onnxruntime")
    settings = library.OptimizationConfig(
        optimization_level=1,  # what goes beyond, ONNX Runtime does when it loads the file
        use_raw_attention_mask=True,
        disable_skip_layer_norm_fusion=True,
        disable_bias_skip_layer_norm_fusion=True,
        disable_shape_inference=True,
    )
    with tempfile.TemporaryDirectory() as scratch, quietly(), offline():
        try:
            optimizer = library.ORTOptimizer.from_pretrained(_copied(foreign, Path(scratch)))
            optimizer.optimize(settings, save_dir=Path(scratch) / "made", file_suffix="")
        except (NotImplementedError, KeyError, AttributeError) as error:
            why = f"ORTOptimizer does not fuse a model of type {foreign.model_type}"
            return Fused(plain, {}, f"{why} ({type(error).__name__})")
        model = (Path(scratch) / "made" / foreign.model.name).read_bytes()
    operators = Counter(node.op_type for node in onnx.load_from_string(model).graph.node if node.domain)
    if not operators:
        return Fused(plain, {}, "ORTOptimizer found nothing to fuse")
    try:
        check_parity(open_session(model, options), foreign.checks, TOLERANCE * max(1.0, _largest(foreign.checks)))
    except ParityError as error:
        return Fused(plain, {}, f"what ORTOptimizer made answers otherwise: {error}")
    return Fused(model, dict(sorted(operators.items())))


def quantise_foreign(foreign: ForeignModel, isa: Isa) -> bytes:
    """An ONNX file of it with the weights of its matrices in int8, by optimum's settings for a kind of processor.

    Activations are quantised as they come. On x86 without VNNI weights have seven bits: products of eight saturate
    there. Not for a fused file, whose attention is one operator.
    """
    library = load("optimum.onnxruntime.configuration")
    preset = getattr(library.AutoQuantizationConfig, isa)
    further: dict[str, Any] = {"reduce_range": True} if isa in ("avx2", "avx512") else {}
    settings = preset(is_static=False, per_channel=True, operators_to_quantize=list(_MATRICES), **further)
    settings.weights_dtype = load("onnxruntime.quantization").QuantType.QInt8  # avx2's are unsigned: slower here
    with tempfile.TemporaryDirectory() as scratch, quietly(), offline():
        quantizer = load("optimum.onnxruntime").ORTQuantizer.from_pretrained(
            _copied(foreign, Path(scratch)), file_name=foreign.model.name
        )
        quantizer.quantize(settings, save_dir=Path(scratch) / "made", file_suffix="")
        return (Path(scratch) / "made" / foreign.model.name).read_bytes()


def _copied(foreign: ForeignModel, scratch: Path) -> Path:
    """A folder with the model and its settings alone: optimum would load, and write, the tokenizer too."""
    folder = scratch / "given"
    folder.mkdir()
    for path in (foreign.model, foreign.files["config.json"]):
        (folder / path.name).symlink_to(path.resolve())
    return folder


def _largest(checks: Checks) -> float:
    return max(float(abs(one).max()) for one in checks.expected)
