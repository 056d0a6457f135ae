"""The chart of the front: what every subnet of a search is worth against what it costs, on each device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from toolchain.records import (
    Budget,
    Evaluation,
    Manifest,
    SearchResult,
    Source,
    cost_key,
    metric_of,
    names_of,
    parts_of,
)
from toolchain.report.blocks import Figure, LegendEntry
from toolchain.report.charts import (
    Axis,
    Chart,
    Shape,
    Spot,
    hatch_swatch,
    line_swatch,
    look,
    mark_swatch,
    staircase,
)
from toolchain.report.evidence import latency_source
from toolchain.report.sections.cards import Deck
from toolchain.report.units import amount, count, measured_ms, metric_name, unit

_MANY = 300
_SPREAD, _SPREAD_OF_MANY = 30.0, 8.0
"""From the cheapest to the dearest: with more than this factor between them the axis is logarithmic. Devices of one
chart lie apart however alike their subnets are."""
_FILLED = ("measured", "counted")
"""What was clocked or counted is a filled mark; what a model, an emulator or others say is a hollow one."""


class Shipped(NamedTuple):
    """The shipped file's own latency, where it can stand in the same chart as the search."""

    manifest: Manifest
    median_s: float
    half_width_s: float


class Series(NamedTuple):
    """One cost along the axis: a device's latency, or what there is without a device."""

    key: str
    name: str
    kind: str
    shape: Shape
    seen: Sequence[Evaluation]
    budgets: Sequence[Budget]


def main_cost(search: SearchResult) -> str:
    """The cost of the chart: the front's latency where there is a device, else what the front or a budget is about."""
    known = dict.fromkeys(key for each in (search.winner, *search.evaluations) for key in each.costs)
    wanted = [key for key in search.objectives if key in known] or [*known]
    latencies = [key for key in wanted if metric_of(key) == "latency_s"]
    if search.target is not None and latencies:
        return next((key for key in latencies if parts_of(key).target == search.target), latencies[0])
    if search.budgets:
        wanted_too = [key for budget in search.budgets for key in budget_keys(budget) if key in known]
        return wanted_too[0] if wanted_too else search.budgets[0].key
    return next(iter(wanted), "parameters")


def budget_keys(budget: Budget) -> tuple[str, str]:
    """The cost that a budget limits, by its key and as results from before costs named their device have it."""
    return budget.key, cost_key(budget.metric, None, budget.percentile)


def cost_name(search: SearchResult, key: str) -> str:
    """What a cost is called here: with its device and percentile where the search had several."""
    return names_of([key, *search.winner.costs, *search.smallest.costs, *search.largest.costs])[key]


def drawable(evaluations: Iterable[Evaluation], key: str) -> list[Evaluation]:
    """Those that have a place in the chart: a finite quality, and a cost that did not end in failure."""
    return [
        each
        for each in evaluations
        if key in each.costs and each.costs[key].known and math.isfinite(each.quality.value)
    ]


def on_front(search: SearchResult) -> list[Evaluation]:
    return [search.evaluations[index] for index in search.front if 0 <= index < len(search.evaluations)]


def all_series(search: SearchResult, key: str) -> list[Series]:
    """The chart's cost on every device that the search priced it on, the one it is chiefly for first."""
    metric, percentile, target = parts_of(key)
    keys = [key]
    if target is not None:
        known = dict.fromkeys(other for each in (search.winner, *search.evaluations) for other in each.costs)
        devices = [one.target for one in search.devices]
        devices += [other for each in known if (other := parts_of(each).target) and other not in devices]
        keys += [other for name in devices if (other := cost_key(metric, name, percentile)) in known and other != key]
    found = []
    for number, one in enumerate(keys):
        kind, shape = look(number)
        name = parts_of(one).target if len(keys) > 1 else unit(key).name
        limits = _limits(search, one)
        found.append(Series(one, name or unit(key).name, kind, shape, drawable(search.evaluations, one), limits))
    return found


def scatter(search: SearchResult, key: str, deck: Deck, shipped: Shipped | None) -> Figure:
    """One mark for each evaluation on each device, the budgets with their far side hatched, the front in steps."""
    series, scale, merit = all_series(search, key), unit(key).axis_scale, metric_name(search.winner.quality)
    title = f"{merit.capitalize()} against {cost_name(search, key) if len(series) == 1 else unit(key).name}"
    chart = Chart(title, _across(search, series, shipped), _up(search, series), "front")
    legend: list[LegendEntry] = []
    for number, one in enumerate(series):
        legend += _draw_budgets(chart, one, scale, number, alone=len(series) == 1)
    lines = [entry for one in series for entry in _draw_front(chart, search, one, scale, alone=len(series) == 1)]
    legend += [*_draw_marks(chart, series, deck, scale), *lines]
    legend.append(_draw_rings(chart, search, series))
    if shipped is not None:
        legend.append(_draw_shipped(chart, search.winner, key, shipped))
    return Figure(chart.svg(), f"{title}. Up and to the left is better. {_caption(chart, series)}", legend)


# -- axes ------------------------------------------------------------------------------------------------------------


def _across(search: SearchResult, series: Sequence[Series], shipped: Shipped | None) -> Axis:
    key, scale = series[0].key, unit(series[0].key).axis_scale
    values = [each.costs[one.key].value for one in series for each in (*one.seen, *_marked(search, one.key))]
    values += [budget.limit for one in series for budget in one.budgets]
    values += [end for one in series for each in _barred(search, one) for end in _ends(each, one.key)]
    if shipped is not None:
        values.append(shipped.median_s)
    values = [value / scale for value in values if math.isfinite(value)]
    factor = _SPREAD if len(series) == 1 else _SPREAD_OF_MANY
    log = min(values) > 0 and max(values) > factor * min(values)
    target = parts_of(key).target
    several = len(series) == 1 and target is not None and cost_name(search, key).endswith(f" on {target}")
    label = f"{unit(key).axis}, on {target}" if several else unit(key).axis
    return Axis.around(values, label, log=log)


def _up(search: SearchResult, series: Sequence[Series]) -> Axis:
    everyone = [each for one in series for each in (*one.seen, *_marked(search, one.key))]
    name = metric_name(search.winner.quality)
    return Axis.around((100 * each.quality.value for each in everyone), f"{name}, %", room=0.12)


def _marked(search: SearchResult, key: str) -> list[Evaluation]:
    return drawable((search.smallest, search.largest, search.winner), key)


def _place(each: Evaluation, key: str) -> Spot:
    cost = each.costs.get(key)
    return (cost.value / unit(key).axis_scale if cost and cost.known else math.nan), 100 * each.quality.value


# -- budgets ---------------------------------------------------------------------------------------------------------


def _limits(search: SearchResult, key: str) -> list[Budget]:
    """The finite limits of one cost: that of the winner first, then the tighter ones of a sweep."""
    asked = [*search.budgets, *(budget for pick in search.picks for budget in pick.budgets)]
    held = {each.limit: each for each in asked if key in budget_keys(each) and math.isfinite(each.limit)}
    return list(held.values())


def _draw_budgets(chart: Chart, one: Series, scale: float, number: int, *, alone: bool) -> Iterator[LegendEntry]:
    if not one.budgets:
        return
    first, *tighter = one.budgets
    limit, low, high = first.limit / scale, chart.y.low, chart.y.high
    kind = "plain" if alone else one.kind
    chart.hatch(limit, chart.x.high, kind, turned=one.kind in ("d1", "d3", "d5"))
    for each in one.budgets:
        place = each.limit / scale
        chart.line([(place, low), (place, high)], f"budget {kind}{'' if each is first else ' tighter'}")
    words = amount(first.key, first.limit)
    chart.label((limit, low), words if alone else f"{one.name}: {words}", f"name {kind}", lower=-10 - 24 * number)
    where = "" if alone else f"{one.name}: "
    yield LegendEntry(hatch_swatch(kind), f"{where}over the budget of {words}")
    if tighter:
        limits = ", ".join(amount(each.key, each.limit) for each in tighter)
        yield LegendEntry(line_swatch(f"budget tighter {kind}"), f"{where}tighter budgets of the sweep: {limits}")


# -- marks -----------------------------------------------------------------------------------------------------------


def _draw_marks(chart: Chart, series: Sequence[Series], deck: Deck, scale: float) -> Iterator[LegendEntry]:
    """Those that were given up below all, then those that miss a budget, and what is on the front above all."""
    many = max(len(one.seen) for one in series) > _MANY
    numbers = {id(each): number for number, each in enumerate(deck.subnets)}
    kinds: Counter[tuple[str, str]] = Counter()
    notes: Counter[str] = Counter()
    groups: dict[tuple[bool, bool, bool, int, Source], list[Evaluation]] = {}
    for at, one in enumerate(series):
        for each in one.seen:
            source, best = each.costs[one.key].source, each.architecture.id in deck.front
            groups.setdefault((not each.stopped, each.feasible, best, at, source), []).append(each)
            kinds[one.name, source] += 1
    for (whole, feasible, best, at, source), members in sorted(groups.items(), key=lambda item: item[0]):
        one = series[at]
        marks = [*_kind(source, stopped=not whole), *([] if feasible else ["over"]), *(["dense"] if many else [])]
        radius = (5.0 if best else 2.6 if many else 4.0) * (1 if whole else 0.7)
        places = ((each.costs[one.key].value / scale, 100 * each.quality.value) for each in members)
        rows = [numbers[id(each)] for each in members]
        chart.marks(places, " ".join([one.kind, *marks]), one.shape, radius, f"{one.name}, {source}", rows)
        if at == 0:
            notes["over"] += len(members) * (not feasible)
            notes["stopped"] += len(members) * (not whole)
    for one in series:
        for word in sorted(said for name, said in kinds if name == one.name):
            swatch = mark_swatch(" ".join([one.kind, *_kind(word, stopped=False)]), one.shape)
            yield LegendEntry(swatch, f"{one.name} {word} ({count(kinds[one.name, word])})")
    if notes["over"]:
        fill = "known" if any(name == series[0].name and source in _FILLED for name, source in kinds) else "guess"
        swatch = mark_swatch(f"{series[0].kind} {fill} over", series[0].shape)
        yield LegendEntry(swatch, f"grey, dotted: misses a budget ({count(notes['over'])})")
    if notes["stopped"]:
        swatch = mark_swatch(f"{series[0].kind} guess stopped", series[0].shape)
        yield LegendEntry(swatch, f"small, thin: given up early, an estimate ({count(notes['stopped'])})")


def _kind(source: str, *, stopped: bool) -> list[str]:
    filled = source in _FILLED and not stopped
    kinds = ["known" if filled else "guess"]
    if source in ("emulated", "simulated"):
        kinds.append("emulated")
    return [*kinds, "stopped"] if stopped else kinds


# -- the front -------------------------------------------------------------------------------------------------------


def _draw_front(chart: Chart, search: SearchResult, one: Series, scale: float, *, alone: bool) -> Iterator[LegendEntry]:
    chart.bars(
        (
            ((low / scale, 100 * each.quality.value), (high / scale, 100 * each.quality.value))
            for each in _barred(search, one)
            for low, high in [_ends(each, one.key)]
        ),
        one.kind,
    )
    corners = _rising(_place(each, one.key) for each in drawable(on_front(search), one.key))
    if len(corners) > 1:
        chart.line(staircase(corners), f"front {one.kind}")
        words = "front: nothing seen is better and cheaper" if alone else f"{one.name}: the front"
        yield LegendEntry(line_swatch(f"front {one.kind}"), words)


def _barred(search: SearchResult, one: Series) -> list[Evaluation]:
    """Those whose doubt is drawn: what is on the front, and the winner. Bars on all would hide the marks."""
    known = {each.architecture.id: each for each in [*drawable(on_front(search), one.key), search.winner]}
    return [
        each
        for each in known.values()
        if (cost := each.costs.get(one.key)) and cost.known and cost.value < cost.upper < math.inf
    ]


def _ends(each: Evaluation, key: str) -> tuple[float, float]:
    """As far below the value as the upper bound is above it, but not below nothing."""
    cost = each.costs[key]
    return max(2 * cost.value - cost.upper, cost.value / 10), cost.upper


def _rising(places: Iterable[Spot]) -> list[Spot]:
    """Those that are better than all that cost less: of a front in several costs what shows in one of them."""
    found: list[Spot] = []
    for place in sorted(places, key=lambda each: (each[0], -each[1])):
        if not found or place[1] > found[-1][1]:
            found.append(place)
    return found


# -- what is named ---------------------------------------------------------------------------------------------------


def _draw_rings(chart: Chart, search: SearchResult, series: Sequence[Series]) -> LegendEntry:
    """Rings around the smallest, the largest and the winner; one that is two of them has one ring and both names."""
    name, winner, key = "winner", search.winner.architecture.id, series[0].key
    for rival, words in ((search.smallest, "smallest"), (search.largest, "largest")):
        if rival.architecture.id == winner:
            name += f" = {words}"
        else:
            chart.ring(_place(rival, key), "edge", words, above=words == "largest")
    chart.ring(_place(search.winner, key), "winner", name)
    for other in series[1:]:
        chart.ring(_place(search.winner, other.key), "winner", "")
    return LegendEntry(mark_swatch("winner", ring=True), name)


def _draw_shipped(chart: Chart, winner: Evaluation, key: str, shipped: Shipped) -> LegendEntry:
    """The winner again, where the shipped file was measured to be; a line leads there from where it was predicted."""
    manifest, median_s, half_width_s = shipped
    scale = unit(key).axis_scale
    y = 100 * winner.quality.value
    chart.line([_place(winner, key), (median_s / scale, y)], "moved")
    chart.line([((median_s - half_width_s) / scale, y), ((median_s + half_width_s) / scale, y)], "half-width")
    words = f"{measured_ms(median_s, half_width_s)} {latency_source(manifest)}"
    chart.mark((median_s / scale, y), "shipped", f"{winner.architecture.id}: shipped file, {words}", "star", 6)
    return LegendEntry(mark_swatch("shipped", "star"), f"the shipped file: {words} (quality as in the search)")


def _caption(chart: Chart, series: Sequence[Series]) -> str:
    limited = any(one.budgets for one in series)
    words = ["The hatched side is over the budget." if limited else "No budget is set on this axis."]
    if chart.x.log:
        words.append("The axis of the cost is logarithmic.")
    words.append(
        "Bars on the front: a prediction's interval, a measurement's half-width. Filled is measured or counted, hollow "
        "is predicted, emulated or others' word."
    )
    return " ".join(words)
