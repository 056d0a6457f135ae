"""The chart of quality against cost, the cards of its subnets, and the tables that go with it."""

from __future__ import annotations

import json
import shlex
from xml.etree.ElementTree import XML

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
from toolchain.report.blocks import Card, Figure, Section
from toolchain.report.sections.cards import Deck, commands, facts, spelled_axes
from toolchain.report.sections.front import front


def figure_of(section: Section) -> Figure:
    return next(block for block in section.blocks if isinstance(block, Figure))


def picture(section: Section) -> Page:
    (chart,) = drawings(section)
    return chart


def rows_of(chart: Page, *kinds: str) -> list[int]:
    """The rows of the marks in the groups of these kinds, as the page's script would read them."""
    return [int(row) for group in chart.of_class("marks", *kinds) for row in (group["data-rows"] or "").split()]


def test_the_front_has_a_point_for_each_evaluation_filled_when_measured(story: Story) -> None:
    chart = picture(front(story))
    evaluations = of_search(story).evaluations
    assert sorted(rows_of(chart)) == list(range(len(evaluations))) == list(range(40))
    assert set(rows_of(chart, "known")) == {
        row for row, each in enumerate(evaluations) if each.costs[LATENCY].source == "measured"
    }
    assert len(rows_of(chart, "known")) == 6
    assert len(rows_of(chart, "guess")) == 34
    assert {*rows_of(chart, "over")} == {row for row, each in enumerate(evaluations) if not each.feasible}


def test_every_group_of_marks_has_as_many_children_as_rows(story: Story) -> None:
    for each in (story, make_story(search=richer(make_search(40)), manifest=None)):
        tree = XML(str(figure_of(front(each)).drawing))
        groups = [group for group in tree.iter("g") if group.get("data-chart") == "front"]
        assert groups
        for group in groups:
            assert len(group) == len((group.get("data-rows") or "").split()) > 0


def test_the_front_shows_budget_winner_extremes_and_the_shipped_file(story: Story) -> None:
    chart = picture(front(story))
    assert len(chart.of_class("line", "front")) == len(chart.of_class("line", "budget")) == 1
    assert len(chart.of_class("hatch")) == len(chart.of_class("bars")) == 1
    assert "25.0 ms" in chart.words
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
    assert len(rows_of(chart, "known")) == 30
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


def test_one_is_one_and_several_are_several() -> None:
    alone = front(make_story(search=make_search(1), manifest=None))
    assert "evaluated 1 subnet of tiny-bert" in sentences(alone)
    assert tables(alone)[-1].caption == "The one evaluation"
    assert "evaluated 2 subnets of" in sentences(front(make_story(search=make_search(2), manifest=None)))


def test_evaluations_without_the_cost_are_counted_not_drawn() -> None:
    search = make_search(12)
    bare = msgspec.structs.replace(search.evaluations[0], costs={})
    search = msgspec.structs.replace(search, evaluations=(bare, *search.evaluations[1:]), front=())
    section = front(make_story(search=search))
    assert "1 of 12 evaluations has no finite latency" in sentences(section)
    assert len(rows_of(drawings(section)[0])) == 11


def test_evaluations_that_all_cost_the_same_are_a_chart() -> None:
    one, two = evaluate(SPACE.smallest(), 1.0), evaluate(SPACE.largest(), 1.0)
    two = msgspec.structs.replace(two, costs=one.costs, quality=one.quality)
    search = msgspec.structs.replace(make_search(1), evaluations=(one, two), front=(0,), smallest=one, largest=two)
    (chart,) = drawings(front(make_story(search=search, manifest=None)))
    assert len(rows_of(chart)) == 2


def richer(search: records.SearchResult) -> records.SearchResult:
    """The same search on two devices, at two percentiles, with a sweep, a trace and subnets given up early."""
    p90, there, memory = "latency_s.p90@rpi", "latency_s@cpu", "peak_memory_bytes@rpi"

    def more(each: records.Evaluation, *, stopped: bool = False) -> records.Evaluation:
        base = each.costs[LATENCY]
        costs = {
            key: msgspec.structs.replace(base, value=base.value * by, upper=base.upper * by)
            for key, by in ((p90, 1.1), (there, 0.05))
        }
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
    on_front, everything = tables(section)
    assert on_front.head[2:] == (
        *("Latency (p50) on rpi", "Latency (p50) on rpi is", "Budgets"),
        *("Peak memory on rpi", "Latency (p90) on rpi", "Architecture"),
    )
    assert on_front.numbers == {1, 2, 5, 6}
    assert all(len(row) == len(on_front.head) and row[5] == "3.00 MiB" for row in on_front.rows)
    assert all(len(row) == len(everything.head) == 5 for row in everything.rows)
    assert "for rpi and cpu" in sentences(section)
    html = Page(render_report(story)).text
    assert "latency (p90) on rpi at most 30.0 ms on rpi" not in html
    assert "Budget of latency (p90) at most 30.0 ms on rpi: met" in html
    assert "Predictor of cpu (predicted)" in html
    assert "Peak memory on rpi in the search" in html


def test_each_device_has_a_colour_and_a_shape_of_its_own() -> None:
    search = richer(make_search(40))
    figure = figure_of(front(make_story(search=search, manifest=None)))
    chart = drawings(front(make_story(search=search, manifest=None)))[0]
    here, there = rows_of(chart, "d0"), rows_of(chart, "d1")
    assert sorted(here) == sorted(there) == list(range(40))
    tree = XML(str(figure.drawing))
    shapes = {
        (group.get("class") or "").split()[1]: {mark.tag for mark in group}
        for group in tree.iter("g")
        if group.get("data-chart")
    }
    assert shapes == {"d0": {"circle"}, "d1": {"path"}}
    assert {"rpi predicted (34)", "cpu predicted (34)"} <= {entry.text for entry in figure.legend}
    assert len(chart.of_class("line", "front")) == len(chart.of_class("ring", "winner")) == 2
    assert "The axis of the cost is logarithmic." in figure.caption


def test_every_device_has_its_own_budget_and_a_sweep_its_tighter_lines() -> None:
    search = richer(make_search(40))
    limits = [records.Budget(metric="latency_s", limit=limit, target="rpi") for limit in (0.02, 0.01)]
    cpu = records.Budget(metric="latency_s", limit=0.0009, target="cpu")
    search = msgspec.structs.replace(
        search,
        budgets=(limits[0], cpu),
        picks=tuple(records.Pick(budgets=(limit, cpu), index=None) for limit in limits),
    )
    figure = figure_of(front(make_story(search=search, manifest=None)))
    chart = Page(str(figure.drawing))
    assert len(chart.of_class("line", "budget", "d0")) == 2
    assert len(chart.of_class("line", "budget", "tighter")) == 1
    assert len(chart.of_class("hatch", "d0")) == len(chart.of_class("hatch", "d1")) == 1
    assert {"rpi: 20.0 ms", "cpu: 0.900 ms"} <= set(chart.words)
    assert "rpi: tighter budgets of the sweep: 10.0 ms" in {entry.text for entry in figure.legend}


def test_a_subnet_that_failed_on_the_device_is_no_point_and_its_card_says_so() -> None:
    search = make_search(12)
    never = records.Cost(value=1e12, upper=1e12, source="measured")
    failed = msgspec.structs.replace(search.evaluations[3], costs=search.evaluations[3].costs | {LATENCY: never})
    evaluations = [*search.evaluations]
    evaluations[3] = failed
    search = msgspec.structs.replace(search, evaluations=tuple(evaluations), front=())
    section = front(make_story(search=search, manifest=None))
    assert 3 not in rows_of(drawings(section)[0])
    assert "1 of 12 evaluations has no finite latency" in sentences(section)
    assert ("Latency", "failed or unknown, measured") in list(facts(Deck.of(search, "run"), failed))


def test_what_failed_on_the_device_is_no_figure_anywhere() -> None:
    search = make_search(12)
    never = records.Cost(value=records.NEVER, upper=records.NEVER, source="measured")
    failed = msgspec.structs.replace(search.largest, costs=search.largest.costs | {LATENCY: never})
    whole = make_story(search=msgspec.structs.replace(search, largest=failed, winner=failed), manifest=None)
    for story in (whole, whole._replace(search=msgspec.structs.replace(of_search(whole), objectives=("parameters",)))):
        text = Page(render_report(story)).text
        assert "000,000,000" not in text
        assert "failed or unknown" in text
    assert not picture(front(whole)).of_class("ring", "winner")


def test_the_legend_of_what_misses_a_budget_looks_like_its_marks(story: Story) -> None:
    search = of_search(story)
    for predicted, fill in ((False, "known"), (True, "guess")):
        kept = [each for each in search.evaluations if not predicted or each.costs[LATENCY].source == "predicted"]
        some = msgspec.structs.replace(search, evaluations=tuple(kept), front=())
        legend = figure_of(front(story._replace(search=some))).legend
        (swatch,) = [str(entry.swatch) for entry in legend if entry.text.startswith("grey, dotted")]
        assert f"d0 {fill} over" in swatch


def test_subnets_given_up_early_are_small_hollow_and_said_to_be_estimates() -> None:
    section = front(make_story(search=richer(make_search(40)), manifest=None))
    (chart,) = drawings(section)
    assert len(rows_of(chart, "d0", "stopped")) == len(rows_of(chart, "d0", "guess", "stopped")) == 4
    assert "4 were given up before all items were seen" in sentences(section)
    assert sum("given up early" in row[4] for row in tables(section)[-1].rows) == 4


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


# -- cards -----------------------------------------------------------------------------------------------------------


def card_of(story: Story) -> Card:
    return next(block for block in front(story).blocks if isinstance(block, Card))


def test_the_winners_card_stands_in_the_page_with_its_commands(story: Story) -> None:
    winner = of_search(story).winner
    card = card_of(story)
    assert card.subnet == winner.architecture.id
    known = dict(card.facts)
    assert known["Place"] == "winner, on the front"
    assert known["Accuracy, 1,000 validation items"] == f"{100 * winner.quality.value:.2f} %"
    assert known["Latency"] == "22.7 ms predicted, at most 24.0 ms"
    assert known["Parameters"].endswith(" parameters counted")
    assert known["Budgets"] == "kept"
    assert [shlex.split(command.line) for command in card.commands] == [
        ["mostool", "export", "--run", story.title, "--arch", card.subnet, "--device", "rpi"],
        ["mostool", "evaluate", "--run", story.title, "--arch", card.subnet],
    ]
    assert f"--arch {card.subnet}" in Page(render_report(story)).text


def test_of_several_devices_each_has_its_own_command() -> None:
    lines = [command.line for command in card_of(make_story(search=richer(make_search(9)), manifest=None)).commands]
    assert [line.rpartition(" --device ")[2] for line in lines[:2]] == ["rpi", "cpu"]
    assert "--device" not in lines[2]


def test_a_runs_name_cannot_leave_its_place_in_a_command() -> None:
    search = make_search(5)
    deck = Deck.of(search, "a'; rm -rf ~ $(x)\n`y` \N{OBJECT REPLACEMENT CHARACTER}")
    build, judge = (shlex.split(command.line) for command in commands(deck, search.winner))
    subnet = ["--arch", search.winner.architecture.id]
    assert build == ["mostool", "export", "--run", deck.run, *subnet, "--device", "rpi"]
    assert judge == ["mostool", "evaluate", "--run", deck.run, *subnet]


def test_a_run_that_is_elsewhere_is_named_by_its_path(story: Story) -> None:
    lines = [shlex.split(command.line) for command in card_of(story._replace(run="old runs/demo")).commands]
    assert all("old runs/demo" in words for words in lines)


def test_the_island_has_a_row_for_each_subnet_in_the_order_of_the_marks(story: Story) -> None:
    search = of_search(story)
    told = json.loads(card_of(story).others)
    ids = [row.split("|")[0] for row in told["rows"]]
    assert ids[:40] == [each.architecture.id for each in search.evaluations]
    assert {search.smallest.architecture.id, search.largest.architecture.id} == set(ids[40:])
    assert told["places"][search.winner.architecture.id] == "winner"
    assert [name for name, _, _ in told["axes"]] == ["hidden", "layers", "ffn"]
    assert [width for _, _, width in told["axes"]] == [2, 1, 1]
    assert not told["words"]


def test_axes_are_spelled_in_the_numbers_of_their_choices() -> None:
    largest = SPACE.largest()
    assert spelled_axes(largest, SPACE) == "1o.2.uuuu"
    assert spelled_axes(SPACE.smallest(), SPACE) == "00.0.00"
    assert spelled_axes(msgspec.structs.replace(largest, axes=largest.axes | {"hidden": 33}), SPACE) is None
    assert spelled_axes(msgspec.structs.replace(largest, axes={"hidden": 32}), SPACE) is None


def test_very_many_evaluations_are_listed_as_far_as_a_page_bears_it() -> None:
    section = front(make_story(400))
    best, everything = tables(section)
    assert everything.caption.startswith("The best 300 of 400 evaluations")
    assert len(everything.rows) == 300
    assert best.folded
    assert best.printed
    assert len(rows_of(drawings(section)[0])) == 400
