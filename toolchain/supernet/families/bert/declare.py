"""The spaces of the encoder family, and what a subnet costs. No torch here.

Axes: `depth`; per layer `hidden` (the width the layer works at), `heads` and `ffn`; and, where a space has it,
`embedding` (the width of the embeddings and of the head; else `width`).
Fixed sizes: `width` (of the backbone between the layers), `head_width` (0: hidden / heads, as in SuperShaper) and, for
a pretrained checkpoint that asks for it, `norm_epsilon_exponent` (12: layer norms add 1e-12 to the variance); `resolve`
adds `vocabulary_size`, `maximum_length` and `labels` (0: masked-word head).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from toolchain.arrays import AxisArrays, Floats
from toolchain.errors import UsageError, unknown_name
from toolchain.records import Workload
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


BLOCKS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("pass",),
    "layers": (
        *("layers", "heads", "dense", "dense_read", "dense_written"),
        *("attention", "softmax", "activation", "normalisation"),
    ),
    "head": ("head", "decoder"),
}
"""Which of the features belong to which block; what a pass takes whatever its layers counts as the embedding."""


def features(space: SearchSpace, arrays: AxisArrays, workload: Workload) -> dict[str, Floats]:
    """What one pass takes, in millions of multiply-adds or of numbers touched, by kind of work: each [n].

    A dense layer costs its multiply-adds, and what it reads and writes besides: on small layers that is what counts.
    Where nobody told the vocabulary it counts as one word: the feature keeps its shape.
    """
    tokens = workload.batch * workload.sequence_length
    pairs = tokens * workload.sequence_length
    depth, hidden, heads, ffn = (arrays[name] for name in ("depth", "hidden", "heads", "ffn"))
    embedding = arrays.get("embedding", np.full(len(depth), float(space.fixed["width"])))
    head_width = space.fixed["head_width"]
    attention = heads * head_width if head_width else hidden
    entering = np.concatenate([embedding[:, None], hidden[:, :-1]], axis=1) * (hidden > 0)
    last = hidden[np.arange(len(depth)), depth.astype(np.intp) - 1]
    answered = workload.batch if space.fixed.get("labels") else tokens
    answers = space.fixed.get("labels") or space.fixed.get("vocabulary_size") or 1
    million = 1e-6
    return {
        "pass": np.ones(len(depth)),
        "layers": depth,
        "heads": heads.sum(axis=1),
        "dense": million * tokens * (hidden * (entering + 4 * attention + 2 * ffn)).sum(axis=1),
        "dense_read": million * tokens * (entering + 4 * hidden + attention + ffn).sum(axis=1),
        "dense_written": million * tokens * (3 * hidden + 3 * attention + ffn).sum(axis=1),
        "attention": million * pairs * 2 * attention.sum(axis=1),
        "softmax": million * pairs * heads.sum(axis=1),
        "activation": million * tokens * ffn.sum(axis=1),
        "normalisation": million * tokens * (embedding + 2 * hidden.sum(axis=1)),
        "head": million * answered * last * embedding,
        "decoder": million * answered * answers * embedding,
    }
