"""Many architectures at once, as arrays: one per axis, so that counting and predicting a million is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from toolchain.space import Architecture, Axis, SearchSpace, Value

Floats = npt.NDArray[np.float64]
AxisArrays = Mapping[str, Floats]
"""Per axis of a space its values: [n] where the network has one, [n, most layers] where each layer has its own.

A layer that an architecture does not have holds 0. Published tables that tell only averages hold fractions.
"""


def to_arrays(space: SearchSpace, architectures: Sequence[Architecture]) -> AxisArrays:
    """These architectures, all of the space, as arrays."""
    return stack_axes(space, [one.axes for one in architectures])


def stack_axes(space: SearchSpace, rows: Sequence[Mapping[str, float | tuple[float, ...]]]) -> AxisArrays:
    """Rows of values by axis as arrays; averages stay the fractions they are."""
    arrays: dict[str, Floats] = {}
    for axis in space.axes:
        values = [row[axis.name] for row in rows]
        if axis.per is None:
            arrays[axis.name] = np.array(values, dtype=np.float64)
            continue
        filled = np.zeros((len(values), space.axis(axis.per).choices[-1]))
        for row, value in enumerate(values):
            if isinstance(value, tuple):
                filled[row, : len(value)] = value
        arrays[axis.name] = filled
    return arrays


def draw_arrays(space: SearchSpace, n: int, rng: np.random.Generator) -> AxisArrays:
    """`n` random architectures as arrays: each choice of each axis is as likely as the others."""
    if space.point is not None:
        return to_arrays(space, [space.point] * n)
    arrays: dict[str, Floats] = {
        axis.name: rng.choice(np.array(axis.choices, dtype=np.float64), n) for axis in space.axes if axis.per is None
    }
    for axis in space.axes:
        if axis.per is not None:
            shape = (n, space.axis(axis.per).choices[-1])
            drawn = rng.choice(np.array(axis.choices, dtype=np.float64), shape)
            arrays[axis.name] = drawn * present_layers(arrays[axis.per], shape[1])
    return arrays


def present_layers(depth: Floats, most: int) -> npt.NDArray[np.bool_]:
    """[n, most]: whether an architecture of so many layers has this one."""
    present: npt.NDArray[np.bool_] = np.arange(most) < depth[:, None]
    return present


def architecture_at(space: SearchSpace, arrays: AxisArrays, row: int) -> Architecture:
    """One row of the arrays as an architecture; the space has no say in whether it is one of its points."""

    def value(axis: Axis) -> Value:
        if axis.per is None:
            return int(arrays[axis.name][row])
        return tuple(int(entry) for entry in arrays[axis.name][row, : int(arrays[axis.per][row])])

    return Architecture(space.family, {axis.name: value(axis) for axis in space.axes})


def count(arrays: AxisArrays) -> int:
    """How many architectures there are."""
    return len(next(iter(arrays.values())))


def part(arrays: AxisArrays, rows: slice | npt.NDArray[np.intp]) -> AxisArrays:
    """Some of them."""
    return {name: values[rows] for name, values in arrays.items()}
