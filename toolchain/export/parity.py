"""Is the file the same function as the module? Asked on real text, at several lengths, batches and paddings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from toolchain.errors import IntegrityError, ParityError
from toolchain.export.session import RUNTIME_ERRORS
from toolchain.files import write_bytes
from toolchain.records import FilePrecision

if TYPE_CHECKING:
    import numpy.typing as npt

TOLERANCE = 1e-4
"""Largest difference allowed between the module's logits and the file's, fp32 against fp32."""

INT8_TOLERANCE = 0.1
"""The same between a quantised file's logits on two machines, as a share of their root mean square: README.md."""

_CLASSES_KEPT = 256
"""Of a vocabulary of logits this many are kept as evidence: enough to catch any fault, small enough to ship."""


class Checks(NamedTuple):
    """Inputs (input_ids, attention_mask: int64 [batch, sequence]) and the logits expected for them.

    Those are the module's, and of a quantised file its own, on the machine that built it.
    """

    inputs: list[dict[str, npt.NDArray[np.int64]]]
    expected: list[npt.NDArray[np.float32]]


def build_checks(subnet: nn.Module, ids: npt.NDArray[np.int64], padding: int) -> Checks:
    """Checks on rows of real token ids [n, t]: alone and together, short and full, padded in every pattern."""
    ids = np.resize(ids, (max(4, len(ids)), ids.shape[1]))  # fewer than four rows are repeated
    lengths = (ids != padding).sum(axis=1)
    longest = ids[[int(lengths.argmax())]]
    several = ids[:3, : max(2, int(lengths[:3].max()))]
    cut = [longest[:, : max(2, int(lengths.max()))], longest[:, :2], several, ids[3:4]]
    inputs = [{"input_ids": part, "attention_mask": (part != padding).astype(np.int64)} for part in map(_whole, cut)]
    left = inputs[0]["attention_mask"].copy()
    left[:, : left.shape[1] // 3] = 0
    holes = inputs[2]["attention_mask"].copy()
    holes[:, 1::3] = 0
    inputs.append({"input_ids": inputs[0]["input_ids"], "attention_mask": left})
    inputs.append({"input_ids": inputs[2]["input_ids"], "attention_mask": holes})
    with torch.no_grad():
        expected = [
            subnet(torch.from_numpy(one["input_ids"]), torch.from_numpy(one["attention_mask"])).numpy()
            for one in inputs
        ]
    return Checks(inputs, expected)


def tolerance(precision: FilePrecision, checks: Checks) -> float:
    """How far a file's answers may be from those of its checks.

    What two machines compute in fp32 differs in the last digits; quantised, a last digit may be a whole step of 1/255.
    """
    if precision == "fp32":
        return TOLERANCE
    kept = np.concatenate([one[..., :_CLASSES_KEPT].ravel() for one in checks.expected])
    return max(TOLERANCE, INT8_TOLERANCE * float(np.sqrt(np.mean(np.square(kept, dtype=np.float64)))))


def own_answers(session: Any, checks: Checks) -> tuple[Checks, float]:
    """The same checks, expecting what this session answers; and the largest difference from what they expected.

    Raises:
        ParityError: an output is not finite, or a check does not run.
    """
    worst = check_parity(session, checks, math.inf)
    return Checks(checks.inputs, [session.run(None, dict(one))[0] for one in checks.inputs]), worst


def check_parity(session: Any, checks: Checks, tolerance: float = TOLERANCE) -> float:
    """The largest absolute difference over all checks.

    Args:
        session: an onnxruntime.InferenceSession, or anything with its `run`.

    Raises:
        ParityError: it exceeds `tolerance`, an output is not finite, or a check does not run; names the first.
    """
    worst = 0.0
    for number, (one, expected) in enumerate(zip(checks.inputs, checks.expected, strict=True)):
        shape = "x".join(map(str, one["input_ids"].shape))
        try:
            logits = session.run(None, dict(one))[0]
        except RUNTIME_ERRORS as fault:
            raise ParityError(
                f"check {number} ({shape} tokens) does not run", why=str(fault).splitlines()[0]
            ) from fault
        if not np.isfinite(logits).all():
            raise ParityError(f"check {number} ({shape} tokens) gives outputs that are not finite", hint="export again")
        if logits.shape[:-1] != expected.shape[:-1] or logits.shape[-1] < expected.shape[-1]:
            raise ParityError(f"check {number} ({shape} tokens) gives shape {logits.shape}", hint="export again")
        error = float(np.abs(logits[..., : expected.shape[-1]] - expected).max())
        if not error <= tolerance:  # NaN is no agreement
            raise ParityError(
                f"the file and the module disagree on check {number} ({shape} tokens)",
                why=f"largest difference {error:.2e}, allowed {tolerance:.0e}",
                hint="export again; if it stays, the runtime computes something else on this machine",
            )
        worst = max(worst, error)
    return worst


def save_checks(checks: Checks, path: Path) -> None:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, (one, expected) in enumerate(zip(checks.inputs, checks.expected, strict=True)):
        tensors |= {f"{number}.{name}": _whole(array) for name, array in one.items()}
        tensors[f"{number}.logits"] = _whole(expected[..., :_CLASSES_KEPT])
    write_bytes(path, save(tensors))


def load_checks(path: Path) -> Checks:
    """Raises IntegrityError where the file is not what `save_checks` writes."""
    try:
        tensors = load_file(path)
        count = len(tensors) // 3
        if count == 0:
            raise IntegrityError(f"{path} holds no parity checks", hint="get the bundle again")
        inputs = [{name: tensors[f"{n}.{name}"] for name in ("input_ids", "attention_mask")} for n in range(count)]
        return Checks(inputs, [tensors[f"{n}.logits"] for n in range(count)])
    except (SafetensorError, KeyError) as error:
        raise IntegrityError(f"{path} holds no parity checks", why=str(error), hint="get the bundle again") from error


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array)
