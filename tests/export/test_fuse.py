"""Fused graphs compute what they are made of, and nothing that could be fused is left: the latter is counted."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import NodeProto

from toolchain.export import DeviceKind, check_parity, export_encoder, open_session, tolerance
from toolchain.export.editing import EditedGraph
from toolchain.export.fuse import FUSED_RECIPE, Fused, fuse, fused_count
from toolchain.export.onnx import RECIPE, trace
from toolchain.export.parity import own_answers
from toolchain.export.quantise import quantise
from toolchain.export.rewriting import module_of
from toolchain.export.translator import trace_translator
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.supernet.families.translation.graphs import GraphModule, translator_graphs
from toolchain.supernet.families.translation.model import build_subnet
from toolchain.supernet.module import Subnet

from .made_bundle import PORTABLE, export, make_checks, make_subnet

BERT = declaration("bert")
SHAPES = [(1, 1), (1, 12), (2, 2), (3, 7)]
PADDINGS = ("none", "right", "left", "holes")


@functools.cache
def subnets(labels: int, head_width: int) -> list[Subnet]:
    supernet = tiny.supernet(tiny.resolved(labels, head_width))
    return [supernet.materialize(one) for one in tiny.samples(supernet.space, 4)]


def traced(subnet: Subnet) -> bytes:
    return trace(subnet, make_checks(subnet))


def kinds(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def check_shapes(model: bytes, subnet: Subnet) -> None:
    session = open_session(model, {})
    for rows, length in SHAPES:
        for padding in PADDINGS:
            batch = tiny.batch(rows, length, seed=rows * length, padding=padding)
            with torch.no_grad():
                expected = subnet(batch.ids, batch.attention_mask).numpy()
            inputs = {"input_ids": batch.ids.numpy(), "attention_mask": batch.attention_mask.numpy()}
            np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-4, err_msg=padding)


# -- encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("head_width", [0, 4])
def test_a_fused_encoder_answers_as_the_module_wherever_padding_is(labels: int, head_width: int) -> None:
    for subnet in subnets(labels, head_width):
        check_shapes(fuse(traced(subnet)), subnet)


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("head_width", [0, 4])
def test_nothing_is_left_where_layers_differ_in_size(labels: int, head_width: int) -> None:
    for subnet in subnets(labels, head_width):
        model = traced(subnet)
        depth, head = subnet.architecture.number("depth"), int(labels == 0)
        assert fused_count(model) == Fused(0, 2 * depth + 1 + head, 0, 2 * depth + head)
        assert fused_count(fuse(model)) == Fused(depth, 2 * depth + 1 + head, depth + head, 0)
        assert not kinds(fuse(model)).keys() & {"MatMul", "Softmax", "Erf"}  # each product adds its own bias


def test_heads_and_widths_are_those_of_each_layer() -> None:
    space = tiny.resolved(0)
    architecture = tiny.architecture(space, depth=3, hidden=(20, 8, 12), heads=(1, 4, 2), ffn=(6, 24, 16))
    model = onnx.load_from_string(fuse(traced(tiny.supernet(space).materialize(architecture))))
    found = [_attributes(node) for node in model.graph.node if node.op_type == "Attention"]
    assert [one["num_heads"] for one in found] == [1, 4, 2]
    assert [one["qkv_hidden_sizes"] for one in found] == [[4] * 3, [16] * 3, [8] * 3]
    assert {round(one["scale"], 6) for one in found} == {0.5}


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


@pytest.mark.parametrize("bits", [32, 8])
def test_the_last_layer_is_computed_for_the_token_that_answers(bits: int) -> None:
    """Keys and values are of all tokens."""
    architecture = tiny.architecture(tiny.resolved(3), depth=3, hidden=(8, 20, 12), heads=(2, 1, 4), ffn=(6, 16, 24))
    model = traced(make_subnet(architecture=architecture))
    if bits == 8:
        model = quantise(model, BERT.int8_modules(BERT.at_bits(architecture, 8)))
    model = fuse(model)
    rows = {name: rows_of(model, f"blocks.{name}") for name in ("1.fc1", "1.fc2", "2.key", "2.value")}
    assert rows == dict.fromkeys(rows, 5)
    rows = {name: rows_of(model, f"blocks.{name}") for name in ("2.query", "2.output", "2.fc1", "2.fc2")}
    assert rows == dict.fromkeys(rows, 1)
    assert (kinds(model)["Attention"], kinds(model)["MultiHeadAttention"]) == ((2, 1) if bits == 32 else (0, 3))


def rows_of(model: bytes, module: str) -> int:
    """How many rows a module's product has for one text of five tokens."""
    probed, products = (
        onnx.load_from_string(model),
        {"Gemm": onnx.TensorProto.FLOAT, "MatMulInteger": onnx.TensorProto.INT32},
    )
    node = next(one for one in probed.graph.node if one.op_type in products and module_of(one) == module)
    del probed.graph.output[:]
    probed.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], products[node.op_type], None))
    ids = np.ones((1, 5), np.int64)
    (product,) = open_session(probed.SerializeToString(), {}).run(None, {"input_ids": ids, "attention_mask": ids})
    return int(np.prod(product.shape[:-1]))


def test_a_model_of_words_answers_for_every_token() -> None:
    model = fuse(traced(subnets(0, 4)[1]))
    assert kinds(model)["Slice"] == kinds(model)["MultiHeadAttention"] == 0


def test_a_link_that_changes_nothing_is_left_out() -> None:
    architecture = tiny.architecture(tiny.resolved(3), depth=2, hidden=(12, 12), heads=(2, 1), ffn=(6, 16))
    subnet = make_subnet(architecture=architecture)
    products = kinds(fuse(traced(subnet)))["Gemm"]
    with torch.no_grad():
        subnet.get_parameter("links.1.weight").copy_(torch.eye(12))
        subnet.get_parameter("links.1.bias").zero_()
    model = fuse(traced(subnet))
    assert kinds(model)["Gemm"] == products - 1
    check_shapes(model, subnet)
    with torch.no_grad():
        subnet.get_parameter("links.1.bias")[3] = 1e-3
    assert kinds(fuse(traced(subnet)))["Gemm"] == products


@pytest.mark.parametrize("labels", [0, 3])
def test_the_same_model_becomes_the_same_bytes_and_fusing_again_changes_nothing(labels: int) -> None:
    model = traced(subnets(labels, 4)[1])
    assert fuse(model) == fuse(model)
    assert kinds(fuse(fuse(model))) == kinds(fuse(model))


def test_what_is_no_attention_stays_and_is_counted() -> None:
    """Softmax over another axis is another function, and so is one that somebody else reads too."""
    subnet = subnets(3, 4)[1]
    for change in (_other_axis, _read_twice):
        model = onnx.load_from_string(traced(subnet))
        softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
        change(model, softmax)
        changed = model.SerializeToString()
        depth = subnet.architecture.number("depth")
        assert fused_count(fuse(changed)) == Fused(depth - 1, 2 * depth + 1, depth, 1)
        batch = tiny.batch()
        inputs = {"input_ids": batch.ids.numpy(), "attention_mask": batch.attention_mask.numpy()}
        before, after = (open_session(one, {}).run(None, inputs) for one in (changed, fuse(changed)))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def _other_axis(model: onnx.ModelProto, softmax: NodeProto) -> None:
    next(one for one in softmax.attribute if one.name == "axis").i = 1


def _read_twice(model: onnx.ModelProto, softmax: NodeProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info(softmax.output[0], onnx.TensorProto.FLOAT, [None] * 4))


def test_a_value_has_one_maker() -> None:
    graph = EditedGraph(traced(subnets(3, 4)[0]))
    with pytest.raises(ValueError, match="logits is made already"):
        graph.make("Identity", ["input_ids"], ["logits"], "again")


# -- files -------------------------------------------------------------------------------------------------------------


CPU = DeviceKind("onnxruntime", "CPUExecutionProvider", "x86_64", ())


def test_a_file_is_fused_for_the_cpu_and_portable_elsewhere(tmp_path: Path) -> None:
    subnet = make_subnet()
    portable = export(subnet, tmp_path / "portable.onnx", device=PORTABLE)
    fused = export(subnet, tmp_path / "fused.onnx", device=CPU)
    assert (portable.recipe, fused.recipe) == (RECIPE, f"{RECIPE}+{FUSED_RECIPE}")
    domains = [{one.domain for one in onnx.load(tmp_path / one.file).opset_import} for one in (portable, fused)]
    assert domains == [{""}, {"", "com.microsoft"}]
    onnx.checker.check_model(onnx.load(tmp_path / fused.file), full_check=True)
    assert fused.parity_max_abs_error is not None
    assert fused.parity_max_abs_error < 1e-4
    assert (tmp_path / fused.file).read_bytes() == fuse((tmp_path / portable.file).read_bytes())


def policy(name: str, space: SearchSpace) -> Architecture:
    """The largest architecture with all of its matrices int8, or every other of them."""
    largest = space.largest()
    if name == "all":
        return BERT.at_bits(largest, 8)
    bits = {axis: value for axis, value in BERT.at_bits(largest, 8).axes.items() if axis not in largest.axes}
    some = {axis: (8, 32, 8) if isinstance(value, tuple) else 32 for axis, value in bits.items()}
    return Architecture(largest.family, largest.axes | some)


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("name", ["all", "some"])
def test_products_of_integers_stay_what_they_are(tmp_path: Path, labels: int, name: str) -> None:
    space = tiny.resolved(labels)
    architecture = policy(name, space)
    subnet = make_subnet(labels, architecture=BERT.without_bits(architecture))
    modules = BERT.int8_modules(architecture)
    plain = quantise(traced(subnet), modules)
    fused = fuse(plain)
    assert integer_products(fused) == integer_products(plain)
    assert integer_products(fused)
    depth = subnet.architecture.number("depth")
    assert fused_count(fused) == Fused(depth, 2 * depth + 1 + (not labels), depth + (not labels), 0)
    checks = make_checks(subnet)
    own, _ = own_answers(open_session(plain, {}), checks)
    # What is quantised for one token is quantised in its own range, so the answers are others, and no worse.
    check_parity(open_session(fused, {}), own, tolerance("int8", own))


def integer_products(model: bytes) -> Counter[str]:
    return Counter(
        module_of(node) for node in onnx.load_from_string(model).graph.node if node.op_type == "MatMulInteger"
    )


def test_a_quantised_file_is_fused_after_it_was_quantised(tmp_path: Path) -> None:
    subnet = make_subnet()
    modules = BERT.int8_modules(BERT.at_bits(subnet.architecture, 8))
    artifact, checks = export_encoder(
        subnet,
        subnet.architecture,
        tmp_path / "model.onnx",
        make_checks(subnet),
        device=CPU,
        precision="int8",
        modules=modules,
        checkpoint_sha256=None,
        options={},
    )
    model = (tmp_path / "model.onnx").read_bytes()
    assert model == fuse(quantise(traced(subnet), modules))
    assert artifact.recipe.endswith(f"+{FUSED_RECIPE}")
    assert check_parity(open_session(model, {}), checks, 0.0) == 0


# -- translators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["encoder", "first", "step"])
def test_the_graphs_of_a_translator_are_fused_whole(part: str) -> None:
    """Attention of a step hears keys and values it is given, alone (of the source) or before its own (of the words)."""
    family = declaration("translation")
    space = family.resolve(family.SPACES["tiny"], vocabulary_size=50, labels=0, maximum_length=24)
    rng = np.random.default_rng(3)
    for architecture in (space.smallest(), space.largest(), *(space.sample(rng) for _ in range(2))):
        torch.manual_seed(0)
        graphs = translator_graphs(family_model(space, architecture), 24)
        module: GraphModule = getattr(graphs, part)
        model = getattr(trace_translator(graphs), part)
        fused = fuse(model)
        counted = fused_count(fused)
        assert counted == fused_count(model)._replace(attention=fused_count(model).left, left=0)
        assert counted.attention == architecture.number("encoder_depth" if part == "encoder" else "decoder_depth") * (
            1 if part == "encoder" else 2
        )
        assert kinds(fused)["MatMul"] == 0
        check_part(fused, module)


def family_model(space: SearchSpace, architecture: Architecture) -> Any:
    return build_subnet(space, architecture, 0.0).eval()


def check_part(model: bytes, module: GraphModule) -> None:
    session = open_session(model, {})
    rng = np.random.default_rng(0)
    given = [one.clone() for one in module.example()]
    for name, tensor in zip(module.input_names, given, strict=True):
        if "mask" in name:
            tensor[1, 1::2] = 0
        elif tensor.dtype == torch.int64:
            tensor.copy_(torch.from_numpy(rng.integers(5, 50, tensor.shape)))
    with torch.no_grad():
        expected = module(*given)
    read = {one.name for one in session.get_inputs()}
    inputs = {name: one.numpy() for name, one in zip(module.input_names, given, strict=True) if name in read}
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, wanted in zip(session.run(list(module.output_names), inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
