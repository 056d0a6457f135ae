"""Search spaces and the architectures in them.

A space is a list of axes. An axis is one whole number for the network (its depth, an embedding width) or one per layer
(`per` names the depth axis that says how many layers there are). An architecture gives each axis its value; the
per-layer axes hold exactly as many entries as the network has layers, so every network has one spelling and one id.
A space may be narrowed to one of its architectures (`point`): what is trained alone, or was cut out, lives in such.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from toolchain.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np

Value = int | tuple[int, ...]

_MOST_LAYERS = 1024
_LARGEST_CHOICE = (1 << 31) - 1


class Axis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One axis of a space: its name, its choices in rising order and, for a per-layer axis, its depth axis."""

    name: str
    choices: tuple[int, ...]
    per: str | None = None

    def __post_init__(self) -> None:
        if not self.choices or list(self.choices) != sorted(set(self.choices)) or self.choices[0] < 1:
            raise ValueError(f"axis {self.name!r}: choices must be distinct whole numbers from 1, in rising order")
        if self.choices[-1] > _LARGEST_CHOICE:
            raise ValueError(f"axis {self.name!r}: choices must be at most {_LARGEST_CHOICE}")


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One point of a space. Two architectures are the same network exactly when their `id` is the same."""

    family: str
    axes: dict[str, Value]

    @property
    def id(self) -> str:
        canonical = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(canonical).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.id)

    def number(self, axis: str) -> int:
        """The value of an axis that has one value for the whole network."""
        value = self.axes[axis]
        if isinstance(value, tuple):
            raise TypeError(f"axis {axis!r} has one value per layer")
        return value

    def layers(self, axis: str) -> tuple[int, ...]:
        """The values of a per-layer axis, first layer first."""
        value = self.axes[axis]
        if isinstance(value, int):
            raise TypeError(f"axis {axis!r} has one value for the whole network")
        return value


class SearchSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The architectures of a family that may be chosen, and the sizes that are the same in all of them.

    With a `point`, that architecture alone: every draw gives it, and it is the smallest and the largest.
    """

    name: str
    family: str
    axes: tuple[Axis, ...]
    fixed: dict[str, int] = {}
    point: Architecture | None = None

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if len(set(names)) != len(names):
            raise ValueError(f"space {self.name!r}: two axes share a name")
        for axis in self.axes:
            if axis.per is None:
                continue
            if axis.per not in names or self.axis(axis.per).per is not None:
                raise ValueError(f"space {self.name!r}: axis {axis.name!r} is per {axis.per!r}, which is no depth axis")
            if self.axis(axis.per).choices[-1] > _MOST_LAYERS:
                raise ValueError(f"space {self.name!r}: axis {axis.per!r} has more than {_MOST_LAYERS} layers")

    def narrowed(self, architecture: Architecture) -> SearchSpace:
        """The space of this architecture alone. Raises UsageError where it is not a point of this space."""
        self.check(architecture)
        return msgspec.structs.replace(self, point=architecture)

    # -- what is in it ------------------------------------------------------------------------------------------

    def axis(self, name: str) -> Axis:
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise unknown_name("axis", name, [axis.name for axis in self.axes])

    def check(self, architecture: Architecture) -> None:
        """Raise UsageError naming the axis when `architecture` is not a point of this space."""
        if self.point is not None and architecture != self.point:
            raise UsageError(
                f"the architecture {architecture.id} is not the one this run holds",
                hint=f"it was cut down to {self.point.id}: leave the architecture out, or name another run with --run",
            )
        if architecture.family != self.family:
            raise UsageError(
                f"the architecture is of family {architecture.family!r}, the space {self.name!r} of {self.family!r}"
            )
        for name in architecture.axes:
            self.axis(name)
        for axis in sorted(self.axes, key=lambda axis: axis.per is not None):  # a wrong depth is blamed, not its layers
            if axis.name not in architecture.axes:
                raise UsageError(f"the architecture lacks the axis {axis.name!r}", hint=self._shape_hint(axis))
            value = architecture.axes[axis.name]
            entries = value if isinstance(value, tuple) else (value,)
            wanted = 1 if axis.per is None else _single(architecture.axes.get(axis.per))
            if isinstance(value, tuple) != (axis.per is not None) or len(entries) != wanted:
                raise UsageError(f"axis {axis.name!r} has {value!r}", hint=self._shape_hint(axis))
            for entry in entries:
                if entry not in axis.choices:
                    raise UsageError(
                        f"axis {axis.name!r}: {entry} is not among its choices",
                        hint=f"choices: {', '.join(map(str, axis.choices))}",
                    )

    def size(self) -> int:
        """How many distinct architectures there are."""
        if self.point is not None:
            return 1
        depth_axes = self._depth_axes()
        total = 0
        for depths in itertools.product(*(axis.choices for axis in depth_axes)):
            layers = {axis.name: depth for axis, depth in zip(depth_axes, depths, strict=True)}
            total += math.prod(
                len(axis.choices) ** layers[axis.per] if axis.per else len(axis.choices)
                for axis in self.axes
                if axis.name not in layers
            )
        return total

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once. For spaces small enough to walk through."""
        if self.point is not None:
            yield self.point
            return
        depth_axes = self._depth_axes()
        for depths in itertools.product(*(axis.choices for axis in depth_axes)):
            layers = {axis.name: depth for axis, depth in zip(depth_axes, depths, strict=True)}
            options: list[list[Value]] = []
            for axis in self.axes:
                if axis.name in layers:
                    options.append([layers[axis.name]])
                elif axis.per:
                    options.append(list(itertools.product(axis.choices, repeat=layers[axis.per])))
                else:
                    options.append(list(axis.choices))
            for values in itertools.product(*options):
                yield self._architecture(dict(zip((axis.name for axis in self.axes), values, strict=True)))

    # -- points of it -------------------------------------------------------------------------------------------

    def smallest(self) -> Architecture:
        """The architecture with the first choice on every axis."""
        return self._pick(lambda axis: axis.choices[0])

    def largest(self) -> Architecture:
        """The architecture with the last choice on every axis."""
        return self._pick(lambda axis: axis.choices[-1])

    def middle(self) -> Architecture:
        """The architecture with the middle choice on every axis."""
        return self._pick(lambda axis: axis.choices[len(axis.choices) // 2])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture: each choice of each axis is as likely as the others."""
        return self._pick(lambda axis: int(rng.choice(axis.choices)))

    def sample_even(self, rng: np.random.Generator) -> Architecture:
        """A random architecture whose layers are all alike: such draws spread wider in size than independent ones."""
        chosen = {axis.name: int(rng.choice(axis.choices)) for axis in self.axes}
        return self._pick(lambda axis: chosen[axis.name])

    def mutate(self, architecture: Architecture, rng: np.random.Generator, probability: float) -> Architecture:
        """A copy in which each entry is drawn anew with `probability`; layers that are added are random ones."""
        return self._inherit(
            lambda axis, entry: None if rng.random() < probability else _entry(architecture, axis, entry),
            rng,
        )

    def crossover(self, first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
        """A child whose every entry comes from either parent, as likely from one as from the other."""

        def inherited(axis: Axis, entry: int) -> int | None:
            parents = (first, second) if rng.random() < 0.5 else (second, first)
            mine = _entry(parents[0], axis, entry)
            return mine if mine is not None else _entry(parents[1], axis, entry)

        return self._inherit(inherited, rng)

    # -- as numbers ---------------------------------------------------------------------------------------------

    def encoding_size(self) -> int:
        return sum(self._slots(axis) for axis in self.axes)

    def encode(self, architecture: Architecture) -> tuple[float, ...]:
        """Every axis of every layer as one number in [0, 1]: value / largest choice, 0 where the layer is absent.

        Injective on the space: two architectures never share an encoding. Length `encoding_size()`.
        """
        numbers: list[float] = []
        for axis in self.axes:
            value = architecture.axes[axis.name]
            entries = value if isinstance(value, tuple) else (value,)
            numbers.extend(entry / axis.choices[-1] for entry in entries)
            numbers.extend(0.0 for _ in range(self._slots(axis) - len(entries)))
        return tuple(numbers)

    @property
    def digest(self) -> str:
        """The short name of exactly this space."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    # -- inside -------------------------------------------------------------------------------------------------

    def _depth_axes(self) -> list[Axis]:
        counted = {axis.per for axis in self.axes}
        return [axis for axis in self.axes if axis.name in counted]

    def _slots(self, axis: Axis) -> int:
        return self.axis(axis.per).choices[-1] if axis.per else 1

    def _pick(self, choose: _Chooser) -> Architecture:
        if self.point is not None:
            return self.point
        values: dict[str, Value] = {axis.name: choose(axis) for axis in self.axes if axis.per is None}
        for axis in self.axes:
            if axis.per is not None:
                values[axis.name] = tuple(choose(axis) for _ in range(_single(values[axis.per])))
        return self._architecture(values)

    def _inherit(self, inherited: _Inheritance, rng: np.random.Generator) -> Architecture:
        if self.point is not None:
            return self.point

        def value(axis: Axis, entry: int) -> int:
            kept = inherited(axis, entry)
            return int(rng.choice(axis.choices)) if kept is None else kept

        values: dict[str, Value] = {axis.name: value(axis, 0) for axis in self.axes if axis.per is None}
        for axis in self.axes:
            if axis.per is not None:
                values[axis.name] = tuple(value(axis, entry) for entry in range(_single(values[axis.per])))
        return self._architecture(values)

    def _architecture(self, values: Mapping[str, Value]) -> Architecture:
        return Architecture(self.family, {axis.name: values[axis.name] for axis in self.axes})

    def _shape_hint(self, axis: Axis) -> str:
        shape = f"a list with one entry for each of the {axis.per!r} layers" if axis.per else "one whole number"
        return f"{axis.name!r} is {shape}, from {', '.join(map(str, axis.choices))}"


def _single(value: Value | None) -> int:
    return value if isinstance(value, int) else 0


def _entry(architecture: Architecture, axis: Axis, entry: int) -> int | None:
    """Entry number `entry` of an axis, None where this architecture has no such layer."""
    value = architecture.axes[axis.name]
    if isinstance(value, int):
        return value
    return value[entry] if entry < len(value) else None


if TYPE_CHECKING:
    from collections.abc import Callable

    _Chooser = Callable[[Axis], int]
    _Inheritance = Callable[[Axis, int], int | None]
