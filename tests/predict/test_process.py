from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from toolchain.predict import process
from toolchain.predict.apply import seconds
from toolchain.predict.process import fit_process
from toolchain.predict.regression import fit_linear
from toolchain.records import Model

from .made_device import bent, draw, make_rows, mape, matrix

FRESH = matrix(draw(200, seed=999))


def summed_s(model: Model, features: np.ndarray) -> np.ndarray:
    """What the sum of costs below the process says."""
    scaled = (features - np.array(model.mean)) / np.array(model.scale)
    return np.maximum(model.intercept + scaled @ np.array(model.coefficients), 0.1 * model.fastest_s)


@pytest.mark.parametrize(("count", "noise"), [(30, 0.02), (120, 0.0), (120, 0.05)])
def test_it_predicts_what_scikit_learns_own_process_does(count: int, noise: float) -> None:
    """Its kernels are tried again here; what the best of them says of fresh networks is the record's formula."""
    rows = make_rows(count, noise=noise, law=bent)
    model = fit_process(rows.features, rows.latency_s)
    assert model.kind == "process"
    scaled, fresh = ((one - np.array(model.mean)) / np.array(model.scale) for one in (rows.features, FRESH))
    residual = np.log(rows.latency_s / summed_s(model, rows.features))
    kernels = [
        ConstantKernel((1 - noise) * residual.var()) * RBF(length * np.sqrt(scaled.shape[1]))
        + WhiteKernel(noise * residual.var())
        for length in (1, 2, 4, 8)
        for noise in (0.1, 0.3, 0.6)
    ]
    tried = [GaussianProcessRegressor(kernel, optimizer=None).fit(scaled, residual) for kernel in kernels]
    best = max(tried, key=lambda one: one.log_marginal_likelihood_value_)
    np.testing.assert_allclose(seconds(model, FRESH), summed_s(model, FRESH) * np.exp(best.predict(fresh)), rtol=1e-6)


def test_it_follows_costs_that_bend() -> None:
    rows = make_rows(200, noise=0.02, law=bent)
    truth_s = bent(draw(200, seed=999))
    bending, linear = (fitter(rows.features, rows.latency_s) for fitter in (fit_process, fit_linear))
    assert mape(seconds(bending, FRESH), truth_s) < 0.05
    assert mape(seconds(linear, FRESH), truth_s) > 0.1


def test_far_from_its_rows_it_is_the_sum_of_costs() -> None:
    rows = make_rows(60, noise=0.02, law=bent)
    model = fit_process(rows.features, rows.latency_s)
    far = 1e3 * FRESH
    np.testing.assert_allclose(seconds(model, far), summed_s(model, far), rtol=1e-9)
    assert np.abs(seconds(model, FRESH) / summed_s(model, FRESH) - 1).max() > 0.05


def test_where_costs_explain_all_there_is_no_process() -> None:
    """Networks that are all one leave a residual that is nothing but rounding."""
    features = np.tile([1.0, 2.0, 3.0], (12, 1))
    assert fit_process(features, np.full(12, 1e-3)).kind == "linear"


def test_of_many_rows_it_leans_on_some_from_first_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_ROWS", 40)
    rows = make_rows(75, noise=0.02, law=bent)
    model = fit_process(rows.features, rows.latency_s)
    assert len(model.support) == len(model.weights) == 40
    scaled = (rows.features - np.array(model.mean)) / np.array(model.scale)
    np.testing.assert_array_equal(model.support[0], scaled[0])
    np.testing.assert_array_equal(model.support[-1], scaled[-1])
