"""What is written is read back as the same table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.records import ImportedRow
from toolchain.tables import read_file, write_table
from toolchain.tables.writing import Cells

from .made_tables import SPACE

HEADER = {"device": "a, board", "precision": "fp32", "threads": "4", "batch": "1", "sequence_length": "16"}
ENDINGS = (".csv", ".jsonl", ".parquet")
COLUMNS: dict[str, Cells] = {
    "id": ["one", "two"],
    "embedding": [16, 24.5],
    "depth": [1, 2],
    "hidden_1": [8, 12.25],
    "hidden_2": [None, 16],
    "hidden_3": [None, None],
    "latency_s": [0.1, 1 / 3],
    "half_width_s": [0.001, 0.002],
    "n": [30, 40],
}
LATENCIES = st.lists(st.floats(1e-4, 100), min_size=2, max_size=5, unique=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_written_table_reads_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{ending}"
    write_table(path, HEADER, COLUMNS)
    read = read_file(path, SPACE)
    assert read.told == HEADER
    assert read.unit == "s"
    assert read.rows == [
        ImportedRow(axes={"embedding": 16, "depth": 1, "hidden": (8,), "heads": (2,)}, latency_s=0.1),
        ImportedRow(axes={"embedding": 24.5, "depth": 2, "hidden": (12.25, 16), "heads": (2, 2)}, latency_s=1 / 3),
    ]
    assert not any("not read" in note for note in read.notes)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@given(latencies=LATENCIES)
def test_latencies_keep_every_digit(
    tmp_path_factory: pytest.TempPathFactory, ending: str, latencies: list[float]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"table{ending}"
    many = len(latencies)
    write_table(
        path, {}, {"embedding": [16] * many, "depth": [1] * many, "hidden_1": [8] * many, "latency_s": latencies}
    )
    assert [row.latency_s for row in read_file(path, SPACE).rows] == latencies


@pytest.mark.parametrize("ending", [".xlsx", ".csv.gz", ""])
def test_unknown_endings_are_refused_with_those_that_are_known(ending: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown kind of table") as caught:
        write_table(tmp_path / f"table{ending}", HEADER, COLUMNS)
    assert caught.value.hint == "known: .csv, .jsonl, .parquet"
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_there_is_no_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    write_table(path, HEADER, COLUMNS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        write_table(tmp_path / "other.parquet", HEADER, COLUMNS)
    assert caught.value.hint == "pip install 'mostool[tables]'"
    with pytest.raises(UsageError, match="not installed"):
        read_file(path, SPACE)
    assert [one.name for one in tmp_path.iterdir()] == ["table.parquet"]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    for ending in ENDINGS:
        (tmp_path / f"table{ending}").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="cannot write"):
            write_table(tmp_path / f"table{ending}", HEADER, COLUMNS)
