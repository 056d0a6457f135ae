"""The step of a decoder in ONNX Runtime's own operators: for one token a row, calls cost as much as arithmetic.

Attention is one MultiHeadAttention, which keeps keys and values too; products that read the same are one product; a
product of few bits adds its bias itself. Source of the operators: onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

_DOMAIN = "com.microsoft"
_SPLIT_HEADS, _SWAP_LAST = [0, 2, 1, 3], [0, 1, 3, 2]
_BIAS = 5
"""Which input of MatMulNBits its bias is."""


class Graph(NamedTuple):
    """Nodes in order, and the constants they read, by name."""

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]


def fuse_step(graph: Graph, heads: Mapping[str, int], outputs: Collection[str]) -> None:
    """Rewrite the graph in place; what does not look as expected stays as it is.

    Args:
        heads: how many heads each past keys and values (of words and of source) has, by its name.
        outputs: what must still be computed.
    """
    step = _Step(graph, heads)
    step.join_attention()
    step.add_biases()
    step.join_products()
    step.settle(outputs)


class _Scores(NamedTuple):
    """softmax(query @ keys^T * scale + bias): the names of the first two [batch, heads, tokens, head width]."""

    query: str
    keys: str
    scale: float
    bias: str


class _Step:
    def __init__(self, graph: Graph, heads: Mapping[str, int]) -> None:
        self.graph, self.heads = graph, heads
        self._look()

    def _look(self) -> None:
        self.made = {name: node for node in self.graph.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.nodes:
            for name in set(node.input):
                self.readers.setdefault(name, []).append(node)

    # -- attention -------------------------------------------------------------------------------------------------

    def join_attention(self) -> None:
        for node in [one for one in self.graph.nodes if one.op_type == "Softmax"]:
            scores = self._scores(node)
            product = self._only_reader(node.output[0], "MatMul")
            if scores is None or product is None or product.input[0] != node.output[0]:
                continue
            joined = self._only_reader(product.output[0], "Transpose", _SPLIT_HEADS)
            flat = joined and self._only_reader(joined.output[0], "Reshape")
            query = self._split_of(scores.query)
            attention = self._attention(query, scores, product.input[1])
            if flat and attention is not None:
                attention.output[0] = flat.output[0]
                attention.name = node.name.replace("Softmax", "MultiHeadAttention")
                gone = [self.made[name] for name in attention.output[1:]]
                self._replace(flat, [attention], gone)

    def _attention(self, query: str | None, scores: _Scores, values: str) -> NodeProto | None:
        """The one operator, which also makes the keys and values it keeps where nothing but attention reads them."""
        if query is None:
            return None
        heads = self.heads.get(scores.keys)
        grown_keys, grown_values = self._grown(scores.keys), self._grown(values)
        if grown_keys is not None and grown_values is not None:
            past, added = zip(grown_keys, grown_values, strict=True)
            heads = self.heads[past[0]]
            if self._read_once(scores.keys) and self._read_once(values):
                inputs = [query, *added, "", "", scores.bias, *past]
                return self._node(inputs, ["attended", scores.keys, values], heads, scores.scale)
        if heads is None:
            return None
        return self._node([query, scores.keys, values, "", "", scores.bias], ["attended"], heads, scores.scale)

    def _read_once(self, name: str) -> bool:
        """Some translators also ask for the shape of the keys, to make a mask of it."""
        return len(self.readers.get(name, [])) <= 1

    @staticmethod
    def _node(inputs: list[str], outputs: list[str], heads: int, scale: float) -> NodeProto:
        while not inputs[-1]:
            inputs.pop()
        return helper.make_node("MultiHeadAttention", inputs, outputs, domain=_DOMAIN, num_heads=heads, scale=scale)

    def _scores(self, softmax: NodeProto) -> _Scores | None:
        product, bias, scale = self.made.get(softmax.input[0]), "", 1.0
        if product is not None and product.op_type == "Add":
            sides = [self._scaled(name) for name in product.input]
            chosen = next((place for place, one in enumerate(sides) if one is not None), None)
            if chosen is None:
                return None
            bias, found = product.input[1 - chosen], sides[chosen]
        else:
            found = self._scaled(softmax.input[0])
        if found is None:
            return None
        product, scale = found
        query, one = self._unscaled(product.input[0])
        turned, other = self._unscaled(product.input[1])
        swap = self.made.get(turned)
        if swap is None or swap.op_type != "Transpose" or _permutation(swap) != _SWAP_LAST:
            return None
        return _Scores(query, swap.input[0], scale * one * other, bias)

    def _scaled(self, name: str) -> tuple[NodeProto, float] | None:
        """The product behind a value, and the number it is multiplied with."""
        name, scale = self._unscaled(name)
        node = self.made.get(name)
        return (node, scale) if node is not None and node.op_type == "MatMul" else None

    def _unscaled(self, name: str) -> tuple[str, float]:
        """What a value is a constant multiple of, and the number."""
        node = self.made.get(name)
        if node is None or node.op_type not in {"Mul", "Div"}:
            return name, 1.0
        number = self._number(node.input[1])
        if number is None:
            return name, 1.0
        return node.input[0], number if node.op_type == "Mul" else 1.0 / number

    def _number(self, name: str) -> float | None:
        tensor = self.graph.constants.get(name)
        array = None if tensor is None else numpy_helper.to_array(tensor)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def _split_of(self, name: str) -> str | None:
        """[batch, tokens, width] of what was made [batch, heads, tokens, head width] of it."""
        node = self.made.get(name)
        if node is None or node.op_type != "Transpose" or _permutation(node) != _SPLIT_HEADS:
            return None
        shaped = self.made.get(node.input[0])
        return shaped.input[0] if shaped is not None and shaped.op_type == "Reshape" else None

    def _grown(self, name: str) -> tuple[str, str] | None:
        """The past [batch, heads, tokens, head width] and the addition [batch, 1, width] of keys or values."""
        node = self.made.get(name)
        if node is None or node.op_type != "Concat" or len(node.input) != 2 or node.input[0] not in self.heads:
            return None
        added = self._split_of(node.input[1])
        return None if added is None else (node.input[0], added)

    # -- products --------------------------------------------------------------------------------------------------

    def add_biases(self) -> None:
        """MatMulNBits, then Add of a constant vector: the product's own bias."""
        for node in [one for one in self.graph.nodes if one.op_type == "MatMulNBits" and len(one.input) <= _BIAS]:
            added = self._bias_of(node)
            if added is not None:
                after, bias = added
                node.input.extend([""] * (_BIAS - len(node.input)) + [bias])
                node.output[0] = after.output[0]
                self.graph.nodes.remove(after)
        self._look()

    def join_products(self) -> None:
        """Products of one input with several constant weights: one product, and a split."""
        groups: dict[tuple[Any, ...], list[NodeProto]] = {}
        for node in self.graph.nodes:
            if node.op_type in {"MatMul", "MatMulNBits"} and self._weights(node) is not None:
                groups.setdefault(self._kind(node), []).append(node)
        for group in groups.values():
            if len(group) > 1:
                self._join(group)
        self._look()

    def _join(self, group: list[NodeProto]) -> None:
        weights = [[self._array(name) for name in self._weights(node) or []] for node in group]
        first, by_rows = group[0], group[0].input[1] in self.made or group[0].op_type != "MatMul"
        axis = 0 if by_rows else 1
        sizes = [one[0].shape[axis] for one in weights]
        after = [self._bias_of(node) for node in group] if first.op_type == "MatMul" else [None] * len(group)
        if any(after) and not all(after):
            return
        joined = [
            self._put(f"{name}.joined", np.concatenate(parts, axis))
            for name, parts in zip(self._weights(first) or [], zip(*weights, strict=True), strict=True)
        ]
        product = NodeProto()
        product.CopyFrom(first)
        product.name, product.output[0] = f"{first.name}.joined", f"{first.output[0]}.joined"
        nodes = [product]
        outputs = [node.output[0] for node in group]
        if first.op_type == "MatMul":
            product.input[1] = joined[0]
            if by_rows:
                turned = product.input[1] = f"{joined[0]}.T"
                nodes.insert(0, helper.make_node("Transpose", joined, [turned], turned, perm=[1, 0]))
            if all(after):
                biases = self._put(f"{joined[0]}.bias", np.concatenate([self._array(one[1]) for one in after if one]))
                added = f"{product.output[0]}.added"
                nodes.append(helper.make_node("Add", [product.output[0], biases], [added], added))
                outputs = [one[0].output[0] for one in after if one]
        else:
            for place, name in zip(_nbits_weights(product), joined, strict=True):
                product.input[place] = name
            next(one for one in product.attribute if one.name == "N").i = sum(sizes)
        split = self._put("sizes." + ".".join(map(str, sizes)), np.array(sizes, np.int64))
        nodes.append(helper.make_node("Split", [nodes[-1].output[0], split], outputs, f"{first.name}.split", axis=-1))
        gone = [*group[1:], *(one[0] for one in after if one)]
        self._replace(first, nodes, gone)

    def _kind(self, node: NodeProto) -> tuple[Any, ...]:
        """What products must agree in to be one."""
        attributes = sorted((one.name, one.i) for one in node.attribute if one.name != "N")
        stored = node.input[1] in self.graph.constants
        return node.op_type, node.input[0], tuple(bool(one) for one in node.input[1:]), stored, *attributes

    def _weights(self, node: NodeProto) -> list[str] | None:
        """The constants of a product that have a row, or where the matrix is read as it stands a column, for each
        output."""
        if node.op_type == "MatMul":
            turned = self.made.get(node.input[1])
            names = [node.input[1]] if turned is None else list(turned.input)
            if turned is not None and (turned.op_type != "Transpose" or _permutation(turned) != [1, 0]):
                return None
        else:
            names = [node.input[place] for place in _nbits_weights(node)]
        tensors = [self.graph.constants.get(name) for name in names]
        whole = all(one is not None and (node.op_type != "MatMul" or len(one.dims) == 2) for one in tensors)
        return names if whole else None

    def _bias_of(self, node: NodeProto) -> tuple[NodeProto, str] | None:
        """The Add of a constant vector that alone reads a product, and the vector's name."""
        after = self._only_reader(node.output[0], "Add")
        if after is None:
            return None
        (other,) = [name for name in after.input if name != node.output[0]] or [""]
        constant = self.graph.constants.get(other)
        return (after, other) if constant is not None and len(constant.dims) == 1 else None

    def _array(self, name: str) -> Any:
        return numpy_helper.to_array(self.graph.constants[name])

    def _put(self, name: str, array: Any) -> str:
        self.graph.constants[name] = numpy_helper.from_array(array, name)
        return name

    # -- the graph -------------------------------------------------------------------------------------------------

    def _only_reader(self, name: str, kind: str, permutation: list[int] | None = None) -> NodeProto | None:
        readers = self.readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type != kind:
            return None
        return readers[0] if permutation is None or _permutation(readers[0]) == permutation else None

    def _replace(self, node: NodeProto, nodes: list[NodeProto], gone: list[NodeProto]) -> None:
        place = self._place(node)
        self.graph.nodes[place : place + 1] = nodes
        for one in gone:
            del self.graph.nodes[self._place(one)]
        self._look()

    def _place(self, node: NodeProto) -> int:
        return next(place for place, one in enumerate(self.graph.nodes) if one is node)

    def settle(self, outputs: Collection[str]) -> None:
        """Leave out what nothing reads any more."""
        found, kept = set(outputs), []
        for node in reversed(self.graph.nodes):
            if not found.isdisjoint(node.output):
                kept.append(node)
                found.update(node.input)
        self.graph.nodes[:] = kept[::-1]
        for name in [one for one in self.graph.constants if one not in found]:
            del self.graph.constants[name]


def _nbits_weights(node: NodeProto) -> Iterator[int]:
    """Which inputs of MatMulNBits have a row for each output: values, scales, zero points, bias."""
    return (place for place, name in enumerate(node.input) if place > 0 and name)


def _permutation(node: NodeProto) -> list[int]:
    return next((list(one.ints) for one in node.attribute if one.name == "perm"), [])
