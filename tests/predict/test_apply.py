from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.predict import KINDS, apply
from toolchain.predict.apply import leverage, nearness, seconds
from toolchain.records import Model, PredictorInfo

from .made_device import COSTS, draw, make_rows, matrix

ROWS = make_rows(60, noise=0.03)
MODELS = {name: fitter(ROWS.features, ROWS.latency_s) for name, fitter in KINDS.items()}
NAMES = tuple(COSTS)


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


def test_linear_is_the_sum_that_its_record_says() -> None:
    model = Model(kind="linear", mean=(1, 2), scale=(2, 4), intercept=5, coefficients=(3, -1), fastest_s=1)
    np.testing.assert_allclose(seconds(model, np.array([[1.0, 2.0], [3.0, 10.0], [-9.0, 2.0]])), [5, 6, 0.1])
    blocks = msgspec.structs.replace(model, kind="blocks")
    np.testing.assert_allclose(seconds(blocks, np.array([[3.0, 10.0]])), [6])


def test_log_is_the_exponential_that_its_record_says() -> None:
    model = Model(kind="log", mean=(1,), scale=(2,), intercept=0.5, coefficients=(3, -1), fastest_s=1e-9)
    np.testing.assert_allclose(seconds(model, np.array([[1.0], [3.0]])), np.exp([0.5, 2.5]))


def test_process_is_the_product_that_its_record_says() -> None:
    model = Model(
        kind="process",
        mean=(0, 0),
        scale=(1, 1),
        intercept=2,
        coefficients=(1, 0),
        fastest_s=1e-9,
        support=((0, 0), (3, 4)),
        weights=(0.5, -0.2),
        length_scale=5,
    )
    expected = [2 * np.exp(0.5 - 0.2 * np.exp(-0.5)), 5 * np.exp(0.5 * np.exp(-0.5) - 0.2)]
    np.testing.assert_allclose(seconds(model, np.array([[0.0, 0.0], [3.0, 4.0]])), expected)


@given(scale=st.floats(0, 1e6), seed=st.integers(0, 5), kind=st.sampled_from(list(MODELS)))
def test_predictions_are_positive_and_finite_however_far_away(scale: float, seed: int, kind: str) -> None:
    strange = scale * np.random.default_rng(seed).random((20, len(NAMES)))
    predicted = seconds(MODELS[kind], strange)
    assert np.isfinite(predicted).all()
    assert predicted.min() >= 0.1 * ROWS.latency_s.min()


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_many_at_once_are_each_one_alone(noisy: PredictorInfo, count: int, seed: int) -> None:
    features = draw(count, seed)
    together = apply(noisy, features)
    for row in range(count):
        alone = apply(noisy, {name: values[row : row + 1] for name, values in features.items()})
        for all_of_it, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(all_of_it[row], one[0], rtol=1e-9)


def test_features_are_taken_by_name(noisy: PredictorInfo) -> None:
    """In whatever order they come, whatever else is told; one that is missing is an error."""
    features = draw(9, seed=3)
    shuffled = {"more": np.full(9, 1e9)} | {name: features[name] for name in reversed(NAMES)}
    for one, other in zip(apply(noisy, features), apply(noisy, shuffled), strict=True):
        np.testing.assert_array_equal(one, other)
    del shuffled["heads"]
    with pytest.raises(KeyError, match="heads"):
        apply(noisy, shuffled)


def test_the_interval_is_the_margin_widened_by_leverage(noisy: PredictorInfo) -> None:
    features = draw(50, seed=3)
    predicted = apply(noisy, features)
    width = noisy.margin * np.sqrt(1 + leverage(noisy.nearness, matrix(features)))
    np.testing.assert_allclose(predicted.high_s / predicted.latency_s - 1, width)
    np.testing.assert_allclose(predicted.latency_s / predicted.low_s - 1, width)
    assert predicted.low_s.min() > 0


@given(seed=st.integers(0, 2**32), steps=st.lists(st.floats(0, 20), min_size=2, max_size=6, unique=True))
def test_intervals_widen_with_distance(noisy: PredictorInfo, seed: int, steps: list[float]) -> None:
    """Away from the middle of the rows, in any direction in which they differ."""
    near = noisy.nearness
    direction = np.random.default_rng(seed).standard_normal(len(NAMES)) * near.scale
    points = np.array(near.mean) + np.sort(steps)[:, None] * direction
    predicted = apply(noisy, dict(zip(NAMES, points.T, strict=True)))
    width = predicted.high_s / predicted.latency_s
    assert np.all(np.diff(width) >= -1e-12)
    assert width[-1] > width[0] or np.ptp(steps) < 1e-3
    assert np.all(np.diff(predicted.extrapolated.astype(int)) >= 0)


def test_leverage_is_that_of_the_ridge_written_out() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (30, 4))
    near = nearness(rows)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    fresh = (np.array([[1.0, 2.0, 3.0, 4.0]]) - rows.mean(axis=0)) / rows.std(axis=0)
    expected = fresh @ np.linalg.solve(scaled.T @ scaled + np.eye(4), fresh.T)
    np.testing.assert_allclose(leverage(near, np.array([[1.0, 2.0, 3.0, 4.0]])), expected[0])
    furthest = leverage(near, rows).max()
    assert furthest < near.limit < 2 * furthest + 4 / 30


@pytest.mark.parametrize("times", [2, 5, 50])
def test_networks_far_away_are_flagged(times: int) -> None:
    near = nearness(make_rows(40).features)
    assert (leverage(near, times * matrix(draw(500, seed=7))) > near.limit).all()


def test_networks_of_the_same_space_are_hardly_ever_flagged() -> None:
    """With forty rows of it measured, fewer than one in a hundred, over ten draws of what is measured."""
    flagged = []
    for seed in range(10):
        near = nearness(make_rows(40, seed=seed).features)
        flagged.append(np.mean(leverage(near, matrix(draw(1000, seed=100 + seed))) > near.limit))
    assert np.mean(flagged) < 0.01
    assert max(flagged) < 0.03


def test_a_feature_that_never_differed_is_near_where_it_was_and_far_elsewhere() -> None:
    """A space narrowed to one depth must not flag all, and a network of ten times that depth must be flagged."""
    rows = np.column_stack([np.full(20, 6.0), np.random.default_rng(0).random(20), np.zeros(20)])
    near = nearness(rows)
    assert (leverage(near, rows) < near.limit).all()
    assert leverage(near, rows * [10, 1, 1]).min() > near.limit
    assert leverage(near, rows + np.array([0, 0, 1])).min() > near.limit


def test_the_predictor_flags_what_its_nearness_does(noisy: PredictorInfo) -> None:
    features = draw(50, seed=3)
    stretched = {name: values * np.where(np.arange(50) < 25, 1, 5) for name, values in features.items()}
    assert apply(noisy, stretched).extrapolated.tolist() == [False] * 25 + [True] * 25
