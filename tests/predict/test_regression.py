from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.predict.apply import seconds
from toolchain.predict.regression import fit_linear, fit_log, robust_lasso, standardise

from .made_device import COSTS, added, disturbed, draw, make_rows, mape, matrix, multiplied

FRESH = draw(300, seed=999)
TRUTH_S = added()(FRESH)


def plain_costs(features: np.ndarray, latency_s: np.ndarray) -> np.ndarray:
    """What least squares on relative errors says a unit of each feature costs."""
    costs, *_ = np.linalg.lstsq(features / latency_s[:, None], np.ones(len(latency_s)), rcond=1e-8)
    return costs


def test_standardised_features_have_no_mean_and_spread_one() -> None:
    rng = np.random.default_rng(0)
    features, weights = rng.normal(5, 3, (50, 4)), rng.random(50)
    features[:, 2] = 7
    scaled = standardise(features, weights).apply(features)
    np.testing.assert_allclose(np.average(scaled, axis=0, weights=weights), 0, atol=1e-12)
    spread = np.sqrt(np.average(scaled**2, axis=0, weights=weights))
    np.testing.assert_allclose(spread, [1, 1, 0, 1], atol=1e-12)


def test_the_costs_of_a_device_without_noise_are_found() -> None:
    """Costs per unit, not predictions alone: `pass` never differs, so it is in the intercept."""
    rows = make_rows(60)
    model = fit_linear(rows.features, rows.latency_s)
    costs = np.array(model.coefficients) / np.array(model.scale)
    np.testing.assert_allclose(costs[1:], list(COSTS.values())[1:], rtol=0.02, atol=1e-7)
    assert model.coefficients[0] == 0
    base = model.intercept - costs @ np.array(model.mean)
    assert base == pytest.approx(COSTS["pass"], rel=0.02)
    np.testing.assert_allclose(seconds(model, matrix(FRESH)), TRUTH_S, rtol=5e-3)


def test_costs_that_multiply_are_found_by_the_log() -> None:
    rows = make_rows(60, law=multiplied)
    model = fit_log(rows.features, rows.latency_s)
    assert model.kind == "log"
    assert len(model.coefficients) == 2 * len(rows.names)
    assert mape(seconds(model, matrix(FRESH)), multiplied(FRESH)) < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_one_row_in_ten_disturbed_does_not_move_the_fit(seed: int) -> None:
    """Least squares, which they do move, is three times as wrong."""
    rows = make_rows(60, noise=0.02, seed=seed)
    which = np.random.default_rng(seed).choice(60, 6, replace=False)
    bad = disturbed(rows, which, 1.5)
    robust = mape(seconds(fit_linear(bad.features, bad.latency_s), matrix(FRESH)), TRUTH_S)
    plain = mape(matrix(FRESH) @ plain_costs(bad.features, bad.latency_s), TRUTH_S)
    assert robust < 0.012
    assert plain > 2.5 * robust


def test_features_that_explain_nothing_are_left_out() -> None:
    """With thirty columns of chance beside the six that count, forty rows leave least squares nothing to stand on."""
    rows = make_rows(40, noise=0.02)
    rng = np.random.default_rng(0)
    chance = rng.random((40, 30))
    fresh = np.concatenate([matrix(FRESH), rng.random((300, 30))], axis=1)
    features = np.concatenate([rows.features, chance], axis=1)
    model = fit_linear(features, rows.latency_s)
    assert np.count_nonzero(model.coefficients) < 25
    sparse = mape(seconds(model, fresh), TRUTH_S)
    assert sparse < 0.03
    assert mape(fresh @ plain_costs(features, rows.latency_s), TRUTH_S) > 2 * sparse


def test_features_that_say_the_same_thing_twice_are_no_trouble() -> None:
    """In a space of one depth `layers` is a multiple of `pass`, and others are absent altogether."""
    rows = make_rows(40)
    features = np.column_stack([rows.features, rows.features[:, 4], 3 * rows.features[:, 1], np.zeros(40)])
    fresh = np.column_stack([matrix(FRESH), FRESH["links"], 3 * FRESH["layers"], np.zeros(300)])
    for fitter, most in ((fit_linear, 0.005), (fit_log, 0.04)):
        model = fitter(features, rows.latency_s)
        assert np.isfinite(model.coefficients).all()
        assert mape(seconds(model, fresh), TRUTH_S) < most


def test_features_that_never_differ_leave_the_latency_to_the_intercept() -> None:
    rng = np.random.default_rng(0)
    latency_s = 1e-3 * (1 + 0.01 * rng.random(12))
    features = np.tile(rng.random(5), (12, 1))
    for fitter in (fit_linear, fit_log):
        model = fitter(features, latency_s)
        assert not np.any(model.coefficients)
        assert seconds(model, features)[0] == pytest.approx(1.005e-3, rel=0.01)


@settings(max_examples=5)
@given(power=st.integers(-20, 20), seed=st.integers(0, 3))
def test_the_unit_of_time_does_not_matter_to_a_fit(power: int, seed: int) -> None:
    """By powers of two nothing is rounded, so nothing may differ."""
    rows = make_rows(12, noise=0.05, seed=seed)
    plain = seconds(fit_linear(rows.features, rows.latency_s), rows.features)
    scaled = seconds(fit_linear(rows.features, 2.0**power * rows.latency_s), rows.features)
    np.testing.assert_allclose(scaled, 2.0**power * plain, rtol=1e-12)


@settings(max_examples=5)
@given(factor=st.floats(1e-3, 1e5), seed=st.integers(0, 3))
def test_any_unit_of_time_is_as_good_as_another(factor: float, seed: int) -> None:
    """Rounding may end the descent a step earlier or later."""
    rows = make_rows(12, noise=0.05, seed=seed)
    for fitter in (fit_linear, fit_log):
        plain = seconds(fitter(rows.features, rows.latency_s), rows.features)
        scaled = seconds(fitter(rows.features, factor * rows.latency_s), rows.features)
        np.testing.assert_allclose(scaled, factor * plain, rtol=0.02)


@settings(max_examples=5)
@given(powers=st.lists(st.integers(-20, 20), min_size=6, max_size=6), seed=st.integers(0, 3))
def test_the_unit_of_a_feature_does_not_matter_to_a_fit(powers: list[int], seed: int) -> None:
    rows = make_rows(12, noise=0.05, seed=seed)
    plain = seconds(fit_linear(rows.features, rows.latency_s), rows.features)
    changed = rows.features * 2.0 ** np.array(powers)
    np.testing.assert_allclose(seconds(fit_linear(changed, rows.latency_s), changed), plain, rtol=1e-9)


def test_rows_of_more_importance_are_fitted_closer() -> None:
    """Half the rows say a slope of 1, half of 3: whose importance is ten times the others' wins."""
    slope = np.tile([1.0, 3.0], 20)
    x = np.repeat(np.linspace(1, 2, 20), 2)
    for heavy, expected in ((0, 1.0), (1, 3.0)):
        importance = np.where(np.arange(40) % 2 == heavy, 10.0, 1.0)
        intercept, (found,) = robust_lasso(x[:, None], slope * x, importance)
        assert found == pytest.approx(expected, rel=0.1)
        assert intercept == pytest.approx(0, abs=0.2)
