"""The spaces of the encoder family, and what a subnet costs. No torch here.

Axes: `depth`; per layer `hidden` (the width the layer works at), `heads` and `ffn`; and, where a space has it,
`embedding` (the width of the embeddings and of the head; else `width`).
Fixed sizes: `width` (of the backbone between the layers), `head_width` (0: hidden / heads, as in SuperShaper) and, for
a pretrained checkpoint that asks for it, `norm_epsilon_exponent` (12: layer norms add 1e-12 to the variance); `resolve`
adds `vocabulary_size`, `maximum_length` and `labels` (0: masked-word head).

`with_bits` adds axes for how a file stores and multiplies the weights: 8 (int8) or 32 (fp32). The supernet knows
nothing of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from toolchain.arrays import AxisArrays, Floats
from toolchain.errors import UsageError, unknown_name
from toolchain.records import FilePrecision, Workload
from toolchain.space import Architecture, Axis, SearchSpace


def _space(
    name: str,
    *,
    width: int,
    head_width: int,
    depth: tuple[int, ...],
    hidden: tuple[int, ...],
    heads: tuple[int, ...],
    ffn: tuple[int, ...],
    embedding: tuple[int, ...] = (),
) -> SearchSpace:
    axes = (
        *([Axis("embedding", embedding)] if embedding else []),
        Axis("depth", depth),
        Axis("hidden", hidden, per="depth"),
        Axis("heads", heads, per="depth"),
        Axis("ffn", ffn, per="depth"),
    )
    return SearchSpace(name, "bert", axes, {"width": width, "head_width": head_width})


SPACES: Mapping[str, SearchSpace] = {
    space.name: space
    for space in (
        _space(
            "tiny",
            width=128,
            head_width=32,
            embedding=(16, 32, 64, 128),
            depth=(1, 2, 3),
            hidden=(16, 32, 64, 96, 128),
            heads=(1, 2, 4),
            ffn=(32, 64, 128, 256, 512),
        ),
        _space(
            "small",
            width=256,
            head_width=32,
            embedding=(64, 128, 192, 256),
            depth=(2, 3, 4),
            hidden=(64, 128, 192, 256),
            heads=(2, 4, 8),
            ffn=(128, 256, 512, 1024),
        ),
        _space(
            "base",
            width=768,
            head_width=64,
            depth=(6, 8, 10, 12),
            hidden=(120, 240, 360, 480, 540, 600, 768),
            heads=(6, 12),
            ffn=(256, 512, 1024, 2048, 3072),
        ),
        # SuperShaper's own: hidden widths only, attention as wide as the layer.
        _space(
            "supershaper",
            width=768,
            head_width=0,
            depth=(12,),
            hidden=(120, 240, 360, 480, 540, 600, 768),
            heads=(12,),
            ffn=(3072,),
        ),
    )
}


_NETWORK_AXES, _LAYER_AXES, _OPTIONAL_AXES = ("depth",), ("hidden", "heads", "ffn"), ("embedding",)
_DECLARED_SIZES = ("width", "head_width")
_OPTIONAL_SIZES = ("norm_epsilon_exponent",)
_RESOLVED_SIZES = ("vocabulary_size", "labels", "maximum_length")


class Layer(NamedTuple):
    """The sizes of one Transformer layer; `attention` is the summed width of its heads."""

    hidden: int
    heads: int
    attention: int
    ffn: int


def embedding_width(space: SearchSpace, architecture: Architecture) -> int:
    return architecture.number("embedding") if "embedding" in architecture.axes else space.fixed["width"]


def norm_epsilon(space: SearchSpace) -> float:
    """What layer norms add to the variance: torch's 1e-5 unless the space names an exponent."""
    return float(f"1e-{space.fixed.get('norm_epsilon_exponent', 5)}")


def layers(space: SearchSpace, architecture: Architecture) -> list[Layer]:
    head_width = space.fixed["head_width"]
    return [
        Layer(hidden, heads, heads * head_width if head_width else hidden, ffn)
        for hidden, heads, ffn in zip(
            architecture.layers("hidden"), architecture.layers("heads"), architecture.layers("ffn"), strict=True
        )
    ]


def check_space(space: SearchSpace) -> None:
    """Raise UsageError, naming the axis or size, where a space does not describe encoders."""
    _check_names(space)
    for axis in space.axes:
        if axis.per != ("depth" if axis.name in _LAYER_AXES else None):
            per = "no `per`: it is one number for the network" if axis.per else 'per = "depth"'
            raise UsageError(f"space {space.name!r}: axis {axis.name!r} must have {per}")
        if axis.name in {"hidden", "embedding"} and axis.choices[-1] > space.fixed["width"]:
            raise UsageError(
                f"space {space.name!r}: a choice of {axis.name!r} exceeds the width {space.fixed['width']}"
            )
    if space.fixed["head_width"] == 0:
        for hidden, heads in itertools.product(space.axis("hidden").choices, space.axis("heads").choices):
            if hidden % heads:
                raise UsageError(
                    f"space {space.name!r}: {heads} 'heads' do not divide the 'hidden' width {hidden}",
                    hint="give the space a head_width, or widths that its heads divide",
                )


def _check_names(space: SearchSpace) -> None:
    """Exactly the axes and sizes of this family: what it does not know would make equal networks look different."""
    axes = {axis.name for axis in space.axes}
    known = _NETWORK_AXES + _LAYER_AXES + _OPTIONAL_AXES
    for name in sorted(axes - set(known)):
        raise unknown_name(f"axis of the space {space.name!r}", name, known)
    for name in sorted(space.fixed.keys() - set(_DECLARED_SIZES + _OPTIONAL_SIZES + _RESOLVED_SIZES)):
        raise unknown_name(f"fixed size of the space {space.name!r}", name, _DECLARED_SIZES + _OPTIONAL_SIZES)
    for name in _NETWORK_AXES + _LAYER_AXES:
        if name not in axes:
            raise UsageError(f"space {space.name!r} lacks the axis {name!r}")
    for name in _DECLARED_SIZES:
        if space.fixed.get(name, -1) < 0:
            raise UsageError(f"space {space.name!r} lacks the fixed size {name!r}, a whole number from 0")


def resolve(space: SearchSpace, *, vocabulary_size: int, labels: int, maximum_length: int) -> SearchSpace:
    """`space` for one vocabulary and task (`labels` = 0: masked words)."""
    sizes = {"vocabulary_size": vocabulary_size, "labels": labels, "maximum_length": maximum_length}
    return msgspec.structs.replace(space, fixed=space.fixed | sizes)


def parameters(space: SearchSpace, architecture: Architecture) -> int:
    """How many numbers the materialized subnet holds; its embedding serves as the masked-word decoder too."""
    width = embedding_width(space, architecture)
    vocabulary, labels = space.fixed["vocabulary_size"], space.fixed["labels"]
    total = (vocabulary + space.fixed["maximum_length"] + 2) * width
    entering = width
    for layer in layers(space, architecture):
        total += (entering + 1) * layer.hidden
        total += 3 * (layer.hidden + 1) * layer.attention + (layer.attention + 1) * layer.hidden
        total += (layer.hidden + 1) * layer.ffn + (layer.ffn + 1) * layer.hidden
        total += 4 * layer.hidden
        entering = layer.hidden
    total += (entering + 1) * width
    return total + ((width + 1) * labels if labels else 2 * width + vocabulary)


# -- precision: how a file stores and multiplies the weights ----------------------------------------------------------

_BITS = (8, 32)
_NETWORK_BITS = ("embedding_bits", "head_bits")
_LAYER_BITS: Mapping[str, tuple[str, ...]] = {
    "attention_bits": ("links.{}", *(f"blocks.{{}}.{name}" for name in ("query", "key", "value", "output"))),
    "ffn_bits": ("blocks.{}.fc1", "blocks.{}.fc2"),
}
"""The modules of layer number {} that an axis speaks of."""
_BITS_AXES = (*_NETWORK_BITS, *_LAYER_BITS)


def with_bits(space: SearchSpace) -> SearchSpace:
    """The space with, as further axes, the bits of the word embedding, of the head and of each layer's two halves.

    A space that is narrowed to one architecture is widened again: latencies are the same whoever is trained.
    """
    axes = (
        *(Axis(name, _BITS) for name in _NETWORK_BITS),
        *(Axis(name, _BITS, per="depth") for name in _LAYER_BITS),
    )
    return msgspec.structs.replace(space, name=f"{space.name}-bits", axes=space.axes + axes, point=None)


def without_bits(architecture: Architecture) -> Architecture:
    """The architecture that the supernet knows."""
    kept = {name: value for name, value in architecture.axes.items() if name not in _BITS_AXES}
    return Architecture(architecture.family, kept)


def has_bits(architecture: Architecture) -> bool:
    return any(name in architecture.axes for name in _BITS_AXES)


def at_bits(architecture: Architecture, bits: int) -> Architecture:
    """The architecture with every weight matrix at so many bits: 8 or 32."""
    layers_of_it = (bits,) * architecture.number("depth")
    chosen = dict.fromkeys(_NETWORK_BITS, bits) | dict.fromkeys(_LAYER_BITS, layers_of_it)
    return Architecture(architecture.family, without_bits(architecture).axes | chosen)


def precision(architecture: Architecture) -> FilePrecision:
    """What its file is: int8 where every weight matrix is, mixed where some are."""
    if not has_bits(architecture) or architecture == at_bits(architecture, 32):
        return "fp32"
    return "int8" if architecture == at_bits(architecture, 8) else "mixed"


def matrices(architecture: Architecture) -> frozenset[str]:
    return int8_modules(at_bits(architecture, 8))


def int8_modules(architecture: Architecture) -> frozenset[str]:
    """The modules (by their paths in the subnet) whose weights are int8; position embeddings and norms never are."""
    if not has_bits(architecture):
        return frozenset()
    found = {"word"} if architecture.number("embedding_bits") == 8 else set()
    if architecture.number("head_bits") == 8:
        found |= {"head", "head.dense", "head.labels"}
    for axis, modules in _LAYER_BITS.items():
        for number, bits in enumerate(architecture.layers(axis)):
            found |= {module.format(number) for module in modules if bits == 8}
    return frozenset(found)


# -- many architectures at once ----------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """The widths of these architectures, [n] or [n, layers]; 0 where there is no such layer."""

    embedding: Floats
    hidden: Floats
    entering: Floats
    attention: Floats
    ffn: Floats
    last: Floats

    @classmethod
    def of(cls, space: SearchSpace, arrays: AxisArrays) -> _Sizes:
        depth, hidden = arrays["depth"], arrays["hidden"]
        embedding = arrays.get("embedding", np.full(len(depth), float(space.fixed["width"])))
        head_width = space.fixed["head_width"]
        attention = arrays["heads"] * head_width if head_width else hidden
        entering = np.concatenate([embedding[:, None], hidden[:, :-1]], axis=1) * (hidden > 0)
        last = hidden[np.arange(len(depth)), depth.astype(np.intp) - 1]
        return cls(embedding, hidden, entering, attention, arrays["ffn"], last)


def counts(space: SearchSpace, arrays: AxisArrays) -> dict[str, Floats]:
    """`parameters` as that function counts them, and the `weight_bytes` a file stores them in: [n] each.

    An fp32 number takes four bytes; an int8 one takes one, and each row of its matrix four more for the scale.
    """
    embedding, hidden, entering, attention, ffn, last = _Sizes.of(space, arrays)
    vocabulary, labels = space.fixed["vocabulary_size"], space.fixed["labels"]
    matrices = {  # of each layer: the numbers in its matrices, and their rows
        "attention_bits": (hidden * (entering + 4 * attention), 2 * hidden + 3 * attention),
        "ffn_bits": (2 * hidden * ffn, ffn + hidden),
    }
    numbers = (vocabulary + space.fixed["maximum_length"] + 2) * embedding + 4 * hidden.sum(axis=1)
    numbers += sum((inside + rows).sum(axis=1) for inside, rows in matrices.values())
    numbers += (last + 1) * embedding + ((embedding + 1) * labels if labels else 2 * embedding + vocabulary)
    found = {"parameters": numbers, "weight_bytes": 4 * numbers}
    if "head_bits" in arrays:
        looked_up, head = arrays["embedding_bits"] == 8, arrays["head_bits"] == 8
        saved = sum(
            ((3 * inside - 4 * rows) * (arrays[axis] == 8)).sum(axis=1) for axis, (inside, rows) in matrices.items()
        )
        saved += embedding * (3 * last - 4) * head + labels * (3 * embedding - 4) * head
        saved += vocabulary * (3 * embedding - 4) * looked_up
        if not labels:  # the decoder reads the table as that is stored, or else an int8 copy of its own
            saved -= vocabulary * (embedding + 4) * (head & ~looked_up)
        found["weight_bytes"] = found["weight_bytes"] - saved
    return found


BLOCKS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("pass", "embedding_int8"),
    "layers": (
        *("layers", "heads", "dense", "dense_int8", "dense_read", "dense_written", "quantised", "int8_layers"),
        *("attention", "softmax", "activation", "normalisation"),
    ),
    "head": ("head", "head_int8", "decoder", "decoder_int8"),
}
"""Which of the features belong to which block; what a pass takes whatever its layers counts as the embedding."""


def features(space: SearchSpace, arrays: AxisArrays, workload: Workload) -> dict[str, Floats]:
    """What one pass takes, in millions of multiply-adds or of numbers touched, by kind of work: each [n].

    A dense layer costs its multiply-adds, and what it reads and writes besides: on small layers that is what counts.
    Where a text has one answer, the last layer is computed for the first token, but for its keys and values. Where
    nobody told the vocabulary it counts as one word: the feature keeps its shape. In a space with bits, int8
    multiply-adds are a kind of work of their own, and so are the numbers that are quantised for them.
    """
    length = workload.sequence_length
    tokens = workload.batch * length
    depth, heads = arrays["depth"], arrays["heads"]
    embedding, hidden, entering, attention, ffn, last = _Sizes.of(space, arrays)
    once = bool(space.fixed.get("labels"))
    ends = np.arange(hidden.shape[1]) == depth[:, None] - 1
    rows = np.where(ends & once, float(workload.batch), float(tokens))  # of tokens a layer is computed for
    answered = workload.batch if once else tokens
    answers = space.fixed.get("labels") or space.fixed.get("vocabulary_size") or 1
    million = 1e-6
    in_attention = tokens * hidden * (entering + 2 * attention) + rows * 2 * hidden * attention
    in_ffn = rows * 2 * hidden * ffn
    found = {
        "pass": np.ones(len(depth)),
        "layers": depth,
        "heads": heads.sum(axis=1),
        "dense": million * (in_attention + in_ffn).sum(axis=1),
        "dense_read": million * (tokens * (entering + 2 * hidden) + rows * (2 * hidden + attention + ffn)).sum(axis=1),
        "dense_written": million
        * (tokens * (hidden + 2 * attention) + rows * (2 * hidden + attention + ffn)).sum(axis=1),
        "attention": million * length * (rows * 2 * attention).sum(axis=1),
        "softmax": million * length * (rows * heads).sum(axis=1),
        "activation": million * (rows * ffn).sum(axis=1),
        "normalisation": million * (tokens * embedding + 2 * (rows * hidden).sum(axis=1)),
        "head": million * answered * last * embedding,
        "decoder": million * answered * answers * embedding,
    }
    if "head_bits" not in arrays:
        return found
    attending, feeding = arrays["attention_bits"] == 8, arrays["ffn_bits"] == 8
    head = arrays["head_bits"] == 8
    int8 = million * (in_attention * attending + in_ffn * feeding).sum(axis=1)
    read = (tokens * (entering + hidden) + rows * attention) * attending + rows * (hidden + ffn) * feeding
    quantised = million * read.sum(axis=1) + million * answered * (last + embedding) * head
    return {
        **found,
        "dense": found["dense"] - int8,
        "head": found["head"] * ~head,
        "decoder": found["decoder"] * ~head,
        "dense_int8": int8,
        "head_int8": found["head"] * head,
        "decoder_int8": found["decoder"] * head,
        "quantised": quantised,
        "int8_layers": attending.sum(axis=1) + feeding.sum(axis=1) + 0.0,
        "embedding_int8": million * tokens * embedding * (arrays["embedding_bits"] == 8),
    }
