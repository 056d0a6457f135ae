"""A plain module becomes an ONNX model of standard operators, by torch's own exporter.

Which of torch's two exporters, and which settings, was chosen by measurement: export/README.md.
"""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn

from toolchain.export.parity import Checks
from toolchain.extras import require

require("onnx")  # torch's exporter imports onnxscript when it is asked for a file, and not before
OPSET = 17
"""LayerNormalization became one operator here; every ONNX Runtime since 1.14 reads it."""

RECIPE = f"torchscript-opset{OPSET}-v1"
"""Names how portable models are made; what is done to them after that is added to it."""

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"


def trace(subnet: nn.Module, checks: Checks) -> bytes:
    """The model's bytes, with dynamic batch and length; the same for the same module, and no word of this machine.

    Nodes are named by the path of their module, and weights are as the module has them: each once, [out, in].

    Args:
        subnet: in evaluation mode; forward(input_ids, attention_mask) -> logits, both int64 [batch, sequence].
        checks: the first of them is what the module is traced with.
    """
    axes = {0: "batch", 1: "sequence"}
    example = tuple(torch.from_numpy(checks.inputs[0][name]) for name in INPUTS)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is announced to go; why it is still the right one: README.md.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            subnet,
            example,
            stream,  # type: ignore[arg-type]  # the tracing exporter takes streams, its annotation does not say so
            dynamo=False,
            opset_version=OPSET,
            # Folding writes the tied embedding twice; ONNX Runtime folds when it loads.
            do_constant_folding=False,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={
                **dict.fromkeys(INPUTS, axes),
                OUTPUT: {0: "batch"} if _per_sequence(subnet, example) else axes,
            },
        )
    model = onnx.load_from_string(stream.getvalue())
    model.producer_name, model.producer_version = "mostool", ""
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _per_sequence(subnet: nn.Module, example: tuple[torch.Tensor, ...]) -> bool:
    with torch.no_grad():
        return subnet(*example).dim() == 2  # type: ignore[no-any-return]
