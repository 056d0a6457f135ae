"""The course of a search, and the best it found under each set of budgets that was asked for."""

from __future__ import annotations

import math

from toolchain.records import Budget, Pick, SearchResult, names_of, parts_of
from toolchain.report.blocks import Block, Figure, LegendEntry, Table
from toolchain.report.charts import Axis, Chart, line_swatch
from toolchain.report.units import amount, capital, count, figure, metric_name, percent


def trace(search: SearchResult) -> list[Block]:
    """A chart of the hypervolume and the best quality over the evaluations; nothing where fewer than two looks are."""
    looks = [look for look in search.trace if math.isfinite(look.hypervolume) and math.isfinite(look.best)]
    if len(looks) < 2:
        return []
    chart = Chart(
        "Hypervolume over evaluations",
        Axis.around([look.evaluations for look in looks], "evaluations"),
        Axis.around([look.hypervolume for look in looks], "hypervolume"),
    )
    chart.line([(look.evaluations, look.hypervolume) for look in looks], "series-0")
    merit = metric_name(search.winner.quality)
    last = looks[-1]
    caption = (
        "How far the search was after so many evaluations. The hypervolume is what the front dominates, so it never "
        f"falls; where it has levelled off, more evaluations would have found little. At the end, after "
        f"{count(last.evaluations)}, the best {merit} was {percent(last.best)}."
    )
    return [Figure(chart.svg(), caption, [LegendEntry(line_swatch("series-0"), "hypervolume of the front so far")])]


def picks(search: SearchResult) -> list[Block]:
    """The best subnet under each set of budgets, where several were asked for; else nothing."""
    if len(search.picks) < 2:
        return []
    keys = [*dict.fromkeys(budget.key for pick in search.picks for budget in pick.budgets)]
    names = names_of([*keys, *search.winner.costs])
    head = ("Budgets", "Subnet", capital(metric_name(search.winner.quality)), *(capital(names[key]) for key in keys))
    rows = [_row(search, pick, keys, names) for pick in search.picks]
    numbers = frozenset(range(2, len(head)))
    return [Table("The best subnet under each set of budgets", head, rows, numbers, codes=frozenset({1}))]


def _row(search: SearchResult, pick: Pick, keys: list[str], names: dict[str, str]) -> tuple[str, ...]:
    budgets = ", ".join(_limit(budget, names[budget.key]) for budget in pick.budgets) or "none"
    if pick.index is None or not 0 <= pick.index < len(search.evaluations):
        return (f"{budgets}: none found{f'; {pick.nearest}' if pick.nearest else ''}", *["–"] * (2 + len(keys)))
    each = search.evaluations[pick.index]
    costs = (figure(key, each.costs[key].value) if key in each.costs else "–" for key in keys)
    return (budgets, each.architecture.id, percent(each.quality.value, 2), *costs)


def _limit(budget: Budget, name: str) -> str:
    limit = amount(budget.key, budget.limit)
    return f"at most {limit}" if parts_of(budget.key).metric == "parameters" else f"{name} at most {limit}"
