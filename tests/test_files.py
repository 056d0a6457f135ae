import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.files import (
    disk_errors,
    inside,
    replacing,
    set_aside,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_text,
)


def test_a_checksum_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


# -- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_text(path, "größer")
    write_text(path, "größer als zuvor")
    assert path.read_bytes() == "größer als zuvor".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


class StopError(Exception):
    pass


@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_text("old")

    def fail_halfway(part: Path) -> None:
        part.write_text("ne")
        raise StopError

    with pytest.raises(StopError), replacing(path) as part:
        fail_halfway(part)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("file", "old")] if existed else [])


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(MostoolError, match="no space left") as refused:
        write_bytes(path, b"new")
    assert refused.value.exit_code == 1
    assert refused.value.hint
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_places_that_cannot_be_written_to_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for place in (
        tmp_path / "file" / "below",
        tmp_path / "file" / "far" / "below",
        tmp_path / "folder",
        tmp_path / "loop" / "below",
        tmp_path / ("x" * 300),
        tmp_path / ("x" * 250),  # itself short enough, but not with what a temporary name adds
    ):
        with pytest.raises(UsageError, match="cannot write") as refused:
            write_bytes(place, b"data")
        assert refused.value.why
        assert refused.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "loop"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_refusal_of_the_system_says_what_to_do(number: int) -> None:
    with pytest.raises(UsageError, match="cannot write") as refused, disk_errors(Path("somewhere")):
        raise OSError(number, os.strerror(number))
    assert refused.value.why == os.strerror(number)


def test_an_error_that_has_nothing_to_do_with_writing_passes_through() -> None:
    with pytest.raises(FileNotFoundError), disk_errors(Path("somewhere")):
        raise FileNotFoundError(errno.ENOENT, "gone")


# -- set aside -------------------------------------------------------------------------------------------------------


def test_what_is_set_aside_is_kept_under_another_name_each_time(tmp_path: Path) -> None:
    path = tmp_path / "table"
    assert set_aside(path) is None
    kept = []
    for n in range(3):
        path.mkdir()
        (path / "rows").write_text(str(n))
        moved = set_aside(path)
        assert moved is not None
        kept.append(moved)
        assert not path.exists()
    assert [(moved / "rows").read_text() for moved in kept] == ["0", "1", "2"]
    assert all(moved.name.startswith("table.") and moved.suffix == ".old" for moved in kept)


# -- inside a folder -------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_text("model")
    (folder / "deep" / "labels.txt").write_text("labels")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "deep/labels.txt", "./model.onnx", "deep//labels.txt"])
def test_a_plain_file_of_the_folder_is_found(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside(bundle, name).read_text() in ("model", "labels")
    monkeypatch.chdir(bundle)
    assert inside(Path(), name).read_text() in ("model", "labels")
    monkeypatch.chdir(bundle.parent)
    assert inside(Path("bundle"), name).read_text() in ("model", "labels")


def link_file(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")


def link_to_own_file(folder: Path) -> None:
    (folder / "link").symlink_to("model.onnx")


def link_folder(folder: Path) -> None:
    (folder / "linked").symlink_to(folder.parent / "outside")


def link_hard(folder: Path) -> None:
    (folder / "hard").hardlink_to(folder.parent / "secret")


def link_nowhere(folder: Path) -> None:
    (folder / "dangling").symlink_to("nowhere")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "name"),
    [
        (nothing, ""),
        (nothing, "."),
        (nothing, ".."),
        (nothing, "deep"),
        (nothing, "missing"),
        (nothing, "model.onnx/x"),
        (nothing, "../secret"),
        (nothing, "deep/../../secret"),
        (nothing, "deep/../model.onnx"),
        (nothing, "/etc/passwd"),
        (nothing, "model.onnx\x00"),
        (nothing, "x" * 5000),
        (nothing, "a/" * 5000),
        (link_file, "link"),
        (link_to_own_file, "link"),
        (link_folder, "linked/secret"),
        (link_hard, "hard"),
        (link_nowhere, "dangling"),
        (make_pipe, "pipe"),
    ],
    ids=lambda value: value.__name__ if callable(value) else repr(value[:20]),
)
def test_names_that_lead_out_or_to_no_plain_file_are_refused(
    bundle: Path, prepare: Callable[[Path], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(bundle)
    with pytest.raises(IntegrityError):
        inside(bundle, name)
    monkeypatch.chdir(bundle)
    with pytest.raises(IntegrityError):
        inside(Path(), name)
