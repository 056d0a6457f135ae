"""Spaces, supernets and batches small enough to build in milliseconds."""

from __future__ import annotations

import numpy as np
import torch

from toolchain.records import Mixture
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.module import Batch, Supernet

VOCABULARY, LONGEST = 60, 12


def declared(head_width: int = 4) -> SearchSpace:
    """A space as it is declared. `head_width` 0 is SuperShaper's: attention as wide as the layer, embeddings full."""
    axes = (
        *([Axis("embedding", (10, 16, 24))] if head_width else []),
        Axis("depth", (1, 2, 3)),
        Axis("hidden", (8, 12, 20), per="depth"),
        Axis("heads", (1, 2, 4), per="depth"),
        Axis("ffn", (6, 16, 24), per="depth"),
    )
    return SearchSpace("made", "bert", axes, {"width": 24, "head_width": head_width})


def resolved(labels: int = 3, head_width: int = 4) -> SearchSpace:
    """The space for a task: `labels` 0 is masked words."""
    return declaration("bert").resolve(
        declared(head_width), vocabulary_size=VOCABULARY, labels=labels, maximum_length=LONGEST
    )


def architecture(space: SearchSpace, **axes: int | tuple[int, ...]) -> Architecture:
    """The architecture with these axes and, where the space has it, a middle embedding."""
    return Architecture("bert", {axis.name: axes.get(axis.name, 16) for axis in space.axes})


def mixture(kind: str = "neuron", experts: int = 3) -> Mixture:
    return Mixture(kind=kind, experts=experts, router_width=16)  # type: ignore[arg-type]


def supernet(space: SearchSpace, kind: str = "neuron", *, dropout: float = 0.0, seed: int = 0) -> Supernet:
    """A supernet in evaluation mode whose biases and norms are not zeros and ones, as after some training."""
    torch.manual_seed(seed)
    made = build_supernet(space, mixture(kind), dropout)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def samples(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    """Distinct architectures: the smallest, the largest, and random ones."""
    rng = np.random.default_rng(seed)
    found = {one.id: one for one in (space.smallest(), space.largest())}
    while len(found) < count:
        one = space.sample(rng)
        found[one.id] = one
    return list(found.values())


def neighbours(space: SearchSpace, architecture: Architecture) -> dict[str, Architecture]:
    """Every architecture of the same depth that differs in exactly one entry of one axis, by what differs."""
    found: dict[str, Architecture] = {}
    for axis in space.axes:
        if axis.name == "depth":
            continue
        if axis.per is None:
            for choice in set(axis.choices) - {architecture.number(axis.name)}:
                axes = architecture.axes | {axis.name: choice}
                found[f"{axis.name} = {choice}"] = Architecture(architecture.family, axes)
            continue
        values = architecture.layers(axis.name)
        for layer, value in enumerate(values):
            for choice in axis.choices:
                if choice != value:
                    changed = (*values[:layer], choice, *values[layer + 1 :])
                    axes = architecture.axes | {axis.name: changed}
                    found[f"{axis.name} of layer {layer} = {choice}"] = Architecture(architecture.family, axes)
    return found


def batch(rows: int = 4, length: int = 9, seed: int = 0, padding: str = "right") -> Batch:
    """Random tokens; `padding` says where the mask is 0: none, right (by row), left, holes."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCABULARY, size=(rows, length))
    mask = np.ones_like(ids)
    if padding == "right":
        for row in range(rows):
            mask[row, length - row % length :] = 0
        ids = ids * mask
    elif padding == "left":
        mask[:, : length // 3] = 0
    elif padding == "holes":
        mask[:, 1::3] = 0
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask))
