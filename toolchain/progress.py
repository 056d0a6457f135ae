"""How a long stage says where it is: plain values, drawn by whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """One step of a long stage: `done` of `total` units, and the best or latest figure as `note`."""

    stage: str
    done: int
    total: int
    note: str = ""


ProgressListener = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Listen to nothing."""


Tell = Callable[[str], None]
"""Told, in one line, what long work waits for."""


def silent_tell(note: str) -> None:
    """Tell nobody."""
