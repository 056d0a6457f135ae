"""What a parser of foreign data is to the fuzzer, and what any of them may raise."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from toolchain.errors import MostoolError
from toolchain.journal import _line
from toolchain.records import decode_record, encode_record

from .spoiling import spoiled

REFUSALS = (MostoolError, click.UsageError)
"""What a parser may raise; what it raises besides is a fault of the program."""

Parse = Callable[[bytes, Path], object]


class Parser(NamedTuple):
    """A door by which data comes in: its grammar, valid examples, and what is done with it in a scratch folder.

    `parse` raises one of REFUSALS or returns, and asserts what must hold of what it has read: that it is stored and
    read back as the same.
    """

    grammar: str
    seeds: Sequence[bytes]
    parse: Parse

    def spoiled(self, rng: random.Random) -> bytes:
        return spoiled(rng, self.seeds, self.grammar)


def reads_back(record: Any, kind: type) -> None:
    stored = encode_record(record)
    again = decode_record(stored, kind, "here")
    assert again == record
    assert encode_record(again) == stored


def sealed(lines: bytes) -> bytes:
    """A journal of these records, with checksums that fit whatever they hold."""
    return b"".join(_line(line) + b"\n" for line in lines.split(b"\n") if line)
