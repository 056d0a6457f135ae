"""--dry-run: what profile, search, export and finetune would do, in figures that hold, and nothing written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from made_project import Made, call, journal_lines, refused, require

from toolchain.pipeline.plans import plan_profile
from toolchain.pipeline.profile import Request
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.records import Workload
from toolchain.targets import Measure, Target


def state_of(folder: Path) -> dict[str, str]:
    """Every file of a folder, by its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def planned(made: Made, *arguments: str) -> Any:
    """What a command would do; the project is as it was."""
    before = state_of(made.root)
    data = call(made.root, *arguments, "--dry-run", "--json").data
    told = require(call(made.root, *arguments, "--dry-run"))
    assert told.out.splitlines()[-1] == "nothing was started"
    assert require(call(made.root, *arguments, "--dry-run", "-q")).out == ""
    assert state_of(made.root) == before
    return data


# -- profile -----------------------------------------------------------------------------------------------------------


def test_a_profile_says_what_the_table_lacks(made: Made) -> None:
    held = len(journal_lines(made.table))
    assert planned(made, "profile", "--device", "quick", "--n", "10")["to_measure"] == 0
    found = planned(made, "profile", "--device", "quick", "--n", "12")
    assert (found["holds"], found["planned"]) == (held, 12)
    assert found["to_measure"] == len(found["architectures"]) <= 2
    assert found["noise_test"] is False
    assert found["pace_s"] > 0
    assert found["table"] == str(made.table.relative_to(made.root))


def test_what_a_profile_says_is_what_it_does(project: Path) -> None:
    plan = call(project, "profile", "--device", "quick", "--n", "13", "--dry-run", "--json").data
    done = call(project, "profile", "--device", "quick", "--n", "13", "--json").data
    assert done["measured_now"] == plan["to_measure"] > 0
    assert done["table"] == plan["table"]


def test_a_table_that_is_not_there_yet(made: Made) -> None:
    found = planned(made, "profile", "--device", "cpu", "--n", "5", "--length", "8")
    assert (found["holds"], found["to_measure"], found["noise_test"], found["pace_s"]) == (0, 5, True, None)
    assert found["workload"] == {"batch": 1, "sequence_length": 8}
    assert 0 < found["least_s"] < found["most_s"]
    anew = planned(made, "profile", "--device", "quick", "--fresh", "--n", "10")
    assert (anew["holds"], anew["to_measure"], anew["moved_aside"]) == (0, 10, True)


def test_a_goal_measures_at_most_so_many_and_so_long(made: Made) -> None:
    found = planned(made, "profile", "--device", "quick", "--target-error", "3%", "--n", "20", "--budget", "1s")
    assert found["to_measure"] == 20 - len(journal_lines(made.table))
    assert found["architectures"] == []
    assert found["least_s"] <= found["most_s"] == 1.0


def test_several_devices_are_told_one_after_the_other(made: Made) -> None:
    found = planned(made, "profile", "--device", "quick", "--device", "rpi", "--n", "10")
    assert [one["target"] for one in found] == ["quick", "rpi"]


def test_the_protocol_bounds_the_time(made: Made) -> None:
    measure = Measure(group=2, reference_every=2, warmup_s=0.5, minimum_s=1.0, maximum_s=4.0)
    target, run = Target(id="made", title="", measure=measure), Run(made.classify)
    request = Request(Workload(batch=1, sequence_length=16), 6)
    plan = plan_profile(Project(made.root), run, target, request)
    # 6 subnets and 4 copies: each warmed up, and so is the reference of the five groups; half as much again beside them
    assert plan.least_s == pytest.approx(10 * 0.5 + 5 * 0.5 + 10 * 1.0 * 1.5)
    assert plan.most_s == pytest.approx(10 * 0.5 + 5 * 0.5 + 10 * 4.0 * 1.5)


def test_nothing_is_planned_that_would_be_refused(made: Made, tmp_path: Path) -> None:
    refused(call(made.root, "profile", "--device", "quick", "--length", "17", "--dry-run"), 2)
    refused(call(made.root, "profile", "--device", "quick", "--build-only", "x", "--dry-run"), 2, "--dry-run")
    refused(call(made.root, "finetune", "--sequence-length", "8", "--dry-run"), 2, "were cut at")
    refused(call(made.root, "export", "--out", "runs", "--dry-run"), 2, "is not a bundle")
    refused(call(made.root, "export", "--onnx", "none.onnx", "--dry-run"), 2, "there is no none.onnx")


# -- search ------------------------------------------------------------------------------------------------------------


def test_a_search_says_what_it_stands_on(made: Made) -> None:
    found = planned(made, "search", "--latency", "100ms", "--params", "20k,30k", "--evaluations", "30")
    (ground,) = found["grounds"]
    assert ground["target"] == "quick"
    assert ground["error"]["n"] == len(journal_lines(made.table))
    assert found["subnets"] > 1000
    assert [len(budgets) for budgets in found["budget_sets"]] == [2, 2]
    assert (found["evaluations"], found["evaluated"], found["finished"]) == (30, 0, False)
    assert found["fits"]
    assert found["chosen"] is False


def test_a_search_that_was_done_says_so(made: Made) -> None:
    found = planned(made, "search", "--evaluations", "20")
    assert found["finished"] is True
    assert found["chosen"] is True
    assert found["evaluated"] >= 20


def test_a_budget_nobody_keeps_is_known_before_anything_starts(made: Made) -> None:
    told = refused(call(made.root, "search", "--params", "10", "--dry-run"), 3, "no subnet of this space keeps")
    assert told.err.startswith("no answer: ")
    assert call(made.root, "search", "--params", "10", "--dry-run", "--json").envelope["error"]["code"] == 3


# -- export and finetune -----------------------------------------------------------------------------------------------


def test_an_export_says_what_it_would_replace(made: Made, tmp_path: Path) -> None:
    found = planned(made, "export")
    assert found["folder"] == str(made.bundle.relative_to(made.root))
    assert "measured on quick" in found["replaced"]
    assert (found["precision"], found["format"], found["target"]) == ("fp32", "onnx", "quick")
    assert found["predicted_s"] > 0
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    assert planned(made, "export", "--out", str(damaged))["replaced"] == "a bundle that cannot be read"
    other = planned(made, "export", "--arch", "largest", "--precision", "auto", "--out", "bundles/other")
    assert (other["replaced"], other["precision"], other["folder"]) == (None, "auto", "bundles/other")


def test_a_model_that_is_brought_is_told_too(made: Made) -> None:
    model = made.bundle / "model.onnx"
    found = planned(made, "export", "--onnx", str(model), "--device", "quick", "--precision", "int8")
    assert (found["what"], found["precision"], found["architecture"]) == (str(model), "int8", None)
    assert found["folder"] == f"bundles/{made.bundle.name}"


def test_finetuning_counts_the_subnet_alone(made: Made) -> None:
    found = planned(made, "finetune", "--arch", "smallest", "--updates", "20", "--batch-size", "4")
    assert found["subnets"] == 1
    assert found["shared_parameters"] == found["largest_parameters"] == found["smallest_parameters"]


def test_a_training_warns_of_files_that_are_not_there(tmp_path: Path) -> None:
    plan = ("train", "--space", "tiny", "--updates", "3", "--dry-run", "--json")
    missing = call(tmp_path, *plan, "--data", "nope.csv", "--valid", "none.csv")
    assert [line.partition(":")[0] for line in missing.envelope["warnings"]] == [
        "there is no nope.csv",
        "there is no none.csv",
    ]
    for given in (("--data", "a.en", "a.de"), ("--data=a.en", "a.de"), ("--data", "a.en", "--data=a.de")):
        told = call(tmp_path, *plan, "--task", "translate", *given).envelope["warnings"]
        assert [line.partition(":")[0] for line in told] == ["there is no a.en", "there is no a.de"]
    assert call(tmp_path, *plan, "--task", "translate", "--data", "system:fr").envelope["warnings"] == []
