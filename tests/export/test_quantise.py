from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from toolchain.arrays import to_arrays
from toolchain.errors import UsageError
from toolchain.export import TOLERANCE, Checks, check_parity, open_session, tolerance
from toolchain.export.isa import int8_form
from toolchain.export.quantise import INT8_RECIPE, integers, quantise, recipe_of_pairs
from toolchain.export.rewriting import module_of

from .made_precisions import (
    BERT,
    constants,
    distance,
    kinds,
    largest,
    make_subnet,
    modules_with,
    one_product,
    trace_subnet,
    traced,
)

PER_LAYER = {
    "attention_bits": ("links.{}", "blocks.{}.query", "blocks.{}.key", "blocks.{}.value", "blocks.{}.output"),
    "ffn_bits": ("blocks.{}.fc1", "blocks.{}.fc2"),
}
"""Products with a weight in each layer."""

POLICIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "embedding": {"embedding_bits": 8},
    "head": {"head_bits": 8},
    "table and decoder": {"embedding_bits": 8, "head_bits": 8},
    "attention of the second layer": {"attention_bits": (32, 8, 32)},
    "feed-forward of all": {"ffn_bits": (8, 8, 8)},
    "all": {"embedding_bits": 8, "head_bits": 8, "attention_bits": (8, 8, 8), "ffn_bits": (8, 8, 8)},
}
CASES = [(labels, name) for labels in (0, 3) for name in POLICIES]


@pytest.mark.parametrize(("labels", "name"), CASES)
def test_the_file_is_quantised_where_the_policy_says_and_nowhere_else(labels: int, name: str) -> None:
    architecture = largest(labels, **POLICIES[name])
    model = quantise(traced(labels).model, BERT.int8_modules(architecture))
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    found = modules_with(model, "MatMulInteger")
    assert found.keys() <= BERT.int8_modules(architecture)
    assert set(found.values()) <= {1}
    for axis, parts in PER_LAYER.items():
        for layer, bits in enumerate(architecture.layers(axis)):
            modules = {part.format(layer) for part in parts}
            assert len(modules & found.keys()) == (len(modules) if bits == 8 else 0)
    in_head = {"head", "head.dense"} if labels == 0 else {"head.dense", "head.labels"}
    assert in_head & found.keys() == (in_head if architecture.number("head_bits") == 8 else set())
    assert ("word.weight" in constants(model)) == (architecture.number("embedding_bits") != 8)
    assert (distance(model, traced(labels).checks) > 1e-4) == (name != "nothing")
    assert distance(model, traced(labels).checks) < 0.05


@pytest.mark.parametrize(("labels", "name"), CASES)
def test_the_file_takes_the_bytes_that_were_counted(labels: int, name: str) -> None:
    architecture = largest(labels, **POLICIES[name])
    model = quantise(traced(labels).model, BERT.int8_modules(architecture))
    space = BERT.with_bits(tiny.resolved(labels))
    (counted,) = BERT.counts(space, to_arrays(space, [architecture]))["weight_bytes"]
    assert sum(one.nbytes for one in constants(model).values() if one.dtype != np.int64) == counted


@pytest.mark.parametrize("labels", [0, 3])
def test_operators_and_answers_are_those_of_onnx_runtimes_own_quantiser(tmp_path: Path, labels: int) -> None:
    """With eight bits: it has nothing between those and seven."""
    fp32, checks, _ = traced(labels)
    modules = BERT.int8_modules(largest(labels, attention_bits=(8, 32, 8), ffn_bits=(8, 8, 32)))
    ours, plain = quantise(fp32, modules, paired=False), onnx.load_from_string(fp32)
    weights = {one.name: numpy_helper.to_array(one) for one in plain.graph.initializer}
    for node in [one for one in plain.graph.node if one.op_type == "Transpose" and one.input[0] in weights]:
        plain.graph.node.remove(node)  # it quantises no weight that it finds behind a transposition
        plain.graph.initializer.append(numpy_helper.from_array(weights[node.input[0]].T.copy(), node.output[0]))
    chosen = [one.name for one in plain.graph.node if one.op_type == "MatMul" and module_of(one) in modules]
    theirs = tmp_path / "theirs.onnx"
    quantize_dynamic(plain, theirs, nodes_to_quantize=chosen, op_types_to_quantize=["MatMul"], per_channel=True)
    counts = [kinds(model) for model in (ours, onnx.load(theirs))]
    for kind in ("DynamicQuantizeLinear", "MatMulInteger"):
        assert counts[0][kind] == counts[1][kind] > 0
    session, reference = open_session(ours, {}), open_session(theirs, {})
    for one in checks.inputs:
        # Its eight bits go to 127.5, ours to 127.
        np.testing.assert_allclose(session.run(None, one)[0], reference.run(None, one)[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("paired", [True, False])
def test_the_same_module_gives_the_same_bytes(paired: bool) -> None:
    model, _, modules = traced(0)
    made = quantise(model, sorted(modules), paired=paired)
    assert made == quantise(model, sorted(modules, reverse=True), paired=paired)
    assert b"/root" not in made


# -- sums stay exact ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [1, 2, 3, 64, 101])
def test_no_two_neighbours_are_larger_than_16_bits_allow(wide: int) -> None:
    rng = np.random.default_rng(wide)
    rows = np.abs(rng.standard_normal((50, wide))) * rng.choice([-1, 1], (50, 1))  # of one sign: the worst
    values, scales = integers(rows.astype(np.float32), paired=True)
    padded = np.pad(values.astype(int), ((0, 0), (0, wide % 2)))
    assert np.abs(padded[:, ::2] + padded[:, 1::2]).max() * 255 <= 32767
    assert np.abs(values).max() <= 127
    finer = np.abs(scales) < np.abs(rows).max(axis=1) / 64
    assert finer.all()  # than seven bits
    assert np.abs(values * scales[:, None] - rows).max() <= scales.max() * 0.501


def test_a_product_of_paired_weights_is_exact_on_this_processor() -> None:
    """Whichever it has. The largest activations and weights as large as they may be: those of eight bits saturate on
    an x86 without VNNI, these nowhere."""
    weight = np.tile(np.float32([[127, 1, 64, 64, -127, -1, 100, 28]]), (24, 33))
    model = onnx.load_from_string(quantise(one_product(weight), ["dense"]))
    integer = next(node for node in model.graph.node if node.op_type == "MatMulInteger")
    model.graph.output.append(helper.make_tensor_value_info(integer.output[0], onnx.TensorProto.INT32, None))
    session = open_session(model.SerializeToString(), {})
    stored = constants(model.SerializeToString())["dense.weight.int8"].astype(np.int64)
    for rows in (1, 2, 5, 16, 64):
        x = np.full((rows, weight.shape[1]), 3.0, np.float32)  # all 255 of 255
        _, sums = session.run(None, {"x": x})
        np.testing.assert_array_equal(sums, np.full((rows, len(stored)), 255 * stored.sum(axis=1)))


def test_paired_weights_are_nearer_than_seven_bits_would_be() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 256)).astype(np.float32)
    values, scales = integers(rows, paired=True)
    seven = np.abs(rows).max(axis=1, keepdims=True) / 64
    apart = [
        np.sqrt(np.mean((rows - found) ** 2)) for found in (values * scales[:, None], np.rint(rows / seven) * seven)
    ]
    assert apart[0] < 0.75 * apart[1]


def test_a_row_of_zeros_stays_zeros() -> None:
    subnet = make_subnet(3)
    subnet.get_parameter("blocks.0.fc1.weight").data[2:5] = 0
    fp32, checks, _ = trace_subnet(subnet)
    model = quantise(fp32, BERT.int8_modules(largest(3, ffn_bits=(8, 8, 8))))
    assert np.isfinite(constants(model)["blocks.0.fc1.weight.scale"]).all()
    check_parity(open_session(model, {}), checks, tolerance("mixed", checks))


# -- what a graph may look like ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "attributes"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_a_weight_may_lie_either_way(kind: str, attributes: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    x, columns = rng.standard_normal((5, 8)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    by_rows = bool(attributes)
    fp32 = one_product(columns.T if by_rows else columns, by_rows=by_rows, kind=kind, **attributes)
    model = quantise(fp32, ["dense"])
    assert kinds(model)["MatMulInteger"] == 1
    np.testing.assert_allclose(open_session(model, {}).run(None, {"x": x})[0], x @ columns, atol=0.1)


@pytest.mark.parametrize(("kind", "attributes"), [("Gemm", {"alpha": 2.0}), ("Gemm", {"transA": 1}), ("Add", {})])
def test_what_is_no_product_is_refused_by_its_name(kind: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"dense\.weight") as refusal:
        quantise(one_product(np.ones((4, 4)), by_rows=False, kind=kind, **attributes), ["dense"])
    assert kind in refusal.value.why
    assert refusal.value.hint


def test_modules_that_are_not_there_change_nothing() -> None:
    fp32 = one_product(np.eye(4))
    assert kinds(quantise(fp32, ["elsewhere"])) == kinds(fp32)


# -- words -------------------------------------------------------------------------------------------------------------


def test_a_quantised_file_may_differ_more_between_machines_by_a_share_of_its_logits() -> None:
    checks = Checks([], [np.full((2, 3), 4.0, np.float32), np.full((1, 3), -4.0, np.float32)])
    assert tolerance("fp32", checks) == pytest.approx(4 * TOLERANCE)
    assert tolerance("int8", checks) == tolerance("mixed", checks) == pytest.approx(0.4)
    assert tolerance("int8", Checks([], [np.zeros((2, 3), np.float32)])) == TOLERANCE


def test_the_recipe_tells_paired_weights_from_others() -> None:
    assert recipe_of_pairs(paired=True) == INT8_RECIPE != recipe_of_pairs(paired=False)


@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
def test_what_is_proven_here_is_true_of_any_device(machine: str, engine: str) -> None:
    assert int8_form(machine, ("avx2", "avx512_vnni"), engine=engine).paired
    assert int8_form(machine, (), engine=engine).signed == (machine != "x86_64" or engine == "tensorrt")
