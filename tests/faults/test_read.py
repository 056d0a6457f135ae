"""Files that are not what a command takes them for: each is refused in words, nothing in it runs, nothing is lost."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from made_project import Made, call, copied, made, one_thread, project, refused, require, rewritten

from .parsing import sealed
from .spoiling import spoiled

__all__ = ["made", "one_thread", "project"]

INIT = ("train", "--task", "mlm", "--data", "text.txt", "--updates", "1", "--out", "runs/new", "--init")
MORE = float(os.environ.get("MOSTOOL_FUZZ", "1"))


def the(folder: Path, pattern: str) -> Path:
    """The file of a finished project, of the two runs the classifier's; of several searches (other tests may have
    searched there) one and the same."""
    found, *more = sorted(path for path in folder.glob(pattern) if "words" not in path.parts)
    assert not more or found.name == "course.json"
    return found


def told_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it would leave a file named `executed` in the current folder."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return eval, ("open('executed', 'w')",)


BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 70,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x3B1, 0x3B1 + 65))]


@pytest.fixture
def checkpoint(project: Path) -> Path:
    """A folder that says it holds a small BERT; its weights are still to come."""
    folder = project / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BERT))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.mark.fault("pickle")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("wrap", [pickle.dumps, None], ids=["a pickle", "of torch"])
def test_a_checkpoint_with_a_payload_is_not_executed(
    project: Path, checkpoint: Path, name: str, wrap: Callable[[object], bytes] | None
) -> None:
    if wrap is None:
        torch.save({"bert.embeddings.word_embeddings.weight": torch.zeros(70, 16), "a": Payload()}, checkpoint / name)
    else:
        (checkpoint / name).write_bytes(wrap(Payload()))
    before = told_files(project)
    for command in ((*INIT, "bert"), ("export", "--hf", "bert", "--device", "quick")):
        told = call(project, *command)
        refused(told, 2 if name == "pytorch_model.bin" else 5, "safetensors")
    if name == "pytorch_model.bin":
        refused(call(project, *INIT, "bert", "--init-weights-only-pt"), 5)
    assert told_files(project) == before


@pytest.mark.fault("pickle")
def test_a_pickle_in_the_place_of_a_folder_or_a_file_is_not_executed(project: Path) -> None:
    torch.save({"a": Payload()}, project / "payload.pt")
    (project / "payload.onnx").write_bytes((project / "payload.pt").read_bytes())
    before = told_files(project)
    refused(call(project, *INIT, "payload.pt"), 2, "payload.pt", "safetensors")
    refused(call(project, "export", "--hf", "payload.pt", "--device", "quick"), 2, "payload.pt", "safetensors")
    refused(call(project, "export", "--onnx", "payload.pt", "--device", "quick"), 5, "payload.pt")
    refused(call(project, "export", "--onnx", "payload.onnx", "--device", "quick"), 5, "payload.onnx")
    refused(call(project, "evaluate", "--run", "payload.pt"), 2, "payload.pt")
    refused(call(project, "evaluate", "--arch", "payload.pt"), 2)
    refused(call(project, "verify", "payload.pt"), 2, "is not a bundle")
    assert told_files(project) == before


def _whole(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(3)}, path)


def _cut(path: Path) -> None:
    _whole(path)
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_cut, "not a safetensors file", marks=pytest.mark.fault("checkpoint-cut")),
        pytest.param(
            lambda path: path.write_bytes(b""), "not a safetensors file", marks=pytest.mark.fault("checkpoint-empty")
        ),
        pytest.param(_whole, "lacks", marks=pytest.mark.fault("checkpoint-foreign")),
        pytest.param(lambda _: None, "model.safetensors", marks=pytest.mark.fault("checkpoint-empty")),
    ],
    ids=["cut", "empty", "foreign", "no weights"],
)
def test_a_checkpoint_that_is_none_starts_no_run(
    project: Path, checkpoint: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(checkpoint / "model.safetensors")
    before = told_files(project)
    told = call(project, *INIT, "bert")
    refused(told, told.code, said)
    assert told.code in (2, 5)
    told = call(project, "export", "--hf", "bert", "--device", "quick")
    refused(told, told.code)
    assert told.code in (2, 5)
    assert told_files(project) == before


@pytest.mark.fault("checkpoint-foreign")
def test_a_checkpoint_of_another_kind_of_model_starts_no_run(project: Path, checkpoint: Path) -> None:
    _whole(checkpoint / "model.safetensors")
    (checkpoint / "config.json").write_text(json.dumps(BERT | {"model_type": "llama"}))
    before = told_files(project)
    refused(call(project, *INIT, "bert"), 2, "'llama'")
    refused(call(project, "export", "--hf", "bert", "--device", "quick"), 2)
    (checkpoint / "config.json").write_text("[]")
    told = call(project, *INIT, "bert")
    refused(told, told.code, "config.json")
    (checkpoint / "config.json").write_text(json.dumps(BERT))
    assert told_files(project).keys() == before.keys()


# -- schemas -----------------------------------------------------------------------------------------------------------


def _schema(text: str, schema: int) -> str:
    found = json.loads(text)
    return json.dumps({**found, "schema": schema} | ({"field_of_tomorrow": 1} if schema > 1 else {}))


def _in_file(path: Path, schema: int) -> None:
    path.write_text(_schema(path.read_text(), schema))


def _in_rows(path: Path, schema: int) -> None:
    """The last row alone, under a checksum that fits."""
    *rows, last = (json.dumps(json.loads(line)["record"]) for line in path.read_text().splitlines())
    path.write_bytes(sealed("\n".join([*rows, _schema(last, schema)]).encode()))


def _in_toml(path: Path, schema: int) -> None:
    path.write_text(f"schema = {schema}\n{path.read_text()}")


def _in_data(path: Path, schema: int) -> None:
    """A record that the run's checkpoint vouches for."""
    from toolchain.files import sha256_file  # noqa: PLC0415

    _in_file(path, schema)
    rewritten(path.parents[1] / "checkpoint.json", lambda found: found | {"prepared_sha256": sha256_file(path)})


STORED: dict[str, tuple[str, Callable[[Path, int], None], tuple[str, ...], int]] = {
    "checkpoint": ("runs/*/checkpoint.json", _in_file, ("evaluate",), 5),
    "training": ("runs/*/training.json", _in_file, ("report",), 5),
    "data": ("runs/*/data/data.json", _in_data, ("evaluate",), 5),
    "result": ("runs/*/search/result.json", _in_file, ("export",), 5),
    "table": ("profiles/*/*/table.json", _in_file, ("search", "--latency", "1s"), 5),
    "rows": ("profiles/*/*/journal.jsonl", _in_rows, ("search", "--latency", "1s"), 5),
    "rows, to add to": ("profiles/*/*/journal.jsonl", _in_rows, ("profile", "--device", "quick", "--n", "10"), 5),
    "manifest": ("bundles/*/manifest.json", _in_file, ("verify", "BUNDLE"), 5),
    "target": ("targets/quick.toml", _in_toml, ("profile", "--device", "quick", "--n", "11"), 2),
}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(7, marks=pytest.mark.fault("schema-newer")),
        pytest.param(0, marks=pytest.mark.fault("schema-older")),
    ],
    ids=["newer", "older"],
)
@pytest.mark.parametrize("kind", STORED)
def test_a_record_of_another_schema_says_which_and_what_to_do(
    project: Path, made: Made, kind: str, schema: int
) -> None:
    pattern, change, command, code = STORED[kind]
    change(the(project, pattern), schema)
    before = told_files(project)
    asked = [str(made.bundle.relative_to(made.root)) if word == "BUNDLE" else word for word in command]
    told = refused(call(project, *asked), code, f"schema {schema}", *["upgrade mostool"] * (schema > 1))
    assert the(project, pattern).name in told.err
    assert told_files(project) == before


@pytest.mark.fault("schema-newer", "schema-older")
@pytest.mark.parametrize("schema", [0, 7])
def test_an_imported_table_of_another_schema_is_refused(project: Path, schema: int) -> None:
    require(call(project, "predict", "--export", "table.csv"))
    (project / "table.csv").write_text((project / "table.csv").read_text().replace(",quick,", ",other,"))
    require(call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16"))
    header, rows = the(project, "profiles/other/*/imported.json"), the(project, "profiles/other/*/rows.jsonl")
    sound = header.read_bytes()
    for path, change in ((header, _in_file), (rows, _in_rows)):
        change(path, schema)
        refused(call(project, "predict", "--device", "other", "--n", "1"), 5, f"schema {schema}", path.name)
        header.write_bytes(sound)


@pytest.mark.fault("schema-newer", "schema-older")
@pytest.mark.parametrize("schema", [0, 7])
def test_a_predictor_of_another_schema_is_fitted_anew(project: Path, schema: int) -> None:
    """It is made of the table, which is what counts."""
    path = the(project, "profiles/*/*/predictor.json")
    sound = path.read_bytes()
    _in_file(path, schema)
    require(call(project, "predict", "--n", "1"))
    assert json.loads(path.read_text()) == json.loads(sound)


# -- whatever else a file may hold -------------------------------------------------------------------------------------

READ = {
    "runs/*/checkpoint.json": ("evaluate", "--arch", "smallest", "--source", "subnet"),
    "runs/*/training.json": ("report", "-o", "page.html"),
    "runs/*/search/result.json": ("report", "-o", "page.html"),
    "runs/*/search/*/course.json": ("search", "--evaluations", "20", "--remeasure", "0"),
    "profiles/*/*/table.json": ("predict", "--n", "2"),
    "profiles/*/*/predictor.json": ("predict", "--n", "2"),
    "bundles/*/manifest.json": ("verify", "BUNDLE", "--no-speed"),
}


@pytest.mark.parametrize("pattern", READ)
def test_a_changed_record_is_never_an_internal_error(made: Made, tmp_path: Path, pattern: str) -> None:
    """Values changed in one place, as no checksum tells: read as what they say now, or refused."""
    here = copied(made.root, tmp_path / "project")
    path = the(here, pattern)
    sound, command = path.read_bytes(), READ[pattern]
    bundle = str(made.bundle.relative_to(made.root))
    rng = random.Random(f"{pattern} {MORE}")  # noqa: S311 - inputs, not secrets
    for _ in range(max(1, round(6 * MORE))):
        changed = spoiled(rng, [sound], "json")
        path.write_bytes(changed)
        told = call(here, *[bundle if word == "BUNDLE" else word for word in command])
        assert told.code in (0, 2, 3, 4, 5), (told, changed)
        assert re.search("internal error|Traceback", told.err) is None, (told, changed)
        if told.code:
            refused(told, told.code)
        path.write_bytes(sound)
