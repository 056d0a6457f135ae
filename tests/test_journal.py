import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain import journal as journal_module
from toolchain.errors import DeviceError, IntegrityError, MostoolError, UsageError
from toolchain.journal import Journal, read_journal
from toolchain.records import Record, Workload


class Note(Record, frozen=True):
    number: int
    text: str = ""
    seconds: float = 0.5


NOTES = [Note(number=1, text="J*é"), Note(number=2), Note(number=30, text='a"b{"check":"')]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table" / "journal.jsonl"
    with Journal(path, Note) as journal:
        for note in NOTES:
            journal.append(note)
    return path


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk where hundreds of journals are damaged and mended."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def mended(path: Path) -> tuple[list[Note], list[str]]:
    """What opening for appending makes of a damaged journal, after checking that it is sound then and can grow."""
    new = Note(number=99)
    with Journal(path, Note) as journal:
        kept, repairs = list(journal.records), journal.repairs
        journal.append(new)
    assert read_journal(path, Note) == [*kept, new]
    assert sorted(p.name for p in path.parent.iterdir() if p.name.endswith((".part", ".before-repair"))) == []
    return kept, repairs


def aside(path: Path) -> bytes:
    return path.with_name(path.name + ".damaged").read_bytes()


# -- the plain path --------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_back_in_order(path: Path) -> None:
    assert read_journal(path, Note) == NOTES
    with Journal(path, Note) as journal:
        assert journal.records == NOTES
        journal.append(Note(number=4))
        assert journal.records == [*NOTES, Note(number=4)]
        assert read_journal(path, Note) == [*NOTES, Note(number=4)]
    assert journal.repairs == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_or_empty_journal_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read_journal(path, Note) == []
    path.touch()
    assert read_journal(path, Note) == []
    assert mended(path) == ([], [])


def test_each_line_is_json_with_the_checksum_of_its_record(path: Path) -> None:
    # The layout is a promise: tables written today are read by later versions.
    record = b'{"number":2,"text":"","seconds":0.5}'
    check = hashlib.sha256(record).hexdigest()[:16].encode()
    assert path.read_bytes().splitlines()[1] == b'{"check":"' + check + b'","record":' + record + b"}"


@pytest.mark.parametrize("folder_in_the_way", [True, False])
def test_a_journal_that_cannot_be_opened_is_a_usage_error(tmp_path: Path, folder_in_the_way: bool) -> None:
    if folder_in_the_way:
        place = tmp_path
    else:
        (tmp_path / "file").touch()
        place = tmp_path / "file" / "journal.jsonl"
    with pytest.raises(UsageError), Journal(place, Note):
        pass
    with pytest.raises(UsageError):
        read_journal(place, Note)


def test_sound_lines_of_another_kind_are_refused_and_left_alone(path: Path) -> None:
    class Other(Record, frozen=True):
        name: str

    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="line 1"):
        read_journal(path, Other)
    with pytest.raises(IntegrityError, match="line 1"), Journal(path, Other):
        pass
    assert path.read_bytes() == before
    assert mended(path) == (NOTES, [])


def test_a_record_that_would_not_read_back_is_refused(path: Path) -> None:
    with Journal(path, Note) as journal:
        for seconds in (float("nan"), float("inf")):
            with pytest.raises(MostoolError, match="cannot be stored") as refused:
                journal.append(Note(number=4, seconds=seconds))
            assert refused.value.hint
        assert journal.records == NOTES
    assert read_journal(path, Note) == NOTES


# -- cut short -------------------------------------------------------------------------------------------------------


def test_a_line_cut_anywhere_is_set_aside_and_the_lines_before_it_are_kept(path: Path, quick_disk: None) -> None:
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        path.with_name(path.name + ".damaged").unlink(missing_ok=True)
        assert read_journal(path, Note) == NOTES[:2]
        kept, repairs = mended(path)
        assert kept == NOTES[:2]
        if cut > start:
            assert aside(path) == whole[start:cut] + b"\n"
            assert "cut short" in repairs[0]
        else:
            assert repairs == []


def test_a_torn_line_that_was_written_on_gives_up_the_whole_line_behind_it(path: Path) -> None:
    first, second, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:20] + second)
    with pytest.raises(IntegrityError):
        read_journal(path, Note)
    assert mended(path)[0] == NOTES[1:2]
    assert aside(path) == first[:20] + second


# -- damaged ---------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_anywhere_is_seen_and_costs_no_other_line(path: Path, quick_disk: None) -> None:
    whole = path.read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for position in range(len(whole)):
        hit = sum(end < position for end in ends)
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(IntegrityError, match="damaged") as seen:
                read_journal(path, Note)
            assert f"line {hit + 1} " in seen.value.why
            assert seen.value.hint
        path.with_name(path.name + ".damaged").unlink(missing_ok=True)
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        kept, repairs = mended(path)
        unharmed = NOTES if position in ends else NOTES[:hit] + NOTES[hit + 1 :]
        assert kept == unharmed
        assert len(repairs) == 1
        line_start = [0, *(end + 1 for end in ends)][hit]
        assert bytes(damaged)[line_start : position + 1] in aside(path)


def test_a_byte_that_becomes_a_line_end_costs_its_line_alone(path: Path, quick_disk: None) -> None:
    whole = path.read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for position in set(range(len(whole))) - set(ends):
        damaged = bytearray(whole)
        damaged[position] = ord("\n")
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            read_journal(path, Note)
        hit = sum(end < position for end in ends)
        assert mended(path)[0] == NOTES[:hit] + NOTES[hit + 1 :]


def test_a_line_end_that_becomes_any_other_byte_costs_nothing(path: Path, quick_disk: None) -> None:
    whole = path.read_bytes()
    for position in [position for position, byte in enumerate(whole) if byte == ord("\n")]:
        for byte in set(range(256)) - {ord("\n")}:
            damaged = bytearray(whole)
            damaged[position] = byte
            path.write_bytes(damaged)
            with pytest.raises(IntegrityError):
                read_journal(path, Note)
            assert mended(path)[0] == NOTES


def test_several_damages_at_once_are_each_set_aside(path: Path) -> None:
    first, second, third = path.read_bytes().splitlines(keepends=True)
    garbage = b"\xff\x00 garbage\n\n" + b"[" * 100_000 + b"\n"
    path.write_bytes(first + garbage + second + third.replace(b"30", b"31") + second[:30])
    kept, repairs = mended(path)
    assert kept == NOTES[:2]
    assert "line 2-4, 6 " in repairs[0]
    assert "cut short" in repairs[1]
    assert aside(path) == garbage + third.replace(b"30", b"31") + second[:30] + b"\n"


def test_a_repair_the_disk_has_no_room_for_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = path.read_bytes().replace(b'"number":2', b'"number":7')
    path.write_bytes(damaged)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(MostoolError, match="no space left"), Journal(path, Note):
            pass
    assert path.read_bytes() == damaged
    assert mended(path)[0] == [NOTES[0], NOTES[2]]


# -- two at once -----------------------------------------------------------------------------------------------------


def test_a_second_opener_is_refused_until_the_first_is_done(path: Path) -> None:
    with Journal(path, Note) as journal:
        with pytest.raises(DeviceError, match="in use") as refused, Journal(path, Note):
            pass
        assert refused.value.hint
        journal.append(Note(number=4))
    assert mended(path)[0] == [*NOTES, Note(number=4)]


def test_the_lock_outlives_a_repair(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"torn")
    with Journal(path, Note) as journal:
        assert journal.repairs
        with pytest.raises(DeviceError, match="in use"), Journal(path, Note):
            pass


def test_a_journal_that_is_replaced_while_it_is_opened_is_opened_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our open and our lock another process ends a repair: its file counts, not the one we hold."""
    lock = journal_module.fcntl.flock
    other = path.with_name("other")
    other.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))

    def replaced_first(descriptor: int, operation: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            other.replace(path)
        lock(descriptor, operation)

    monkeypatch.setattr(journal_module.fcntl, "flock", replaced_first)
    assert mended(path) == (NOTES[:1], [])


def test_the_lock_of_a_killed_process_is_gone_and_its_acknowledged_records_are_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    script = (
        "import sys; from pathlib import Path\n"
        "from toolchain.journal import Journal\n"
        "from toolchain.records import Workload\n"
        "with Journal(Path(sys.argv[1]), Workload) as journal:\n"
        "    for batch in (1, 2):\n"
        "        journal.append(Workload(batch=batch))\n"
        "    print('acknowledged', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "acknowledged\n"
        with pytest.raises(DeviceError, match="in use"), Journal(path, Workload):
            pass
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with Journal(path, Workload) as journal:
        assert [workload.batch for workload in journal.records] == [1, 2]
        assert journal.repairs == []


# -- the disk is full ------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_partial_line(path: Path, quick_disk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    write = os.write
    with Journal(path, Note) as journal:
        for room in range(70):
            left = [room]

            def until_full(descriptor: int, data: bytes, left: list[int] = left) -> int:
                if not left[0]:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written = write(descriptor, data[: left[0]])
                left[0] -= written
                return written

            with monkeypatch.context() as patch:
                patch.setattr(os, "write", until_full)
                with pytest.raises(MostoolError, match="no space left") as full:
                    journal.append(Note(number=4))
            assert full.value.hint
            assert path.read_bytes() == before
        assert journal.records == NOTES
        journal.append(Note(number=4))
    assert read_journal(path, Note) == [*NOTES, Note(number=4)]


def test_a_record_that_did_not_reach_the_disk_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(path, Note) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(OSError, match="Input/output"):
                journal.append(Note(number=4))
        assert journal.records == NOTES
    assert read_journal(path, Note) == NOTES
