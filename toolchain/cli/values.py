"""What people type, parsed at the door: 80ms, 2MiB, 1.5M, rpi=5ms@p90; numbers that are finite."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

Percentile = Literal[50, 90, 99]


class Limits(NamedTuple):
    """What `rpi=2ms,5ms@p90` says: of which device (None is whichever is meant), at most how much, and how often.

    Several limits ask for the best subnet under each: a sweep. They are in the order they were typed.
    """

    device: str | None
    limits: tuple[float, ...]
    percentile: Percentile = 50

    @property
    def limit(self) -> float:
        """The loosest of them."""
        return max(self.limits)


if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
    _FloatsType = click.ParamType[tuple[float, ...]]
    _LimitsType = click.ParamType[Limits]
else:
    _FloatType = _FloatsType = _LimitsType = click.ParamType  # click 8.2 and 8.3 know no ParamType[float]

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SPANS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SHARES = {"%": 0.01, "": 1.0}
_SIZES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_ENERGIES = {"uj": 1e-6, "mj": 1e-3, "j": 1.0}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NUMBER = re.compile(r"((?:[0-9]+|[0-9]*\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*([a-z%]*)", re.IGNORECASE)
"""Takes time by the length of a text, and not by its square."""


class _Quantity(_FloatType):
    """A number with a unit; the value handed on is in `units` of 1."""

    def __init__(self, name: str, units: Mapping[str, float], example: str, *, zero: bool = False) -> None:
        self.name, self._units, self._example, self._zero = name, units, example, zero

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _NUMBER.fullmatch(str(value).strip())
        if match is None or match[2].lower() not in self._units:
            units = ", ".join(unit for unit in self._units if unit)
            self.fail(f"{value!r:.80} is no {self.name}: write it like {self._example} (units: {units})", param, ctx)
        number = float(match[1]) * self._units[match[2].lower()]
        if not 0 <= number < math.inf or not (number or self._zero):
            least = "finite" if self._zero else "above zero"
            self.fail(f"{value!r:.80} is no {self.name}: it must be {least}", param, ctx)
        return number


class _Several(_FloatsType):
    """One quantity, or several with commas between them: those of a sweep. Always a tuple."""

    def __init__(self, one: _Quantity) -> None:
        self.name, self._one = f"{one.name}[,...]", one

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        limits = tuple(self._one.convert(part, param, ctx) for part in str(value).split(","))
        if len(set(limits)) < len(limits):
            self.fail(f"{value!r:.80} names one limit twice", param, ctx)
        return limits


class _OnDevice(_LimitsType):
    """A limit on what a device takes, `[DEVICE=]LIMIT[,LIMIT...]`, a latency's with `@p90` behind it."""

    def __init__(self, one: _Quantity, percentiles: tuple[Percentile, ...] = ()) -> None:
        self._several, self._percentiles = _Several(one), percentiles
        self.name = f"[device=]{one.name}" + ("[@p90]" if percentiles else "")

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Limits:
        # No limit holds an equals sign, so a device's name may; and only what follows it can hold a percentile.
        device, named, said = str(value).rpartition("=")
        device = device.strip()
        if named and not device:
            self.fail(f"{value!r:.80} names no device before the equals sign", param, ctx)
        if "," in device:
            self.fail(f"{value!r:.80} names several devices: repeat the option for each", param, ctx)
        limits, at, percentile = said.partition("@")
        found = self._several.convert(limits, param, ctx)
        return Limits(device or None, found, self._percentile(percentile, param, ctx) if at else 50)

    def _percentile(self, said: str, param: click.Parameter | None, ctx: click.Context | None) -> Percentile:
        known = {f"p{one}": one for one in self._percentiles}
        percentile = known.get(said.strip().lower())
        if percentile is None:
            choice = f"it is one of {', '.join(known)}" if known else "only a latency has percentiles"
            self.fail(f"{'@' + said!r:.80} is no percentile: {choice}", param, ctx)
        return percentile


class _Finite(click.FloatRange):
    """A number that is one: ranges alone let nan pass."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # click passes what was typed
        if not math.isfinite(number):
            self.fail(f"{value!r:.80} is no finite number", param, ctx)
        return number


POSITIVE = _Finite(0, min_open=True)
NOT_NEGATIVE = _Finite(0)
SHARE = _Finite(0, 1, max_open=True)
SPAN = _Quantity("span of time", _SPANS, "10min")
ERROR = _Quantity("error", _SHARES, "3%")
DROP = _Quantity("share", _SHARES, "1%", zero=True)
TIME = _Quantity("time", _TIMES, "80ms")
SIZE = _Quantity("size", _SIZES, "2MiB")
COUNT = _Quantity("count", _COUNTS, "1.5M")
SIZES = _Several(SIZE)
COUNTS = _Several(COUNT)
LATENCY = _OnDevice(TIME, (50, 90, 99))
MEMORY = _OnDevice(SIZE)
ENERGY = _OnDevice(_Quantity("energy", _ENERGIES, "5mJ"))
