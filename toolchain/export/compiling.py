"""A plain encoder becomes the file that suits what will run it: traced, quantised, fused, and proven."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import onnx
import torch
from torch import nn

from toolchain.errors import ParityError
from toolchain.export.fuse import FUSED_RECIPE, fuse
from toolchain.export.isa import Int8Form, int8_form
from toolchain.export.onnx import OPSET, RECIPE, trace
from toolchain.export.parity import Checks, check_parity, own_answers
from toolchain.export.precisions import candidates, recipe_of, runnable, to_precision
from toolchain.export.rewriting import module_of
from toolchain.export.session import open_session
from toolchain.files import sha256_bytes, write_bytes
from toolchain.records import Artifact, Environment, FilePrecision
from toolchain.space import Architecture

if TYPE_CHECKING:
    import numpy.typing as npt

_FUSED_SINCE = (1, 17)
"""The ONNX Runtime that has all operators of a fused file; opset 17 is older than that."""


class _Arguments(TypedDict):
    machine: str
    isa: Collection[str]
    engine: str
    provider: str


class DeviceKind(NamedTuple):
    """What a file depends on of what will run it: as an Environment says; `version` is the engine's, empty: unknown."""

    engine: str
    provider: str
    machine: str
    isa: tuple[str, ...]
    version: str = ""

    @property
    def fuses(self) -> bool:
        """Whether ONNX Runtime's own operators are used: on its CPU, for which they were chosen by measurement."""
        return (
            self.engine == "onnxruntime"
            and self.provider == "CPUExecutionProvider"
            and (not self.version or _numbers(self.version) >= _FUSED_SINCE)
        )

    @property
    def int8(self) -> Int8Form:
        return int8_form(self.machine, self.isa, engine=self.engine, provider=self.provider)

    def as_arguments(self) -> _Arguments:
        """As `to_precision` and `recipe_of` take them."""
        return {"machine": self.machine, "isa": self.isa, "engine": self.engine, "provider": self.provider}


def precisions_for(environment: Environment) -> tuple[FilePrecision, ...]:
    """What an engine runs with kernels of its own."""
    return runnable(environment.engine, environment.provider)


def candidates_for(environment: Environment) -> tuple[FilePrecision, ...]:
    """What may be the fastest for an encoder there, fp32 first."""
    return candidates(environment.machine, environment.isa, environment.engine, environment.provider)


def recipe_for(device: DeviceKind, precision: FilePrecision = "fp32") -> str:
    """Names how an encoder's file is made. Files of two recipes may differ in speed: a latency table holds one."""
    parts = [RECIPE, _precision_recipe(precision, device), FUSED_RECIPE if device.fuses else ""]
    return "+".join(filter(None, parts))


def _precision_recipe(precision: FilePrecision, device: DeviceKind) -> str:
    return recipe_of("int8" if precision == "mixed" else precision, **device.as_arguments())


def export_encoder(
    subnet: nn.Module,
    architecture: Architecture,
    path: Path,
    checks: Checks,
    *,
    device: DeviceKind,
    precision: FilePrecision = "fp32",
    modules: Collection[str] = (),
    calibration: Sequence[Mapping[str, npt.NDArray[Any]]] = (),
    checkpoint_sha256: str | None,
    options: Mapping[str, str],
) -> tuple[Artifact, Checks]:
    """Write `subnet` to `path` with dynamic batch and length, proven on `checks`.

    The fp32 file, which ships or is quantised, must answer as the module does. Quantised, the checks that are returned
    expect what the file itself answers here: rounding has no other truth; what that differs from the
    module by is in the artifact.

    Args:
        subnet: in evaluation mode; forward(input_ids, attention_mask) -> logits, both int64 [batch, sequence].
        modules: the paths of those whose weights are quantised, of `mixed` the int8 ones.
        options: the session settings the file will be run with.

    Raises:
        ParityError: a weight is not finite, or answers differ; no file is left.
        UsageError: the device does not run this precision.
    """
    for name, parameter in subnet.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ParityError(f"the weight {name} is not finite", hint="train again from an earlier state")
    model, others = trace(subnet, checks), None
    if precision == "fp32":
        model = fuse(model) if device.fuses else model
        error = check_parity(open_session(model, options), checks)
    else:
        error = check_parity(open_session(model, options), checks)
        kind = "int8" if precision == "mixed" else precision
        model = to_precision(model, kind, modules=modules, calibration=calibration, **device.as_arguments())
        model = fuse(model) if device.fuses else model
        checks, others = own_answers(open_session(model, options), checks)
    write_bytes(path, model)
    artifact = Artifact(
        file=path.name,
        format="onnx",
        precision=precision,
        recipe=recipe_for(device, precision),
        opset=OPSET,
        sha256=sha256_bytes(model),
        size_bytes=len(model),
        parameters=sum(parameter.numel() for parameter in subnet.parameters()),
        architecture=architecture,
        checkpoint_sha256=checkpoint_sha256,
        parity_max_abs_error=error,
        quantised_max_abs_error=others,
    )
    return artifact, checks


def matrix_modules(model: bytes) -> frozenset[str]:
    """The modules of somebody's file that multiply by constant matrices, by the names of their nodes."""
    graph = onnx.load_from_string(model).graph
    weights = {one.name for one in graph.initializer if len(one.dims) == 2}
    weights |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    return frozenset(module_of(node) for node in products)


def _numbers(version: str) -> tuple[int, ...]:
    """1.31.1 as (1, 31, 1); what is no number ends it."""
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)
