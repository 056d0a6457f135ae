"""An append-only journal of records: one JSON object per line, each with its checksum.

What `append` has returned from is on the disk: one write and one fsync per record, under an exclusive lock. A line cut
short by a crash is set aside when the journal is next opened for appending, and so is a line whose checksum fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import msgspec

from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import disk_errors, replacing, sweep, sync_folder
from toolchain.records import decode_record, encode_compact

R = TypeVar("R", bound=msgspec.Struct)

_HEAD, _MIDDLE, _END = b'{"check":"', b'","record":', b"}"
_CHECKSUM_BYTES = 16
_MOST_SHOWN = 8


def read_journal(path: Path, kind: type[R]) -> list[R]:
    """The records of a journal, in the order of writing; none where the file is missing. Takes no lock.

    A last line without its end (a writer was killed, or is writing now) is left out.

    Raises:
        IntegrityError: a whole line does not match its checksum.
    """
    contents = _read(path)
    if contents.damaged:
        raise IntegrityError(
            f"{path} is damaged",
            why=f"line {contents.damaged[0].first} does not match its checksum",
            hint="run the command that fills it again: it sets the line aside and makes it anew",
        )
    return _records(path, contents, kind)


class Journal(Generic[R]):
    """A journal open for appending, by one process at a time.

    Attributes:
        records: what the journal holds, appended ones included.
        repairs: one sentence for each line that had to be set aside on opening.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.kind = kind
        self.records: list[R] = []
        self.repairs: list[str] = []
        self._descriptor = -1

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _open_locked(self.path)
        try:
            with disk_errors(self.path):
                sync_folder(self.path.parent)
                sweep(self.path.parent)
                self._repair()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def append(self, record: R) -> None:
        """Write `record`; when this returns it survives a crash.

        Raises:
            MostoolError: the disk is full, or the record could not be read back (NaN). The journal is as it was before.
        """
        line = _line(encode_compact(record)) + b"\n"
        with disk_errors(self.path):
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
                os.fsync(self._descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise
        self.records.append(record)

    def _repair(self) -> None:
        """Move damaged and torn lines to `<name>.damaged`, and read the others."""
        contents = _read(self.path)
        self.records = _records(self.path, contents, self.kind)
        if not contents.torn and not contents.damaged:
            return
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with aside.open("ab") as stream:
            stream.writelines(one.text + b"\n" for one in contents.damaged)
            if contents.torn:
                stream.write(contents.torn + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._rewrite(contents.sound)
        if contents.damaged:
            self.repairs.append(
                f"{self.path}: line {_numbers(contents.damaged)} did not match its checksum; set aside in {aside.name}"
            )
        if contents.torn:
            self.repairs.append(f"{self.path}: the last line was cut short; set aside in {aside.name}")

    def _rewrite(self, sound: list[tuple[int, bytes]]) -> None:
        """Put a file of only the sound lines in the journal's place, and move the lock to it before anybody sees it."""
        with contextlib.ExitStack() as undo:
            with replacing(self.path) as part:
                part.write_bytes(b"".join(_line(body) + b"\n" for _, body in sound))
                fresh = os.open(part, os.O_RDWR | os.O_APPEND)
                undo.callback(os.close, fresh)
                fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            undo.pop_all()
        os.close(self._descriptor)
        self._descriptor = fresh


def _open_locked(path: Path) -> int:
    """The journal's descriptor, locked; DeviceError where another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise DeviceError(
                f"{path} is in use by another mostool", hint="wait until it has finished, then run this again"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # a repair put another file in its place between the opening and the lock


# -- lines -----------------------------------------------------------------------------------------------------------


class _Damaged(NamedTuple):
    """Damaged lines that follow each other, by their numbers: a disk that failed may leave millions."""

    first: int
    last: int
    text: bytes


class _Contents(NamedTuple):
    """What a journal holds: the JSON of its sound records, each with its line number, and what is damaged."""

    sound: list[tuple[int, bytes]]
    damaged: list[_Damaged]
    torn: bytes
    """The last line where it lacks its end."""


def _read(path: Path) -> _Contents:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Contents([], [], b"")
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    sound: list[tuple[int, bytes]] = []
    damaged: list[_Damaged] = []
    start, number = 0, 1
    run: tuple[int, int] | None = None  # where damaged lines begin: the number of the first, and its first byte
    while (end := data.find(b"\n", start)) >= 0:
        body = _body(data[start:end]) if data.startswith(_HEAD, start) else None
        if body is None:
            run = run or (number, start)
            if data.find(_HEAD, start, end) >= 0:
                sound.extend((number, within) for within in _bodies_within(data[start:end]))
        else:
            sound.append((number, body))
            if run is not None:
                damaged.append(_Damaged(run[0], number - 1, data[run[1] : start - 1]))
                run = None
        start, number = end + 1, number + 1
    if run is not None:
        damaged.append(_Damaged(run[0], number - 1, data[run[1] : start - 1]))
    tail = data[start:]
    if _body(tail) is None and (bodies := _bodies_within(tail)):  # whole, and more: not torn, its end was damaged
        damaged.append(_Damaged(number, number, tail))
        sound.extend((number, body) for body in bodies)
        tail = b""
    return _Contents(sound, damaged, tail)


def _numbers(damaged: list[_Damaged]) -> str:
    """Of damaged lines, as a person reads them: `3, 5-8 and 2 places more`."""
    shown = [str(one.first) if one.first == one.last else f"{one.first}-{one.last}" for one in damaged]
    more = len(shown) - _MOST_SHOWN
    return ", ".join(shown[:_MOST_SHOWN]) + (f" and {more} places more" if more > 0 else "")


def _records(path: Path, contents: _Contents, kind: type[R]) -> list[R]:
    return [decode_record(body, kind, f"{path}, line {number}") for number, body in contents.sound]


def _line(body: bytes) -> bytes:
    checksum = hashlib.sha256(body).hexdigest()[:_CHECKSUM_BYTES].encode()
    return _HEAD + checksum + _MIDDLE + body + _END


def _body(line: bytes) -> bytes | None:
    """The record's JSON in a line, None unless every byte of the line is as it was written."""
    body = line[len(_HEAD) + _CHECKSUM_BYTES + len(_MIDDLE) : -len(_END)]
    return body if line == _line(body) else None


def _bodies_within(line: bytes) -> list[bytes]:
    """The records of whole lines inside a damaged one: where a line's end was hit, both its neighbours are unharmed."""
    if _HEAD not in line:
        return []
    text = line.decode("latin-1")  # one character for each byte
    bodies = []
    for head in re.finditer(re.escape(_HEAD), line):
        try:
            _, end = json.JSONDecoder().raw_decode(text, head.start())
        except (ValueError, RecursionError):
            continue
        if (body := _body(line[head.start() : end])) is not None:
            bodies.append(body)
    return bodies
