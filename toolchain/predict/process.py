"""The challenger: a Gaussian process over what the sum of costs leaves unexplained.

Where a device's caches or kernels make costs bend, it follows; where they do not, it only adds its own noise. So it is
used only where it wins on rows that neither has seen.
"""

from __future__ import annotations

import msgspec
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from toolchain.arrays import Floats
from toolchain.predict.apply import seconds
from toolchain.predict.regression import fit_linear
from toolchain.records import Model

MOST_ROWS = 300
"""The process is fitted on so many: its cost grows with the third power."""
_LENGTHS = (1.0, 2.0, 4.0)
"""Of the square root of the number of features, in standard deviations of a feature."""
_NOISES = (0.1, 0.4)
"""Of the residuals' variance: how much of it no smooth function explains."""


def fit_process(features: Floats, latency_s: Floats) -> Model:
    """The linear sum, and a process over its log residuals, its kernel the likeliest of a few (Rasmussen 2006)."""
    linear = fit_linear(features, latency_s)
    kept = np.linspace(0, len(latency_s) - 1, min(len(latency_s), MOST_ROWS)).astype(np.intp)
    scaled = ((features - np.array(linear.mean)) / np.array(linear.scale))[kept]
    residual = np.log(latency_s / seconds(linear, features))[kept]
    variance = float(np.var(residual))
    if variance < 1e-12:
        return linear
    best: GaussianProcessRegressor | None = None
    for length in _LENGTHS:
        for noise in _NOISES:
            kernel = ConstantKernel((1 - noise) * variance) * RBF(length * np.sqrt(scaled.shape[1])) + WhiteKernel(
                noise * variance
            )
            process = GaussianProcessRegressor(kernel, optimizer=None).fit(scaled, residual)
            if best is None or process.log_marginal_likelihood_value_ > best.log_marginal_likelihood_value_:
                best = process
    if best is None:  # pragma: no cover: there are kernels
        return linear
    amplitude, kernel = best.kernel_.k1.k1.constant_value, best.kernel_.k1.k2
    return msgspec.structs.replace(
        linear,
        kind="process",
        support=tuple(tuple(map(float, row)) for row in scaled),
        weights=tuple(float(amplitude * one) for one in best.alpha_),
        length_scale=float(kernel.length_scale),
    )
