"""Somebody's file made ready to be fused and quantised: opsets, constants, and names that tell products apart."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, version_converter

from toolchain.errors import UsageError
from toolchain.export import Checks, check_parity, matrix_modules, open_session, to_precision
from toolchain.export.foreign_tuning import fuse_given
from toolchain.export.fuse import fuse, fused_count
from toolchain.export.onnx import OPSET, trace
from toolchain.export.preparing import opset_in, prepare, prepare_to_quantise, rewritten

from .made_bundle import make_checks, make_subnet

CPU: dict[str, Any] = {
    "machine": "x86_64",
    "isa": (),
    "engine": "onnxruntime",
    "provider": "CPUExecutionProvider",
}


def old(opset: int) -> tuple[bytes, Checks]:
    """An encoder as torch writes it for an older opset."""
    import io  # noqa: PLC0415

    subnet = make_subnet()
    checks = make_checks(subnet)
    free = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")} | {"logits": {0: "batch"}}
    given, made = checks.inputs[2], io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            subnet,
            tuple(torch.from_numpy(given[name]) for name in ("input_ids", "attention_mask")),
            made,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes=free,
        )
    return made.getvalue(), checks


def kinds(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def renamed(model: bytes, name: str) -> bytes:
    proto = onnx.load_from_string(model)
    for number, node in enumerate(proto.graph.node):
        node.name = name.format(node.op_type, number)
    return proto.SerializeToString()


@pytest.mark.parametrize("opset", [11, 12, 13, 14])
def test_an_older_opset_is_raised_and_fused(opset: int) -> None:
    plain, checks = old(opset)
    assert opset_in(plain) == opset
    assert fuse(plain) == plain
    found = fuse_given(plain, checks, {})
    assert (found.attends, found.why, opset_in(found.model)) == (True, "", OPSET)
    check_parity(open_session(found.model, {}), checks)
    model = prepare_to_quantise(plain, checks)
    assert opset_in(model) == OPSET
    assert kinds(int8(model))["MatMulInteger"] == products(model)


@pytest.mark.parametrize("answers", ["nothing", "otherwise"])
def test_what_cannot_be_raised_stays_and_says_so(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, checks = old(12)

    def convert(proto: onnx.ModelProto, _: int) -> onnx.ModelProto:
        if answers == "nothing":
            raise RuntimeError("No Adapter From Version 12 for Identity")
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        bias = next(one for one in other.graph.initializer if len(one.dims) == 1)
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
        return other

    monkeypatch.setattr(version_converter, "convert_version", convert)
    found = fuse_given(plain, checks, {})
    assert (found.model, found.attends) == (plain, False)
    assert "it is of opset 12" in found.why
    with pytest.raises(UsageError, match="opset 12 cannot be quantised"):
        prepare_to_quantise(plain, checks)


def int8(model: bytes) -> bytes:
    return to_precision(model, "int8", modules=matrix_modules(model), **CPU)


def products(model: bytes) -> int:
    """How many multiply by a constant matrix."""
    graph = onnx.load_from_string(model).graph
    matrices = {one.name for one in graph.initializer if len(one.dims) == 2}
    matrices |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in matrices}
    return sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in matrices for node in graph.node)


@pytest.mark.parametrize("name", ["", "node_{}_{}", "/{}_{}", "one/{}_{}"])
def test_names_that_tell_nothing_do_not_keep_it_from_being_quantised(name: str) -> None:
    subnet = make_subnet()
    checks = make_checks(subnet)
    own = trace(subnet, checks)
    model = prepare_to_quantise(renamed(own, name), checks)
    assert len(matrix_modules(model)) == products(model) == products(own) > 10
    names = [node.name for node in onnx.load_from_string(model).graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert kinds(int8(model))["MatMulInteger"] == products(own)
    assert fuse_given(renamed(own, name), checks, {}).attends


def test_names_that_tell_are_kept() -> None:
    subnet = make_subnet()
    checks = make_checks(subnet)
    own = trace(subnet, checks)
    assert [node.name for node in onnx.load_from_string(prepare(own, checks)).graph.node] == [
        node.name for node in onnx.load_from_string(own).graph.node
    ]


def made(nodes: list[Any], **weights: np.ndarray[Any, Any]) -> tuple[bytes, Checks]:
    """A graph from x [rows, 4] to out, and what it answers."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return model, Checks([{"x": x}], [open_session(model, {}).run(None, {"x": x})[0]])


def test_matrices_in_constants_and_behind_identities_are_found() -> None:
    matrix = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    model, checks = made(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(matrix)),
            helper.make_node("Identity", ["w"], ["w2"]),
            helper.make_node("MatMul", ["x", "c"], ["one"]),
            helper.make_node("MatMul", ["one", "w2"], ["two"]),
            helper.make_node("MatMul", ["two", "w"], ["out"]),
        ],
        w=matrix,
    )
    prepared = prepare_to_quantise(model, checks)
    assert check_parity(open_session(prepared, {}), checks, 0.0) == 0
    assert kinds(prepared) == {"MatMul": 3}
    quantised = int8(prepared)
    assert kinds(quantised)["MatMulInteger"] == 3
    check_parity(open_session(quantised, {}), checks, 0.1 * float(np.abs(checks.expected[0]).max()))


def test_a_constant_that_is_an_input_too_is_a_constant() -> None:
    """So an IR version before 4 has it."""
    model, checks = made([helper.make_node("MatMul", ["x", "w"], ["out"])], w=np.eye(4))
    proto = onnx.load_from_string(model)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
    proto.ir_version = 3
    session = open_session(int8(prepare_to_quantise(proto.SerializeToString(), checks)), {})
    assert [one.name for one in session.get_inputs()] == ["x"]


def test_what_is_fused_or_quantised_already_is_refused_with_its_layer() -> None:
    subnet = make_subnet()
    checks = make_checks(subnet)
    own = trace(subnet, checks)
    assert not rewritten(own)
    fused = fuse_given(own, checks, {}).model
    with pytest.raises(UsageError, match=r"already fused or quantised: Attention, in /blocks\.0") as caught:
        prepare_to_quantise(fused, checks)
    assert "--precision fp32" in caught.value.hint
    with pytest.raises(UsageError, match="already fused or quantised: DynamicQuantizeLinear"):
        prepare_to_quantise(int8(prepare(own, checks)), checks)
    assert fuse_given(fused, checks, {}).model == fused
    assert fused_count(fused).attention > 0


def test_weights_whose_names_do_not_tell_layers_apart_are_fused_each_on_its_own() -> None:
    """As constant folding names them: onnx::MatMul_123."""
    subnet = make_subnet()
    checks = make_checks(subnet)
    proto = onnx.load_from_string(trace(subnet, checks))
    numbers = {one.name: f"onnx::MatMul_{number}" for number, one in enumerate(proto.graph.initializer)}
    for one in proto.graph.initializer:
        one.name = numbers[one.name]
    for node in proto.graph.node:
        node.input[:] = [numbers.get(name, name) for name in node.input]
    found = fuse_given(proto.SerializeToString(), checks, {})
    assert (found.attends, found.why) == (True, "")
    assert fused_count(found.model) == fused_count(fuse(trace(subnet, checks)))
