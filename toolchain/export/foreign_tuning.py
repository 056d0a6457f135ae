"""Somebody's encoder with its attention fused: a checkpoint's by optimum's ORTOptimizer, an ONNX file's as ours are.

ORTOptimizer's default takes padding to be on the right and is silently wrong elsewhere (measured: a difference of 1.8
in logits of a two-layer BERT padded on the left), so it is told to keep the mask as it is, and what it makes is
compared all the same. Its SkipLayerNormalization is left out: that kernel is slower than what it replaces.

optimum's ORTQuantizer is not used. Of a BERT of four layers 128 wide, random weights, it was off by 0.063 (avx512_vnni)
and 0.073 (avx2) of the answers' root mean square, quantise.py by 0.044; 16 wide, BERT, DistilBERT and ELECTRA, by 0.011
to 0.017 and 0.018 to 0.025, quantise.py by 0.015 to 0.019. Every product with a weight is of integers in both.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx

from toolchain.errors import IntegrityError, ParityError
from toolchain.export.editing import MICROSOFT, all_nodes
from toolchain.export.foreign import ForeignModel
from toolchain.export.fuse import FUSED_SINCE_OPSET, fuse, fused_count
from toolchain.export.optimum_calls import load, offline, quietly
from toolchain.export.parity import Checks, check_parity
from toolchain.export.preparing import opset_in, prepare
from toolchain.export.session import open_session


class Fused(NamedTuple):
    """The file to use, how many operators of each kind of com.microsoft's are in it, and why attention is none."""

    model: bytes
    operators: dict[str, int]
    why: str = ""

    @property
    def attends(self) -> bool:
        """Whether attention is one operator in it."""
        return fused_count(self.model).attention > 0


def fuse_given(plain: bytes, checks: Checks, options: Mapping[str, str]) -> Fused:
    """Somebody's ONNX file in fewer operators, as far as its graph looks like those that fuse.py knows; as it was,
    where it is of an old opset, or what is made of it is no valid model or answers otherwise on some check.

    options: of the session it will run in.
    """
    prepared = prepare(plain, checks)
    opset = opset_in(prepared)
    if opset < FUSED_SINCE_OPSET:
        return Fused(plain, {}, f"it is of opset {opset}, which fusing does not know and which could not be raised")
    try:
        model = fuse(prepared)
        check_parity(open_session(model, options), checks)
    except (onnx.checker.ValidationError, ValueError, IntegrityError) as error:
        return Fused(plain, {}, f"what fusing made of it is no valid model: {str(error).strip().splitlines()[0]}")
    except ParityError as error:
        return Fused(plain, {}, f"what fusing made of it answers otherwise: {error}")
    same = _kinds(model) == _kinds(plain)  # fused already, or nothing to fuse
    known = fused_count(model).attention > 0
    why = "" if known else "no attention in it looks like one that is known here"
    return Fused(plain if same else model, _own_operators(model), why)


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
    operators = _own_operators(model)
    if not operators:
        return Fused(plain, {}, "ORTOptimizer found nothing to fuse")
    try:
        check_parity(open_session(model, options), foreign.checks)
    except (IntegrityError, ParityError) as error:
        return Fused(plain, {}, f"what ORTOptimizer made answers otherwise: {error}")
    known = fused_count(model).attention > 0
    return Fused(model, operators, "" if known else "ORTOptimizer found no attention that it knows")


def _kinds(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(onnx.load_from_string(model).graph))


def _own_operators(model: bytes) -> dict[str, int]:
    """How many there are of ONNX Runtime's own operators, by kind."""
    nodes = onnx.load_from_string(model).graph.node
    return dict(sorted(Counter(node.op_type for node in nodes if node.domain == MICROSOFT).items()))


def _copied(foreign: ForeignModel, scratch: Path) -> Path:
    """A folder with the model and its settings alone: optimum would load, and write, the tokenizer too."""
    folder = scratch / "given"
    folder.mkdir()
    for path in (foreign.model, foreign.files["config.json"]):
        (folder / path.name).symlink_to(path.resolve())
    return folder
