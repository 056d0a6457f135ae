"""What people type, parsed at the door: 80ms, 2MiB, 1.5M; numbers that are finite."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:
    _FloatType = click.ParamType  # click 8.2 and 8.3 know no ParamType[float]

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SPANS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SHARES = {"%": 0.01, "": 1.0}
_SIZES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z%]*)\s*", re.IGNORECASE)


class _Quantity(_FloatType):
    """A number with a unit; the value handed on is in `units` of 1."""

    def __init__(self, name: str, units: Mapping[str, float], example: str) -> None:
        self.name, self._units, self._example = name, units, example

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _NUMBER.fullmatch(str(value))
        if match is None or match[2].lower() not in self._units:
            units = ", ".join(unit for unit in self._units if unit)
            self.fail(f"{value!r} is no {self.name}: write it like {self._example} (units: {units})", param, ctx)
        number = float(match[1]) * self._units[match[2].lower()]
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is no {self.name}: it must be above zero", param, ctx)
        return number


class _Finite(click.FloatRange):
    """A number that is one: ranges alone let nan pass."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # click passes what was typed
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


POSITIVE = _Finite(0, min_open=True)
NOT_NEGATIVE = _Finite(0)
SHARE = _Finite(0, 1, max_open=True)
SPAN = _Quantity("span of time", _SPANS, "10min")
ERROR = _Quantity("error", _SHARES, "3%")
TIME = _Quantity("time", _TIMES, "80ms")
SIZE = _Quantity("size", _SIZES, "2MiB")
COUNT = _Quantity("count", _COUNTS, "1.5M")
