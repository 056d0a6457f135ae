"""What every supernet is: a function of a batch and an architecture, with no current subnet to set and reset.

`fold(architecture)` computes the subnet's plain weights from the shared ones (slice, mix, compose), differentiably.
`forward` runs the plain subnet on them; `materialize` copies them out. So a subnet computes the same in training, in
search and as the file that ships, because it is the same code on the same weights.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from toolchain.errors import IntegrityError, UsageError
from toolchain.records import Mixture
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.mixture import Router
from toolchain.supernet.sliced import mixture_means

_PLAIN_SUBNETS_KEPT = 64
_ENCODINGS = 256
"""So many random architectures show the routers what the space holds."""


class Batch(NamedTuple):
    """What a subnet reads.

    Attributes:
        ids: token ids, int64 [batch, sequence].
        attention_mask: 1 where a token is one, int64 [batch, sequence].
        positions: int64 [n, 2], (row, place) of the tokens to answer for. Without them an encoder answers for every
            token; a classifier always answers once per sequence.
        decoder_ids: of a translation, what its decoder reads, int64 [batch, target]; `positions` are places in it.
    """

    ids: Tensor
    attention_mask: Tensor
    positions: Tensor | None = None
    decoder_ids: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """The arguments of `Subnet.forward`."""
        if self.decoder_ids is None:
            return self.ids, self.attention_mask, self.positions
        return self.ids, self.attention_mask, self.decoder_ids, self.positions


class Subnet(nn.Module, abc.ABC):
    """One architecture as a plain module. `forward(*batch.inputs) -> logits`."""

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

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the plain weights of a pretrained model of the largest architecture as a start.

        Raises:
            UsageError: this family cannot.
            IntegrityError: they are the weights of another model.
        """
        raise UsageError(
            f"a supernet of family {self.space.family!r} cannot start from these weights",
            hint=f"{len(weights)} tensors of an encoder fit --task mlm alone",
        )

    def compile_subnet(self) -> None:
        """Let torch compile what is trained, where that is one subnet.

        Raises:
            UsageError: many are trained; each would be compiled anew, which takes longer than it saves.
        """
        raise UsageError("a supernet is not compiled", hint="train one subnet: with --only, or with mostool finetune")

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def mixture_figures(self) -> dict[str, float]:
        """How the mixture fares, by the names of mixture.MixtureState; empty for plain sharing."""
        return mixture_means(self, self.encoding(self.space.largest()), self.encoding(self.space.smallest()))

    def forward(self, batch: Batch, architecture: Architecture) -> Tensor:
        """Logits [batch, labels] of a classifier; [n, vocabulary] or [batch, sequence, vocabulary] of masked words."""
        return torch.func.functional_call(self._skeleton(architecture), self.fold(architecture), batch.inputs)  # type: ignore[no-any-return]  # untyped in torch

    def materialize(self, architecture: Architecture) -> Subnet:
        """The subnet as a plain module with weights of its own: no router, no expert, nothing shared."""
        self.space.check(architecture)
        subnet = self.build_subnet(architecture, dropout=0.0)
        with torch.no_grad():
            _fill(subnet, self.fold(architecture))
        return subnet.eval()

    def encoding(self, architecture: Architecture) -> Tensor:
        """z [z_size]: what the routers read."""
        numbers = self._encode(architecture)
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)

    def spread_routers(self) -> None:
        """Let the routers tell architectures apart from the start, as the mixture's `router_spread` says."""
        routers = [module for module in self.modules() if isinstance(module, Router)]
        if not self.mixture.router_spread or not routers:
            return
        rng = np.random.default_rng(0)
        space = self.space
        drawn = [draw(rng) for draw in (space.sample, space.sample_even) for _ in range(_ENCODINGS // 2)]
        encodings = torch.stack([self.encoding(one) for one in (space.largest(), space.smallest(), *drawn)])
        for router in routers:
            router.spread(encodings, self.mixture.router_spread)

    @property
    def z_size(self) -> int:
        """How many numbers a router reads."""
        return len(self._encode(self.space.largest()))

    def _encode(self, architecture: Architecture) -> tuple[float, ...]:
        if self.mixture.router_sees == "all":
            return self.space.encode(architecture)
        entries = {axis: (value,) if isinstance(value, int) else value for axis, value in architecture.axes.items()}
        return tuple(sum(entries[axis.name]) / len(entries[axis.name]) / axis.choices[-1] for axis in self.space.axes)

    def _skeleton(self, architecture: Architecture) -> Subnet:
        """The plain module to run folded weights through; its own weights are never read."""
        key = (architecture.id, self.training)
        if key not in self._plain:
            if len(self._plain) >= _PLAIN_SUBNETS_KEPT:
                del self._plain[next(iter(self._plain))]
            with torch.device("meta"), _Uninitialised():
                skeleton = self.build_subnet(architecture, self.dropout)
            self._plain[key] = skeleton.train(self.training)
        return self._plain[key]


class _Uninitialised(TorchFunctionMode):
    """Modules made within it draw no first weights, which cost more than half of the time and are read by nobody."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


class Extracted(Supernet):
    """One architecture with plain weights of its own, behind the supernet's door: it is trained, evaluated and shipped
    like a subnet of any other. What is trained alone or was cut out of a supernet is one of these.
    """

    def __init__(self, fresh: Supernet, build_subnet: Callable[[Architecture, float], Subnet]) -> None:
        """`fresh` is a newly initialised supernet of the narrowed space; its only subnet is what this starts as."""
        super().__init__(fresh.space, fresh.mixture, fresh.dropout)
        self._build = build_subnet
        self.subnet = build_subnet(fresh.space.largest(), fresh.dropout)
        with torch.no_grad():
            _fill(self.subnet, fresh.fold(fresh.space.largest()))

    def build_subnet(self, architecture: Architecture, dropout: float) -> Subnet:
        return self._build(architecture, dropout)

    def fold(self, architecture: Architecture) -> dict[str, Tensor]:
        self.space.check(architecture)
        return dict(self.subnet.named_parameters())

    def forward(self, batch: Batch, architecture: Architecture) -> Tensor:
        self.space.check(architecture)
        return self.subnet(*batch.inputs)  # type: ignore[no-any-return]  # torch's modules return Any

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that this architecture has too (by name and shape), and keep its own where it has others.

        A classifier that goes on from a masked-word model so keeps everything but the head.
        """
        own = dict(self.subnet.named_parameters())
        fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
        if len(fitting) < len(own) // 2:
            raise IntegrityError(
                "these are the weights of another model", why=f"{len(fitting)} of {len(own)} tensors fit"
            )
        with torch.no_grad():
            for name, weight in fitting.items():
                own[name].copy_(weight)

    def compile_subnet(self) -> None:
        self.subnet.compile(dynamic=True)


def _fill(subnet: Subnet, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(subnet.named_parameters())
    if parameters.keys() != weights.keys():
        raise RuntimeError(f"folding and building disagree on {parameters.keys() ^ weights.keys()}")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
