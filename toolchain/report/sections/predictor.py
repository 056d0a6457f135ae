"""How far the predictor can be trusted: what it said of rows it had not seen, beside what they took."""

from __future__ import annotations

import math

from toolchain.records import PredictorInfo, Quantity
from toolchain.report.blocks import Block, Fact, Facts, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Chart, Spot, area_swatch, line_swatch, mark_swatch
from toolchain.report.story import Story
from toolchain.report.units import amount, count, percent, significant, unit, workload_words

_BAND = 0.1
_MANY = 300
_WORST = 10
_LISTED = 300


def predictor(story: Story) -> Section:
    """Error figures, a scatter of predicted against measured with its band of ±10 %, and the rows it missed most."""
    info = story.predictor
    if info is None:
        words = "No predictor was fitted: costs are counted or measured, or the search has not been run."
        return Section("predictor", "The latency predictor", [Paragraph(words)])
    title, key = f"The {unit(info.quantity.name).name} predictor", info.quantity.name
    rows = [row for row in info.points if row[1] > 0 and math.isfinite(row[1]) and math.isfinite(row[2])]
    blocks: list[Block] = [Paragraph(_summary(info)), Facts(_figures(info))]
    if not rows:
        blocks.append(Paragraph("No held-out row was kept, so there is no chart."))
    elif len(rows) == 1:
        blocks.append(Paragraph(f"A single row was held out, so there is no chart: {_tooltip(rows[0], key)}."))
    else:
        blocks.append(_figure(rows, info.quantity))
    if rows:
        worst = sorted(rows, key=lambda row: -abs(_error(row)))
        blocks.append(_table(f"The {min(_WORST, len(rows))} rows it missed most", worst[:_WORST], key))
    if len(rows) > _WORST:
        listed = worst[:_LISTED]
        caption = f"{'All' if len(listed) == len(rows) else 'The worst'} {count(len(listed))} held-out rows"
        blocks.append(_table(caption, listed, key, folded=True))
    return Section("predictor", title, blocks)


def _summary(info: PredictorInfo) -> str:
    return (
        f"A {info.model.kind} model of {count(len(info.features))} features predicts the {info.quantity.words} "
        f"on {info.target} with "
        f"{workload_words(info.workload)}. Its errors are those on measured rows it had not seen. "
        f"{percent(info.coverage)} of them lie within about ±{percent(info.interval)} of what was predicted."
        f"{_remarks(info)}"
    )


def _remarks(info: PredictorInfo) -> str:
    """What was wrong with the table, and what else the predictor leans on."""
    left_out = sum(one.last - one.first + 1 for one in info.findings if one.kind == "outlier-block")
    words = f" {count(left_out)} rows of outlier blocks in its table were left out, there too." if left_out else ""
    others = sum(one.kind != "outlier-block" for one in info.findings)
    words += f" Shifts, drift or outliers in it: {count(others)} (mostool predict --check)." if others else ""
    if info.source != "measured":
        words += f" The rows it was fitted on are {info.source}."
    if info.transfer is not None and info.transfer.used:
        words += f" It leans on the table of {info.transfer.target}."
    return words


def _figures(info: PredictorInfo) -> list[Fact]:
    error, took = info.error, f"of the measured {unit(info.quantity.name).name}"
    return [
        Fact("Mean error (MAPE)", percent(error.mape), took),
        Fact("Within ±10 %", percent(error.within_10pct), "of the held-out rows"),
        Fact("Kendall's tau", significant(error.kendall_tau), "1 is the right order throughout"),
        Fact("Worst error", percent(error.worst), took),
        Fact("Held-out rows", count(error.n), "n"),
    ]


def _figure(rows: list[tuple[str, float, float]], quantity: Quantity) -> Figure:
    key = quantity.name
    name, scale, symbol = unit(key).name, unit(key).axis_scale, unit(key).symbol
    both = [value / scale for _, measured, predicted in rows for value in (measured, predicted)]
    chart = Chart(
        f"Predicted against measured {name}",
        Axis.around(both, f"measured {quantity.words}, {symbol}"),
        Axis.around(both, f"predicted {name}, {symbol}"),
    )
    low, high = chart.x.low, chart.x.high
    chart.area(_band(low, high), "band")
    chart.line([(low, low), (high, high)], "equal")
    radius = 3 if len(rows) > _MANY else 4.5
    outside = 0
    for row in rows:
        off = abs(_error(row)) > _BAND
        outside += off
        if off:
            chart.point((row[1] / scale, row[2] / scale), "off", _tooltip(row, key), "cross", radius)
        else:
            chart.point((row[1] / scale, row[2] / scale), "guess", _tooltip(row, key), "circle", radius)
    legend = [
        LegendEntry(mark_swatch("guess"), f"within ±10 % ({count(len(rows) - outside)})"),
        LegendEntry(mark_swatch("off", "cross"), f"further off ({count(outside)})"),
        LegendEntry(line_swatch("equal"), "predicted = measured"),
        LegendEntry(area_swatch("band"), "±10 %"),
    ]
    caption = f"Predicted against measured {name} of the held-out rows. Above the line the prediction was too high."
    return Figure(chart.svg(), caption, legend)


def _band(low: float, high: float) -> list[Spot]:
    """The part of 0.9 x <= y <= 1.1 x within the square from `low` to `high`."""
    down, up = 1 - _BAND, 1 + _BAND
    upper: list[Spot] = [(low, min(high, up * low)), (high / up, high), (high, high)]
    lower: list[Spot] = [(high, max(low, down * high)), (min(high, low / down), low), (low, low)]
    return upper + lower


def _error(row: tuple[str, float, float]) -> float:
    return row[2] / row[1] - 1


def _tooltip(row: tuple[str, float, float], key: str) -> str:
    name, measured, predicted = row
    return f"{name}: {amount(key, measured)} measured, {amount(key, predicted)} predicted ({_signed(_error(row))})"


def _signed(error: float) -> str:
    return f"{'+' if error >= 0 else '−'}{percent(abs(error))}"


def _table(caption: str, rows: list[tuple[str, float, float]], key: str, *, folded: bool = False) -> Table:
    cells = [(row[0], amount(key, row[1]), amount(key, row[2]), _signed(_error(row))) for row in rows]
    return Table(
        caption, ("Subnet", "Measured", "Predicted", "Error"), cells, frozenset({1, 2, 3}), frozenset({0}), folded
    )
