"""A unit that cannot be true is asked about, before it spoils a predictor by a factor of a thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.errors import UsageError
from toolchain.records import Unit
from toolchain.tables import check_mixed, check_unit

FILE = Path("their.csv")


def asked(median_s: float, unit: Unit, **known: float) -> str:
    """The hint of the refusal."""
    with pytest.raises(UsageError, match=r"their\.csv: can .* be (milli|micro)?seconds") as caught:
        check_unit(FILE, [median_s / 2, median_s, median_s * 2], unit, **known)
    assert caught.value.why
    return caught.value.hint


@pytest.mark.parametrize(
    ("median_s", "unit", "right"),
    [(3e-5, "ms", "s"), (40.0, "s", "ms"), (3e-8, "us", "s"), (1e-5, "us", "ms"), (3e4, "s", "us"), (30.0, "ms", "us")],
)
def test_a_thousand_times_what_the_device_took_before_is_asked_about(median_s: float, unit: Unit, right: str) -> None:
    hint = asked(median_s, unit, like_s=0.02)
    assert f"say --unit {right};" in hint
    assert f"all the same, say --unit {unit}" in hint


@pytest.mark.parametrize("median_s", [0.02, 0.0002, 2.0, 0.1])
def test_what_is_only_faster_or_slower_is_not(median_s: float) -> None:
    check_unit(FILE, [median_s], "ms", like_s=0.02)


def test_no_device_computes_so_fast_or_so_slowly() -> None:
    assert "say --unit s;" in asked(2e-4, "ms", work_macs=1e10)
    assert "say --unit ms" in asked(2e4, "s", work_macs=1e9)
    check_unit(FILE, [0.2], "ms", work_macs=1e10)
    check_unit(FILE, [1e-3], "ms", work_macs=1e4)  # a small network takes a little whatever it computes
    check_unit(FILE, [0.02], "ms", work_macs=0.0)


def test_where_nothing_is_known_nothing_is_asked() -> None:
    check_unit(FILE, [1e-5, 1e5], "s")


def test_a_slip_that_no_unit_explains_is_still_asked_about() -> None:
    assert asked(20.0, "us", like_s=0.02).startswith("which unit are they in?")


@pytest.mark.parametrize(("median_s", "work_macs"), [(5.8, 1.3e9), (0.27, 1.3e9), (0.17, 1.3e9)])
def test_what_was_really_measured_is_asked_about_in_no_unit_but_a_wrong_one(median_s: float, work_macs: float) -> None:
    """Like HAT's Pi, Xeon and Titan."""
    check_unit(FILE, [median_s], "s", work_macs=work_macs)
    asked(median_s / 1e3, "ms", work_macs=work_macs)
    asked(median_s * 1e3, "s", work_macs=work_macs)


def test_rows_in_another_unit_than_the_others_are_named() -> None:
    work = [1e9, 2e9, 3e9, 4e9]
    check_mixed(FILE, [0.1, 0.2, 0.3, 0.4], work)
    check_mixed(FILE, [0.1, 2.0, 0.3, 0.04], work)
    with pytest.raises(UsageError, match="row 3") as refusal:
        check_mixed(FILE, [0.1, 0.2, 300.0, 0.4], work)
    assert "mixed" in refusal.value.why
