"""An ONNX file that somebody brought: is it one, is it whole, can it run, what does it read and answer with?

Of several outputs the first one is the answer: it alone is compared and measured by, the others are kept as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from toolchain.errors import IntegrityError, UsageError
from toolchain.export.fuse import opset_of
from toolchain.export.session import RUNTIME_ERRORS, open_unchecked
from toolchain.files import inside, sha256_bytes, sha256_file
from toolchain.records import ModelInput

MOST_BYTES = (1 << 31) - 1
"""Of a file of protocol buffers."""
_HALVES: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
_DTYPES = {TensorProto.INT64: "int64", TensorProto.INT32: "int32"}
_ROLES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
_USUAL_VOCABULARY = 100
"""Ids below it are used where nothing tells how many words a model knows."""


class GivenFile(NamedTuple):
    """A model that can be compiled.

    Attributes:
        model: all of it in one, external data included.
        sha256: of the file; of one with external data, of all in one.
        batch, length: the one shape it was made for; None: any.
        vocabulary_size: the rows of the table that its ids look up.
    """

    model: bytes
    sha256: str
    inputs: tuple[ModelInput, ...]
    opset: int
    batch: int | None
    length: int | None
    vocabulary_size: int
    parameters: int


def read_brought(path: Path) -> GivenFile:
    """The encoder in an ONNX file: token ids (and their mask and types) in, numbers out.

    Raises:
        UsageError: there is none, or it reads what mostool does not know how to make, or answers with no fp32 numbers;
            it has weights in half precision, is larger than one file can be, or has an operator or an opset that ONNX
            Runtime does not know (the operator is named, with its layer).
        IntegrityError: it is damaged, leads to data outside its folder, or has weights that are not finite.
    """
    model, external = _load(path)
    _check_weights(model, path)
    graph = model.graph
    weights = {one.name for one in graph.initializer}
    inputs = tuple(_input(one, path) for one in graph.input if one.name not in weights)
    if not any(one.role == "ids" for one in inputs):
        raise UsageError(f"{path} reads no input_ids", hint="an encoder's inputs are input_ids and attention_mask")
    whole = _serialised(model, path)
    session = _try(whole, path)
    _check_answer(session.get_outputs()[0], path)
    _say_shapes(model, session)
    ids = next(one.name for one in inputs if one.role == "ids")
    shape = next(one for one in graph.input if one.name == ids).type.tensor_type.shape.dim
    sizes = [int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in shape]
    return GivenFile(
        model=_serialised(model, path),
        sha256=sha256_bytes(whole) if external else sha256_file(path),
        inputs=inputs,
        opset=opset_of(model),
        batch=sizes[0],
        length=sizes[1],
        vocabulary_size=_vocabulary(model, ids),
        parameters=sum(int(np.prod(one.dims)) for one in _tensors(model) if one.data_type != TensorProto.STRING),
    )


def _load(path: Path) -> tuple[ModelProto, bool]:
    """The model, all in one, and whether some of it lay in other files."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="--onnx takes the path of an ONNX model")
    size_bytes = path.stat().st_size
    check_size(size_bytes, str(path))
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise IntegrityError(f"{path} is no ONNX model", why=str(error), hint="get the file again") from error
    if not model.graph.node:
        raise IntegrityError(f"{path} is no ONNX model", why="it computes nothing", hint="get the file again")
    external = [one for one in _tensors(model) if external_data_helper.uses_external_data(one)]
    check_size(size_bytes + sum(_wanted_bytes(one, path) for one in external), str(path))
    for tensor in external:
        _bring_inside(tensor, path)
    return model, bool(external)


def check_size(size_bytes: int, what: str) -> None:
    """Raise UsageError where a model is too large to be compiled: it is one file of protocol buffers on the way."""
    if size_bytes > MOST_BYTES:
        raise UsageError(
            f"{what} is too large: {size_bytes / 2**30:.1f} GiB",
            why="a model and its weights are one ONNX file here, which has at most 2 GiB",
            hint="bring a smaller model",
        )


def _serialised(model: ModelProto, path: Path) -> bytes:
    check_size(model.ByteSize(), str(path))
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _bring_inside(tensor: TensorProto, path: Path) -> None:
    """Read what lies in another file: a plain one of the model's own folder."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    name = where.get("location", "")
    if (path.parent / name).is_symlink():
        raise IntegrityError(
            f"{name!r} beside {path} is a link",
            hint="copy the files into a folder of their own: links are not followed",
        )
    beside = inside(path.parent, name)
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", 0))
        with beside.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length) if length else stream.read()
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{name} beside {path} cannot be read", why=str(error), hint="get it again") from error
    wanted = _wanted_bytes(tensor, path)
    if len(data) != wanted:
        why = f"{tensor.name} has {len(data)} of {wanted} bytes"
        raise IntegrityError(f"{name} beside {path} is not whole", why=why, hint="get both files again")
    tensor.raw_data = data
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def check_reads_inside(folder: Path, name: str, files: Container[str]) -> None:
    """A model file of a bundle reads its weights from itself and from `files` of its own folder, if anywhere.

    Raises:
        IntegrityError: it is no ONNX model, or would read another file.
    """
    try:
        model = onnx.load(inside(folder, name), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise IntegrityError(f"{name} is no ONNX model", why=str(error), hint="get the bundle again") from error
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value not in files:
                raise IntegrityError(
                    f"{name} reads a file nobody vouches for: {entry.value!r}",
                    why=f"the weights of {tensor.name} are said to lie there",
                    hint="do not run it; get the bundle again",
                )


def _wanted_bytes(tensor: TensorProto, path: Path) -> int:
    """How many bytes its numbers take."""
    try:
        one = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        why = f"{tensor.name} is of type {tensor.data_type}"
        raise IntegrityError(f"{path} is no ONNX model", why=why, hint="get the file again") from error
    return int(math.prod(tensor.dims) * one.itemsize)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant of the model, those of its inner graphs too."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("g"):
                    graphs.append(attribute.g)


def _check_weights(model: ModelProto, path: Path) -> None:
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE)
    for tensor in _tensors(model):
        if tensor.data_type in _HALVES:
            raise UsageError(
                f"the weight {tensor.name} of {path} is {_HALVES[tensor.data_type]}",
                why="what is compiled is compared with the model in fp32",
                hint="bring it in fp32; --precision fp16 narrows it for devices that compute in it",
            )
        if tensor.data_type in floats and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise IntegrityError(f"the weight {tensor.name} of {path} is not finite", hint="export the model again")


def _input(one: Any, path: Path) -> ModelInput:
    kind = one.type.tensor_type
    role, dtype = _ROLES.get(one.name), _DTYPES.get(kind.elem_type)
    if role is None or dtype is None or len(kind.shape.dim) != 2:
        known = ", ".join(_ROLES)
        raise UsageError(
            f"{path} reads {one.name!r}, which mostool does not know how to make",
            why=f"an encoder's inputs are {known}: whole numbers, [batch, sequence]",
            hint="a translation model is brought as its checkpoint: --hf FOLDER",
        )
    return ModelInput(name=one.name, role=role, dtype=dtype)  # type: ignore[arg-type]


def _check_answer(output: Any, path: Path) -> None:
    """Raise UsageError where the first output is no tensor of fp32 numbers with a known number of axes."""
    if output.type == "tensor(float)" and output.shape:
        return
    shape = f" of shape {output.shape}" if output.shape else ", of which nobody knows how many axes it has"
    hint = "export the logits: what is compared are numbers, of which a last digit may differ"
    if output.type == "tensor(float)":
        hint = "name its axes when it is exported: [batch, classes] or [batch, sequence, width]"
    raise UsageError(
        f"the first output of {path} is {output.name!r}, {output.type}{shape}",
        why="an answer is a tensor(float) with one axis or more",
        hint=hint,
    )


def _vocabulary(model: ModelProto, ids: str) -> int:
    """The rows of the first table that the ids look up, whatever they were cast to on the way."""
    same, tables = {ids}, {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in same:
            same.add(node.output[0])
        elif _looks_up(node, same) and node.input[0] in tables:
            return int(tables[node.input[0]].dims[0])
    return _USUAL_VOCABULARY


def _looks_up(node: NodeProto, ids: set[str]) -> bool:
    return node.op_type in ("Gather", "GatherBlockQuantized") and node.input[1] in ids


def _say_shapes(model: ModelProto, session: Any) -> None:
    """Outputs whose shape the file leaves out get what ONNX Runtime infers: without one, no rewritten file is valid."""
    for output, known in zip(model.graph.output, session.get_outputs(), strict=True):
        kind = output.type.tensor_type
        if not kind.HasField("shape") and known.shape:
            kind.CopyFrom(helper.make_tensor_type_proto(kind.elem_type, known.shape).tensor_type)


def _try(model: bytes, path: Path) -> Any:
    """The session of ONNX Runtime that has loaded it; what it cannot load is said in the field's words."""
    try:
        return open_unchecked(model)
    except RUNTIME_ERRORS as error:
        said = " ".join(str(error).split())
        if "ValidateOpsetForDomain" in said or "under development" in said:
            raise UsageError(
                f"{path} is of a newer opset than this ONNX Runtime knows",
                why=said[-300:],
                hint="export it with an older opset, 17 say, or install a newer onnxruntime",
            ) from error
        unknown = re.search(r'In Node, \("([^"]*)", ([^,]+),|Fatal error: (\S+)\(-?\d+\) is not a registered', said)
        if unknown:
            operator = unknown.group(2) or unknown.group(3)
            layer = unknown.group(1) or _layer_of(model, operator) or "a layer without a name"
            raise UsageError(
                f"{path} has an operator that ONNX Runtime cannot run: {operator}, in {layer}",
                why=said[-300:],
                hint="export the model with standard operators",
            ) from error
        raise IntegrityError(f"ONNX Runtime cannot load {path}", why=said[:300], hint="get the file again") from error


def _layer_of(model: bytes, operator: str) -> str:
    """The name of the first node of an operator, given as domain:operator."""
    domain, _, kind = operator.rpartition(":")
    nodes = onnx.load_from_string(model).graph.node
    return next((str(node.name) for node in nodes if (node.domain, node.op_type) == (domain, kind)), "")
