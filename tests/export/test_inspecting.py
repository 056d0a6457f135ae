"""What somebody brings as an ONNX file: what it reads is found out, and what cannot be compiled is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from toolchain.errors import IntegrityError, UsageError
from toolchain.export import inspecting
from toolchain.export.inspecting import read_brought
from toolchain.files import sha256_file

WORDS, WIDTH = 50, 4


def encoder(
    *,
    table: np.ndarray[Any, Any] | None = None,
    further: Sequence[NodeProto] = (),
    opset: int = 17,
    shape: Sequence[str | int] = ("batch", "sequence"),
    dtype: int = TensorProto.INT64,
    names: Sequence[str] = ("input_ids", "attention_mask"),
    domains: Sequence[str] = (),
) -> ModelProto:
    """A model that looks words up and adds its mask to them."""
    rows = np.arange(WORDS * WIDTH, dtype=np.float32).reshape(WORDS, WIDTH) if table is None else table
    nodes = [
        helper.make_node("Gather", ["word", names[0]], ["found"], "/word/Gather"),
        helper.make_node("Cast", [names[1]], ["floats"], "/mask/Cast", to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Unsqueeze", ["floats", "axis"], ["column"], "/mask/Unsqueeze"),
        helper.make_node("Add", ["found", "column"], ["last_hidden_state"], "/add/Add"),
        *further,
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, dtype, list(shape)) for name in names],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rows, "word")],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_what_it_reads_and_knows_is_found(tmp_path: Path) -> None:
    found = read_brought(saved(encoder(), tmp_path))
    assert [(one.name, one.role, one.dtype) for one in found.inputs] == [
        ("input_ids", "ids", "int64"),
        ("attention_mask", "mask", "int64"),
    ]
    assert (found.opset, found.batch, found.length, found.vocabulary_size) == (17, None, None, WORDS)
    assert found.sha256 == sha256_file(tmp_path / "model.onnx")
    assert found.parameters >= WORDS * WIDTH
    assert read_brought(saved(encoder(), tmp_path)).model == found.model


def test_of_one_shape_it_says_which(tmp_path: Path) -> None:
    found = read_brought(saved(encoder(shape=(1, 16), dtype=TensorProto.INT32), tmp_path))
    assert (found.batch, found.length, found.inputs[0].dtype) == (1, 16, "int32")


def test_data_beside_it_is_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(encoder(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").is_file()
    model = onnx.load_from_string(read_brought(path).model)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]).ravel(), np.arange(WORDS * WIDTH))


def _external(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(model, path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "weights.bin"])
def test_data_outside_its_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(encoder(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").replace(tmp_path / "weights.bin")
    if location == "weights.bin":
        (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    _external(path, location)
    with pytest.raises(IntegrityError, match=r"weights\.bin|hostname") as caught:
        read_brought(path)
    assert ("copy the files" in caught.value.hint) == (location == "weights.bin")


def test_data_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(encoder(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:100])
    with pytest.raises(IntegrityError, match="not whole"):
        read_brought(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    table = np.zeros((WORDS, WIDTH), np.float32)
    table[3, 1] = value
    with pytest.raises(IntegrityError, match="the weight word"):
        read_brought(saved(encoder(table=table), tmp_path))


@pytest.mark.parametrize("domain", ["", "com.acme"])
def test_an_operator_nobody_knows_is_named_with_its_layer(tmp_path: Path, domain: str) -> None:
    strange = helper.make_node("Frobnicate", ["found"], ["lost"], "/blocks.0/strange", domain=domain)
    model = encoder(further=[strange], domains=[domain] if domain else [])
    with pytest.raises(UsageError, match=r"Frobnicate, in /blocks\.0/strange"):
        read_brought(saved(model, tmp_path))


def test_a_newer_opset_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="newer opset") as caught:
        read_brought(saved(encoder(opset=99), tmp_path))
    assert "older opset" in caught.value.hint


def test_an_input_it_cannot_make_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pixel_values"):
        read_brought(saved(encoder(names=("input_ids", "pixel_values")), tmp_path))
    with pytest.raises(UsageError, match="input_ids"):
        read_brought(saved(encoder(dtype=TensorProto.FLOAT16), tmp_path))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="no ONNX model"):
        read_brought(path)
    with pytest.raises(UsageError, match="there is no file"):
        read_brought(tmp_path / "other.onnx")


def test_half_precision_is_refused(tmp_path: Path) -> None:
    model = encoder(table=np.zeros((WORDS, WIDTH), np.float16))
    with pytest.raises(UsageError, match=r"the weight word of .* is float16") as caught:
        read_brought(saved(model, tmp_path))
    assert "bring it in fp32" in caught.value.hint


def _answering(node: NodeProto, kind: int) -> ModelProto:
    model = encoder(further=[node])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], kind, None))
    return model


@pytest.mark.parametrize(
    ("node", "kind", "said", "hint"),
    [
        (
            helper.make_node("ArgMax", ["found"], ["labels"], axis=-1),
            TensorProto.INT64,
            r"'labels', tensor\(int64\) of shape \['batch', 'sequence', 1\]",
            "export the logits",
        ),
        (
            helper.make_node("ReduceMax", ["found"], ["most"], keepdims=0),
            TensorProto.FLOAT,
            r"'most', tensor\(float\), of which nobody knows how many axes",
            "name its axes",
        ),
        (
            helper.make_node("Cast", ["found"], ["wide"], to=TensorProto.DOUBLE),
            TensorProto.DOUBLE,
            r"'wide', tensor\(double\)",
            "export the logits",
        ),
    ],
)
def test_an_answer_that_is_no_numbers_is_refused(
    tmp_path: Path, node: NodeProto, kind: int, said: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_brought(saved(_answering(node, kind), tmp_path))
    assert hint in caught.value.hint


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(encoder(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    most = path.stat().st_size + 100
    (tmp_path / "weights.bin").unlink()
    monkeypatch.setattr(inspecting, "MOST_BYTES", most)
    with pytest.raises(UsageError, match="is too large"):
        read_brought(path)
