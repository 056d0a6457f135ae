"""An imported table on disk: merged where it is the same, refused by name where it is not, never doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.arrays import to_arrays
from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.journal import Journal
from toolchain.records import ImportedInfo, ImportedRow, Workload, write_record
from toolchain.space import SearchSpace
from toolchain.tables import HEADER, ROWS, read_header, read_imported, row_id, to_axis_arrays, write_imported

from .made_tables import INFO, SPACE, row

THREE = [row((8.0,), 0.01), row((8.0, 16.0), 0.02, 0.001), row((12.5,), 0.03)]


def info(**changes: Any) -> ImportedInfo:
    return msgspec.structs.replace(INFO, **changes)


def imported(space: SearchSpace, seed: int) -> ImportedRow:
    axes = space.sample(np.random.default_rng(seed)).axes
    plain = {name: tuple(map(float, one)) if isinstance(one, tuple) else float(one) for name, one in axes.items()}
    return ImportedRow(axes=plain, latency_s=0.01)


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert write_imported(tmp_path / "t", INFO, THREE) == (3, 0)
    assert read_imported(tmp_path / "t") == (INFO, THREE)
    assert read_header(tmp_path / "t") == INFO


def test_the_same_file_twice_adds_nothing(tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert write_imported(tmp_path, info(created_at=INFO.created_at.replace(year=2025)), THREE) == (0, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_file_adds_the_rows_that_are_new(tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    again, slower, copied = row((8.0,), 0.01, 0.5), row((8.0,), 0.011), row((24.0,), 0.04)
    other = info(origins={"b.csv": "b" * 64}, columns={"embedding": "e"}, unit="s")
    assert write_imported(tmp_path, other, [again, slower, copied, copied]) == (2, 2)
    stored, rows = read_imported(tmp_path)
    assert rows == [*THREE, slower, copied]
    assert stored == info(origins=INFO.origins | other.origins, columns=INFO.columns | other.columns)


def test_another_file_of_the_same_name_is_another_origin(tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    write_imported(tmp_path, info(origins={"a.csv": "b" * 64}), [row((24.0,), 0.04)])
    assert read_header(tmp_path).origins == {"a.csv": "a" * 64, "a.csv (bbbbbbbb)": "b" * 64}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "other"}, "target: board -> other"),
        ({"workload": Workload(batch=1, sequence_length=64)}, '"sequence_length":64'),
        ({"space": msgspec.structs.replace(SPACE, name="another")}, "space: "),
        ({"precision": "int8"}, "precision: fp32 -> int8"),
        ({"threads": 4}, "threads: 1 -> 4"),
        ({"threads": None}, "threads: 1 -> null"),
        ({"runtime": "torch"}, "runtime:  -> torch"),
        ({"threads": 4, "precision": "int8"}, "precision: fp32 -> int8; threads: 1 -> 4"),
    ],
)
def test_a_table_of_another_kind_is_refused_by_field(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DeviceError, match="another kind") as caught:
        write_imported(tmp_path, info(**changes), [row((24.0,), 0.04)])
    assert said in caught.value.why
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_file_in_another_unit_is_refused(tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    with pytest.raises(DeviceError, match=r"holds a\.csv read otherwise") as caught:
        write_imported(tmp_path, info(unit="s"), [row((8.0,), 10.0)])
    assert caught.value.why == "unit: ms -> s"
    assert read_imported(tmp_path)[1] == THREE


def test_what_was_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Journal.append

    def dies(self: Journal[ImportedRow], record: ImportedRow) -> None:
        if len(self.records) == 2:
            raise KeyboardInterrupt
        append(self, record)

    monkeypatch.setattr(Journal, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        write_imported(tmp_path, INFO, THREE)
    assert read_imported(tmp_path) == (info(origins={}), THREE[:2])
    monkeypatch.undo()
    assert write_imported(tmp_path, INFO, THREE) == (1, 2)
    assert read_imported(tmp_path) == (INFO, THREE)


def test_a_damaged_row_comes_back_with_its_file(tmp_path: Path) -> None:
    write_imported(tmp_path, INFO, THREE)
    journal = tmp_path / ROWS
    journal.write_bytes(journal.read_bytes().replace(b"0.02", b"0.03"))
    with pytest.raises(IntegrityError):
        read_imported(tmp_path)
    assert write_imported(tmp_path, INFO, THREE) == (1, 2)
    assert sorted(one.latency_s for one in read_imported(tmp_path)[1]) == [0.01, 0.02, 0.03]


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no imported table"):
        read_imported(tmp_path)
    write_imported(tmp_path, INFO, THREE)
    (tmp_path / HEADER).unlink()
    with pytest.raises(IntegrityError, match="rows but no"):
        write_imported(tmp_path, INFO, THREE)


@pytest.mark.parametrize(
    "axes",
    [
        {"embedding": 16.0},
        {"embedding": 16.0, "depth": 1.0, "hidden": (8.0, 8.0), "heads": (2.0,)},
        {"embedding": 16.0, "depth": 1.0, "hidden": 8.0, "heads": (2.0,)},
        {"embedding": (16.0,), "depth": 1.0, "hidden": (8.0,), "heads": (2.0,)},
        {"embedding": 17e9, "depth": 1.0, "hidden": (8.0,), "heads": (2.0,)},
        {"embedding": 16.0, "depth": 4.0, "hidden": (8.0,) * 4, "heads": (2.0,) * 4},
        {"embedding": 16.0, "depth": 1.5, "hidden": (8.0,), "heads": (2.0,)},
    ],
)
def test_a_row_that_is_not_of_the_space_is_refused(axes: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path / HEADER, INFO)
    with Journal(tmp_path / ROWS, ImportedRow) as journal:
        journal.append(ImportedRow(axes=axes, latency_s=0.1))
    with pytest.raises(IntegrityError, match=r"record 1 is of another space"):
        read_imported(tmp_path)


@given(seed=st.integers(0, 2**32))
def test_whole_rows_are_the_architectures_they_spell(seed: int) -> None:
    one = SPACE.sample(np.random.default_rng(seed))
    assert row_id(SPACE, imported(SPACE, seed)) == one.id
    found, wanted = to_axis_arrays(SPACE, [imported(SPACE, seed)]), to_arrays(SPACE, [one])
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in found)


def test_averages_have_a_name_and_stay_what_they_are() -> None:
    average = row((12.5, 16.0))
    name = row_id(SPACE, average)
    assert name.startswith("row-")
    assert len(name) == 16
    swapped = msgspec.structs.replace(average, axes=dict(reversed(average.axes.items())), latency_s=9.0)
    assert row_id(SPACE, swapped) == name
    assert row_id(SPACE, row((12.5, 24.0))) != name
    assert to_axis_arrays(SPACE, [average])["hidden"].tolist() == [[12.5, 16.0, 0.0]]
