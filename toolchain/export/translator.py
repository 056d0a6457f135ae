"""A translator becomes files: one that translates greedily in one call, and beside it the three graphs it consists of.

model.onnx holds all weights. encoder_model.onnx, decoder_model.onnx and decoder_with_past_model.onnx, for beam search
and for optimum's ORTModelForSeq2SeqLM, hold none: they point into it. How it is put together: assembling.py.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import onnx
import torch
from onnx import GraphProto
from torch import Tensor, nn

from toolchain.errors import ParityError, UsageError
from toolchain.export.assembling import Marks, assemble
from toolchain.export.nbits import quantise_blocks
from toolchain.export.onnx import OPSET
from toolchain.export.parity import TOLERANCE, Checks, check_parity, own_answers
from toolchain.export.quantise import quantise, recipe_of_pairs
from toolchain.export.run_translation import Translation, lengths_allowed
from toolchain.export.session import open_session
from toolchain.export.sharing import point_into, share_columns
from toolchain.files import sha256_bytes, write_bytes
from toolchain.records import Artifact
from toolchain.space import Architecture

if TYPE_CHECKING:
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]

MODEL = "model.onnx"
GRAPHS = ENCODER, FIRST, STEP = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"

TRANSLATOR_RECIPE = "greedy-loop-v1"
_NBITS_RECIPES = {"int8": "steps-8bit-v1", "int4": "steps-4bit-v1"}
_BLOCKS = (128, 64, 32, 16)
"""Tried in this order: large blocks are faster. Of eight bits 128 numbers can share a scale; of four, 32."""

Precision = Literal["fp32", "int8", "int4"]

Greedy = Callable[[Tensor, Tensor, int], list[list[int]]]
"""Translations of ids and mask, int64 [rows, source], of at most so many words; without begin and end marks."""


class Graphs(Protocol):
    """The three modules of a translator; see supernet/families/translation/graphs.py."""

    @property
    def encoder(self) -> Any: ...
    @property
    def first(self) -> Any: ...
    @property
    def step(self) -> Any: ...


class Parts(NamedTuple):
    """The three graphs as ONNX models that hold their own weights."""

    encoder: bytes
    first: bytes
    step: bytes


# -- from modules to files ---------------------------------------------------------------------------------------------


def export_translator(
    graphs: Graphs,
    architecture: Architecture,
    path: Path,
    checks: Checks,
    marks: Marks,
    *,
    precision: Precision = "fp32",
    paired: bool = True,
    checkpoint_sha256: str | None,
    options: dict[str, str],
) -> tuple[Artifact, Checks, dict[str, bytes]]:
    """Write a translator to `path` (its name is to be model.onnx), and prove it.

    In fp32 the three graphs must give what their modules give, and the whole the words of `checks`; of a quantised one
    the checks that are returned expect its own words.

    Args:
        paired: of int8 weights that all tokens of a source multiply at once: see quantise.

    Returns:
        Its record, its checks, and the files that belong beside it.

    Raises:
        ParityError: a weight is not finite, or answers differ; no file is left.
    """
    _check_finite(graphs)
    traced = trace_translator(graphs)
    error = check_parts(traced, graphs, options)
    whole, parts = assembled(traced, marks)
    check_parity(open_session(whole, options), checks, 0.0)
    others = None
    if precision != "fp32":
        whole, parts = assembled(quantise_parts(traced, precision, paired=paired), marks)
        checks, others = own_answers(open_session(whole, options), checks)
    write_bytes(path, whole)
    artifact = Artifact(
        file=path.name,
        format="onnx",
        precision=precision,
        recipe="+".join([f"torchscript-opset{OPSET}-v1", TRANSLATOR_RECIPE, *_recipes(precision, paired=paired)]),
        opset=OPSET,
        sha256=sha256_bytes(whole),
        size_bytes=len(whole),
        parameters=_parameters(graphs),
        architecture=architecture,
        checkpoint_sha256=checkpoint_sha256,
        parity_max_abs_error=error,
        quantised_max_abs_error=others,
    )
    return artifact, checks, further_files(whole, parts)


def trace_translator(graphs: Graphs) -> Parts:
    """The three graphs, in fp32 and standard operators."""
    return Parts(*(trace_graph(one) for one in (graphs.encoder, graphs.first, graphs.step)))


def assembled(parts: Parts, marks: Marks) -> tuple[bytes, Parts]:
    """The one graph, and the parts as they share their weights with it."""
    shared = Parts(*share_columns(parts))
    return assemble(*shared, marks), shared


def further_files(whole: bytes, parts: Parts) -> dict[str, bytes]:
    """The three graphs by their names in a bundle; what `whole` holds of their weights they have from model.onnx."""
    return {name: point_into(whole, part, MODEL) for name, part in zip((ENCODER, FIRST, STEP), parts, strict=True)}


def trace_graph(module: Any) -> bytes:
    """The ONNX model's bytes, the same for the same module; products are named by the path of their weight."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is announced to go; why it is still the right one: README.md.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            module,
            module.example(),
            stream,  # type: ignore[arg-type]  # the tracing exporter takes streams, its annotation does not say so
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,
            input_names=list(module.input_names),
            output_names=list(module.output_names),
            dynamic_axes=module.axes,
        )
    model = onnx.load_from_string(stream.getvalue())
    model.producer_name, model.producer_version = "mostool", ""
    _name_products(model.graph)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _name_products(graph: GraphProto) -> None:
    """Call what multiplies or looks up a weight by the weight's path: a method that is no `forward` leaves no trace."""
    owners = {one.name: one.name.rpartition(".")[0] for one in graph.initializer if one.name.endswith(".weight")}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in owners:
            owners[node.output[0]] = owners[node.input[0]]
    for node in graph.node:
        owner = next((owners[name] for name in node.input[:2] if name in owners), None)
        if owner is not None and node.op_type in {"MatMul", "Gemm", "Gather"}:
            node.name = f"/{owner}/{node.op_type}"


# -- precision ---------------------------------------------------------------------------------------------------------


def quantise_parts(parts: Parts, precision: Precision, *, paired: bool = True) -> Parts:
    """The graphs with weights of few bits.

    What reads all tokens of a source at once multiplies int8 by int8 as any encoder does (quantise.py). A step has one
    token a row, so reading the weights is what takes time: they and the word table are in blocks of 8 or 4 bits
    (nbits.py).

    Raises:
        UsageError: there is no such precision.
    """
    if precision not in _NBITS_RECIPES:
        raise UsageError(f"a translator has no {precision} form", hint="there are fp32, int8 and int4")
    modules = [_modules(part) for part in parts]
    stepwise = modules[2]
    few: Literal[4, 8] = 8 if precision == "int8" else 4
    block = _block(parts.step, 128 if few == 8 else 32)
    quantised = []
    for part, known in zip(parts, modules, strict=True):
        at_once = known - stepwise
        model = quantise(part, at_once, paired=paired) if at_once else part
        quantised.append(quantise_blocks(model, known & stepwise, bits=few, block=block, symmetric=few == 8))
    return Parts(*quantised)


def _block(step: bytes, most: int) -> int:
    """The largest block that divides the rows of the step's weights, or the smallest there is."""
    graph = onnx.load_from_string(step).graph
    wide = [one.dims[1] for one in graph.initializer if one.name.endswith(".weight") and len(one.dims) == 2]
    fitting = [block for block in _BLOCKS if block <= most and all(width % block == 0 for width in wide)]
    return fitting[0] if fitting else _BLOCKS[-1]


def _modules(part: bytes) -> set[str]:
    """The paths of the modules whose weights a graph multiplies or looks up."""
    graph = onnx.load_from_string(part).graph
    owners = {one.name.rpartition(".")[0] for one in graph.initializer if one.name.endswith(".weight")}
    owners |= {"word"}  # whose table may be cut from a wider one
    return {path for node in graph.node if (path := node.name.rpartition("/")[0].strip("/")) in owners}


def _recipes(precision: Precision, *, paired: bool) -> list[str]:
    return [] if precision == "fp32" else [_NBITS_RECIPES[precision], recipe_of_pairs(paired=paired)]


# -- proof -------------------------------------------------------------------------------------------------------------


def build_token_checks(greedy: Greedy, ids: Ids, marks: Marks, longest: int, padding: int = 0) -> Checks:
    """What `greedy` makes of rows of real source tokens [n, t]: alone and together, whole and short, padded in every
    pattern, and cut off by a limit.

    The expected words are those of the assembled graph: rows that ended are filled up with the end mark.
    """
    ids = np.resize(ids, (max(4, len(ids)), ids.shape[1]))  # fewer than four rows are repeated
    lengths = (ids != padding).sum(axis=1)
    row = ids[[int(lengths.argmax())], : max(2, int(lengths.max()))]
    several = ids[:3, : max(2, int(lengths[:3].max()))]
    asked = [(part, (part != padding).astype(np.int64), longest) for part in (row, row[:, :1], several, ids[3:4])]
    left, holes = asked[0][1].copy(), asked[2][1].copy()
    left[:, : left.shape[1] // 3], holes[:, 1::3] = 0, 0
    asked += [(row, left, longest), (several, holes, longest), (several, asked[2][1], 3)]
    inputs, expected = [], []
    for tokens, mask, most in asked:
        words = greedy(torch.from_numpy(tokens), torch.from_numpy(mask), most)
        allowed = max(min(most, 2 * int(count) + 10) for count in mask.sum(axis=1))
        inputs.append(
            {
                "input_ids": np.ascontiguousarray(tokens),
                "attention_mask": mask,
                "shortest": np.zeros(1, np.int64),
                "longest": np.full(1, most, np.int64),
            }
        )
        expected.append(filled(words, allowed, marks.end))
    return Checks(inputs, expected)


def filled(words: Sequence[Sequence[int]], allowed: int, end: int) -> Ids:
    """Translations as the assembled graph gives them, [rows, words]: each with its end mark, but for those that come to
    the limit `allowed` of all rows."""
    width = min(max(map(len, words)) + 1, allowed)
    found = np.full((len(words), width), end, np.int64)
    for row, said in enumerate(words):
        found[row, : len(said)] = said
    return found


class ByGraphs(NamedTuple):
    """The three graphs of a folder, asked like the file that translates in one call: they must say the same."""

    translation: Translation
    end: int

    def run(self, _outputs: None, given: Mapping[str, Ids]) -> list[Ids]:
        ids, mask, longest = given["input_ids"], given["attention_mask"], int(given["longest"][0])
        words = self.translation.beam_search(ids, mask, longest, beam=1)
        return [filled(words, max(lengths_allowed(mask, longest)), self.end)]


def check_parts(parts: Parts, graphs: Graphs, options: Mapping[str, str], seed: int = 0) -> float:
    """The largest difference between what the graphs and their modules answer.

    Raises:
        ParityError: it exceeds TOLERANCE, or is no number.
    """
    worst = 0.0
    for part, module in zip(parts, (graphs.encoder, graphs.first, graphs.step), strict=True):
        session = open_session(part, options)
        given = _varied(module.example(), seed)
        with torch.no_grad():
            wanted = module(*given)
        answers = session.run(None, {name: one.numpy() for name, one in zip(module.input_names, given, strict=True)})
        for name, answer, one in zip(
            module.output_names, answers, wanted if isinstance(wanted, tuple) else (wanted,), strict=True
        ):
            error = float(np.abs(answer - one.numpy()).max())
            if not error <= TOLERANCE:
                raise ParityError(
                    f"the output {name} of {type(module).__name__} is another in its file",
                    why=f"largest difference {error:.2e}, allowed {TOLERANCE:.0e}",
                    hint="export again; if it stays, the runtime computes something else on this machine",
                )
            worst = max(worst, error)
    return worst


def _varied(example: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Three rows instead of two, the last with padding; values as they come."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(_more_rows(one, generator) for one in example)


def _more_rows(one: Tensor, generator: torch.Generator) -> Tensor:
    if one.is_floating_point():
        return torch.randn((3, *one.shape[1:]), generator=generator)
    return torch.ones((3, *one.shape[1:]), dtype=one.dtype)


def _check_finite(graphs: Graphs) -> None:
    for module in (graphs.encoder, graphs.first):
        for name, parameter in module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise ParityError(f"the weight {name} is not finite", hint="train again from an earlier state")


def _parameters(graphs: Graphs) -> int:
    """Numbers of the whole model; a word table that both stacks read counts once, as wide as the wider."""
    modules: Sequence[nn.Module] = (graphs.encoder, graphs.first)
    tables = [module.get_parameter("word.weight") for module in modules]
    known = {id(one): one.numel() for module in modules for one in module.parameters()}
    return (
        sum(known.values())
        - sum({id(one): one.numel() for one in tables}.values())
        + max(one.numel() for one in tables)
    )
