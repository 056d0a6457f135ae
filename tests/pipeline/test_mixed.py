"""Precision through the command line: a mixed table, a bundle with int8 inside, and what proves it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from made_project import CLASSIFY, call, refused, require, rewritten, write_inputs

from toolchain.export import INT8_TOLERANCE, read_manifest
from toolchain.export.parity import load_checks, save_checks
from toolchain.files import sha256_file
from toolchain.pipeline.export import usual_device
from toolchain.pipeline.growing import plan
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.profiling import read_table
from toolchain.records import Workload
from toolchain.space import Architecture

PROFILE = ("profile", "--run", "run", "--device", "quick", "--n", "10")
MIXED = (*PROFILE, "--precision", "mixed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained classifier, profiled in mixed precision. Look, do not touch."""
    root = write_inputs(tmp_path_factory.mktemp("mixed") / "project")
    require(call(root, *CLASSIFY, "--out", "runs/run"))
    require(call(root, *MIXED))
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    return Run(root / "runs" / "run")


@pytest.fixture(scope="module")
def drawn(root: Path) -> str:
    """An architecture with some int8 in it, as `sample` prints it."""
    lines = require(call(root, "sample", "--run", "run", "--precision", "mixed", "--n", "5")).out.splitlines()
    found = [line for line in lines if 8 in json.loads(line)["axes"]["ffn_bits"] and '"head_bits":32' in line]
    return found[0]


@pytest.fixture(scope="module")
def bundle(root: Path, drawn: str) -> Path:
    require(call(root, "export", "--run", "run", "--device", "quick", "--arch", drawn, "--out", "bundles/mixed"))
    return root / "bundles" / "mixed"


def architecture_of(line: str) -> Architecture:
    return msgspec.json.decode(line, type=Architecture)


def test_a_mixed_table_is_one_of_its_own(root: Path, run: Run) -> None:
    (folder,) = (root / "profiles" / "quick").iterdir()
    info, rows = read_table(folder)
    assert folder == Project(root).table_folder("quick", run.bits_space, info.workload)
    assert (info.precision, info.space) == ("mixed", run.bits_space)
    assert {row.architecture for row in rows} == set(plan(run.bits_space, 10))
    assert [row.precision for row in rows] == [run.declared.precision(row.architecture) for row in rows]
    assert {"fp32", "int8", "mixed"} == {row.precision for row in rows}
    largest = run.info.space.largest()
    for bits in (8, 32):
        assert run.declared.at_bits(largest, bits) in [row.architecture for row in rows]
    sizes = {row.architecture: row.size_bytes for row in rows}
    assert sizes[run.declared.at_bits(largest, 8)] < sizes[run.declared.at_bits(largest, 32)]


def test_the_same_call_measures_nothing_again(root: Path) -> None:
    assert call(root, *MIXED, "--json").data["measured_now"] == 0


def test_a_mixed_table_is_judged_by_features_of_its_own(root: Path, run: Run) -> None:
    """A goal is met by a table that has rows enough already, so nothing is measured."""
    told = call(root, *MIXED, "--target-error", "500%", "--json").data
    assert (told["measured_now"], told["goal_met"]) == (0, True)
    assert told["predictor_error"]["n"] == told["timed"] == 10


def test_the_file_is_what_the_bits_say(bundle: Path, run: Run, drawn: str) -> None:
    manifest = read_manifest(bundle)
    architecture = architecture_of(drawn)
    assert manifest.artifact.architecture == architecture
    assert manifest.artifact.precision == "mixed"
    assert manifest.artifact.quantised_max_abs_error
    assert manifest.predicted_s is not None  # by the table of the space with bits
    found = Counter(node.op_type for node in onnx.load(bundle / manifest.artifact.file).graph.node)
    in_layers = 5 * architecture.layers("attention_bits").count(8) + 2 * architecture.layers("ffn_bits").count(8)
    assert found["MatMulInteger"] == in_layers


def test_a_quantised_bundle_is_verified_against_its_own_answers(root: Path, bundle: Path, tmp_path: Path) -> None:
    require(call(root, "verify", bundle, "--no-speed"))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in bundle.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    checks = load_checks(wrong / "parity.safetensors")
    size = max(abs(one).max() for one in checks.expected)
    checks.expected[0][...] += 3 * INT8_TOLERANCE * size
    save_checks(checks, wrong / "parity.safetensors")

    def claimed(manifest: Any) -> Any:
        files = manifest["files"] | {"parity.safetensors": sha256_file(wrong / "parity.safetensors")}
        return manifest | {"files": files, "parity_tolerance": 1000.0}

    rewritten(wrong / "manifest.json", claimed)
    text = (wrong / "README.md").read_text()
    allowed = f"{read_manifest(bundle).parity_tolerance:.0e}"
    (wrong / "README.md").write_text(text.replace(f"within {allowed}", "within 1e+03"))
    rewritten(
        wrong / "manifest.json",
        lambda manifest: manifest | {"files": manifest["files"] | {"README.md": sha256_file(wrong / "README.md")}},
    )
    refused(call(root, "verify", wrong, "--no-speed"), 5, "disagree")


def test_what_ships_is_what_is_evaluated(root: Path, bundle: Path, run: Run, drawn: str) -> None:
    def asked(source: str, *more: str | Path) -> Any:
        return call(root, "evaluate", "--run", "run", "--arch", drawn, "--source", source, *more, "--json")

    shipped, built, supernet = asked("bundle", "--bundle", bundle), asked("bundle"), asked("supernet")
    assert shipped.data[0]["quality"] == built.data[0]["quality"]
    assert shipped.data[0]["quality"]["loss"] != supernet.data[0]["quality"]["loss"]
    assert shipped.data[0]["quality"]["loss"] == pytest.approx(supernet.data[0]["quality"]["loss"], abs=0.05)
    assert any("fp32" in warning for warning in supernet.envelope["warnings"])
    architecture = architecture_of(drawn)
    quality = run.quality(run.shipped_predict(architecture), "test")
    assert quality.loss == pytest.approx(shipped.data[0]["quality"]["loss"], abs=1e-6)
    plain = run.declared.without_bits(architecture)
    loss = run.quality(run.shipped_predict(plain), "test").loss
    assert loss == pytest.approx(supernet.data[0]["quality"]["loss"], abs=1e-5)


def test_bits_that_are_none_and_tables_that_do_not_fit_are_refused(root: Path, run: Run, drawn: str) -> None:
    refused(call(root, *PROFILE, "--arch", drawn), 2, "--precision mixed")
    axes = json.loads(drawn)
    axes["axes"]["head_bits"] = 4
    refused(call(root, "export", "--run", "run", "--arch", json.dumps(axes)), 2, "'head_bits'")
    del axes["axes"]["head_bits"]
    refused(call(root, "export", "--run", "run", "--arch", json.dumps(axes)), 2, "'head_bits'")


def test_a_run_of_one_subnet_may_be_given_any_bits_but_no_other_architecture(root: Path, run: Run, drawn: str) -> None:
    alone = Run(root / "runs" / "run")
    alone.info = msgspec.structs.replace(run.info, space=run.info.space.narrowed(run.info.space.largest()))
    alone.check(run.declared.at_bits(run.info.space.largest(), 8))
    with pytest.raises(Exception, match="not the one this run holds"):
        alone.check(run.declared.at_bits(run.info.space.smallest(), 8))


def test_the_usual_device_is_that_of_the_table_with_bits(root: Path, run: Run, drawn: str) -> None:
    project = Project(root)
    assert usual_device(project, run, architecture_of(drawn)) == ("quick", Workload(batch=1, sequence_length=16))
    assert usual_device(project, run)[0] == "cpu"
