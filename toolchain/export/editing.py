"""An ONNX graph while its operators are exchanged for others: who makes a value, who reads it, what constants hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import numpy.typing as npt

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class EditedGraph:
    """A model's graph. `make` adds nodes, `drop` removes them, in any order; `finish` puts them in order.

    A new node may make a value of the same name as a dropped one did: whoever reads it reads that.
    """

    def __init__(self, model: bytes) -> None:
        self.proto = onnx.load_from_string(model)
        graph = self.proto.graph
        self.weights: dict[str, TensorProto] = {one.name: one for one in graph.initializer}
        self.outputs = [one.name for one in graph.output]
        self._inputs = {one.name for one in graph.input}
        self._maker: dict[str, NodeProto] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            self.enter(node)

    @property
    def nodes(self) -> list[NodeProto]:
        """What the outputs need, each node after all it reads; the same order for the same graph."""
        found: list[NodeProto] = []
        seen: set[int] = set()
        waiting = [(node, False) for name in reversed(self.outputs) if (node := self._maker.get(name)) is not None]
        while waiting:
            node, read = waiting.pop()
            if read:
                found.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                waiting.append((node, True))
                makers = [self._maker[name] for name in _reads(node) if name in self._maker]
                waiting.extend((one, False) for one in reversed(makers))
        return found

    def maker(self, name: str, *kinds: str) -> NodeProto | None:
        """The node that makes a value, if it is of one of these kinds (of any, where none is named)."""
        node = self._maker.get(name)
        return node if node is not None and (not kinds or node.op_type in kinds) else None

    def readers(self, name: str) -> list[NodeProto]:
        return self._readers.get(name, [])

    def only_reader(self, name: str, *kinds: str) -> NodeProto | None:
        """The one node that reads a value nobody else does, if it is of one of these kinds."""
        readers = self.readers(name)
        alone = len(readers) == 1 and name not in self.outputs
        return readers[0] if alone and readers[0].op_type in kinds else None

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of a weight or of a Constant node."""
        if name in self.weights:
            return numpy_helper.to_array(self.weights[name])
        node = self.maker(name, "Constant")
        tensor = attribute(node, "value") if node is not None else None
        return None if tensor is None else numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        """The value of a constant that is one number."""
        array = self.constant(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def matrix(self, name: str) -> tuple[str, bool] | None:
        """The two-dimensional weight that a value is; and whether it is that transposed."""
        node = self.maker(name, "Transpose")
        turned = node is not None and attribute(node, "perm") == [1, 0]
        weight = node.input[0] if node is not None and turned else name
        tensor = self.weights.get(weight)
        return (weight, turned) if tensor is not None and len(tensor.dims) == 2 else None

    def make(
        self, kind: str, inputs: Iterable[str], outputs: Iterable[str], name: str, domain: str = "", **attributes: Any
    ) -> NodeProto:
        """A new node. Raises ValueError where another one makes one of its outputs: drop that first."""
        node = helper.make_node(kind, list(inputs), list(outputs), name, domain=domain, **attributes)
        return self.enter(node)

    def enter(self, node: NodeProto) -> NodeProto:
        """The same with a node that is there already."""
        taken = [output for output in node.output if output in self._maker]
        if taken:
            raise ValueError(f"{node.name}: {taken[0]} is made already")
        for output in filter(None, node.output):
            self._maker[output] = node
        for name in set(_reads(node)):
            self._readers.setdefault(name, []).append(node)
        return node

    def put(self, name: str, values: npt.NDArray[Any]) -> str:
        """A new constant; the name is its content's, so that the same is put once."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(values, name)
        return name

    def drop(self, *nodes: NodeProto) -> None:
        for node in nodes:
            for output in node.output:
                self._maker.pop(output, None)
            for name in set(_reads(node)):
                self._readers[name] = [one for one in self._readers[name] if one is not node]

    def reroute(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node read another value at one of its inputs."""
        self.drop(node)
        node.input[place] = name
        self.enter(node)

    def sweep(self) -> None:
        """Drop what the outputs do not need, so that it counts as nobody's reader."""
        needed = {id(node) for node in self.nodes}
        self.drop(*(node for node in list(self._maker.values()) if id(node) not in needed))

    def finish(self) -> bytes:
        """The model, without what its outputs do not need; the same bytes for the same edits."""
        graph, nodes = self.proto.graph, self.nodes
        read = {name for node in nodes for name in _reads(node)} | set(self.outputs)
        kept = [one for name, one in self.weights.items() if name in read]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept)
        domains = {one.domain for one in self.proto.opset_import}
        if MICROSOFT not in domains and any(node.domain == MICROSOFT for node in nodes):
            self.proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        onnx.checker.check_model(self.proto)
        return self.proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, as Python has it."""
    found = next((one for one in node.attribute if one.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def trimmed(inputs: list[str]) -> list[str]:
    """A node's inputs without the empty names at the end, of what it may have and has not."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def all_nodes(graph: Any) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs within them (of loops and branches)."""
    for node in graph.node:
        yield node
        for inner in _graphs(node):
            yield from all_nodes(inner)


def _graphs(node: NodeProto) -> Iterator[Any]:
    for one in node.attribute:
        if one.type == AttributeProto.GRAPH:
            yield one.g
        elif one.type == AttributeProto.GRAPHS:
            yield from one.graphs


def _reads(node: NodeProto) -> list[str]:
    """The values that a node reads, those that graphs within it may read of this one included."""
    inner = [name for graph in _graphs(node) for one in all_nodes(graph) for name in one.input]
    inner += [one.name for graph in _graphs(node) for one in graph.output]
    return [name for name in (*node.input, *inner) if name]
