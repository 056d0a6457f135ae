"""Masked words: which tokens a model must guess, and what it sees in their place (BERT, Devlin et al. 2019)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toolchain.text.tokenizing import MASK, SPECIALS, Ids

IGNORED = -100
_SHOWN_AS_MASK = 0.8
_SHOWN_AT_RANDOM = 0.1


class Masked(NamedTuple):
    """What goes in, and what must come out: int32 of one shape; targets are IGNORED where nothing is asked."""

    inputs: Ids
    targets: Ids


def mask_tokens(
    ids: npt.NDArray[np.integer], rng: np.random.Generator, vocabulary_size: int, share: float = 0.15
) -> Masked:
    """Ask for each token of `ids` [n, T] with probability `share`; special tokens are never asked for.

    Of those asked for, 80 % are shown as [MASK], 10 % as a random token, 10 % as they are. A row that has any token to
    ask for gets at least one, so short texts are not left out (this raises their share above `share`).
    """
    if vocabulary_size <= len(SPECIALS) or not 0 < share <= 1:
        raise ValueError(f"cannot mask with a vocabulary of {vocabulary_size} and a share of {share}")
    maskable = ids >= len(SPECIALS)
    draws = np.where(maskable, rng.random(ids.shape), 2.0)
    asked = draws < share
    forced = np.flatnonzero(maskable.any(axis=1) & ~asked.any(axis=1))
    asked[forced, draws[forced].argmin(axis=1)] = True
    shown = rng.random(ids.shape)
    random_tokens = rng.integers(len(SPECIALS), vocabulary_size, size=ids.shape)
    inputs = np.where(asked & (shown < _SHOWN_AS_MASK), MASK, ids)
    at_random = asked & (shown >= _SHOWN_AS_MASK) & (shown < _SHOWN_AS_MASK + _SHOWN_AT_RANDOM)
    inputs = np.where(at_random, random_tokens, inputs)
    return Masked(inputs.astype(np.int32), np.where(asked, ids, IGNORED).astype(np.int32))
