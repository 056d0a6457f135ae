"""Somebody's ONNX file made ready for what rewrites it: fusing and quantising go by opsets, constants and names.

The file itself stays what it is; where nothing is rewritten, it ships as it was brought.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from toolchain.errors import IntegrityError, ParityError, UsageError
from toolchain.export.editing import MICROSOFT, all_nodes, attribute
from toolchain.export.fuse import FUSED_SINCE_OPSET, opset_of
from toolchain.export.onnx import OPSET
from toolchain.export.parity import Checks, check_parity
from toolchain.export.rewriting import module_of
from toolchain.export.session import open_session

_READ_A_MATRIX = frozenset({"MatMul", "Gemm", "Gather"})
_INTEGERS = frozenset({"MatMulInteger", "QLinearMatMul", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"})
_INITIALIZERS_ALONE = 8
"""The version of the format from which on, at the latest, a constant need not be an input too."""


def prepare(model: bytes, checks: Checks) -> bytes:
    """The same function: opset 17 where it was older and can be, matrices as initializers, each node with a name of its
    own, each product with a matrix in a module of its own.

    A file that cannot be brought to opset 17, or answers the checks otherwise there, keeps its opset.
    """
    proto = _upgraded(onnx.load_from_string(model), checks)
    known = {one.name for one in proto.graph.initializer}
    given = [one for one in proto.graph.input if one.name not in known]
    del proto.graph.input[:]
    proto.graph.input.extend(given)
    proto.ir_version = max(proto.ir_version, _INITIALIZERS_ALONE)
    _gather_matrices(proto.graph)
    _name_nodes(proto.graph)
    return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def prepare_to_quantise(model: bytes, checks: Checks) -> bytes:
    """The same, of a file whose weights can be quantised.

    Raises:
        UsageError: it is fused or quantised already (the operator is named), or of an old opset that cannot be left.
    """
    done = rewritten(model)
    if done:
        raise UsageError(
            f"the model is already fused or quantised: {done}",
            why="weights inside such operators cannot be quantised, and half of a model would stay as it is",
            hint="bring the portable fp32 file it was made from, or take this one with --precision fp32",
        )
    prepared = prepare(model, checks)
    opset = opset_in(prepared)
    if opset < FUSED_SINCE_OPSET:
        raise UsageError(
            f"a file of opset {opset} cannot be quantised",
            why=f"it could not be brought to opset {OPSET}",
            hint=f"export the model with opset {OPSET}",
        )
    return prepared


def opset_in(model: bytes) -> int:
    """The opset of a file's standard operators."""
    return opset_of(onnx.load_from_string(model))


def rewritten(model: bytes) -> str:
    """The first operator, with its layer, that tells that weights were fused into it or quantised; empty: none does."""
    graph = onnx.load_from_string(model).graph
    matrices = {one.name for one in graph.initializer if len(one.dims) > 1}
    for node in all_nodes(graph):
        own = node.domain == MICROSOFT and any(name in matrices for name in node.input)
        if own or node.op_type in _INTEGERS:
            return f"{node.op_type}, in {node.name or 'a layer without a name'}"
    return ""


def _upgraded(proto: ModelProto, checks: Checks) -> ModelProto:
    """At OPSET, where it is older than what fusing writes, and answers the same there."""
    from onnx import version_converter  # noqa: PLC0415 - few files need it

    if opset_of(proto) >= FUSED_SINCE_OPSET:
        return proto
    try:
        made = version_converter.convert_version(proto, OPSET)
    except (RuntimeError, ValueError, version_converter.ConvertError):
        return proto  # whoever cannot rewrite it then says so: `fuse_given`, `prepare_to_quantise`
    for one in (_unflattened(made), made):
        with contextlib.suppress(ParityError, IntegrityError):
            check_parity(open_session(one.SerializeToString(), {}), checks)
            return one
    return proto


def _unflattened(proto: ModelProto) -> ModelProto:
    """Softmax of the last axis, as it is written since opset 13: the converter puts Flatten before it and Reshape
    behind, which is right for any axis. Whether it was the last one, the answers tell."""
    made = ModelProto()
    made.CopyFrom(proto)
    nodes = made.graph.node
    flattened = {node.output[0]: node for node in nodes if node.op_type == "Flatten"}
    whole = {node.output[0]: node for node in nodes if node.op_type == "Softmax" and node.input[0] in flattened}
    for node in nodes:
        if node.op_type == "Reshape" and node.input[0] in whole:
            softmax = whole[node.input[0]]
            name, x, out = softmax.name, flattened[softmax.input[0]].input[0], node.output[0]
            node.CopyFrom(helper.make_node("Softmax", [x], [out], name, axis=-1))
    read = {name for node in all_nodes(made.graph) for name in node.input} | {one.name for one in made.graph.output}
    kept = [node for node in nodes if node.output[0] in read or node.output[0] not in whole]
    del nodes[:]
    nodes.extend(kept)
    return made


def _gather_matrices(graph: GraphProto) -> None:
    """Matrices in Constant nodes become initializers; what reads one through an Identity reads the matrix itself."""
    kept: list[NodeProto] = []
    same: dict[str, str] = {}
    out = {one.name for one in graph.output}
    matrices = {one.name for one in graph.initializer if len(one.dims) > 1}
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is not None and len(value.dims) > 1 and node.output[0] not in out:
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
            matrices.add(node.output[0])
        elif node.op_type == "Identity" and node.input[0] in matrices and node.output[0] not in out:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
            matrices.add(node.output[0])
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    _read_instead(graph, same)


def _read_instead(graph: GraphProto, same: dict[str, str]) -> None:
    """Let every node, those of inner graphs too, read the values that others are the same as."""
    for node in all_nodes(graph):
        for place, name in enumerate(node.input):
            if name in same:
                node.input[place] = same[name]


def _name_nodes(graph: GraphProto) -> None:
    """A module is what a node's name says, so each product has a name that no other reader of a matrix shares."""
    matrices = {one.name for one in graph.initializer if len(one.dims) > 1}
    matrices |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in matrices}
    readers = [node for node in graph.node if any(name in matrices for name in node.input)]
    shared = Counter(module_of(node) for node in readers if node.op_type != "Transpose")
    products = {id(node) for node in readers if node.op_type in _READ_A_MATRIX and not node.domain}
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        path = module_of(node)
        if id(node) in products and (not path or shared[path] > 1):
            node.name = f"/{node.name.strip('/').replace('/', '.') or 'product'}.{number}/{node.op_type}"
        elif not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}.{number}"
        taken.add(node.name)
