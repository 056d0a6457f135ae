"""Compiling subnets: the precision is chosen by measuring, and translations ship as all others do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_compiled import EXPORT, GRAPHS, Translator, alone
from made_project import call, refused, require, rewritten

from toolchain import text
from toolchain.errors import ParityError
from toolchain.export import read_manifest
from toolchain.pipeline import shipping, verify
from toolchain.pipeline.measured import Measured
from toolchain.pipeline.subjects import SubnetOfRun
from toolchain.records import Failed

pytestmark = pytest.mark.usefixtures("hasty")
AUTO = (*EXPORT, "--precision", "auto")


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Path:
    """The project of a task, by indirect parameters."""
    if request.param == "translate":
        return Path(request.getfixturevalue("translator").root)
    return Path(request.getfixturevalue("encoders"))


of_both = pytest.mark.parametrize("project", ["classify", "translate"], indirect=True)
of_encoders = pytest.mark.parametrize("project", ["classify"], indirect=True)


# -- the precision -----------------------------------------------------------------------------------------------------


@of_both
def test_auto_ships_the_fastest_that_keeps_the_quality(project: Path, tmp_path: Path) -> None:
    told = call(project, *AUTO, "--max-drop", "5%", "--out", tmp_path / "b", "--json").data
    assert told.keys() == {"bundle", "manifest", "replaced"}
    manifest, tried = told["manifest"], told["manifest"]["tried"]
    assert {one["quality"]["split"] for one in tried} == {"validation"}
    assert [one["precision"] for one in tried][:2] == ["fp32", "int8"]
    assert {one["precision"] for one in tried[2:]} == {"int4" if manifest["task"] == "translate" else "int8-static"}
    floor = 0.95 * tried[0]["quality"]["value"]
    kept = [one for one in tried if one["quality"]["value"] >= floor]
    fastest = min(kept, key=lambda one: one["latency"]["median_s"])
    assert [one for one in tried if not one["why"]] == [fastest]
    assert {one["why"] for one in kept} <= {"", "slower"}
    assert all("gives up more than 5 %" in one["why"] for one in tried if one not in kept)
    assert manifest["artifact"]["precision"] == fastest["precision"]
    assert manifest["artifact"]["size_bytes"] == fastest["size_bytes"]
    assert manifest["latency"] == fastest["latency"]
    assert (manifest["max_drop"], manifest["quality"]["split"]) == (0.05, "test")
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["tried"] == tried
    require(call(project, "verify", tmp_path / "b", "--no-speed"))
    rewritten(tmp_path / "b" / "manifest.json", lambda found: found | {"max_drop": 0.5})
    refused(call(project, "verify", tmp_path / "b", "--no-speed"), 5, "manifest.json")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float], dict[str, float]], None]:
    """Let files take these times, in ms, and be worth so much; without a time the device refuses them."""

    def decide(taken_ms: dict[str, float], worth: dict[str, float]) -> None:
        measure, judge = shipping.measure_files, shipping._Work._quality

        def times(*given: Any) -> dict[str, Measured | Failed]:
            found = measure(*given)
            for name, one in found.items():
                precision = name.split()[1]
                assert isinstance(one, Measured)
                found[name] = (
                    one._replace(latency=msgspec.structs.replace(one.latency, median_s=1e-3 * taken_ms[precision]))
                    if precision in taken_ms
                    else Failed(stage="load", error="it was made up")
                )
            return found

        def quality(work: Any, one: Any, split: Any) -> Any:
            found = judge(work, one, split)
            return msgspec.structs.replace(found, value=worth[one.precision]) if split == "validation" else found

        monkeypatch.setattr(shipping, "measure_files", times)
        monkeypatch.setattr(shipping._Work, "_quality", quality)

    return decide


@of_encoders
@pytest.mark.parametrize(
    ("taken_ms", "worth", "max_drop", "ships", "why"),
    [
        ((3, 2, 1), (0.9, 0.9, 0.9), "0%", "int8-static", ("slower", "slower", "")),
        ((3, 2, 1), (0.9, 0.9, 0.8999), "0%", "int8", ("slower", "", "it gives up more than 0 %")),
        ((3, 2, 1), (0.9, 0.8, 0.8999), "1%", "int8-static", ("slower", "it gives up more than 1 %", "")),
        ((3, 2, 1), (0.9, 0.89, 0.8), "0%", "fp32", ("", "it gives up", "it gives up")),
        ((1, 2, 3), (0.9, 0.95, 0.99), "50%", "fp32", ("", "slower", "slower")),
    ],
)
def test_it_is_chosen_by_time_among_those_that_keep_it(
    project: Path,
    tmp_path: Path,
    made_up: Any,
    taken_ms: tuple[float, ...],
    worth: tuple[float, ...],
    max_drop: str,
    ships: str,
    why: tuple[str, ...],
) -> None:
    names = ("fp32", "int8", "int8-static")
    made_up(dict(zip(names, taken_ms, strict=True)), dict(zip(names, worth, strict=True)))
    manifest = call(project, *AUTO, "--max-drop", max_drop, "--out", tmp_path / "b", "--json").data["manifest"]
    assert manifest["artifact"]["precision"] == ships
    for one, said in zip(manifest["tried"], why, strict=True):
        assert one["why"].startswith(said)
        assert bool(one["why"]) == bool(said)


@of_encoders
def test_what_cannot_be_built_or_run_is_left_out_and_told(
    project: Path, tmp_path: Path, made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = SubnetOfRun.build

    def failing(subject: Any, path: Path, runtime: Any, precision: Any, environment: Any) -> Any:
        if precision == "int8":
            raise ParityError("it answers otherwise")
        return build(subject, path, runtime, precision, environment)

    monkeypatch.setattr(SubnetOfRun, "build", failing)
    made_up({"fp32": 5}, {"fp32": 0.5})
    told = require(call(project, *AUTO, "--out", tmp_path / "b"))
    assert "tried: int8: not measured: it answers otherwise" in told.out
    assert "tried: int8-static: not measured: load: it was made up" in told.out
    assert [one.size_bytes > 0 for one in read_manifest(tmp_path / "b").tried] == [True, False, True]
    require(call(project, "verify", tmp_path / "b", "--no-speed"))


@of_both
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "fp16"), ("no fp16 file", "--precision: fp32, int8")),
        (("--precision", "fp8"), ("'fp8' is not one of", "see mostool export --help")),
        (("--max-drop", "-1%"), ("--max-drop",)),
        (("--batch", "0"), ("--batch",)),
        (("--length", "0"), ("--length",)),
        (("--length", "25"), ("no workload of this run", "the length may be 1 to")),
        (("--tokenizer", "data.tsv"), ("tokenizer of its run",)),
    ],
    ids=" ".join,
)
def test_what_there_is_not_is_refused(
    project: Path, tmp_path: Path, options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    refused(call(project, *EXPORT, *options, "--out", tmp_path / "b"), 2, *said)
    assert not list(tmp_path.iterdir())


@of_both
@pytest.mark.parametrize("length", [1, None])
def test_the_shortest_and_the_longest_texts(project: Path, tmp_path: Path, length: int | None) -> None:
    longest = json.loads(next(project.glob("runs/*/checkpoint.json")).read_text())["space"]["fixed"]["maximum_length"]
    told = call(project, *EXPORT, "--length", str(length or longest), "--out", tmp_path / "b", "--json").data
    assert told["manifest"]["workload"]["sequence_length"] == (length or longest)
    require(call(project, "verify", tmp_path / "b", "--no-speed"))


# -- translation -------------------------------------------------------------------------------------------------------


def test_a_translation_goes_the_whole_path(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    said, manifest = translator.said, translator.said["export"]["manifest"]
    assert said["profile"]["timed"] == 9
    assert said["search"]["winner"]["costs"]["latency_s@quick"]["upper"] <= 1
    assert manifest["artifact"]["architecture"] == said["search"]["winner"]["architecture"]
    assert [outcome["met"] for outcome in manifest["budgets"]] == [True]
    assert (manifest["task"], manifest["quality"]["metric"], manifest["licence"]) == ("translate", "bleu", "Apache-2.0")
    assert {*GRAPHS, "model.onnx", "config.json", "model.safetensors", "run_example.py"} <= manifest["files"].keys()
    stated_s, measure = manifest["latency"]["median_s"], verify._taken

    def as_stated(*given: Any) -> dict[str, float]:  # what else runs here is not what is tested
        taken = measure(*given)
        return taken | {"latency_s": min(taken["latency_s"], stated_s)}

    monkeypatch.setattr(verify, "_taken", as_stated)
    checks = call(translator.root, "verify", translator.bundle, "--json").data["checks"]
    assert {check["name"]: check["passed"] for check in checks}.items() >= dict.fromkeys(
        ("integrity", "parity", "speed", "budget"), True
    ).items()
    page = call(translator.root, "report", "-o", translator.root / "page.html", "--json").data["report"]
    assert "bleu" in Path(page).read_text().lower()


def evaluated(project: Path, source: str, path: Path, *options: str) -> dict[str, Any]:
    told = call(project, "evaluate", "--arch", "winner", "--source", source, "--dump-text", path, *options, "--json")
    quality: dict[str, Any] = told.data[0]["quality"]
    return quality


@pytest.mark.parametrize("beam", ["1", "2"])
def test_the_bundle_says_what_the_subnet_says_wherever_it_is(translator: Translator, tmp_path: Path, beam: str) -> None:
    """Word for word: by the pipeline, and by the example with nothing of ours around it."""
    found = {
        source: evaluated(translator.root, source, tmp_path / source, "--beam", beam) for source in ("subnet", "bundle")
    }
    assert found["bundle"]["value"] == found["subnet"]["value"]
    assert found["bundle"]["also"] == found["subnet"]["also"]
    assert found["bundle"]["loss"] == pytest.approx(found["subnet"]["loss"], abs=1e-5)
    said = (tmp_path / "subnet").read_text().splitlines()
    assert (tmp_path / "bundle").read_text().splitlines() == said
    assert len(set(said)) > 10, "the answer does not depend on the text"
    sources = [source for source, _ in text.read_references(translator.run / "data", "test")]
    printed = alone(translator.bundle, "--beam", beam, *sources).splitlines()
    assert printed[::2] == sources
    assert [line.strip() for line in printed[1::2]] == said


def test_without_a_bundle_the_files_are_built_to_be_evaluated(translator: Translator, tmp_path: Path) -> None:
    arguments = ("evaluate", "--arch", "smallest", "--limit", "9", "--json")
    found = {}
    for source in ("subnet", "bundle"):
        dumps = ("--dump-text", tmp_path / source, "--dump-logits", tmp_path / f"{source}.npy")
        found[source] = call(translator.root, *arguments, "--source", source, *dumps).envelope
    assert "no bundle of" in found["bundle"]["warnings"][0]
    assert found["bundle"]["data"][0]["quality"]["value"] == found["subnet"]["data"][0]["quality"]["value"]
    assert (tmp_path / "bundle").read_text() == (tmp_path / "subnet").read_text()
    one, other = (np.load(tmp_path / f"{source}.npy", allow_pickle=False) for source in found)
    np.testing.assert_allclose(one, other, atol=1e-4, rtol=0)


@pytest.mark.fault("no-sentence", "unknown-token")
def test_texts_that_are_none_and_words_nobody_knows(translator: Translator, encoders: Path, tmp_path: Path) -> None:
    require(call(encoders, *EXPORT, "--out", tmp_path / "b"))
    strange = ("", "\u65e5\u672c zz\u0301z", "[SEP] [MASK] \U0001f40c", "be " * 200)
    for bundle, rows in ((translator.bundle, 2), (tmp_path / "b", 4)):
        assert alone(bundle, *strange).splitlines()[::rows] == list(strange)
    assert alone(translator.bundle, "--beam", "3", *strange).splitlines()[::2] == list(strange)
    assert "--beam takes 1 or more" in alone(translator.bundle, "--beam", "0", "be", code=2)
