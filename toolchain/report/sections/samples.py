"""What was measured when: the rows of a device's table in their order, and the rounds of one measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Spot, line_swatch
from toolchain.report.plots import Datum, Panel, Panels, dot_swatch
from toolchain.report.story import DeviceTable, Row, Samples, Story
from toolchain.report.units import count, milliseconds, percent, significant

_LISTED = 50
_DRAWN = 500
"""Rounds that are drawn one by one; more of them are a line."""
_TOLD = 600
"""So many rows of a page have a tooltip, and those in doubt: with more of them the page would grow too heavy."""
_FINE = 600
"""A line has so many points: more than that are less than a pixel apart."""
_SMALL = 110.0


def samples(story: Story) -> Section:
    """Of each device its rows over time, with heat and clock below; then the rounds of the winner's measurement."""
    title, blocks = "Samples over time", list[Block]()
    told = 0
    for number, table in enumerate(one for one in story.tables if one.info is not None):
        told += len(table.rows)
        blocks += _of_table(table, f"rows-{number}" if number else "rows", tooltips=told <= _TOLD)
    if not blocks:
        words = "No table of a device was measured for this space, so there are no samples to show."
        return Section("samples", title, [Paragraph(words)])
    blocks += _of_one(story.samples)
    return Section("samples", title, blocks)


# -- the rows of a table ---------------------------------------------------------------------------------------------


def _of_table(table: DeviceTable, name: str, *, tooltips: bool) -> Iterator[Block]:
    timed = [row for row in table.rows if row.median_s is not None]
    doubtful = [row for row in timed if row.status]
    yield Paragraph(_summary(table, timed, doubtful))
    yield from (Paragraph(sentence) for sentence in _silence(table, timed))
    if len(timed) > 1 and len(doubtful) == len(timed):
        yield Paragraph(
            f"Every row of {table.target} is in doubt ({_reasons(doubtful)}), so there is no chart: "
            "make the machine quiet and profile it again with --fresh.",
            "warning",
        )
    elif len(timed) > 1 and len({row.median_s for row in timed}) == 1:
        yield Paragraph(f"All rows took {milliseconds(timed[0].median_s)}: a chart would show a level line.")
    elif len(timed) > 1:
        yield _rows_figure(table, timed, name, tooltips=tooltips)
    if doubtful:
        yield _doubtful(table, doubtful)


def _summary(table: DeviceTable, timed: Sequence[Row], doubtful: Sequence[Row]) -> str:
    failed = len(table.rows) - len(timed)
    failures = f", {count(failed)} more could not be measured" if failed else ""
    if not timed:
        return f"The table of {table.target} holds no latency{failures}."
    started = [row.started_at for row in timed if row.started_at is not None]
    when = f", from {_moment(min(started))} to {_moment(max(started))} UTC" if started else ""
    rows = "one row" if len(timed) == 1 else f"{count(len(timed))} rows"
    only = f" {milliseconds(timed[0].median_s)}, subnet {timed[0].subnet}." if len(timed) == 1 else ""
    discarded = sum(row.conditions.rounds_discarded for row in timed)
    again = (
        f" {count(discarded)} rounds that were measured hot or throttled were discarded and made again."
        if discarded
        else ""
    )
    return (
        f"{table.source.capitalize()} on {table.target}: {rows}{failures}{when}.{only} "
        f"{count(len(doubtful)) if doubtful else 'None'} of them in doubt"
        f"{f' ({_reasons(doubtful)})' if doubtful else ''}.{again}"
    )


def _silence(table: DeviceTable, timed: Sequence[Row]) -> list[str]:
    """What the device does not tell of itself."""
    if not timed:
        return []
    missing = []
    if all(math.isnan(_degrees(row)) for row in timed):
        missing.append("its temperature")
    if not any(row.conditions.frequency_lowest_hz is not None for row in timed):
        missing.append("its clock frequency")
    if not any(row.conditions.throttled_end is not None for row in timed):
        missing.append("whether it throttles")
    if len(missing) == 3:
        return [f"{table.target} tells neither its temperature nor its clock frequency, nor whether it throttles."]
    return [f"{table.target} does not tell {' and '.join(missing)}."] if missing else []


def _rows_figure(table: DeviceTable, timed: Sequence[Row], name: str, *, tooltips: bool) -> Figure:
    places = [(number, row) for number, row in enumerate(table.rows, start=1) if row.median_s is not None]
    panels = [Panel(Axis.around((1e3 * (row.median_s or 0) for row in timed), "latency (p50), ms", ticks=5), 220)]
    lines: list[tuple[str, list[Spot]]] = []
    for kind, label, told, merge in _LINES:
        spots = _thinned([(number, told(row)) for number, row in places], merge)
        if any(math.isfinite(value) for _, value in spots):
            panels.append(Panel(Axis.around((value for _, value in spots), label, ticks=3), _SMALL))
            lines.append((kind, spots))
    x = Axis.around((number for number, _ in places), "row, in the order they were measured", room=0.02)
    chart = Panels(f"Rows of {table.target} over time", name, x, panels)
    settled: list[Datum] = []
    doubtful: list[Datum] = []
    for number, row in places:
        seconds = row.median_s or 0.0
        tooltip = f"{number}. {_tooltip(row)}" if tooltips or row.status else ""
        (doubtful if row.status else settled).append((number, 1e3 * seconds, tooltip))
    drawn = chart.marks("settled", "known", settled), chart.marks("in doubt", "off", doubtful, "cross")
    for panel, (kind, spots) in enumerate(lines, start=1):
        chart.line(spots, kind, panel=panel)
        if kind == "clock":
            throttled = [
                (float(number), _gigahertz(row), f"{number}. {row.subnet}: throttled")
                for number, row in places
                if row.conditions.throttled_end
            ]
            chart.marks("throttled", "off", throttled, "cross", panel=panel)
    legend = [LegendEntry(dot_swatch("known"), f"{table.source}, settled ({count(drawn[0])})")]
    if drawn[1]:
        legend.append(LegendEntry(dot_swatch("off", "cross"), f"in doubt ({count(drawn[1])})"))
    labels = {kind: label for kind, label, _, _ in _LINES}
    legend += [LegendEntry(line_swatch(kind), labels[kind]) for kind, _ in lines]
    caption = (
        f"The rows of {table.target} in the order they were measured; subnets of all sizes, so the dots scatter. "
        "Below, how far the machine's pace was off the usual at that moment: where the line is above 1, calls took "
        "longer than usual, and pairing with the reference model took that out."
    )
    return Figure(chart.svg(), caption, legend)


def _pace(row: Row) -> float:
    return math.nan if row.raw_median_s is None or not row.median_s else row.raw_median_s / row.median_s


def _degrees(row: Row) -> float:
    told = row.conditions
    known = (told.temperature_highest_c, told.temperature_start_c, told.temperature_end_c)
    return max((one for one in known if one is not None), default=math.nan)


def _gigahertz(row: Row) -> float:
    hertz = row.conditions.frequency_lowest_hz
    return math.nan if hertz is None else hertz / 1e9


_LINES: tuple[tuple[str, str, Callable[[Row], float], Callable[[Sequence[float]], float]], ...] = (
    ("pace", "the clock's p50 over the paired one", _pace, statistics.median),
    ("heat", "highest temperature, °C", _degrees, max),
    ("clock", "lowest clock frequency, GHz", _gigahertz, min),
)
"""What is drawn below the rows: how it looks, what it is called, and what stands for several rows side by side."""


def _thinned(spots: Sequence[tuple[int, float]], merge: Callable[[Sequence[float]], float]) -> list[Spot]:
    """As many points as can be told apart: of rows side by side the middle one's place, and one value for all."""
    step = -(-len(spots) // _FINE)
    thin: list[Spot] = []
    for start in range(0, len(spots), step):
        several = spots[start : start + step]
        known = [value for _, value in several if math.isfinite(value)]
        thin.append((several[len(several) // 2][0], merge(known) if known else math.nan))
    return thin


def _tooltip(row: Row) -> str:
    words = [f"{row.subnet}: {milliseconds(row.median_s)}"]
    if row.started_at is not None:
        words.append(f"{row.started_at:%H:%M}")
    words += row.status
    return ", ".join(words)


def _reasons(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(word for row in rows for word in row.status))


def _moment(when: object) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def _doubtful(table: DeviceTable, rows: Sequence[Row]) -> Table:
    shown = rows[:_LISTED]
    caption = f"{'The' if len(shown) == len(rows) else 'The first'} {count(len(shown))} rows in doubt on {table.target}"
    cells = [(row.subnet, milliseconds(row.median_s), count(row.n), ", ".join(row.status)) for row in shown]
    head = ("Subnet", f"p50, {table.source}", "Calls", "Doubt")
    return Table(caption, head, cells, frozenset({1, 2}), frozenset({0}), folded=True, subnets=True)


# -- the rounds of one measurement -----------------------------------------------------------------------------------


def which(one: Samples) -> str:
    """Whose samples they are, in words that do not let another subnet pass for the winner."""
    if one.role == "winner":
        return f"the winner, {one.subnet}"
    return f"{one.subnet}, the subnet of the table whose latency is nearest to the winner's"


def _of_one(one: Samples | None) -> Iterator[Block]:
    if one is None:
        yield Paragraph("There is no winner with a table of its device, so no single measurement is shown.")
        return
    values = [1e3 * value for value in (*one.raw_s, *one.paired_s) if math.isfinite(value)]
    if len(one.paired_s) < 2 or len(set(values)) < 2:
        yield Paragraph(f"The measurement of {which(one)}, has a single round, or rounds that are all alike.")
        return
    spread = _spread(one.raw_s), _spread(one.paired_s)
    yield Paragraph(
        f"The rounds of {which(one)}, {one.source} on {one.target}: half of them lie within {percent(spread[0])} of "
        f"each other as the clock said, within {percent(spread[1])} once paired with the reference model."
    )
    yield _rounds_figure(one, values)


def _spread(values: Sequence[float]) -> float:
    """The range of the middle half, over the median."""
    held = sorted(values)
    quarter = len(held) // 4
    return (held[-1 - quarter] - held[quarter]) / held[len(held) // 2]


def _rounds_figure(one: Samples, values: Sequence[float]) -> Figure:
    x = Axis.around((1, len(one.paired_s)), "round", room=0.02)
    chart = Panels(
        f"Rounds of {one.subnet} on {one.target}", "rounds", x, [Panel(Axis.around(values, "fastest call, ms"), 240)]
    )
    legend = []
    for series, kind, seconds, words in (
        ("raw", "guess", one.raw_s, "as the clock said"),
        ("paired", "known", one.paired_s, "paired with the reference model"),
    ):
        spots = [(float(number), 1e3 * value) for number, value in enumerate(seconds, start=1)]
        if len(spots) > _DRAWN:
            line = "pace" if series == "raw" else "heat"
            chart.line(spots, line)
            legend.append(LegendEntry(line_swatch(line), words))
        else:
            drawn: list[Datum] = [(at, value, f"round {at:.0f}: {significant(value)} ms") for at, value in spots]
            chart.marks(series, kind, drawn)
            legend.append(LegendEntry(dot_swatch(kind), words))
    caption = f"The fastest call of each round of {which(one)}, {one.source} on {one.target}."
    return Figure(chart.svg(), caption, legend)
