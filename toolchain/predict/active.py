"""Which networks to measure next: where the model is least sure, and some at random.

A latency model is as sure as its rows span the work that networks of the space do; the most telling next row is the one
it leans on most (sequential D-optimal design; Fedorov 1972). Random rows between keep the stated error near that of the
space, and not of its corners alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolchain.arrays import Floats

_RIDGE = 1e-3


def most_telling(candidates: Floats, measured: Floats, count: int) -> list[int]:
    """Rows of `candidates` [n, f] to measure, most telling first, beside those `measured` [m, f].

    Every second one maximises the leverage it would have given all before it; the rest follow the candidates' own
    order, which is random.
    """
    both = np.concatenate([measured, candidates])
    scale = both.std(axis=0)
    telling = scale > 1e-9 * np.maximum(np.abs(both.mean(axis=0)), 1e-300)
    scaled = np.concatenate([np.ones((len(both), 1)), (both - both.mean(axis=0))[:, telling] / scale[telling]], axis=1)
    known, open_rows = scaled[: len(measured)], scaled[len(measured) :]
    inverse = np.linalg.inv(known.T @ known + _RIDGE * np.eye(scaled.shape[1]))
    left = np.ones(len(candidates), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        row = int(np.argmax(left)) if len(chosen) % 2 else _least_sure(open_rows, inverse, left)
        left[row] = False
        chosen.append(row)
        grown = inverse @ open_rows[row]
        inverse -= np.outer(grown, grown) / (1 + open_rows[row] @ grown)
    return chosen


def _least_sure(rows: Floats, inverse: Floats, left: npt.NDArray[np.bool_]) -> int:
    return int(np.argmax(np.where(left, ((rows @ inverse) * rows).sum(axis=1), -np.inf)))
