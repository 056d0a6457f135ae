"""The course of a search: how good the best was, and how much the front dominated, after so many evaluations."""

from __future__ import annotations

import math

from toolchain.records import SearchResult
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section
from toolchain.report.charts import Axis, Chart, Spot, line_swatch, mark_swatch, staircase
from toolchain.report.story import Story
from toolchain.report.units import count, metric_name, percent, significant

_TITLE = "Course of the search"


def course(story: Story) -> Section:
    """The best quality so far, and the hypervolume where it was recorded; a sentence where there is too little."""
    search = story.search
    if search is None:
        return Section("course", _TITLE, [Paragraph("The search has not been run, so it has no course.")])
    if len(search.evaluations) < 2:
        words = "Fewer than two subnets were evaluated, so the search has no course to show."
        return Section("course", _TITLE, [Paragraph(words)])
    return Section("course", _TITLE, [*_best(search), *_hypervolume(search)])


def _best(search: SearchResult) -> list[Block]:
    """The best quality among those that keep the budgets and were judged to the end, in steps, a mark at each rise."""
    rises: list[Spot] = []
    for number, each in enumerate(search.evaluations, start=1):
        value = 100 * each.quality.value
        if each.feasible and not each.stopped and math.isfinite(value) and (not rises or value > rises[-1][1]):
            rises.append((number, value))
    merit = metric_name(search.winner.quality)
    if not rises:
        return [Paragraph("No evaluated subnet keeps the budgets, so there is no best so far.", "bad")]
    total, (last, best) = len(search.evaluations), rises[-1]
    found = f"The best that keeps the budgets, {merit} {best:.1f} %, was found at evaluation {count(last)}"
    words = f"{found} of {count(total)}."
    if len(rises) == 1:
        return [Paragraph(f"{words} None before it kept them, none after it was better.")]
    chart = Chart(
        f"Best {merit} so far over evaluations",
        Axis.around([1, total], "evaluations", room=0.02),
        Axis.around([value for _, value in rises], f"best {merit} so far, %", room=0.12),
        "course",
    )
    chart.line(staircase([*rises, (total, best)]), "course")
    chart.marks(rises, "d0 known", "circle", 4, "best so far")
    legend = [
        LegendEntry(line_swatch("course"), f"best {merit} among those that keep the budgets"),
        LegendEntry(mark_swatch("d0 known"), f"a better one was found ({count(len(rises))})"),
    ]
    return [Figure(chart.svg(), words, legend)]


def _hypervolume(search: SearchResult) -> list[Block]:
    """A chart of the hypervolume over the evaluations; nothing where fewer than two looks are."""
    looks = [look for look in search.trace if math.isfinite(look.hypervolume) and math.isfinite(look.best)]
    if len(looks) < 2:
        return []
    chart = Chart(
        "Hypervolume over evaluations",
        Axis.around([look.evaluations for look in looks], "evaluations", room=0.02),
        Axis.around([look.hypervolume for look in looks], "hypervolume"),
        "hypervolume",
    )
    places = [(float(look.evaluations), look.hypervolume) for look in looks]
    chart.line(places, "series-2")
    chart.marks(places, "d2 known", "diamond", 2.5, "hypervolume")
    last = looks[-1]
    caption = (
        "How far the search was after so many evaluations. The hypervolume is what the front dominates, so it never "
        f"falls; where it has levelled off, more evaluations would have found little. At the end, after "
        f"{count(last.evaluations)}, it was {significant(last.hypervolume)}, and the best "
        f"{metric_name(search.winner.quality)} {percent(last.best)}."
    )
    return [Figure(chart.svg(), caption, [LegendEntry(line_swatch("series-2"), "hypervolume of the front so far")])]
