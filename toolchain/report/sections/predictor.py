"""How far the predictors can be trusted: what they said of rows they had not seen, beside what those took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from toolchain.records import PredictorInfo
from toolchain.report.blocks import Block, Fact, Facts, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Spot, area_swatch, line_swatch
from toolchain.report.plots import Datum, Panel, Panels, dot_swatch
from toolchain.report.story import Story
from toolchain.report.units import amount, count, percent, significant, unit, workload_words

_BAND = 0.1
_WORST = 10
_LISTED = 100
_WIDE = 4.0
"""Times the least: from there on the axes are logarithmic."""
_TOLD = 600
"""So many points of a page have a tooltip, and those far off: with more of them the page would grow too heavy."""

Point = tuple[str, float, float]


def predictor(story: Story) -> Section:
    """Of each device's predictor its error figures, a scatter of predicted against measured with its band of ±10 %, and
    the rows it missed most."""
    infos = _predictors(story)
    if not infos:
        words = "No predictor was fitted: costs are counted or measured, or the search has not been run."
        return Section("predictor", "The latency predictor", [Paragraph(words)])
    blocks: list[Block] = []
    told = 0
    for number, info in enumerate(infos):
        told += len(info.points)
        blocks += _blocks(info, f"predictor-{number}" if number else "predictor", tooltips=told <= _TOLD)
    title = f"The {unit(infos[0].quantity.name).name} predictor{'s' if len(infos) > 1 else ''}"
    return Section("predictor", title, blocks)


def _predictors(story: Story) -> list[PredictorInfo]:
    """That of the search first, then those of the other devices."""
    found = [story.predictor] if story.predictor is not None else []
    others = [table.predictor for table in story.tables if table.predictor is not None]
    return [*found, *(one for one in others if not found or one.target != found[0].target)]


def _blocks(info: PredictorInfo, name: str, *, tooltips: bool) -> Iterator[Block]:
    key = info.quantity.name
    rows = [row for row in info.points if row[1] > 0 and math.isfinite(row[1]) and math.isfinite(row[2])]
    yield Paragraph(_summary(info))
    yield Facts(_figures(info))
    if not rows:
        yield Paragraph("No held-out row was kept, so there is no chart.")
    elif len(rows) == 1:
        yield Paragraph(f"A single row was held out, so there is no chart: {_sentence(rows[0], info)}.")
    elif len({row[1:] for row in rows}) == 1:
        yield Paragraph(f"All {count(len(rows))} held-out rows are alike, so there is no chart: {_pair(rows[0], key)}.")
    else:
        yield _figure(rows, info, name, tooltips=tooltips)
    worst = sorted(rows, key=lambda row: -abs(_error(row)))
    if rows:
        yield _table(f"The {min(_WORST, len(rows))} rows it missed most on {info.target}", worst[:_WORST], info)
    if len(rows) > _WORST:
        listed = worst[:_LISTED]
        words = "All" if len(listed) == len(rows) else "The worst"
        yield _table(f"{words} {count(len(listed))} held-out rows of {info.target}", listed, info, folded=True)


def _summary(info: PredictorInfo) -> str:
    return (
        f"A {info.model.kind} model of {count(len(info.features))} features predicts the {info.quantity.words} "
        f"on {info.target} with "
        f"{workload_words(info.workload)}. Its errors are those on {_rows_word(info)} rows it had not seen. "
        f"Of subnets like those of its table {percent(info.coverage)} should take what is predicted, ±"
        f"{percent(info.interval)} at most."
        f"{_remarks(info)}"
    )


def _rows_word(info: PredictorInfo) -> str:
    return "measured" if info.source in ("predicted", "counted") else info.source


def _remarks(info: PredictorInfo) -> str:
    """What was wrong with the table, and what else the predictor leans on."""
    left_out = sum(one.last - one.first + 1 for one in info.findings if one.kind == "outlier-block")
    words = f" {count(left_out)} rows of outlier blocks in its table were left out, there too." if left_out else ""
    others = sum(one.kind != "outlier-block" for one in info.findings)
    words += (
        f" Shifts, drift or outliers in it: {count(others)} (mostool predict --check TABLE names them)."
        if others
        else ""
    )
    if info.source != "measured":
        words += f" The rows it was fitted on are {info.source}."
    if info.transfer is not None and info.transfer.used:
        words += f" It leans on the table of {info.transfer.target}."
    return words


def _figures(info: PredictorInfo) -> list[Fact]:
    error, took = info.error, f"of the {_rows_word(info)} {unit(info.quantity.name).name}"
    return [
        Fact("Mean error (MAPE)", percent(error.mape), took),
        Fact("Within ±10 %", percent(error.within_10pct), f"of n = {count(error.n)} held-out rows"),
        Fact("Kendall's tau", significant(error.kendall_tau), "1 is the right order throughout"),
        Fact("Worst error", percent(error.worst), took),
        Fact(
            "Interval", f"±{percent(info.interval)}", f"should hold {percent(info.coverage, 0)} of subnets like these"
        ),
    ]


def _figure(rows: Sequence[Point], info: PredictorInfo, chart_name: str, *, tooltips: bool) -> Figure:
    quantity, took = info.quantity, _rows_word(info)
    key = quantity.name
    name, scale, symbol = unit(key).name, unit(key).axis_scale, unit(key).symbol
    both = [value / scale for _, measured, predicted in rows for value in (measured, predicted)]
    log = min(both) > 0 and max(both) > _WIDE * min(both)  # there the band of ±10 % is as wide for the fast as the slow
    chart = Panels(
        f"Predicted against {took} {name} on {info.target}",
        chart_name,
        Axis.around(both, f"{took} {quantity.words}, {symbol}", log=log),
        [Panel(Axis.around(both, f"predicted {name}, {symbol}", log=log))],
    )
    low, high = chart.x.low, chart.x.high
    chart.area(_band(low, high), "band")
    chart.line([(low, low), (high, high)], "equal")
    data: dict[bool, list[Datum]] = {False: [], True: []}
    for row in rows:
        off = abs(_error(row)) > _BAND
        tooltip = f"{row[0]}: {_pair(row, key)}" if tooltips or off else ""
        data[off].append((row[1] / scale, row[2] / scale, tooltip))
    inside = chart.marks("within 10 %", "guess", data[False])
    outside = chart.marks("further off", "off", data[True], "cross")
    legend = [
        LegendEntry(dot_swatch("guess"), f"within ±10 % ({count(inside)})"),
        LegendEntry(dot_swatch("off", "cross"), f"further off ({count(outside)})"),
        LegendEntry(line_swatch("equal"), f"predicted = {took}"),
        LegendEntry(area_swatch("band"), "±10 %"),
    ]
    caption = (
        f"Predicted against {took} {name} of the held-out rows of {info.target}. "
        "Above the line the prediction was too high."
    )
    return Figure(chart.svg(), caption, legend)


def _band(low: float, high: float) -> list[Spot]:
    """The part of 0.9 x <= y <= 1.1 x within the square from `low` to `high`."""
    down, up = 1 - _BAND, 1 + _BAND
    upper: list[Spot] = [(low, min(high, up * low)), (high / up, high), (high, high)]
    lower: list[Spot] = [(high, max(low, down * high)), (min(high, low / down), low), (low, low)]
    return upper + lower


def _error(row: Point) -> float:
    return row[2] / row[1] - 1


def _pair(row: Point, key: str) -> str:
    """What was measured, what was predicted: as short as it can be said, for a tooltip."""
    return f"{amount(key, row[1])}, predicted {amount(key, row[2])} ({_signed(_error(row))})"


def _sentence(row: Point, info: PredictorInfo) -> str:
    name, took, predicted = row
    key, word = info.quantity.name, _rows_word(info)
    return f"{name}: {amount(key, took)} {word}, {amount(key, predicted)} predicted ({_signed(_error(row))})"


def _signed(error: float) -> str:
    return f"{'+' if error >= 0 else '−'}{percent(abs(error))}"


def _table(caption: str, rows: Sequence[Point], info: PredictorInfo, *, folded: bool = False) -> Table:
    key = info.quantity.name
    cells = [(row[0], amount(key, row[1]), amount(key, row[2]), _signed(_error(row))) for row in rows]
    head = ("Subnet", _rows_word(info).capitalize(), "Predicted", "Error")
    return Table(caption, head, cells, frozenset({1, 2, 3}), frozenset({0}), folded, subnets=True)
