"""The encoders that compile.py times: sizes, weights drawn from a seed, and the graph that any of torch's users gets.

A *plain* encoder has no links between its layers, so that it is BERT itself and every peer can express it; in a
*linked* one each layer has its own width, as the subnets of a run have. Both are modules of the family `bert`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from toolchain.space import Architecture, Axis, SearchSpace, Value
from toolchain.supernet.families import declaration
from toolchain.supernet.families.bert.model import build_subnet

LABELS = 64
"""So many that the error of a quantised file is that of some numbers, not of two."""
LONGEST = 128
INPUTS = ("input_ids", "attention_mask")


class Size(NamedTuple):
    """An encoder's sizes, layer by layer."""

    name: str
    embedding: int
    hidden: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    head_width: int
    vocabulary: int
    plain: bool
    every: bool = False
    """It gives the last layer's outputs, of every token; else an answer per text, for which the last layer's first is
    enough: mostool's files make use of that, and no peer does."""


def _plain(name: str, width: int, depth: int, head_width: int, vocabulary: int) -> Size:
    heads, ffn = (width // head_width,) * depth, (4 * width,) * depth
    return Size(name, width, (width,) * depth, heads, ffn, head_width, vocabulary, plain=True)


_LINKED_SMALL = Size(
    "linked small",
    192,
    (256, 128, 192, 64),
    (8, 2, 4, 2),
    (1024, 256, 512, 128),
    head_width=32,
    vocabulary=8000,
    plain=False,
)
SIZES = (
    _plain("tiny 3x128", 128, 3, 32, 4000),
    _plain("small 4x256", 256, 4, 32, 8000),
    _plain("mid 4x512", 512, 4, 64, 8000),
    _plain("mid 4x512 every", 512, 4, 64, 8000)._replace(every=True),
    _plain("base 3x768", 768, 3, 64, 8000),
    _LINKED_SMALL,
    _LINKED_SMALL._replace(name="linked small every", every=True),
    Size(
        "linked base",
        768,
        (768, 360, 540, 240, 600),
        (12, 6, 6, 6, 12),
        (3072, 1024, 2048, 512, 1024),
        head_width=64,
        vocabulary=8000,
        plain=False,
    ),
)


class EveryToken(nn.Module):
    """No head: what the last layer says, [batch, sequence, hidden]."""

    def forward(self, x: Tensor, _positions: Tensor | None) -> Tensor:
        return x


class Model(NamedTuple):
    """An encoder with its weights.

    `subnet(input_ids, attention_mask) -> logits` [batch, LABELS], or the last layer's outputs [batch, length, hidden].
    """

    size: Size
    space: SearchSpace
    architecture: Architecture
    subnet: nn.Module

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.subnet.parameters())

    def dense_flop(self, length: int) -> float:
        """Multiplications and additions of the dense layers that every token passes; not of attention's products."""
        numbers = sum(
            one.weight.numel()
            for name, one in self.subnet.named_modules()
            if isinstance(one, nn.Linear) and name.startswith(("links", "blocks"))
        )
        return 2.0 * length * numbers


def build_model(size: Size, seed: int) -> Model:
    axes: dict[str, Value] = {
        "embedding": size.embedding,
        "depth": len(size.hidden),
        "hidden": size.hidden,
        "heads": size.heads,
        "ffn": size.ffn,
    }
    per_layer = ("hidden", "heads", "ffn")
    declared = tuple(
        Axis(name, tuple(sorted({*np.atleast_1d(value).tolist()})), per="depth" if name in per_layer else None)
        for name, value in axes.items()
    )
    fixed = {"width": max(size.embedding, *size.hidden), "head_width": size.head_width}
    space = declaration("bert").resolve(
        SearchSpace("compiled", "bert", declared, fixed),
        vocabulary_size=size.vocabulary,
        labels=LABELS,
        maximum_length=LONGEST,
    )
    architecture = Architecture("bert", axes)
    torch.manual_seed(seed)
    subnet = build_subnet(space, architecture, 0.0).eval()
    if size.plain:
        subnet.links = nn.ModuleList(nn.Identity() for _ in size.hidden)  # nothing of them is left in the graph
    if size.every:
        subnet.head = EveryToken()
    return Model(size, space, architecture, subnet)


def rows_of(size: Size, length: int, rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Token ids [rows, length], none of them padding (0)."""
    return np.random.default_rng(seed).integers(5, size.vocabulary, (rows, length), dtype=np.int64)


def feed_of(ids: npt.NDArray[np.int64], padded_left: int = 0) -> dict[str, npt.NDArray[np.int64]]:
    mask = np.ones_like(ids)
    mask[:, :padded_left] = 0
    return {"input_ids": ids, "attention_mask": mask}


def trace(model: Model, path: Path) -> None:
    """What torch's tracing exporter writes with its own settings: the graph that the peers are given."""
    example = torch.ones(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.subnet,
            example,
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(INPUTS, axes), "logits": axes if model.size.every else {0: "batch"}},
        )
