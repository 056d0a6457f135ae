"""From features to seconds, and how sure of it: arithmetic on arrays, for one network or a million."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toolchain.arrays import Floats
from toolchain.errors import IntegrityError
from toolchain.records import Model, Nearness, PredictorInfo

_FAR = 1.5
"""Times the leverage of the furthest row it was fitted on, and its mean: beyond, a prediction is an extrapolation."""


class Predicted(NamedTuple):
    """Latencies in seconds, and the interval each lies in with the predictor's coverage: all [n].

    `extrapolated`: the network is far from all that was measured, so the interval is no promise.
    """

    latency_s: Floats
    low_s: Floats
    high_s: Floats
    extrapolated: npt.NDArray[np.bool_]


def apply(info: PredictorInfo, features: dict[str, Floats]) -> Predicted:
    """What the predictor says of networks with these features, [n] each.

    Raises:
        IntegrityError: that is no finite number, as of a predictor whose file was changed.
    """
    matrix = np.stack([features[name] for name in info.features], axis=1)
    latency_s = seconds(info.model, matrix)
    far = leverage(info.nearness, matrix)
    width = info.margin * np.sqrt(np.maximum(1 + far, 0))
    if not (np.isfinite(latency_s).all() and np.isfinite(latency_s * (1 + width)).all()):
        raise IntegrityError(
            f"the predictor of {info.target} gives no finite number",
            hint="remove its file beside the latency table: the next command fits it anew",
        )
    return Predicted(latency_s, latency_s / (1 + width), latency_s * (1 + width), far > info.nearness.limit)


def seconds(model: Model, features: Floats) -> Floats:
    """Predicted seconds [n]; never below a tenth of the fastest row, nor above what a float holds."""
    scaled = (features - np.array(model.mean)) / np.array(model.scale)
    if model.kind == "log":
        scaled = np.concatenate([scaled, scaled**2], axis=1)
        return _floored(np.exp(np.clip(model.intercept + scaled @ np.array(model.coefficients), -50, 13)), model)
    summed = _floored(model.intercept + scaled @ np.array(model.coefficients), model)
    if model.kind == "process":
        return _floored(summed * np.exp(_kernel(model, scaled) @ np.array(model.weights)), model)
    return summed


def leverage(nearness: Nearness, features: Floats) -> Floats:
    """How far networks lie from those a model was fitted on, as the variance of the fit there: z' inverse z, [n]."""
    scaled = (features - np.array(nearness.mean)) / np.array(nearness.scale)
    found: Floats = ((scaled @ np.array(nearness.inverse)) * scaled).sum(axis=1)
    return found


def nearness(features: Floats) -> Nearness:
    """What `leverage` needs, of the rows [n, f] a model was fitted on.

    A ridge of one row's weight keeps features that never differed, or few rows, from making everything look far.
    """
    count = len(features)
    mean = features.mean(axis=0)
    scale = features.std(axis=0)
    scale = np.where(scale > 1e-9 * np.maximum(np.abs(mean), 1e-300), scale, np.maximum(0.1 * np.abs(mean), 1e-9))
    scaled = (features - mean) / scale
    inverse = np.linalg.inv(scaled.T @ scaled + np.eye(features.shape[1]))
    found = ((scaled @ inverse) * scaled).sum(axis=1)
    return Nearness(
        mean=tuple(map(float, mean)),
        scale=tuple(map(float, scale)),
        inverse=tuple(tuple(map(float, row)) for row in inverse),
        limit=_FAR * float(found.max()) + features.shape[1] / count,
    )


def _floored(predicted: Floats, model: Model) -> Floats:
    """Far outside its data a sum of costs may reach zero and below, which no latency does."""
    floored: Floats = np.maximum(predicted, 0.1 * model.fastest_s)
    return floored


def _kernel(model: Model, scaled: Floats) -> Floats:
    """[n, support]: the squared-exponential kernel between networks and the rows of the process."""
    support = np.array(model.support)
    squared = (scaled**2).sum(axis=1)[:, None] - 2 * scaled @ support.T + (support**2).sum(axis=1)
    near: Floats = np.exp(-0.5 * np.maximum(squared, 0) / model.length_scale**2)
    return near
