"""What every record is, and how one is written to a file and read back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.files import write_bytes

SCHEMA = 1
_LARGEST_RECORD_BYTES = 32 << 20

T = TypeVar("T")
Source = Literal["measured", "predicted", "simulated", "emulated", "imported", "counted"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Any record."""


class Stored(Record, frozen=True, kw_only=True):
    """A record with a file of its own."""

    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema < 1:
            raise ValueError(f"there is no schema {self.schema}")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def encode_compact(record: msgspec.Struct) -> bytes:
    """One line of JSON that reads back as the same record.

    Raises:
        MostoolError: it would not. JSON has no NaN and no infinity (they would be stored as null), and text must be
            valid Unicode.
    """
    what = f"a {type(record).__name__} cannot be stored"
    try:
        data = msgspec.json.encode(record)
        same = msgspec.json.decode(data, type=type(record)) == record
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as fault:
        raise MostoolError(
            what, why=str(fault), hint="a figure in it is no finite number, or a text no Unicode"
        ) from fault
    if not same:
        raise MostoolError(what, why="it would read back as another", hint="a figure in it is no finite number")
    return _readable_back(what, data)


def encode_record(record: msgspec.Struct) -> bytes:
    """Readable JSON, the same bytes for the same record; see `encode_compact` for what is refused."""
    data = msgspec.json.format(encode_compact(record), indent=2) + b"\n"
    return _readable_back(f"a {type(record).__name__} cannot be stored", data)


def _readable_back(what: str, data: bytes) -> bytes:
    if len(data) > _LARGEST_RECORD_BYTES:
        raise MostoolError(what, why=f"{len(data)} bytes are more than can be read back")
    return data


def write_record(path: Path, record: msgspec.Struct) -> None:
    write_bytes(path, encode_record(record))


def decode_record(data: bytes, kind: type[T], where: str, error: type[MostoolError] = IntegrityError) -> T:
    """The record of type `kind` in `data`.

    Raises:
        error: not JSON, a field missing, unknown or of the wrong type (the message names its path), or a schema that
            this mostool does not read (the message says which).
    """
    if len(data) > _LARGEST_RECORD_BYTES:
        raise error(f"{where} is too large to be a record", why=f"it has more than {_LARGEST_RECORD_BYTES} bytes")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as fault:
        schema = _schema_of(data)
        _refuse_newer(schema, where, error)
        if schema < 1:
            raise error(
                f"{where} cannot be read",
                why=f"there is no schema {schema}: this mostool reads {SCHEMA}",
                hint="it was changed, or is older than any release: make it again with the command that wrote it",
            ) from fault
        raise error(f"{where} cannot be read", why=str(fault), hint="is it the right file, and complete?") from fault
    if isinstance(record, Stored):
        _refuse_newer(record.schema, where, error)
    return record


def read_record(path: Path, kind: type[T], error: type[MostoolError] = IntegrityError) -> T:
    """The record of type `kind` in the file `path`; see `decode_record` for what is refused."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_RECORD_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no {path}", hint="check the path") from None
    except OSError as fault:
        raise UsageError(f"cannot read {path}", why=fault.strerror or str(fault)) from fault
    return decode_record(data, kind, str(path), error)


def _refuse_newer(schema: int, where: str, error: type[MostoolError]) -> None:
    if schema > SCHEMA:
        raise error(
            f"{where} was written by a newer mostool",
            why=f"schema {schema}, this one knows {SCHEMA}",
            hint="upgrade mostool",
        )


class _Header(msgspec.Struct):
    schema: int


def _schema_of(data: bytes) -> int:
    try:
        return msgspec.json.decode(data, type=_Header).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return SCHEMA
