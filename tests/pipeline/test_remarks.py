"""What a user is told beside the figures: a predictor that is no good, a table that needs a word."""

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from made_project import Made, call, require

from toolchain.pipeline.remarks import remarks_on
from toolchain.pipeline.search import _doubts
from toolchain.profiling import read_table
from toolchain.records import Conditions, HeldOutError, Measurement, PredictorInfo, TableInfo, Timed, read_record


@pytest.fixture(scope="module")
def header(made: Made) -> tuple[TableInfo, list[Measurement]]:
    return read_table(made.table)


@pytest.mark.parametrize(
    ("mape", "tau", "told"), [(0.02, 0.97, False), (0.64, 0.56, True), (0.14, 0.7, True), (0.2, 0.95, True)]
)
def test_a_predictor_that_is_no_good_is_said_to_be(made: Made, mape: float, tau: float, told: bool) -> None:
    fitted = read_record(made.table / "predictor.json", PredictorInfo)
    error = HeldOutError(n=10, mape=mape, within_10pct=0.5, kendall_tau=tau, worst=1.0)
    assert bool(_doubts(msgspec.structs.replace(fitted, error=error))) is told


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"threads": 64}, "wait for each other"),
        ({"thermal": "sustained"}, "sustained load"),
        ({}, ""),
    ],
)
def test_a_table_says_what_its_reader_should_know(
    header: tuple[TableInfo, list[Measurement]], change: dict[str, object], word: str
) -> None:
    info, _ = header
    said = " ".join(remarks_on(msgspec.structs.replace(info, **change), []))
    assert (word in said) if word else not said


def test_what_the_sensors_saw_is_told(header: tuple[TableInfo, list[Measurement]]) -> None:
    info, rows = header
    conditions = Conditions(throttled_start=0x50000, rounds_discarded=2, cooled_s=12.0, load_per_core=1.5)
    outcome = rows[0].outcome
    assert isinstance(outcome, Timed)
    row = msgspec.structs.replace(
        rows[0], outcome=msgspec.structs.replace(outcome, conditions=conditions), started_at=dt.datetime.now(dt.UTC)
    )
    said = " ".join(remarks_on(info, [row]))
    for words in ("up to 2 rounds", "12 s of waiting", "short of voltage before", "up to 1.5 processes"):
        assert words in said


def test_a_device_that_nobody_knows_can_be_added(made: Made) -> None:
    told = call(made.root, "profile", "--device", "newpi")
    assert "mostool devices add NAME --host HOST" in told.err


def test_this_machine_is_not_measured_with_others(made: Made, tmp_path: Path) -> None:
    told = call(made.root, "profile", "--device", "quick", "--device", "cpu")
    assert told.code == 2
    assert "two commands" in told.err
    assert require(call(made.root, "profile", "--device", "quick", "--device", "quick", "--n", "10")).code == 0
