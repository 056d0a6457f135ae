"""Mixed weights: several full-size weights ("experts") and a router that reads the architecture.

A subnet's weight is the combination of the experts' slices that the router gives for that subnet. With the architecture
fixed the coefficients are constants, so the sum is done once, at materialization, and a plain weight ships.

Source: Mixture-of-Supernets, arXiv 2306.04845 (layer-wise and neuron-wise routing). Initialisation is ours: README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolchain.records import Mixture, MixtureKind, TrainingPoint

_PRETRAINED_NOISE = 0.1
"""How far experts that start from one pretrained weight are from it, in standard deviations of that weight."""


def expert_count(mixture: Mixture) -> int:
    """How many weights are mixed: 1 is plain sharing, by whichever name, and has no router."""
    return 1 if mixture.kind == "plain" else mixture.experts


class Router(nn.Module):
    """Architecture encoding z [z_size] -> mixing coefficients, a convex combination of the experts.

    kind `layer`: one combination for a whole weight, [experts]. kind `neuron`: one per output neuron, [rows, experts];
    the output layer is neuron-major, so the first rows of a router are the router of the first neurons.
    """

    def __init__(self, kind: MixtureKind, z_size: int, rows: int, mixture: Mixture) -> None:
        super().__init__()
        self.neuron_wise = kind == "neuron"
        self.experts = mixture.experts
        outputs = (rows if self.neuron_wise else 1) * mixture.experts
        self.read = nn.Linear(z_size, mixture.router_width)
        self.mix = nn.Linear(mixture.router_width, outputs)
        # Near-uniform mixing, yet no zero anywhere in the chain: every parameter has a gradient at the first update.
        nn.init.normal_(self.mix.weight, std=0.1 / math.sqrt(mixture.router_width))
        nn.init.zeros_(self.mix.bias)

    def forward(self, z: Tensor, rows: int) -> Tensor:
        """Coefficients [experts] or [rows, experts]; each combination sums to 1."""
        hidden = torch.relu(self.read(z))
        if not self.neuron_wise:
            return torch.softmax(self.mix(hidden), dim=-1)
        wanted = rows * self.experts
        scores = nn.functional.linear(hidden, self.mix.weight[:wanted], self.mix.bias[:wanted])
        return torch.softmax(scores.view(rows, self.experts), dim=-1)


class MixedLinear(nn.Module):
    """`experts` weights [out, in] and biases [out] behind one name; a subnet's weight is a mix of their slices."""

    def __init__(self, outputs: int, inputs: int, mixture: Mixture, std: float) -> None:
        super().__init__()
        experts = expert_count(mixture)
        self.weight = nn.Parameter(_expert_weights(experts, outputs, inputs, mixture.expert_correlation, std))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))

    def fold(self, rows: int, columns: int, coefficients: Tensor | None) -> tuple[Tensor, Tensor]:
        """The plain weight [rows, columns] and bias [rows] of one subnet: slice first, then mix."""
        if coefficients is None:
            return self.weight[0, :rows, :columns], self.bias[0, :rows]
        weight = bias = None
        for expert in range(self.weight.shape[0]):
            share = coefficients[..., expert]
            weight_slice, bias_slice = self.weight[expert, :rows, :columns], self.bias[expert, :rows]
            column = share.unsqueeze(-1) if share.dim() else share
            weight = weight_slice * column if weight is None else torch.addcmul(weight, weight_slice, column)
            bias = bias_slice * share if bias is None else torch.addcmul(bias, bias_slice, share)
        if weight is None or bias is None:
            raise ValueError("a mixture has at least one expert")
        return weight, bias

    def copy_from(self, weight: Tensor, bias: Tensor) -> None:
        """Make every expert `weight` and `bias`, plus noise that sums to zero over the experts."""
        experts = self.weight.shape[0]
        noise = torch.randn_like(self.weight) * (_PRETRAINED_NOISE * float(weight.std())) if experts > 1 else None
        self.weight.copy_(weight.expand_as(self.weight))
        self.bias.copy_(bias.expand_as(self.bias))
        if noise is not None:
            self.weight.add_(noise - noise.mean(0))


def _expert_weights(experts: int, outputs: int, inputs: int, correlation: float, std: float) -> Tensor:
    """Experts whose uniform mix has the standard deviation `std`, and whose pairwise correlation is `correlation`.

    Independent experts would separate fastest, but their uniform mix has std / sqrt(experts); equal experts keep the
    std but give the router no gradient. A common part plus own parts, scaled by the std of the uniform mix, has both.
    """
    if experts == 1:
        return torch.randn(1, outputs, inputs) * std
    common = torch.randn(1, outputs, inputs) * math.sqrt(correlation)
    own = torch.randn(experts, outputs, inputs) * math.sqrt(1 - correlation)
    uniform_std = math.sqrt(correlation + (1 - correlation) / experts)
    return (common + own) * (std / uniform_std)


def mixture_state(router: Router, linear: MixedLinear, z: Tensor, rows: int) -> tuple[float, float]:
    """(entropy of the coefficients, distance between experts), both relative: 1 is uniform, 0 is equal experts.

    The distance is the mean norm of (expert - mean expert) over the norm of the mean expert.
    """
    with torch.no_grad():
        coefficients = router(z, rows)
        entropy = -(coefficients * coefficients.clamp_min(1e-12).log()).sum(-1).mean() / math.log(router.experts)
        centre = linear.weight.mean(0)
        distance = (linear.weight - centre).flatten(1).norm(dim=1).mean() / centre.norm().clamp_min(1e-12)
    return float(entropy), float(distance)


def mixture_warnings(curve: Sequence[TrainingPoint]) -> list[str]:
    """A sentence where the mixture of a training has collapsed to plain sharing."""
    if not curve or not curve[-1].mixture:
        return []
    return []
