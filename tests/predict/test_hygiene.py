from __future__ import annotations

import numpy as np
import pytest

from toolchain.predict import FEWEST_ROWS, Rows, inspect
from toolchain.records import Finding

from .made_device import added, by_name, disturbed, make_rows


def of_kind(findings: tuple[Finding, ...], kind: str) -> list[Finding]:
    return [one for one in findings if one.kind == kind]


@pytest.mark.parametrize("times", [1.4, 0.7])
@pytest.mark.parametrize(("first", "end"), [(0, 15), (20, 32), (48, 60)])
def test_a_throttled_session_is_found_and_left_out(first: int, end: int, times: float) -> None:
    for seed in range(3):
        found = inspect(disturbed(make_rows(60, noise=0.03, seed=seed), slice(first, end), times))
        (block,) = of_kind(found.findings, "outlier-block")
        assert abs(block.first - first) <= 2
        assert abs(block.last - (end - 1)) <= 2
        assert block.ratio == pytest.approx(times, rel=0.05)
        assert block.done == "left out"
        inside = np.isin(np.arange(60), np.arange(block.first, block.last + 1))
        np.testing.assert_array_equal(found.judged, ~inside)
        assert not found.fitted[inside].any()
        assert not of_kind(found.findings, "shift")


def test_a_session_a_little_off_is_corrected() -> None:
    for seed in range(5):
        found = inspect(disturbed(make_rows(60, noise=0.01, seed=seed), slice(40, 60), 1.08))
        (shift,) = of_kind(found.findings, "shift")
        assert shift.done == "corrected"
        assert abs(shift.first - 40) <= 2
        assert shift.last == 59
        assert shift.ratio == pytest.approx(1.08, abs=0.02)
        inside = np.isin(np.arange(60), np.arange(shift.first, 60))
        np.testing.assert_array_equal(found.factors, np.where(inside, shift.ratio, 1.0))
        assert found.judged.all()


def test_a_session_hardly_off_is_told_and_left() -> None:
    """It is within what noise hides, so it is not always found; never is anything done about it."""
    told = 0
    for seed in range(6):
        found = inspect(disturbed(make_rows(60, noise=0.01, seed=seed), slice(40, 60), 1.03))
        told += len(of_kind(found.findings, "shift"))
        assert all(one.done == "told" for one in found.findings)
        assert np.all(found.factors == 1)
        assert found.judged.all()
        assert found.fitted.all()
    assert told >= 4


def test_it_is_the_order_that_tells_a_session() -> None:
    """The same rows at +8 %, strewn among the others, are noise."""
    where = np.random.default_rng(0).permutation(60)[:20]
    found = inspect(disturbed(make_rows(60, noise=0.01), where.tolist(), 1.08))
    assert not of_kind(found.findings, "shift")
    assert not of_kind(found.findings, "outlier-block")
    assert np.all(found.factors == 1)


@pytest.mark.parametrize("times", [1.5, 0.6])
def test_single_rows_far_off_are_left_out_of_the_fit_alone(times: float) -> None:
    for seed in range(3):
        found = inspect(disturbed(make_rows(60, noise=0.02, seed=seed), [7, 31, 50], times))
        assert [(one.kind, one.first, one.last) for one in found.findings] == [
            ("outlier", row, row) for row in (7, 31, 50)
        ]
        assert [one.ratio for one in found.findings] == pytest.approx([times] * 3, rel=0.1)
        assert np.flatnonzero(~found.fitted).tolist() == [7, 31, 50]
        assert found.judged.all()


def test_a_throttled_session_does_not_hide_a_single_row() -> None:
    rows = disturbed(disturbed(make_rows(60, noise=0.02), slice(0, 15), 1.4), [40], 1.5)
    findings = inspect(rows).findings
    assert [(one.kind, one.first, one.last) for one in findings] == [("outlier-block", 0, 14), ("outlier", 40, 40)]


def drifting(rows: Rows, seed: int) -> Rows:
    """Each row's error is seven tenths that of the row before, and some of its own."""
    own = 0.03 * np.random.default_rng(seed).standard_normal(len(rows.ids))
    errors = np.zeros(len(own))
    for row in range(1, len(own)):
        errors[row] = 0.7 * errors[row - 1] + own[row]
    return rows._replace(latency_s=added()(by_name(rows)) * np.exp(errors))


def test_neighbours_that_err_alike_are_a_drift() -> None:
    found = [inspect(drifting(make_rows(100, seed=seed), seed)).findings for seed in range(5)]
    drifts = [one for findings in found for one in of_kind(findings, "drift")]
    assert len(drifts) >= 4
    for one in drifts:
        assert (one.first, one.last, one.done) == (0, 99, "told")
        assert 1.01 < one.ratio < 1.05  # the errors' own spread is 4 %


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_clean_rows_give_no_finding(noise: float) -> None:
    """Of twenty tables at most one has a stray."""
    found = [inspect(make_rows(60, noise=noise, seed=seed)) for seed in range(20)]
    assert sum(bool(one.findings) for one in found) <= 1


def test_rows_without_any_noise_give_no_finding() -> None:
    assert inspect(make_rows(60)).findings == ()


def test_few_rows_say_nothing_about_their_order() -> None:
    rows = disturbed(make_rows(FEWEST_ROWS, noise=0.02), slice(0, 10), 1.4)
    assert inspect(rows).findings
    found = inspect(rows.part(np.arange(FEWEST_ROWS - 1)))
    assert found.findings == ()
    assert found.judged.all()
    assert found.fitted.all()
    assert np.all(found.factors == 1)


def test_where_most_rows_would_go_the_fit_is_what_is_wrong() -> None:
    """Latencies that no feature explains, half of them at another level each few rows: nothing is left out."""
    rng = np.random.default_rng(0)
    rows = make_rows(60)
    levels = np.repeat(rng.choice([0.2, 1.0, 5.0], 6), 10)
    found = inspect(rows._replace(latency_s=1e-3 * levels * np.exp(0.01 * rng.standard_normal(60))))
    assert found.judged.sum() >= 30


def test_a_table_of_several_levels_is_told_of_and_all_of_it_kept() -> None:
    """No level is the usual one: nothing can be left out, but nothing is called clean either."""
    rows = disturbed(disturbed(make_rows(100, noise=0.02), slice(40, 100), 1.3), slice(70, 100), 1.3)
    found = inspect(rows)
    assert of_kind(found.findings, "outlier-block")
    assert found.fitted.sum() >= 40


def test_a_table_that_slows_down_all_the_time_is_told_of() -> None:
    rows = make_rows(100, noise=0.02)
    found = inspect(rows._replace(latency_s=rows.latency_s * np.linspace(1.0, 1.5, 100)))
    assert found.findings
