"""A bundle's folder in the Hugging Face world: opened as a stranger would, by transformers and optimum alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
import torch

from toolchain.export import build_checks
from toolchain.export.hub import WEIGHTS_FILE, hub_files
from toolchain.records import Mixture
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.supernet.decoding import Marks, greedy, lengths_allowed, translating
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.families.translation.graphs import GraphModule, translator_graphs
from toolchain.supernet.families.translation.model import Translator
from toolchain.supernet.module import Subnet
from toolchain.text import encode_texts, parse_tokenizer, train_tokenizer
from toolchain.text.subwords import encode_sentences, train_subwords

from .made_bundle import TEXTS, export

LONGEST = 16
LABELS = ("dogs", "cats", "neither")
TEXT = "the dog [SEP] sees the cat . " * 3
MARKS = Marks(begin=2, end=3, never=(0, 1, 2, 4))
TRANSLATION = SearchSpace(
    "made",
    "translation",
    (
        Axis("encoder_embedding", (12, 16)),
        Axis("decoder_embedding", (12, 16)),
        Axis("encoder_depth", (2,)),
        Axis("decoder_depth", (3,)),
        Axis("encoder_ffn", (8, 24), per="encoder_depth"),
        Axis("encoder_heads", (1, 2, 4), per="encoder_depth"),
        Axis("decoder_ffn", (8, 24), per="decoder_depth"),
        Axis("decoder_heads", (1, 2, 4), per="decoder_depth"),
        Axis("cross_heads", (1, 2, 4), per="decoder_depth"),
        Axis("cross_layers", (1, 2), per="decoder_depth"),
    ),
    {"width": 16, "attention": 16},
)
UNEVEN = Architecture(
    "translation",
    {
        "encoder_embedding": 12,
        "decoder_embedding": 16,
        "encoder_depth": 2,
        "decoder_depth": 3,
        "encoder_ffn": (8, 24),
        "encoder_heads": (4, 1),
        "decoder_ffn": (24, 8, 24),
        "decoder_heads": (1, 4, 2),
        "cross_heads": (4, 2, 1),
        "cross_layers": (1, 2, 1),
    },
)
ENCODER = {"depth": 3, "hidden": (20, 8, 12), "heads": (4, 1, 2), "ffn": (6, 24, 16)}

needs_optimum = pytest.mark.skipif(
    importlib.util.find_spec("optimum") is None, reason="optimum is not installed: pip install 'mostool[optimum]'"
)

_STRANGER = """
import json, sys
from pathlib import Path

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "toolchain":
            raise ImportError(f"{name} is not on a stranger's machine")

sys.meta_path.insert(0, Guard())
import importlib.util, torch, transformers
from transformers import AutoModel, AutoTokenizer

root, optimum = Path(sys.argv[1]), importlib.util.find_spec("optimum")
if optimum:
    from optimum import onnxruntime as ort
AUTO = {"mlm": "MaskedLM", "classify": "SequenceClassification", "regress": "SequenceClassification",
        "translate": "Seq2SeqLM"}
PLAIN = {"mlm": "BertForMaskedLM", "classify": "BertForSequenceClassification",
         "regress": "BertForSequenceClassification", "translate": "MarianMTModel"}
found = {}
for task, kind in AUTO.items():
    folder, told = root / task, found.setdefault(task, {})
    asked = torch.load(folder / "asked.pt")
    auto = getattr(transformers, f"AutoModelFor{kind}")
    model = auto.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        answer = model(**asked["inputs"])
    told["apart"] = float((answer.logits - asked["logits"]).abs().max())
    told["loss"] = float(model(**asked["inputs"], labels=asked["labels"]).loss)
    told["labels"] = model.config.id2label
    told["refused"] = []
    for way in (auto, AutoModel, getattr(transformers, PLAIN[task])):
        try:
            way.from_pretrained(folder)
            told["refused"].append("not at all")
        except Exception as error:
            told["refused"].append(str(error))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told["ids"] = tokenizer(asked["texts"], truncation=True, padding=True).input_ids
    if task != "translate":
        told["pairs"] = tokenizer(asked["texts"], asked["texts"][::-1], truncation=True, padding=True).input_ids
    told["tokenizer"] = [tokenizer.model_max_length, tokenizer.pad_token_id, tokenizer.unk_token_id,
                         tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id]
    told["outputs"] = sorted(tokenizer("the dog"))
    if task == "translate":
        source = {name: asked["inputs"][name] for name in ("input_ids", "attention_mask")}
        told["words"] = [model.generate(**source, use_cache=cache).tolist() for cache in (True, False)]
        told["beam"] = model.generate(**source, num_beams=3, max_new_tokens=9).tolist()
        told["text"] = tokenizer.decode(tokenizer("the Dog").input_ids, skip_special_tokens=True)
    if optimum:
        session = getattr(ort, f"ORTModelFor{kind}").from_pretrained(folder)
        if task == "translate":
            told["ort_words"] = session.generate(**source).tolist()
            told["ort_beam"] = session.generate(**source, num_beams=3, max_new_tokens=9).tolist()
        else:
            told["ort_apart"] = float((session(**asked["inputs"]).logits - asked["logits"]).abs().max())
print(json.dumps(found))
"""


class World(NamedTuple):
    """What the stranger found, and what mostool says of the same folders."""

    found: dict[str, Any]
    ours: dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("hub")
    ours = {task: _make_encoder(root / task, task, labels) for task, labels in _ENCODERS.items()}
    ours["translate"] = _make_translator(root / "translate")
    before = _contents(root)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _STRANGER, str(root)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert before == _contents(root), "whoever loads a folder leaves nothing in it"
    return World(json.loads(done.stdout.splitlines()[-1]), ours)


def _contents(root: Path) -> list[str]:
    return sorted(path.as_posix() for task in _TASKS for path in (root / task).rglob("*"))


_ENCODERS = {"mlm": 0, "classify": 3, "regress": 1}
_TASKS = (*_ENCODERS, "translate")


def _make_encoder(folder: Path, task: Any, labels: int) -> dict[str, Any]:
    tokenizer = train_tokenizer(TEXTS, 80)
    vocabulary_size = tokenizer.get_vocab_size()
    space = declaration("bert").resolve(
        tiny.declared(), vocabulary_size=vocabulary_size, labels=labels, maximum_length=LONGEST
    )
    subnet = tiny.supernet(space).materialize(tiny.architecture(space, **ENCODER))
    batch = tiny.batch(rows=4, length=11)
    ids, mask = batch.ids % vocabulary_size, batch.attention_mask
    mask[1, :3], mask[2, 1::3] = 0, 0  # padding on the left, and holes
    with torch.no_grad():
        logits = subnet(ids, mask)
    wanted = {"mlm": ids, "classify": torch.tensor([0, 2, 1, 1]), "regress": torch.rand(4)}[task]
    text = tokenizer.to_str(pretty=True)
    _write(folder, subnet, space, task, LABELS[:labels] if task == "classify" else (), text.encode())
    asked = {"inputs": {"input_ids": ids, "attention_mask": mask}, "logits": logits, "labels": wanted}
    torch.save(asked | {"texts": [TEXT, *TEXTS[:2]]}, folder / "asked.pt")
    checks = build_checks(subnet, ids.numpy(), padding=0)
    export(subnet, folder / "model.onnx", checks)
    own = parse_tokenizer(text, "made")
    texts = [text.replace("[SEP]", "sea") if task == "mlm" else text for text in (TEXT, *TEXTS[:2])]
    return {
        "ids": encode_texts(own, texts, LONGEST).tolist(),
        "pairs": encode_texts(own, texts, LONGEST, texts[::-1]).tolist(),
    }


def _make_translator(folder: Path) -> dict[str, Any]:
    text = train_subwords(TEXTS, 300).to_str(pretty=True)
    tokenizer = parse_tokenizer(text, "made")
    space = declaration("translation").resolve(
        TRANSLATION, vocabulary_size=tokenizer.get_vocab_size(), labels=0, maximum_length=LONGEST
    )
    space.check(UNEVEN)
    torch.manual_seed(0)
    supernet = build_supernet(space, Mixture(kind="plain", experts=1), 0.0)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    subnet = supernet.eval().materialize(UNEVEN)
    batch = tiny.batch(rows=4, length=9)
    words = tiny.batch(rows=4, length=5, seed=1, padding="none").ids
    words[:, 0] = MARKS.begin
    with torch.no_grad():
        logits = subnet(batch.ids, batch.attention_mask, words)
    _write(folder, subnet, space, "translate", (), text.encode())
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention_mask, "decoder_input_ids": words}
    torch.save({"inputs": inputs, "logits": logits, "labels": words, "texts": TEXTS[:2]}, folder / "asked.pt")
    assert isinstance(subnet, Translator)
    graphs = translator_graphs(subnet, LONGEST)
    names = ("encoder_model", "decoder_model", "decoder_with_past_model")
    for name, graph in zip(names, graphs, strict=True):
        _trace(graph, folder / f"{name}.onnx")
    rows = encode_sentences(tokenizer, TEXTS[:2])
    longest = max(map(len, rows))
    return {
        "words": greedy(translating(subnet), batch.ids, batch.attention_mask, MARKS, LONGEST),
        "allowed": lengths_allowed(batch.attention_mask, LONGEST),
        "ids": [[*row, MARKS.end, *[0] * (longest - len(row))] for row in rows],
    }


def _write(folder: Path, subnet: Subnet, space: SearchSpace, task: Any, labels: Any, tokenizer: bytes) -> None:
    folder.mkdir(parents=True)
    given = {"task": task, "labels": labels, "tokenizer": tokenizer}
    files = hub_files(subnet.state_dict(), subnet.architecture, space.fixed, **given)
    again = {name: weight.numpy() for name, weight in reversed(subnet.state_dict().items())}
    assert files == hub_files(again, subnet.architecture, space.fixed, **given), "the same bytes, whoever asks"
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _trace(graph: GraphModule, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            graph,
            graph.example(),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            dynamic_axes=graph.axes,
        )


def _until_end(rows: list[list[int]], most: list[int]) -> list[list[int]]:
    """What was generated, without its frame, and no longer than mostool allows each."""
    cut = [row[1 : limit + 1] for row, limit in zip(rows, most, strict=True)]
    return [row[: row.index(MARKS.end)] if MARKS.end in row else row for row in cut]


@pytest.mark.parametrize("task", _TASKS)
def test_transformers_computes_what_the_subnet_does(world: World, task: str) -> None:
    assert world.found[task]["apart"] < 1e-5
    assert np.isfinite(world.found[task]["loss"])


@pytest.mark.parametrize("task", _TASKS)
def test_without_its_code_nothing_loads_and_the_error_says_what_to_do(world: World, task: str) -> None:
    assert len(world.found[task]["refused"]) == 3
    assert all("load this folder with trust_remote_code=True" in said for said in world.found[task]["refused"])


@pytest.mark.parametrize("task", _TASKS)
def test_its_tokenizer_gives_our_tokens(world: World, task: str) -> None:
    found, ours = world.found[task], world.ours[task]
    assert found["tokenizer"] == [LONGEST, 0, 1, 2, 3, 4]
    assert found["outputs"] == ["attention_mask", "input_ids"]
    if task == "mlm":  # who hides words says [MASK], and so [SEP]
        assert 3 in found["ids"][0][1:-1]
        assert found["ids"][1:] == [row[: len(found["ids"][0])] for row in ours["ids"][1:]]
        return
    assert found["ids"] == ours["ids"]
    if task != "translate":
        assert found["pairs"] == ours["pairs"]


def test_it_knows_its_labels(world: World) -> None:
    assert world.found["classify"]["labels"] == {str(number): name for number, name in enumerate(LABELS)}
    assert list(world.found["regress"]["labels"].values()) == ["number"]


def test_it_translates_as_we_do(world: World) -> None:
    found, ours = world.found["translate"], world.ours["translate"]
    assert any(ours["words"])
    for words in found["words"]:  # with and without a cache
        assert _until_end(words, ours["allowed"]) == ours["words"]
    assert found["text"] == "the Dog"


@needs_optimum
@pytest.mark.parametrize("task", _ENCODERS)
def test_optimum_runs_the_onnx_file_and_asks_for_no_code(world: World, task: str) -> None:
    assert world.found[task]["ort_apart"] < 1e-4


@needs_optimum
def test_optimum_translates_as_we_do(world: World) -> None:
    found, ours = world.found["translate"], world.ours["translate"]
    assert _until_end(found["ort_words"], ours["allowed"]) == ours["words"]
    assert found["ort_beam"] == found["beam"]


def test_each_number_is_stored_once() -> None:
    space = tiny.resolved(labels=0)
    subnet = tiny.supernet(space).materialize(space.middle())
    given: dict[str, Any] = {"task": "mlm", "labels": (), "tokenizer": b"{}"}
    files = hub_files(subnet.state_dict(), subnet.architecture, space.fixed, **given)
    stored = 4 * sum(parameter.numel() for parameter in subnet.parameters())
    assert stored < len(files[WEIGHTS_FILE]) < stored + 8192
