"""What all rewriting of weights shares: which nodes multiply or look up a module's weight; a graph on its way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolchain.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

_KNOWN = frozenset({"MatMul", "Gemm", "Gather", "Transpose"})


class Product(NamedTuple):
    """A node that multiplies `x` [..., in] with a constant weight.

    `by_rows` says that the weight is stored [out, in], as torch does; else it is [in, out]. `bias` [out] is what the
    node itself adds.
    """

    node: NodeProto
    x: str
    weight: str
    by_rows: bool
    bias: str | None


def module_of(node: NodeProto) -> str:
    """The path of the module that a node was traced in: `blocks.0.fc1` of `/blocks.0/fc1/MatMul`."""
    return str(node.name).rpartition("/")[0].strip("/").replace("/", ".")


class Rewriting:
    """One graph on its way: the nodes of the modules that are to change, the new nodes in order, the new constants.

    Raises:
        UsageError: a node of these modules reads a matrix in a way that no product and no look-up does, or two products
            read one matrix in two ways.
    """

    def __init__(self, model: bytes, modules: Collection[str]) -> None:
        self.proto = onnx.load_from_string(model)
        self.graph, self.modules = self.proto.graph, frozenset(modules)
        self.weights = {one.name: one for one in self.graph.initializer}
        self.transposed = {
            node.output[0]: node.input[0]
            for node in self.graph.node
            if node.op_type == "Transpose" and node.input[0] in self.weights
        }
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.made: set[str] = set()
        for node in self.graph.node:
            self._check(node)
        self._check_sides()

    def product(self, node: NodeProto) -> Product | None:
        """The product of a chosen module that this node is; None where it is none."""
        if module_of(node) not in self.modules or node.op_type not in {"MatMul", "Gemm"}:
            return None
        weight = node.input[1]
        if node.op_type == "Gemm":
            by_rows = any(one.name == "transB" and one.i for one in node.attribute)
            bias = node.input[2] if len(node.input) > 2 else None
            return Product(node, node.input[0], weight, by_rows, bias) if weight in self.weights else None
        if weight in self.transposed:
            return Product(node, node.input[0], self.transposed[weight], True, None)
        return Product(node, node.input[0], weight, False, None) if weight in self.weights else None

    def products(self) -> Iterator[Product]:
        """The products of the chosen modules, in the graph's order."""
        return (found for node in self.graph.node if (found := self.product(node)) is not None)

    def bias_of(self, product: Product) -> tuple[str | None, NodeProto]:
        """What is added to a product, [out], by the node itself or by the one Add that reads it; and that node."""
        if product.bias is not None:
            return product.bias, product.node
        (out,) = product.node.output
        readers = [node for node in self.graph.node if out in node.input]
        if len(readers) == 1 and readers[0].op_type == "Add" and out not in {one.name for one in self.graph.output}:
            others = [name for name in readers[0].input if name != out]
            if others and others[0] in self.weights and len(self.weights[others[0]].dims) == 1:
                return others[0], readers[0]
        return None, product.node

    def looks_up(self, node: NodeProto) -> bool:
        """Does a chosen module look up rows of a constant table here?"""
        return (
            node.op_type == "Gather"
            and node.input[0] in self.weights
            and module_of(node) in self.modules
            and len(self.weights[node.input[0]].dims) == 2
            and all(one.i == 0 for one in node.attribute if one.name == "axis")
        )

    def read_elsewhere(self) -> set[str]:
        """The weights that something reads besides products and look-ups of the chosen modules."""
        found: set[str] = set()
        for node in self.graph.node:
            product = self.product(node)
            if product is None and not self.looks_up(node) and node.output[0] not in self.transposed:
                found |= {self.transposed.get(name, name) for name in node.input} & self.weights.keys()
        return found

    def rows(self, weight: str, *, by_rows: bool = True) -> npt.NDArray[np.float32]:
        """The weight as [out, in]."""
        values = numpy_helper.to_array(self.weights[weight])
        return values if by_rows else np.ascontiguousarray(values.T)

    def add(self, kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self.add_all(kind, inputs, [output], name, **attributes)

    def add_all(self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any) -> None:
        """A new node with any number of outputs."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, name, **attributes))
        self.made.update(outputs)

    def constant(self, name: str, values: npt.NDArray[Any]) -> None:
        self.constants[name] = numpy_helper.from_array(values, name)

    def finish(self) -> bytes:
        """The model of the new nodes and constants, without what nothing reads any more."""
        read = self._read(self.nodes)
        nodes = [
            node
            for node in self.nodes
            if not (node.op_type == "Transpose" and node.output[0] in self.transposed and node.output[0] not in read)
        ]
        read = self._read(nodes)
        kept = [one for one in self.graph.initializer if one.name in read]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend([*kept, *(one for name, one in self.constants.items() if name in read)])
        if any(node.domain == "com.microsoft" for node in nodes):
            self._import("com.microsoft", 1)
        onnx.checker.check_model(self.proto)
        return self.proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def _check(self, node: NodeProto) -> None:
        if module_of(node) not in self.modules:
            return
        matrices = [name for name in node.input if name in self.weights and len(self.weights[name].dims) > 1]
        plain = all(one.f == 1 for one in node.attribute if one.name in {"alpha", "beta"}) and not any(
            one.i for one in node.attribute if one.name == "transA"
        )
        if matrices and (node.op_type not in _KNOWN or node.domain or not plain):
            raise UsageError(
                f"the weight {matrices[0]} cannot be quantised",
                why=f"the operator {node.op_type} of {module_of(node)} reads it; only products and look-ups are known",
                hint="quantise before operators are fused, or leave the module at fp32",
            )

    def _check_sides(self) -> None:
        sides: dict[str, bool] = {}
        for one in self.products():
            if sides.setdefault(one.weight, one.by_rows) != one.by_rows:
                why = "one product reads it as [in, out], another as [out, in]"
                raise UsageError(f"the weight {one.weight} cannot be quantised", why=why)

    def _import(self, domain: str, version: int) -> None:
        if all(one.domain != domain for one in self.proto.opset_import):
            self.proto.opset_import.append(helper.make_opsetid(domain, version))

    def _read(self, nodes: list[NodeProto]) -> set[str]:
        return {name for node in nodes for name in node.input} | {one.name for one in self.graph.output}
