"""Charts as SVG: a pair of linear axes and the marks drawn between them.

A drawing is an element tree, so whatever text goes in is escaped by construction. It carries no colours: classes name
what a mark is, and style.css gives them their look in light, dark and print. Lengths are in the units of the view box,
which the page scales to its width; nothing here knows about seconds, bytes or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

Shape = Literal["circle", "square", "diamond", "triangle", "star", "cross"]
Spot = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

_WIDTH, _HEIGHT = 720.0, 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 68.0, 20.0, 40.0, 62.0


class Axis(NamedTuple):
    """A linear axis from `low` to `high`, with a label and the values its ticks stand at."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int

    @classmethod
    def around(cls, values: Iterable[float], label: str, *, room: float = 0.06, ticks: int = 6) -> Axis:
        """The axis that holds all finite `values` with some room, its ticks at 1, 2 or 5 times a power of ten.

        Raises:
            ValueError: there is no finite value.
        """
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(finite), max(finite)
        margin = room * (high - low) or 0.1 * abs(high) or 1.0
        bottom, high = low - margin, high + margin
        low = 0.0 if low >= 0 > bottom else bottom
        step = _step((high - low) / ticks)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        return cls(label, low, high, tuple(number * step for number in range(first, last + 1)), places)

    def text(self, value: float) -> str:
        return f"{value:,.{self.decimals}f}"


class Chart:
    """A chart to be filled mark by mark, those drawn later lying above the earlier ones.

    Points and lines are given in the units of the axes; what is not finite is left out.
    """

    def __init__(self, title: str, x: Axis, y: Axis) -> None:
        self.x, self.y = x, y
        self._svg = Element("svg", {"viewBox": f"0 0 {_n(_WIDTH)} {_n(_HEIGHT)}", "role": "img", "aria-label": title})
        self._scaffold()

    # -- marks --------------------------------------------------------------------------------------------------

    def area(self, corners: Sequence[Spot], kind: str) -> None:
        """A filled polygon; corners outside the axes are brought to their edge."""
        places = " ".join(f"{_n(self._across(x))},{_n(self._up(y))}" for x, y in corners)
        SubElement(self._svg, "polygon", {"class": f"area {kind}", "points": places})

    def line(self, points: Sequence[Spot], kind: str) -> None:
        drawn = [point for point in points if _finite(point)]
        if len(drawn) > 1:
            places = " ".join(f"{_n(self._across(x))},{_n(self._up(y))}" for x, y in drawn)
            SubElement(self._svg, "polyline", {"class": f"line {kind}", "points": places})

    def point(self, place: Spot, kind: str, tooltip: str, shape: Shape = "circle", radius: float = 4) -> None:
        """One datum, with a tooltip of its own."""
        self._spot(place, f"point {kind}", tooltip, shape, radius)

    def mark(self, place: Spot, kind: str, tooltip: str, shape: Shape = "circle", radius: float = 4) -> None:
        """Something that is said about the data, not one of them."""
        self._spot(place, f"mark {kind}", tooltip, shape, radius)

    def ring(self, place: Spot, kind: str, name: str, *, above: bool = True) -> None:
        """A ring around a place, and its name in words beside it, on the side where there is room."""
        if _finite(place):
            across, up = self._across(place[0]), self._up(place[1])
            _mark(self._svg, "circle", (across, up), 9, f"ring {kind}")
            left = _share(place[0], self.x) < 0.4
            spot = (across + (8 if left else -8), up - 14 if above else up + 26)
            _text(self._svg, spot, name, f"name {kind}", "start" if left else "end")

    def svg(self) -> Markup:
        return _markup(self._svg)

    # -- inside -------------------------------------------------------------------------------------------------

    def _spot(self, place: Spot, kind: str, tooltip: str, shape: Shape, radius: float) -> None:
        if _finite(place):
            element = _mark(self._svg, shape, (self._across(place[0]), self._up(place[1])), radius, kind)
            SubElement(element, "title").text = tooltip

    def _scaffold(self) -> None:
        """The grid, the ticks and the axes' names."""
        grid = SubElement(self._svg, "g", {"class": "axis"})
        floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        for value in self.y.ticks:
            up = self._up(value)
            _line(grid, (_LEFT, up), (right, up))
            _text(grid, (_LEFT - 8, up + 5), self.y.text(value), "tick", "end")
        for value in self.x.ticks:
            across = self._across(value)
            _line(grid, (across, floor), (across, floor + 5))
            _text(grid, (across, floor + 24), self.x.text(value), "tick", "middle")
        _line(grid, (_LEFT, floor), (right, floor), "base")
        _text(grid, (6, 20), self.y.label, "axis-name", "start")
        _text(grid, (right, _HEIGHT - 10), self.x.label, "axis-name", "end")

    def _across(self, value: float) -> float:
        return _LEFT + _share(value, self.x) * (_WIDTH - _LEFT - _RIGHT)

    def _up(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - _share(value, self.y) * (_HEIGHT - _TOP - _BOTTOM)


def mark_swatch(kind: str, shape: Shape = "circle", *, ring: bool = False) -> Markup:
    """A mark on its own, for a legend."""
    svg = _swatch()
    _mark(svg, shape, (12, 8), 6 if ring else 4.5, f"{'ring' if ring else 'swatch'} {kind}")
    return _markup(svg)


def line_swatch(kind: str) -> Markup:
    svg = _swatch()
    SubElement(svg, "polyline", {"class": f"line {kind}", "points": "1,8 23,8"})
    return _markup(svg)


def area_swatch(kind: str) -> Markup:
    svg = _swatch()
    SubElement(svg, "polygon", {"class": f"area {kind}", "points": "1,2 23,2 23,14 1,14"})
    return _markup(svg)


def staircase(points: Iterable[Spot]) -> list[Spot]:
    """The line from point to point in rising x that keeps each y until the next point."""
    stairs: list[Spot] = []
    for x, y in sorted(points):
        if stairs:
            stairs.append((x, stairs[-1][1]))
        stairs.append((x, y))
    return stairs


def _share(value: float, axis: Axis) -> float:
    return min(1.0, max(0.0, (value - axis.low) / (axis.high - axis.low)))


def _step(rough: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less than `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _finite(place: Spot) -> bool:
    return math.isfinite(place[0]) and math.isfinite(place[1])


def _mark(parent: Element, shape: Shape, place: Spot, radius: float, kind: str) -> Element:
    x, y = place
    if shape == "circle":
        return SubElement(parent, "circle", {"class": kind, "cx": _n(x), "cy": _n(y), "r": _n(radius)})
    corners = " ".join(f"{_n(x + radius * across)},{_n(y + radius * up)}" for across, up in _OUTLINES[shape])
    return SubElement(parent, "polygon", {"class": kind, "points": corners})


def _line(parent: Element, start: Spot, end: Spot, kind: str = "grid") -> None:
    (x1, y1), (x2, y2) = start, end
    SubElement(parent, "line", {"class": kind, "x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)})


def _text(parent: Element, place: Spot, text: str, kind: str, anchor: Anchor) -> None:
    x, y = _n(place[0]), _n(place[1])
    SubElement(parent, "text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}).text = text


def _swatch() -> Element:
    return Element("svg", {"viewBox": "0 0 24 16", "class": "swatch-box", "aria-hidden": "true"})


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode", short_empty_elements=False))  # noqa: S704 # escaped by ElementTree


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


_OUTLINES: dict[Shape, tuple[Spot, ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "triangle": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
    "star": tuple(
        (scale * math.sin(turn * math.pi / 5), -scale * math.cos(turn * math.pi / 5))
        for turn, scale in enumerate((1.7, 0.75) * 5)
    ),
    "cross": (
        *((-0.35, -1.2), (0.35, -1.2), (0.35, -0.35), (1.2, -0.35), (1.2, 0.35), (0.35, 0.35)),
        *((0.35, 1.2), (-0.35, 1.2), (-0.35, 0.35), (-1.2, 0.35), (-1.2, -0.35), (-0.35, -0.35)),
    ),
}
