"""Tables come in and go out: what was exported imports as the same, and nothing is mixed that is not alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_project import Made

from toolchain import profiling
from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.pipeline.exchange import Imported, export_table, import_table
from toolchain.pipeline.latencies import Latencies, read_latencies
from toolchain.pipeline.project import Project
from toolchain.records import TableInfo, Timed, read_record, write_record
from toolchain.tables import read_header


@pytest.fixture(scope="module")
def header(made: Made) -> TableInfo:
    return read_record(made.table / profiling.TABLE, TableInfo)


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "table.csv"
    export_table(made.table, path)
    return path


def bring(root: Path, source: Path, header: TableInfo, **changes: object) -> Imported:
    """Import into an empty project, as what the header says."""
    asked = {"space": header.space, "device": header.target, "workload": header.workload} | changes
    return import_table(Project(root), source, **asked)  # type: ignore[arg-type]


def same(found: Latencies, wanted: Latencies) -> bool:
    return (
        found.ids == wanted.ids
        and np.array_equal(found.values, wanted.values)
        and all(np.array_equal(found.arrays[name], wanted.arrays[name]) for name in wanted.arrays)
    )


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_measured_table_goes_out_and_comes_in_elsewhere(
    made: Made, header: TableInfo, ending: str, tmp_path: Path
) -> None:
    out = tmp_path / f"table{ending}"
    measured = read_latencies(made.table)
    assert export_table(made.table, out) == len(measured.ids)
    brought = bring(tmp_path, out, header, threads=header.threads)
    assert brought.folder.name == f"{made.table.name}-imported"
    assert (brought.rows_added, brought.rows_already, brought.notes) == (len(measured.ids), 0, [])
    found = read_latencies(brought.folder)
    assert found.source == "imported"
    assert same(found, measured)
    assert read_header(brought.folder).threads == header.threads
    again = bring(tmp_path, out, header)
    assert (again.rows_added, again.rows_already) == (0, len(measured.ids))
    export_table(brought.folder, tmp_path / f"again{ending}")
    twice = bring(tmp_path / "second", tmp_path / f"again{ending}", header)
    assert same(read_latencies(twice.folder), measured)


def test_an_imported_folder_comes_in_as_well(made: Made, header: TableInfo, exported: Path, tmp_path: Path) -> None:
    first = bring(tmp_path / "first", exported, header)
    second = bring(tmp_path / "second", first.folder, header)
    assert read_header(second.folder) == read_header(first.folder)
    assert second.rows_added == first.rows_added
    with pytest.raises(UsageError, match="another device"):
        bring(tmp_path / "third", first.folder, header, device="other")


def test_a_spread_goes_out_and_comes_in(header: TableInfo, tmp_path: Path) -> None:
    lines = "embedding,depth,hidden,heads,ffn,latency_ms,spread_ms\n8,1,8,1,8,1,0.1\n16,2,8,1,8,2,\n"
    (tmp_path / "theirs.csv").write_text(lines)
    brought = bring(tmp_path, tmp_path / "theirs.csv", header)
    export_table(brought.folder, tmp_path / "ours.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text().splitlines()]
    assert [row["spread_s"] for row in rows] == [pytest.approx(1e-4), None]
    assert [row["hidden_2"] for row in rows] == [None, 8]
    assert "threads" not in rows[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "other"}, "device: it says quick, asked for is other"),
        ({"precision": "int8"}, "precision: it says fp32"),
        ({"threads": 64}, "threads: it says 1, asked for is 64"),
        ({"workload": 8}, "sequence_length: it says 16"),
    ],
)
def test_a_file_of_something_else_is_refused(
    header: TableInfo, exported: Path, changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    if "workload" in changes:
        changes = {"workload": msgspec.structs.replace(header.workload, sequence_length=changes["workload"])}
    with pytest.raises(UsageError, match="measured with another") as caught:
        bring(tmp_path, exported, header, **changes)
    assert said in caught.value.why
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize("device", ["", "..", "../up", "a/b", ".hidden", "quick.old"])
def test_a_device_must_have_a_name(header: TableInfo, exported: Path, device: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a device"):
        bring(tmp_path, exported, header, device=device)


def test_seconds_that_are_called_milliseconds_are_caught(
    made: Made, header: TableInfo, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(made.table, tmp_path / "profiles" / "quick" / made.table.name)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(exported.read_text().replace("latency_s", "latency_us"))
    with pytest.raises(UsageError, match="be microseconds") as caught:
        bring(tmp_path, wrong, header)
    assert "say --unit s" in caught.value.hint
    scaled = tmp_path / "scaled.csv"
    names, *rows = (line.split(",") for line in exported.read_text().splitlines())
    place = names.index("latency_s")
    for row in rows:
        row[place] = str(1e3 * float(row[place]))
    scaled.write_text("\n".join(",".join(row) for row in [names, *rows]))
    with pytest.raises(UsageError, match="be seconds") as caught:
        bring(tmp_path, scaled, header)
    assert "in another table of this device" in caught.value.why
    assert "say --unit ms;" in caught.value.hint
    measured = read_latencies(made.table)
    told = read_latencies(bring(tmp_path, scaled, header, unit="ms").folder)
    assert told.values == pytest.approx(measured.values)


def test_impossible_speed_is_caught_without_another_table(header: TableInfo, tmp_path: Path) -> None:
    lines = "embedding,depth,hidden,heads,ffn,latency_s\n32,2,32,2,64,2000\n32,2,32,2,64,2100\n"
    (tmp_path / "theirs.csv").write_text(lines)
    with pytest.raises(UsageError, match="be seconds") as caught:
        bring(tmp_path, tmp_path / "theirs.csv", header)
    assert "multiply-adds per second" in caught.value.why


# -- measured folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def source(made: Made, tmp_path: Path) -> Path:
    """A copy of the measured table, elsewhere."""
    return Path(shutil.copytree(made.table, tmp_path / "theirs"))


def test_a_measured_table_comes_in_as_one(made: Made, header: TableInfo, source: Path, tmp_path: Path) -> None:
    rows = profiling.read_table(source)[1]
    brought = bring(tmp_path, source, header)
    assert brought.folder == tmp_path / "profiles" / "quick" / made.table.name
    assert (brought.rows_added, brought.rows_already) == (len(rows), 0)
    assert profiling.read_table(brought.folder) == profiling.read_table(source)
    assert (brought.folder / profiling.REFERENCE).read_bytes() == (source / profiling.REFERENCE).read_bytes()
    for again in (source, brought.folder):
        assert bring(tmp_path, again, header)[1:3] == (0, len(rows))


def test_missing_rows_are_added(header: TableInfo, source: Path, tmp_path: Path) -> None:
    brought = bring(tmp_path, source, header)
    journal = brought.folder / profiling.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]))
    assert bring(tmp_path, source, header)[1:3] == (len(lines) - 4, 4)
    rows = profiling.read_table(brought.folder)[1]
    assert rows == profiling.read_table(source)[1]
    assert all(isinstance(row.outcome, Timed) for row in rows)


def test_a_table_measured_otherwise_is_refused_by_field(header: TableInfo, source: Path, tmp_path: Path) -> None:
    bring(tmp_path, source, header)
    write_record(source / profiling.TABLE, msgspec.structs.replace(header, thermal="sustained", cores=(0,)))
    with pytest.raises(DeviceError, match="not measured alike") as caught:
        bring(tmp_path, source, header)
    assert caught.value.why == "cores: [] -> [0]; thermal: guard -> sustained"


def test_what_is_no_table_of_what_was_asked_for_is_refused(header: TableInfo, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another device"):
        bring(tmp_path, source, header, device="other")
    space = msgspec.structs.replace(header.space, name="other")
    with pytest.raises(UsageError, match="another space"):
        bring(tmp_path, source, header, space=space)
    with pytest.raises(UsageError, match="another threads"):
        bring(tmp_path, source, header, threads=64)
    with pytest.raises(UsageError, match="is a table of mostool"):
        bring(tmp_path, source, header, unit="ms")
    (source / profiling.REFERENCE).unlink()
    with pytest.raises(IntegrityError, match=r"lacks reference\.onnx"):
        bring(tmp_path, source, header)
    (source / profiling.TABLE).unlink()
    with pytest.raises(UsageError, match="is no latency table"):
        bring(tmp_path, source, header)
    with pytest.raises(UsageError, match="no latency table"):
        export_table(source, tmp_path / "out.csv")
    assert not (tmp_path / "profiles").exists()
