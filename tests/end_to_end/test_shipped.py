"""What a compiled bundle is to others: strangers' libraries, those who tamper, full disks; engines without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_compiled import EXPORT, GRAPHS, Translator, alone
from made_project import call, copied, refused, require, rewritten, started, wait_until
from made_runs import Runs

from toolchain.export import bundle as bundling

from .test_disk import FULL, fill, small_disk
from .test_tampering import edited, emptied, removed, shortened

__all__ = ["small_disk"]
pytestmark = pytest.mark.usefixtures("hasty")
rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture(scope="module")
def classifier(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "classifier"
    require(call(encoders, *EXPORT, "--out", folder))
    return folder


# -- strangers ---------------------------------------------------------------------------------------------------------

_STRANGER = """
import json, sys
from pathlib import Path

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "toolchain":
            raise ImportError(f"{name} is not on a stranger's machine")

sys.meta_path.insert(0, Guard())
import onnxruntime, torch, transformers
from optimum import onnxruntime as ort

asked, found = json.loads(sys.argv[1]), {}
for kind, (folder, texts) in asked.items():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    models = [
        getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, trust_remote_code=True),
        getattr(ort, f"ORTModelFor{kind}").from_pretrained(folder),
    ]
    if kind == "Seq2SeqLM":
        found[kind] = [tokenizer.batch_decode(model.generate(**given), skip_special_tokens=True) for model in models]
        continue
    session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"])
    own = torch.from_numpy(session.run(None, {name: one.numpy() for name, one in given.items()})[0])
    with torch.no_grad():
        found[kind] = [float((model(**given).logits - own).abs().max()) for model in models]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(
    classifier: Path, translator: Translator, runs: Runs, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What transformers and optimum make of the bundles of three tasks, in a process that cannot import mostool."""
    pytest.importorskip("optimum.onnxruntime")
    folder = tmp_path_factory.mktemp("strangers")
    words = copied(runs.folder("mlm").parents[1], folder / "words")
    require(call(words, *EXPORT, "--out", folder / "mlm"))
    examples = {
        kind: (str(bundle), json.loads((bundle / "examples.json").read_text()))
        for kind, bundle in {
            "SequenceClassification": classifier,
            "MaskedLM": folder / "mlm",
            "Seq2SeqLM": translator.bundle,
        }.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", _STRANGER, json.dumps(examples)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for bundle, _ in examples.values():
        require(call(folder, "verify", bundle, "--no-speed"))
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("kind", ["SequenceClassification", "MaskedLM"])
def test_transformers_and_optimum_answer_as_the_session_does(found: dict[str, Any], kind: str) -> None:
    assert max(found[kind]) < 1e-4


def test_transformers_and_optimum_translate_as_the_example_does(found: dict[str, Any], translator: Translator) -> None:
    printed = alone(translator.bundle).splitlines()
    ours = [line.strip() for line in printed[1::2]]
    by_transformers, by_optimum = ([" ".join(one.split()) for one in said] for said in found["Seq2SeqLM"])
    assert by_transformers == by_optimum == ours
    assert any(ours)


# -- tampered with -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GRAPHS[:2], "config.json", "model.safetensors", "modeling_translation.py"])
@pytest.mark.parametrize("damage", [edited, shortened, emptied, removed], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_named(
    translator: Translator, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    bundle = copied(translator.bundle, tmp_path / "b")
    damage(bundle / name)
    refused(call(tmp_path, "verify", bundle, "--no-speed"), 5, name)
    refused(call(translator.root, "evaluate", "--source", "bundle", "--bundle", bundle), 5, name)


def test_a_file_nobody_vouches_for_is_named(translator: Translator, tmp_path: Path) -> None:
    bundle = copied(translator.bundle, tmp_path / "b")
    (bundle / "pytorch_model.bin").write_bytes(b"")
    refused(call(tmp_path, "verify", bundle, "--no-speed"), 5, "pytorch_model.bin")


def test_other_words_are_not_taken_for_the_same(translator: Translator, tmp_path: Path) -> None:
    """Whole files and a manifest that vouches for them, but the model is of another subnet."""
    require(call(translator.root, "export", "--arch", "smallest", "--out", tmp_path / "a"))
    require(call(translator.root, "export", "--arch", "largest", "--out", tmp_path / "b"))
    theirs = (tmp_path / "a" / "parity.safetensors").read_bytes()
    (tmp_path / "b" / "parity.safetensors").write_bytes(theirs)
    vouched = json.loads((tmp_path / "a" / "manifest.json").read_text())["files"]["parity.safetensors"]
    rewritten(
        tmp_path / "b" / "manifest.json",
        lambda found: found | {"files": found["files"] | {"parity.safetensors": vouched}},
    )
    refused(call(tmp_path, "verify", "b", "--no-speed"), 5)


# -- stopped -----------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_gets_no_half_bundle(translator: Translator, small_disk: Path) -> None:
    fill(small_disk, left=200_000)
    told = require(call(translator.root, *EXPORT, "--precision", "int8", "--out", small_disk / "bundle"), 1)
    assert all(words in told.err.lower() for words in FULL), told.err
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("before", [True, False], ids=["a bundle was there", "none was there"])
def test_stopped_at_the_last_step_what_was_there_stays(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    if before:
        copied(translator.bundle, tmp_path / "b")
    held = {path.name: path.read_bytes() for path in tmp_path.glob("b/*")}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundling, "write_record", stop)
    refused(call(translator.root, *EXPORT, "--precision", "int8", "--out", tmp_path / "b"), 130, "interrupted")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("b/*")} == held
    assert [path.name for path in tmp_path.iterdir()] == (["b"] if before else [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_stopped_while_it_measures_leaves_no_bundle(
    encoders: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = (*EXPORT, "--precision", "auto", "--out", tmp_path / "b")
    with started(encoders, *arguments) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        wait_until(lambda: bool(process.stderr.read()), process)  # type: ignore[union-attr]
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not list(tmp_path.iterdir())


# -- engines -----------------------------------------------------------------------------------------------------------

ENGINE = ("export", "--arch", "largest", "--device", "gpu-rtx", "--format", "tensorrt")


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-static"])
def test_an_engine_ships_with_the_file_it_was_built_from(encoders: Path, tmp_path: Path, precision: str) -> None:
    bundle = tmp_path / "b"
    told = call(encoders, *ENGINE, "--precision", precision, "--out", bundle, "--json").envelope
    assert told["warnings"] == ["it was not measured: the machine that built it cannot run it"]
    manifest = told["data"]["manifest"]
    artifact = manifest["artifact"]
    assert (artifact["file"], artifact["format"], artifact["precision"]) == ("model.engine", "tensorrt", precision)
    assert {"model.engine", "model.onnx"} <= manifest["files"].keys()
    assert manifest["engine"]["builder"] == "tensorrt_rtx"
    assert manifest["engine"]["built_from_sha256"] == manifest["files"]["model.onnx"]
    assert manifest["latency"] is None
    assert manifest["quality"]["metric"] == "accuracy"
    checks = {one["name"]: one for one in call(tmp_path, "verify", bundle, "--json").data["checks"]}
    assert checks.keys() == {"integrity", "parity of model.onnx", "speed"}
    assert checks["speed"]["passed"]
    assert "not judged: there is no GPU here" in checks["speed"]["detail"]
    assert alone(bundle, "the old gull").startswith("the old gull\n")
    refused(call(encoders, "evaluate", "--source", "bundle", "--bundle", bundle), 2, "no subnet of a run", "measured")
    for name in ("model.engine", "model.onnx"):
        sound = (bundle / name).read_bytes()
        edited(bundle / name)
        refused(call(tmp_path, "verify", bundle, "--no-speed"), 5, name)
        (bundle / name).write_bytes(sound)


@rtx
def test_a_bundle_that_nobody_measured_is_no_hindrance(encoders: Path, tmp_path: Path) -> None:
    """In its usual place too: what looks for measured ones goes on without it."""
    project = copied(encoders, tmp_path / "project")
    bundle = call(project, *ENGINE, "--json").data["bundle"]
    told = call(project, "evaluate", "--arch", "largest", "--source", "bundle", "--json").envelope
    assert "no bundle of" in told["warnings"][0]
    require(call(project, "report"))
    require(call(project, *EXPORT))
    assert "model.engine" not in {path.name for path in (project / bundle).iterdir()}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--device", "cpu"), 4, ("cpu builds no engines", "it runs models with onnxruntime", "gpu-rtx")),
        pytest.param(("--precision", "int8"), 2, ("no int8 file", "fp32, fp16, int8-static"), marks=rtx),
        pytest.param(("--precision", "auto"), 4, ("cannot run what it builds", "--precision fp16"), marks=rtx),
        pytest.param(("--format", "onnx"), 4, ("gpu-rtx cannot use tensorrt_rtx",), marks=rtx),
    ],
    ids=["cpu", "int8", "auto", "onnx"],
)
def test_what_builds_no_engine_says_who_does(
    encoders: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    refused(call(encoders, *ENGINE, *options, "--out", tmp_path / "b"), code, *said)
    assert not list(tmp_path.iterdir())


@rtx
def test_a_translation_has_no_engine(translator: Translator, tmp_path: Path) -> None:
    told = call(translator.root, *ENGINE, "--out", tmp_path / "b")
    refused(told, 2, "takes no translation model", "grows in a loop", "--device with onnxruntime")
    refused(call(translator.root, *ENGINE, "--device", "cpu", "--out", tmp_path / "b"), 4, "builds no engines")
    assert not list(tmp_path.iterdir())
