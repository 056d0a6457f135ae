from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from toolchain.errors import UsageError
from toolchain.text import Corpus, read_prose

T = TypeVar("T")
A = TypeVar("A")

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_NOUNS = ("fox", "dog", "bird", "ship", "king", "road", "tree", "river", "stone", "garden", "letter", "winter")
_VERBS = ("likes", "sees", "finds", "leaves", "brings", "crosses", "remembers")


@pytest.fixture(scope="session")
def prose() -> Corpus:
    """The built-in text of this machine's Python, read once."""
    return read_prose()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the corpora are not at {SHARED}")
    return SHARED


def sentences(count: int) -> list[str]:
    """Distinct sentences with words in common."""
    return [f"the {_NOUNS[i % 12]} {_VERBS[i % 7]} the old {_NOUNS[i // 12 % 12]} number {i} ." for i in range(count)]


def corpus(count: int = 200, labels: int = 2, *, grouped: bool = False) -> Corpus:
    return Corpus(
        texts=tuple(sentences(count)),
        labels=tuple(i % labels for i in range(count)) if labels else None,
        label_names=tuple(f"label {number}" for number in range(labels)),
        groups=tuple(i // 4 for i in range(count)) if grouped else None,
        title="made for a test",
        files={"made.txt": "0" * 64},
    )


def result_or_refusal(read: Callable[[A], T], source: A) -> T | None:
    """What `read` gives, or None where it raises a UsageError that says what to do; any other exception passes."""
    try:
        return read(source)
    except UsageError as error:
        refusal = error
    assert refusal.hint
    return None
