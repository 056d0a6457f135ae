"""Further forms of charts: panels over one axis, and bars made of parts. Drawn with the primitives of charts.py.

A group of marks has one child for each datum, in as few bytes as will do: its place, and its tooltip. How they look is
said once, for the group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from toolchain.report.charts import Anchor, Axis, Spot, draw_line, draw_text, markup, share_of, tenths

_WIDTH, _LEFT, _RIGHT = 720.0, 68.0, 20.0
_TOP, _BOTTOM, _BETWEEN = 40.0, 62.0, 48.0
_LETTER = 8.5
_BAR, _BAR_HEIGHT, _CAPTION = 72.0, 24.0, 26.0
_NARROW_PART = 20.0

Dot = Literal["circle", "cross"]
Datum = tuple[float, float, str]
"""Where it stands, and its tooltip."""


class Panel(NamedTuple):
    """One of the charts over a common x axis: its own y axis, and how tall it is."""

    y: Axis
    height: float = 318.0


class Panels:
    """Charts above each other over one x axis. Places are in the units of the axes; what is not finite is left out."""

    def __init__(self, title: str, name: str, x: Axis, panels: Sequence[Panel]) -> None:
        self.name, self.x, self.panels = name, x, panels
        self._floors: list[float] = []
        self._names: list[tuple[Spot, str, Anchor]] = []
        floor = _TOP - _BETWEEN
        for panel in panels:
            floor += _BETWEEN + panel.height
            self._floors.append(floor)
        self._svg = Element("svg", {"viewBox": f"0 0 {tenths(_WIDTH)} {tenths(floor + _BOTTOM)}", "role": "img"})
        self._svg.attrib |= {"aria-label": title, "data-chart": name}
        self._scaffold(floor)

    def marks(self, series: str, kind: str, data: Iterable[Datum], dot: Dot = "circle", *, panel: int = 0) -> int:
        """A group of data that look alike; how many were drawn."""
        held = [one for one in data if math.isfinite(one[0]) and math.isfinite(one[1])]
        if not held:
            return 0
        names = {"class": f"marks dots {kind}", "data-chart": self.name, "data-series": series}
        group = SubElement(self._svg, "g", names)
        for x, y, tooltip in held:
            across, up = self._across(x), self._up(y, panel)
            if dot == "circle":
                mark = SubElement(group, "circle", {"cx": tenths(across), "cy": tenths(up), "r": "3"})
            else:
                mark = SubElement(group, "path", {"d": f"M{tenths(across - 3)} {tenths(up - 3)}l6 6m0-6l-6 6"})
            if tooltip:
                SubElement(mark, "title").text = tooltip
        return len(held)

    def line(self, points: Iterable[Spot], kind: str, *, panel: int = 0) -> None:
        """A line through the points, broken where one is not finite."""
        parts: list[list[str]] = [[]]
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                parts[-1].append(f"{tenths(self._across(x))},{tenths(self._up(y, panel))}")
            elif parts[-1]:
                parts.append([])
        for places in parts:
            if len(places) == 1:
                places.append(places[0])  # a lone point is drawn as the dot that a line's ends make
            if places:
                SubElement(self._svg, "polyline", {"class": f"line {kind}", "points": " ".join(places)})

    def area(self, corners: Iterable[Spot], kind: str, *, panel: int = 0) -> None:
        """A filled polygon; corners outside the axes are brought to their edge."""
        places = " ".join(f"{tenths(self._across(x))},{tenths(self._up(y, panel))}" for x, y in corners)
        SubElement(self._svg, "polygon", {"class": f"area {kind}", "points": places})

    def columns(self, series: str, kind: str, columns: Iterable[tuple[float, float, float, str]]) -> None:
        """Columns from the floor, each from an x to another, with its height and its tooltip."""
        names = {"class": f"marks columns {kind}", "data-chart": self.name, "data-series": series}
        group = SubElement(self._svg, "g", names)
        for start, end, height, tooltip in columns:
            left, top = self._across(start), self._up(height, 0)
            place = {"x": tenths(left), "y": tenths(top), "width": tenths(self._across(end) - left)}
            column = SubElement(group, "rect", {**place, "height": tenths(self._floors[0] - top)})
            SubElement(column, "title").text = tooltip

    def upright(self, x: float, name: str, kind: str, step: int = 0) -> None:
        """A line from top to floor at an x, and its name beside it, `step` lines of text below the top."""
        across, top = self._across(x), self._floors[0] - self.panels[0].height
        places = f"{tenths(across)},{tenths(top)} {tenths(across)},{tenths(self._floors[-1])}"
        SubElement(self._svg, "polyline", {"class": f"line {kind}", "points": places})
        right = share_of(x, self.x) < 0.6
        spot = (across + (6 if right else -6), top + 16 + 24 * step)
        self._names.append((spot, name, "start" if right else "end"))

    def svg(self) -> Markup:
        """The drawing, to be asked for once: the names come last, so that no line crosses them."""
        for spot, name, anchor in self._names:
            draw_text(self._svg, spot, name, "name", anchor)
        return markup(self._svg)

    def _scaffold(self, floor: float) -> None:
        grid = SubElement(self._svg, "g", {"class": "axis"})
        right = _WIDTH - _RIGHT
        for number, panel in enumerate(self.panels):
            for value in panel.y.ticks:
                up = self._up(value, number)
                draw_line(grid, (_LEFT, up), (right, up))
                draw_text(grid, (_LEFT - 8, up + 5), panel.y.text(value), "tick", "end")
            draw_line(grid, (_LEFT, self._floors[number]), (right, self._floors[number]), "base")
            draw_text(grid, (6, self._floors[number] - panel.height - 20), panel.y.label, "axis-name", "start")
        for value in self.x.ticks:
            across = self._across(value)
            draw_line(grid, (across, floor), (across, floor + 5))
            draw_text(grid, (across, floor + 24), self.x.text(value), "tick", "middle")
        draw_text(grid, (right, floor + _BOTTOM - 10), self.x.label, "axis-name", "end")

    def _across(self, value: float) -> float:
        return _LEFT + share_of(value, self.x) * (_WIDTH - _LEFT - _RIGHT)

    def _up(self, value: float, panel: int) -> float:
        return self._floors[panel] - share_of(value, self.panels[panel].y) * self.panels[panel].height


class Part(NamedTuple):
    """A stretch of a bar: how long, how it looks, its tooltip, and a word for inside where there is room."""

    length: float
    kind: str
    tooltip: str
    word: str = ""


class Bar(NamedTuple):
    """A bar of one or more parts, laid end to end from zero."""

    label: str
    parts: Sequence[Part]


def bars(title: str, name: str, x: Axis, rows: Sequence[Bar]) -> Markup:
    """Lying bars below each other, each under its label; one group of marks for each bar, one child for each part."""
    floor = _CAPTION + _BAR * len(rows) - 12
    svg = Element("svg", {"viewBox": f"0 0 {tenths(_WIDTH)} {tenths(floor + _BOTTOM)}", "role": "img"})
    svg.attrib |= {"aria-label": title, "data-chart": name}
    grid = SubElement(svg, "g", {"class": "axis"})
    left, right = _RIGHT, _WIDTH - _RIGHT
    for value in x.ticks:
        across = left + share_of(value, x) * (right - left)
        draw_line(grid, (across, 8), (across, floor + 5))
        draw_text(grid, (across, floor + 24), x.text(value), "tick", "middle")
    draw_line(grid, (left, floor), (right, floor), "base")
    draw_text(grid, (right, floor + _BOTTOM - 8), x.label, "axis-name", "end")
    for number, bar in enumerate(rows):
        top = _CAPTION + _BAR * number
        draw_text(svg, (left, top), bar.label, "name", "start")
        group = SubElement(svg, "g", {"class": "marks parts", "data-chart": name, "data-series": bar.label})
        words, done = [], 0.0
        for part in bar.parts:
            start, end = (left + share_of(value, x) * (right - left) for value in (done, done + part.length))
            place = {
                "x": tenths(start),
                "y": tenths(top + 10),
                "width": tenths(end - start),
                "height": tenths(_BAR_HEIGHT),
            }
            stretch = SubElement(group, "rect", {"class": part.kind, **place})
            SubElement(stretch, "title").text = part.tooltip
            if part.word and end - start > max(_NARROW_PART, _LETTER * len(part.word) + 8):
                words.append(((start + end) / 2, part.word))
            done += part.length
        for middle, word in words:
            draw_text(svg, (middle, top + 27), word, "inside", "middle")
    return markup(svg)


def part_swatch(kind: str) -> Markup:
    """A part of a bar, for a legend."""
    svg = Element("svg", {"viewBox": "0 0 24 16", "class": "swatch-box", "aria-hidden": "true"})
    group = SubElement(svg, "g", {"class": "parts"})
    SubElement(group, "rect", {"class": kind, "x": "1", "y": "2", "width": "22", "height": "12"})
    return markup(svg)


def dot_swatch(kind: str, dot: Dot = "circle") -> Markup:
    """A mark of a group, for a legend."""
    svg = Element("svg", {"viewBox": "0 0 24 16", "class": "swatch-box", "aria-hidden": "true"})
    group = SubElement(svg, "g", {"class": f"dots {kind}"})
    if dot == "circle":
        SubElement(group, "circle", {"cx": "12", "cy": "8", "r": "4"})
    else:
        SubElement(group, "path", {"d": "M8 4l8 8m0-8l-8 8"})
    return markup(svg)
