"""Architectures as rows of whole numbers, so that a searcher draws, mutates and crosses thousands at once.

A gene is one entry of one axis; its value is the number of a choice, and ABSENT where the network has no such layer.
Every architecture has exactly one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from toolchain.arrays import AxisArrays, architecture_at, present_layers
from toolchain.space import Architecture, SearchSpace

Rows = npt.NDArray[np.int16]
"""Architectures [n, genes]."""

ABSENT = -1


class Genes:
    """The rows of one space.

    Attributes:
        axes: per axis its genes, as a slice of the row: one, or one for each layer there may be.
        choices: [genes], how many choices each gene has.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.axes: dict[str, slice] = {}
        self._per = {axis.name: axis.per for axis in space.axes}
        self._numbers = {axis.name: {choice: at for at, choice in enumerate(axis.choices)} for axis in space.axes}
        self._values = {axis.name: np.array([*axis.choices, 0], dtype=np.float64) for axis in space.axes}
        counts: list[int] = []
        for axis in space.axes:
            slots = space.axis(axis.per).choices[-1] if axis.per else 1
            self.axes[axis.name] = slice(len(counts), len(counts) + slots)
            counts += [len(axis.choices)] * slots
        self.choices = np.array(counts)

    def __len__(self) -> int:
        return len(self.choices)

    # -- between architectures and rows -------------------------------------------------------------------------

    def rows(self, architectures: Sequence[Architecture]) -> Rows:
        rows = np.full((len(architectures), len(self)), ABSENT, dtype=np.int16)
        for row, architecture in zip(rows, architectures, strict=True):
            for name, genes in self.axes.items():
                value = architecture.axes[name]
                entries = value if isinstance(value, tuple) else (value,)
                row[genes.start : genes.start + len(entries)] = [self._numbers[name][entry] for entry in entries]
        return rows

    def arrays(self, rows: Rows) -> AxisArrays:
        """The rows as the values of their axes: an absent layer holds 0."""
        return {
            name: self._values[name][rows[:, genes] if self._per[name] else rows[:, genes.start]]
            for name, genes in self.axes.items()
        }

    def architectures(self, rows: Rows) -> list[Architecture]:
        arrays = self.arrays(rows)
        return [architecture_at(self.space, arrays, row) for row in range(len(rows))]

    # -- new rows -----------------------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Each choice of each gene is as likely as the others."""
        return self._whole(self._draw(n, rng), rng)

    def sample_even(self, n: int, rng: np.random.Generator) -> Rows:
        """Networks whose layers are all alike: they spread wider in size than independent draws."""
        rows = self._draw(n, rng)
        for name, genes in self.axes.items():
            if self._per[name]:
                rows[:, genes] = rows[:, genes.start, None]
        return self._whole(rows, rng)

    def mutate(self, rows: Rows, rng: np.random.Generator, probability: float) -> Rows:
        """Each gene is drawn anew with `probability`, and one in any case; layers that are added are random ones."""
        redrawn = rng.random(rows.shape) < probability
        redrawn[np.arange(len(rows)), rng.integers(len(self), size=len(rows))] = True
        return self._whole(np.where(redrawn, self._draw(len(rows), rng), rows).astype(np.int16), rng)

    def step(self, rows: Rows, rng: np.random.Generator, probability: float) -> Rows:
        """Each gene moves to the choice beside it with `probability`, and one in any case."""
        moved = rng.random(rows.shape) < probability
        moved[np.arange(len(rows)), rng.integers(len(self), size=len(rows))] = True
        by = np.where(rng.random(rows.shape) < 0.5, -1, 1)
        stepped = np.clip(rows + by, 0, self.choices - 1)
        return self._whole(np.where(moved & (rows != ABSENT), stepped, rows).astype(np.int16), rng)

    def cross(self, first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
        """Children whose every gene comes from either parent."""
        taken = np.where(rng.random(first.shape) < 0.5, first, second)
        other = np.where(taken == ABSENT, np.maximum(first, second), taken)
        return self._whole(other.astype(np.int16), rng)

    def extremes(self) -> Rows:
        """The smallest and the largest."""
        return self.rows([self.space.smallest(), self.space.largest()])

    def enumerate(self, at_once: int = 4096) -> Iterator[Rows]:
        """Every row once, some at a time. For spaces small enough to walk through."""
        waiting: list[Architecture] = []
        for architecture in self.space.enumerate():
            waiting.append(architecture)
            if len(waiting) == at_once:
                yield self.rows(waiting)
                waiting = []
        if waiting:
            yield self.rows(waiting)

    # -- inside -------------------------------------------------------------------------------------------------

    def _draw(self, n: int, rng: np.random.Generator) -> Rows:
        drawn: Rows = (rng.random((n, len(self))) * self.choices).astype(np.int16)
        return drawn

    def _whole(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Rows made canonical: exactly the layers that their depth says, missing ones drawn."""
        for name, genes in self.axes.items():
            per = self._per[name]
            if per is None:
                continue
            depth = self._values[per][rows[:, self.axes[per].start]]
            present = present_layers(depth, genes.stop - genes.start)
            missing = present & (rows[:, genes] == ABSENT)
            if missing.any():
                drawn = (rng.random(missing.shape) * self.choices[genes]).astype(np.int16)
                rows[:, genes] = np.where(missing, drawn, rows[:, genes])
            rows[:, genes] = np.where(present, rows[:, genes], ABSENT)
        return rows


def keys(rows: Rows) -> list[bytes]:
    """What tells rows apart."""
    return [row.tobytes() for row in np.ascontiguousarray(rows)]
