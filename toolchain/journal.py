"""An append-only journal of records: one JSON object per line, each with its checksum.

What `append` has returned from is on the disk: one write and one fsync per record, under an exclusive lock. A line cut
short by a crash is set aside when the journal is next opened for appending, and so is a line whose checksum fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec

from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import disk_errors
from toolchain.records import decode_record

R = TypeVar("R", bound=msgspec.Struct)


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    check: str
    record: msgspec.Raw


def read_journal(path: Path, kind: type[R]) -> list[R]:
    """The records of a journal, in the order of writing; none where the file is missing. Takes no lock.

    A last line without its end (a writer was killed, or is writing now) is left out.

    Raises:
        IntegrityError: a whole line does not match its checksum.
    """
    records, damaged = _read(path, kind)
    if damaged:
        raise IntegrityError(
            f"{path} is damaged",
            why=f"line {damaged[0][0]} does not match its checksum",
            hint="run the command that fills it again: it sets the line aside and makes it anew",
        )
    return records


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
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise DeviceError(
                f"{self.path} is in use by another mostool", hint="wait until it has finished, then run this again"
            ) from error
        try:
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
        """Write `record`; when this returns it survives a crash."""
        line = _line(record)
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
        self.records, damaged = _read(self.path, self.kind)
        data = self.path.read_bytes()
        torn = data[data.rfind(b"\n") + 1 :]
        if not torn and not damaged:
            return
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with disk_errors(aside), aside.open("ab") as stream:
            for _, line in damaged:
                stream.write(line + b"\n")
            if torn:
                stream.write(torn + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if damaged:
            self._rewrite()
            numbers = ", ".join(str(number) for number, _ in damaged)
            self.repairs.append(f"{self.path}: line {numbers} did not match its checksum; set aside in {aside.name}")
        else:
            os.ftruncate(self._descriptor, len(data) - len(torn))
            os.fsync(self._descriptor)
        if torn:
            self.repairs.append(f"{self.path}: the last line was cut short; set aside in {aside.name}")

    def _rewrite(self) -> None:
        """Leave only the sound lines. Same file (the lock is on it), so the sound lines are copied aside first."""
        backup = self.path.with_name(f"{self.path.name}.before-repair")
        backup.write_bytes(self.path.read_bytes())
        sound = b"".join(_line(record) for record in self.records)
        os.ftruncate(self._descriptor, 0)
        written = 0
        while written < len(sound):
            written += os.write(self._descriptor, sound[written:])
        os.fsync(self._descriptor)
        backup.unlink()


def _line(record: msgspec.Struct) -> bytes:
    body = msgspec.json.encode(record)
    return b'{"check":"' + _checksum(body) + b'","record":' + body + b"}\n"


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()


def _read(path: Path, kind: type[R]) -> tuple[list[R], list[tuple[int, bytes]]]:
    """The sound records, and the damaged lines with their numbers."""
    records: list[R] = []
    damaged: list[tuple[int, bytes]] = []
    for number, line in _lines(path):
        try:
            envelope = msgspec.json.decode(line, type=_Line)
            sound = _checksum(bytes(envelope.record)) == envelope.check.encode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            sound = False
        if sound:
            records.append(decode_record(bytes(envelope.record), kind, f"{path}, line {number}"))
        else:
            damaged.append((number, line))
    return records, damaged


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    with stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                yield number, line[:-1]
