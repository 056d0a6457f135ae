from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text import opening
from toolchain.text.opening import file_digests, open_text

from .conftest import result_or_refusal


def _refused(path: Path, *words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        open_text(path)
    assert caught.value.hint
    for word in (path.name, *words):
        assert word in str(caught.value)
    return caught.value


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "A.TXT.GZ"])
def test_text_comes_back_with_or_without_mark_and_gzip(tmp_path: Path, name: str, mark: bytes) -> None:
    data = mark + "Straße\nçà\n".encode()
    stored = gzip.compress(data) if name.lower().endswith(".gz") else data
    (tmp_path / name).write_bytes(stored)
    opened = open_text(tmp_path / name)
    assert opened.text == "Straße\nçà\n"
    assert opened.sha256 == sha256_bytes(stored)


def test_a_wrong_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine\nfine\ncaf\xe9\n")
    assert "UTF-8" in _refused(path, "line 3").hint


def test_a_nul_byte_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "nul.txt"
    path.write_bytes(b"fine\nb\0d\n")
    _refused(path, "line 2", "NUL")


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_bytes("text".encode("utf-16"))
    _refused(path, "UTF-16")


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["empty.txt", "empty.txt.gz"])
def test_empty_files(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    _refused(path, "empty")


def test_a_zero_byte_gzip_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "none.txt.gz"
    path.write_bytes(b"")
    _refused(path, "empty")


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere.txt", "there is no")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    _refused(tmp_path, "folder")


def test_a_pipe_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    _refused(tmp_path / "pipe.txt", "plain file")


def test_a_path_no_system_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_text(tmp_path / "a\0b.txt")
    with pytest.raises(UsageError):
        open_text(tmp_path / ("x" * 5000))


def test_gzip_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"some text to read\n" * 200)
    path = tmp_path / "cut.txt.gz"
    for length in range(1, len(whole), 3):
        path.write_bytes(whole[:length])
        _refused(path, "gzip")


def test_gzip_with_a_flipped_bit_is_never_read_as_other_text(tmp_path: Path) -> None:
    text = "some text to read\n" * 20
    whole = gzip.compress(text.encode(), mtime=0)
    path = tmp_path / "bit.txt.gz"
    refused = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        opened = result_or_refusal(open_text, path)
        assert opened is None or opened.text == text  # header fields such as the time may change freely
        refused += opened is None
    assert refused > len(whole) // 2


def test_plain_text_named_gz(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt.gz"
    path.write_bytes(b"just text\n")
    _refused(path, "gzip")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LARGEST_FILE_BYTES", 1 << 20)
    path = tmp_path / "bomb.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (3 << 20)))
    _refused(path, "too large")
    (tmp_path / "large.txt").write_bytes(b"a" * (2 << 20))
    _refused(tmp_path / "large.txt", "too large")


def test_files_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(folder)
    digests = file_digests([open_text(tmp_path / "one" / "a.txt"), open_text(tmp_path / "two" / "a.txt")])
    assert digests == {"a.txt": sha256_bytes(b"one"), "a.txt (2)": sha256_bytes(b"two")}


def test_one_file_given_twice(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="twice"):
        file_digests([open_text(tmp_path / "a.txt"), open_text(tmp_path / "b.txt")])


@settings(deadline=None)
@given(data=st.binary(max_size=60), gz=st.booleans())
def test_any_bytes_are_text_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, gz: bool) -> None:
    path = tmp_path_factory.getbasetemp() / ("any.txt.gz" if gz else "any.txt")
    path.write_bytes(data)
    opened = result_or_refusal(open_text, path)
    if opened is not None:
        assert opened.text.strip()
        assert "\0" not in opened.text
