"""The sweep of budgets and the course of the search."""

from __future__ import annotations

import msgspec
import pytest
from example_run import make_search, make_story
from report_reader import drawings, sentences, tables
from test_report_front import richer

from toolchain import records
from toolchain.report.sections.course import course
from toolchain.report.sections.sweep import sweep


def swept(limits: tuple[float, ...], sizes: tuple[float, ...] = (1e9,)) -> records.SearchResult:
    """A search of 40 subnets with the best under every combination of these limits, the loosest first."""
    search = make_search(40, limit=max(limits))
    picks = []
    for limit in limits:
        for size in sizes:
            kept = [
                index
                for index, each in enumerate(search.evaluations)
                if each.costs["latency_s@rpi"].upper <= limit and each.costs["size_bytes"].upper <= size
            ]
            best = max(kept, key=lambda index: search.evaluations[index].quality.value) if kept else None
            latency = records.Budget(metric="latency_s", limit=limit, target="rpi")
            budgets = (latency, records.Budget(metric="size_bytes", limit=size))
            picks.append(records.Pick(budgets=budgets, index=best, nearest="" if kept else "the nearest takes 2 ms"))
    return msgspec.structs.replace(search, budgets=picks[0].budgets, picks=tuple(picks))


def test_a_sweep_is_a_chart_and_a_table() -> None:
    search = swept((0.03, 0.02, 0.01, 1e-4))
    section = sweep(make_story(search=search, manifest=None))
    (chart,) = drawings(section)
    assert len(chart.of_class("marks", "known")) == len(chart.of_class("marks", "missing")) == 1
    assert len(chart.of_class("line", "sweep")) == 1
    assert "limit of latency, ms" in chart.words
    (table,) = tables(section)
    assert len(table.rows) == 4
    assert all(len(row) == len(table.head) for row in table.rows)
    missed, *dashes = table.rows[-1]
    assert missed.endswith(": none found; the nearest takes 2 ms")
    assert set(dashes) == {"–"}
    assert "4 sets of budgets were asked for; a subnet was found for 3" in sentences(section)


def test_limits_of_two_costs_make_a_line_for_each_of_the_second() -> None:
    section = sweep(make_story(search=swept((0.03, 0.02), (1e9, 3e6)), manifest=None))
    (chart,) = drawings(section)
    assert len(chart.of_class("line", "sweep")) == 2
    assert [group["data-series"] for group in chart.of_class("marks")] == [
        "size at most 954 MiB",
        "size at most 2.86 MiB",
    ]


def test_a_sweep_of_devices_and_percentiles_names_them() -> None:
    (table,) = tables(sweep(make_story(search=richer(make_search(40)), manifest=None)))
    (missed, *_), (budgets, name, *figures) = table.rows
    assert missed == "latency (p90) on rpi at most 0.100 ms: none found; the nearest takes 2 ms"
    assert budgets == "latency (p90) on rpi at most 30.0 ms"
    assert name == make_search(40).winner.architecture.id
    assert len(figures) == 2


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (None, "has not been run"),
        (make_search(5), "One set of budgets"),
        (msgspec.structs.replace(make_search(5), budgets=()), "No budget was set"),
    ],
)
def test_without_a_sweep_there_is_a_sentence(search: records.SearchResult | None, words: str) -> None:
    section = sweep(make_story(search=search, manifest=None))
    assert not drawings(section)
    assert words in sentences(section)


def test_the_course_rises_to_the_winner_and_has_the_hypervolume_where_it_was_kept() -> None:
    search = richer(make_search(40))
    best, volume = drawings(course(make_story(search=search, manifest=None)))
    assert len(best.of_class("line", "course")) == 1
    assert "best accuracy so far, %" in best.words
    assert len(volume.of_class("line", "series-2")) == 1
    (alone,) = drawings(course(make_story(search=make_search(40))))
    assert alone.of_class("line", "course")


def test_what_was_given_up_or_misses_a_budget_is_never_the_best_so_far() -> None:
    search = make_search(3, limit=1.0)
    good, better, best = sorted(search.evaluations, key=lambda each: each.quality.value)
    cheat = msgspec.structs.replace(best, stopped=True)
    dear = msgspec.structs.replace(best, feasible=False)
    search = msgspec.structs.replace(search, evaluations=(good, cheat, dear, better))
    section = course(make_story(search=search, manifest=None))
    (chart,) = drawings(section)
    assert len(chart.of_class("marks")) == 1
    assert chart.tags()["circle"] == 2
    found = next(block for block in section.blocks if hasattr(block, "caption"))
    assert f"{100 * better.quality.value:.1f} %, was found at evaluation 4 of 4" in found.caption


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (None, "has not been run"),
        (make_search(1), "Fewer than two subnets"),
        (make_search(9, limit=1e-4), "No evaluated subnet keeps the budgets"),
    ],
)
def test_too_little_for_a_course_is_a_sentence(search: records.SearchResult | None, words: str) -> None:
    section = course(make_story(search=search, manifest=None))
    assert not drawings(section)
    assert words in sentences(section)
