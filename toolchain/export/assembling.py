"""Encoder, first step and next step of a translator become one graph: source tokens in, words of a translation out.

The greedy loop runs inside (ONNX Loop), so whoever has a runtime can translate with one call, in any language. The
parts are in optimum's names (encoder_model, decoder_model, decoder_with_past_model), whoever traced them. Of the first
step only the keys and values of the source are kept; the loop begins with the next step and an empty past.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from toolchain.errors import UsageError
from toolchain.export.screening import can_screen, screen
from toolchain.export.stepping import Graph, fuse_step

_NOTHING = np.float32(-np.inf)
_IR_VERSION = 8
_SMALL = 1024
"""Bytes: a constant as small as this may stand in both graphs, where each can be worked with alone."""
_PAST = re.compile(r"past_key_values\.(\d+)\.(decoder|encoder)\.(key|value)")


class Marks(Protocol):
    """The ids of the tokens that frame a translation, and of those that are never part of one."""

    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def never(self) -> tuple[int, ...]: ...


def assemble(encoder: bytes, first: bytes, step: bytes, marks: Marks, *, fused: bool = True) -> bytes:
    """One model that translates greedily.

    Inputs, all int64: input_ids, attention_mask [batch, source]; shortest, longest [1]. Output: output_ids int64
    [batch, words], each row from the first word on; a row that has ended is filled up with the end mark. A row has at
    most twice its source's tokens and ten words, at most `longest`, and none ends before `shortest`; both equal force a
    number.

    Args:
        fused: with ONNX Runtime's own operators in the step; else with standard ones (where the parts have no others).

    Raises:
        UsageError: the parts are not those of a translator with keys and values.
    """
    parts = _Part(encoder, "encoder"), _Part(first, "first"), _Part(step, "step")
    built = _Assembly(*parts, marks)
    built.build(fused=fused)
    return built.model()


class _Part:
    """One of the three models; the values inside it have a prefix, so that they are not taken for another's."""

    def __init__(self, model: bytes, name: str) -> None:
        self.proto = onnx.load_from_string(model)
        self.name = name
        graph = self.proto.graph
        self.inputs = {one.name: one for one in graph.input}
        self.outputs = [one.name for one in graph.output]
        self.opset = max(one.version for one in self.proto.opset_import if one.domain in {"", "ai.onnx"})
        self.constants = {one.name: one for one in graph.initializer}
        self.nodes: list[NodeProto] = []
        same: dict[str, str] = {}
        for node in graph.node:
            for place, read in enumerate(node.input):
                node.input[place] = same.get(read, read)
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _constant(node)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                same[node.output[0]] = node.input[0]
            else:
                self.nodes.append(node)

    def renamed(self, given: dict[str, str]) -> Graph:
        """Its graph with these values under other names."""

        def name_of(value: str) -> str:
            return value and given.get(value, f"{self.name}:{value}")

        nodes = [_renamed(node, name_of, self.name) for node in self.nodes]
        constants = {}
        for name, tensor in self.constants.items():
            constants[name_of(name)] = tensor
        return Graph(nodes, constants)


class _Assembly:
    """The whole graph on its way: what runs once, and the body of the loop."""

    def __init__(self, encoder: _Part, first: _Part, step: _Part, marks: Marks) -> None:
        self.parts, self.marks = (encoder, first, step), marks
        self.layers = _layers(step)
        self.past = [name for name in step.inputs if (found := _PAST.fullmatch(name)) and found[2] == "decoder"]
        self.float = step.inputs[self.past[0]].type.tensor_type.elem_type
        self.main, self.body = Graph([], {}), Graph([], {})

    def build(self, *, fused: bool) -> None:
        self._say("input_ids")
        encoder, first, step = self.parts
        self._begin()
        reading = encoder.renamed({"input_ids": "input_ids", "attention_mask": "attention_mask"})
        hidden = f"encoder:{encoder.outputs[0]}"
        known = {"encoder_attention_mask": "attention_mask", "encoder_hidden_states": hidden}
        beginning = first.renamed(known | {"input_ids": "begin"})
        source = {
            name: f"first:{name.replace('past_key_values', 'present')}"
            for name in step.inputs
            if (found := _PAST.fullmatch(name)) and found[2] == "encoder"
        }
        once = [*reading.nodes, *_needed(beginning.nodes, set(source.values()))]
        stepping = step.renamed(known | source | {"input_ids": "word"})
        if fused:
            fuse_step(stepping, self._heads(), [f"step:{name}" for name in step.outputs])
        varying = _varying(stepping, {"word", *(f"step:{name}" for name in self.past)})
        constant = _computed(stepping, set(stepping.constants))
        hoisted = [node for node in stepping.nodes if node.output[0] not in varying | constant]
        inside = [node for node in stepping.nodes if node.output[0] in varying]
        fixed = [node for node in stepping.nodes if node.output[0] in constant]
        self.main.nodes.extend([*once, *_needed([*fixed, *hoisted], _read(hoisted) | _written(hoisted))])
        self.body.nodes.extend(_needed([*fixed, *inside], _read(inside) | _written(inside)))
        self._place({**reading.constants, **beginning.constants, **stepping.constants})
        self._choose(fused=fused)
        self._loop()

    # -- the parts around the step ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """What the loop starts with: one word each, an empty past, and how far each row may go."""
        add, put = self._adder(self.main), self._putter(self.main)
        add("Shape", ["input_ids"], "ids.shape")
        add("Slice", ["ids.shape", put("zero", [0]), put("one", [1])], "batch")
        add("Concat", ["batch", "one"], "column", axis=0)
        add("Expand", [put("begin.mark", [[self.marks.begin]]), "column"], "begin")
        add(
            "ConstantOfShape", ["column"], "ended.first", value=helper.make_tensor("no", TensorProto.BOOL, [1], [False])
        )
        add("ReduceSum", ["attention_mask", "one"], "source.length", keepdims=1)
        add("Mul", ["source.length", put("two", [2])], "source.twice")
        add("Add", ["source.twice", put("ten", [10])], "source.most")
        add("Min", ["source.most", "longest"], "source.limit")
        add("Max", ["source.limit", "shortest"], "allowed")
        add("ReduceMax", ["allowed"], "steps", keepdims=0)
        for heads, width in sorted(set(self.layers)):
            shape, value = put(f"past.{heads}x{width}", [heads, 0, width]), _nothing(heads, width)
            add("Concat", ["batch", shape], f"{value}.shape", axis=0)
            empty = helper.make_tensor("nothing", self.float, [1], [0.0])
            add("ConstantOfShape", [f"{value}.shape"], value, value=empty)

    def _choose(self, *, fused: bool) -> None:
        """From logits to the next word of each row, and whether all have ended."""
        add, put = self._adder(self.body), self._putter(self.body)
        vocabulary = self._vocabulary()
        barred = np.zeros((2, vocabulary), np.float32)
        barred[:, list(self.marks.never)] = _NOTHING
        barred[1, self.marks.end] = _NOTHING
        add("Less", ["place", "shortest"], "early")  # [1]
        add("Cast", ["early"], "early.row", to=TensorProto.INT64)
        kind = helper.tensor_dtype_to_np_dtype(self.float)
        self.body.constants["barred"] = numpy_helper.from_array(barred.astype(kind), "barred")
        add("Gather", ["barred", "early.row"], "barred.now")  # [1, vocabulary]
        if fused and (found := self._screenable()) is not None:
            product, table = found
            sizes = tuple(self.main.constants[table].dims)
            screen(self.main, self.body, product, table, (sizes[0], sizes[1]), "barred.now")
        else:
            add("Add", ["step:logits", "barred.now"], "possible")
            add("ArgMax", ["possible"], "likeliest", axis=-1, keepdims=0)  # [batch, 1]
        add("LessOrEqual", ["allowed", "place"], "over")
        add("Or", ["ended", "over"], "stopped")
        add("Where", ["stopped", put("end.mark", [[self.marks.end]]), "likeliest"], "chosen")
        add("Equal", ["chosen", "end.mark"], "ended.now")
        add("Or", ["ended", "ended.now"], "ended.next")
        add("Cast", ["ended.next"], "ended.number", to=TensorProto.INT32)
        add("ReduceMin", ["ended.number"], "ended.all", keepdims=0)
        self.body.constants["nobody"] = numpy_helper.from_array(np.array(0, np.int32))
        add("Equal", ["ended.all", "nobody"], "going")

    def _screenable(self) -> tuple[NodeProto, str] | None:
        """The product that gives the logits, and its table, where the likeliest word can be found without it."""
        made = {node.output[0]: node for node in self.body.nodes}
        product = made.get("step:logits")
        turn = made.get(product.input[1]) if product is not None and product.op_type == "MatMul" else None
        if product is None or turn is None or turn.op_type != "Transpose":
            return None
        table = self.main.constants.get(turn.input[0])
        return (product, turn.input[0]) if table is not None and can_screen(table) else None

    def _loop(self) -> None:
        add = self._adder(self.main)
        self.main.constants["yes"] = numpy_helper.from_array(np.array(True), "yes")
        shapes: list[list[Any]] = [["batch", heads, None, width] for heads, width in self.layers for _ in range(2)]
        past = [f"step:{name}" for name in self.past]
        present = [f"step:{name.replace('past_key_values', 'present')}" for name in self.past]
        self._adder(self.body)("Identity", ["chosen"], "said")
        self.inputs = [
            _value("place", TensorProto.INT64, []),
            _value("go", TensorProto.BOOL, []),
            _value("word", TensorProto.INT64, ["batch", 1]),
            _value("ended", TensorProto.BOOL, ["batch", 1]),
            *(_value(name, self.float, shape) for name, shape in zip(past, shapes, strict=True)),
        ]
        self.outputs = [
            _value("going", TensorProto.BOOL, []),
            _value("chosen", TensorProto.INT64, ["batch", 1]),
            _value("ended.next", TensorProto.BOOL, ["batch", 1]),
            *(_value(name, self.float, shape) for name, shape in zip(present, shapes, strict=True)),
            _value("said", TensorProto.INT64, ["batch", 1]),
        ]
        start = ["begin", "ended.first", *(_nothing(*sizes) for sizes in self.layers for _ in range(2))]
        last = ["word.last", "ended.last", *(f"{name}.last" for name in present)]
        self.loop = helper.make_node("Loop", ["steps", "yes", *start], [*last, "words"], "/loop/Loop")
        self.main.nodes.append(self.loop)
        self._putter(self.main)("two.axis", [2])
        add("Squeeze", ["words", "two.axis"], "words.flat")
        add("Transpose", ["words.flat"], "output_ids", perm=[1, 0])

    def model(self) -> bytes:
        body = helper.make_graph(self.body.nodes, "step", self.inputs, self.outputs, _named(self.body.constants))
        self.loop.attribute.append(helper.make_attribute("body", body))
        graph = helper.make_graph(
            self.main.nodes,
            "translator",
            [_value(name, TensorProto.INT64, ["batch", "source"]) for name in ("input_ids", "attention_mask")]
            + [_value(name, TensorProto.INT64, [1]) for name in ("shortest", "longest")],
            [_value("output_ids", TensorProto.INT64, ["batch", "words"])],
            _named(self.main.constants),
        )
        domains = {one.domain: one.version for part in self.parts for one in part.proto.opset_import if one.domain}
        if any(node.domain == "com.microsoft" for node in (*self.body.nodes, *self.main.nodes)):
            domains["com.microsoft"] = 1
        opsets = [helper.make_opsetid("", max(part.opset for part in self.parts))]
        opsets += [helper.make_opsetid(*one) for one in sorted(domains.items())]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="mostool", ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    # -- constants -------------------------------------------------------------------------------------------------

    def _place(self, constants: dict[str, TensorProto]) -> None:
        """Each content once: in the body if only that reads it, else outside, where the body sees it too."""
        first: dict[tuple[Any, ...], str] = {}
        same = {name: first.setdefault(_content(tensor), name) for name, tensor in constants.items()}
        for graph in (self.main, self.body):
            for node in graph.nodes:
                for place, read in enumerate(node.input):
                    node.input[place] = same.get(read, read)
        outside, inside = _read(self.main.nodes), _read(self.body.nodes)
        for name in sorted(set(same.values())):
            small = constants[name].ByteSize() < _SMALL
            if name in outside:
                self.main.constants[name] = constants[name]
            if name in inside and (small or name not in outside):
                self.body.constants[name] = constants[name]

    def _vocabulary(self) -> int:
        logits = next(one for one in self.parts[2].proto.graph.output if one.name == "logits")
        size = logits.type.tensor_type.shape.dim[-1].dim_value
        if not size:
            raise UsageError("the step of this translator does not tell how many words it knows", hint=_EXPORT_AGAIN)
        return int(size)

    def _heads(self) -> dict[str, int]:
        """How many heads past keys and values have, by their names in the body."""
        found = {}
        for name, value in self.parts[2].inputs.items():
            match = _PAST.fullmatch(name)
            if match:
                now = f"step:{name}" if match[2] == "decoder" else f"first:{name.replace('past_key_values', 'present')}"
                found[now] = value.type.tensor_type.shape.dim[1].dim_value
        return found

    def _say(self, name: str) -> None:
        for part in self.parts:
            if name not in part.inputs:
                raise UsageError(f"the {part.name} of this translator has no input {name}", hint=_EXPORT_AGAIN)

    @staticmethod
    def _adder(graph: Graph) -> Any:
        def add(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
            graph.nodes.append(helper.make_node(kind, list(inputs), [output], f"/loop/{output}", **attributes))

        return add

    @staticmethod
    def _putter(graph: Graph) -> Any:
        def put(name: str, numbers: Any) -> str:
            graph.constants[name] = numpy_helper.from_array(np.array(numbers, np.int64), name)
            return name

        return put


_EXPORT_AGAIN = "export it with optimum, task text2text-generation-with-past"


def _layers(step: _Part) -> list[tuple[int, int]]:
    """Heads and head width of each layer's own attention."""
    found = {}
    for name, value in step.inputs.items():
        match = _PAST.fullmatch(name)
        if match and match[2] == "decoder" and match[3] == "key":
            dims = value.type.tensor_type.shape.dim
            found[int(match[1])] = (dims[1].dim_value, dims[3].dim_value)
    if not found or not all(heads and width for heads, width in found.values()):
        raise UsageError("the step of this translator tells no sizes of past keys and values", hint=_EXPORT_AGAIN)
    return [found[number] for number in sorted(found)]


def _nothing(heads: int, width: int) -> str:
    """The name of an empty past of so many heads of this width."""
    return f"past.none.{heads}x{width}"


def _value(name: str, kind: int, shape: Sequence[str | int | None]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _constant(node: NodeProto) -> TensorProto:
    (attribute,) = node.attribute
    if attribute.name == "value":
        return cast("TensorProto", attribute.t)
    return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute)))


def _renamed(node: NodeProto, name_of: Any, part: str) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    if any(one.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for one in node.attribute):
        raise UsageError(
            f"the operator {node.op_type} of this translator has a graph of its own",
            why="a merged decoder cannot be assembled",
            hint="give encoder, decoder and decoder with past as three files",
        )
    del copy.input[:], copy.output[:], copy.metadata_props[:]
    copy.doc_string, copy.name = "", f"{part}:{node.name}"
    copy.input.extend(name_of(one) for one in node.input)
    copy.output.extend(name_of(one) for one in node.output)
    return copy


def _varying(graph: Graph, changing: set[str]) -> set[str]:
    """The values that change from one step to the next."""
    found = set(changing)
    for node in graph.nodes:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _computed(graph: Graph, known: set[str]) -> set[str]:
    """The values that follow from constants alone."""
    found = set(known)
    for node in graph.nodes:
        if node.input and all(not one or one in found for one in node.input):
            found.update(node.output)
    return found


def _needed(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """Those of the nodes, in order, from which the wanted values follow."""
    found, kept = set(wanted), []
    for node in reversed(nodes):
        if not found.isdisjoint(node.output):
            kept.append(node)
            found.update(node.input)
    return kept[::-1]


def _read(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input if name}


def _written(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.output if name}


def _content(tensor: TensorProto) -> tuple[Any, ...]:
    return tensor.data_type, *tensor.dims, hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).digest()


def _named(constants: dict[str, TensorProto]) -> list[TensorProto]:
    found = []
    for name, tensor in constants.items():
        one = TensorProto()
        one.CopyFrom(tensor)
        one.name = name
        found.append(one)
    return found
