"""The explained baseline: a network's latency as the sum of its blocks, none of which takes less than nothing.

What published look-up tables do (Once-for-All's among them): embedding, layers and head are timed apart and added up.
Here their costs are taken from whole networks, so that what lies between blocks is in them; it is a baseline, and
`compared` tells what believing in it costs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from toolchain.arrays import Floats
from toolchain.records import Model, PredictorInfo


def fit_blocks(features: Floats, latency_s: Floats) -> Model:
    """Costs of at least zero per unit of each kind of work, by least squares on relative errors (Lawson & Hanson)."""
    scale = np.abs(features).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    costs, _ = nnls(features / scale / latency_s[:, None], np.ones_like(latency_s), maxiter=100 * features.shape[1])
    return Model(
        kind="blocks",
        mean=(0.0,) * features.shape[1],
        scale=tuple(map(float, scale)),
        intercept=0.0,
        coefficients=tuple(map(float, costs)),
        fastest_s=float(latency_s.min()),
    )


def explain(
    info: PredictorInfo, features: Mapping[str, Floats], blocks: Mapping[str, tuple[str, ...]]
) -> dict[str, Floats]:
    """Seconds [n] that each block of these networks takes, by a `blocks` model; they add up to its prediction.

    `blocks` says which features are whose, and may name some that this space has not; what is nobody's is `other`.
    """
    costs = dict(zip(info.features, np.array(info.model.coefficients) / np.array(info.model.scale), strict=True))
    parts = {
        name: sum((costs[one] * features[one] for one in own if one in costs), np.zeros(1))
        for name, own in blocks.items()
    }
    rest = [one for one in info.features if not any(one in own for own in blocks.values())]
    if rest:
        parts["other"] = sum((costs[one] * features[one] for one in rest), np.zeros(1))
    return parts
