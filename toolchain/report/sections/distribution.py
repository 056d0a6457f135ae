"""How the calls of one measurement are spread: where p50, p90 and p99 lie, and the budget."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.records import Budget, Latency, Manifest, Source
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, line_swatch
from toolchain.report.evidence import latency_source
from toolchain.report.plots import Panel, Panels, part_swatch
from toolchain.report.sections.samples import which
from toolchain.report.story import Samples, Story
from toolchain.report.units import count, milliseconds, percent, significant

_BINS = 40
_SHOWN = 0.995
"""Of the calls are within the chart; the rest are counted beyond it."""
_FAR = 4.0
"""A budget this many times the range of the calls away would make a line of the histogram: it is told in words."""


def distribution(story: Story) -> Section:
    """A histogram of the winner's calls with percentiles and budget, and the percentiles beside the shipped file's."""
    title, one, manifest = "Distribution of the latency", story.samples, story.manifest
    if one is None or len(one.walls_s) < 2:
        words = "No measurement of the winner, or of a subnet like it, was kept call by call."
        blocks: list[Block] = [Paragraph(words)]
    elif len(set(one.walls_s)) == 1:
        blocks = [
            Paragraph(f"All {count(len(one.walls_s))} calls of {which(one)} took {milliseconds(one.walls_s[0])}.")
        ]
    else:
        limits = _limits(story, one.target)
        blocks = [Paragraph(_summary(one, manifest)), *_beyond(one, limits), _figure(one, limits)]
    if (one is not None and one.walls_s) or manifest is not None:
        blocks.append(_table(one, manifest))
    return Section("distribution", title, blocks)


def _summary(one: Samples, manifest: Manifest | None) -> str:
    latency = one.latency
    words = (
        f"{count(latency.n)} calls of {which(one)}, {one.source} on {one.target}, in {count(latency.rounds)} rounds."
    )
    if one.role != "winner":
        words += " The winner itself is not in the table: the search predicted it."
    if manifest is not None:
        words += " Of the shipped file's own calls the figures are kept, in the table below."
    return words


def _limits(story: Story, target: str) -> list[Budget]:
    budgets = story.search.budgets if story.search else ()
    return [one for one in budgets if one.metric == "latency_s" and one.target in (None, target)]


def _range(one: Samples) -> tuple[float, float]:
    """From the fastest call to the one that only one in 200 exceeds, in seconds."""
    held = sorted(one.walls_s)
    return held[0], max(held[int(_SHOWN * (len(held) - 1))], one.latency.p99_s or 0.0)


def _within(one: Samples, limit_s: float) -> bool:
    low, high = _range(one)
    width = max(high - low, 1e-12)
    return low - _FAR * width <= limit_s <= high + _FAR * width


def _beyond(one: Samples, limits: Sequence[Budget]) -> list[Block]:
    return [
        Paragraph(
            f"The budget of {milliseconds(budget.limit)} (p{budget.percentile}) lies far beyond the chart, to the "
            f"{'right' if budget.limit > one.latency.median_s else 'left'}: "
            f"{significant(budget.limit / one.latency.median_s)} times the p50."
        )
        for budget in limits
        if not _within(one, budget.limit)
    ]


def _figure(one: Samples, limits: Sequence[Budget]) -> Figure:
    low, high = _range(one)
    near = [budget for budget in limits if _within(one, budget.limit)]
    spans = [1e3 * value for value in (low, high, *(budget.limit for budget in near))]
    bins = min(_BINS, max(2, len(one.walls_s) // 4))
    width = (high - low) / bins or 1e-12
    counts = [0] * bins
    for wall in one.walls_s:
        if wall <= high:
            counts[min(bins - 1, int((wall - low) / width))] += 1
    beyond = len(one.walls_s) - sum(counts)
    chart = Panels(
        f"Distribution of the calls of {one.subnet} on {one.target}",
        "distribution",
        Axis.around(spans, "latency, ms", room=0.03),
        [Panel(Axis.around([0.0, max(counts)], "calls", room=0.12, ticks=5), 300)],
    )
    edges = [1e3 * (low + number * width) for number in range(bins + 1)]
    chart.columns(
        "calls",
        "known",
        (
            (edges[at], edges[at + 1], height, f"{significant(edges[at])} to {significant(edges[at + 1])} ms: {height}")
            for at, height in enumerate(counts)
            if height
        ),
    )
    for step, (name, value) in enumerate(_percentiles(one.latency)):
        if value is not None:
            chart.upright(1e3 * value, f"{name} {milliseconds(value)}", "percentile", step)
    for step, budget in enumerate(near, start=3):
        chart.upright(1e3 * budget.limit, f"budget (p{budget.percentile}) {milliseconds(budget.limit)}", "budget", step)
    legend = [
        LegendEntry(part_swatch("part-entry"), f"calls, {one.source}"),
        LegendEntry(line_swatch("percentile"), "p50, p90, p99"),
    ]
    legend += [LegendEntry(line_swatch("budget"), "budget")] if near else []
    more = f" Beyond the chart: {count(beyond)} of the calls ({percent(beyond / len(one.walls_s))})." if beyond else ""
    caption = (
        f"The undisturbed calls of {which(one)}, on the scale of the paired p50.{more}"
        f"{' Too few calls for ' + _missing(one.latency) + '.' if _missing(one.latency) else ''}"
    )
    return Figure(chart.svg(), caption, legend)


def _percentiles(latency: Latency) -> list[tuple[str, float | None]]:
    return [("p50", latency.median_s), ("p90", latency.p90_s), ("p99", latency.p99_s)]


def _missing(latency: Latency) -> str:
    return " and ".join(name for name, value in _percentiles(latency) if value is None)


def _table(one: Samples | None, manifest: Manifest | None) -> Table:
    columns: list[tuple[str, str, Source, Latency]] = []
    if one is not None and one.walls_s:
        columns.append(("Winner" if one.role == "winner" else one.subnet, one.target, one.source, one.latency))
    if manifest is not None:
        columns.append(("Shipped file", manifest.target, latency_source(manifest), manifest.latency))
    names = [name for name, _ in _percentiles(columns[0][-1])]
    rows = [
        (name, *(milliseconds(_percentiles(latency)[at][1]) for *_, latency in columns))
        for at, name in enumerate(names)
    ]
    rows.append(("Calls, n", *(count(latency.n) for *_, latency in columns)))
    rows += [("Device", *(target for _, target, *_ in columns)), ("Source", *(source for _, _, source, _ in columns))]
    head = ("Percentile", *(name for name, *_ in columns))
    return Table("Percentiles", head, rows, frozenset(range(1, len(head))))
