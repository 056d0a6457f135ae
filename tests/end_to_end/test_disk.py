"""Places that cannot be written to, and a disk that fills up: no partial file, and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_project import CLASSIFY, Made, call, copied, journal_lines, measured_ids, refused, require

BIND = ["mount", "-t", "tmpfs", "-o"]


def mounted(folder: Path, options: str) -> bool:
    """Whether a tiny file system could be put at `folder`; only root may, and not in every container."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    return (
        subprocess.run([*BIND, options, "mostool-test", str(folder)], check=False, capture_output=True).returncode == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "size=4m"):
        pytest.skip("a small file system takes root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def fill(folder: Path, left: int) -> None:
    """Fill the disk up to `left` bytes."""
    status = os.statvfs(folder)
    with (folder / "filler").open("wb") as stream:
        stream.write(b"\0" * max(0, status.f_bavail * status.f_frsize - left))


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


FULL = ("no space left", "hint: free some disk space")


@pytest.mark.fault("disk-full-append")
def test_a_disk_that_fills_up_while_profiling_keeps_what_was_measured(
    project: Path, made: Made, small_disk: Path
) -> None:
    copied(project / "profiles", small_disk / "profiles")
    subprocess.run(["rm", "-r", str(project / "profiles")], check=True)  # noqa: S607
    (project / "profiles").symlink_to(small_disk / "profiles")
    table = small_disk / made.table.relative_to(made.root)
    before = journal_lines(table)[:10]  # as profiling left it: the search has measured more
    (table / "journal.jsonl").write_text("".join(f"{line}\n" for line in before))
    fill(small_disk, left=8192)
    told = require(call(project, "profile", "--device", "quick", "--n", "40"), 1)
    assert all(words in told.err.lower() for words in FULL), told.err
    kept = journal_lines(table)
    assert kept[: len(before)] == before
    assert (table / "journal.jsonl").read_bytes().endswith(b"\n")
    assert not parts(small_disk)
    (small_disk / "filler").unlink()
    done = call(project, "profile", "--device", "quick", "--n", str(len(kept) + 2), "--json").data
    assert done["measured_now"] >= 2  # more where what was kept of a group is not what the plan has first
    assert len(set(measured_ids(table))) == len(measured_ids(table)) == len(kept) + done["measured_now"]


@pytest.mark.fault("disk-full-export")
def test_a_disk_that_is_full_gets_no_half_bundle(project: Path, small_disk: Path) -> None:
    fill(small_disk, left=16384)
    told = require(call(project, "export", "--out", small_disk / "bundle"), 1)
    assert all(words in told.err.lower() for words in FULL), told.err
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler"]


def test_a_disk_that_fills_up_while_training_keeps_the_last_state(project: Path, small_disk: Path) -> None:
    out = small_disk / "run"
    training = (*CLASSIFY, "--evaluate-every", "1", "--out", out)
    fill(small_disk, left=300_000)
    told = require(call(project, *training), 1)
    assert all(words in told.err.lower() for words in FULL), told.err
    assert not parts(small_disk)
    assert not (out / "checkpoint.json").exists()
    (small_disk / "filler").unlink()
    require(call(project, *training))


@pytest.mark.fault("read-only")
def test_a_folder_that_is_read_only(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with read_only(folder) as why:
        for arguments in ((*CLASSIFY, "--out", folder / "run"), ("export", "--out", folder / "bundle")):
            refused(call(project, *arguments), 2, "cannot write", why)
        refused(call(project, "report", "-o", folder / "page.html"), 2, "cannot write")
        refused(call(project, "evaluate", "--dump-logits", folder / "x.npy"), 2, "cannot write")
        assert not list(folder.iterdir())


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """A folder nobody can write to; what the system says of that. root may write wherever the file system lets it."""
    if os.geteuid():
        folder.chmod(0o555)
        yield "Permission denied"
        folder.chmod(0o755)
        return
    if not mounted(folder, "size=1m,ro"):
        pytest.skip("root needs the right to mount a read-only file system")
    try:
        yield "Read-only file system"
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


@pytest.mark.fault("output-is-folder")
def test_an_output_that_is_something_else(project: Path) -> None:
    for arguments in (
        (*CLASSIFY, "--out", "data.tsv"),
        (*CLASSIFY, "--out", "data.tsv/run"),
        (*CLASSIFY, "--out", "targets"),
        ("export", "--out", "data.tsv"),
        ("export", "--out", "data.tsv/bundle"),
        ("export", "--out", "targets"),
        ("report", "-o", "targets"),
        ("report", "-o", "data.tsv/page.html"),
        ("evaluate", "--dump-logits", "targets"),
        ("demo", "--out", "data.tsv"),
    ):
        refused(call(project, *arguments), 2, "--out")
    assert (project / "data.tsv").read_text().startswith("sentence\tlabel\n")
    assert [path.name for path in (project / "targets").iterdir()] == ["quick.toml"]
    assert not parts(project)
