"""Weight matrices of an ONNX file become int8, module by module; what multiplies them is quantised as it comes.

The operators and numbers are those of ONNX Runtime's own `quantize_dynamic` (per channel, reduced range), which takes
seconds where this takes hundredths of one, and knows nothing of a table that serves as the decoder too: README.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import numpy.typing as npt

INT8_RECIPE = "int8-dynamic-7bit-v1"
"""Names how weights are quantised; added to the recipe of the file they come from."""

_MULTIPLIED = 64
"""Seven bits: two products of 255 * 64 still fit the 16 bits that AVX2 adds them in. With eight the sums saturate
there, and only there: the same file would answer otherwise on another machine."""
_LOOKED_UP = 127
_LAST_AXIS = "int8.last_axis"


def quantise(model: bytes, modules: Collection[str]) -> bytes:
    """The model with the weights of these modules as int8, one scale for each row [out, in]; the same for the same.

    A MatMul or Gemm of a module named here multiplies integers: its input is quantised on the way, one scale for the
    whole tensor. A table that is looked up is stored as int8 alone, and whatever else reads it reads that.

    Args:
        model: as the tracing exporter writes it: nodes are named by the path of their module, weights are [out, in].
        modules: paths like `blocks.0.fc1`.
    """
    proto = onnx.load_from_string(model)
    _Rewriting(proto.graph, frozenset(modules)).rewrite()
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def module_of(node: NodeProto) -> str:
    """The path of the module that a node was traced in: `blocks.0.fc1` of `/blocks.0/fc1/MatMul`."""
    return str(node.name).rpartition("/")[0].strip("/").replace("/", ".")


class _Rewriting:
    """One graph on its way: its nodes in order, and the constants they need."""

    def __init__(self, graph: Any, modules: frozenset[str]) -> None:
        self.graph, self.modules = graph, modules
        self.weights = {one.name: one for one in graph.initializer}
        self.transposed = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Transpose" and node.input[0] in self.weights
        }
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.made: set[str] = set()
        chosen = [node for node in graph.node if module_of(node) in modules]
        self.tables = {node.input[0] for node in chosen if node.op_type == "Gather" and node.input[0] in self.weights}
        self.multiplied = {weight for node in chosen if (weight := self._multiplies(node)) is not None}

    def rewrite(self) -> None:
        for weight in sorted(self.tables | self.multiplied):
            self._store(weight)
        for node in self.graph.node:
            weight = self._multiplies(node)
            if node.op_type == "Gather" and node.input[0] in self.tables:
                self._look_up(node)
            elif weight is not None and module_of(node) in self.modules:
                self._multiply(node, weight)
            else:
                self._keep(node)
        self._settle()

    def _multiplies(self, node: NodeProto) -> str | None:
        """The constant weight that a node multiplies its input with; None where it does nothing of the kind."""
        if node.op_type == "MatMul":
            return self.transposed.get(node.input[1])
        return node.input[1] if node.op_type == "Gemm" and node.input[1] in self.weights else None

    def _store(self, weight: str) -> None:
        """The weight [out, in] as int8, and its scales [out]."""
        limit = _MULTIPLIED if weight in self.multiplied else _LOOKED_UP
        values, scales = _rows(numpy_helper.to_array(self.weights[weight]), limit)
        self._constant(f"{weight}.int8", values)
        self._constant(f"{weight}.scale", scales)

    def _look_up(self, node: NodeProto) -> None:
        """Rows of a table, each times its scale."""
        table, ids, (out,) = node.input[0], node.input[1], node.output
        self._constant(_LAST_AXIS, np.array([-1], np.int64))
        self._add("Gather", [f"{table}.int8", ids], f"{out}.int8", node.name)
        self._add("Cast", [f"{out}.int8"], f"{out}.cast", f"{node.name}.cast", to=TensorProto.FLOAT)
        self._add("Gather", [f"{table}.scale", ids], f"{out}.flat", f"{node.name}.flat")
        self._add("Unsqueeze", [f"{out}.flat", _LAST_AXIS], f"{out}.scale", f"{node.name}.scale")
        self._add("Mul", [f"{out}.cast", f"{out}.scale"], out, f"{node.name}.scaled")

    def _multiply(self, node: NodeProto, weight: str) -> None:
        """What ONNX Runtime fuses into one kernel: quantise, multiply integers, scale."""
        x, (out,), name = node.input[0], node.output, node.name
        if not {f"{x}.int8", f"{x}.scale", f"{x}.zero"} <= self.made:  # query, key and value read the same
            outputs = [f"{x}.int8", f"{x}.scale", f"{x}.zero"]
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], outputs, f"{name}.quantise"))
            self.made.update(outputs)
        self._transpose(f"{weight}.int8")
        product = f"{out}.product" if node.op_type == "Gemm" else out
        integers = [f"{x}.int8", f"{weight}.int8.T", f"{x}.zero"]
        self._add("MatMulInteger", integers, f"{out}.sum", name)
        self._add("Cast", [f"{out}.sum"], f"{out}.cast", f"{name}.cast", to=TensorProto.FLOAT)
        self._add("Mul", [f"{x}.scale", f"{weight}.scale"], f"{out}.scale", f"{name}.scale")
        self._add("Mul", [f"{out}.cast", f"{out}.scale"], product, f"{name}.scaled")
        if node.op_type == "Gemm":
            self._add("Add", [product, node.input[2]], out, f"{name}.bias")

    def _keep(self, node: NodeProto) -> None:
        """A node as it was; where it reads a table that is int8 now, it gets that as floats, made on loading."""
        for place, name in enumerate(node.input):
            if name in self.tables:
                node.input[place] = self._floats(name)
        self.nodes.append(node)

    def _floats(self, table: str) -> str:
        floats = f"{table}.floats"
        if floats not in self.made:
            self._constant(_LAST_AXIS, np.array([-1], np.int64))
            self._add("Cast", [f"{table}.int8"], f"{table}.cast", f"{table}.cast", to=TensorProto.FLOAT)
            self._add("Unsqueeze", [f"{table}.scale", _LAST_AXIS], f"{table}.column", f"{table}.column")
            self._add("Mul", [f"{table}.cast", f"{table}.column"], floats, floats)
        return floats

    def _transpose(self, weight: str) -> None:
        """[in, out], as a product wants it; ONNX Runtime does it once, on loading."""
        if f"{weight}.T" not in self.made:
            self._add("Transpose", [weight], f"{weight}.T", f"{weight}.T", perm=[1, 0])

    def _add(self, kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        self.made.add(output)

    def _constant(self, name: str, values: npt.NDArray[Any]) -> None:
        self.constants[name] = numpy_helper.from_array(values, name)

    def _settle(self) -> None:
        """Put nodes and constants in place, without what nothing reads any more."""
        read = _read(self.nodes)
        nodes = [
            node
            for node in self.nodes
            if not (node.op_type == "Transpose" and node.output[0] in self.transposed and node.output[0] not in read)
        ]
        read = _read(nodes)
        kept = [one for one in self.graph.initializer if one.name in read]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend([*kept, *self.constants.values()])


def _read(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input}


def _rows(weight: npt.NDArray[np.float32], limit: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Whole numbers up to `limit` for [out, in], and the scale of each row: [out]. A row of zeros has scale 1."""
    scales = np.abs(weight).max(axis=1) / np.float32(limit)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    values = np.clip(np.rint(weight / scales[:, None]), -limit, limit).astype(np.int8)
    return values, scales
