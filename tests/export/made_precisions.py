"""The largest tiny subnet as a portable fp32 file, and what the tests of all precisions ask of one made from it."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import onnx
import tiny
from onnx import TensorProto, helper, numpy_helper

from toolchain.export import Checks, build_checks, open_session
from toolchain.export.onnx import trace
from toolchain.export.rewriting import module_of
from toolchain.space import Architecture
from toolchain.supernet.families import declaration
from toolchain.supernet.module import Subnet

BERT = declaration("bert")
Inputs = list[dict[str, Any]]


class Traced(NamedTuple):
    """A portable file, with the checks of its module and the modules that have weight matrices."""

    model: bytes
    checks: Checks
    modules: frozenset[str]


@functools.cache
def traced(labels: int) -> Traced:
    """`labels` = 0: masked words, whose table is looked up and multiplied."""
    return trace_subnet(make_subnet(labels))


def make_subnet(labels: int) -> Subnet:
    supernet = tiny.supernet(tiny.resolved(labels))
    return supernet.materialize(supernet.space.largest())


def trace_subnet(subnet: Subnet) -> Traced:
    checks = build_checks(subnet, tiny.batch(rows=6, length=11).ids.numpy(), padding=0)
    modules = BERT.int8_modules(BERT.at_bits(subnet.architecture, 8))
    return Traced(trace(subnet, checks), checks, modules)


def largest(labels: int, **bits: Any) -> Architecture:
    """The largest architecture, all fp32 but for these bits."""
    return Architecture("bert", BERT.at_bits(tiny.resolved(labels).largest(), 32).axes | bits)


def calibration(rows: int = 6) -> Inputs:
    """Other inputs than those that are checked."""
    batches = [tiny.batch(1, length, seed=length) for length in range(3, 3 + rows)]
    return [{"input_ids": one.ids.numpy(), "attention_mask": one.attention_mask.numpy()} for one in batches]


def kinds(model: bytes | onnx.ModelProto) -> Counter[str]:
    """How many operators there are of each kind."""
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    return Counter(node.op_type for node in proto.graph.node)


def modules_with(model: bytes, kind: str) -> Counter[str]:
    """How many operators of a kind there are in each module."""
    return Counter(module_of(node) for node in onnx.load_from_string(model).graph.node if node.op_type == kind)


def constants(model: bytes) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}


def distance(model: bytes, checks: Checks) -> float:
    """How far a file's answers are from those expected: the root mean square, as a share of theirs."""
    session = open_session(model, {}, threads=1)
    found = [session.run(None, dict(one))[0] - expected for one, expected in zip(*checks, strict=True)]
    apart, full = (np.concatenate([one.ravel() for one in rows]) for rows in (found, checks.expected))
    return float(np.sqrt(np.mean(apart**2)) / np.sqrt(np.mean(full**2)))


def one_product(weight: np.ndarray, *, by_rows: bool = True, kind: str = "MatMul", **attributes: Any) -> bytes:
    """A model of one operator of the module `dense` that reads a weight: x [rows, in] -> y [rows, out]."""
    inputs, nodes = ["x", "dense.weight"], []
    if by_rows and kind == "MatMul":
        nodes.append(helper.make_node("Transpose", ["dense.weight"], ["turned"], "/dense/Transpose", perm=[1, 0]))
        inputs[1] = "turned"
    nodes.append(helper.make_node(kind, inputs, ["y"], f"/dense/{kind}", **attributes))
    wide, out = weight.shape[::-1] if by_rows else weight.shape
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in zip("xy", (wide, out), strict=True)
    ]
    stored = numpy_helper.from_array(weight.astype(np.float32), "dense.weight")
    graph = helper.make_graph(nodes, "made", ends[:1], ends[1:], [stored])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()  # type: ignore[no-any-return]
