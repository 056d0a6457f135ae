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

HALF_TOLERANCE = 0.05
"""The same between a half-precision file's logits and those of the fp32 file it came from."""

WORDS_TOLERANCE = 0.25
"""Of the translations of a quantised file, this share may be others on another machine, though never all of one check:
a word that was hardly likelier than the next is not there. Of an fp32 file none may be."""

_LOGITS, _WORDS = "logits", "output_ids"
_CLASSES_KEPT = 256
"""Of a vocabulary of logits this many are kept as evidence: enough to catch any fault, small enough to ship."""


class Checks(NamedTuple):
    """Inputs by their names (token ids and masks, [batch, sequence]), and what is expected for each.

    Of an encoder those are logits, float32: the module's, or of a quantised file its own on the machine that built it.
    Of a translator they are its words, int64 [batch, words].
    """

    inputs: list[dict[str, npt.NDArray[Any]]]
    expected: list[npt.NDArray[Any]]


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
    """How far a file's answers may be from those of its checks; of words, which share of the rows may have others.

    What two machines compute in fp32 differs in the last digits, of large answers by more: TOLERANCE grows with their
    root mean square above 1, and is a hundredth of it where they are tiny (probabilities). Quantised, a last digit may
    be a whole step of 1/255.
    """
    if any(_are_words(one) for one in checks.expected):
        return 0.0 if precision == "fp32" else WORDS_TOLERANCE
    kept = np.concatenate([one[..., :_CLASSES_KEPT].ravel() for one in checks.expected])
    size = float(np.sqrt(np.mean(np.square(kept, dtype=np.float64))))
    if precision == "fp32":
        return TOLERANCE * max(1e-3, min(1.0, 100 * size), size)
    return max(TOLERANCE, (HALF_TOLERANCE if precision == "fp16" else INT8_TOLERANCE) * size)


def own_answers(session: Any, checks: Checks) -> tuple[Checks, float]:
    """The same checks, expecting what this session answers; and the largest difference from what they expected.

    Raises:
        ParityError: an output is not finite, or a check does not run.
    """
    worst = check_parity(session, checks, math.inf)
    return Checks(checks.inputs, [session.run(None, dict(one))[0] for one in checks.inputs]), worst


def check_parity(session: Any, checks: Checks, allowed: float | None = None) -> float:
    """The largest absolute difference over all checks; of words, the share of rows that have others.

    Args:
        session: an onnxruntime.InferenceSession, or anything with its `run`.
        allowed: how large it may be; None: what is allowed of an fp32 file.

    Raises:
        ParityError: it exceeds what is allowed, an output is not finite, or a check does not run; names the first.
    """
    most = tolerance("fp32", checks) if allowed is None else allowed
    worst, rows, others = 0.0, 0, 0
    for number, (one, expected) in enumerate(zip(checks.inputs, checks.expected, strict=True)):
        shape = "x".join(map(str, next(iter(one.values())).shape))
        name = f"check {number} ({shape} tokens)"
        try:
            answer = session.run(None, dict(one))[0]
        except RUNTIME_ERRORS as fault:
            raise ParityError(f"{name} does not run", why=str(fault).splitlines()[0]) from fault
        if _are_words(expected):
            found = _other_rows(name, answer, expected)
            rows, others = rows + len(expected), others + len(found)
            if found and (most <= 0 or (most < 1 and len(found) == len(expected) > 1)):
                raise _other_words(name, found, answer, expected)
        else:
            worst = max(worst, _difference(name, answer, expected, most))
    share = others / rows if rows else 0.0
    if share > most:
        raise ParityError(
            f"{others} of {rows} translations are others than expected",
            why=f"{100 * most:.0f} % may be",
            hint="export again; if it stays, the runtime computes something else on this machine",
        )
    return max(worst, share)


def _are_words(expected: npt.NDArray[Any]) -> bool:
    return expected.dtype.kind in "iu"


def _difference(name: str, logits: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> float:
    if not np.isfinite(logits).all():
        raise ParityError(f"{name} gives outputs that are not finite", hint="export again")
    if logits.shape[:-1] != expected.shape[:-1] or logits.shape[-1] < expected.shape[-1]:
        raise ParityError(f"{name} gives shape {logits.shape}", hint="export again")
    error = float(np.abs(logits[..., : expected.shape[-1]] - expected).max())
    if not error <= tolerance:  # NaN is no agreement
        raise ParityError(
            f"the file and the module disagree on {name}",
            why=f"largest difference {error:.2e}, allowed {tolerance:.0e}",
            hint="export again; if it stays, the runtime computes something else on this machine",
        )
    return error


def _other_rows(name: str, words: npt.NDArray[Any], expected: npt.NDArray[Any]) -> list[int]:
    """Which rows have other words than expected. A row that has ended is filled up with its last word, the end mark, to
    the length of the longest, which may be another row's."""
    if words.ndim != 2 or len(words) != len(expected) or not _are_words(words):
        raise ParityError(f"{name} gives shape {words.shape}", hint="export again")
    common = min(words.shape[1], expected.shape[1])
    differ = (words[:, :common] != expected[:, :common]).any(axis=1)
    for longer in (words, expected):
        differ |= (longer[:, common:] != longer[:, max(0, common - 1), None]).any(axis=1)
    return [int(row) for row in np.flatnonzero(differ)]


def _other_words(name: str, rows: list[int], words: npt.NDArray[Any], expected: npt.NDArray[Any]) -> ParityError:
    row = rows[0]
    return ParityError(
        f"the file and the module disagree on {name}",
        why=f"row {row} is translated as {words[row].tolist()}, expected is {expected[row].tolist()}",
        hint="export again; if it stays, the runtime computes something else on this machine",
    )


def save_checks(checks: Checks, path: Path) -> None:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, (one, expected) in enumerate(zip(checks.inputs, checks.expected, strict=True)):
        tensors |= {f"{number}.{name}": _whole(array) for name, array in one.items()}
        kept = expected if _are_words(expected) else expected[..., :_CLASSES_KEPT]
        tensors[f"{number}.{_WORDS if _are_words(expected) else _LOGITS}"] = _whole(kept)
    write_bytes(path, save(tensors))


def load_checks(path: Path) -> Checks:
    """Raises IntegrityError where the file is not what `save_checks` writes."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"{path} holds no parity checks", why=str(error), hint="get the bundle again") from error
    inputs: dict[int, dict[str, npt.NDArray[Any]]] = {}
    expected: dict[int, npt.NDArray[Any]] = {}
    for key, array in tensors.items():
        number, _, name = key.partition(".")
        answers = name in (_LOGITS, _WORDS)
        if not number.isdecimal() or not name or not (answers or _are_words(array)):
            raise IntegrityError(f"{path} holds no parity checks", why=f"what is {key}?", hint="get the bundle again")
        if answers:
            expected[int(number)] = array
        else:
            inputs.setdefault(int(number), {})[name] = array
    if not expected or set(expected) != set(inputs) or set(expected) != set(range(len(expected))):
        why = f"{len(inputs)} questions and {len(expected)} answers"
        raise IntegrityError(f"{path} holds no parity checks", why=why, hint="get the bundle again")
    return Checks([inputs[number] for number in sorted(inputs)], [expected[number] for number in sorted(expected)])


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array)
