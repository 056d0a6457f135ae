"""When a candidate may be given up before it has seen all held-out items: a race against one rival, on the same items.

As in Hoeffding races (Maron & Moore 1994) and F-Race (Birattari et al. 2002), a candidate that is surely worse is
dropped early. Both answered the same items, so that only those count on which they differ (McNemar 1947); the unit is a
text, since tokens of one text are not independent.

The rule: let d be, for each of the n texts seen so far (of N), the rival's right answers less the candidate's. The
candidate is stopped where

    (sum(d) - 1) / sqrt((1 - n/N) * sum(d^2)) > the 1 - ERROR / looks quantile of Student's t, m - 1 degrees of freedom,

m being the number of texts with d != 0. Did the two answer equally many of all N right, each d would be as likely to
have the other sign: the left side is McNemar's statistic with its correction for whole numbers (for tokens, its like
over texts) and with the one for drawing from a finite number of texts (Cochran 1977). Student's quantile instead of the
normal one keeps it honest where m is small: where a handful of texts differ, none is stopped.

Its error rate: a candidate that on all items is as good as its rival is stopped with probability about `ERROR` at most,
over all looks together (Bonferroni); one that is better, less often still. That holds where the texts seen are like the
others: their order is drawn, with every length in every part of it (`spread`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

ERROR = 0.05
"""The probability that a candidate as good as its rival is given up."""

Counts = npt.NDArray[np.int64]

_SHARES = (1 / 8, 1 / 4, 1 / 2)


def looks(batches: int) -> tuple[int, ...]:
    """After how many of so many batches a candidate is looked at: rising, the last are all."""
    return tuple(sorted({math.ceil(share * batches) for share in _SHARES} | {batches}))


def spread(count: int, seed: int = 0) -> tuple[int, ...]:
    """The numbers below `count` in a drawn order of which every beginning covers the range evenly.

    Batches are sorted by length: the first 2^k of this order lie in different 2^k-ths of the lengths.
    """
    return tuple(_spread(range(count), np.random.default_rng(seed)))


def _spread(numbers: Sequence[int], rng: np.random.Generator) -> list[int]:
    if len(numbers) < 2:
        return list(numbers)
    middle = (len(numbers) + 1) // 2
    halves = [_spread(numbers[:middle], rng), _spread(numbers[middle:], rng)]
    if len(halves[0]) == len(halves[1]) and rng.random() < 0.5:
        halves.reverse()
    mixed = [number for pair in zip(*halves, strict=False) for number in pair]
    return mixed + halves[0][len(halves[1]) :]


class Race(NamedTuple):
    """A candidate against its rival.

    Attributes:
        order: the numbers of all batches, in the order in which a candidate answers them.
        rival: of each batch, how many targets of each text [texts] the rival has answered right.
        own: the same of the candidate, for the batches that it has answered so far.
    """

    order: tuple[int, ...]
    rival: dict[int, Counts]
    own: dict[int, Counts]

    def lost_after(self) -> int | None:
        """After how many batches of the order the candidate is to be given up; None: it goes on."""
        *early, _ = looks(len(self.order))
        texts = sum(len(counts) for counts in self.rival.values())
        for seen in early:
            batches = self.order[:seen]
            if any(number not in self.own for number in batches):
                return None
            differences = np.concatenate([self.rival[number] - self.own[number] for number in batches])
            if hopeless(differences, texts, len(early)):
                return seen
        return None


def hopeless(differences: Counts, texts: int, looks: int) -> bool:
    """Whether the rival is surely better.

    Args:
        differences: [n] what the rival answered right of each text seen, less what the candidate did.
        texts: how many there are in all, more than n.
        looks: how often this is asked of a candidate at most.
    """
    telling = differences[differences != 0].astype(np.float64)
    lead = float(telling.sum())
    if len(telling) < 2 or lead <= 1:
        return False
    unseen = 1 - len(differences) / texts
    return lead - 1 > _quantile(looks, len(telling) - 1) * math.sqrt(unseen * float(np.square(telling).sum()))


@functools.cache
def _quantile(looks: int, degrees: int) -> float:
    return float(student.ppf(1 - ERROR / looks, degrees))
