"""A plain module becomes an ONNX file, by torch's own exporter.

Which of torch's two exporters, and which settings, was chosen by measurement: export/README.md.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from pathlib import Path

import msgspec
import onnx
import torch
from torch import nn

from toolchain.errors import ParityError
from toolchain.export.parity import Checks, check_parity, own_answers
from toolchain.export.quantise import INT8_RECIPE, quantise
from toolchain.export.session import open_session
from toolchain.files import sha256_bytes, write_bytes
from toolchain.records import Artifact, FilePrecision
from toolchain.space import Architecture

OPSET = 17
"""LayerNormalization became one operator here; every ONNX Runtime since 1.14 reads it."""

RECIPE = f"torchscript-opset{OPSET}-v1"
"""Names how artifacts are made. Files of two recipes may differ in speed, so a latency table holds one recipe only."""

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"


def export_onnx(
    subnet: nn.Module,
    architecture: Architecture,
    path: Path,
    checks: Checks,
    *,
    checkpoint_sha256: str | None,
    options: dict[str, str],
) -> Artifact:
    """Write `subnet` to `path` with dynamic batch and length, and prove the file equal to the module on `checks`.

    Args:
        subnet: a module in evaluation mode; forward(input_ids, attention_mask) -> logits, both int64 [batch, sequence].
        options: the session settings the file will be run with.

    Raises:
        ParityError: a weight is not finite, or the file's answers differ from the module's; no file is left.
    """
    for name, parameter in subnet.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ParityError(f"the weight {name} is not finite", hint="train again from an earlier state")
    model = _trace(subnet, checks)
    error = check_parity(open_session(model, options), checks)
    write_bytes(path, model)
    return Artifact(
        file=path.name,
        format="onnx",
        precision="fp32",
        recipe=RECIPE,
        opset=OPSET,
        sha256=sha256_bytes(model),
        size_bytes=len(model),
        parameters=sum(parameter.numel() for parameter in subnet.parameters()),
        architecture=architecture,
        checkpoint_sha256=checkpoint_sha256,
        parity_max_abs_error=error,
    )


def export_int8(
    path: Path,
    artifact: Artifact,
    architecture: Architecture,
    checks: Checks,
    *,
    modules: Collection[str],
    precision: FilePrecision,
    options: dict[str, str],
) -> tuple[Artifact, Checks]:
    """Quantise the weights of these modules in the fp32 file at `path`, which was proven equal to its module.

    Args:
        architecture: with the bits that say so.
        checks: of the module.

    Returns:
        The artifact and its checks, which expect what the quantised file answers here: rounding to eight bits has no
        other truth. What that differs from the module by is in the artifact.

    Raises:
        ParityError: the quantised file does not run, or its answers are not finite; no file is left.
    """
    model = quantise(path.read_bytes(), modules)
    path.unlink()
    checks, error = own_answers(open_session(model, options), checks)
    write_bytes(path, model)
    quantised = msgspec.structs.replace(
        artifact,
        precision=precision,
        recipe=f"{artifact.recipe}+{INT8_RECIPE}",
        sha256=sha256_bytes(model),
        size_bytes=len(model),
        architecture=architecture,
        quantised_max_abs_error=error,
    )
    return quantised, checks


def _trace(subnet: nn.Module, checks: Checks) -> bytes:
    """The ONNX model's bytes, the same for the same module; nothing in them tells of this machine."""
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
