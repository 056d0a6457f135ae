"""The likeliest word without reading the whole word table in fp32, and still exactly that word.

Half of a small decoder's numbers are its word table, and a step of one row takes as long as reading them takes. So the
logits are first computed roughly, from the table in eight bits; those of the most promising words again, in fp32. How
far rough logits can be off is bounded (Cauchy-Schwarz, with the rounding errors of table and input); where the bound
does not rule all other words out, the whole product is computed after all. The table in eight bits is not stored: it is
a formula of constants, which ONNX Runtime works out on loading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolchain.export.stepping import Graph

_BLOCK = 128
_LEAST_BYTES = 4 << 20
"""A smaller table stays in the caches, where there is nothing to win."""
_PROMISING = 64
_EIGHT_BITS = {"bits": 8, "accuracy_level": 4}
_SLACK = 1.001
"""For what the bound itself loses by rounding."""


def can_screen(table: TensorProto) -> bool:
    """Is this table [words, width], fp32, large enough to be worth it?"""
    if len(table.dims) != 2 or table.data_type != TensorProto.FLOAT:
        return False
    words, width = table.dims
    return bool(width % _BLOCK == 0 and 4 * words * width >= _LEAST_BYTES and words > 16 * _PROMISING)


def screen(main: Graph, body: Graph, product: NodeProto, table: str, sizes: tuple[int, int], barred: str) -> None:
    """In the body, instead of `product` and its ArgMax: the value `likeliest` [batch, 1].

    Args:
        product: what multiplies x [batch, 1, width] with the table; it goes into the branch that is hardly ever taken.
        table: the name of the constant [words, width], which the graph outside holds.
        barred: what is added to logits [.., words]: -inf for what may not be said.
    """
    width = sizes[1]
    x, logits = product.input[0], product.output[0]
    _round_table(_Adding(main), table, sizes)
    add = _Adding(body)
    rough = [x, "screen.values", "screen.scales"]
    add(
        "MatMulNBits",
        rough,
        "screen.rough",
        domain="com.microsoft",
        K=width,
        N=sizes[0],
        bits=8,
        block_size=_BLOCK,
        accuracy_level=4,
    )
    add("Add", ["screen.rough", barred], "screen.possible")
    add("TopK", ["screen.possible", add.put("screen.count", [_PROMISING])], "screen.best", "screen.words", axis=-1)
    add("Gather", [table, "screen.words"], "screen.rows")  # [batch, 1, promising, width]
    add("Unsqueeze", [x, add.put("screen.last", [-1])], "screen.column")
    add("MatMul", ["screen.rows", "screen.column"], "screen.exact")  # [batch, 1, promising, 1]
    add("ArgMax", ["screen.exact"], "screen.which", axis=2, keepdims=0)  # [batch, 1, 1]
    add("GatherElements", ["screen.words", "screen.which"], "screen.word", axis=2)
    # The last promising word's rough logit, and how far others may be above theirs.
    add("ReduceMin", ["screen.best"], "screen.others", axes=[2], keepdims=0)
    add("ReduceL2", [x], "screen.length", axes=[2], keepdims=0)
    add("Mul", ["screen.length", "screen.table_error"], "screen.by_table")
    add("Abs", [x], "screen.absolute")
    add("ReduceMax", ["screen.absolute"], "screen.reach", axes=[2], keepdims=0)
    add("Mul", ["screen.reach", "screen.input_error"], "screen.by_input")
    add("Sum", ["screen.others", "screen.by_table", "screen.by_input"], "screen.most")
    add("ReduceMax", ["screen.exact"], "screen.reached", axes=[2, 3], keepdims=0)
    add("Greater", ["screen.reached", "screen.most"], "screen.sure")
    add("Cast", ["screen.sure"], "screen.sure.number", to=TensorProto.INT32)
    add("ReduceMin", ["screen.sure.number"], "screen.all", keepdims=0)
    add("Cast", ["screen.all"], "screen.certain", to=TensorProto.BOOL)
    body.nodes.remove(product)
    turn = next(node for node in body.nodes if node.output[0] == product.input[1])
    body.nodes.remove(turn)
    sure = [helper.make_node("Squeeze", ["screen.word", "screen.last"], ["screen.found"], "/screen/found")]
    whole = [
        turn,
        product,
        helper.make_node("Add", [logits, barred], ["screen.whole"], "/screen/whole"),
        helper.make_node("ArgMax", ["screen.whole"], ["screen.likeliest"], "/screen/likeliest", axis=-1, keepdims=0),
    ]
    branches = {"then_branch": _branch(sure, "screen.found"), "else_branch": _branch(whole, "screen.likeliest")}
    add("If", ["screen.certain"], "likeliest", **branches)


def _round_table(add: _Adding, table: str, sizes: tuple[int, int]) -> None:
    """The table in blocks of eight bits, and by how much at most a logit errs for each unit of input."""
    words, width = sizes
    blocks = width // _BLOCK
    add("Reshape", [table, add.put("screen.shape", [words, blocks, _BLOCK])], "screen.table")
    add("Abs", ["screen.table"], "screen.sizes")
    add("ReduceMax", ["screen.sizes"], "screen.largest", axes=[2], keepdims=1)
    add("Div", ["screen.largest", add.number("screen.127", 127.0)], "screen.steps")
    add("Max", ["screen.steps", add.number("screen.tiny", 1e-30)], "screen.step")
    add("Div", ["screen.table", "screen.step"], "screen.divided")
    add("Round", ["screen.divided"], "screen.rounded")
    add("Add", ["screen.rounded", add.number("screen.128", 128.0)], "screen.shifted")
    add("Cast", ["screen.shifted"], "screen.values", to=TensorProto.UINT8)
    add("Reshape", ["screen.step", add.put("screen.flat", [words, blocks])], "screen.scales")
    add("Mul", ["screen.rounded", "screen.step"], "screen.again")
    add("Sub", ["screen.table", "screen.again"], "screen.error")
    for of, to, factor in (("error", "table", 1.0), ("again", "input", math.sqrt(width) / 254)):
        add("ReduceL2", [f"screen.{of}"], f"screen.{to}_norms", axes=[1, 2], keepdims=0)
        add("ReduceMax", [f"screen.{to}_norms"], f"screen.{to}_norm", keepdims=0)
        add("Mul", [f"screen.{to}_norm", add.number(f"screen.{to}_factor", _SLACK * factor)], f"screen.{to}_error")


def _branch(nodes: list[NodeProto], output: str) -> Any:
    value = helper.make_tensor_value_info(output, TensorProto.INT64, ["batch", 1])
    return helper.make_graph(nodes, output, [], [value])


class _Adding:
    """Appends nodes and constants to a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> None:
        name = outputs[0].replace("screen.", "/screen/")
        self.graph.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name, **attributes))

    def put(self, name: str, numbers: Sequence[int]) -> str:
        self.graph.constants[name] = numpy_helper.from_array(np.array(numbers, np.int64), name)
        return name

    def number(self, name: str, value: float) -> str:
        self.graph.constants[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name
