from __future__ import annotations

import numpy as np
import pytest

from toolchain.errors import UsageError
from toolchain.predict import MINIMUM_ROWS_TRANSFERRED, Known, apply, fit_with
from toolchain.predict.apply import seconds
from toolchain.predict.regression import fit_linear
from toolchain.records import PredictorInfo, decode_record, encode_record

from .made_device import ABOUT, COSTS, added, draw, make_rows, mape, matrix

KNOWN = Known("old", "1" * 64, make_rows(80, noise=0.03, seed=50))
FRESH = draw(300, seed=999)
LIKE_COSTS = COSTS | {"heads": 1.5 * COSTS["heads"]}


def like(features: dict[str, np.ndarray]) -> np.ndarray:
    """A device two and a half times as slow, on which heads are dearer besides."""
    return 2.5 * added(LIKE_COSTS)(features)


unlike = added({"pass": 1e-4, "idle": 1e-4})
"""A device on which only that takes time which took none on the known one."""


@pytest.fixture(scope="module")
def leaning() -> PredictorInfo:
    tried = (fit_with(make_rows(8, noise=0.05, seed=seed, law=like), ABOUT, KNOWN) for seed in range(8))
    return next(info for info in tried if info.transfer and info.transfer.used)


def test_a_known_device_makes_up_for_rows() -> None:
    """Over eight tables of eight rows: where it leans the error is a fifth less, and none is much worse."""
    alone, together = [], []
    for seed in range(8):
        rows = make_rows(8, noise=0.05, seed=seed, law=like)
        info = fit_with(rows, ABOUT, KNOWN)
        alone.append(mape(seconds(fit_linear(rows.features, rows.latency_s), matrix(FRESH)), like(FRESH)))
        together.append(mape(apply(info, FRESH).latency_s, like(FRESH)))
    used = [one for one in range(8) if together[one] != alone[one]]
    assert len(used) >= 2
    assert np.mean([together[one] for one in used]) < 0.8 * np.mean([alone[one] for one in used])
    assert max(np.array(together) / np.array(alone)) < 1.3


def test_the_record_tells_both_errors(leaning: PredictorInfo) -> None:
    assert leaning.transfer is not None
    assert (leaning.transfer.target, leaning.transfer.table_sha256) == (KNOWN.target, KNOWN.table_sha256)
    assert leaning.compared.keys() == {"alone", "scaled", "corrected", "together"}
    assert leaning.transfer.alone == leaning.compared["alone"]
    assert leaning.transfer.together == leaning.compared["together"]
    assert leaning.error.mape == leaning.transfer.together < leaning.transfer.alone
    assert leaning.error.n == len(leaning.points) == 8
    assert decode_record(encode_record(leaning), PredictorInfo, "here") == leaning


def test_a_device_that_is_the_known_one_stretched_needs_four_rows() -> None:
    rows = make_rows(MINIMUM_ROWS_TRANSFERRED, law=lambda features: 3 * added()(features))
    info = fit_with(rows, ABOUT, KNOWN)
    assert info.transfer is not None
    assert info.transfer.used
    assert mape(apply(info, FRESH).latency_s, 3 * added()(FRESH)) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_transfer_that_hurts_is_refused(seed: int) -> None:
    rows = make_rows(12, noise=0.02, seed=seed, law=unlike)
    info = fit_with(rows, ABOUT, KNOWN)
    assert info.transfer is not None
    assert not info.transfer.used
    assert info.transfer.alone == info.error.mape
    assert info.model == fit_linear(rows.features, rows.latency_s)
    assert mape(apply(info, FRESH).latency_s, unlike(FRESH)) < 0.05


def test_what_follows_nothing_is_known_to_be_no_better_than_alone_or_as_bad() -> None:
    """The error told is a held-out one with transfer too: latencies drawn by chance are not predicted."""
    rows = make_rows(12)
    shuffled = rows._replace(latency_s=np.random.default_rng(1).permutation(rows.latency_s))
    info = fit_with(shuffled, ABOUT, KNOWN)
    assert info.error.mape > 0.3


@pytest.mark.parametrize("count", [0, MINIMUM_ROWS_TRANSFERRED - 1])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"^{count} measured") as refusal:
        fit_with(make_rows(8).part(np.arange(count)), ABOUT, KNOWN)
    assert str(MINIMUM_ROWS_TRANSFERRED) in refusal.value.why


def test_the_unit_of_time_does_not_matter() -> None:
    rows = make_rows(8, noise=0.05, law=like)
    plain = fit_with(rows, ABOUT, KNOWN)
    scaled = fit_with(rows._replace(latency_s=2.0**13 * rows.latency_s), ABOUT, KNOWN)
    assert scaled.compared == pytest.approx(plain.compared, rel=1e-6)
    np.testing.assert_allclose(apply(scaled, FRESH).latency_s, 2.0**13 * apply(plain, FRESH).latency_s, rtol=1e-6)


def test_a_device_with_rows_enough_stands_alone_and_is_looked_through() -> None:
    info = fit_with(make_rows(40, noise=0.02, law=like), ABOUT, KNOWN)
    assert info.transfer is None
    assert info.error.n == 40


def test_few_rows_promise_no_more_than_they_can() -> None:
    """The worst of four held-out errors covers four in five."""
    assert fit_with(make_rows(4, law=like), ABOUT, KNOWN).coverage == 0.8
    assert fit_with(make_rows(12, law=like), ABOUT, KNOWN).coverage == 0.9
