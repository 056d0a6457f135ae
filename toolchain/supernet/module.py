"""What every supernet is: a function of a batch and an architecture, with no current subnet to set and reset.

`fold(architecture)` computes the subnet's plain weights from the shared ones (slice, mix, compose), differentiably.
`forward` runs the plain subnet on them; `materialize` copies them out. So a subnet computes the same in training, in
search and as the file that ships, because it is the same code on the same weights.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from toolchain.records import Mixture
from toolchain.space import Architecture, SearchSpace

_PLAIN_SUBNETS_KEPT = 64


class Batch:
    """Token ids and attention mask, int64 [batch, sequence]; `positions` [n, 2] picks the tokens to answer for.

    Without `positions` a masked-word model answers for every token; a classifier always answers once per sequence.
    """

    __slots__ = ("attention_mask", "ids", "positions")

    def __init__(self, ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> None:
        self.ids = ids
        self.attention_mask = attention_mask
        self.positions = positions


class Subnet(nn.Module, abc.ABC):
    """One architecture as a plain module. `forward(input_ids, attention_mask, positions=None) -> logits`."""

    architecture: Architecture


class Supernet(nn.Module, abc.ABC):
    """The shared weights of a space."""

    def __init__(self, space: SearchSpace, mixture: Mixture, dropout: float) -> None:
        super().__init__()
        self.space = space
        self.mixture = mixture
        self.dropout = dropout
        self._plain: dict[tuple[str, bool], Subnet] = {}

    @abc.abstractmethod
    def build_subnet(self, architecture: Architecture, dropout: float) -> Subnet:
        """The plain module of an architecture, with weights of its own yet to be filled."""

    @abc.abstractmethod
    def fold(self, architecture: Architecture) -> dict[str, Tensor]:
        """The subnet's weights by the names of the plain module's parameters; gradients flow to the shared weights."""

    @abc.abstractmethod
    def mixture_figures(self) -> dict[str, float]:
        """How the mixture fares (see TrainingPoint.mixture); empty for plain sharing."""

    def forward(self, batch: Batch, architecture: Architecture) -> Tensor:
        """Logits [batch, labels] of a classifier; [n, vocabulary] or [batch, sequence, vocabulary] of masked words."""
        inputs = (batch.ids, batch.attention_mask, batch.positions)
        return torch.func.functional_call(self._skeleton(architecture), self.fold(architecture), inputs)  # type: ignore[no-any-return]  # untyped in torch

    def materialize(self, architecture: Architecture) -> Subnet:
        """The subnet as a plain module with weights of its own: no router, no expert, nothing shared."""
        self.space.check(architecture)
        subnet = self.build_subnet(architecture, dropout=0.0)
        with torch.no_grad():
            _fill(subnet, self.fold(architecture))
        return subnet.eval()

    def encoding(self, architecture: Architecture) -> Tensor:
        """z [encoding_size]: what the routers read."""
        reference = next(self.parameters())
        return torch.tensor(self.space.encode(architecture), dtype=reference.dtype, device=reference.device)

    def _skeleton(self, architecture: Architecture) -> Subnet:
        """The plain module to run folded weights through; its own weights are never read."""
        key = (architecture.id, self.training)
        if key not in self._plain:
            if len(self._plain) >= _PLAIN_SUBNETS_KEPT:
                del self._plain[next(iter(self._plain))]
            with torch.device("meta"):
                skeleton = self.build_subnet(architecture, self.dropout)
            self._plain[key] = skeleton.train(self.training)
        return self._plain[key]


def _fill(subnet: Subnet, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(subnet.named_parameters())
    if parameters.keys() != weights.keys():
        raise RuntimeError(f"folding and building disagree on {parameters.keys() ^ weights.keys()}")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
