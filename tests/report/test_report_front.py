"""The chart of quality against cost, and the tables that go with it."""

from __future__ import annotations

import msgspec
from example_run import (
    LATENCY,
    SPACE,
    WORKLOAD,
    evaluate,
    front_of,
    make_manifest,
    make_search,
    make_story,
    of_manifest,
    of_search,
)
from report_reader import Page, drawings, sentences, tables

from toolchain import records
from toolchain.report import Story, render_report
from toolchain.report.sections.front import front


def test_the_front_has_a_point_for_each_evaluation_filled_when_measured(story: Story) -> None:
    (chart,) = drawings(front(story))
    evaluations = of_search(story).evaluations
    assert len(chart.of_class("point")) == len(evaluations) == 40
    measured = sum(each.costs[LATENCY].source == "measured" for each in evaluations)
    assert len(chart.of_class("point", "known")) == measured == 6
    assert len(chart.of_class("point", "guess")) == 34
    assert len(chart.of_class("point", "over")) == sum(not each.feasible for each in evaluations)
    for each in evaluations:
        assert each.architecture.id in chart.text


def test_the_front_shows_budget_winner_extremes_and_the_shipped_file(story: Story) -> None:
    (chart,) = drawings(front(story))
    assert len(chart.of_class("line", "front")) == len(chart.of_class("line", "budget")) == 1
    assert len(chart.of_class("area", "infeasible")) == 1
    assert len(chart.of_class("ring", "winner")) == 1
    assert len(chart.of_class("ring", "edge")) == 2
    assert len(chart.of_class("mark", "shipped")) == 1
    assert {"winner", "smallest", "largest"} <= set(chart.words)


def test_the_shipped_file_is_not_drawn_among_subnets_it_cannot_be_compared_with(story: Story) -> None:
    manifest = of_manifest(story)
    for change in ({"target": "cpu"}, {"workload": records.Workload(batch=8)}):
        other = story._replace(manifest=msgspec.structs.replace(manifest, **change))
        (chart,) = drawings(front(other))
        assert not chart.of_class("mark", "shipped")
    (chart,) = drawings(front(story._replace(manifest=make_manifest(of_search(story).evaluations[0]))))
    assert not chart.of_class("mark", "shipped")


def test_the_front_line_joins_the_records_front_in_steps(story: Story) -> None:
    search = of_search(story)
    (chart,) = drawings(front(story))
    (line,) = chart.of_class("line", "front")
    assert len((line["points"] or "").split()) == 2 * len(search.front) - 1
    (table, everything) = tables(front(story))
    assert [row[0] for row in table.rows] == [search.evaluations[index].architecture.id for index in search.front]
    assert len(everything.rows) == 40
    assert everything.folded


def test_without_a_device_the_axis_is_the_first_budgets_metric() -> None:
    search = make_search(30, target=None)
    search = msgspec.structs.replace(
        search,
        budgets=(records.Budget(metric="parameters", limit=900_000.0),),
        front=front_of(search.evaluations, "parameters"),
    )
    section = front(make_story(search=search, manifest=None, predictor=None))
    (chart,) = drawings(section)
    assert "parameters, millions" in chart.text
    assert len(chart.of_class("point", "known")) == 30
    assert tables(section)[0].head[2:4] == ("Parameters", "Parameters is")


def test_the_smallest_that_wins_is_named_once() -> None:
    search = make_search(5, limit=1e-4)
    section = front(make_story(search=search, manifest=None))
    (chart,) = drawings(section)
    assert "winner = smallest" in chart.words
    assert len(chart.of_class("ring")) == 2
    assert "No evaluated subnet keeps the budgets." in sentences(section)


def test_a_front_of_nothing_or_of_one_is_a_sentence() -> None:
    for number, words in ((0, "evaluated no subnet"), (1, "A single subnet was evaluated")):
        search = make_search(1)
        search = msgspec.structs.replace(search, evaluations=search.evaluations[:number], front=())
        section = front(make_story(search=search, manifest=None))
        assert not drawings(section)
        assert words in sentences(section)
    assert "has not been run" in sentences(front(make_story(search=None, manifest=None)))


def test_evaluations_without_the_cost_are_counted_not_drawn() -> None:
    search = make_search(12)
    bare = msgspec.structs.replace(search.evaluations[0], costs={})
    search = msgspec.structs.replace(search, evaluations=(bare, *search.evaluations[1:]), front=())
    section = front(make_story(search=search))
    assert "1 of 12 evaluations has no finite latency" in sentences(section)
    assert len(drawings(section)[0].of_class("point")) == 11


def test_evaluations_that_all_cost_the_same_are_a_chart() -> None:
    one, two = evaluate(SPACE.smallest(), 1.0), evaluate(SPACE.largest(), 1.0)
    two = msgspec.structs.replace(two, costs=one.costs, quality=one.quality)
    search = msgspec.structs.replace(make_search(1), evaluations=(one, two), front=(0,), smallest=one, largest=two)
    (chart,) = drawings(front(make_story(search=search, manifest=None)))
    assert len(chart.of_class("point")) == 2


def richer(search: records.SearchResult) -> records.SearchResult:
    """The same search on two devices, at two percentiles, with a sweep, a trace and subnets given up early."""
    p90, there, memory = "latency_s.p90@rpi", "latency_s@cpu", "peak_memory_bytes@rpi"

    def more(each: records.Evaluation, *, stopped: bool = False) -> records.Evaluation:
        base = each.costs[LATENCY]
        costs = {key: msgspec.structs.replace(base, value=base.value * by) for key, by in ((p90, 1.1), (there, 0.3))}
        size = records.Cost(value=3.0 * 2**20, upper=3.1 * 2**20, source="predicted")
        return msgspec.structs.replace(each, costs=each.costs | costs | {memory: size}, stopped=stopped)

    tight = records.Budget(metric="latency_s", limit=1e-4, target="rpi", percentile=90)
    loose = msgspec.structs.replace(tight, limit=0.03)
    winner = next(index for index, each in enumerate(search.evaluations) if each == search.winner)
    return msgspec.structs.replace(
        search,
        evaluations=tuple(more(each, stopped=not index % 10) for index, each in enumerate(search.evaluations)),
        winner=more(search.winner),
        smallest=more(search.smallest),
        largest=more(search.largest),
        objectives=(LATENCY, memory),
        budgets=(loose, records.Budget(metric="peak_memory_bytes", limit=4.0 * 2**20, target="rpi")),
        devices=tuple(
            records.SearchDevice(target=name, workload=WORKLOAD, predictor_sha256=name * 16, source="predicted")
            for name in ("rpi", "cpu")
        ),
        picks=(
            records.Pick(budgets=(tight,), index=None, nearest="the nearest takes 2 ms"),
            records.Pick(budgets=(loose,), index=winner),
        ),
        trace=tuple(
            records.TracePoint(evaluations=10 * n, hypervolume=0.1 * n, best=0.8 + 0.01 * n) for n in (1, 2, 3)
        ),
    )


def test_several_costs_are_told_apart_by_device_and_percentile() -> None:
    story = make_story(search=richer(make_search(40)), manifest=None)
    section = front(story)
    _, on_front, everything = tables(section)
    assert on_front.head[2:] == (
        *("Latency (p50) on rpi", "Latency (p50) on rpi is", "Budgets"),
        *("Peak memory on rpi", "Latency (p90) on rpi", "Architecture"),
    )
    assert on_front.numbers == {1, 2, 5, 6}
    assert all(len(row) == len(on_front.head) and row[5] == "3.00 MiB" for row in on_front.rows)
    assert all(len(row) == len(everything.head) == 5 for row in everything.rows)
    assert "latency (p50), ms, on rpi" in drawings(section)[0].text
    assert "for rpi and cpu" in sentences(section)
    html = Page(render_report(story)).text
    assert "latency (p90) on rpi at most 30.0 ms on rpi" not in html
    assert "Budget of latency (p90) at most 30.0 ms on rpi: met" in html
    assert "Predictor of cpu (predicted)" in html
    assert "Peak memory on rpi in the search" in html


def test_a_sweep_has_a_table_and_a_search_its_course() -> None:
    section = front(make_story(search=richer(make_search(40)), manifest=None))
    winners = tables(section)[0]
    assert winners.caption == "The best subnet under each set of budgets"
    (missed, *dashes), (budgets, name, *figures) = winners.rows
    assert missed == "latency (p90) on rpi at most 0.100 ms: none found; the nearest takes 2 ms"
    assert set(dashes) == {"–"}
    assert budgets == "latency (p90) on rpi at most 30.0 ms"
    assert name == make_search(40).winner.architecture.id
    assert len(figures) == 2
    _, course = drawings(section)
    assert len(course.of_class("line", "series-0")) == 1
    assert len(drawings(front(make_story(search=make_search(40))))) == 1


def test_subnets_given_up_early_are_small_hollow_and_said_to_be_estimates() -> None:
    section = front(make_story(search=richer(make_search(40)), manifest=None))
    chart, _ = drawings(section)
    assert len(chart.of_class("point", "stopped")) == len(chart.of_class("point", "guess", "stopped")) == 4
    assert "4 were given up before all items were seen" in sentences(section)
    assert sum("given up early" in row[4] for row in tables(section)[-1].rows) == 4
    assert "an estimate: given up early" in chart.text


def test_a_result_from_before_costs_named_their_device_is_still_shown(story: Story) -> None:
    search = of_search(story)

    def older(each: records.Evaluation) -> records.Evaluation:
        return msgspec.structs.replace(each, costs={key.partition("@")[0]: cost for key, cost in each.costs.items()})

    old = msgspec.structs.replace(
        search,
        evaluations=tuple(map(older, search.evaluations)),
        **{name: older(getattr(search, name)) for name in ("winner", "smallest", "largest")},
    )
    assert render_report(story._replace(search=old)) == render_report(story)
