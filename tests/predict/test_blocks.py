from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.predict import apply, explain, fit_blocks, fit_predictor
from toolchain.predict.apply import seconds
from toolchain.records import PredictorInfo, decode_record, encode_record

from .made_device import ABOUT, BLOCKS, COSTS, draw, make_rows, matrix

FRESH = draw(50, seed=4)


@pytest.fixture(scope="module")
def info() -> PredictorInfo:
    return fit_predictor(make_rows(60, noise=0.03), ABOUT, {"blocks": fit_blocks})


def test_the_costs_of_a_device_without_noise_are_found() -> None:
    rows = make_rows(60)
    model = fit_blocks(rows.features, rows.latency_s)
    costs = np.array(model.coefficients) / np.array(model.scale)
    np.testing.assert_allclose(costs, list(COSTS.values()), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        seconds(model, matrix(FRESH)), sum(one * FRESH[name] for name, one in COSTS.items()), rtol=1e-6
    )


def test_blocks_add_up_to_the_prediction(info: PredictorInfo) -> None:
    parts = explain(info, FRESH, BLOCKS)
    assert list(parts) == ["entry", "layers", "other"]
    np.testing.assert_allclose(sum(parts.values()), apply(info, FRESH).latency_s, rtol=1e-12)
    true = {name: sum(COSTS[one] * FRESH[one] for one in own) for name, own in BLOCKS.items()}
    for name, expected in true.items():
        assert np.median(parts[name] / expected) == pytest.approx(1, abs=0.1)


def test_where_every_feature_is_somebodys_there_is_no_other(info: PredictorInfo) -> None:
    parts = explain(info, FRESH, BLOCKS | {"rest": ("idle",)})
    assert list(parts) == ["entry", "layers", "rest"]
    np.testing.assert_allclose(sum(parts.values()), apply(info, FRESH).latency_s, rtol=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), count=st.integers(3, 30))
def test_no_block_takes_less_than_nothing(seed: int, count: int) -> None:
    """Whatever was measured: here latencies that follow nothing, which least squares would give negative costs."""
    rows = make_rows(count)
    latency_s = 1e-3 * np.random.default_rng(seed).lognormal(size=count)
    model = fit_blocks(rows.features, latency_s)
    assert min(model.coefficients) >= 0
    assert max(model.coefficients) > 0


def test_a_feature_that_no_network_has_costs_nothing() -> None:
    rows = make_rows(30, noise=0.02)
    model = fit_blocks(np.column_stack([rows.features, np.zeros(30)]), rows.latency_s)
    assert model.coefficients[-1] == 0
    assert np.isfinite(seconds(model, np.column_stack([matrix(FRESH), np.ones(50)]))).all()


def test_the_baseline_says_how_wrong_it_is_and_keeps(info: PredictorInfo) -> None:
    assert info.model.kind == "blocks"
    assert 0.015 < info.error.mape < 0.045
    assert info.compared == {"blocks": info.error.mape}
    assert decode_record(encode_record(info), PredictorInfo, "here") == info
