"""The search in one picture: the quality of every subnet it saw against what the subnet costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from toolchain.records import Budget, Evaluation, Manifest, SearchResult, cost_key, metric_of, names_of, parts_of
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Chart, Shape, area_swatch, line_swatch, mark_swatch, staircase
from toolchain.report.evidence import latency_source
from toolchain.report.sections.course import picks, trace
from toolchain.report.story import Story
from toolchain.report.units import (
    amount,
    architecture_words,
    capital,
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
    """The chart, the best under each set of budgets, the front as a table, and all evaluations as a folded one.

    A sentence stands where there is too little for a chart.
    """
    search = story.search
    title = "Quality against cost"
    if search is None:
        return Section("front", title, [Paragraph("The search has not been run, so there is no front to show.")])
    key = _first_cost(search)
    name = _name(search, key)
    seen = _drawable(search.evaluations, key)
    blocks: list[Block] = [Paragraph(_summary(search))]
    if not search.evaluations:
        blocks.append(Paragraph("The search evaluated no subnet, so there is no front to show."))
    elif not seen:
        blocks.append(Paragraph(f"No evaluation has a {name}, so there is no chart."))
    elif len({evaluation.architecture.id for evaluation in seen}) == 1:
        blocks.append(Paragraph(f"A single subnet was evaluated, so there is no chart: {_tooltip(seen[0], key)}."))
    else:
        blocks.append(_figure(search, key, seen, _shipped(story, key)))
    left = len(search.evaluations) - len(seen)
    if seen and left:
        verb = "has" if left == 1 else "have"
        words = f"{count(left)} of {count(len(search.evaluations))} evaluations {verb} no finite {name}"
        blocks.append(Paragraph(f"{words}, so it is not drawn.", "warning"))
    if search.budgets and search.evaluations and not any(each.feasible for each in search.evaluations):
        blocks.append(Paragraph("No evaluated subnet keeps the budgets.", "bad"))
    blocks += [*picks(search), *_tables(search, key), *trace(search)]
    return Section("front", title, blocks)


# -- the chart -------------------------------------------------------------------------------------------------------


def _figure(
    search: SearchResult, key: str, seen: list[Evaluation], shipped: tuple[Manifest, float, float] | None
) -> Figure:
    name, scale = metric_name(search.winner.quality), unit(key).axis_scale
    budget = next((budget for budget in search.budgets if key in _keys(budget)), None)
    marked = _drawable((search.smallest, search.largest, search.winner), key)
    everyone = [*seen, *marked]
    across = [each.costs[key].value / scale for each in everyone]
    if budget is not None and math.isfinite(budget.limit):
        across.append(budget.limit / scale)
    if shipped is not None:
        across.append(shipped[1] / scale)
    title = f"{name.capitalize()} against {_name(search, key)}"
    chart = Chart(
        title,
        Axis.around(across, _axis(search, key)),
        Axis.around((100 * each.quality.value for each in everyone), f"{name}, %", room=0.12),
    )
    legend: list[LegendEntry] = []
    if budget is not None and math.isfinite(budget.limit):
        legend.append(_draw_budget(chart, budget, scale))
    legend += _draw_points(chart, key, unit(key).name, seen)
    corners = _rising(_place(each, key) for each in _drawable(_on_front(search), key))
    if len(corners) > 1:
        chart.line(staircase(corners), "front")
        legend.append(LegendEntry(line_swatch("front"), "front: nothing seen is better and cheaper"))
    legend.append(_draw_rings(chart, search, key))
    if shipped is not None:
        legend.append(_draw_shipped(chart, search.winner, key, shipped))
    return Figure(chart.svg(), f"{title}. Up and to the left is better. {_caption(budget)}", legend)


def _draw_budget(chart: Chart, budget: Budget, scale: float) -> LegendEntry:
    limit, low, high = budget.limit / scale, chart.y.low, chart.y.high
    chart.area([(limit, low), (chart.x.high, low), (chart.x.high, high), (limit, high)], "infeasible")
    chart.line([(limit, low), (limit, high)], "budget")
    return LegendEntry(area_swatch("infeasible"), f"over the budget of {amount(budget.key, budget.limit)}")


def _draw_points(chart: Chart, key: str, name: str, seen: list[Evaluation]) -> list[LegendEntry]:
    radius = 3 if len(seen) > _MANY else 4.5
    kinds: Counter[tuple[bool, str, bool]] = Counter()
    # The feasible ones last, so that they lie above; those that were given up early below all.
    for each in sorted(seen, key=lambda evaluation: (not evaluation.stopped, evaluation.feasible)):
        source = each.costs[key].source
        kinds[each.stopped, source, each.feasible] += 1
        kind, shape = _mark(source, stopped=each.stopped, feasible=each.feasible)
        chart.point(_place(each, key), kind, _tooltip(each, key), shape, radius * (0.6 if each.stopped else 1))
    return [
        LegendEntry(
            mark_swatch(*_mark(source, stopped=stopped, feasible=feasible)),
            f"{name} {source}{', given up early' if stopped else ''}{'' if feasible else ', misses a budget'} "
            f"({count(number)})",
        )
        for (stopped, source, feasible), number in sorted(
            kinds.items(), key=lambda item: (item[0][0], item[0][1], not item[0][2])
        )
    ]


def _mark(source: str, *, stopped: bool, feasible: bool) -> tuple[str, Shape]:
    """The look of an evaluation: what was given up early is small and hollow, since its quality is an estimate."""
    kind, shape = _MARKS[source]
    kind = "guess stopped" if stopped else kind
    return (kind if feasible else f"{kind} over"), shape


def _draw_rings(chart: Chart, search: SearchResult, key: str) -> LegendEntry:
    """Rings around the smallest, the largest and the winner; one that is two of them has one ring and both names."""
    name, winner = "winner", search.winner.architecture.id
    for rival, words in ((search.smallest, "smallest"), (search.largest, "largest")):
        if rival.architecture.id == winner:
            name += f" = {words}"
        else:
            chart.ring(_place(rival, key), "edge", words, above=words == "largest")
    chart.ring(_place(search.winner, key), "winner", name)
    return LegendEntry(mark_swatch("winner", ring=True), name)


def _draw_shipped(chart: Chart, winner: Evaluation, key: str, shipped: tuple[Manifest, float, float]) -> LegendEntry:
    """The winner again, where the shipped file was measured to be; a line leads there from where it was predicted."""
    manifest, median_s, half_width_s = shipped
    scale = unit(key).axis_scale
    y = 100 * winner.quality.value
    chart.line([_place(winner, key), (median_s / scale, y)], "moved")
    chart.line([((median_s - half_width_s) / scale, y), ((median_s + half_width_s) / scale, y)], "half-width")
    words = f"{measured_ms(median_s, half_width_s)} {latency_source(manifest)}"
    chart.mark((median_s / scale, y), "shipped", f"{winner.architecture.id}: shipped file, {words}", "star", 6)
    return LegendEntry(mark_swatch("shipped", "star"), f"the shipped file: {words} (quality as in the search)")


def _shipped(story: Story, key: str) -> tuple[Manifest, float, float] | None:
    """The measurement of the shipped file, where it can stand in the same chart as the search: same subnet, same
    device, same workload."""
    manifest, search = story.manifest, story.search
    if manifest is None or search is None or key not in search.winner.costs:
        return None
    metric, percentile, target = parts_of(key)
    same = (
        (metric, percentile) == ("latency_s", 50)
        and target in (None, manifest.target)
        and manifest.artifact.architecture.id == search.winner.architecture.id
        and manifest.target == search.target
        and manifest.workload == search.workload
    )
    latency = manifest.latency
    return (manifest, latency.median_s, latency.half_width_s) if same and math.isfinite(latency.median_s) else None


def _caption(budget: Budget | None) -> str:
    return "The shaded side is over the budget." if budget is not None else "No budget is set on this axis."


# -- the tables ------------------------------------------------------------------------------------------------------


def _tables(search: SearchResult, key: str) -> list[Block]:
    on_front = sorted(_on_front(search), key=lambda each: each.costs[key].value if key in each.costs else math.inf)
    others = _other_costs(search, key)
    head = _head(search, key)
    blocks: list[Block] = []
    if on_front:
        rows = [(*_row(each, key), *_cells(each, others), architecture_words(each.architecture)) for each in on_front]
        names = (capital(_name(search, other)) for other in others)
        numbers = frozenset({1, 2, *range(len(head), len(head) + len(others))})
        full = (*head, *names, "Architecture")
        blocks.append(Table("The front, cheapest first", full, rows, numbers=numbers, codes=frozenset({0})))
    if search.evaluations:
        caption = f"All {count(len(search.evaluations))} evaluations, in the order of the search"
        rows_of_all = [_row(each, key) for each in search.evaluations]
        blocks.append(Table(caption, head, rows_of_all, frozenset({1, 2}), frozenset({0}), folded=True))
    return blocks


def _other_costs(search: SearchResult, key: str) -> list[str]:
    """What else had a say: the costs that the front or a budget is about, but for the one that is shown anyway."""
    wanted = [*search.objectives, *(name for budget in search.budgets for name in _keys(budget))]
    return [other for other in dict.fromkeys(wanted) if other != key and other in search.winner.costs]


def _head(search: SearchResult, key: str) -> tuple[str, ...]:
    name = capital(_name(search, key))
    return ("Subnet", metric_name(search.winner.quality).capitalize(), name, f"{name} is", "Budgets")


def _row(each: Evaluation, key: str) -> tuple[str, ...]:
    cost = each.costs.get(key)
    value, source = (figure(key, cost.value), cost.source) if cost else ("–", "–")
    budgets = ("kept" if each.feasible else "missed") + (", given up early" if each.stopped else "")
    return (each.architecture.id, percent(each.quality.value, 2), value, source, budgets)


def _cells(each: Evaluation, keys: list[str]) -> list[str]:
    return [figure(key, each.costs[key].value) if key in each.costs else "–" for key in keys]


# -- parts -----------------------------------------------------------------------------------------------------------


def _summary(search: SearchResult) -> str:
    devices = " and ".join(device.target for device in search.devices) or search.target
    device = f"for {devices}" if devices else "without a device"
    feasible = sum(each.feasible for each in search.evaluations)
    stopped = sum(each.stopped for each in search.evaluations)
    given_up = (
        f" {count(stopped)} were given up before all items were seen, as another was better and cheaper: their quality "
        "is an estimate."
        if stopped
        else ""
    )
    return (
        f"The searcher {search.searcher} evaluated {count(len(search.evaluations))} subnets of {search.space.name} "
        f"{device}, seed {search.seed}; {count(feasible)} of them keep the budgets.{given_up}"
    )


def _first_cost(search: SearchResult) -> str:
    """The cost of the chart: the front's latency where there is a device, else what the front or a budget is about."""
    known = dict.fromkeys(key for each in (search.winner, *search.evaluations) for key in each.costs)
    wanted = [key for key in search.objectives if key in known] or [*known]
    latencies = [key for key in wanted if metric_of(key) == "latency_s"]
    if search.target is not None and latencies:
        return next((key for key in latencies if parts_of(key).target == search.target), latencies[0])
    if search.budgets:
        wanted_too = [key for budget in search.budgets for key in _keys(budget) if key in known]
        return wanted_too[0] if wanted_too else search.budgets[0].key
    return next(iter(wanted), "parameters")


def _keys(budget: Budget) -> tuple[str, str]:
    """The cost that a budget limits, by its key and as results from before costs named their device have it."""
    return budget.key, cost_key(budget.metric, None, budget.percentile)


def _name(search: SearchResult, key: str) -> str:
    """What a cost is called here: with its device and percentile where the search had several."""
    return names_of([key, *search.winner.costs, *search.smallest.costs, *search.largest.costs])[key]


def _axis(search: SearchResult, key: str) -> str:
    target = parts_of(key).target
    several = target is not None and _name(search, key).endswith(f" on {target}")
    return f"{unit(key).axis}, on {target}" if several else unit(key).axis


def _rising(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that are better than all that cost less: of a front in several costs what shows in one of them."""
    found: list[tuple[float, float]] = []
    for place in sorted(places, key=lambda each: (each[0], -each[1])):
        if not found or place[1] > found[-1][1]:
            found.append(place)
    return found


def _on_front(search: SearchResult) -> list[Evaluation]:
    return [search.evaluations[index] for index in search.front if 0 <= index < len(search.evaluations)]


def _drawable(evaluations: Iterable[Evaluation], key: str) -> list[Evaluation]:
    return [
        each
        for each in evaluations
        if key in each.costs and math.isfinite(each.costs[key].value) and math.isfinite(each.quality.value)
    ]


def _place(each: Evaluation, key: str) -> tuple[float, float]:
    cost = each.costs.get(key)
    return (cost.value / unit(key).axis_scale if cost else math.nan), 100 * each.quality.value


def _tooltip(each: Evaluation, key: str) -> str:
    missed = "" if each.feasible else "; misses a budget"
    estimate = " (an estimate: given up early)" if each.stopped else ""
    merit = f"{metric_name(each.quality)} {percent(each.quality.value)}{estimate}"
    return f"{each.architecture.id}: {merit}; {cost_words(key, each.costs[key])}{missed}"
