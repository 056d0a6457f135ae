"""What a latency model is fitted on: rows of features, and what they took."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from toolchain.arrays import Floats
from toolchain.errors import UsageError

MINIMUM_ROWS = 9
MINIMUM_ROWS_TRANSFERRED = 4


class Rows(NamedTuple):
    """Measured networks, in the order they were measured: ids, features [n, features], latency_s [n].

    What holds for seconds holds for whatever adds up so: `cost` names it where it is bytes or joules.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    features: Floats
    latency_s: Floats
    cost: str = "latency_s"

    @classmethod
    def of(cls, ids: tuple[str, ...], features: dict[str, Floats], latency_s: Floats, cost: str = "latency_s") -> Self:
        return cls(ids, tuple(features), np.stack(list(features.values()), axis=1), latency_s, cost)

    def part(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Rows:
        """Some of them, by number or by a mask."""
        at = np.arange(len(self.ids))[rows]
        ids = tuple(self.ids[row] for row in at)
        return self._replace(ids=ids, features=self.features[at], latency_s=self.latency_s[at])


def check_rows(rows: Rows, least: int = MINIMUM_ROWS) -> None:
    """Refuse what no model can be fitted on.

    Raises:
        UsageError: fewer than `least` rows, a latency or feature that is no number or not positive, or all latencies
            alike.
    """
    count = len(rows.ids)
    if count < least:
        raise UsageError(
            f"{count} measured subnets are too few to fit a predictor",
            why=f"it takes {least}",
            hint="measure more: mostool profile --n 40; or lean on a device you know: --transfer DEVICE",
        )
    wrong = ~(np.isfinite(rows.latency_s) & (rows.latency_s > 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise UsageError(f"{rows.cost} of row {at} ({rows.ids[at]}) is {rows.latency_s[at]}", hint="it must be above 0")
    if not np.isfinite(rows.features).all():
        at = int(np.argmax(~np.isfinite(rows.features).all(axis=1)))
        raise UsageError(f"a feature of row {at} ({rows.ids[at]}) is no number")
    if float(np.ptp(rows.latency_s)) == 0:
        raise UsageError(
            f"all measured subnets cost exactly the same: {rows.cost} is constant",
            hint="the table cannot be right: profile --fresh",
        )
