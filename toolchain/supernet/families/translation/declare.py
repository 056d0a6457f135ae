"""The spaces of the translation family, and what a subnet costs. No torch here.

Axes, as in HAT (arXiv 2005.14187): `encoder_embedding` and `decoder_embedding` (the widths of either stack and of what
it reads); `encoder_depth`, and per encoder layer `encoder_ffn` and `encoder_heads`; `decoder_depth`, and per decoder
layer `decoder_ffn`, `decoder_heads`, `cross_heads` and `cross_layers` (how many of the last encoder layers it attends
to). Fixed sizes: `width` (of the shared word embedding), `attention` (the summed width of a layer's heads: heads divide
it, so their number changes no weight's shape); `resolve` adds `vocabulary_size` and `maximum_length`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np

from toolchain.arrays import AxisArrays, Floats
from toolchain.errors import UsageError, unknown_name
from toolchain.records import FilePrecision, Workload
from toolchain.space import Architecture, Axis, SearchSpace


def _space(
    name: str,
    *,
    attention: int,
    embedding: tuple[int, ...],
    encoder_depth: tuple[int, ...],
    decoder_depth: tuple[int, ...],
    ffn: tuple[int, ...],
    heads: tuple[int, ...],
    cross_layers: tuple[int, ...],
) -> SearchSpace:
    axes = (
        Axis("encoder_embedding", embedding),
        Axis("decoder_embedding", embedding),
        Axis("encoder_depth", encoder_depth),
        Axis("decoder_depth", decoder_depth),
        Axis("encoder_ffn", ffn, per="encoder_depth"),
        Axis("encoder_heads", heads, per="encoder_depth"),
        Axis("decoder_ffn", ffn, per="decoder_depth"),
        Axis("decoder_heads", heads, per="decoder_depth"),
        Axis("cross_heads", heads, per="decoder_depth"),
        Axis("cross_layers", cross_layers, per="decoder_depth"),
    )
    return SearchSpace(name, "translation", axes, {"width": embedding[-1], "attention": attention})


SPACES: Mapping[str, SearchSpace] = {
    space.name: space
    for space in (
        _space(
            "tiny",
            attention=96,
            embedding=(48, 72, 96),
            encoder_depth=(2,),
            decoder_depth=(1, 2),
            ffn=(48, 96, 192, 384),
            heads=(2, 4),
            cross_layers=(1, 2),
        ),
        _space(
            "small",
            attention=128,
            embedding=(96, 128),
            encoder_depth=(2, 3),
            decoder_depth=(1, 2, 3),
            ffn=(128, 256, 512),
            heads=(2, 4),
            cross_layers=(1, 2),
        ),
        # HAT's own, of its WMT and of its IWSLT models.
        _space(
            "hat-wmt",
            attention=512,
            embedding=(512, 640),
            encoder_depth=(6,),
            decoder_depth=(1, 2, 3, 4, 5, 6),
            ffn=(1024, 2048, 3072),
            heads=(4, 8),
            cross_layers=(1, 2, 3),
        ),
        _space(
            "hat-iwslt",
            attention=512,
            embedding=(512, 640),
            encoder_depth=(6,),
            decoder_depth=(1, 2, 3, 4, 5, 6),
            ffn=(512, 1024, 2048),
            heads=(2, 4),
            cross_layers=(1, 2, 3),
        ),
    )
}

_Number = TypeVar("_Number", int, Floats)
"""Counted for one architecture, or for many at once."""

_NETWORK_AXES = ("encoder_embedding", "decoder_embedding", "encoder_depth", "decoder_depth")
_LAYER_AXES = {
    "encoder_ffn": "encoder_depth",
    "encoder_heads": "encoder_depth",
    "decoder_ffn": "decoder_depth",
    "decoder_heads": "decoder_depth",
    "cross_heads": "decoder_depth",
    "cross_layers": "decoder_depth",
}
_HEADS = ("encoder_heads", "decoder_heads", "cross_heads")
_DECLARED_SIZES = ("width", "attention")
_RESOLVED_SIZES = ("vocabulary_size", "maximum_length")


class EncoderLayer(NamedTuple):
    """One encoder layer: heads of `attention / heads` each, and the feed-forward width."""

    heads: int
    ffn: int


class DecoderLayer(NamedTuple):
    """One decoder layer; `cross_layers` counts the encoder layers, from the last one down, that it attends to."""

    heads: int
    cross_heads: int
    cross_layers: int
    ffn: int


def encoder_layers(architecture: Architecture) -> list[EncoderLayer]:
    per_layer = zip(architecture.layers("encoder_heads"), architecture.layers("encoder_ffn"), strict=True)
    return [EncoderLayer(heads, ffn) for heads, ffn in per_layer]


def decoder_layers(architecture: Architecture) -> list[DecoderLayer]:
    axes = ("decoder_heads", "cross_heads", "cross_layers", "decoder_ffn")
    return [DecoderLayer(*sizes) for sizes in zip(*(architecture.layers(axis) for axis in axes), strict=True)]


def check_space(space: SearchSpace) -> None:
    """Raise UsageError, naming the axis or size, where a space does not describe translation models."""
    _check_names(space)
    for name in ("encoder_embedding", "decoder_embedding"):
        if space.axis(name).choices[-1] > space.fixed["width"]:
            raise UsageError(f"space {space.name!r}: a choice of {name!r} exceeds the width {space.fixed['width']}")
    for name in _HEADS:
        for heads in space.axis(name).choices:
            if space.fixed["attention"] % heads:
                raise UsageError(
                    f"space {space.name!r}: {heads} {name!r} do not divide the attention width "
                    f"{space.fixed['attention']}"
                )
    if space.axis("cross_layers").choices[-1] > space.axis("encoder_depth").choices[0]:
        raise UsageError(
            f"space {space.name!r}: 'cross_layers' reaches further back than the shallowest encoder has layers",
            hint="choices of cross_layers must not exceed the least encoder_depth",
        )


def _check_names(space: SearchSpace) -> None:
    """Exactly the axes and sizes of this family."""
    axes = {axis.name for axis in space.axes}
    known = (*_NETWORK_AXES, *_LAYER_AXES)
    for name in sorted(axes - set(known)):
        raise unknown_name(f"axis of the space {space.name!r}", name, known)
    for name in sorted(space.fixed.keys() - set(_DECLARED_SIZES + _RESOLVED_SIZES)):
        raise unknown_name(f"fixed size of the space {space.name!r}", name, _DECLARED_SIZES)
    for name in known:
        if name not in axes:
            raise UsageError(f"space {space.name!r} lacks the axis {name!r}")
        wanted = _LAYER_AXES.get(name)
        if space.axis(name).per != wanted:
            per = f"per = {wanted!r}" if wanted else "no `per`: it is one number for the network"
            raise UsageError(f"space {space.name!r}: axis {name!r} must have {per}")
    for name in _DECLARED_SIZES:
        if space.fixed.get(name, 0) < 1:
            raise UsageError(f"space {space.name!r} lacks the fixed size {name!r}, a whole number from 1")


def resolve(space: SearchSpace, *, vocabulary_size: int, labels: int, maximum_length: int) -> SearchSpace:
    """The space with the sizes that its data decides. Translation has no `labels`."""
    if labels:
        raise UsageError("a translation model has no labels", hint="labelled data needs --task classify")
    check_space(space)
    sizes = {"vocabulary_size": vocabulary_size, "maximum_length": maximum_length}
    return msgspec.structs.replace(space, fixed=space.fixed | sizes)


def parameters(space: SearchSpace, architecture: Architecture) -> int:
    """The numbers in a materialized subnet: one word embedding serves both stacks and the output."""
    encoder, decoder = architecture.number("encoder_embedding"), architecture.number("decoder_embedding")
    attention = space.fixed["attention"]
    total = space.fixed["vocabulary_size"] * max(encoder, decoder)
    for layer in encoder_layers(architecture):
        total += _attention(encoder, encoder, attention) + _feed_forward(encoder, layer.ffn) + 2 * 2 * encoder
    for deep in decoder_layers(architecture):
        total += _attention(decoder, decoder, attention) + _attention(decoder, encoder, attention)
        total += _feed_forward(decoder, deep.ffn) + 3 * 2 * decoder
    return total


def _attention(width: _Number, read: _Number, attention: int) -> _Number:
    return (width + 1) * attention + 2 * (read + 1) * attention + (attention + 1) * width


def _feed_forward(width: int, ffn: int) -> int:
    return (width + 1) * ffn + (ffn + 1) * width


def counts(space: SearchSpace, arrays: AxisArrays) -> dict[str, Floats]:
    """`parameters` as that function counts them, and the `weight_bytes` a file would store them in: [n] each."""
    encoder, decoder = arrays["encoder_embedding"], arrays["decoder_embedding"]
    below, above = arrays["encoder_depth"], arrays["decoder_depth"]
    attention = space.fixed["attention"]
    numbers = space.fixed["vocabulary_size"] * np.maximum(encoder, decoder)
    numbers = numbers + below * (_attention(encoder, encoder, attention) + 5 * encoder)
    numbers += (2 * encoder + 1) * arrays["encoder_ffn"].sum(axis=1)
    reading = _attention(decoder, decoder, attention) + _attention(decoder, encoder, attention)
    numbers += above * (reading + 7 * decoder) + (2 * decoder + 1) * arrays["decoder_ffn"].sum(axis=1)
    return {"parameters": numbers, "weight_bytes": 4 * numbers}


# -- precision: of a file as a whole -----------------------------------------------------------------------------------


def with_bits(space: SearchSpace) -> NoReturn:
    """Raises UsageError: the precision of a translation model is that of its file, not of its layers."""
    raise UsageError(
        "a translation model has one precision for all its layers",
        why=f"so the space {space.name!r} has none to search through",
        hint="choose it when the winner ships: mostool export --precision auto",
    )


def without_bits(architecture: Architecture) -> Architecture:
    return architecture


def has_bits(_architecture: Architecture) -> bool:
    return False


def at_bits(architecture: Architecture, bits: int) -> Architecture:
    """The architecture itself at 32 bits; there is no other precision."""
    if bits != 32:
        raise UsageError(f"a translation model has no {bits}-bit form", hint="leave the precision at fp32")
    return architecture


def precision(_architecture: Architecture) -> FilePrecision:
    return "fp32"


def matrices(_architecture: Architecture) -> frozenset[str]:
    """None are named: a translator's three graphs have a precision as a whole."""
    return frozenset()


def int8_modules(_architecture: Architecture) -> frozenset[str]:
    return frozenset()


BLOCKS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("pass",),
    "encoder": ("encoder_layers", "encoder_dense", "encoder_attention", "heads"),
    "decoder": ("decoder_layer_steps", "decoder_dense", "cross_dense", "decoder_attention", "decoder_heads"),
    "head": ("output",),
}
"""Which of the features belong to which block; what a pass takes whatever its layers counts as the embedding."""


def features(space: SearchSpace, arrays: AxisArrays, workload: Workload) -> dict[str, Floats]:
    """What translating takes, in millions of multiply-adds by kind of work, for a text as long as its source: each [n].

    The encoder runs once over all tokens; each token of the translation is one more step of the decoder. All of it is
    sums over layers, so the averages that HAT's tables hold give the same numbers. Where
    nobody told the vocabulary it counts as one word: the feature keeps its shape.
    """
    steps = float(workload.sequence_length)
    tokens = workload.batch * steps
    pairs = tokens * workload.sequence_length
    encoder, decoder = arrays["encoder_embedding"], arrays["decoder_embedding"]
    below, above = arrays["encoder_depth"], arrays["decoder_depth"]
    summed = {name: arrays[name].sum(axis=1) for name in _LAYER_AXES}
    attention, million = space.fixed["attention"], 1e-6
    return {
        "pass": np.ones(len(below)),
        "encoder_layers": below,
        "decoder_layer_steps": steps * above,
        "encoder_dense": million * tokens * encoder * (4 * attention * below + 2 * summed["encoder_ffn"]),
        "encoder_attention": million * pairs * 2 * attention * below,
        "decoder_dense": million * tokens * decoder * (6 * attention * above + 2 * summed["decoder_ffn"]),
        "cross_dense": million * tokens * encoder * 2 * attention * summed["cross_layers"],
        "decoder_attention": million * pairs * attention * (above + 2 * summed["cross_layers"]),
        "heads": summed["encoder_heads"],
        "decoder_heads": steps * (summed["decoder_heads"] + summed["cross_heads"]),
        "output": million * tokens * decoder * (space.fixed.get("vocabulary_size") or 1),
    }
