from __future__ import annotations

import numpy as np
import pytest

from toolchain.errors import UsageError
from toolchain.predict import MINIMUM_ROWS, MINIMUM_ROWS_TRANSFERRED, Rows, check_rows

from .made_device import draw, make_rows


def test_features_become_columns_in_their_order() -> None:
    features = draw(5, seed=0)
    rows = Rows.of(tuple("abcde"), features, np.arange(1.0, 6))
    assert rows.names == tuple(features)
    for column, values in zip(rows.features.T, features.values(), strict=True):
        np.testing.assert_array_equal(column, values)


@pytest.mark.parametrize(
    "which", [np.array([3, 0], dtype=np.intp), np.array([False, True, False, True, True])], ids=["numbers", "mask"]
)
def test_a_part_keeps_ids_features_and_latencies_together(which: np.ndarray) -> None:
    rows = make_rows(5)
    at = which if which.dtype == np.intp else np.flatnonzero(which)
    some = rows.part(which)
    assert some.ids == tuple(rows.ids[row] for row in at)
    assert some.names == rows.names
    np.testing.assert_array_equal(some.features, rows.features[at])
    np.testing.assert_array_equal(some.latency_s, rows.latency_s[at])


@pytest.mark.parametrize("count", [0, 1, MINIMUM_ROWS - 1])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=str(count)) as refusal:
        check_rows(make_rows(20).part(np.arange(count)))
    assert str(MINIMUM_ROWS) in refusal.value.why
    assert "mostool profile" in refusal.value.hint
    assert "--transfer" in refusal.value.hint


def test_how_many_are_enough_is_the_callers_to_say() -> None:
    few = make_rows(MINIMUM_ROWS_TRANSFERRED)
    check_rows(few, MINIMUM_ROWS_TRANSFERRED)
    check_rows(make_rows(MINIMUM_ROWS))
    with pytest.raises(UsageError, match=str(MINIMUM_ROWS_TRANSFERRED)):
        check_rows(few)


@pytest.mark.parametrize("latency", [np.nan, np.inf, -np.inf, 0.0, -1e-3])
def test_a_latency_that_is_none_is_refused_and_its_row_named(latency: float) -> None:
    rows = make_rows(12)
    rows.latency_s[[7, 9]] = latency
    with pytest.raises(UsageError, match="latency_s of row 7") as refusal:
        check_rows(rows)
    assert rows.ids[7] in str(refusal.value)
    assert str(latency) in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_no_number_is_refused_and_its_row_named(value: float) -> None:
    rows = make_rows(12)
    rows.features[4, 2] = value
    with pytest.raises(UsageError, match=f"a feature of row 4.*{rows.ids[4]}"):
        check_rows(rows)


def test_a_table_of_one_and_the_same_latency_is_refused() -> None:
    rows = make_rows(20)
    with pytest.raises(UsageError, match=r"the same.*latency_s") as refusal:
        check_rows(rows._replace(latency_s=np.full(20, 1e-3)))
    assert "profile --fresh" in refusal.value.hint
