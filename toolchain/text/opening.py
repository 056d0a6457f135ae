"""Opening what users give: UTF-8 text, plain or gzipped, with every way it can be wrong said in words."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes

LARGEST_FILE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_HINT = "save it as UTF-8 text, for example with `iconv -t UTF-8`"


class Opened(NamedTuple):
    """The text of a file, and the sha256 of the file as it lies on the disk."""

    path: Path
    text: str
    sha256: str


def open_text(path: Path) -> Opened:
    """The text of a file; a name ending in .gz is unpacked, a byte order mark is dropped.

    Raises:
        UsageError: it is missing, no plain file, unreadable, empty, larger than LARGEST_FILE_BYTES, not whole gzip, not
            UTF-8, or holds NUL bytes (the message names the file, and the line where there is one).
    """
    stored = _read_file(path)
    data = _unpack(path, stored) if path.suffix.lower() == ".gz" else stored
    if data.startswith(_UTF16_MARKS):
        raise UsageError(f"{shown(path)} is not UTF-8", why="it starts as UTF-16 does", hint=_UTF8_HINT)
    data = data.removeprefix(_UTF8_MARK)
    nul = data.find(0)
    if nul >= 0:
        raise UsageError(
            f"{shown(path)}, line {_line(data, nul)}: there is a NUL byte",
            why="text has none",
            hint=f"is it a binary file or UTF-16? {_UTF8_HINT}",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown(path)}, line {_line(data, error.start)}: not UTF-8", why=error.reason, hint=_UTF8_HINT
        ) from error
    if not text.strip():
        raise UsageError(f"{shown(path)} is empty", hint="give a file with text in it")
    return Opened(path, text, sha256_bytes(stored))


def shown(path: Path) -> str:
    """A path as it can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(path).decode(errors="replace")


def file_digests(opened: list[Opened]) -> dict[str, str]:
    """sha256 by base name; two files that share one are told apart by a number.

    Raises:
        UsageError: one file was given twice.
    """
    digests: dict[str, str] = {}
    seen: set[Path] = set()
    for one in opened:
        real = one.path.resolve()
        if real in seen:
            raise UsageError(f"{shown(one.path)} was given twice", hint="give each file once")
        seen.add(real)
        base = name = shown(Path(one.path.name))
        number = 2
        while name in digests:
            name = f"{base} ({number})"
            number += 1
        digests[name] = one.sha256
    return digests


def _read_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UsageError(f"{shown(path)} is a folder, a file is wanted", hint="give the file in it")
        if not path.exists():
            raise UsageError(f"there is no {shown(path)}", hint="check the path")
        if not path.is_file():
            raise UsageError(f"{shown(path)} is not a plain file", hint="save the data to a file first")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise _too_large(path)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {shown(path)}", why=error.strerror or str(error), hint="check the path and its permissions"
        ) from error
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"cannot read {shown(path)!r}", why=str(error), hint="check the path") from error


def _unpack(path: Path, stored: bytes) -> bytes:
    if not stored:
        return stored
    unpacked = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                unpacked += chunk
                if len(unpacked) > LARGEST_FILE_BYTES:
                    raise _too_large(path)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{shown(path)} is not a whole gzip file", why=str(error), hint="get it again; `gzip -t FILE` tests it"
        ) from error
    return bytes(unpacked)


def _too_large(path: Path) -> UsageError:
    return UsageError(
        f"{shown(path)} is too large",
        why=f"more than {LARGEST_FILE_BYTES >> 30} GiB of text",
        hint="give a part of it: `head -c 200M FILE > part.txt`",
    )


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
