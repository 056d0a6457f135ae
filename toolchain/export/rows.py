"""Tensors that hold a row for each token: which they are, which of their rows are needed, and one matrix of them all.

[batch, tokens, width] as a matrix [batch x tokens, width] lets a product add its bias itself (Gemm). And where only the
first token of a sequence is answered for, the last layer is computed for that one: its keys and values are of all.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from toolchain.export.editing import EditedGraph, attribute

_ROW_BY_ROW = frozenset({"Identity", "Cast", "Gelu", "Relu", "Tanh", "Erf", "QuantizeLinear", "DequantizeLinear"})
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
_ATTENTION = frozenset({"MultiHeadAttention", "Attention"})
_BIAS = 5
"""Which input of attention is added to its scores: [batch, heads, tokens, tokens read]."""
_FLAT = frozenset({"Identity", "Gelu", "Relu", "Tanh", "LayerNormalization"}) | _ELEMENTWISE


class _Rows:
    """`origin` of each tensor with rows: another one with as many. Two with the same origin have the same rows.

    `plain` are the tensors that are the same for each row: numbers, and vectors as wide as the rows.
    """

    def __init__(self, graph: EditedGraph) -> None:
        self.graph = graph
        self.origin: dict[str, str] = {}
        self.plain: set[str] = set()
        for node in graph.nodes:
            self._look(node)

    def of(self, node: NodeProto) -> list[str]:
        """The inputs of a node of which each row of its output needs the same row alone."""
        origin = self.origin.get(node.output[0])
        read = node.input if node.op_type in _ELEMENTWISE else node.input[:1]
        rows = [name for name in read if name in self.origin]
        return rows if all(self.origin[name] == origin for name in rows) else []

    def _look(self, node: NodeProto) -> None:
        kind, x = node.op_type, node.input[0] if node.input else ""
        if kind in _ELEMENTWISE:
            self._look_elementwise(node)
        elif kind in _ROW_BY_ROW:
            if x in self.origin and all(self._is_plain(name) for name in node.input[1:]):
                self.origin[node.output[0]] = self.origin[x]
        elif (
            kind in _ATTENTION
            or (kind == "LayerNormalization" and attribute(node, "axis", -1) == -1)
            or kind == "DynamicQuantizeLinear"
            or (kind in _PRODUCTS and self._by_a_weight(node))
        ):
            self.origin[node.output[0]] = self.origin.setdefault(x, x)
            if kind == "DynamicQuantizeLinear":
                self.plain.update(node.output[1:])

    def _look_elementwise(self, node: NodeProto) -> None:
        origins = {self.origin[name] for name in node.input if name in self.origin}
        others = [name for name in node.input if name not in self.origin]
        if len(origins) < 2 and all(self._is_plain(name) for name in others):
            if origins:
                self.origin[node.output[0]] = origins.pop()
            else:
                self.plain.add(node.output[0])

    def _is_plain(self, name: str) -> bool:
        if name in self.plain:
            return True
        constant = self.graph.constant(name)
        return constant is not None and constant.ndim < 2

    def _by_a_weight(self, node: NodeProto) -> bool:
        return node.op_type == "MatMulNBits" or self.graph.matrix(node.input[1]) is not None


# -- the rows that are needed ------------------------------------------------------------------------------------------


def keep_first_rows(graph: EditedGraph) -> None:
    """Where a graph goes on with the first token of each sequence, let the attention before that, and all between, be
    computed for this token alone. Keys and values are of all tokens as before."""
    for node in graph.nodes:
        if node.op_type == "Gather" and attribute(node, "axis", 0) == 1 and _is_zero(graph, node.input[1]):
            _keep_first_row(graph, node)


def _is_zero(graph: EditedGraph, name: str) -> bool:
    constant = graph.constant(name)
    return constant is not None and constant.ndim == 0 and constant == 0


def _keep_first_row(graph: EditedGraph, gather: NodeProto) -> None:
    rows = _Rows(graph)
    wanted, spared, ids = {gather.input[0]}, [], {id(gather)}
    for node in reversed(graph.nodes):
        if not _read_by(graph, node, ids):
            continue
        if node.output[0] in rows.plain:
            ids.add(id(node))  # the scale of a quantised tensor: of fewer rows, it is another
        elif node.output[0] in wanted and rows.of(node):
            spared.append(node)
            ids.add(id(node))
            wanted.update(rows.of(node))
    if not any(node.op_type in _ATTENTION for node in spared):
        return  # nothing says that axis 1 is the tokens'; and little would be spared
    made = {name for node in spared for name in node.output}
    for node in spared:
        for name in rows.of(node):
            if name not in made:
                graph.reroute(node, list(node.input).index(name), _first(graph, name, 1))
        if node.op_type in _ATTENTION and len(node.input) > _BIAS and node.input[_BIAS]:
            graph.reroute(node, _BIAS, _first(graph, node.input[_BIAS], 2))


def _first(graph: EditedGraph, name: str, axis: int) -> str:
    """The first slice of a tensor along an axis, which stays."""
    first = f"{name}.first"
    if graph.maker(first) is None:
        zero, one, along = (graph.put(f"rows.{n}", np.array([n], np.int64)) for n in (0, 1, axis))
        graph.make("Slice", [name, zero, one, along], [first], first)
    return first


def _read_by(graph: EditedGraph, node: NodeProto, ids: set[int]) -> bool:
    """Whether these nodes alone read what a node makes."""
    if node.op_type in _ATTENTION and len(node.output) > 1:
        return False
    readers = [one for name in node.output for one in graph.readers(name)]
    return all(id(one) in ids for one in readers) and not any(name in graph.outputs for name in node.output)


# -- one matrix of all rows --------------------------------------------------------------------------------------------


def flatten(graph: EditedGraph) -> None:
    """Products with fp32 weights become Gemm, on the matrix of all rows; so does what lies between two of them."""
    flattening = _Flattening(graph)
    for node in graph.nodes:
        flattening.visit(node)
    flattening.settle()


class _Flattening:
    def __init__(self, graph: EditedGraph) -> None:
        self.graph, self.rows = graph, _Rows(graph)
        self.flat: dict[str, str] = {}
        """The matrices made so far, by the name of what they hold the rows of."""
        self.gone: list[str] = []
        """What was made as [batch, tokens, width] and is not any more."""

    def visit(self, node: NodeProto) -> None:
        if self.graph.maker(node.output[0]) is not node:
            return  # gone: its work is done by a product before it
        if node.op_type == "MatMul" and node.output[0] in self.rows.origin:
            self._multiply(node)
        elif node.op_type in _FLAT and len(node.output) == 1 and any(name in self.flat for name in self.rows.of(node)):
            self._repeat(node)

    def settle(self) -> None:
        """Give what is still read as [batch, tokens, width] that shape again."""
        graph = self.graph
        rest = graph.put("rows.rest", np.array([-1], np.int64))
        for name in self.gone:
            if graph.readers(name) or name in graph.outputs:
                origin = self.rows.origin[name]
                leading, shape = f"{origin}.leading", f"{origin}.shape"
                if graph.maker(shape) is None:
                    graph.make("Shape", [origin], [leading], leading, start=0, end=-1)
                    graph.make("Concat", [leading, rest], [shape], shape, axis=0)
                graph.make("Reshape", [self.flat[name], shape], [name], f"{name}.shaped")

    def _multiply(self, node: NodeProto) -> None:
        graph, out = self.graph, node.output[0]
        matrix = graph.matrix(node.input[1])
        if matrix is None or graph.weights[matrix[0]].data_type != TensorProto.FLOAT:
            return
        weight, turned = self._by_columns(*matrix)
        added = graph.only_reader(out, "Add")
        bias = [name for name in added.input if name != out and _is_vector(graph, name)] if added is not None else []
        if added is not None and bias:
            graph.drop(added)
            out = added.output[0]
        graph.drop(node)
        inputs = [self._flat(node.input[0]), weight, *bias]
        graph.make("Gemm", inputs, [self._instead(out)], node.name, transB=int(turned))

    def _by_columns(self, weight: str, turned: bool) -> tuple[str, bool]:
        """A weight that only products read, as [in, out], which runs faster; and whether it is turned still."""
        readers = self.graph.readers(weight)
        if not turned or any(one.op_type != "Transpose" for one in readers):
            return weight, turned  # the word table, which is looked up too, is stored once
        values = numpy_helper.to_array(self.graph.weights[weight])
        return self.graph.put(f"{weight}.columns", np.ascontiguousarray(values.T)), False

    def _repeat(self, node: NodeProto) -> None:
        rows = self.rows.of(node)
        again = NodeProto()
        again.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in rows:
                again.input[place] = self._flat(name)
        self.graph.drop(node)
        again.output[0] = self._instead(node.output[0])
        self.graph.enter(again)

    def _flat(self, name: str) -> str:
        """The matrix of what is there as [batch, tokens, width]."""
        if name not in self.flat:
            self.flat[name] = f"{name}.rows"
            self.graph.make("Flatten", [name], [self.flat[name]], f"{name}.rows", axis=-1)
        return self.flat[name]

    def _instead(self, name: str) -> str:
        self.gone.append(name)
        self.flat[name] = f"{name}.rows"
        return self.flat[name]


def _is_vector(graph: EditedGraph, name: str) -> bool:
    return name in graph.weights and len(graph.weights[name].dims) == 1
