"""Stopped in the middle, however rudely, and started again: nothing lost, nothing done twice, the same result."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from made_project import (
    CLASSIFY,
    PROFILE,
    SEARCH,
    Made,
    call,
    journal_lines,
    measured_ids,
    refused,
    require,
    spawn,
    started,
    wait_until,
    write_inputs,
)

from toolchain.files import locked, sha256_file
from toolchain.pipeline.growing import plan
from toolchain.pipeline.runs import Run
from toolchain.profiling import read_table

FREQUENT = (*CLASSIFY, "--updates", "60", "--evaluate-every", "1")
"""Sixty checkpoints, so that a kill at any moment finds one, and some moments fall between two files."""

INSTANT = """\
id = "instant"
title = "this machine, hardly measured: a group of its own for each subnet"

[measure]
group = 1
warmup_s = 0.0
calls_per_turn = 1
minimum_rounds = 3
minimum_s = 0.0
maximum_s = 0.02
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return write_inputs(tmp_path / "project")


SIGNALS = [
    pytest.param(signal.SIGINT, marks=pytest.mark.fault("ctrl-c")),
    pytest.param(signal.SIGTERM, marks=pytest.mark.fault("sigterm")),
]


def weights_sha256(run: Path) -> str:
    info = json.loads((run / "checkpoint.json").read_text())
    assert sha256_file(run / info["weights"]) == info["weights_sha256"]
    found: str = info["weights_sha256"]
    return found


# -- twice -----------------------------------------------------------------------------------------------------------


def test_a_second_profiling_measures_nothing(project: Path, made: Made) -> None:
    before = journal_lines(made.table)  # ten, and what the search has measured
    assert call(project, *PROFILE, "--json").data["measured_now"] == 0
    assert call(project, "profile", "--device", "quick", "--n", "4", "--json").data["measured_now"] == 0
    known = {row.architecture for row in read_table(made.table)[1]}
    fresh = set(plan(Run(made.classify).info.space, 13)) - known
    grown = call(project, "profile", "--device", "quick", "--n", "13", "--json").data
    assert fresh
    assert (grown["measured_now"], grown["timed"]) == (len(fresh), len(before) + len(fresh))
    assert journal_lines(project / made.table.relative_to(made.root))[: len(before)] == before


def test_a_second_training_returns_at_once(project: Path, made: Made) -> None:
    run = project / made.classify.relative_to(made.root)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = require(call(project, *CLASSIFY))
    assert "train:" not in again.err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_second_search_is_the_first(project: Path, made: Made) -> None:
    """Done is done: nothing is asked or measured again, and it is said where the result comes from."""
    search, table = (project / path.relative_to(made.root) for path in (made.classify / "search", made.table))
    first, rows = json.loads((search / "result.json").read_text()), journal_lines(table)
    answers = (search / "answers.jsonl").read_bytes()
    again = call(project, *SEARCH, "--json")
    assert again.data["items_asked"] == 0
    assert any("this search was done before: --fresh searches anew" in one for one in again.envelope["warnings"])
    assert json.loads((search / "result.json").read_text()) == first
    assert ((search / "answers.jsonl").read_bytes(), journal_lines(table)) == (answers, rows)


@pytest.mark.fault("same-seed")
def test_searches_and_trainings_of_one_seed_are_equal(inputs: Path, project: Path, made: Made) -> None:
    """From nothing, in another folder: the weights bit for bit, the evaluations one for one."""
    require(call(inputs, *CLASSIFY))
    (run,) = (inputs / "runs").iterdir()
    assert run.name == made.classify.name
    assert weights_sha256(run) == weights_sha256(made.classify)
    other = call(project, *CLASSIFY, "--seed", "1", "--json").data
    assert weights_sha256(project / other["run"]) != weights_sha256(made.classify)
    searched = []
    for root, seed in ((inputs, "3"), (project, "3"), (project, "4")):
        arguments = ("--run", made.classify.name, "--params", "12k", "--evaluations", "12", "--seed", seed)
        require(call(root, "search", *arguments, "--searcher", "random"))
        searched.append(json.loads((root / "runs" / run.name / "search" / "result.json").read_text()))
    ids, same, different = ([one["architecture"] for one in result["evaluations"]] for result in searched)
    assert ids == same != different
    qualities = [[one["quality"] for one in result["evaluations"]] for result in searched]
    assert qualities[0] == qualities[1]


# -- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault("kill")
def test_profiling_killed_again_and_again_loses_and_repeats_nothing(project: Path) -> None:
    (project / "targets" / "instant.toml").write_text(INSTANT)
    arguments = ("profile", "--device", "instant", "--n", "12")
    folder = project / "profiles" / "instant"
    rng = random.Random(0)  # noqa: S311 - moments, not secrets
    acknowledged: list[str] = []

    def lines() -> list[str]:
        return [line for path in folder.glob("*/journal.jsonl") for line in path.read_text().splitlines()]

    for wanted in (1, 7):
        with started(project, *arguments) as process:
            wait_until(lambda wanted=wanted: len(lines()) >= wanted, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        (table,) = folder.iterdir()
        text = (table / "journal.jsonl").read_text()
        kept = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
        assert kept[: len(acknowledged)] == acknowledged
        acknowledged = kept
    done = call(project, *arguments, "--json").data
    assert (done["measured_now"], done["timed"]) == (12 - len(acknowledged), 12)
    assert journal_lines(table)[: len(acknowledged)] == acknowledged
    assert set(Counter(measured_ids(table)).values()) == {1}
    assert call(project, *arguments, "--json").data["measured_now"] == 0
    assert not [path for path in table.iterdir() if path.name.endswith(".part")]


@pytest.mark.slow
def test_training_killed_again_and_again_ends_with_the_same_weights(inputs: Path) -> None:
    whole, broken = inputs / "runs" / "whole", inputs / "runs" / "broken"
    require(call(inputs, *FREQUENT, "--out", "runs/whole"))
    rng = random.Random(1)  # noqa: S311 - moments, not secrets

    def update() -> int:
        state = broken / "training.json"
        return json.loads(state.read_text())["update"] if state.exists() else 0

    for wanted in (1, 30):
        with started(inputs, *FREQUENT, "--out", "runs/broken") as process:
            wait_until(lambda wanted=wanted: update() >= wanted, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert update() >= wanted
    assert not (broken / "checkpoint.json").exists()
    refused(call(inputs, "sample", "--run", "broken"), 2, "not finished")
    assert call(inputs, "sample", "--json").code == 0  # the newest finished run is the other one
    require(call(inputs, *FREQUENT, "--out", "runs/broken"))
    assert weights_sha256(broken) == weights_sha256(whole)
    curves = [json.loads((run / "training.json").read_text())["curve"] for run in (whole, broken)]
    figures = [[(point["update"], point["losses"], point["quality"]) for point in curve] for curve in curves]
    assert figures[0] == figures[1]


# -- asked to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_stopping_says_so_and_can_be_resumed(inputs: Path, made: Made, number: signal.Signals) -> None:
    arguments = (*CLASSIFY, "--updates", "5000", "--evaluate-every", "5", "--out", "runs/stopped", "--json")
    state = inputs / "runs" / "stopped" / "training.json"
    with started(inputs, *arguments) as process:
        wait_until(state.exists, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    told = json.loads(out)
    assert told["error"]["code"] == 130
    assert told["error"]["kind"] == "interrupted"
    update = json.loads(state.read_text())["update"]
    assert 0 < update < 5000
    names = [path.name for path in state.parent.rglob("*") if path.name.endswith(".part")]
    assert names == []


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_profiling_that_is_stopped_ends_its_worker(project: Path, made: Made, number: signal.Signals) -> None:
    arguments = ("profile", "--device", "quick", "--n", "40")
    table = project / made.table.relative_to(made.root)
    before = len(journal_lines(table))
    with started(project, *arguments) as process:
        wait_until(lambda: len(journal_lines(table)) > before + 1, process)  # the last may not be acknowledged yet
        process.send_signal(number)
        out, err = process.communicate(timeout=60)  # the worker holds none of the pipes: it is gone
    assert process.returncode == 130, err
    assert out == b""
    assert b"hint: the same command goes on where this one stopped" in err
    assert len(set(measured_ids(table))) == len(journal_lines(table)) > before
    stopped_at = journal_lines(table)
    assert not [path for path in table.rglob("*") if path.name.endswith(".part")]
    again = call(project, "profile", "--device", "quick", "--n", str(len(stopped_at) + 1), "--json").data
    assert again["measured_now"] == len(set(measured_ids(table))) - len(stopped_at)
    assert journal_lines(table)[: len(stopped_at)] == stopped_at


# -- anew ------------------------------------------------------------------------------------------------------------


def test_fresh_moves_the_old_data_aside(project: Path, made: Made) -> None:
    run, table = (project / path.relative_to(made.root) for path in (made.classify, made.table))
    weights, lines = weights_sha256(run), journal_lines(table)
    again = call(project, "profile", "--device", "quick", "--n", "2", "--fresh", "--json").data
    assert again["measured_now"] == 2
    (old,) = (path for path in table.parent.iterdir() if path.name.endswith(".old"))
    assert journal_lines(old) == lines
    require(call(project, *CLASSIFY, "--fresh"))
    (old,) = (path for path in run.parent.iterdir() if path.name.endswith(".old"))
    assert weights_sha256(old) == weights == weights_sha256(run)


def test_fresh_does_not_move_what_is_no_run(inputs: Path) -> None:
    (inputs / "letters").mkdir()
    (inputs / "letters" / "mine.txt").write_text("dear all")
    for out in ("letters", ".", "data.tsv"):
        refused(call(inputs, *CLASSIFY, "--out", out, "--fresh"), 2, "--out")
    assert (inputs / "letters" / "mine.txt").is_file()
    assert (inputs / "data.tsv").is_file()
    assert not list(inputs.glob("*.old"))


def test_another_training_does_not_overwrite_a_run(project: Path, made: Made) -> None:
    again = call(project, *CLASSIFY, "--seed", "5", "--out", made.classify.relative_to(made.root))
    refused(again, 2, "other settings", "--fresh")


# -- at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("lock-holder")
def test_a_folder_in_use_is_left_alone(project: Path, made: Made) -> None:
    """A kill drops the lock with its holder: see the tests above, which go on at once."""
    run, table = (path.relative_to(made.root) for path in (made.classify, made.table))
    with locked(project / run / "lock"):
        refused(spawn(project, *CLASSIFY), 4, "in use by another mostool", "wait until it has finished")
        refused(call(project, *CLASSIFY, "--fresh"), 4, "in use by another mostool")
    with locked(project / table / "journal.jsonl"):
        refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, "in use by another mostool")
        refused(call(project, "profile", "--device", "quick", "--fresh"), 4, "in use by another mostool")
    assert [path.name for path in (project / run).parent.iterdir() if path.name.endswith(".old")] == []
