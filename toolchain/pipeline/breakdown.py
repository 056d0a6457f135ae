"""What each block of a subnet takes: an additive model of a table's rows, its layers told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from toolchain import predict as prediction
from toolchain import report as reporting
from toolchain.arrays import Floats
from toolchain.pipeline.predict import explain
from toolchain.records import PredictorInfo
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

_LAYERED = "layers"
"""The block of the layers, where a family has one kind of them; of several each is named as its depth axis begins."""


def additive(rows: prediction.Rows, about: prediction.About) -> PredictorInfo:
    """The model that is a sum of blocks, and how wrong it is on rows it has not seen.

    Raises:
        UsageError: too few rows, or all alike.
    """
    return prediction.fit_predictor(rows, about, {"blocks": prediction.fit_blocks})


def break_down(info: PredictorInfo, subnets: Mapping[str, Architecture]) -> list[reporting.Breakdown]:
    """Seconds of each block of these subnets, by their roles; they add up to what the additive model predicts.

    What a block of several layers takes is shared among them as far as the network would take less without each.
    """
    return [
        reporting.Breakdown(role, architecture.id, list(_blocks(info, architecture)))
        for role, architecture in subnets.items()
    ]


def _blocks(info: PredictorInfo, architecture: Architecture) -> Iterator[reporting.Block]:
    depths = _depth_axes(info.space)
    shortened = [
        (block, _without_layer(info.space, architecture, axis, layer))
        for block, axis in depths.items()
        if architecture.number(axis) > 1
        for layer in range(architecture.number(axis))
    ]
    parts = explain(info, [architecture, *(one for _, one in shortened)])
    for name, seconds in parts.items():
        whole = float(seconds[0])
        without = np.array([seconds[at] for at, (block, _) in enumerate(shortened, start=1) if block == name])
        if name not in depths:
            yield reporting.Block(name, 0, whole)
        else:
            yield from (
                reporting.Block(name, layer, whole * float(share))
                for layer, share in enumerate(_shares(whole - without), start=1)
            )


def _shares(saved: Floats) -> Floats:
    """What part of a block each layer is, by what is saved without it: [layers], adding up to one; of one layer all."""
    if not len(saved):
        return np.ones(1)
    kept: Floats = np.maximum(saved, 0.0)
    return kept / kept.sum() if kept.sum() > 0 else np.full(len(kept), 1 / len(kept))


def _depth_axes(space: SearchSpace) -> dict[str, str]:
    """Of each block that consists of layers, the axis that says how many."""
    blocks = declaration(space.family).BLOCKS
    found = {}
    for axis in dict.fromkeys(axis.per for axis in space.axes if axis.per is not None):
        block = axis.removesuffix("_depth")
        found[block if block in blocks else _LAYERED] = axis
    return {block: axis for block, axis in found.items() if block in blocks}


def _without_layer(space: SearchSpace, architecture: Architecture, depth: str, layer: int) -> Architecture:
    """The network that lacks one of its layers, whether or not the space has such; for counting alone."""
    axes = dict(architecture.axes)
    axes[depth] = architecture.number(depth) - 1
    for axis in space.axes:
        if axis.per == depth:
            entries = architecture.layers(axis.name)
            axes[axis.name] = (*entries[:layer], *entries[layer + 1 :])
    return msgspec.structs.replace(architecture, axes=axes)
