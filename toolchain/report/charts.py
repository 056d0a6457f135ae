"""Charts as SVG: a pair of axes, linear or logarithmic, and the marks drawn between them.

A drawing is an element tree, so whatever text goes in is escaped by construction. It carries no colours: classes name
what a mark is, and style.css gives them their look in light, dark and print. Nor does it refer to anything by an id:
a hatching is lines, so that it prints and a page may hold any number of charts. Lengths are in the units of the view
box, which the page scales to its width; nothing here knows about seconds, bytes or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

Shape = Literal["circle", "square", "diamond", "triangle", "star", "cross"]
Spot = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

_WIDTH, _HEIGHT = 720.0, 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 22.0, 48.0, 64.0
_LETTER = 12.6
"""How wide a digit is at most: on a narrow page the letters are larger, so that they can be read when scaled."""
_HATCH = 12.0
_SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle", "cross")
_COLOURS = 6
_LONGEST_TEXT = 90


class Axis(NamedTuple):
    """An axis from `low` to `high`, with a label and the values its ticks stand at; a `log` one is above zero."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int
    log: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], label: str, *, room: float = 0.06, ticks: int = 6, log: bool = False
    ) -> Axis:
        """The axis that holds all finite `values` with some room, its ticks at 1, 2 or 5 times a power of ten.

        A `log` one leaves out what is not above zero.

        Raises:
            ValueError: there is no such value.
        """
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        low, high = min(finite), max(finite)
        if log:
            return cls._logarithmic(low, high, label, room)
        margin = room * (high - low) or 0.1 * abs(high) or 1.0
        bottom, high = low - margin, high + margin
        low = 0.0 if low >= 0 > bottom else bottom
        step = _step((high - low) / ticks)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        return cls(label, low, high, tuple(number * step for number in range(first, last + 1)), places)

    @classmethod
    def _logarithmic(cls, low: float, high: float, label: str, room: float) -> Axis:
        factor = max((high / low) ** room, 1.05)
        low, high = low / factor, high * factor
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = -(-(last - first) // 8)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            steps = [digit * 10.0**power for power in range(first, last + 1, every) for digit in digits]
            ticks = tuple(step for step in steps if low <= step <= high)
            if len(ticks) <= 8:
                break
        return cls(label, low, high, ticks, max(0, -first), log=True)

    def text(self, value: float) -> str:
        if self.log:
            return f"{value:,.{max(0, -math.floor(math.log10(value) + 1e-9))}f}"
        return f"{value:,.{self.decimals}f}"


class Chart:
    """A chart to be filled mark by mark, those drawn later lying above the earlier ones.

    Points and lines are given in the units of the axes; what is not finite is left out. `name` is what the chart and
    its groups of marks go by in the page (`data-chart`); no two charts of a page share it.
    """

    def __init__(self, title: str, x: Axis, y: Axis, name: str = "") -> None:
        self.x, self.y, self.name = x, y, name
        self._left = max(_LEFT, 14 + _LETTER * max((len(y.text(value)) for value in y.ticks), default=0))
        self._svg = Element(
            "svg", {"viewBox": f"0 0 {tenths(_WIDTH)} {tenths(_HEIGHT)}", "role": "img", "aria-label": title}
        )
        if name:
            self._svg.set("data-chart", name)
        self._scaffold()

    # -- marks --------------------------------------------------------------------------------------------------

    def area(self, corners: Sequence[Spot], kind: str) -> None:
        """A filled polygon; corners outside the axes are brought to their edge."""
        places = " ".join(f"{tenths(self._across(x))},{tenths(self._up(y))}" for x, y in corners)
        SubElement(self._svg, "polygon", {"class": f"area {kind}", "points": places})

    def hatch(self, low: float, high: float, kind: str, *, turned: bool = False) -> None:
        """The part of the chart between two places on the x axis, in slanted lines; `turned` slants them the other way.

        Unlike a tint it is still there in print and for every eye.
        """
        left, right = sorted((self._across(low), self._across(high)))
        top, floor = _TOP, _HEIGHT - _BOTTOM
        drawn = []
        start = left - (floor - top) + _HATCH / 2
        while start < right:  # each rises to the right by as much as it goes across
            begin, end = max(left, start), min(right, start + floor - top)
            heights = (floor - (begin - start), floor - (end - start))
            across = (left + right - begin, left + right - end) if turned else (begin, end)
            if end > begin:
                drawn.append(f"M{tenths(across[0])} {tenths(heights[0])}L{tenths(across[1])} {tenths(heights[1])}")
            start += _HATCH
        if drawn:
            SubElement(self._svg, "path", {"class": f"hatch {kind}", "d": "".join(drawn)})

    def line(self, points: Sequence[Spot], kind: str) -> None:
        drawn = [point for point in points if _finite(point)]
        if len(drawn) > 1:
            places = " ".join(f"{tenths(self._across(x))},{tenths(self._up(y))}" for x, y in drawn)
            SubElement(self._svg, "polyline", {"class": f"line {kind}", "points": places})

    def point(self, place: Spot, kind: str, tooltip: str, shape: Shape = "circle", radius: float = 4) -> None:
        """One datum, with a tooltip of its own."""
        self._spot(place, f"point {kind}", tooltip, shape, radius)

    def mark(self, place: Spot, kind: str, tooltip: str, shape: Shape = "circle", radius: float = 4) -> None:
        """Something that is said about the data, not one of them."""
        self._spot(place, f"mark {kind}", tooltip, shape, radius)

    def marks(
        self,
        places: Iterable[Spot],
        kind: str,
        shape: Shape = "circle",
        radius: float = 4,
        series: str = "",
        rows: Sequence[int] = (),
        tooltips: Sequence[str] = (),
    ) -> int:
        """A group of data that look alike: one short element each. Gives how many were drawn.

        `rows` are the numbers of the places in what the page's script knows of them, one each: they stand in the
        group's `data-rows`. `tooltips`, one each, are for where there are few: they weigh more than the marks.
        """
        group = SubElement(self._svg, "g", {"class": f"marks {kind}", "data-chart": self.name, "data-series": series})
        drawn = []
        for number, place in enumerate(places):
            if _finite(place):
                element = _small(group, shape, (self._across(place[0]), self._up(place[1])), radius)
                if tooltips:
                    SubElement(element, "title").text = tooltips[number]
                drawn.append(number)
        if rows:
            group.set("data-rows", " ".join(str(rows[number]) for number in drawn))
        if not drawn:
            self._svg.remove(group)
        return len(drawn)

    def bars(self, spans: Iterable[tuple[Spot, Spot]], kind: str) -> None:
        """Error bars: each from a place to another across or up, with a short cap at both ends."""
        drawn = []
        for start, end in spans:
            if _finite(start) and _finite(end):
                x1, y1, x2, y2 = self._across(start[0]), self._up(start[1]), self._across(end[0]), self._up(end[1])
                cap = "m0-3v6" if abs(x2 - x1) >= abs(y2 - y1) else "m-3 0h6"
                drawn.append(
                    f"M{tenths(x1)} {tenths(y1)}{cap}M{tenths(x1)} {tenths(y1)}L{tenths(x2)} {tenths(y2)}{cap}"
                )
        if drawn:
            SubElement(self._svg, "path", {"class": f"bars {kind}", "d": "".join(drawn)})

    def label(self, place: Spot, text: str, kind: str = "name", *, lower: float = 0) -> None:
        """Words beside a place, `lower` units further down, on the side where there is more room."""
        if _finite(place):
            left = share_of(place[0], self.x) < 0.6
            spot = (self._across(place[0]) + (6 if left else -6), self._up(place[1]) + lower)
            draw_text(self._svg, spot, text, kind, "start" if left else "end")

    def ring(self, place: Spot, kind: str, name: str, *, above: bool = True) -> None:
        """A ring around a place, and its name (where it has one) beside it, on the side where there is room."""
        if _finite(place):
            across, up = self._across(place[0]), self._up(place[1])
            _mark(self._svg, "circle", (across, up), 9, f"ring {kind}")
            left = share_of(place[0], self.x) < 0.4
            spot = (across + (8 if left else -8), up - 14 if above else up + 26)
            if name:
                draw_text(self._svg, spot, name, f"name {kind}", "start" if left else "end")

    def svg(self) -> Markup:
        return markup(self._svg)

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
            draw_line(grid, (self._left, up), (right, up))
            draw_text(grid, (self._left - 8, up + 5), self.y.text(value), "tick", "end")
        for value in self.x.ticks:
            across = self._across(value)
            draw_line(grid, (across, floor), (across, floor + 5))
            draw_text(grid, (across, floor + 24), self.x.text(value), "tick", "middle")
        draw_line(grid, (self._left, floor), (right, floor), "base")
        draw_text(grid, (6, 22), self.y.label, "axis-name", "start")
        draw_text(grid, (right, _HEIGHT - 10), self.x.label, "axis-name", "end")

    def _across(self, value: float) -> float:
        return self._left + share_of(value, self.x) * (_WIDTH - self._left - _RIGHT)

    def _up(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - share_of(value, self.y) * (_HEIGHT - _TOP - _BOTTOM)


def look(number: int) -> tuple[str, Shape]:
    """The class and the shape of a device's marks, by its number among those of the page: a colour and a shape each."""
    return f"d{number % _COLOURS}", _SHAPES[number % len(_SHAPES)]


def mark_swatch(kind: str, shape: Shape = "circle", *, ring: bool = False) -> Markup:
    """A mark on its own, for a legend."""
    svg = _swatch()
    _mark(svg, shape, (12, 8), 6 if ring else 4.5, f"{'ring' if ring else 'swatch'} {kind}")
    return markup(svg)


def line_swatch(kind: str) -> Markup:
    svg = _swatch()
    SubElement(svg, "polyline", {"class": f"line {kind}", "points": "1,8 23,8"})
    return markup(svg)


def area_swatch(kind: str) -> Markup:
    svg = _swatch()
    SubElement(svg, "polygon", {"class": f"area {kind}", "points": "1,2 23,2 23,14 1,14"})
    return markup(svg)


def hatch_swatch(kind: str) -> Markup:
    svg = _swatch()
    SubElement(svg, "path", {"class": f"hatch {kind}", "d": "M1 8L7 2M1 14L13 2M7 14L19 2M13 14L23 4M19 14L23 10"})
    return markup(svg)


def staircase(points: Iterable[Spot]) -> list[Spot]:
    """The line from point to point in rising x that keeps each y until the next point."""
    stairs: list[Spot] = []
    for x, y in sorted(points):
        if stairs:
            stairs.append((x, stairs[-1][1]))
        stairs.append((x, y))
    return stairs


def share_of(value: float, axis: Axis) -> float:
    """How far along the axis a value is, from 0 to 1; what lies beyond is at its edge."""
    if not axis.log:
        share = (value - axis.low) / (axis.high - axis.low)
    else:
        share = math.log(value / axis.low) / math.log(axis.high / axis.low) if value > 0 else 0.0
    return min(1.0, max(0.0, share))


def _step(rough: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less than `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _finite(place: Spot) -> bool:
    return math.isfinite(place[0]) and math.isfinite(place[1])


def _mark(parent: Element, shape: Shape, place: Spot, radius: float, kind: str) -> Element:
    x, y = place
    if shape == "circle":
        return SubElement(parent, "circle", {"class": kind, "cx": tenths(x), "cy": tenths(y), "r": tenths(radius)})
    corners = " ".join(f"{tenths(x + radius * across)},{tenths(y + radius * up)}" for across, up in _OUTLINES[shape])
    return SubElement(parent, "polygon", {"class": kind, "points": corners})


def _small(parent: Element, shape: Shape, place: Spot, radius: float) -> Element:
    """One mark of many, in as few bytes as will do: its place first, then its outline around it."""
    x, y = tenths(place[0]), tenths(place[1])
    if shape == "circle":
        return SubElement(parent, "circle", {"cx": x, "cy": y, "r": tenths(radius)})
    corners = [(radius * across, radius * up) for across, up in _OUTLINES[shape]]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise([(0.0, 0.0), *corners])]
    outline = "m" + "l".join(f"{tenths(across)} {tenths(up)}" for across, up in steps)
    return SubElement(parent, "path", {"d": f"M{x} {y}{outline}z"})


def draw_line(parent: Element, start: Spot, end: Spot, kind: str = "grid") -> None:
    """A straight line, in the drawing's own units."""
    (x1, y1), (x2, y2) = start, end
    SubElement(parent, "line", {"class": kind, "x1": tenths(x1), "y1": tenths(y1), "x2": tenths(x2), "y2": tenths(y2)})


def draw_text(parent: Element, place: Spot, text: str, kind: str, anchor: Anchor) -> None:
    """Words at a place, cut where they are too long for a chart."""
    x, y = tenths(place[0]), tenths(place[1])
    short = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
    SubElement(parent, "text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}).text = short


def _swatch() -> Element:
    return Element("svg", {"viewBox": "0 0 24 16", "class": "swatch-box", "aria-hidden": "true"})


def markup(svg: Element) -> Markup:
    """A drawing that is done."""
    return Markup(tostring(svg, encoding="unicode"))  # noqa: S704 # escaped by ElementTree


def tenths(value: float) -> str:
    """A place in a drawing: finer than that no screen shows it, and every byte counts."""
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
