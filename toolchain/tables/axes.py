"""From the columns of a table file to the axes of a space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from toolchain.errors import UsageError
from toolchain.space import Axis, SearchSpace
from toolchain.tables.opening import Sheet

_BEYOND = 4
"""Times the largest choice of an axis, and of the smallest as small: further off, a file is of another space."""
AxisValue = float | tuple[float, ...]

_NUMBERED = re.compile(r"(.+?)[_.]?(\d{1,4})", re.ASCII | re.DOTALL)


class AxisColumns(NamedTuple):
    """Where a file holds an axis: one column, or one for each layer, first layer first. `called` is the file's name."""

    axis: Axis
    called: str
    single: int | None
    numbered: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        return self.numbered if self.single is None else (self.single,)


def find_axes(sheet: Sheet, space: SearchSpace, mapped: Mapping[str, str]) -> dict[str, AxisColumns]:
    """The columns of each axis that the file has; `mapped` says what the file calls an axis of another name.

    Raises:
        UsageError: an axis is there twice, its layers are not numbered 1, 2, 3, ..., or the file lacks it and nothing
            else tells it: it has several choices, and is no depth that shows in how many layers are filled.
    """
    place = {name: index for index, name in enumerate(sheet.names)}
    numbered = _numbered(sheet)
    called = {axis.name: mapped.get(axis.name, axis.name) for axis in space.axes}
    found: dict[str, AxisColumns] = {}
    for axis in space.axes:
        base = called[axis.name]
        others = {name for other, name in called.items() if other != axis.name}
        single = place.get(base)
        layers = numbered.get(base, {}) if axis.per else {}
        layers = {layer: kept for layer, names in layers.items() if (kept := [n for n in names if n not in others])}
        if single is None and not layers:
            if axis.name in mapped:
                raise sheet.fault(f"there is no column {base!r}", f"it has {_listed(sheet)}")
            continue
        if single is not None and layers:
            raise sheet.fault(f"{base!r} and {layers[min(layers)][0]!r} both tell {axis.name!r}", "keep one of the two")
        found[axis.name] = AxisColumns(axis, base, single, _in_order(sheet, base, layers, place))
    _refuse_shared(sheet, found)
    for axis in space.axes:
        if axis.name not in found and not _told_otherwise(sheet, space, axis, found):
            raise sheet.fault(
                f"no column tells the axis {axis.name!r}",
                f"say which with --column {axis.name}=COLUMN",
                why=f"it has {_listed(sheet)}",
            )
    return found


def _numbered(sheet: Sheet) -> dict[str, dict[int, list[str]]]:
    """Columns that end in a number: by what stands before it, and by the number."""
    found: dict[str, dict[int, list[str]]] = {}
    for name in sheet.names:
        if match := _NUMBERED.fullmatch(name):
            found.setdefault(match[1], {}).setdefault(int(match[2]), []).append(name)
    return found


def _in_order(sheet: Sheet, base: str, layers: dict[int, list[str]], place: dict[str, int]) -> tuple[int, ...]:
    for layer, names in layers.items():
        if len(names) > 1:
            raise sheet.fault(
                f"{names[0]!r} and {names[1]!r} both tell layer {layer} of {base!r}", "keep one of the two"
            )
    if layers and sorted(layers) != list(range(1, len(layers) + 1)):
        numbers = ", ".join(str(layer) for layer in sorted(layers)[:16])
        raise sheet.fault(f"the layers of {base!r} are numbered {numbers}", "number them 1, 2, 3, ... without gaps")
    return tuple(place[layers[layer][0]] for layer in sorted(layers))


def _refuse_shared(sheet: Sheet, found: dict[str, AxisColumns]) -> None:
    owner: dict[int, str] = {}
    for name, columns in found.items():
        for place in columns.places:
            if place in owner:
                raise sheet.fault(
                    f"the column {sheet.names[place]!r} cannot tell both {owner[place]!r} and {name!r}",
                    "give each axis a column of its own",
                )
            owner[place] = name


def _told_otherwise(sheet: Sheet, space: SearchSpace, axis: Axis, found: dict[str, AxisColumns]) -> bool:
    """Whether the space leaves no choice, or the axis is a depth that shows in its layers' columns."""
    layered = [found[other.name] for other in space.axes if other.per == axis.name and other.name in found]
    return len(axis.choices) == 1 or any(columns.numbered or sheet.typed for columns in layered)


def _listed(sheet: Sheet) -> str:
    names = ", ".join(sheet.names[:32])
    return f"{names}, and {len(sheet.names) - 32} more" if len(sheet.names) > 32 else names


# -- rows ------------------------------------------------------------------------------------------------------------


def read_axes(sheet: Sheet, space: SearchSpace, found: dict[str, AxisColumns]) -> list[dict[str, AxisValue]]:
    """Each row's value of every axis: what the file lacks is filled in, one value for all layers stands for each.

    Raises:
        UsageError: naming row and column: text, an empty cell, a layer missing or too many, a value that is smaller or
            larger than all choices of the axis, a depth that is no whole number.
    """
    return [_Row(sheet, space, found, row).read() for row in range(len(sheet.rows))]


def near_space(space: SearchSpace, axis: Axis, value: float) -> bool:
    """Whether a value is one that a table of the space may hold.

    Values somewhat beyond the space tell of the device's costs all the same; but depths decide the shape of arrays.
    """
    room = 1 if any(other.per == axis.name for other in space.axes) else _BEYOND
    return axis.choices[0] / room <= value <= axis.choices[-1] * room


def beyond_choices(space: SearchSpace, rows: list[dict[str, AxisValue]]) -> int:
    """How many rows hold a value outside the range of its axis."""
    ranges = {axis.name: (axis.choices[0], axis.choices[-1]) for axis in space.axes}
    return sum(
        any(
            not ranges[name][0] <= entry <= ranges[name][1]
            for name, value in row.items()
            for entry in (value if isinstance(value, tuple) else (value,))
        )
        for row in rows
    )


def between_choices(space: SearchSpace, rows: list[dict[str, AxisValue]]) -> int:
    """How many rows hold a value that is no choice of its axis."""
    choices = {axis.name: frozenset(float(choice) for choice in axis.choices) for axis in space.axes}
    return sum(
        any(
            not choices[name].issuperset(value if isinstance(value, tuple) else (value,)) for name, value in row.items()
        )
        for row in rows
    )


class _Row(NamedTuple):
    sheet: Sheet
    space: SearchSpace
    found: dict[str, AxisColumns]
    row: int

    def read(self) -> dict[str, AxisValue]:
        told = {name: self._told(columns) for name, columns in self.found.items()}
        axes: dict[str, AxisValue] = {}
        for axis in sorted(self.space.axes, key=lambda axis: axis.per is not None):  # depths come first
            if axis.per is None:
                axes[axis.name] = self._single(axis, told)
                continue
            depth = axes[axis.per]
            assert isinstance(depth, float)  # noqa: S101 - by the order above
            axes[axis.name] = self._layered(axis, told.get(axis.name, float(axis.choices[0])), int(depth))
        return {axis.name: axes[axis.name] for axis in self.space.axes}

    def _single(self, axis: Axis, told: dict[str, AxisValue]) -> float:
        value = told.get(axis.name)
        layered = [other.name for other in self.space.axes if other.per == axis.name]
        if value is None:
            filled = [len(entries) for name in layered if isinstance(entries := told.get(name), tuple)]
            if len(axis.choices) == 1:
                value = float(axis.choices[0])
            elif filled:
                value = float(filled[0])
            else:
                raise self._fault(
                    f"nothing tells the axis {axis.name!r}", f"add a column {axis.name}, or a list for each layer"
                )
        if isinstance(value, tuple):
            raise self._fault(f"{axis.name} is a list", f"{axis.name!r} is one number for the network")
        self._check(axis, value)
        if layered and value != int(value):
            raise self._fault(f"{axis.name} is {value:g}, no whole number of layers", "give it as a whole number")
        return value

    def _layered(self, axis: Axis, value: AxisValue, depth: int) -> tuple[float, ...]:
        entries = value if isinstance(value, tuple) else (value,) * depth
        if len(entries) != depth:
            raise self._fault(
                f"{axis.name} has {len(entries)} values for {depth} layers",
                f"leave the layers beyond {axis.per!r} empty, and fill all others",
            )
        for entry in set(entries):
            self._check(axis, entry)
        return entries

    def _told(self, columns: AxisColumns) -> AxisValue:
        """What the file says: one number, or one for each layer that is there."""
        cells = self.sheet.rows[self.row]
        if columns.single is not None:
            name, cell = self.sheet.names[columns.single], cells[columns.single]
            if not isinstance(cell, list):
                value = self.sheet.as_number(cell, self.row, name)
                if value is None:
                    raise self._fault(f"{name} is empty", "fill it in, or leave the row out")
                return value
            named = [(f"{name}[{index}]", entry) for index, entry in enumerate(cell)]
        else:
            named = [(self.sheet.names[place], cells[place]) for place in columns.numbered]
        values = [self.sheet.as_number(cell, self.row, name) for name, cell in named]
        while values and not values[-1]:
            values.pop()
        kept: list[float] = []
        for (name, _), entry in zip(named, values, strict=False):
            if not entry:
                raise self._fault(f"{name} is empty, and a later layer is not", "only the last layers may be missing")
            kept.append(entry)
        return tuple(kept)

    def _check(self, axis: Axis, value: float) -> None:
        if not near_space(self.space, axis, value):
            raise self._fault(
                f"{axis.name} is {value:g}, the space {self.space.name!r} has {axis.choices[0]} to {axis.choices[-1]}",
                "give a space that holds what was measured with --space",
            )

    def _fault(self, what: str, hint: str) -> UsageError:
        return self.sheet.fault(what, hint, row=self.row)
