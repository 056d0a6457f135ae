"""Full-size weights that subnets take the top-left slice of: plain ones, norms, and groups of mixed ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from toolchain.records import Mixture
from toolchain.supernet.mixture import MixedLinear, MixtureState, Router, expert_count, mixture_state

PLAIN = Mixture(kind="plain", experts=1)

Size = tuple[int, int]
"""Rows and columns of a weight: outputs and inputs."""


class SlicedLinear(nn.Module):
    """A full-size weight [outputs, inputs] and bias.

    With `identity`, a bottleneck: it starts as a slice of the identity plus a little noise, so that at the start a
    layer's input is its predecessor's output, and layers can be left out.
    """

    def __init__(self, outputs: int, inputs: int, *, identity: bool = False) -> None:
        super().__init__()
        noise = torch.randn(outputs, inputs) * xavier_std(outputs, inputs)
        self.weight = nn.Parameter(torch.eye(outputs, inputs) + 0.1 * noise if identity else noise)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def fold(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return self.weight[:rows, :columns], self.bias[:rows]

    def copy_from(self, name: str, weights: Mapping[str, Tensor]) -> None:
        self.weight.copy_(weights[f"{name}.weight"])
        self.bias.copy_(weights[f"{name}.bias"])


class SlicedNorm(nn.Module):
    """The scale and shift of a full-size layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def fold(self, name: str, width: int) -> dict[str, Tensor]:
        return named(name, (self.weight[:width], self.bias[:width]))

    def copy_from(self, name: str, weights: Mapping[str, Tensor]) -> None:
        self.weight.copy_(weights[f"{name}.weight"])
        self.bias.copy_(weights[f"{name}.bias"])


class MixedGroup(nn.Module):
    """Linear maps that are mixed together: layer-wise one router serves all of them, neuron-wise each has its own.

    A group of plain sharing is the same with one expert and no router.
    """

    def __init__(self, sizes: Mapping[str, Size], mixture: Mixture, z_size: int) -> None:
        super().__init__()
        self.names = tuple(sizes)
        for name, (outputs, inputs) in sizes.items():
            self.add_module(name, MixedLinear(outputs, inputs, mixture, xavier_std(outputs, inputs)))
        self.routers = nn.ModuleList()
        if expert_count(mixture) > 1 and mixture.kind == "layer":
            self.routers.append(Router("layer", z_size, 1, mixture))
        elif expert_count(mixture) > 1:
            self.routers.extend(Router("neuron", z_size, outputs, mixture) for outputs, _ in sizes.values())

    def fold(self, prefix: str, sizes: Mapping[str, Size], z: Tensor) -> dict[str, Tensor]:
        """The plain weights of one subnet, named prefix.name.weight and prefix.name.bias."""
        weights: dict[str, Tensor] = {}
        for name, coefficients in zip(self.names, self._coefficients(sizes, z), strict=True):
            weights |= named(f"{prefix}.{name}", self.linear(name).fold(*sizes[name], coefficients))
        return weights

    def copy_from(self, prefix: str, weights: Mapping[str, Tensor], z: Tensor) -> None:
        """Take full-size plain weights; the routers' mix for the architecture of encoding `z` is exactly these."""
        shapes = ((name, weights[f"{prefix}.{name}.weight"].shape) for name in self.names)
        sizes = {name: (rows, columns) for name, (rows, columns) in shapes}
        for name, coefficients in zip(self.names, self._coefficients(sizes, z), strict=True):
            pair = weights[f"{prefix}.{name}.weight"], weights[f"{prefix}.{name}.bias"]
            self.linear(name).copy_from(*pair, coefficients)

    def linear(self, name: str) -> MixedLinear:
        found = self.get_submodule(name)
        if not isinstance(found, MixedLinear):
            raise TypeError(f"{name} is not mixed")
        return found

    def states(self, largest: Tensor, smallest: Tensor) -> list[MixtureState]:
        """Of each linear map, seen at the encodings of the extremes."""
        routers = list(self.routers) * (len(self.names) // max(1, len(self.routers)))
        return [
            mixture_state(router, linear, largest, smallest)
            for router, linear in zip(routers, map(self.linear, self.names), strict=False)
            if isinstance(router, Router)
        ]

    def _coefficients(self, sizes: Mapping[str, Size], z: Tensor) -> list[Tensor | None]:
        if not self.routers:
            return [None] * len(self.names)
        if len(self.routers) < len(self.names):
            return [self.routers[0](z, 1)] * len(self.names)
        return [router(z, sizes[name][0]) for router, name in zip(self.routers, self.names, strict=True)]


def mixture_means(supernet: nn.Module, largest: Tensor, smallest: Tensor) -> dict[str, float]:
    """How the mixture of a supernet fares: the means over its mixed weights; empty where nothing is mixed."""
    groups = [module for module in supernet.modules() if isinstance(module, MixedGroup)]
    states = [state for group in groups for state in group.states(largest, smallest)]
    if not states:
        return {}
    return {
        name: sum(values) / len(values)
        for name, values in zip(MixtureState._fields, zip(*states, strict=True), strict=True)
    }


def xavier_std(outputs: int, inputs: int) -> float:
    return math.sqrt(2 / (outputs + inputs))


def named(name: str, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.weight": pair[0], f"{name}.bias": pair[1]}
