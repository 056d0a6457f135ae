"""Profiling to a goal: what is measured, when it stops, and that nothing is measured twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_project import Made, call, copied, measured_ids, refused, require

from toolchain.pipeline.growing import Goal, Standing, plan
from toolchain.pipeline.runs import Run


@pytest.fixture
def fresh(made: Made, tmp_path: Path) -> Path:
    """The project before anything was profiled."""
    root = copied(made.root, tmp_path / "project")
    (root / "profiles").rename(tmp_path / "aside")
    return root


def table(root: Path) -> Path:
    (found,) = (root / "profiles" / "quick").iterdir()
    return found


def test_a_goal_that_is_easily_met_ends_with_the_first_rows(fresh: Path, made: Made) -> None:
    told = call(fresh, "profile", "--device", "quick", "--target-error", "90%", "--json").data
    assert told["goal_met"] is True
    assert told["measured_now"] == told["timed"] == 12
    first = {one.id for one in plan(Run(made.classify).info.space, 12)}
    assert len(set(measured_ids(table(fresh)))) == len(first) == 12
    again = call(fresh, "profile", "--device", "quick", "--target-error", "90%", "--json").data
    assert again["measured_now"] == 0


def test_a_goal_out_of_reach_ends_at_the_most_and_says_so(fresh: Path) -> None:
    told = require(call(fresh, "profile", "--device", "quick", "--target-error", "0.001%", "--n", "20"))
    assert "goal of 0.0 % not reached" in told.out
    ids = measured_ids(table(fresh))
    assert len(ids) == len(set(ids)) == 20
    more = call(fresh, "profile", "--device", "quick", "--target-error", "0.001%", "--n", "23", "--json").data
    assert (more["measured_now"], more["timed"], more["goal_met"]) == (3, 23, False)
    assert measured_ids(table(fresh))[:20] == ids


def test_time_that_is_up_ends_it(fresh: Path) -> None:
    told = call(fresh, "profile", "--device", "quick", "--budget", "0.01s", "--json").data
    assert told["measured_now"] == 12  # what was begun is ended


def test_a_stopped_run_goes_on_as_if_it_had_not_been(made: Made, fresh: Path, tmp_path: Path) -> None:
    """What is chosen next depends on latencies, which differ; the first rows are the plan's, and none comes twice."""
    require(call(fresh, "profile", "--device", "quick", "--n", "5"))
    begun = measured_ids(table(fresh))
    require(call(fresh, "profile", "--device", "quick", "--target-error", "90%"))
    ids = measured_ids(table(fresh))
    assert ids[:5] == begun
    assert len(ids) == len(set(ids)) == 12


def test_what_is_chosen_next_does_not_depend_on_where_it_was_stopped(made: Made, fresh: Path) -> None:
    """The batch after the first rows is the same one, however much of it is measured already."""
    require(call(fresh, "profile", "--device", "quick", "--target-error", "0.001%", "--n", "14"))
    begun = measured_ids(table(fresh))
    require(call(fresh, "profile", "--device", "quick", "--target-error", "0.001%", "--n", "18"))
    stopped = measured_ids(table(fresh))
    assert stopped[:14] == begun
    (fresh / "profiles").rename(fresh / "aside")
    require(call(fresh, "profile", "--device", "quick", "--target-error", "0.001%", "--n", "18"))
    unbroken = measured_ids(table(fresh))
    assert set(unbroken[:12]) == set(stopped[:12])
    assert set(unbroken) == set(stopped)


def test_a_goal_chooses_what_is_measured(made: Made) -> None:
    refused(
        call(made.root, "profile", "--device", "quick", "--arch", "smallest", "--target-error", "3%"),
        2,
        "leave --arch out",
    )
    for wrong in ("0%", "-1%", "much", "nan"):
        refused(call(made.root, "profile", "--device", "quick", "--target-error", wrong), 2, "--target-error")


def test_a_few_rows_lean_on_a_known_device(project: Path) -> None:
    (project / "targets" / "second.toml").write_text(
        (project / "targets" / "quick.toml").read_text().replace('id = "quick"', 'id = "second"')
    )
    told = require(call(project, "profile", "--device", "second", "--n", "5", "--transfer", "quick"))
    assert "leaning on quick" in told.out
    answer = call(project, "predict", "--device", "second", "--n", "2", "--json").data
    assert answer["transfer"]["target"] == "quick"
    assert answer["error"]["n"] == 5
    refused(call(project, "profile", "--device", "second", "--n", "5", "--transfer", "nobody"), 2, "nobody")


def test_a_standing_meets_a_goal_with_its_doubt() -> None:
    goal = Goal(target_error=0.03, budget_s=None)
    assert Standing(20, 0.025, 0.004).meets(goal)
    assert not Standing(20, 0.025, 0.006).meets(goal)
    assert not Standing(5).meets(goal)
    assert not Standing(20, 0.0, 0.0).meets(Goal(None, 60.0))
