"""Bring your own: an ONNX file or a checkpoint's folder becomes a bundle like a subnet's; and what cannot is named."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export.test_foreign import make
from export.test_inspecting import encoder
from export.test_preparing import old
from made_compiled import EXPORT, GRAPHS, alone
from made_project import DEVICE, call, refused, require
from onnx import helper, numpy_helper

from toolchain.export import read_manifest
from toolchain.files import sha256_file

pytestmark = pytest.mark.usefixtures("hasty")
rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
of_optimum = pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="optimum is not installed")

QUICK = ("export", "--device", "quick")
WORDS, LONGEST = 40, 24


class Tagger(torch.nn.Module):
    """Somebody's encoder: words and places, one layer of torch's own, two numbers for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = torch.nn.Embedding(WORDS, 16), torch.nn.Embedding(LONGEST, 16)
        self.first, self.second, self.answer = (torch.nn.Linear(16, width) for width in (32, 16, 2))
        self.first, self.second = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        found = self.words(input_ids) + self.places(places)
        further = self.second(torch.nn.functional.gelu(self.first(found)))
        answer: torch.Tensor = self.answer(self.norm(found + further)) * attention_mask[..., None]
        return answer


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file, as torch.onnx writes it."""
    path = tmp_path_factory.mktemp("brought") / "tagger.onnx"
    torch.manual_seed(0)
    ids = torch.ones((2, 7), dtype=torch.int64)
    free = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", "tags")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            Tagger().eval(),
            (ids, ids),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input_ids", "attention_mask"],
            output_names=["tags"],
            dynamic_axes=free,
        )
    return path


FEW = ["the", "old", "dog", "fox", "runs", "to", "and", "a", "of", "in", "it", "was", "she", "he", "not", "from"]


def wordlevel(words: list[str], mask: str = "[MASK]") -> str:
    """A tokenizer.json of whole words, its marks where RoBERTa has them: padding is 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415

    padding, unknown = ("<pad>", "<unk>") if mask == "<mask>" else ("[PAD]", "[UNK]")
    names = ["[CLS]", padding, "[SEP]", unknown, mask, *words]
    numbers = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=unknown))
    tokenizer.add_special_tokens(names[:5])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
    made: str = tokenizer.to_str()
    return made


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer of few words, that of no model's folder."""
    path = tmp_path / "words" / "tokenizer.json"
    path.parent.mkdir()
    path.write_text(wordlevel(FEW))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a device, and no run at all."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "quick.toml").write_text(DEVICE)
    return tmp_path


def asked(path: Path, **changes: Any) -> Any:
    """What a file answers."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(1).integers(5, WORDS, (3, 6))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)} | changes
    return session.run(None, {one.name: given[one.name] for one in session.get_inputs()})[0]


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "most"),
    [("fp32", 1e-5), ("int8", 0.1), ("int8-static", 0.1), ("int4", 0.5)],
    ids=str,
)
def test_a_file_is_compiled_and_answers_as_before(
    root: Path, tagger: Path, words: Path, precision: str, most: float
) -> None:
    own = ("--onnx", tagger, "--length", "12", "--precision", precision)
    own += ("--tokenizer", words) if precision == "int8-static" else ()
    told = call(root, *QUICK, *own, "--json").data
    manifest = told["manifest"]
    assert told["bundle"] == "bundles/tagger"
    assert (manifest["task"], manifest["artifact"]["precision"]) == ("encode", precision)
    assert manifest["workload"] == {"batch": 1, "sequence_length": 12}
    assert (manifest["maximum_length"], manifest["vocabulary_size"]) == (12, WORDS)
    assert (manifest["quality"], manifest["training"], manifest["data"]) == (None, None, None)
    assert (manifest["origin"]["title"], manifest["origin"]["sha256"]) == ("tagger", sha256_file(tagger))
    assert 0 < manifest["latency"]["median_s"] < 1
    assert np.abs(asked(root / told["bundle"] / "model.onnx") - asked(tagger)).max() < most
    checks = call(root, "verify", told["bundle"], "--no-speed", "--json").data["checks"]
    assert [one["name"] for one in checks] == ["integrity", "parity"]
    again = call(root, *QUICK, *own, "--out", "again", "--json")
    assert again.data["manifest"]["artifact"] == manifest["artifact"], "the same bytes"


def test_a_bundle_is_brought_again(root: Path, encoders: Path) -> None:
    """Its own file, fused already: it stays what it is."""
    require(call(encoders, *EXPORT, "--out", root / "one"))
    told = call(root, *QUICK, "--onnx", root / "one" / "model.onnx", "--json").data
    assert told["bundle"] == "bundles/one"
    manifest = told["manifest"]
    assert manifest["artifact"]["recipe"] == "brought+fused"
    assert "fused or quantised before it was brought: Attention" in manifest["origin"]["notes"][0]
    one = read_manifest(root / "one")
    assert manifest["vocabulary_size"] == one.vocabulary_size
    assert manifest["maximum_length"] == one.maximum_length
    bundle = root / told["bundle"]
    np.testing.assert_allclose(asked(bundle / "model.onnx"), asked(root / "one" / "model.onnx"), atol=1e-5, rtol=0)
    assert "tokenizer.json" in manifest["files"], "it lay beside the file"
    require(call(root, "verify", bundle, "--no-speed"))
    done = subprocess.run([sys.executable, bundle / "run_example.py", "a gull"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"a gull\n  1 x 3 numbers: " in done.stdout


def test_a_fused_file_is_not_quantised(root: Path, encoders: Path) -> None:
    """Half of it would stay as it is."""
    require(call(encoders, *EXPORT, "--out", root / "one"))
    told = call(root, *QUICK, "--onnx", root / "one" / "model.onnx", "--precision", "int8")
    refused(told, 2, "already fused or quantised: Attention, in /blocks.0", "--precision fp32")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_without_names_of_an_older_opset_is_compiled(root: Path, precision: str) -> None:
    portable, checks = old(12)
    proto = onnx.load_from_string(portable)
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, root / "old.onnx")
    told = call(root, *QUICK, "--onnx", "old.onnx", "--precision", precision, "--json").data
    made = onnx.load(root / told["bundle"] / "model.onnx")
    kinds = Counter(node.op_type for node in made.graph.node)
    manifest = told["manifest"]
    assert manifest["artifact"]["opset"] == 17
    if precision == "fp32":
        assert manifest["artifact"]["recipe"] == "brought+fused"
        assert kinds["Attention"] + kinds["MultiHeadAttention"] > 0
        assert manifest["origin"]["notes"] == []
    else:
        assert kinds["MatMulInteger"] > 10
        assert kinds["Gemm"] == 0
    found = onnxruntime.InferenceSession(str(root / told["bundle"] / "model.onnx")).run(None, checks.inputs[2])[0]
    assert np.abs(found - checks.expected[2]).max() < (1e-4 if precision == "fp32" else 0.1)
    require(call(root, "verify", told["bundle"], "--no-speed"))


def test_what_could_not_be_fused_is_told(root: Path, tagger: Path) -> None:
    told = call(root, *QUICK, "--onnx", tagger, "--json").data
    assert told["manifest"]["artifact"]["recipe"] == "brought"
    assert told["manifest"]["origin"]["notes"] == ["not fused: no attention in it looks like one that is known here"]
    assert "no attention in it" in (root / told["bundle"] / "README.md").read_text()


def test_fixed_ranges_want_text(root: Path, tagger: Path, words: Path) -> None:
    static = (*QUICK, "--onnx", tagger, "--precision", "int8-static")
    refused(call(root, *static), 2, "int8-static needs real text", "--tokenizer")
    (root / "other.json").write_text(wordlevel([*(f"w{number}" for number in range(WORDS)), *FEW]))
    refused(call(root, *static, "--tokenizer", "other.json"), 2, "does not run on the tokens of other.json")
    (root / "none.json").write_text("{}")
    refused(call(root, *static, "--tokenizer", "none.json"), 5, "none.json is not a tokenizer")


def test_another_model_of_the_same_name_needs_a_place_of_its_own(root: Path, tagger: Path) -> None:
    onnx.save(encoder(), root / "tagger.onnx")
    require(call(root, *QUICK, "--onnx", tagger))
    before = (root / "bundles" / "tagger" / "manifest.json").read_bytes()
    refused(call(root, *QUICK, "--onnx", "tagger.onnx"), 2, "is the bundle of another model", "choose --out")
    assert (root / "bundles" / "tagger" / "manifest.json").read_bytes() == before
    require(call(root, *QUICK, "--onnx", "tagger.onnx", "--out", "bundles/other"))
    require(call(root, *QUICK, "--onnx", tagger))


def test_a_file_that_takes_one_row_is_asked_with_one(root: Path, words: Path) -> None:
    shape = helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([1, -1, 4])))
    alone_row = helper.make_node("Reshape", ["last_hidden_state", "one"], ["answer"])
    model = encoder(further=[shape, alone_row], shape=("batch", "sequence"))
    check = helper.make_node("Add", ["answer", "last_hidden_state"], ["sum"])
    model.graph.node.append(check)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [1, None, 4]))
    onnx.save(model, root / "single.onnx")
    manifest = call(root, *QUICK, "--onnx", "single.onnx", "--tokenizer", words, "--json").data["manifest"]
    assert manifest["workload"]["batch"] == 1
    refused(call(root, *QUICK, "--onnx", "single.onnx", "--batch", "2", "--out", "two"), 2, "the batch is 1")
    assert "1 x 6 x 4 numbers" in alone(root / "bundles" / "single", "the old dog runs")


def test_the_example_of_a_file_of_one_shape_fills_up(root: Path, words: Path) -> None:
    onnx.save(encoder(shape=(2, 9), dtype=onnx.TensorProto.INT32), root / "fixed.onnx")
    require(call(root, *QUICK, "--onnx", "fixed.onnx", "--tokenizer", words))
    said = alone(root / "bundles" / "fixed", "the old dog runs", "fox " * 20)
    assert said.count("2 x 9 x 4 numbers") == 2
    assert "Bees" not in said
    assert alone(root / "bundles" / "fixed").count("numbers") == 4


def test_it_is_of_no_run(encoders: Path, tmp_path: Path, tagger: Path) -> None:
    """What looks for bundles of a run goes by it; what is told to take it says why not."""
    project = shutil.copytree(encoders, tmp_path / "project")
    bundle = call(project, *QUICK, "--onnx", tagger, "--json").data["bundle"]
    told = call(project, "evaluate", "--source", "bundle", "--bundle", bundle)
    refused(told, 2, "tagger holds no subnet of a run", "give the bundle of a subnet")
    page = call(project, "report", "--json").data["report"]
    assert "tagger" not in (project / page).read_text()
    for options in (("--run", "made"), ("--arch", "largest"), ("--hf", ".")):
        refused(call(project, *QUICK, "--onnx", tagger, *options), 2, "is of no run")
    refused(call(project, *QUICK, "--onnx", tagger, "--precision", "auto"), 2, "nothing to judge the precisions by")
    refused(call(project, *QUICK, "--onnx", tagger, "--precision", "fp16"), 2, "no fp16 file", "fp32, int8")


def test_a_file_of_one_shape_keeps_it(root: Path) -> None:
    onnx.save(encoder(shape=(2, 9)), root / "fixed.onnx")
    manifest = call(root, *QUICK, "--onnx", "fixed.onnx", "--json").data["manifest"]
    assert manifest["workload"] == {"batch": 2, "sequence_length": 9}
    require(call(root, "verify", "bundles/fixed", "--no-speed"))
    for options in (("--batch", "1"), ("--length", "10"), ("--length", "8")):
        refused(call(root, *QUICK, "--onnx", "fixed.onnx", *options), 2, "no workload", "9 alone, the batch is 2")


@rtx
def test_a_file_becomes_an_engine(root: Path, tagger: Path) -> None:
    told = call(root, "export", "--device", "gpu-rtx", "--format", "tensorrt", "--onnx", tagger, "--length", "12")
    require(told)
    manifest = read_manifest(root / "bundles" / "tagger")
    assert (manifest.artifact.file, manifest.latency) == ("model.engine", None)
    assert "not judged" in require(call(root, "verify", "bundles/tagger")).out


# -- what is no model for it -------------------------------------------------------------------------------------------


def strange(root: Path, name: str) -> None:
    node = helper.make_node("Frobnicate", ["found"], ["lost"], "/blocks.0/strange", domain="com.acme")
    made = {
        "operator": lambda: encoder(further=[node], domains=["com.acme"]),
        "opset": lambda: encoder(opset=99),
        "input": lambda: encoder(names=("input_ids", "pixel_values")),
        "elsewhere": encoder,
        "weights": lambda: encoder(table=np.full((50, 4), np.nan, np.float32)),
    }[name]()
    path = root / "own" / f"{name}.onnx"
    path.parent.mkdir()
    if name == "elsewhere":
        onnx.save(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        model = onnx.load(path, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
        (root / "own" / "weights.bin").replace(root / "weights.bin")
        onnx.save(model, path)
    else:
        onnx.save(made, path)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("operator", 2, ("cannot run: com.acme:Frobnicate, in /blocks.0/strange", "standard operators")),
        ("opset", 2, ("newer opset than this ONNX Runtime knows", "older opset, 17")),
        ("input", 2, ("pixel_values", "does not know how to make")),
        ("elsewhere", 5, ("weights.bin",)),
        ("weights", 5, ("the weight word", "not finite")),
    ],
)
def test_what_cannot_be_compiled_is_named(root: Path, name: str, code: int, said: tuple[str, ...]) -> None:
    strange(root, name)
    refused(call(root, *QUICK, "--onnx", f"own/{name}.onnx"), code, *said)
    assert not (root / "bundles").exists()


def test_what_is_no_file_or_folder_of_a_model(root: Path, tagger: Path) -> None:
    (root / "text.onnx").write_text("no model")
    (root / "empty").mkdir()
    refused(call(root, *QUICK, "--onnx", "text.onnx"), 5, "no ONNX model")
    refused(call(root, *QUICK, "--onnx", "absent.onnx"), 2, "there is no file absent.onnx")
    refused(call(root, *QUICK, "--onnx", tagger, "--tokenizer", "absent.json"), 2, "there is no file absent.json")
    refused(call(root, *QUICK, "--onnx", tagger, "--length", str(LONGEST + 1)), 2, "does not run on 25 tokens")
    refused(call(root, *QUICK, "--onnx", "empty"), 2, "empty is a folder", "goes with --hf")
    refused(call(root, *QUICK, "--hf", "empty"), 2, "empty is no model's folder")
    refused(call(root, *QUICK, "--hf", "absent"), 2, "there is no folder absent", "--hf")
    refused(call(root, *QUICK, "--hf", "text.onnx"), 2, "there is no folder text.onnx")
    refused(call(root, *QUICK, "--hf", "empty", "--tokenizer", "t.json"), 2, "has its own tokenizer")
    assert not (root / "bundles").exists()


# -- folders -----------------------------------------------------------------------------------------------------------


@of_optimum
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_classifier_of_transformers_is_compiled(root: Path, precision: str) -> None:
    model = make(root / "bert", "bert")
    told = call(root, *QUICK, "--hf", "bert", "--precision", precision, "--json").data
    manifest, bundle = told["manifest"], root / told["bundle"]
    assert (manifest["task"], manifest["labels"], manifest["maximum_length"]) == (
        "classify",
        ["bad", "fair", "good"],
        20,
    )
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()
    given = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 8), np.int64)}
    found = asked(bundle / "model.onnx", **given, token_type_ids=np.zeros((1, 8), np.int64))
    assert np.abs(found - wanted).max() < (1e-4 if precision == "fp32" else 0.3 * np.abs(wanted).max())
    require(call(root, "verify", bundle, "--no-speed"))
    from optimum.onnxruntime import ORTModelForSequenceClassification  # noqa: PLC0415 - slow to import

    loaded = ORTModelForSequenceClassification.from_pretrained(bundle)
    logits = loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    np.testing.assert_allclose(logits, found, atol=1e-5, rtol=0)
    refused(call(root, *QUICK, "--hf", "bert", "--length", "21"), 2, "the length may be 1 to 20")


@of_optimum
@pytest.mark.parametrize(("name", "mask"), [("electra", "[MASK]"), ("distilbert", "<mask>")])
def test_the_example_of_a_model_of_words_finds_them(root: Path, name: str, mask: str) -> None:
    """electra reads types; the other's marks are spelled and numbered as RoBERTa's are."""
    make(root / name, name)
    (root / name / "tokenizer.json").write_text(wordlevel(FEW, mask))
    told = call(root, *QUICK, "--hf", name, "--precision", "int8-static", "--json").data
    bundle = root / told["bundle"]
    assert all(mask in one for one in json.loads((bundle / "examples.json").read_text()))
    assert alone(bundle).count(f"  {mask} = ") == 4
    assert alone(bundle, f"the {mask} dog {mask}", "no word").count(f"  {mask} = ") == 2
    roles = [one["role"] for one in told["manifest"]["inputs"]]
    assert ("types" in roles) == (name == "electra")


@of_optimum
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_translator_of_transformers_is_compiled(root: Path, precision: str) -> None:
    model = make(root / "marian", "marian")
    told = call(root, *QUICK, "--hf", "marian", "--precision", precision, "--json").data
    manifest, bundle = told["manifest"], root / told["bundle"]
    assert (manifest["task"], manifest["quality"]) == ("translate", None)
    assert {*GRAPHS, "model.onnx", "config.json"} <= manifest["files"].keys()
    require(call(root, "verify", bundle, "--no-speed"))
    ids = np.random.default_rng(3).integers(4, 60, (3, 6))
    limits = {"shortest": np.array([0]), "longest": np.array([8])}
    words = asked(bundle / "model.onnx", input_ids=ids, attention_mask=np.ones_like(ids), **limits)
    assert words.shape[0] == 3
    if precision == "fp32":
        source = torch.from_numpy(ids)
        said = model.generate(
            input_ids=source, attention_mask=torch.ones_like(source), max_new_tokens=8, num_beams=1, bad_words_ids=[[0]]
        )
        assert [until_end(row) for row in words.tolist()] == [until_end(row) for row in said[:, 1:].tolist()]


def until_end(words: list[int]) -> list[int]:
    return words[: words.index(3)] if 3 in words else words


@of_optimum
def test_a_folder_of_a_translator_becomes_no_engine(root: Path) -> None:
    make(root / "marian", "marian")
    arguments = ("export", "--device", "gpu-rtx", "--format", "tensorrt", "--hf", "marian")
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        refused(call(root, *arguments), 2, "translation model")
    assert not (root / "bundles").exists()
    assert "auto_map" not in json.loads((root / "marian" / "config.json").read_text())
