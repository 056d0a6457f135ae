"""The search in one picture: the quality of every subnet it saw against what the subnet costs, and a card for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.records import Evaluation, SearchResult, parts_of
from toolchain.report.blocks import Block, Paragraph, Section, Table
from toolchain.report.sections.cards import Deck, card
from toolchain.report.sections.scatter import Shipped, budget_keys, cost_name, drawable, main_cost, on_front, scatter
from toolchain.report.story import Story
from toolchain.report.units import architecture_words, capital, cost_figure, cost_words, count, metric_name, percent

_LISTED = 300
_SHORT = 25
_TITLE = "Quality against cost"


def front(story: Story) -> Section:
    """The chart, the winner's card, the front as a table, and the evaluations as a folded one.

    A sentence stands where there is too little for a chart.
    """
    search = story.search
    if search is None:
        return Section("front", _TITLE, [Paragraph("The search has not been run, so there is no front to show.")])
    key, deck = main_cost(search), Deck.of(search, story.run or story.title)
    blocks: list[Block] = [Paragraph(_summary(search)), *_picture(search, key, deck, _shipped(story, key))]
    if search.budgets and search.evaluations and not any(each.feasible for each in search.evaluations):
        blocks.append(Paragraph("No evaluated subnet keeps the budgets.", "bad"))
    blocks.append(card(deck))
    return Section("front", _TITLE, [*blocks, *_tables(search, key)])


def _summary(search: SearchResult) -> str:
    devices = " and ".join(device.target for device in search.devices) or search.target
    device = f"for {devices}" if devices else "without a device"
    total = len(search.evaluations)
    subnets = f"{count(total)} subnet{'' if total == 1 else 's'}"
    feasible = sum(each.feasible for each in search.evaluations)
    stopped = sum(each.stopped for each in search.evaluations)
    given_up = (
        f" {count(stopped)} were given up before all items were seen, as another was better and cheaper: their quality "
        "is an estimate."
        if stopped
        else ""
    )
    return (
        f"The searcher {search.searcher} evaluated {subnets} of {search.space.name} {device}, seed {search.seed}; "
        f"{count(feasible)} of them {'keeps' if feasible == 1 else 'keep'} the budgets.{given_up}"
    )


def _picture(search: SearchResult, key: str, deck: Deck, shipped: Shipped | None) -> list[Block]:
    """The chart, or why there is none; and how many of the evaluations it does not show."""
    name, seen = cost_name(search, key), drawable(search.evaluations, key)
    if not search.evaluations:
        return [Paragraph("The search evaluated no subnet, so there is no front to show.")]
    if not seen:
        return [Paragraph(f"No evaluation has a {name}, so there is no chart.")]
    left = len(search.evaluations) - len(seen)
    lacking = f"{count(left)} of {count(len(search.evaluations))} evaluations {'has' if left == 1 else 'have'}"
    them = "it is" if left == 1 else "they are"
    remark = [Paragraph(f"{lacking} no finite {name}, so {them} not drawn.", "warning")] if left else []
    if len({evaluation.architecture.id for evaluation in seen}) == 1:
        words = f"A single subnet was evaluated, so there is no chart: {_words(seen[0], key)}."
        return [Paragraph(words), *remark]
    return [scatter(search, key, deck, shipped), *remark]


def _shipped(story: Story, key: str) -> Shipped | None:
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
    if not same or not math.isfinite(latency.median_s):
        return None
    return Shipped(manifest, latency.median_s, latency.half_width_s)


# -- the tables ------------------------------------------------------------------------------------------------------


def _tables(search: SearchResult, key: str) -> list[Block]:
    best = sorted(on_front(search), key=lambda each: each.costs[key].value if key in each.costs else math.inf)
    blocks: list[Block] = []
    if best:
        blocks.append(_front_table(search, key, best))
    if search.evaluations:
        blocks.append(_evaluations_table(search, key))
    return blocks


def _front_table(search: SearchResult, key: str, best: Sequence[Evaluation]) -> Table:
    others, head = _other_costs(search, key), _head(search, key)
    columns = len(head) + len(others)
    rows = [(*_row(each, key), *_cells(each, others), architecture_words(each.architecture)) for each in best[:_LISTED]]
    left = len(best) - len(rows)
    caption = f"The front, cheapest first{f' (the first {_LISTED} of {count(len(best))})' if left else ''}"
    return Table(
        caption,
        (*head, *(capital(cost_name(search, other)) for other in others), "Architecture"),
        rows,
        numbers=frozenset({1, 2, *range(len(head), columns)}),
        codes=frozenset({0}),
        long=frozenset({columns}),
        folded=len(rows) > _SHORT,
        printed=True,
        subnets=True,
    )


def _evaluations_table(search: SearchResult, key: str) -> Table:
    """All of them in their order; of very many the best, since every one has its mark and its card."""
    total = len(search.evaluations)
    if total <= _LISTED:
        all_of_them = (
            "The one evaluation" if total == 1 else f"All {count(total)} evaluations, in the order of the search"
        )
        caption, listed = all_of_them, list(search.evaluations)
    else:
        caption = f"The best {_LISTED} of {count(total)} evaluations; all are in the search's result.json"
        listed = sorted(search.evaluations, key=lambda each: (each.stopped, not each.feasible, -each.quality.value))[
            :_LISTED
        ]
    rows = [_row(each, key) for each in listed]
    return Table(caption, _head(search, key), rows, frozenset({1, 2}), frozenset({0}), folded=True, subnets=True)


def _other_costs(search: SearchResult, key: str) -> list[str]:
    """What else had a say: the costs that the front or a budget is about, but for the one that is shown anyway."""
    wanted = [*search.objectives, *(name for budget in search.budgets for name in budget_keys(budget))]
    return [other for other in dict.fromkeys(wanted) if other != key and other in search.winner.costs]


def _head(search: SearchResult, key: str) -> tuple[str, ...]:
    name = capital(cost_name(search, key))
    return ("Subnet", metric_name(search.winner.quality).capitalize(), name, f"{name} is", "Budgets")


def _row(each: Evaluation, key: str) -> tuple[str, ...]:
    cost = each.costs.get(key)
    budgets = ("kept" if each.feasible else "missed") + (", given up early" if each.stopped else "")
    return (
        each.architecture.id,
        percent(each.quality.value, 2),
        cost_figure(key, cost),
        cost.source if cost else "–",
        budgets,
    )


def _cells(each: Evaluation, keys: list[str]) -> list[str]:
    return [cost_figure(key, each.costs.get(key)) for key in keys]


def _words(each: Evaluation, key: str) -> str:
    missed = "" if each.feasible else "; misses a budget"
    estimate = " (an estimate: given up early)" if each.stopped else ""
    merit = f"{metric_name(each.quality)} {percent(each.quality.value)}{estimate}"
    return f"{each.architecture.id}: {merit}; {cost_words(key, each.costs[key])}{missed}"
