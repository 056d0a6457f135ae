"""A disk that is full from one write to the next. Where one can be mounted and filled: end_to_end/test_disk.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_project import Made, call, journal_lines, made, measured_ids, one_thread, project, refused

__all__ = ["made", "one_thread", "project"]

FULL = ("no space left to write", "hint: free some disk space")


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.fault("disk-full-append")
@pytest.mark.parametrize("written", [0, 100], ids=["nothing", "half-a-line"])
def test_what_is_appended_to_a_full_disk_is_taken_back(
    project: Path, made: Made, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    table = project / made.table.relative_to(made.root)
    before = journal_lines(table)
    wanted = str(len(before) + 8)
    write, appended = os.write, []

    def fills(descriptor: int, data: bytes) -> int:
        if os.path.samestat(os.fstat(descriptor), (table / "journal.jsonl").stat()):
            appended.append(descriptor)
            if len(appended) == 2:
                return write(descriptor, data[:written])
            if len(appended) > 2:
                no_space()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fills)
    refused(call(project, "profile", "--device", "quick", "--n", wanted), 1, *FULL)
    monkeypatch.undo()
    kept = journal_lines(table)
    assert (table / "journal.jsonl").read_bytes().endswith(b"\n")
    assert kept[: len(before)] == before
    assert len(kept) == len(before) + 1
    assert not [path for path in project.rglob("*") if ".part" in path.name]
    done = call(project, "profile", "--device", "quick", "--n", wanted, "--json").data
    assert done["timed"] == len(set(measured_ids(table))) == len(journal_lines(table))
    assert journal_lines(table)[: len(kept)] == kept


@pytest.mark.fault("disk-full-export")
@pytest.mark.parametrize("full_from", [0, 2, 5])
def test_a_bundle_for_which_there_is_no_room_is_not_there_at_all(
    project: Path, monkeypatch: pytest.MonkeyPatch, full_from: int
) -> None:
    out = project / "shipped"
    sync: Callable[[int], None] = os.fsync
    synced: list[int] = []

    def fills(descriptor: int) -> None:
        if "shipped" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            synced.append(descriptor)
            if len(synced) > full_from:
                no_space()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fills)
    refused(call(project, "export", "--out", out), 1, *FULL)
    monkeypatch.undo()
    assert not out.exists()
    assert not [path for path in project.iterdir() if "shipped" in path.name]
