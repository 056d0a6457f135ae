"""The half that measures, predicts and reports needs no torch; the other half says in a line which extra it needs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from made_project import CLASSIFY, Called, Made, call, journal_lines, require, spawn, write_inputs

from installing.absent import BASE_LACKS, without

_FEW = 10
"""As many rows as a predictor takes."""


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return without(tmp_path_factory.mktemp("absent"), *BASE_LACKS)


@pytest.fixture(scope="module")
def files(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "files"
    given = ("--run", made.classify, "--device", "quick", "--n", str(_FEW))
    require(call(made.root, "profile", *given, "--build-only", folder))
    return folder


@pytest.fixture(scope="module")
def there(files: Path, absent: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a machine without torch and without a run, in which ready files were measured."""
    root = tmp_path_factory.mktemp("there")
    write_inputs(root / "project")
    shutil.copytree(files, root / "project" / "files")
    told = spawn(root / "project", "profile", "--artifacts", "files", "--device", "quick", "--json", **absent)
    assert told.data["measured_now"] == told.data["timed"] == _FEW
    assert told.data["source"] == "measured"
    assert told.data["noise_floor"]["value"] > 0
    return root / "project"


def answered(there: Path, absent: dict[str, str], *arguments: str | Path) -> Called:
    return require(spawn(there, *arguments, **absent))


def test_ready_files_are_measured_once(there: Path, absent: dict[str, str]) -> None:
    told = answered(there, absent, "profile", "--artifacts", "files", "--device", "quick")
    assert f": 0 measured now, {_FEW} in all" in told.out
    assert "next: mostool predict --device quick" in told.out


def test_a_table_without_a_run_is_predicted_from(there: Path, absent: dict[str, str]) -> None:
    told = spawn(there, "predict", "--n", "3", "--json", **absent)
    assert len(told.data["predictions"]) == 3
    assert {one["source"] for one in told.data["predictions"]} == {"predicted"}
    assert "smallest" not in answered(there, absent, "predict", "--arch", "smallest", "--kind", "blocks").out
    (table,) = (there / "profiles" / "quick").iterdir()
    row = json.loads(journal_lines(table)[0])["record"]["architecture"]
    told = spawn(there, "predict", "--arch", json.dumps(row), "--device", "quick", "--json", **absent)
    assert told.data["predictions"][0]["architecture"] == row


def test_a_table_without_a_run_becomes_a_file_and_is_looked_through(there: Path, absent: dict[str, str]) -> None:
    assert f"{_FEW} latencies" in answered(there, absent, "predict", "--export", "table.csv").out
    assert len((there / "table.csv").read_text().splitlines()) == _FEW + 1
    (table,) = (there / "profiles" / "quick").iterdir()
    answered(there, absent, "predict", "--check", table)


@pytest.mark.parametrize("arguments", [("--help",), ("profile", "--help"), ("devices", "list"), ("config",)])
def test_what_needs_no_torch_answers(arguments: tuple[str, ...], there: Path, absent: dict[str, str]) -> None:
    answered(there, absent, *arguments)


def test_doctor_lists_the_extras(there: Path, absent: dict[str, str]) -> None:
    told = spawn(there, "doctor", "--json", **absent).data["checks"]
    found = {one["name"]: one for one in told}
    assert found["mostool[train]"]["found"].startswith("lacks torch, safetensors, tokenizers, sacrebleu: pip install")
    assert found["mostool[search]"]["found"] == "lacks pymoo: pip install 'mostool[search]'"
    assert found["mostool[search]"]["state"] == "not there"
    assert "torch" not in found
    assert re.search(r"^-- +mostool\[search\]  ", require(spawn(there, "doctor", **absent)).out, re.MULTILINE)
    here = {one["name"]: one for one in spawn(there, "doctor", "--json").data["checks"]}
    assert here["mostool[onnx]"]["found"] == "there"
    assert here["torch"]["state"] == here["onnx"]["state"] == "ok"


def test_a_run_is_reported_and_sampled_from(made: Made, absent: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(made.root, project)
    run = project / "runs" / made.classify.name
    require(spawn(project, "report", "--run", run, "-o", "page.html", **absent))
    assert "</html>" in (project / "page.html").read_text()
    require(spawn(project, "sample", "--run", run, "--n", "2", **absent))
    require(spawn(project, "predict", "--run", run, "--arch", "winner", **absent))


LACKING = {
    ("train",): ("torch", "train"),
    ("finetune",): ("", "onnx"),
    ("profile",): ("", "onnx"),
    ("search", "--latency", "5ms"): ("", "search"),
    ("export",): ("", "onnx"),
    ("evaluate",): ("", "onnx"),
    ("verify", "files"): ("", "onnx"),
    ("devices", "test", "cpu"): ("onnx", "onnx"),
    ("demo",): ("", "all"),
    ("predict", "--export", "table.parquet"): ("", "tables"),
}


@pytest.mark.parametrize("arguments", LACKING, ids=" ".join)
def test_what_lacks_a_package_names_its_extra(arguments: tuple[str, ...], there: Path, absent: dict[str, str]) -> None:
    package, extra = LACKING[arguments]
    told = require(spawn(there, *arguments, **absent), 2)
    what, hint = told.err.splitlines()
    assert what.startswith("error: ")
    assert what.endswith("not installed")
    assert package in what
    assert hint.startswith("hint: ")
    assert f"pip install 'mostool[{extra}]'" in hint


def test_what_lacks_a_package_says_so_as_json(there: Path, absent: dict[str, str]) -> None:
    told = spawn(there, "train", "--json", **absent).error
    assert (told["code"], told["kind"], told["hint"]) == (2, "usage", "pip install 'mostool[train]'")


def test_training_needs_its_own_extra_and_no_other(tmp_path: Path) -> None:
    write_inputs(tmp_path / "project")
    variables = without(tmp_path / "absent", "onnx", "onnxscript", "pymoo", "pyarrow")
    require(spawn(tmp_path / "project", *CLASSIFY, "--out", "runs/made", **variables))
    told = require(spawn(tmp_path / "project", "export", **variables), 2)
    assert "hint: pip install 'mostool[onnx]'" in told.err


def test_exporting_needs_no_search(tmp_path: Path, made: Made) -> None:
    variables = without(tmp_path / "absent", "pymoo", "pyarrow")
    folder = tmp_path / "files"
    require(spawn(made.root, "profile", "--run", made.classify, "--n", "1", "--build-only", folder, **variables))
    told = require(spawn(made.root, "search", "--latency", "5ms", **variables), 2)
    assert told.err.splitlines()[-1] == "hint: pip install 'mostool[search]'"
