"""Weights once: a graph whose constants stand in another file, where that file already holds them.

ONNX's external data may point anywhere in a file beside the model, so into the protobuf of another model as well. What
a joined matrix holds in one piece (query, key and value one behind the other) is found inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, helper, numpy_helper

_LEAST_BYTES = 512
"""Smaller constants stay where they are: where they lie takes as much to say."""


def share_columns(models: Sequence[bytes]) -> list[bytes]:
    """The models with the word table of the widest in all: narrower ones are its first columns, cut out on loading."""
    protos = [onnx.load_from_string(model) for model in models]
    tables = [one for proto in protos for one in proto.graph.initializer if len(one.dims) == 2]
    for proto in protos:
        for narrow in list(proto.graph.initializer):
            wide = _wider(narrow, tables)
            if wide is not None:
                _cut_out(proto.graph, narrow, wide)
    return [proto.SerializeToString(deterministic=True) for proto in protos]


def _wider(narrow: TensorProto, tables: Sequence[TensorProto]) -> TensorProto | None:
    if len(narrow.dims) != 2 or narrow.ByteSize() < _LEAST_BYTES:
        return None
    rows, columns = narrow.dims
    array = None
    for wide in sorted(tables, key=lambda one: -one.dims[1]):
        if (wide.dims[0], wide.data_type) != (rows, narrow.data_type) or wide.dims[1] <= columns:
            continue
        array = numpy_helper.to_array(narrow) if array is None else array
        if np.array_equal(numpy_helper.to_array(wide)[:, :columns], array):
            return wide
    return None


def _cut_out(graph: GraphProto, narrow: TensorProto, wide: TensorProto) -> None:
    whole = f"{wide.name}.{wide.dims[1]}"
    cut = {f"{narrow.name}.start": 0, f"{narrow.name}.stop": narrow.dims[1], f"{narrow.name}.axis": 1}
    node = helper.make_node("Slice", [whole, *cut], [narrow.name], f"{narrow.name}.columns")
    graph.node.insert(0, node)
    graph.initializer.remove(narrow)
    if all(one.name != whole for one in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(wide), whole))
    graph.initializer.extend(numpy_helper.from_array(np.array([place], np.int64), name) for name, place in cut.items())


def point_into(holder: bytes, model: bytes, location: str) -> bytes:
    """The model without the constants that `holder` holds; it says where they lie in the file `location` beside it."""
    places = Places(holder)
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        place = places.find(raw) if len(raw) >= _LEAST_BYTES else -1
        if place >= 0:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", place), ("length", len(raw))):
                tensor.external_data.add(key=key, value=str(value))
    return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


class Places:
    """Where the constants of a serialised model lie in it."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.known: dict[bytes, int] = {}
        start = 0
        for tensor in _tensors(onnx.load_from_string(model).graph):
            if len(tensor.raw_data) >= _LEAST_BYTES:
                start = model.index(tensor.raw_data, start)
                self.known.setdefault(tensor.raw_data, start)
                start += len(tensor.raw_data)

    def find(self, raw: bytes) -> int:
        """The place of these bytes; -1 where the model does not hold them."""
        return self.known[raw] if raw in self.known else self.model.find(raw)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The constants of a graph, and of those inside it, in the order in which protobuf writes them."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
    yield from graph.initializer
