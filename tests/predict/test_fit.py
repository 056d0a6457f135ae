from __future__ import annotations

import itertools

import numpy as np
import pytest

from toolchain.arrays import Floats
from toolchain.errors import UsageError
from toolchain.predict import KINDS, MINIMUM_ROWS, Rows, apply, fit_predictor
from toolchain.predict import fit as fitting
from toolchain.predict.apply import leverage, nearness, seconds
from toolchain.predict.fit import COVERAGE, HeldOut, hold_out
from toolchain.predict.regression import fit_linear, folds
from toolchain.records import Model, PredictorInfo, decode_record, encode_record

from .made_device import (
    ABOUT,
    Law,
    added,
    bent,
    by_name,
    disturbed,
    draw,
    fit,
    fit_only,
    make_rows,
    mape,
    multiplied,
)


def test_a_latency_without_noise_is_found_exactly() -> None:
    every = make_rows(60)
    rows = every.part(np.sort(np.unique(every.latency_s.round(9), return_index=True)[1]))  # no two alike, so no ties
    info = fit(rows)
    fresh = draw(100, seed=1)
    np.testing.assert_allclose(apply(info, fresh).latency_s, added()(fresh), rtol=5e-3)
    assert info.error.kendall_tau == pytest.approx(1, abs=0.002)
    assert info.error.mape < 1e-3
    assert info.error.within_10pct == 1
    assert info.findings == ()


def test_noise_is_seen_through(noisy: PredictorInfo) -> None:
    """The predictor is nearer to the truth than the measurements it was fitted on."""
    fresh = draw(200, seed=2)
    assert mape(apply(noisy, fresh).latency_s, added()(fresh)) < 0.02
    assert 0.015 < noisy.error.mape < 0.045  # of held-out rows, whose own noise has a mean size of 0.024
    assert noisy.error.kendall_tau > 0.85


def test_the_held_out_error_is_that_of_rows_not_fitted(noisy: PredictorInfo, rows: Rows) -> None:
    """Another loop, by least squares on relative errors, leaving out one row at a time: about the same error."""
    errors = []
    for left_out in range(60):
        others = rows.part(np.arange(60) != left_out)
        relative = others.features / others.latency_s[:, None]
        coefficients, *_ = np.linalg.lstsq(relative, np.ones(59), rcond=1e-8)
        errors.append(abs(rows.features[left_out] @ coefficients / rows.latency_s[left_out] - 1))
    assert noisy.error.mape == pytest.approx(np.mean(errors), rel=0.25)
    assert noisy.error.mape > mape(apply(noisy, by_name(rows)).latency_s, rows.latency_s)


def test_no_row_is_judged_by_a_fit_that_has_seen_it(rows: Rows) -> None:
    """Each is left out of one fit of ten, and predicted by that one; the last fit sees them all."""
    seen: list[Floats] = []

    def spy(features: Floats, latency_s: Floats) -> Model:
        """Predicts 1 s, 2 s, ...: which fit it was."""
        seen.append(latency_s)
        return Model(
            kind="linear",
            mean=(0,) * features.shape[1],
            scale=(1,) * features.shape[1],
            intercept=len(seen),
            coefficients=(0,) * features.shape[1],
            fastest_s=1e-9,
        )

    info = fit_predictor(rows, ABOUT, {"spy": spy})
    assert len(seen) == 11
    np.testing.assert_array_equal(seen.pop(), rows.latency_s)
    for _, measured, guess in info.points:
        assert [measured in fitted for fitted in seen] == [number != guess for number in range(1, 11)]


def test_the_error_is_the_one_of_its_points(noisy: PredictorInfo, rows: Rows) -> None:
    measured, guessed = (np.array(one) for one in list(zip(*noisy.points, strict=True))[1:])
    assert tuple(name for name, _, _ in noisy.points) == rows.ids
    np.testing.assert_array_equal(measured, rows.latency_s)
    relative = np.abs(guessed / measured - 1)
    assert noisy.error.n == 60
    assert noisy.error.mape == pytest.approx(relative.mean())
    assert noisy.error.mape == noisy.compared[noisy.model.kind]
    assert noisy.error.worst == pytest.approx(relative.max())
    assert noisy.error.within_10pct == pytest.approx((relative <= 0.1).mean())
    pairs = list(itertools.combinations(range(60), 2))
    signs = [np.sign((measured[i] - measured[j]) * (guessed[i] - guessed[j])) for i, j in pairs]
    untied = np.sqrt(sum(guessed[i] != guessed[j] for i, j in pairs) / len(pairs))  # tau-b: the same network twice ties
    assert noisy.error.kendall_tau == pytest.approx(np.mean(signs) / untied)


def test_latencies_that_follow_nothing_are_not_predicted() -> None:
    """Shuffled, they cannot be known: an error computed on rows that were fitted would still look fine."""
    rows = make_rows(40)
    info = fit(rows._replace(latency_s=np.random.default_rng(3).permutation(rows.latency_s)))
    assert info.error.mape > 0.3
    assert abs(info.error.kendall_tau) < 0.4
    assert info.interval > 0.5


def test_the_interval_covers_what_it_says() -> None:
    covered = []
    for seed in range(5):
        info = fit_only(make_rows(60, noise=0.05, seed=seed))
        fresh = make_rows(500, noise=0.05, seed=100 + seed)
        predicted = apply(info, by_name(fresh))
        covered.append(np.mean((predicted.low_s <= fresh.latency_s) & (fresh.latency_s <= predicted.high_s)))
        assert info.coverage == COVERAGE == 0.9
    assert 0.85 < np.mean(covered) < 0.96


def test_the_margin_is_the_held_out_quantile_of_the_normalised_scores(rows: Rows) -> None:
    """By how much each held-out row is off, over how far it lies from the rows of the other folds."""
    info = fit_only(rows)
    scores = np.empty(60)
    for others, check in folds(rows.features, 10):
        far = leverage(nearness(rows.features[others]), rows.features[check])
        for row, distance in zip(check, far, strict=True):
            _, measured, guess = info.points[row]
            scores[row] = (max(measured / guess, guess / measured) - 1) / np.sqrt(1 + distance)
    assert info.margin == pytest.approx(sorted(scores)[55 - 1])  # ceil(61 * 0.9)
    typical = np.median(leverage(info.nearness, rows.features))
    assert info.interval == pytest.approx(info.margin * np.sqrt(1 + typical))


def test_where_few_rows_are_held_out_the_margin_is_the_worst_of_them() -> None:
    """Of nine, none is known to be the quantile that covers nine in ten."""
    rows = make_rows(MINIMUM_ROWS, noise=0.02)
    info = fit_only(rows)
    assert info.error.n == MINIMUM_ROWS
    _, measured, guesses, far = hold_out(rows, KINDS["linear"])
    ratio = np.maximum(measured / guesses, guesses / measured) - 1
    assert info.margin == pytest.approx((ratio / np.sqrt(1 + far)).max())


@pytest.mark.parametrize("count", [0, 1, MINIMUM_ROWS - 1])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=str(count)) as refusal:
        fit(make_rows(20).part(np.arange(count)))
    assert "mostool profile" in refusal.value.hint


@pytest.mark.parametrize("latency", [np.nan, 0.0, -1.0])
def test_a_latency_that_is_none_is_refused(latency: float) -> None:
    rows = make_rows(20)
    rows.latency_s[3] = latency
    with pytest.raises(UsageError, match="latency_s of row 3"):
        fit(rows)


@pytest.mark.parametrize("count", [12, 40])
def test_rows_all_of_one_architecture_do_not_break_it(count: int) -> None:
    one = make_rows(1)
    latency_s = 1e-3 * (1 + 0.01 * np.random.default_rng(0).random(count))
    info = fit(Rows(one.ids * count, one.names, np.repeat(one.features, count, axis=0), latency_s))
    predicted = apply(info, by_name(one))
    assert predicted.latency_s[0] == pytest.approx(1.005e-3, rel=0.01)
    assert not predicted.extrapolated[0]
    assert -1 <= info.error.kendall_tau <= 1
    assert decode_record(encode_record(info), PredictorInfo, "here") == info


def test_features_that_say_the_same_thing_twice_are_no_trouble() -> None:
    rows = make_rows(40)
    info = fit(
        rows._replace(
            names=(*rows.names, "copy", "none"),
            features=np.column_stack([rows.features, 3 * rows.features[:, 4], np.zeros(40)]),
        )
    )
    assert info.error.mape < 1e-2
    fresh = draw(50, seed=1)
    predicted = apply(info, fresh | {"copy": 3 * fresh["links"], "none": np.zeros(50)})
    assert mape(predicted.latency_s, added()(fresh)) < 1e-2


def test_the_unit_of_time_does_not_matter() -> None:
    rows = make_rows(12, noise=0.05)
    plain, scaled = fit(rows), fit(rows._replace(latency_s=1e5 * rows.latency_s))
    assert scaled.model.kind == plain.model.kind
    assert scaled.compared == pytest.approx(plain.compared, rel=0.02)
    assert scaled.interval == pytest.approx(plain.interval, rel=0.02)


def test_the_same_rows_give_the_same_predictor_and_it_keeps(noisy: PredictorInfo, rows: Rows) -> None:
    assert fit(rows) == noisy
    assert decode_record(encode_record(noisy), PredictorInfo, "here") == noisy


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_of_any_kind_keeps(kind: str) -> None:
    info = fit_only(make_rows(20, noise=0.03, law=bent), kind)
    assert info.model.kind == kind
    kept = decode_record(encode_record(info), PredictorInfo, "here")
    assert kept == info
    features = draw(5, seed=9)
    for one, other in zip(apply(kept, features), apply(info, features), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_says_whose_latencies_they_are(noisy: PredictorInfo) -> None:
    assert {name: getattr(noisy, name) for name in ABOUT._fields} == ABOUT._asdict()


# -- which kind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "count", "kinds"), [(multiplied, 60, {"log"}), (bent, 200, {"log", "process"})], ids=["multiplied", "bent"]
)
def test_a_device_whose_costs_do_not_add_up_gets_another_kind(law: Law, count: int, kinds: set[str]) -> None:
    info = fit(make_rows(count, noise=0.02, law=law))
    assert info.model.kind in kinds
    assert info.compared[info.model.kind] == min(info.compared.values()) == info.error.mape
    assert info.compared.keys() == KINDS.keys()
    fresh = draw(200, seed=7)
    assert mape(apply(info, fresh).latency_s, law(fresh)) < 0.25 * info.compared["linear"]


def test_a_device_whose_costs_add_up_keeps_the_linear_kind() -> None:
    """Another that wins by chance alone is not used: of five tables of noise at most one."""
    chosen = [fit(make_rows(40, noise=0.05, seed=seed)).model.kind for seed in range(5)]
    assert chosen.count("linear") >= 4


def held_out(gained: float, spread: float) -> HeldOut:
    """Errors of 30 % of a hundred rows, less what is gained on the average, by a spread about it."""
    errors = 0.3 - gained - spread * np.tile([1.0, -1.0], 50)
    return HeldOut(tuple(map(str, range(100))), np.ones(100), 1 + errors, np.zeros(100))


@pytest.mark.parametrize(
    ("others", "winner"),
    [
        ({"other": (0.0, 0.0)}, "first"),
        ({"other": (-0.05, 0.01)}, "first"),
        ({"other": (0.01, 0.1)}, "first"),  # one standard error of the difference
        ({"other": (0.03, 0.1)}, "other"),  # three
        ({"other": (0.03, 0.1), "best": (0.06, 0.1)}, "best"),
        ({"other": (0.03, 0.01), "wild": (0.04, 0.25)}, "other"),  # a larger gain that may be chance
        ({"best": (0.06, 0.1), "other": (0.03, 0.01)}, "best"),
    ],
)
def test_the_first_kind_is_kept_unless_another_wins_by_more_than_chance(
    others: dict[str, tuple[float, float]], winner: str
) -> None:
    tried = {"first": held_out(0, 0)} | {name: held_out(*one) for name, one in others.items()}
    assert fitting._winner(tried) == winner


# -- with rows that are not clean ------------------------------------------------------------------------------------


def test_a_throttled_session_is_neither_fitted_nor_judged_by() -> None:
    rows = make_rows(60, noise=0.02)
    info = fit_only(disturbed(rows, slice(0, 15), 1.4))
    (finding,) = info.findings
    assert (finding.kind, finding.first, finding.last) == ("outlier-block", 0, 14)
    assert tuple(name for name, _, _ in info.points) == rows.ids[15:]
    assert info.error.n == 45
    fresh = draw(200, seed=5)
    assert mape(apply(info, fresh).latency_s, added()(fresh)) < 0.015


def test_a_corrected_session_is_judged_as_it_was_measured() -> None:
    """The fit is that of the others' level; whether a device is at either level next time is part of the error."""
    rows = make_rows(60, noise=0.01)
    shifted = disturbed(rows, slice(40, 60), 1.08)
    info = fit_only(shifted)
    assert [one.done for one in info.findings] == ["corrected"]
    np.testing.assert_array_equal([measured for _, measured, _ in info.points], shifted.latency_s)
    guesses = np.array([guess for _, _, guess in info.points])
    off = np.median(shifted.latency_s[40:] / guesses[40:])
    assert off == pytest.approx(1.08, abs=0.02)
    assert info.error.mape == pytest.approx((40 * 0.01 + 20 * 0.08) / 60, rel=0.35)
    assert info.interval > 0.07
    fresh = draw(200, seed=5)
    assert mape(apply(info, fresh).latency_s, added()(fresh)) < 0.015


def test_single_outliers_are_not_fitted_but_judged_by() -> None:
    bad = disturbed(make_rows(60, noise=0.02), [7, 31, 50], 1.5)
    info = fit_only(bad)
    assert sorted(one.first for one in info.findings) == [7, 31, 50]
    assert tuple(name for name, _, _ in info.points) == bad.ids
    assert info.error.worst == pytest.approx(1 - 1 / 1.5, abs=0.05)
    assert mape(apply(info, by_name(bad)).latency_s, added()(by_name(bad))) < 0.02


@pytest.mark.parametrize("slip", [0.3, 0.6, 1.5, 3.0])
def test_a_few_disturbed_rows_do_not_bend_the_others(slip: float) -> None:
    """Rows that were clocked too fast no more than those clocked too slow."""
    for seed in range(3):
        rows = make_rows(40, noise=0.02, seed=seed)
        disturbed = np.random.default_rng(seed).choice(40, 3, replace=False)
        latency_s = rows.latency_s.copy()
        latency_s[disturbed] *= slip
        model = fit_linear(rows.features, latency_s)
        fresh = make_rows(200, seed=70 + seed)
        assert np.mean(np.abs(seconds(model, fresh.features) / fresh.latency_s - 1)) < 0.03


def test_a_network_measured_again_is_not_foretold_by_itself() -> None:
    """Twenty networks, three times each: the error told is that of networks nobody measured."""
    once = make_rows(20, noise=0.0, seed=3)
    rng = np.random.default_rng(0)
    again = np.tile(np.arange(20), 3)
    rows = once.part(again)
    rows = rows._replace(latency_s=rows.latency_s * np.exp(0.05 * rng.standard_normal(60)))
    info = fit(rows)
    fresh = make_rows(200, seed=71)
    truth = np.mean(np.abs(seconds(info.model, fresh.features) / fresh.latency_s - 1))
    assert truth < 1.3 * info.error.mape
