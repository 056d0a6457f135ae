"""A table on disk: resumed, never mixed, never doubled, and nothing in it lost."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import sha256_bytes
from toolchain.profiling.table import JOURNAL, REFERENCE, TABLE, open_table, read_table
from toolchain.records import (
    Environment,
    Failed,
    Measurement,
    NoiseFloor,
    TableInfo,
    Timed,
    Workload,
    now,
    write_record,
)
from toolchain.space import Architecture, Axis, SearchSpace

from .models import timed

MODEL = b"the reference model"
SPACE = SearchSpace("tiny", "bert", (Axis("width", (1, 2, 3, 4)),))
HERE = Environment(
    machine="x86_64",
    cpu="a processor",
    cores=2,
    memory_bytes=8 << 30,
    os="an OS",
    kernel="6.1",
    governor="performance",
    python="3.11.2",
    engine="onnxruntime",
    engine_version="1.22.0",
    provider="CPUExecutionProvider",
    boot_id="first",
)
INFO = TableInfo(
    target="cpu",
    environment=HERE,
    workload=Workload(batch=1, sequence_length=32),
    space=SPACE,
    recipe="fused",
    precision="fp32",
    threads=1,
    options={"session.x": "1"},
    reference_sha256=sha256_bytes(MODEL),
    created_at=now(),
)
LATENCY = timed([[0.01]] * 5, [0.01] * 5)
FAILURE = Failed(stage="worker", error="killed by signal 11")


def row(width: int, outcome: Timed | Failed = LATENCY, **fields: Any) -> Measurement:
    architecture = Architecture("bert", {"width": width})
    plain = Measurement(
        architecture=architecture,
        artifact_sha256="0" * 64,
        recipe="fused",
        size_bytes=100,
        parameters=10,
        workload=INFO.workload,
        target="cpu",
        fingerprint=HERE.fingerprint,
        precision="fp32",
        threads=1,
        started_at=now(),
        outcome=outcome,
    )
    return msgspec.structs.replace(plain, **fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table with the latencies of widths 1 and 2, and a failure of width 3."""
    folder = tmp_path / "profiles" / "cpu" / "b1-t32"
    with open_table(folder, INFO, MODEL) as table:
        for one in (row(1), row(2), row(3, FAILURE)):
            table.append(one)
    return folder


def test_a_table_is_continued_where_it_stopped(folder: Path) -> None:
    rebooted = msgspec.structs.replace(
        HERE, boot_id="second", governor="powersave", memory_bytes=(8 << 30) - (50 << 20)
    )
    with open_table(folder, msgspec.structs.replace(INFO, environment=rebooted), MODEL) as table:
        assert [table.done(row(width).architecture) for width in (1, 2, 3, 4)] == [True, True, True, False]
        assert [table.done(row(width).architecture, retry_failed=True) for width in (1, 3)] == [True, False]
        table.append(row(4))
        assert table.done(row(4).architecture)
        assert table.info == INFO
    info, rows = read_table(folder)
    assert info == INFO
    assert [one.architecture.axes["width"] for one in rows] == [1, 2, 3, 4]
    assert (folder / REFERENCE).read_bytes() == MODEL


def test_the_noise_floor_is_kept_in_the_header_and_is_no_reason_to_refuse(folder: Path) -> None:
    with open_table(folder, INFO, MODEL) as table:
        table.note_noise_floor(NoiseFloor(value=0.004, copies=4))
    with open_table(folder, INFO, MODEL) as table:
        assert table.info.noise_floor == NoiseFloor(value=0.004, copies=4)
    assert read_table(folder)[0].noise_floor == NoiseFloor(value=0.004, copies=4)


def test_a_latency_is_never_measured_twice_but_a_failure_may_be_tried_again(folder: Path) -> None:
    with open_table(folder, INFO, MODEL) as table:
        with pytest.raises(UsageError, match=r"measured in .* already"):
            table.append(row(1, timed([[0.02]], [0.01])))
        table.append(row(3, FAILURE))
        table.append(row(3))
        with pytest.raises(UsageError):
            table.append(row(3, FAILURE))
        assert [one.architecture.axes["width"] for one in table.measurements] == [1, 2, 3]
    assert [one.outcome for one in read_table(folder)[1]] == [LATENCY] * 3


OTHERWISE: dict[str, dict[str, Any]] = {
    "environment.cpu": {"environment": msgspec.structs.replace(HERE, cpu="another")},
    "environment.kernel": {"environment": msgspec.structs.replace(HERE, kernel="6.2")},
    "environment.unit": {"environment": msgspec.structs.replace(HERE, unit="0b0b0b")},
    "environment.emulator": {"environment": msgspec.structs.replace(HERE, emulator="qemu-aarch64")},
    "environment.engine_version": {"environment": msgspec.structs.replace(HERE, engine_version="1.23.0")},
    "environment.memory_bytes": {"environment": msgspec.structs.replace(HERE, memory_bytes=4 << 30)},
    "target": {"target": "rpi"},
    "workload": {"workload": Workload(batch=1, sequence_length=64)},
    "space": {"space": msgspec.structs.replace(SPACE, name="other")},
    "recipe": {"recipe": "plain"},
    "threads": {"threads": 2},
    "options": {"options": {"enable": "0"}},
    "provider_options": {"provider_options": {"enable_cuda_graph": "1"}},
    "cores": {"cores": (2, 3)},
    "thermal": {"thermal": "sustained"},
    "reference_sha256": {"reference_sha256": sha256_bytes(b"another")},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_another_environment_is_refused_by_name_and_nothing_changes(folder: Path, name: str) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = msgspec.structs.replace(INFO, **OTHERWISE[name])
    model = b"another" if name == "reference_sha256" else MODEL
    with pytest.raises(DeviceError) as caught, open_table(folder, other, model):
        pass
    assert caught.value.why.startswith(f"{name}: ")
    assert " -> " in caught.value.why
    assert ";" not in caught.value.why
    assert "--fresh" in caught.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_field_of_a_header_is_compared_or_known_not_to_matter() -> None:
    compared = {name.partition(".")[0] for name in OTHERWISE} | {"precision"}
    assert compared == set(TableInfo.__struct_fields__) - {"schema", "created_at", "noise_floor"}


def test_fresh_starts_anew_and_keeps_the_old(folder: Path) -> None:
    other = msgspec.structs.replace(INFO, threads=2)
    with open_table(folder, other, MODEL, fresh=True) as table:
        assert not table.measurements
        assert table.set_aside is not None
        assert len(read_table(table.set_aside)[1]) == 3
    assert read_table(folder) == (other, [])


def test_fresh_is_a_way_out_of_a_damaged_table(folder: Path) -> None:
    (folder / TABLE).write_text("{")
    with pytest.raises(IntegrityError), open_table(folder, INFO, MODEL):
        pass
    with open_table(folder, INFO, MODEL, fresh=True) as table:
        table.append(row(1))
    assert len(read_table(folder)[1]) == 1


def test_two_at_once_are_refused(folder: Path) -> None:
    with open_table(folder, INFO, MODEL):
        for fresh in (False, True):
            with pytest.raises(DeviceError, match="in use"), open_table(folder, INFO, MODEL, fresh=fresh):
                pass
        assert len(read_table(folder)[1]) == 3


def test_a_torn_tail_costs_only_itself(folder: Path) -> None:
    journal = folder / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    assert len(read_table(folder)[1]) == 2
    with open_table(folder, INFO, MODEL) as table:
        assert len(table.repairs) == 1
        assert not table.done(row(3).architecture)
        table.append(row(3))
    assert len(read_table(folder)[1]) == 3


def test_a_flipped_bit_is_found_and_that_row_measured_again(folder: Path) -> None:
    journal = folder / JOURNAL
    data = bytearray(journal.read_bytes())
    data[data.index(b'"width":2') + 8] ^= 1
    journal.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        read_table(folder)
    with open_table(folder, INFO, MODEL) as table:
        assert [table.done(row(width).architecture) for width in (1, 2, 3)] == [True, False, True]
        table.append(row(2))
    assert len(read_table(folder)[1]) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"fingerprint": "0" * 12},
        {"target": "rpi"},
        {"workload": Workload(batch=2)},
        {"recipe": "plain"},
        {"threads": 4},
        {"architecture": Architecture("other", {"width": 4})},
    ],
)
def test_a_row_of_another_table_is_refused_and_found(folder: Path, fields: dict[str, Any]) -> None:
    stranger = row(4, **fields)
    with open_table(folder, INFO, MODEL) as table, pytest.raises(DeviceError, match="does not belong"):
        table.append(stranger)
    assert len(read_table(folder)[1]) == 3
    with open_table(folder, INFO, MODEL) as table:
        table._journal.append(stranger)
    with pytest.raises(IntegrityError, match="of another table"):
        read_table(folder)
    with pytest.raises(IntegrityError, match="of another table"), open_table(folder, INFO, MODEL):
        pass


def test_the_reference_is_what_the_header_says(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        open_table(folder, INFO, b"another")
    (folder / REFERENCE).write_bytes(b"another")
    with pytest.raises(IntegrityError, match=REFERENCE), open_table(folder, INFO, MODEL):
        pass
    given = tmp_path / "given.onnx"
    given.write_bytes(MODEL)
    with open_table(tmp_path / "new", INFO, given):
        pass
    assert read_table(tmp_path / "new") == (INFO, [])


def test_rows_without_a_header_are_not_adopted(folder: Path) -> None:
    (folder / TABLE).unlink()
    with pytest.raises(UsageError, match="no latency table"):
        read_table(folder)
    with pytest.raises(IntegrityError, match=r"no table\.json"), open_table(folder, INFO, MODEL):
        pass


def test_a_header_of_a_newer_mostool_is_named_as_such(folder: Path) -> None:
    write_record(folder / TABLE, msgspec.structs.replace(INFO, schema=99))
    data = (folder / TABLE).read_text().replace('"threads"', '"cores"')
    (folder / TABLE).write_text(data)
    with pytest.raises(IntegrityError, match="newer mostool"):
        read_table(folder)
