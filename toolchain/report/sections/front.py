"""The search in one picture: the quality of every subnet it saw against what the subnet costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from toolchain.records import Budget, Evaluation, Manifest, SearchResult
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Chart, Shape, area_swatch, line_swatch, mark_swatch, staircase
from toolchain.report.evidence import latency_source
from toolchain.report.story import Story
from toolchain.report.units import (
    amount,
    architecture_words,
    cost_words,
    count,
    figure,
    measured_ms,
    metric_name,
    percent,
    unit,
)

# What was measured or counted is a filled mark, what a model says is a hollow one.
_MARKS: dict[str, tuple[str, Shape]] = {
    "measured": ("known", "circle"),
    "counted": ("known", "square"),
    "predicted": ("guess", "circle"),
    "simulated": ("guess", "diamond"),
    "emulated": ("guess", "triangle"),
}
_MANY = 300


def front(story: Story) -> Section:
    """The chart, the front as a table, and all evaluations as a folded one; a sentence where there is too little."""
    search = story.search
    title = "Quality against cost"
    if search is None:
        return Section("front", title, [Paragraph("The search has not been run, so there is no front to show.")])
    metric = _first_cost(search)
    seen = _drawable(search.evaluations, metric)
    blocks: list[Block] = [Paragraph(_summary(search))]
    if not search.evaluations:
        blocks.append(Paragraph("The search evaluated no subnet, so there is no front to show."))
    elif not seen:
        blocks.append(Paragraph(f"No evaluation has a {unit(metric).name}, so there is no chart."))
    elif len({evaluation.architecture.id for evaluation in seen}) == 1:
        blocks.append(Paragraph(f"A single subnet was evaluated, so there is no chart: {_tooltip(seen[0], metric)}."))
    else:
        blocks.append(_figure(search, metric, seen, _shipped(story, metric)))
    left = len(search.evaluations) - len(seen)
    if seen and left:
        verb = "has" if left == 1 else "have"
        words = f"{count(left)} of {count(len(search.evaluations))} evaluations {verb} no finite {unit(metric).name}"
        blocks.append(Paragraph(f"{words}, so it is not drawn.", "warning"))
    if search.budgets and search.evaluations and not any(each.feasible for each in search.evaluations):
        blocks.append(Paragraph("No evaluated subnet keeps the budgets.", "bad"))
    blocks += _tables(search, metric)
    return Section("front", title, blocks)


# -- the chart -------------------------------------------------------------------------------------------------------


def _figure(
    search: SearchResult, metric: str, seen: list[Evaluation], shipped: tuple[Manifest, float, float] | None
) -> Figure:
    name, scale = metric_name(search.winner.quality), unit(metric).axis_scale
    budget = next((budget for budget in search.budgets if budget.metric == metric), None)
    marked = _drawable((search.smallest, search.largest, search.winner), metric)
    everyone = [*seen, *marked]
    across = [each.costs[metric].value / scale for each in everyone]
    if budget is not None and math.isfinite(budget.limit):
        across.append(budget.limit / scale)
    if shipped is not None:
        across.append(shipped[1] / scale)
    title = f"{name.capitalize()} against {unit(metric).name}"
    chart = Chart(
        title,
        Axis.around(across, unit(metric).axis),
        Axis.around((100 * each.quality.value for each in everyone), f"{name}, %", room=0.12),
    )
    legend: list[LegendEntry] = []
    if budget is not None and math.isfinite(budget.limit):
        legend.append(_draw_budget(chart, budget, scale))
    legend += _draw_points(chart, metric, seen)
    corners = [_place(each, metric) for each in _drawable(_on_front(search), metric)]
    if len(corners) > 1:
        chart.line(staircase(corners), "front")
        legend.append(LegendEntry(line_swatch("front"), "front: nothing seen is better and cheaper"))
    legend.append(_draw_rings(chart, search, metric))
    if shipped is not None:
        legend.append(_draw_shipped(chart, search.winner, metric, shipped))
    return Figure(chart.svg(), f"{title}. Up and to the left is better. {_caption(budget)}", legend)


def _draw_budget(chart: Chart, budget: Budget, scale: float) -> LegendEntry:
    limit, low, high = budget.limit / scale, chart.y.low, chart.y.high
    chart.area([(limit, low), (chart.x.high, low), (chart.x.high, high), (limit, high)], "infeasible")
    chart.line([(limit, low), (limit, high)], "budget")
    return LegendEntry(area_swatch("infeasible"), f"over the budget of {amount(budget.metric, budget.limit)}")


def _draw_points(chart: Chart, metric: str, seen: list[Evaluation]) -> list[LegendEntry]:
    radius = 3 if len(seen) > _MANY else 4.5
    kinds: Counter[tuple[str, bool]] = Counter()
    # The feasible ones last, so that they lie above.
    for each in sorted(seen, key=lambda evaluation: evaluation.feasible):
        source = each.costs[metric].source
        kinds[source, each.feasible] += 1
        kind, shape = _MARKS[source]
        chart.point(
            _place(each, metric),
            kind if each.feasible else f"{kind} over",
            _tooltip(each, metric),
            shape,
            radius,
        )
    return [
        LegendEntry(
            mark_swatch(_MARKS[source][0] + ("" if feasible else " over"), _MARKS[source][1]),
            f"{unit(metric).name} {source}{'' if feasible else ', misses a budget'} ({count(number)})",
        )
        for (source, feasible), number in sorted(kinds.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def _draw_rings(chart: Chart, search: SearchResult, metric: str) -> LegendEntry:
    """Rings around the smallest, the largest and the winner; one that is two of them has one ring and both names."""
    name, winner = "winner", search.winner.architecture.id
    for rival, words in ((search.smallest, "smallest"), (search.largest, "largest")):
        if rival.architecture.id == winner:
            name += f" = {words}"
        else:
            chart.ring(_place(rival, metric), "edge", words, above=words == "largest")
    chart.ring(_place(search.winner, metric), "winner", name)
    return LegendEntry(mark_swatch("winner", ring=True), name)


def _draw_shipped(chart: Chart, winner: Evaluation, metric: str, shipped: tuple[Manifest, float, float]) -> LegendEntry:
    """The winner again, where the shipped file was measured to be; a line leads there from where it was predicted."""
    manifest, median_s, half_width_s = shipped
    scale = unit(metric).axis_scale
    y = 100 * winner.quality.value
    chart.line([_place(winner, metric), (median_s / scale, y)], "moved")
    chart.line([((median_s - half_width_s) / scale, y), ((median_s + half_width_s) / scale, y)], "half-width")
    words = f"{measured_ms(median_s, half_width_s)} {latency_source(manifest)}"
    chart.mark((median_s / scale, y), "shipped", f"{winner.architecture.id}: shipped file, {words}", "star", 6)
    return LegendEntry(mark_swatch("shipped", "star"), f"the shipped file: {words} (quality as in the search)")


def _shipped(story: Story, metric: str) -> tuple[Manifest, float, float] | None:
    """The measurement of the shipped file, where it can stand in the same chart as the search: same subnet, same
    device, same workload."""
    manifest, search = story.manifest, story.search
    if manifest is None or search is None or metric != "latency_s" or metric not in search.winner.costs:
        return None
    same = (
        manifest.artifact.architecture.id == search.winner.architecture.id
        and manifest.target == search.target
        and manifest.workload == search.workload
    )
    latency = manifest.latency
    return (manifest, latency.median_s, latency.half_width_s) if same and math.isfinite(latency.median_s) else None


def _caption(budget: Budget | None) -> str:
    return "The shaded side is over the budget." if budget is not None else "No budget is set on this axis."


# -- the tables ------------------------------------------------------------------------------------------------------


def _tables(search: SearchResult, metric: str) -> list[Block]:
    on_front = sorted(
        _on_front(search), key=lambda each: each.costs[metric].value if metric in each.costs else math.inf
    )
    blocks: list[Block] = []
    if on_front:
        rows = [(*_row(each, metric), architecture_words(each.architecture)) for each in on_front]
        head = (*_head(search, metric), "Architecture")
        blocks.append(Table("The front, cheapest first", head, rows, numbers=frozenset({1, 2}), codes=frozenset({0})))
    if search.evaluations:
        caption = f"All {count(len(search.evaluations))} evaluations, in the order of the search"
        rows_of_all = [_row(each, metric) for each in search.evaluations]
        blocks.append(
            Table(caption, _head(search, metric), rows_of_all, frozenset({1, 2}), frozenset({0}), folded=True)
        )
    return blocks


def _head(search: SearchResult, metric: str) -> tuple[str, ...]:
    name = unit(metric).name.capitalize()
    return ("Subnet", metric_name(search.winner.quality).capitalize(), name, f"{name} is", "Budgets")


def _row(each: Evaluation, metric: str) -> tuple[str, ...]:
    cost = each.costs.get(metric)
    value, source = (figure(metric, cost.value), cost.source) if cost else ("–", "–")
    budgets = "kept" if each.feasible else "missed"
    return (each.architecture.id, percent(each.quality.value, 2), value, source, budgets)


# -- parts -----------------------------------------------------------------------------------------------------------


def _summary(search: SearchResult) -> str:
    device = f"for {search.target}" if search.target else "without a device"
    feasible = sum(each.feasible for each in search.evaluations)
    return (
        f"The searcher {search.searcher} evaluated {count(len(search.evaluations))} subnets of {search.space.name} "
        f"{device}, seed {search.seed}; {count(feasible)} of them keep the budgets."
    )


def _first_cost(search: SearchResult) -> str:
    """The metric of the chart: latency where there is a device, else what the first budget limits."""
    everyone = (search.winner, *search.evaluations)
    if search.target is not None and any("latency_s" in each.costs for each in everyone):
        return "latency_s"
    if search.budgets:
        return search.budgets[0].metric
    return next((name for each in everyone for name in each.costs), "parameters")


def _on_front(search: SearchResult) -> list[Evaluation]:
    return [search.evaluations[index] for index in search.front if 0 <= index < len(search.evaluations)]


def _drawable(evaluations: Iterable[Evaluation], metric: str) -> list[Evaluation]:
    return [
        each
        for each in evaluations
        if metric in each.costs and math.isfinite(each.costs[metric].value) and math.isfinite(each.quality.value)
    ]


def _place(each: Evaluation, metric: str) -> tuple[float, float]:
    cost = each.costs.get(metric)
    return (cost.value / unit(metric).axis_scale if cost else math.nan), 100 * each.quality.value


def _tooltip(each: Evaluation, metric: str) -> str:
    missed = "" if each.feasible else "; misses a budget"
    merit = f"{metric_name(each.quality)} {percent(each.quality.value)}"
    return f"{each.architecture.id}: {merit}; {cost_words(metric, each.costs[metric])}{missed}"
