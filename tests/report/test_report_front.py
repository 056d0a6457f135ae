"""The chart of quality against cost, and the tables that go with it."""

from __future__ import annotations

import msgspec
from example_run import SPACE, evaluate, front_of, make_manifest, make_search, make_story, of_manifest, of_search
from report_reader import drawings, sentences, tables

from toolchain import records
from toolchain.report import Story
from toolchain.report.sections.front import front


def test_the_front_has_a_point_for_each_evaluation_filled_when_measured(story: Story) -> None:
    (chart,) = drawings(front(story))
    evaluations = of_search(story).evaluations
    assert len(chart.of_class("point")) == len(evaluations) == 40
    measured = sum(each.costs["latency_s"].source == "measured" for each in evaluations)
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
