"""What is wrong with the rows of a table: sessions that were throttled, levels that shifted, rows that were disturbed.

Rows that follow each other were measured one after the other. What a model leaves unexplained should not know that: so
the residuals, in that order, are searched for change points (Truong et al. 2020) and for autocorrelation.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import ruptures

from toolchain.arrays import Floats
from toolchain.predict.apply import seconds
from toolchain.predict.regression import fit_linear
from toolchain.predict.rows import MINIMUM_ROWS, Rows
from toolchain.records import Finding

FEWEST_ROWS = 30
"""Fewer say nothing about the order they were measured in."""
_SHORTEST = 8
"""Rows of a segment: fewer that are off are single outliers."""
_PENALTY = 4.0
"""Of sigma² log n, the gain in squared error that a change point must bring (twice the BIC's)."""
_CLIPPED = 4.0
_FAR_OFF = 0.10
_SIGMAS = 4.0
_LEAST_SHIFT = 0.015
_CORRECTED = 0.05
"""Smaller shifts are told and left: which of two levels the device will have next time, nobody knows."""
_OUTLIER_SIGMAS = 6.0
_CORRELATED = 0.2
_LEAST_DRIFT = 0.01
_PASSES = 3
_LEVELS = 3.0


class Inspection(NamedTuple):
    """What was found; by row: whether a model is judged by it, whether it is fitted to it, and the level it is off by.

    Single outliers are not fitted, but judged by: the next measurement may be one. A model is judged by what was
    measured, uncorrected. All [n].
    """

    findings: tuple[Finding, ...]
    judged: npt.NDArray[np.bool_]
    fitted: npt.NDArray[np.bool_]
    factors: Floats


def all_clean(count: int) -> Inspection:
    return Inspection((), np.ones(count, dtype=np.bool_), np.ones(count, dtype=np.bool_), np.ones(count))


def inspect(rows: Rows) -> Inspection:
    """Look through a table's rows, given in the order they were measured."""
    count = len(rows.ids)
    kept, factors = np.ones(count, dtype=np.bool_), np.ones(count)
    if count < FEWEST_ROWS:
        return all_clean(count)
    blocks: list[Finding] = []
    residual = np.zeros(count)
    for _ in range(_PASSES):
        model = fit_linear(rows.features[kept], (rows.latency_s / factors)[kept])
        residual = np.log(rows.latency_s / seconds(model, rows.features))
        residual -= np.median((residual - np.log(factors))[kept])
        found = _blocks(residual)
        if found == blocks:
            break
        blocks, kept, factors = found, *_consequences(found, count)
        if kept.sum() < max(MINIMUM_ROWS, count // 2):
            told = tuple(msgspec.structs.replace(one, done="told") for one in found)
            clean = all_clean(count)  # no level is the usual one: nothing can be left out, and all of it is in doubt
            return clean._replace(findings=(*told, *_drift(residual, clean.fitted)))
    settled = residual - np.log(factors)
    singles = _singles(settled, kept)
    fitted = kept.copy()
    fitted[[one.first for one in singles]] = False
    return Inspection((*blocks, *singles, *_drift(settled, fitted)), kept, fitted, factors)


def _blocks(residual: Floats) -> list[Finding]:
    """Segments whose level is off, by change points of the residuals in their order."""
    count, sigma = len(residual), _noise(residual)
    if sigma == 0:
        return []
    signal = np.clip(residual / sigma, -_CLIPPED, _CLIPPED)[:, None]
    search = ruptures.KernelCPD(kernel="linear", min_size=_SHORTEST).fit(signal)
    ends = search.predict(pen=_PENALTY * float(np.log(count)))
    found: list[Finding] = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        finding = _judge(residual, int(first), int(end), sigma)
        if finding is not None:
            found.append(_joined(found.pop(), finding, residual) if _continues(found, finding) else finding)
    return found


def _judge(residual: Floats, first: int, end: int, sigma: float) -> Finding | None:
    """What the rows from `first` to before `end` are, where their level is off by more than chance."""
    level = float(np.median(residual[first:end]))
    certain = _SIGMAS * sigma / np.sqrt(end - first)
    far = max(_FAR_OFF, _SIGMAS * sigma if end - first < 2 * _SHORTEST else 0.0)
    if abs(level) <= max(_LEAST_SHIFT, certain):
        return None
    finding = Finding(kind="shift", first=first, last=end - 1, ratio=float(np.exp(level)), done="told")
    if abs(level) > far:
        return msgspec.structs.replace(finding, kind="outlier-block", done="left out")
    return msgspec.structs.replace(finding, done="corrected") if abs(level) > _CORRECTED else finding


def _continues(found: list[Finding], finding: Finding) -> bool:
    """Whether it is one more part of the block before it."""
    return bool(found) and finding.kind == found[-1].kind == "outlier-block" and found[-1].last + 1 == finding.first


def _joined(before: Finding, after: Finding, residual: Floats) -> Finding:
    level = float(np.median(residual[before.first : after.last + 1]))
    return msgspec.structs.replace(before, last=after.last, ratio=float(np.exp(level)))


def _consequences(found: list[Finding], count: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    kept, factors = np.ones(count, dtype=np.bool_), np.ones(count)
    for one in found:
        if one.done == "left out":
            kept[one.first : one.last + 1] = False
        elif one.done == "corrected":
            factors[one.first : one.last + 1] = one.ratio
    return kept, factors


def _singles(residual: Floats, kept: npt.NDArray[np.bool_]) -> list[Finding]:
    limit = max(_FAR_OFF, _OUTLIER_SIGMAS * _spread(residual[kept]))
    rows = np.flatnonzero(kept & (np.abs(residual) > limit))
    return [
        Finding(kind="outlier", first=int(row), last=int(row), ratio=float(np.exp(residual[row])), done="left out")
        for row in rows
    ]


def _drift(residual: Floats, kept: npt.NDArray[np.bool_]) -> list[Finding]:
    """Neighbours that err alike, by the lag-1 autocorrelation of what is left."""
    left = residual[kept]
    centred = np.clip(left - np.median(left), -_CLIPPED * _spread(left), _CLIPPED * _spread(left))
    power = float(centred @ centred)
    if power == 0:
        return []
    correlation = float(centred[1:] @ centred[:-1]) / power
    if correlation < max(_CORRELATED, 4 / np.sqrt(len(left))):
        return []
    shared = float(np.sqrt(correlation) * np.std(centred))
    if shared < _LEAST_DRIFT:
        return []
    return [Finding(kind="drift", first=0, last=len(residual) - 1, ratio=float(np.exp(shared)), done="told")]


def _noise(residual: Floats) -> float:
    """The standard deviation of a row; between neighbours, where levels are so far apart that they hide it."""
    overall = _spread(residual)
    between = 1.4826 * float(np.median(np.abs(np.diff(residual)))) / np.sqrt(2)
    return float(between) if overall > _LEVELS * between else overall


def _spread(values: Floats) -> float:
    """The standard deviation that the middle of the values suggests."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
