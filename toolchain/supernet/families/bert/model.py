"""The encoder: BERT's post-norm layers, each at its own width between bottlenecks, and two heads.

In the supernet every layer l has an input bottleneck I_l (width -> hidden) and an output bottleneck O_l (hidden ->
width). Nothing but these two stands between one layer and the next, so a subnet holds their product, one
hidden_l x hidden_{l+1} matrix, and the last O with the head's first matrix likewise. Source of the form: SuperShaper,
arXiv 2110.04711.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain.records import Mixture
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families.bert.declare import Layer, embedding_width, layers
from toolchain.supernet.mixture import MixedLinear, Router, expert_count, mixture_state
from toolchain.supernet.module import Subnet, Supernet

_MASKED = -10000.0
"""Added to attention scores of padding: finite in fp16 and int8, and zero after softmax."""


def build_supernet(space: SearchSpace, mixture: Mixture, dropout: float) -> Supernet:
    return EncoderSupernet(space, mixture, dropout)


# -- the subnet: plain modules, what ships -----------------------------------------------------------------------------


class Encoder(Subnet):
    """One architecture as it ships. `forward(input_ids, attention_mask, positions=None) -> logits`."""

    def __init__(self, space: SearchSpace, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.architecture = architecture
        width, labels = embedding_width(space, architecture), space.fixed["labels"]
        stack = layers(space, architecture)
        self.word = nn.Embedding(space.fixed["vocabulary_size"], width)
        self.position = nn.Embedding(space.fixed["maximum_length"], width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        entering = [width, *(layer.hidden for layer in stack)]
        self.links = nn.ModuleList(nn.Linear(wide, layer.hidden) for wide, layer in zip(entering, stack, strict=False))
        self.blocks = nn.ModuleList(Block(layer, dropout) for layer in stack)
        self.head = Classifier(entering[-1], width, labels) if labels else MaskedWords(entering[-1], width, self.word)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.word(input_ids) + self.position(places)))
        # Two steps, not one: ONNX Runtime's attention fusion looks for them.
        mask = attention_mask.unsqueeze(1).unsqueeze(2)
        bias = (1.0 - mask.to(x.dtype)) * _MASKED
        for link, block in zip(self.links, self.blocks, strict=True):
            x = block(link(x), bias)
        return cast("Tensor", self.head(x, positions))


class Block(nn.Module):
    """Self-attention and feed-forward at one layer's width. x [batch, sequence, hidden] -> the same."""

    def __init__(self, layer: Layer, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = layer.heads, layer.attention // layer.heads
        self.query = nn.Linear(layer.hidden, layer.attention)
        self.key = nn.Linear(layer.hidden, layer.attention)
        self.value = nn.Linear(layer.hidden, layer.attention)
        self.output = nn.Linear(layer.attention, layer.hidden)
        self.attention_norm = nn.LayerNorm(layer.hidden)
        self.fc1 = nn.Linear(layer.hidden, layer.ffn)
        self.fc2 = nn.Linear(layer.ffn, layer.hidden)
        self.ffn_norm = nn.LayerNorm(layer.hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self._attend(x, bias)))
        return cast("Tensor", self.ffn_norm(x + self.dropout(self.fc2(F.gelu(self.fc1(x))))))

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width) + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ value
        joined = mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.head_width)
        return cast("Tensor", self.output(joined))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)


class Classifier(nn.Module):
    """One answer per sequence, from its first token. -> [batch, labels]."""

    def __init__(self, hidden: int, width: int, labels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, width)
        self.labels = nn.Linear(width, labels)

    def forward(self, x: Tensor, _positions: Tensor | None) -> Tensor:
        return cast("Tensor", self.labels(torch.tanh(self.dense(x[:, 0]))))


class MaskedWords(nn.Module):
    """One answer per token (or per chosen position), by the word embedding itself. -> [..., vocabulary]."""

    def __init__(self, hidden: int, width: int, word: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.word = word
        self.bias = nn.Parameter(torch.zeros(word.num_embeddings))

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is not None:
            x = x[positions[:, 0], positions[:, 1]]
        return F.linear(self.norm(F.gelu(self.dense(x))), self.word.weight, self.bias)


# -- the supernet: full-size weights, from which `fold` makes a subnet's -----------------------------------------------


class EncoderSupernet(Supernet):
    """The full-size weights of an encoder space; the mixture is in the feed-forward layers."""

    def __init__(self, space: SearchSpace, mixture: Mixture, dropout: float) -> None:
        super().__init__(space, mixture, dropout)
        width = space.fixed["width"]
        largest = layers(space, space.largest())[0]
        self.word = nn.Parameter(torch.randn(space.fixed["vocabulary_size"], width) / math.sqrt(width))
        self.position = nn.Parameter(torch.randn(space.fixed["maximum_length"], width) / math.sqrt(width))
        self.norm = _Norm(width)
        self.layers = nn.ModuleList(
            _SuperLayer(width, largest, mixture, space.encoding_size()) for _ in range(space.axis("depth").choices[-1])
        )
        self.head_dense = _Plain(width, width)
        labels = space.fixed["labels"]
        self.head = _Plain(labels, width) if labels else _Norm(width)
        self.head_bias = None if labels else nn.Parameter(torch.zeros(space.fixed["vocabulary_size"]))

    def build_subnet(self, architecture: Architecture, dropout: float) -> Encoder:
        return Encoder(self.space, architecture, dropout)

    def fold(self, architecture: Architecture) -> dict[str, Tensor]:
        z = self.encoding(architecture)
        embedding = embedding_width(self.space, architecture)
        weights = {"word.weight": self.word[:, :embedding], "position.weight": self.position[:, :embedding]}
        weights |= self.norm.fold("norm", embedding)
        leaving: tuple[Tensor, Tensor] | None = None
        for number, size in enumerate(layers(self.space, architecture)):
            layer = cast("_SuperLayer", self.layers[number])
            # The first layer reads the embedding, the others the whole backbone.
            entering = layer.into.fold(size.hidden, self.space.fixed["width"] if leaving else embedding)
            weights |= _named(f"links.{number}", _compose(entering, leaving))
            weights |= layer.fold(f"blocks.{number}", size, z)
            leaving = layer.out.weight[:, : size.hidden], layer.out.bias
        dense = self.head_dense.fold(embedding, self.space.fixed["width"])
        weights |= _named("head.dense", _compose(dense, leaving))
        if isinstance(self.head, _Plain):
            return weights | _named("head.labels", self.head.fold(self.space.fixed["labels"], embedding))
        return weights | self.head.fold("head.norm", embedding) | {"head.bias": cast("Tensor", self.head_bias)}

    def mixture_figures(self) -> dict[str, float]:
        if expert_count(self.mixture) == 1:
            return {}
        z = self.encoding(self.space.largest())
        states = [state for layer in self.layers for state in cast("_SuperLayer", layer).mixture_states(z)]
        entropies, distances = zip(*states, strict=True)
        return {
            "router_entropy": sum(entropies) / len(entropies),
            "expert_distance": sum(distances) / len(distances),
        }


class _SuperLayer(nn.Module):
    """One layer's full-size weights: bottlenecks, attention, mixed feed-forward, routers."""

    def __init__(self, width: int, largest: Layer, mixture: Mixture, z_size: int) -> None:
        super().__init__()
        hidden, attention, ffn = largest.hidden, largest.attention, largest.ffn
        self.into, self.out = _Plain(hidden, width, identity=True), _Plain(width, hidden, identity=True)
        self.query, self.key, self.value = (_Plain(attention, hidden) for _ in range(3))
        self.output = _Plain(hidden, attention)
        self.attention_norm, self.ffn_norm = _Norm(hidden), _Norm(hidden)
        std = math.sqrt(2 / (hidden + ffn))
        self.fc1, self.fc2 = MixedLinear(ffn, hidden, mixture, std), MixedLinear(hidden, ffn, mixture, std)
        # Layer-wise, one router serves both linears; neuron-wise, each has its own.
        self.routers = nn.ModuleList()
        if expert_count(mixture) > 1 and mixture.kind == "layer":
            self.routers.append(Router("layer", z_size, 1, mixture))
        elif expert_count(mixture) > 1:
            self.routers.extend(Router("neuron", z_size, rows, mixture) for rows in (ffn, hidden))

    def fold(self, name: str, size: Layer, z: Tensor) -> dict[str, Tensor]:
        first, second = self._coefficients(z, size)
        weights: dict[str, Tensor] = {}
        for project in ("query", "key", "value"):
            weights |= _named(f"{name}.{project}", getattr(self, project).fold(size.attention, size.hidden))
        weights |= _named(f"{name}.output", self.output.fold(size.hidden, size.attention))
        weights |= self.attention_norm.fold(f"{name}.attention_norm", size.hidden)
        weights |= _named(f"{name}.fc1", self.fc1.fold(size.ffn, size.hidden, first))
        weights |= _named(f"{name}.fc2", self.fc2.fold(size.hidden, size.ffn, second))
        return weights | self.ffn_norm.fold(f"{name}.ffn_norm", size.hidden)

    def mixture_states(self, z: Tensor) -> list[tuple[float, float]]:
        routers = [cast("Router", router) for router in self.routers]
        return [
            mixture_state(router, linear, z, linear.weight.shape[1])
            for router, linear in zip((routers[0], routers[-1]), (self.fc1, self.fc2), strict=True)
        ]

    def _coefficients(self, z: Tensor, size: Layer) -> tuple[Tensor | None, Tensor | None]:
        if not self.routers:
            return None, None
        first = self.routers[0](z, size.ffn)
        return first, self.routers[1](z, size.hidden) if len(self.routers) > 1 else first


class _Plain(nn.Module):
    """A full-size weight [outputs, inputs] and bias that subnets take the top-left slice of.

    With `identity`, a bottleneck: it starts as a slice of the identity plus a little noise, so that at the start a
    layer's input is its predecessor's output, and layers can be left out.
    """

    def __init__(self, outputs: int, inputs: int, *, identity: bool = False) -> None:
        super().__init__()
        std = math.sqrt(2 / (outputs + inputs))
        noise = torch.randn(outputs, inputs) * std
        self.weight = nn.Parameter(torch.eye(outputs, inputs) + 0.1 * noise if identity else noise)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def fold(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return self.weight[:rows, :columns], self.bias[:rows]


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def fold(self, name: str, width: int) -> dict[str, Tensor]:
        return _named(name, (self.weight[:width], self.bias[:width]))


def _named(name: str, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.weight": pair[0], f"{name}.bias": pair[1]}


def _compose(after: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The one linear map that does `before`, then `after`; each is (weight [out, in], bias [out])."""
    if before is None:
        return after
    return after[0] @ before[0], after[0] @ before[1] + after[1]
