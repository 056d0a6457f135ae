import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from strategies import records

from toolchain import targets
from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.records import (
    SCHEMA,
    Environment,
    Measurement,
    Quality,
    Record,
    RunInfo,
    Stored,
    Timed,
    Training,
    Workload,
    decode_record,
    encode_compact,
    encode_record,
    now,
    read_record,
    storing,
    write_record,
)


def every_stored_kind() -> list[type[Stored]]:
    assert issubclass(targets.Target, Stored)
    return sorted(Stored.__subclasses__(), key=lambda kind: kind.__name__)


RUN = RunInfo(
    command="train", arguments={"--seed": "1"}, versions={}, revision="abc", started_at=now(), finished_at=now()
)
ENVIRONMENT = Environment(
    machine="x86_64",
    cpu="a processor",
    cores=4,
    memory_bytes=1 << 33,
    os="Debian",
    kernel="6.1",
    governor="performance",
    python="3.11",
    engine="onnxruntime",
    engine_version="1.31",
    provider="CPUExecutionProvider",
    boot_id="b",
)


class Loose(Record, frozen=True):
    number: float | None = None
    text: str = ""
    many: tuple[int, ...] = ()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.json"


@pytest.mark.parametrize("kind", every_stored_kind(), ids=lambda kind: kind.__name__)
@settings(max_examples=50, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(data=st.data())
def test_any_record_reads_back_as_it_was_written(kind: type[Stored], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    encoded = encode_record(record)
    assert decode_record(encoded, kind, "here") == record
    assert encode_record(decode_record(encoded, kind, "here")) == encoded
    assert json.loads(encoded)["schema"] == SCHEMA


def test_a_file_reads_back_as_it_was_written(path: Path) -> None:
    write_record(path, RUN)
    assert read_record(path, RunInfo) == RUN
    assert path.read_text().splitlines()[1] == '  "command": "train",'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown field `colour`"),
        ({"command": 3}, "Expected `str`, got `int` - at `$.command`"),
        ({"arguments": {"--n": 1}}, "`$.arguments[...]`"),
        ({"started_at": "yesterday"}, "`$.started_at`"),
        ({"schema": "1"}, "`$.schema`"),
        ({"schema": 0}, "no schema 0"),
        ({"schema": -1}, "no schema -1"),
    ],
)
def test_a_wrong_field_is_refused_and_its_path_named(path: Path, change: dict, message: str) -> None:
    path.write_text(json.dumps(json.loads(encode_record(RUN)) | change))
    with pytest.raises(IntegrityError, match=r"record\.json cannot be read") as refused:
        read_record(path, RunInfo)
    assert message in refused.value.why
    assert refused.value.hint


def test_a_field_deep_inside_is_named_by_its_whole_path() -> None:
    with pytest.raises(IntegrityError) as refused:
        decode_record(b'{"rounds": [{"wall_s": [0.5, "x"]}]}', Timed, "here")
    assert "`$.rounds[0].wall_s[1]`" in refused.value.why


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.text())
def test_every_number_and_text_survives(number: float, count: int, text: str) -> None:
    record = Loose(number=number, text=text, many=(count,))
    assert decode_record(encode_record(record), Loose, "here") == record


@pytest.mark.parametrize("extra", [{}, {"field_of_tomorrow": 1}])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_newer_schema_says_so_whether_or_not_its_fields_are_known(path: Path, extra: dict, bom: bytes) -> None:
    path.write_bytes(bom + json.dumps(json.loads(encode_record(RUN)) | {"schema": SCHEMA + 1} | extra).encode())
    with pytest.raises(IntegrityError, match="newer mostool") as refused:
        read_record(path, RunInfo)
    assert refused.value.hint == "upgrade mostool"


def test_a_byte_order_mark_is_passed_over(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + encode_record(RUN))
    assert read_record(path, RunInfo) == RUN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"\x00",
        b"\xff\xfe{\x00}\x00",
        b'{"schema": 1}',
        b"[" * 1_000_000,
        b'{"command":' * 100_000,
        encode_record(RUN) + b"\x00",
        encode_record(RUN)[:-3],
        encode_record(RUN) * 2,
        encode_record(RUN).replace(b"train", b"tr\x00in"),
        encode_record(RUN).replace(b"train", b"tr\xffin"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_record_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="cannot be read") as refused:
        read_record(path, RunInfo)
    assert refused.value.why
    with pytest.raises(UsageError):
        read_record(path, RunInfo, UsageError)


def test_fifty_megabytes_are_refused_without_being_parsed(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(IntegrityError, match="too large"):
        read_record(path, RunInfo)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"0.5"'])
def test_what_is_no_finite_number_is_refused_on_reading(number: str) -> None:
    text = f'{{"metric": "accuracy", "value": {number}, "loss": 1.0, "n": 3, "split": "test"}}'
    with pytest.raises(IntegrityError):
        decode_record(text.encode(), Quality, "here")


@pytest.mark.parametrize(
    "record",
    [
        Quality(metric="accuracy", value=float("nan"), loss=1.0, n=3, split="test"),
        Quality(metric="accuracy", value=0.5, loss=float("inf"), n=3, split="test"),
        Loose(number=float("nan")),  # would be null, which is a valid value of this field
        Loose(text="\udcff"),
        Loose(many=[1, 2]),  # type: ignore[arg-type] # a list is no tuple: it would come back as another value
    ],
    ids=repr,
)
def test_what_would_not_read_back_is_not_written(path: Path, record: Record) -> None:
    with pytest.raises(MostoolError, match="cannot be stored") as refused:
        write_record(path, record)
    assert refused.value.hint
    assert not path.exists()


def test_a_record_too_large_to_read_is_not_written(path: Path) -> None:
    with pytest.raises(MostoolError, match="cannot be stored"):
        write_record(path, Loose(text="x" * (33 << 20)))
    assert not path.exists()


def test_missing_and_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        read_record(tmp_path / "none.json", RunInfo)
    with pytest.raises(UsageError, match="cannot read"):
        read_record(tmp_path, RunInfo)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot read"):
        read_record(tmp_path / "file" / "record.json", RunInfo)


def test_a_fingerprint_names_the_machine_but_not_its_boot_or_governor() -> None:
    replace = msgspec.structs.replace
    assert replace(ENVIRONMENT, boot_id="c", governor="powersave").fingerprint == ENVIRONMENT.fingerprint
    for field, value in {"cpu": "another", "engine_version": "2", "cores": 8, "isa": ("avx2",)}.items():
        assert replace(ENVIRONMENT, **{field: value}).fingerprint != ENVIRONMENT.fingerprint


def test_no_record_of_a_machine_holds_its_name() -> None:
    assert not {"host", "hostname", "node", "serial", "user"} & set(Environment.__struct_fields__)
    assert os.uname().nodename not in encode_record(ENVIRONMENT).decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"updates": 0},
        {"batch_size": -1},
        {"sequence_length": 7},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"dropout": 1.0},
        {"weight_decay": -0.1},
        {"vocabulary_size": 10},
    ],
)
def test_a_training_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        Training(**wrong)


def test_a_record_names_its_workload_and_states_its_quality() -> None:
    assert Workload(batch=2, sequence_length=64).slug == "b2-t64"
    quality = Quality(metric="masked_accuracy", value=0.1234, loss=2.0, n=10, split="validation")
    assert str(quality) == "masked accuracy 12.3 % on 10 validation items"
    bleu = Quality(metric="bleu", value=0.1128, loss=2.0, n=10, split="test", also={"token_accuracy": 0.33})
    assert str(bleu) == "BLEU 11.3, token accuracy 33.0 % on 10 test items"


def test_an_outcome_is_timed_or_failed_and_says_which() -> None:
    (outcome,) = [field for field in msgspec.structs.fields(Measurement) if field.name == "outcome"]
    assert {kind.__struct_config__.tag for kind in outcome.type.__args__} == {"timed", "failed"}


def test_what_is_written_is_never_too_large_to_be_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indented, a record takes more than it does in one line."""
    record = Loose(many=tuple(range(1000)))
    compact, indented = len(encode_compact(record)), len(encode_record(record))
    assert compact < indented
    monkeypatch.setattr(storing, "_LARGEST_RECORD_BYTES", indented - 1)
    assert encode_compact(record)
    with pytest.raises(MostoolError, match="cannot be stored"):
        write_record(path, record)
    monkeypatch.setattr(storing, "_LARGEST_RECORD_BYTES", indented)
    write_record(path, record)
    assert read_record(path, Loose) == record
