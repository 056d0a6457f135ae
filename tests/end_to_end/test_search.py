"""search through the command line: sweeps, devices, precision, and every way to be stopped, refused or told again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
from made_project import DEVICE, Made, call, copied, journal_lines, refused, require, rewritten, started, wait_until

from toolchain.journal import Journal
from toolchain.pipeline.course import Course
from toolchain.records import SearchResult, read_record

COUNTED = ("search", "--params", "12k", "--objective", "params", "--remeasure", "0", "--evaluations", "24", "--json")
"""A search that no clock has a say in: the same on any day."""


class Searched(NamedTuple):
    """A project, and what a search in it left."""

    root: Path
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found

    @property
    def outcome(self) -> dict[str, Any]:
        """All of the result that does not tell when it was."""
        return {name: value for name, value in self.result.items() if name != "created_at"}

    @property
    def answers(self) -> list[tuple[str, int]]:
        """What was asked of whom: (architecture, batch of items), in order."""
        return [
            (json.dumps(record["architecture"], sort_keys=True), batch)
            for record in _records(self.folder / "answers.jsonl")
            for batch in record["batches"]
        ]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Of the search that began last."""
        return _records(
            max(self.folder.glob("*/course.json"), key=lambda path: path.stat().st_mtime_ns).parent / "steps.jsonl"
        )


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a line under way is none yet
    return [json.loads(line)["record"] for line in lines]


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Searched:
    """A copy of the finished project in which nothing was searched yet."""
    return _unsearched(made, tmp_path / "project")


def _unsearched(made: Made, root: Path) -> Searched:
    copied(made.root, root)
    folder = root / made.classify.relative_to(made.root) / "search"
    shutil.rmtree(folder)
    return Searched(root, folder)


def middling_s(root: Path, device: str = "quick") -> float:
    """Half-way between what the smallest and the largest subnet are promised to take at most."""
    both = call(root, "predict", "--device", device, "--arch", "smallest", "--arch", "largest", "--json").data
    return float(sum(one["high_s"] for one in both["predictions"]) / 2)


def dominated(one: dict[str, Any], other: dict[str, Any], names: list[str]) -> bool:
    """Whether `other` is as good as `one` in all and better in something."""
    mine = [-one["quality"]["value"], *(one["costs"][name]["value"] for name in names)]
    theirs = [-other["quality"]["value"], *(other["costs"][name]["value"] for name in names)]
    return theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))


def check_front(result: dict[str, Any], names: list[str]) -> None:
    """The front is what nothing that was seen in full and keeps the budgets dominates; all of it, and nothing else."""
    known = {i: one for i, one in enumerate(result["evaluations"]) if one["feasible"] and not one["stopped"]}
    front = {i for i, one in known.items() if not any(dominated(one, other, names) for other in known.values())}
    assert set(result["front"]) <= front
    points = [  # of equal points one is enough
        {(known[i]["quality"]["value"], *(known[i]["costs"][name]["value"] for name in names)) for i in those}
        for those in (front, set(result["front"]))
    ]
    assert points[0] == points[1]


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_sweep_has_a_pick_for_each_limit_that_was_measured(here: Searched) -> None:
    middle_s = middling_s(here.root)
    limits = f"{1e6 * middle_s:.3f}us,1us,10s"
    told = call(here.root, "search", "--latency", limits, "--evaluations", "20", "--json").data
    loosest, middle, tightest = told["picks"]
    assert [one["budgets"][0]["limit"] for one in told["picks"]] == pytest.approx([10, middle_s, 1e-6], rel=1e-4)
    for pick in (loosest, middle):
        cost = pick["costs"]["latency_s@quick"]
        assert cost["source"] == "measured"
        assert cost["upper"] <= pick["budgets"][0]["limit"]
        assert pick["nearest"] == ""
        kept = [
            one["quality"]["value"]
            for one in here.result["evaluations"]
            if not one["stopped"] and one["costs"]["latency_s@quick"]["upper"] <= pick["budgets"][0]["limit"]
        ]
        assert pick["quality"] == max(kept)
    assert loosest["quality"] >= middle["quality"]
    assert told["winner"]["id"] == loosest["winner"]
    assert (tightest["winner"], tightest["costs"]) == (None, None)
    assert "where 0.001 ms on quick is allowed" in tightest["nearest"]
    again = require(call(here.root, "search", "--latency", limits, "--evaluations", "20"))
    assert "under 0.001 ms nothing was found: the nearest that was looked at" in again.out


@pytest.mark.fault("no-subnet")
def test_budgets_that_cannot_be_kept_end_at_once_and_say_what_would_do(here: Searched) -> None:
    require(call(here.root, *COUNTED))
    answers, before = here.answers, here.result
    for option, limit, unit in (("--params", "900", ""), ("--size", "1KiB", "MiB"), ("--latency", "1us", "ms")):
        told = refused(call(here.root, "search", option, limit, "--remeasure", "0"), 3, "the nearest", "it would fit")
        assert here.answers == answers
        assert here.result == before
        would = re.search(r"with ([\d.,]+) ", told.err)
        assert would is not None
        kept = call(
            here.root,
            "search",
            option,
            would[1].replace(",", "") + unit,
            "--remeasure",
            "0",
            "--evaluations",
            "2",
            "--json",
        )
        assert kept.data["winner"]["feasible"] is True
        here.folder.joinpath("result.json").write_text(json.dumps(before))
        answers = here.answers


@pytest.mark.fault("no-subnet")
def test_budgets_that_one_alone_could_keep_are_refused_together(here: Searched) -> None:
    """Small is cheap here: what a limit of parameters allows, one of the size does not."""
    told = refused(call(here.root, "search", "--params", "12k", "--size", "1KiB", "--latency", "1us"), 3)
    assert re.search(r"hint: with [\d.e-]+ MiB and [\d.e-]+ ms on quick it would fit", told.err) or re.search(
        r"hint: with [\d.e-]+ ms on quick and [\d.e-]+ MiB it would fit", told.err
    )
    assert not (here.folder / "answers.jsonl").exists()


def test_memory_is_predicted_kept_and_judged_on_the_file(here: Searched) -> None:
    found = call(here.root, "search", "--memory", "100MiB", "--evaluations", "8", "--remeasure", "1", "--json").data
    cost = found["winner"]["costs"]["peak_memory_bytes@quick"]
    assert cost["source"] == "measured"
    assert 1 << 20 < cost["upper"] <= 100 << 20
    assert found["budgets"] == [
        {
            "metric": "peak_memory_bytes",
            "limit": 100 * 2**20,
            "target": "quick",
            "workload": {"batch": 1, "sequence_length": 16},
            "percentile": 50,
        }
    ]
    (outcome,) = call(here.root, "export", "--json").data["manifest"]["budgets"]
    assert outcome["met"] is True
    assert outcome["value"] == pytest.approx(cost["value"], rel=0.5)
    refused(call(here.root, "search", "--memory", "1KiB"), 3, "MiB of memory on quick", "where 0.000977 MiB")


def test_energy_is_not_promised_where_nothing_meters_it(here: Searched) -> None:
    refused(call(here.root, "search", "--energy", "5mJ"), 2, "energy", "sensor")
    refused(call(here.root, "search", "--objective", "energy"), 2, "energy", "sensor")
    assert not (here.folder / "answers.jsonl").exists()


def test_a_percentile_that_few_calls_tell_nothing_of_is_refused(here: Searched) -> None:
    refused(call(here.root, "search", "--latency", "1s@p99"), 2, "p99", "undisturbed calls")


def test_a_percentile_is_predicted_and_kept(here: Searched) -> None:
    often = DEVICE.replace('"quick"', '"often"').replace("calls_per_turn = 2", "calls_per_turn = 40")
    (here.root / "targets" / "often.toml").write_text(often)
    require(call(here.root, "profile", "--device", "often", "--n", "9"))
    limit_s = 3 * middling_s(here.root, "often")
    asked = ("--latency", f"often={1e6 * limit_s:.2f}us@p90", "--evaluations", "8", "--remeasure", "1")
    found = call(here.root, "search", *asked, "--json").data
    costs = found["winner"]["costs"]
    assert costs.keys() >= {"latency_s@often", "latency_s.p90@often"}
    assert costs["latency_s.p90@often"]["source"] == "measured"
    assert costs["latency_s@often"]["value"] < costs["latency_s.p90@often"]["value"]
    assert costs["latency_s.p90@often"]["upper"] <= limit_s * 1.001
    assert found["objectives"] == ["latency_s.p90@often"]
    (outcome,) = call(here.root, "export", "--json").data["manifest"]["budgets"]
    assert outcome["budget"]["percentile"] == 90


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--latency", "5ms", "--latency", "6ms"), "two options limit latency_s@quick"),
        (("--latency", "nowhere=5ms"), "nowhere"),
        (("--objective", "speed"), "'speed'"),
        (("--params", "1k,2k,3k,4k,5k", "--size", "1MB,2MB,3MB,4MB,5MB", "--latency", "1s,2s,3s,4s,5s"), "125 combin"),
        (("--scheduler", "nonsense"), "scheduler"),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), "workers of its own"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_evaluated(
    here: Searched, asked: tuple[str, ...], said: str
) -> None:
    refused(call(here.root, "search", *asked), 2, said)
    assert not list(here.folder.glob("*/steps.jsonl")) or not here.steps
    assert not here.answers


# -- devices ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_devices(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A project whose machine is two targets, at one thread and at two; both are profiled. Look, do not touch."""
    here = _unsearched(made, tmp_path_factory.mktemp("twins") / "project")
    twin = DEVICE.replace('"quick"', '"twin"').replace("[measure]", "[runtime]\nthreads = 2\n\n[measure]")
    (here.root / "targets" / "twin.toml").write_text(twin)
    require(call(here.root, "profile", "--device", "twin", "--n", "9"))
    return here


def tables(root: Path) -> dict[str, list[str]]:
    return {path.parent.name: journal_lines(path) for path in (root / "profiles").glob("*/*") if path.suffix != ".old"}


def test_two_devices_are_searched_for_at_once(two_devices: Searched, tmp_path: Path) -> None:
    here = Searched(copied(two_devices.root, tmp_path / "project"), Path())
    here = here._replace(folder=here.root / two_devices.folder.relative_to(two_devices.root))
    before = tables(here.root)
    limits_s = {"quick": middling_s(here.root), "twin": 3 * middling_s(here.root, "twin")}
    asked = [word for name, limit in limits_s.items() for word in ("--latency", f"{name}={1e6 * limit:.2f}us")]
    found = call(here.root, "search", *asked, "--evaluations", "16", "--json").data
    assert [one["target"] for one in found["devices"]] == ["quick", "twin"]
    for name, limit in limits_s.items():
        cost = found["winner"]["costs"][f"latency_s@{name}"]
        assert cost["source"] == "measured"
        assert cost["upper"] <= limit * 1.001
    after = tables(here.root)
    chosen = {json.dumps(one, sort_keys=True) for step in here.steps for one in step["to_measure"]}
    for name in limits_s:
        assert after[name][: len(before[name])] == before[name]
        there = {json.dumps(json.loads(line)["record"]["architecture"], sort_keys=True) for line in after[name]}
        assert chosen <= there
        assert json.dumps(found["winner"]["architecture"], sort_keys=True) in chosen
    for name, other in (("quick", "twin"), ("twin", "quick")):
        built = call(here.root, "export", "--device", name, "--out", f"bundles/{name}", "--json")
        assert [one["budget"]["target"] for one in built.data["manifest"]["budgets"]] == [name]
        assert any(f"budget for {other} is not judged" in one for one in built.envelope["warnings"])
    assert call(here.root, "export", "--out", "bundles/unnamed", "--json").data["manifest"]["target"] == "quick"


def test_the_second_of_two_devices_can_forbid_what_the_first_allows(two_devices: Searched) -> None:
    told = refused(call(two_devices.root, "search", "--latency", "quick=10s", "--latency", "twin=1us"), 3)
    assert re.search(r"hint: with [\d.]+ ms on twin it would fit", told.err)
    assert "on quick" not in told.err
    told = refused(call(two_devices.root, "search", "--latency", "quick=10s", "--latency", "cpu=1s"), 2)
    assert "mostool profile --device cpu" in told.err


# -- again -----------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_search(made: Made, tmp_path: Path) -> None:
    """The same in another copy of the project, whatever the clock says; another seed is another search."""
    found = []
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        here = _unsearched(made, tmp_path / name)
        require(call(here.root, *COUNTED, "--seed", seed))
        found.append(here.outcome)
    assert found[0] == found[1]
    assert [one["architecture"] for one in found[2]["evaluations"]] != [
        one["architecture"] for one in found[0]["evaluations"]
    ]


def test_a_finished_search_is_told_again_until_its_table_or_the_question_changes(here: Searched) -> None:
    asked = ("search", "--latency", "10s", "--evaluations", "6", "--remeasure", "0")
    first = call(here.root, *asked, "--json")
    assert first.data["items_asked"] > 0
    assert not any("done before" in one for one in first.envelope["warnings"])
    result, answers = here.result, here.answers
    other = call(here.root, *asked, "--seed", "1", "--json")
    assert not any("done before" in one for one in other.envelope["warnings"])
    again = call(here.root, *asked, "--json")
    assert any("this search was done before: --fresh searches anew" in one for one in again.envelope["warnings"])
    assert again.data["items_asked"] == 0
    assert again.data["winner"] == first.data["winner"]
    assert here.result == result  # what export builds is what was asked for last
    time.sleep(1)  # times are told in whole seconds
    fresh = call(here.root, *asked, "--fresh", "--json")
    assert not any("done before" in one for one in fresh.envelope["warnings"])
    assert fresh.data["items_asked"] == 0  # answers are facts: they are kept
    assert here.result["created_at"] != result["created_at"]
    assert {**here.outcome} == {name: value for name, value in result.items() if name != "created_at"}
    assert len(list(here.folder.glob("*.old"))) == 1
    assert here.answers[: len(answers)] == answers
    require(call(here.root, "profile", "--device", "quick", "--n", "16"))
    changed = call(here.root, *asked, "--json")
    assert not any("done before" in one for one in changed.envelope["warnings"])
    assert len(list(here.folder.glob("*.old"))) == 2


def test_a_warm_start_knows_what_earlier_searches_found(here: Searched) -> None:
    first = call(here.root, *COUNTED).data
    full = {json.dumps(one["architecture"]) for one in here.result["evaluations"] if not one["stopped"]}
    warm = call(here.root, *COUNTED, "--evaluations", "6", "--seed", "9", "--warm-start").data
    assert warm["evaluations"] == 6
    known = {json.dumps(one["architecture"]) for one in here.result["evaluations"] if one["batch"] == -1}
    assert known == full
    fresh = [json.dumps(one["architecture"]) for one in here.result["evaluations"] if one["batch"] >= 0]
    assert len(fresh) == 6
    assert not full & set(fresh)
    assert warm["winner"]["quality"]["value"] >= first["winner"]["quality"]["value"]
    cold = call(here.root, *COUNTED, "--evaluations", "6", "--seed", "9").data
    assert cold["evaluations"] == 6
    assert all(one["batch"] >= 0 for one in here.result["evaluations"])


# -- searchers and objectives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("searcher", ["assisted", "nsga2", "evolution", "random"])
def test_every_searcher_keeps_the_budget_and_repeats_nothing(here: Searched, searcher: str) -> None:
    found = call(here.root, *COUNTED, "--searcher", searcher).data
    evaluations = here.result["evaluations"]
    assert here.result["searcher"] == searcher
    assert found["evaluations"] == len(evaluations) == 24
    assert len({json.dumps(one["architecture"]) for one in evaluations}) == 24
    assert all(one["costs"]["parameters"]["upper"] <= 12e3 for one in evaluations)
    assert found["winner"]["quality"]["value"] == max(
        one["quality"]["value"] for one in evaluations if not one["stopped"]
    )
    check_front(here.result, ["parameters"])


def test_quality_can_be_traded_against_size_and_latency_at_once(here: Searched) -> None:
    asked = ("search", "--evaluations", "24", "--remeasure", "0", "--params", "15k", "--json")
    one = call(here.root, *asked, "--objective", "size").data
    assert one["objectives"] == ["size_bytes"]
    check_front(here.result, ["size_bytes"])
    both = call(here.root, *asked, "--objective", "latency", "--objective", "quick=memory").data
    assert both["objectives"] == ["latency_s@quick", "peak_memory_bytes@quick"]
    check_front(here.result, both["objectives"])
    three = call(here.root, *asked, "--objective", "latency", "--objective", "size").data
    assert three["objectives"] == ["latency_s@quick", "size_bytes"]
    check_front(here.result, three["objectives"])
    volumes = [point["hypervolume"] for point in three["trace"]]
    assert volumes == sorted(volumes)
    assert volumes[-1] > 0


def test_racing_finds_the_winner_that_letting_everybody_finish_finds(made: Made, tmp_path: Path) -> None:
    racing, patient = (_unsearched(made, tmp_path / name) for name in ("racing", "patient"))
    first = call(racing.root, *COUNTED).data
    second = call(patient.root, *COUNTED, "--no-racing").data
    assert first["winner"]["id"] == second["winner"]["id"]
    assert first["winner"]["quality"] == second["winner"]["quality"]
    assert first["items_asked"] <= second["items_asked"]
    assert not any(one["stopped"] for one in patient.result["evaluations"])


@pytest.mark.slow
def test_two_workers_find_what_one_does(made: Made, tmp_path: Path) -> None:
    alone, together = (_unsearched(made, tmp_path / name) for name in ("alone", "together"))
    require(call(alone.root, *COUNTED, "--evaluations", "12"))
    require(call(together.root, *COUNTED, "--evaluations", "12", "--workers", "2"))
    assert together.outcome == alone.outcome
    assert sorted(together.answers) == sorted(alone.answers)


def test_a_scheduler_that_is_not_there_is_named(here: Searched) -> None:
    pytest.importorskip("distributed")
    refused(call(here.root, "search", "--params", "12k", "--scheduler", "tcp://127.0.0.1:9"), 4, "tcp://127.0.0.1:9")


# -- stopped ---------------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What ends a process between two of its writes."""


def test_a_search_stopped_before_or_after_any_write_ends_as_the_unbroken_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _unsearched(made, tmp_path / "whole")
    asked = (*COUNTED, "--latency", "10s,1us", "--evaluations", "12")
    writes = 0
    append = Journal.append

    def counting(journal: Journal[Any], record: Any) -> None:
        nonlocal writes
        writes += 1
        append(journal, record)

    monkeypatch.setattr(Journal, "append", counting)
    unbroken = call(whole.root, *asked).data
    assert writes > 12
    broken = _unsearched(made, tmp_path / "broken")
    asked_in_all = 0
    for number in range(writes):  # each time a little further: the next write is the last, kept or not
        left = 1

        def stopping(journal: Journal[Any], record: Any, number: int = number) -> None:
            nonlocal left
            if left == 0:
                raise Stopped
            left -= 1
            append(journal, record)
            if number % 3 == 0:
                raise Stopped

        monkeypatch.setattr(Journal, "append", stopping)
        try:
            done = call(broken.root, *asked)
        except Stopped:
            continue
        require(done)
        asked_in_all = number
        break
    monkeypatch.setattr(Journal, "append", append)
    resumed = call(broken.root, *asked)
    assert asked_in_all or resumed.data["winner"]
    assert broken.outcome == whole.outcome
    assert broken.answers == whole.answers
    assert {**resumed.data, "items_asked": 0, "result": ""} == {**unbroken, "items_asked": 0, "result": ""}


def test_a_search_that_chose_its_budget_goes_on_with_it(here: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has measured would let it choose another, and so be another search."""
    (table,) = (here.root / "profiles" / "quick").iterdir()
    rows = len(journal_lines(table))
    with monkeypatch.context() as patched:
        patched.setattr(Course, "end", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            call(here.root, "search", "--evaluations", "30")
    assert len(journal_lines(table)) > rows
    begun, steps = here.outcome, here.steps
    done = call(here.root, "search", "--evaluations", "30", "--json")
    assert done.data["items_asked"] == 0
    assert here.outcome["budgets"] == begun["budgets"]
    assert here.steps[: len(steps)] == steps
    assert list(here.folder.glob("*.old")) == []
    assert len(list(here.folder.glob("*/course.json"))) == 1
    again = call(here.root, "search", "--evaluations", "30", "--json")
    assert any("done before" in one for one in again.envelope["warnings"])


@pytest.mark.slow
def test_a_search_killed_while_it_evaluates_and_while_it_measures_goes_on(here: Searched) -> None:
    asked = ("search", "--latency", "10s,80us", "--evaluations", "24", "--json")
    profiled = len(journal_lines(next((here.root / "profiles" / "quick").iterdir())))
    kept: list[dict[str, Any]] = []
    answers: list[tuple[str, int]] = []

    def steps() -> list[dict[str, Any]]:
        return here.steps if list(here.folder.glob("*/course.json")) else []

    def measured() -> int:
        return len(journal_lines(next((here.root / "profiles" / "quick").iterdir()))) - profiled

    for happened in (lambda: len(here.answers) >= 3, lambda: measured() >= 1):
        with started(here.root, *asked) as process:
            wait_until(happened, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (here.folder / "result.json").exists()
        assert steps()[: len(kept)] == kept
        assert here.answers[: len(answers)] == answers
        kept, answers = steps(), here.answers
    found = call(here.root, *asked).data
    assert here.steps[: len(kept)] == kept
    assert here.answers[: len(answers)] == answers
    assert set(Counter(here.answers).values()) == {1}, "something was asked twice"
    table = next((here.root / "profiles" / "quick").iterdir())
    rows = [json.loads(line)["record"]["architecture"] for line in journal_lines(table)]
    assert set(Counter(json.dumps(row) for row in rows).values()) == {1}, "something was measured twice"
    assert all(one in rows for step in here.steps for one in step["to_measure"])
    assert found["winner"]["costs"]["latency_s@quick"]["source"] == "measured"
    assert found["winner"]["costs"]["latency_s@quick"]["upper"] <= found["budgets"][0]["limit"]
    evaluated = [one["architecture"] for step in here.steps for one in step["evaluations"]]
    assert [one["architecture"] for one in here.result["evaluations"]] == evaluated
    assert len(evaluated) == 24


@pytest.mark.slow
def test_ctrl_c_leaves_a_result_and_the_same_command_goes_on(here: Searched) -> None:
    asked = ("search", "--latency", "10s", "--evaluations", "60")

    def steps() -> list[dict[str, Any]]:
        return here.steps if list(here.folder.glob("*/course.json")) else []

    with started(here.root, *asked) as process:
        wait_until(lambda: len(steps()) >= 2, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"winner: " in out
    stopped = read_record(here.folder / "result.json", SearchResult)
    assert stopped.winner.feasible
    assert 0 < len(stopped.evaluations) < 60
    assert stopped.winner in stopped.evaluations
    require(call(here.root, "export", "--out", "bundles/early"))
    kept = here.steps
    done = call(here.root, *asked, "--json")
    assert not any("done before" in one for one in done.envelope["warnings"])
    assert done.data["evaluations"] == 60
    assert here.steps[: len(kept)] == kept
    assert done.data["winner"]["quality"]["value"] >= stopped.winner.quality.value
    assert set(Counter(here.answers).values()) == {1}


# -- precision -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A project profiled in mixed precision too. Look, do not touch."""
    here = _unsearched(made, tmp_path_factory.mktemp("bits") / "project")
    require(call(here.root, "profile", "--device", "quick", "--precision", "mixed", "--n", "10"))
    return here


def copy_of(here: Searched, root: Path) -> Searched:
    return Searched(copied(here.root, root), root / here.folder.relative_to(here.root))


def bits_of(architecture: dict[str, Any]) -> set[int]:
    """How many bits its weights have, layer by layer; nothing of one that has no such axes."""
    axes = [value for name, value in architecture["axes"].items() if name.endswith("bits")]
    return {bits for value in axes for bits in (value if isinstance(value, list) else [value])}


def test_precision_is_searched_with_the_architecture_and_shipped(mixed: Searched, tmp_path: Path) -> None:
    here = copy_of(mixed, tmp_path / "project")
    asked = (
        "--precision",
        "mixed",
        "--latency",
        "10s",
        "--size",
        "60kB",
        "--evaluations",
        "14",
        "--remeasure",
        "1",
        "--json",
    )
    found = call(here.root, "search", *asked).data
    winner = found["winner"]
    drawn = [one["architecture"] for one in here.result["evaluations"]]
    assert set().union(*map(bits_of, drawn)) == {8, 32}
    assert winner["costs"]["latency_s@quick"]["source"] == "measured"
    assert winner["costs"]["size_bytes"]["upper"] <= 60e3
    chosen = next(one for one in drawn if bits_of(one) == {8, 32} and 8 in one["axes"]["ffn_bits"])
    built = call(here.root, "export", "--json").data
    manifest = built["manifest"]
    assert manifest["artifact"]["architecture"] == winner["architecture"]
    assert manifest["artifact"]["size_bytes"] <= 60e3
    assert all(one["met"] for one in manifest["budgets"])
    assert {one["budget"]["metric"] for one in manifest["budgets"]} == {"latency_s", "size_bytes"}
    require(call(here.root, "verify", built["bundle"], "--no-speed"))
    some = call(here.root, "export", "--arch", json.dumps(chosen), "--out", "bundles/some", "--json").data["manifest"]
    assert some["artifact"]["precision"] == "mixed"
    for folder, architecture in ((built["bundle"], winner["architecture"]), ("bundles/some", chosen)):
        nodes = [node.op_type for node in onnx.load(here.root / folder / "model.onnx").graph.node]
        layers = [bits for name in ("attention_bits", "ffn_bits") for bits in architecture["axes"].get(name, [])]
        products = [*layers, architecture["axes"].get("head_bits")]
        assert ("MatMulInteger" in nodes) == (8 in products), architecture


def test_all_int8_is_a_part_of_the_mixed_table(mixed: Searched, tmp_path: Path) -> None:
    here = copy_of(mixed, tmp_path / "project")
    found = call(here.root, "search", "--precision", "int8", "--latency", "10s", "--evaluations", "6", "--json").data
    for one in here.result["evaluations"]:
        assert bits_of(one["architecture"]) == {8}
    assert found["winner"]["costs"]["latency_s@quick"]["source"] == "measured"
    assert call(here.root, "export", "--json").data["manifest"]["artifact"]["precision"] == "int8"


def test_precision_is_as_the_device_was_profiled_last_unless_told(mixed: Searched, made: Made, tmp_path: Path) -> None:
    here = copy_of(mixed, tmp_path / "project")
    asked = ("search", "--latency", "10s", "--evaluations", "4", "--remeasure", "0", "--json")
    assert bits_of(call(here.root, *asked).data["winner"]["architecture"])
    assert not bits_of(call(here.root, *asked, "--precision", "fp32").data["winner"]["architecture"])
    fp32 = here.root / made.table.relative_to(made.root)
    fp32.rename(fp32.with_name(f"{fp32.name}.20300101T000000.old"))
    found = call(here.root, "search", "--precision", "fp32", "--latency", "10s", "--evaluations", "4", "--json").data
    winner = found["winner"]
    assert not bits_of(winner["architecture"])
    assert winner["costs"]["latency_s@quick"]["source"] == "measured", "a mixed table has fp32 subnets too"
    (grown,) = tables(here.root).values()
    rows = [json.loads(line)["record"]["architecture"]["axes"] for line in grown]
    (row,) = (
        row for row in rows if row.items() >= winner["architecture"]["axes"].items() and 8 not in bits_of({"axes": row})
    )
    assert bits_of({"axes": row}) == {32}
    assert call(here.root, "export", "--json").data["manifest"]["artifact"]["precision"] == "fp32"


@pytest.mark.fault("table-precision")
def test_precision_without_a_mixed_table_is_not_guessed_at(here: Searched) -> None:
    for precision in ("mixed", "int8"):
        told = refused(call(here.root, "search", "--precision", precision, "--latency", "10s"), 2, "no latency table")
        assert "mostool profile --device" in told.err
        assert "--precision mixed" in told.err


def test_a_result_that_was_tampered_with_is_refused(here: Searched) -> None:
    require(call(here.root, *COUNTED, "--evaluations", "4"))
    rewritten(here.folder / "result.json", lambda found: found | {"winner": {}})
    refused(call(here.root, "export"), 5, "result.json")
