from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.predict import Row, fit_predictor, predict_s
from toolchain.predict.linear import COVERAGE, MINIMUM_ROWS
from toolchain.records import Environment, PredictorInfo, Workload, decode_record, encode_record
from toolchain.space import Architecture

SPACE = tiny.resolved()
WORKLOAD = Workload(batch=2, sequence_length=12)
ENVIRONMENT = Environment(
    machine="x86_64",
    cpu="made",
    cores=2,
    memory_bytes=1 << 30,
    os="Linux",
    kernel="6",
    governor="none",
    python="3.11",
    engine="onnxruntime",
    engine_version="1",
    provider="CPUExecutionProvider",
)
SECONDS = {"pass": 2e-4, "layers": 5e-5, "attention": 2e-5, "feed_forward": 1e-6, "links": 5e-7, "idle": 0.0}
"""What a made-up device takes for each kind of work of a made-up family."""


def features_of(architecture: Architecture) -> dict[str, float]:
    hidden, heads, ffn = (architecture.layers(name) for name in ("hidden", "heads", "ffn"))
    return {
        "pass": 1.0,
        "layers": float(len(hidden)),
        "attention": float(sum(heads)),
        "feed_forward": float(sum(2 * one * other for one, other in zip(hidden, ffn, strict=True))),
        "links": float(sum(one * other for one, other in itertools.pairwise((24, *hidden)))),
        "idle": float(architecture.number("embedding")),
    }


def true_s(features: dict[str, float]) -> float:
    return sum(seconds * features[name] for name, seconds in SECONDS.items())


def make_rows(count: int, noise: float = 0.0, seed: int = 0) -> list[Row]:
    """Measurements on the made-up device, with a relative error of standard deviation `noise`."""
    rng = np.random.default_rng(seed)
    rows = []
    for architecture in tiny.samples(SPACE, count, seed):
        features = features_of(architecture)
        rows.append(Row(architecture.id, features, true_s(features) * float(np.exp(noise * rng.standard_normal()))))
    return rows


def fit(rows: Sequence[Row]) -> PredictorInfo:
    return fit_predictor(
        rows, target="made", workload=WORKLOAD, space=SPACE, table_sha256="0" * 64, environment=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def noisy() -> PredictorInfo:
    return fit(make_rows(60, noise=0.03))


def test_a_latency_without_noise_is_found_exactly() -> None:
    info = fit(list({round(row.latency_s, 9): row for row in make_rows(60)}.values()))  # no two alike, so no ties
    fresh = make_rows(100, seed=1)
    predicted = predict_s(info, [row.features for row in fresh])
    np.testing.assert_allclose(predicted, [row.latency_s for row in fresh], rtol=1e-3)
    assert info.error.kendall_tau == 1
    assert info.error.mape < 1e-3
    assert info.error.within_10pct == 1


def test_noise_is_seen_through(noisy: PredictorInfo) -> None:
    """The predictor is nearer to the truth than the measurements it was fitted on."""
    fresh = make_rows(200, seed=2)
    truth = np.array([row.latency_s for row in fresh])
    error = np.abs(predict_s(noisy, [row.features for row in fresh]) / truth - 1)
    assert error.mean() < 0.02
    assert 0.015 < noisy.error.mape < 0.045  # of held-out rows, whose own noise has a mean size of 0.024
    assert noisy.error.kendall_tau > 0.85


def test_the_held_out_error_is_that_of_rows_not_fitted(noisy: PredictorInfo) -> None:
    """Another loop, by least squares on relative errors, leaving out one row at a time: about the same error."""
    rows = make_rows(60, noise=0.03)
    errors = []
    for left_out in rows:
        others = [row for row in rows if row is not left_out]
        matrix = np.array([[row.features[name] / row.latency_s for name in noisy.features] for row in others])
        coefficients, *_ = np.linalg.lstsq(matrix, np.ones(len(others)), rcond=1e-8)
        guess = float(np.array([left_out.features[name] for name in noisy.features]) @ coefficients)
        errors.append(abs(guess / left_out.latency_s - 1))
    assert noisy.error.mape == pytest.approx(np.mean(errors), rel=0.25)
    in_sample = predict_s(noisy, [row.features for row in rows])
    assert noisy.error.mape > np.mean([abs(one / row.latency_s - 1) for one, row in zip(in_sample, rows, strict=True)])


def test_the_error_is_the_one_of_its_points(noisy: PredictorInfo) -> None:
    rows = make_rows(60, noise=0.03)
    measured = np.array([one for _, one, _ in noisy.points])
    guessed = np.array([one for _, _, one in noisy.points])
    assert [name for name, _, _ in noisy.points] == [row.id for row in rows]
    assert measured.tolist() == [row.latency_s for row in rows]
    relative = np.abs(guessed / measured - 1)
    assert noisy.error.n == 60
    assert noisy.error.mape == pytest.approx(relative.mean())
    assert noisy.error.worst == pytest.approx(relative.max())
    assert noisy.error.within_10pct == pytest.approx((relative <= 0.1).mean())
    signs = [
        np.sign((measured[i] - measured[j]) * (guessed[i] - guessed[j]))
        for i, j in itertools.combinations(range(60), 2)
    ]
    assert noisy.error.kendall_tau == pytest.approx(np.mean(signs))


def test_latencies_that_follow_nothing_are_not_predicted() -> None:
    """Shuffled, they cannot be known: an error computed on rows that were fitted would still look fine."""
    rows = make_rows(40)
    shuffled = np.random.default_rng(3).permutation([row.latency_s for row in rows])
    info = fit([row._replace(latency_s=float(one)) for row, one in zip(rows, shuffled, strict=True)])
    assert info.error.mape > 0.3
    assert abs(info.error.kendall_tau) < 0.4
    assert info.interval > 0.5


def test_the_interval_covers_what_it_says() -> None:
    covered = []
    for seed in range(3):
        info = fit(make_rows(60, noise=0.05, seed=seed))
        fresh = make_rows(500, noise=0.05, seed=100 + seed)
        predicted = predict_s(info, [row.features for row in fresh])
        latency = np.array([row.latency_s for row in fresh])
        covered.append(np.mean(np.abs(latency - predicted) <= info.interval * predicted))
        assert info.coverage == COVERAGE
    assert 0.85 < np.mean(covered) < 0.96


def test_the_interval_is_the_held_out_quantile(noisy: PredictorInfo) -> None:
    relative = sorted(abs(measured - guessed) / guessed for _, measured, guessed in noisy.points)
    assert noisy.interval == relative[55 - 1]  # ceil(61 * 0.9)


@pytest.mark.parametrize("count", [0, 1, MINIMUM_ROWS - 1])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=str(count)) as refusal:
        fit(make_rows(20)[:count])
    assert "mostool profile" in refusal.value.hint


def test_the_fewest_rows_are_enough() -> None:
    info = fit(make_rows(MINIMUM_ROWS, noise=0.02))
    assert info.error.n == MINIMUM_ROWS
    assert np.isfinite(info.error.mape)


def test_a_table_of_one_and_the_same_latency_is_refused() -> None:
    with pytest.raises(UsageError, match="same time"):
        fit([row._replace(latency_s=1e-3) for row in make_rows(20)])


def test_rows_all_of_one_architecture_do_not_break_it() -> None:
    row = make_rows(1)[0]
    rng = np.random.default_rng(0)
    info = fit([row._replace(latency_s=1e-3 * (1 + 0.01 * float(rng.random()))) for _ in range(12)])
    assert predict_s(info, [row.features])[0] == pytest.approx(1e-3, rel=0.02)
    assert -1 <= info.error.kendall_tau <= 1


def test_features_that_say_the_same_thing_twice_are_no_trouble() -> None:
    """In a space of one depth `layers` is a multiple of `pass`, and others are absent altogether."""
    rows = [
        Row(row.id, row.features | {"layers": 3 * row.features["pass"], "copy": row.features["links"], "none": 0.0}, s)
        for row in make_rows(40)
        for s in (row.latency_s,)
    ]
    info = fit([row._replace(latency_s=true_s(row.features)) for row in rows])
    assert info.error.mape < 1e-2


@given(scale=st.floats(0, 1e4), seed=st.integers(0, 5))
def test_predictions_are_positive_however_far_away(noisy: PredictorInfo, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    strange = {name: scale * float(rng.random()) for name in noisy.features}
    (predicted,) = predict_s(noisy, [strange])
    assert predicted >= 0.1 * min(measured for _, measured, _ in noisy.points)


def test_the_unit_of_time_does_not_matter() -> None:
    rows = make_rows(12, noise=0.05)
    plain = fit(rows)
    scaled = fit([row._replace(latency_s=1e5 * row.latency_s) for row in rows])
    assert scaled.error.mape == pytest.approx(plain.error.mape, rel=1e-6)
    assert scaled.interval == pytest.approx(plain.interval, rel=1e-6)


def test_the_same_rows_give_the_same_predictor_and_it_keeps(noisy: PredictorInfo) -> None:
    assert fit(make_rows(60, noise=0.03)) == noisy
    kept = decode_record(encode_record(noisy), PredictorInfo, "here")
    features = [row.features for row in make_rows(5, seed=9)]
    np.testing.assert_array_equal(predict_s(kept, features), predict_s(noisy, features))
