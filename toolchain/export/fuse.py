"""Operators of a traced graph become fewer and larger ones, which ONNX Runtime's CPU has kernels for.

Attention cores become MultiHeadAttention, or Attention where one input is projected to query, key and value; GELU
becomes Gelu; products and their biases become Gemm, and what only the last layer's first token is needed for is
computed for that token alone (rows.py). Sizes are read off each layer's own nodes, so layers may differ. Source of the
operators: onnxruntime docs/ContribOperators.md; which of them pay, and by how much: README.md.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from toolchain.export.editing import MICROSOFT, EditedGraph, all_nodes, attribute, trimmed
from toolchain.export.rows import flatten, keep_first_rows

FUSED_RECIPE = "fused-v2"
"""Names how graphs are fused; added to the recipe of the file they come from."""

FUSED_SINCE_OPSET = 15
"""The opset whose Shape tells some of the sizes alone, as fusing writes it."""

_HEADS_OUT, _KEYS_TURNED, _LAST_TURNED = [0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 3, 2]
_PROJECTIONS = 3


class Fused(NamedTuple):
    """How many there are of each in a file, those in the bodies of loops included.

    `left` counts what fusing is to replace: softmax, erf, and means over the last axis, of which norms are made.
    """

    attention: int
    layer_norms: int
    gelus: int
    left: int


def fuse(model: bytes) -> bytes:
    """The model in fewer operators, some of them ONNX Runtime's own; the same bytes for the same model.

    What does not look like an attention core, a GELU or a product stays as it is, and `fused_count` tells. Padding may
    be anywhere: masks are passed on whole, never as a length. A model of an opset before FUSED_SINCE_OPSET stays as it
    is.

    Args:
        model: as the tracing exporter writes it, in fp32 or with some of its weights quantised.
    """
    graph = EditedGraph(model)
    if opset_of(graph.proto) < FUSED_SINCE_OPSET:
        return model
    for node in graph.nodes:
        if node.op_type == "Erf":
            _fuse_gelu(graph, node)
        elif node.op_type == "Add":
            _skip_identity(graph, node)
    masks = _Masks(graph)
    for node in graph.nodes:
        if node.op_type == "Softmax" and (core := _core_at(graph, node)) is not None:
            _fuse_core(graph, core, masks)
    graph.sweep()
    keep_first_rows(graph)
    for node in graph.nodes:
        if node.op_type == "MultiHeadAttention":
            _fuse_projections(graph, node)
    flatten(graph)
    return graph.finish()


def opset_of(proto: onnx.ModelProto) -> int:
    """Of the standard operators; 0: it uses none."""
    return max((int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=0)


def fused_count(model: bytes) -> Fused:
    kinds = [node.op_type for node in all_nodes(onnx.load_from_string(model).graph)]

    def count(*names: str) -> int:
        return sum(kind in names for kind in kinds)

    return Fused(
        attention=count("Attention", "MultiHeadAttention"),
        layer_norms=count("LayerNormalization", "SkipLayerNormalization"),
        gelus=count("Gelu", "BiasGelu", "FastGelu"),
        left=count("Softmax", "Erf", "ReduceMean"),
    )


def _skip_identity(graph: EditedGraph, added: NodeProto) -> None:
    """x @ I + 0 is x: so is, in an encoder that began as a pretrained one, what links two layers."""
    found = _projection(graph, added.output[0])
    weight = graph.constant(found.weight) if found is not None else None
    bias = graph.constant(found.bias) if found is not None else None
    if found is None or weight is None or bias is None or weight.shape[0] != weight.shape[1]:
        return
    if not bias.any() and np.array_equal(weight, np.eye(len(weight), dtype=weight.dtype)):
        graph.drop(*found.nodes)
        graph.make("Identity", [found.x], added.output, added.name)


# -- GELU --------------------------------------------------------------------------------------------------------------


def _fuse_gelu(graph: EditedGraph, erf: NodeProto) -> None:
    """x * (1 + erf(x / sqrt 2)) * 0.5, as torch writes it, becomes Gelu(x)."""
    x, factor = _scaled(graph, erf.input[0])
    plus = graph.only_reader(erf.output[0], "Add")
    if plus is None or not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-6) or _other(graph, plus, erf) != 1:
        return
    product = graph.only_reader(plus.output[0], "Mul")
    if product is None or x not in product.input:
        return
    halved = graph.only_reader(product.output[0], "Mul")
    if halved is None or _other(graph, halved, product) != 0.5:
        return
    graph.drop(erf, plus, product, halved)
    graph.make("Gelu", [x], halved.output, erf.name.replace("Erf", "Gelu"), MICROSOFT)


def _other(graph: EditedGraph, node: NodeProto, known: NodeProto) -> float | None:
    """The number that a node combines another node's output with."""
    others = [name for name in node.input if name not in known.output]
    return graph.number(others[0]) if len(others) == 1 else None


def _scaled(graph: EditedGraph, name: str) -> tuple[str, float]:
    """What a value is a multiple of, and the number."""
    node = graph.maker(name, "Div", "Mul")
    number = graph.number(node.input[1]) if node is not None else None
    if node is None or number is None:
        return name, 1.0
    return node.input[0], 1.0 / number if node.op_type == "Div" else number


# -- attention ---------------------------------------------------------------------------------------------------------


class _Side(NamedTuple):
    """Keys or values: `rows` [batch, tokens, width] that are split into heads here, behind the `past` ones if there are
    any, both together `present` [batch, heads, tokens, head width]; or `present` alone, made or given elsewhere."""

    rows: str
    past: str
    present: str


class _Core(NamedTuple):
    """softmax(query @ keys^T * scale + bias) @ values. `query` and `out` are [batch, tokens, width]."""

    name: str
    query: str
    heads: int
    keys: _Side
    values: _Side
    scale: float
    bias: str
    out: NodeProto


def _core_at(graph: EditedGraph, softmax: NodeProto) -> _Core | None:
    mixed = graph.only_reader(softmax.output[0], "MatMul")
    joined = graph.only_reader(mixed.output[0], "Transpose") if mixed is not None else None
    out = graph.only_reader(joined.output[0], "Reshape") if joined is not None else None
    scores = _scores(graph, softmax.input[0])
    if (
        mixed is None
        or joined is None
        or out is None
        or scores is None
        or attribute(softmax, "axis", -1) not in {-1, 3}
    ):
        return None
    product, scale, bias = scores
    query = _split(graph, product.input[0], _HEADS_OUT)
    keys, values = _keys(graph, product.input[1]), _side(graph, mixed.input[1])
    usual = mixed.input[0] == softmax.output[0] and attribute(joined, "perm") == _HEADS_OUT
    if query is None or keys is None or values is None or not usual or attribute(softmax, "axis", -1) not in {-1, 3}:
        return None
    if bool(keys.rows) != bool(values.rows) or bool(keys.past) != bool(values.past):
        return None
    name = softmax.name.replace("Softmax", "MultiHeadAttention")
    return _Core(name, query[0], query[1], keys, values, scale, bias, out)


def _scores(graph: EditedGraph, name: str) -> tuple[NodeProto, float, str] | None:
    """The product of queries and keys behind what softmax reads, what it is multiplied with, and what is added."""
    added = graph.maker(name, "Add")
    for scores, bias in (name, ""), *((added.input[n], added.input[1 - n]) for n in (0, 1) if added is not None):
        unscaled, scale = _scaled(graph, scores)
        product = graph.maker(unscaled, "MatMul")
        if product is not None and graph.matrix(product.input[1]) is None:
            return product, scale, bias
    return None


def _keys(graph: EditedGraph, name: str) -> _Side | None:
    """Keys, of which a product reads the transpose. The exporter turns keys and splits heads in one step if it can."""
    turned = graph.maker(name, "Transpose")
    if turned is None:
        return None
    if attribute(turned, "perm") == _LAST_TURNED:
        return _side(graph, turned.input[0])
    split = _split(graph, name, _KEYS_TURNED)
    return None if split is None else _Side(split[0], "", "")


def _side(graph: EditedGraph, name: str) -> _Side | None:
    split = _split(graph, name, _HEADS_OUT)
    if split is not None:
        return _Side(split[0], "", "")
    grown = graph.maker(name, "Concat")
    if grown is None:
        return _Side("", "", name)
    added = _split(graph, grown.input[-1], _HEADS_OUT)
    if added is None or len(grown.input) != 2 or attribute(grown, "axis") not in {2, -2}:
        return _Side("", "", name)
    return _Side(added[0], grown.input[0], name)


def _split(graph: EditedGraph, name: str, order: list[int]) -> tuple[str, int] | None:
    """[batch, tokens, width] of what was made [batch, heads, tokens, head width] (or turned keys) of it; the heads."""
    turned = graph.maker(name, "Transpose")
    shaped = graph.maker(turned.input[0], "Reshape") if turned is not None else None
    if turned is None or shaped is None or attribute(turned, "perm") != order:
        return None
    sizes = _sizes(graph, shaped.input[1])
    heads = sizes[2] if len(sizes) == 4 else None
    return None if heads is None or heads <= 0 else (shaped.input[0], heads)


def _sizes(graph: EditedGraph, name: str) -> list[int | None]:
    """The numbers in a shape, None for those that only running tells."""
    known = graph.constant(name)
    if known is not None:
        return [int(one) for one in known.reshape(-1)]
    node = graph.maker(name, "Concat", "Unsqueeze")
    if node is None:
        return [None]
    if node.op_type == "Concat":
        return [one for part in node.input for one in _sizes(graph, part)]
    return _sizes(graph, node.input[0])[:1]


def _fuse_core(graph: EditedGraph, core: _Core, masks: _Masks) -> None:
    keys, values, bias = core.keys, core.values, core.bias
    attributes: dict[str, Any] = {"num_heads": core.heads, "scale": core.scale}
    found = masks.tokens(bias) if bias and not keys.past else None
    mask = ""
    if found is not None:
        mask, bias, attributes["mask_filter_value"] = found[0], "", found[1]
    elif bias:
        bias = masks.spread(bias, core.query)
    replaced, outputs = [core.out], [core.out.output[0]]
    if keys.past:
        outputs += [keys.present, values.present]
        replaced += [node for name in outputs[1:] if (node := graph.maker(name)) is not None]
    graph.drop(*replaced)
    inputs = [core.query, keys.rows or keys.present, values.rows or values.present, "", mask, bias]
    inputs = trimmed([*inputs, keys.past, values.past])
    graph.make("MultiHeadAttention", inputs, outputs, core.name, MICROSOFT, **attributes)


class _Masks:
    """What hides tokens, in the forms that MultiHeadAttention reads; each made once."""

    def __init__(self, graph: EditedGraph) -> None:
        self.graph = graph
        self.made: set[str] = set()

    def tokens(self, bias: str) -> tuple[str, float] | None:
        """The mask int32 [batch, tokens] whose zeros a bias [batch, 1, 1, tokens] hides, and what it adds there."""
        graph = self.graph
        product = graph.maker(bias, "Mul")
        hidden = graph.number(product.input[1]) if product is not None else None
        inverse = graph.maker(product.input[0], "Sub") if product is not None else None
        cast = graph.maker(inverse.input[1], "Cast") if inverse is not None else None
        if inverse is None or cast is None or hidden is None or graph.number(inverse.input[0]) != 1:
            return None
        mask = cast.input[0]
        for axis in (2, 1):
            spread = graph.maker(mask, "Unsqueeze")
            if spread is None or graph.number(spread.input[1]) != axis:
                return None
            mask = spread.input[0]
        return self._once(f"{mask}.int32", "Cast", [mask], to=TensorProto.INT32), hidden

    def spread(self, bias: str, query: str) -> str:
        """A bias that is broadcast over queries as one that has a row for each."""
        graph, name = self.graph, f"{bias}.of.{query}"
        one = graph.put("fuse.one", np.array([1], np.int64))
        length = self._once(f"{query}.tokens", "Shape", [query], start=1, end=2)
        shape = self._once(f"{name}.shape", "Concat", [one, one, length, one], axis=0)
        return self._once(name, "Expand", [bias, shape])

    def _once(self, name: str, kind: str, inputs: list[str], **attributes: Any) -> str:
        if name not in self.made:
            self.graph.make(kind, inputs, [name], name, **attributes)
            self.made.add(name)
        return name


# -- projections to query, key and value -------------------------------------------------------------------------------


class _Projection(NamedTuple):
    """x @ weight + bias; the weight is [out, in] if `turned`, else [in, out]."""

    x: str
    weight: str
    turned: bool
    bias: str
    nodes: tuple[NodeProto, NodeProto]


def _fuse_projections(graph: EditedGraph, node: NodeProto) -> None:
    """Attention takes the projections of one input into itself, where nothing else reads them."""
    if len(node.output) > 1 or len(node.input) > 6 or len(set(node.input[:3])) < _PROJECTIONS:
        return
    parts = [
        found
        for name in node.input[:3]
        if graph.only_reader(name, node.op_type) is not None and (found := _projection(graph, name)) is not None
    ]
    if len(parts) < _PROJECTIONS or len({part.x for part in parts}) > 1:
        return
    weights = [graph.constant(part.weight) for part in parts]
    columns = [one.T if part.turned else one for one, part in zip(weights, parts, strict=True) if one is not None]
    biases = [one for part in parts if (one := graph.constant(part.bias)) is not None]
    path = parts[0].weight.rpartition(".")[0].rpartition(".")[0]
    if not path or f"{path}.query_key_value.weight" in graph.weights:
        path = node.output[0]  # somebody's names need not tell layers apart
    weight = graph.put(f"{path}.query_key_value.weight", np.ascontiguousarray(np.concatenate(columns, axis=1)))
    bias = graph.put(f"{path}.query_key_value.bias", np.concatenate(biases))
    _, _, _, _, mask, added = [*node.input, "", "", ""][:6]
    inputs = trimmed([parts[0].x, weight, bias, mask, "", added])
    attributes: dict[str, Any] = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    attributes["qkv_hidden_sizes"] = [len(one) for one in biases]
    graph.drop(node, *(one for part in parts for one in part.nodes))
    name = node.name.replace("MultiHeadAttention", "Attention")
    graph.make("Attention", inputs, node.output, name, MICROSOFT, **attributes)


def _projection(graph: EditedGraph, name: str) -> _Projection | None:
    added = graph.maker(name, "Add")
    if added is None:
        return None
    for place in (0, 1):
        product, bias = graph.maker(added.input[place], "MatMul"), added.input[1 - place]
        vector = bias in graph.weights and len(graph.weights[bias].dims) == 1
        weight = graph.matrix(product.input[1]) if product is not None else None
        if product is not None and weight is not None and vector and len(graph.readers(product.output[0])) == 1:
            return _Projection(product.input[0], *weight, bias, (product, added))
    return None
