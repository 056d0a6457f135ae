"""A sweep of budgets: the best subnet under each set of limits that was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.records import Budget, Evaluation, Pick, SearchResult, names_of, parts_of
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Chart, line_swatch, look, mark_swatch
from toolchain.report.story import Story
from toolchain.report.units import amount, capital, cost_figure, count, metric_name, percent, unit

_LINES = 5
_TITLE = "Budget sweep"


def sweep(story: Story) -> Section:
    """What each limit is worth, as a chart and as a table; a sentence where one set of budgets was asked for."""
    search = story.search
    if search is None:
        words = "The search has not been run, so no budget was tried."
    elif not search.picks and not search.budgets:
        words = "No budget was set, so there is nothing to compare."
    elif len(search.picks) < 2:
        words = (
            "One set of budgets was searched for. Several limits in one option, as in --latency 20ms,40ms, would show "
            "here what each of them is worth."
        )
    else:
        return Section("sweep", _TITLE, [Paragraph(_summary(search)), *_chart(search), _table(search)])
    return Section("sweep", _TITLE, [Paragraph(words)])


def _summary(search: SearchResult) -> str:
    found = [each for pick in search.picks if (each := chosen(search, pick)) is not None]
    words = f"{count(len(search.picks))} sets of budgets were asked for; a subnet was found for {count(len(found))}"
    if len(found) < 2:
        return f"{words}."
    values = [each.quality.value for each in found]
    merit = metric_name(search.winner.quality)
    return f"{words}. Their {merit} goes from {percent(min(values))} to {percent(max(values))}."


def chosen(search: SearchResult, pick: Pick) -> Evaluation | None:
    """The subnet that was found under a set of budgets; None where none was."""
    if pick.index is None or not 0 <= pick.index < len(search.evaluations):
        return None
    return search.evaluations[pick.index]


# -- the chart -------------------------------------------------------------------------------------------------------


def _chart(search: SearchResult) -> list[Block]:
    """Quality over the first limit that varies, a line for each set of the others; nothing where no limit varies."""
    key = next(iter(_varying(search)), None)
    if key is None:
        return []
    scale, lines = unit(key).axis_scale, _lines(search, key)
    limits = [limit / scale for line in lines.values() for limit, _ in line if math.isfinite(limit)]
    found = [100 * each.quality.value for line in lines.values() for _, each in line if each is not None]
    if len(set(limits)) < 2 or not found:
        return []
    names, merit = names_of(_keys(search)), metric_name(search.winner.quality)
    name = names[key]
    log = min(limits) > 0 and max(limits) > 12 * min(limits)
    title = f"{merit.capitalize()} of the best subnet under each budget"
    label = f"limit of {name}, {unit(key).symbol or 'millions'}"
    chart = Chart(title, Axis.around(limits, label, log=log), Axis.around(found, f"{merit}, %", room=0.15), "sweep")
    legend: list[LegendEntry] = []
    missed = 0
    for number, (words, line) in enumerate(lines.items()):
        kind, shape = look(number)
        spots = [(limit / scale, 100 * each.quality.value) for limit, each in line if each is not None]
        if number < _LINES:
            chart.line(sorted(spots), f"sweep {kind}")
        chart.marks(spots, f"{kind} known", shape, 5, words or name)
        none = [(limit / scale, chart.y.low) for limit, each in line if each is None]
        missed += chart.marks(none, "missing", "cross", 5, f"{words or name}, none found")
        if words:
            legend.append(LegendEntry(mark_swatch(f"{kind} known", shape), words))
    if not legend:
        legend.append(LegendEntry(line_swatch("sweep d0"), f"the best {merit} found under the limit"))
    if missed:
        legend.append(LegendEntry(mark_swatch("missing", "cross"), f"none found under this limit ({count(missed)})"))
    return [Figure(chart.svg(), f"{title}. What a looser limit of {name} buys, as the search saw it.", legend)]


def _varying(search: SearchResult) -> list[str]:
    """The costs that have several limits."""
    limits: dict[str, set[float]] = {}
    for pick in search.picks:
        for budget in pick.budgets:
            limits.setdefault(budget.key, set()).add(budget.limit)
    return [key for key, held in limits.items() if len(held) > 1]


def _lines(search: SearchResult, key: str) -> dict[str, list[tuple[float, Evaluation | None]]]:
    """Limits of `key` with what was found under them, by the other budgets in words."""
    names = names_of(_keys(search))
    varying = {*_varying(search)} - {key}
    lines: dict[str, list[tuple[float, Evaluation | None]]] = {}
    for pick in search.picks:
        limit = next((budget.limit for budget in pick.budgets if budget.key == key), math.inf)
        words = ", ".join(_limit(budget, names[budget.key]) for budget in pick.budgets if budget.key in varying)
        lines.setdefault(words, []).append((limit, chosen(search, pick)))
    return lines


# -- the table -------------------------------------------------------------------------------------------------------


def _keys(search: SearchResult) -> list[str]:
    return [*dict.fromkeys([*(each.key for pick in search.picks for each in pick.budgets), *search.winner.costs])]


def _table(search: SearchResult) -> Table:
    keys = [*dict.fromkeys(budget.key for pick in search.picks for budget in pick.budgets)]
    names = names_of(_keys(search))
    head = ("Budgets", "Subnet", capital(metric_name(search.winner.quality)), *(capital(names[key]) for key in keys))
    rows = [_row(search, pick, keys, names) for pick in search.picks]
    numbers = frozenset(range(2, len(head)))
    return Table("The best subnet under each set of budgets", head, rows, numbers, codes=frozenset({1}))


def _row(search: SearchResult, pick: Pick, keys: Sequence[str], names: dict[str, str]) -> tuple[str, ...]:
    budgets = ", ".join(_limit(budget, names[budget.key]) for budget in pick.budgets) or "none"
    each = chosen(search, pick)
    if each is None:
        return (f"{budgets}: none found{f'; {pick.nearest}' if pick.nearest else ''}", *["–"] * (2 + len(keys)))
    costs = (cost_figure(key, each.costs.get(key)) for key in keys)
    return (budgets, each.architecture.id, percent(each.quality.value, 2), *costs)


def _limit(budget: Budget, name: str) -> str:
    limit = amount(budget.key, budget.limit)
    return f"at most {limit}" if parts_of(budget.key).metric == "parameters" else f"{name} at most {limit}"
