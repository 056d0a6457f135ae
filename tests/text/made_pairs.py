"""Parallel text made up for tests, and its tokens as lists."""

from __future__ import annotations

import itertools

import numpy as np

from toolchain.text.parallel import ParallelCorpus

from .conftest import sentences


def corpus(count: int = 200, start: int = 0) -> ParallelCorpus:
    sources = sentences(start + count)[start:]
    return ParallelCorpus(
        sources=tuple(sources),
        targets=tuple(f"Übersetzt: {' '.join(reversed(source.upper().split()))}" for source in sources),
        languages=("en", "de"),
        title="made for a test",
        files={"made.en": "0" * 64, "made.de": "1" * 64},
    )


def rows_of(tokens: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [tokens[start:end].tolist() for start, end in itertools.pairwise(starts)]
