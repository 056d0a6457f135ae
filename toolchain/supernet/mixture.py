"""Mixed weights: several full-size weights ("experts") and a router that reads the architecture.

A subnet's weight is the combination of the experts' slices that the router gives for that subnet. With the architecture
fixed the coefficients are constants, so the sum is done once, at materialization, and a plain weight ships.

Source: Mixture-of-Supernets, arXiv 2306.04845 (layer-wise and neuron-wise routing). Initialisation is ours: README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toolchain.records import Mixture, MixtureKind, TrainingPoint

_PRETRAINED_NOISE = 0.2
"""How far experts that start from one pretrained weight are from it, in standard deviations of that weight."""


_LEAST_DIFFERENCE = 0.03
"""A mixture whose extremes' weights differ by less than this share is as good as none: it starts at 0.01 to 0.02."""


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

    @torch.no_grad()
    def spread(self, encodings: Tensor, std: float) -> None:
        """Start with other coefficients for other architectures: each score has mean 0 and this std over `encodings`.

        The encodings [n, z_size] are centred and scaled, within the first layer's weights, so that each entry counts.
        """
        centre, size = encodings.mean(0), encodings.std(0).clamp_min(1e-3)
        self.read.weight.div_(size)
        self.read.bias.sub_(self.read.weight @ centre)
        hidden = torch.relu(self.read(encodings))
        nn.init.normal_(self.mix.weight, std=1 / math.sqrt(self.mix.in_features))
        nn.init.zeros_(self.mix.bias)
        self.mix.weight.mul_((std / self.mix(hidden).std(0).clamp_min(1e-6)).unsqueeze(1))
        self.mix.bias.copy_(-self.mix(hidden).mean(0))

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

    def copy_from(self, weight: Tensor, bias: Tensor, coefficients: Tensor | None) -> None:
        """Make every expert `weight` and noise of its own, so that what `coefficients` mix is `weight` all the same.

        From each expert's noise the mix of all noise is taken, so these coefficients may be any. Other coefficients c'
        give a weight that is off by sum (c'_e - c_e) noise_e: whatever they are, about sqrt(2) noise at most (its std).
        """
        self.weight.copy_(weight.expand_as(self.weight))
        self.bias.copy_(bias.expand_as(self.bias))
        if coefficients is not None:
            noise = torch.randn_like(self.weight) * (_PRETRAINED_NOISE * float(weight.std(correction=0)))
            share = coefficients.expand(self.weight.shape[1], self.weight.shape[0])
            self.weight.add_(noise - torch.einsum("oe,eoi->oi", share, noise))


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


class MixtureState(NamedTuple):
    """How the mixture of one weight fares, seen at the extremes of the space. All figures are relative.

    Attributes:
        router_entropy: of the coefficients; 1 is a uniform mix, 0 one expert alone.
        router_contrast: how far the coefficients of the two extremes are apart (total variation, 0 to 1).
        expert_distance: the mean norm of (expert - mean expert) over the norm of the mean expert; 0 is equal experts.
        weight_difference: the norm of (one extreme's mixed weight - the other's) over that of the mean expert: what
            tells the mixture from plain sharing. It is 0 where the router is blind or the experts are equal.
    """

    router_entropy: float
    router_contrast: float
    expert_distance: float
    weight_difference: float


def mixture_state(router: Router, linear: MixedLinear, largest: Tensor, smallest: Tensor) -> MixtureState:
    """The state of one mixed weight; `largest` and `smallest` are the encodings of the extremes."""
    rows, columns = linear.weight.shape[1:]
    with torch.no_grad():
        first, second = router(largest, rows), router(smallest, rows)
        shares = torch.stack([first, second])
        entropy = -(shares * shares.clamp_min(1e-12).log()).sum(-1).mean() / math.log(router.experts)
        contrast = (first - second).abs().sum(-1).mean() / 2
        centre = linear.weight.mean(0)
        size = centre.norm().clamp_min(1e-12)
        distance = (linear.weight - centre).flatten(1).norm(dim=1).mean() / size
        weights = [linear.fold(rows, columns, one)[0] for one in (first, second)]
        difference = (weights[0] - weights[1]).norm() / size
    return MixtureState(float(entropy), float(contrast), float(distance), float(difference))


def mixture_warnings(curve: Sequence[TrainingPoint]) -> list[str]:
    """A sentence where the mixture of a training has collapsed to plain sharing: every subnet is mixed alike."""
    state = curve[-1].mixture if curve else {}
    if not state or state["weight_difference"] >= _LEAST_DIFFERENCE:
        return []
    cause = "experts that are alike" if state["expert_distance"] < _LEAST_DIFFERENCE else "a router that is blind"
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in state.items())
    warning = (
        f"the mixture has become plain sharing: the mixed weights of the largest and the smallest subnet differ by "
        f"{100 * state['weight_difference']:.1f} % ({figures}: {cause}); train longer, or start the routers further "
        "apart with --router-spread"
    )
    return [warning]
