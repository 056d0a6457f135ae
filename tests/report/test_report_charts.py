from __future__ import annotations

import math
from xml.etree.ElementTree import XML, Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.report.charts import Axis, Chart, mark_swatch, staircase


def parsed(svg: str) -> Element:
    return XML(svg)  # our own drawing


NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20)


@given(values=NUMBERS)
def test_an_axis_holds_its_values_and_its_ticks_are_round(values: list[float]) -> None:
    axis = Axis.around(values, "x")
    assert axis.low < axis.high
    assert axis.low <= min(values)
    assert max(values) <= axis.high
    assert len(axis.ticks) <= 8
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= tick <= axis.high + room for tick in axis.ticks)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 10], ["0", "2", "4", "6", "8", "10"]),
        ([0.11, 0.19], ["0.12", "0.14", "0.16", "0.18"]),
        ([1000, 3000], ["1,000", "1,500", "2,000", "2,500", "3,000"]),
    ],
)
def test_ticks_are_written_with_the_decimals_they_need(values: list[float], ticks: list[str]) -> None:
    axis = Axis.around(values, "x")
    assert [axis.text(tick) for tick in axis.ticks] == ticks


def test_an_axis_around_one_value_has_room_on_both_sides() -> None:
    axis = Axis.around([5.0, math.nan, math.inf], "x")
    assert (axis.low, axis.high) == (4.5, 5.5)
    assert Axis.around([0.0], "x").high == 1.0


def test_an_axis_needs_a_finite_value() -> None:
    with pytest.raises(ValueError, match="min"):
        Axis.around([math.nan], "x")


def test_a_staircase_keeps_its_height_until_the_next_point() -> None:
    assert staircase([(2, 5), (1, 3), (4, 6)]) == [(1, 3), (2, 3), (2, 5), (4, 5), (4, 6)]
    assert staircase([]) == []


def make_chart() -> Chart:
    return Chart("a <title>", Axis("x", 0, 10, (0, 5, 10), 0), Axis("y", 0, 1, (0, 1), 0))


def test_points_lie_where_the_axes_say() -> None:
    chart = make_chart()
    for place in ((0.0, 0.0), (10.0, 1.0), (5.0, 0.5)):
        chart.point(place, "known", "a point")
    low, high, middle = parsed(chart.svg()).findall(".//circle")
    for name in ("cx", "cy"):
        assert float(middle.get(name, "")) == pytest.approx((float(low.get(name, "")) + float(high.get(name, ""))) / 2)
    assert float(low.get("cx", "")) < float(high.get("cx", ""))
    assert float(low.get("cy", "")) > float(high.get("cy", ""))


def test_what_is_not_finite_is_left_out_and_what_is_beyond_stays_at_the_edge() -> None:
    chart = make_chart()
    chart.point((math.nan, 0.5), "known", "nowhere")
    chart.ring((1, math.inf), "winner", "nowhere")
    chart.line([(0, 0), (math.nan, 1)], "front")
    chart.area([(-5, 0), (20, 0), (20, 9)], "band")
    svg = chart.svg()
    assert "nan" not in svg
    assert "inf" not in svg
    tree = parsed(svg)
    assert not tree.findall(".//circle")
    assert not tree.findall(".//polyline")
    (area,) = tree.findall(".//polygon")
    corners = [tuple(map(float, corner.split(","))) for corner in area.get("points", "").split()]
    assert all(0 <= x <= 720 and 0 <= y <= 420 for x, y in corners)


def test_text_in_a_chart_is_text() -> None:
    chart = make_chart()
    chart.point((1, 1), "known", "</title><script>")
    chart.ring((1, 1), "winner", '"><b>')
    tree = parsed(chart.svg())
    assert tree.get("aria-label") == "a <title>"
    assert tree.findtext(".//circle/title") == "</title><script>"
    assert '"><b>' in [text.text for text in tree.findall(".//text")]


@pytest.mark.parametrize("shape", ["square", "diamond", "triangle", "star", "cross"])
def test_every_shape_is_an_outline_around_its_place(shape: str) -> None:
    (outline,) = parsed(mark_swatch("known", shape)).findall("polygon")  # type: ignore[arg-type]
    corners = [tuple(map(float, corner.split(","))) for corner in outline.get("points", "").split()]
    assert min(x for x, _ in corners) < 12 < max(x for x, _ in corners)
    assert min(y for _, y in corners) < 8 < max(y for _, y in corners)
