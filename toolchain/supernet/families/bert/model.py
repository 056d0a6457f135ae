"""The encoder: BERT's post-norm layers, each at its own width between bottlenecks, and two heads.

In the supernet every layer l has an input bottleneck I_l (width -> hidden) and an output bottleneck O_l (hidden ->
width). Nothing but these two stands between one layer and the next, so a subnet holds their product, one
hidden_l x hidden_{l+1} matrix, and the last O with the head's first matrix likewise. Source of the form: SuperShaper,
arXiv 2110.04711.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain.errors import IntegrityError, UsageError
from toolchain.records import Mixture
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families.bert.declare import Layer, embedding_width, layers, norm_epsilon
from toolchain.supernet.module import Subnet, Supernet
from toolchain.supernet.sliced import PLAIN, MixedGroup, SlicedLinear, SlicedNorm, named

_MASKED = -10000.0
"""Added to attention scores of padding: finite in fp16 and int8, and zero after softmax."""


def build_supernet(space: SearchSpace, mixture: Mixture, dropout: float) -> EncoderSupernet:
    return EncoderSupernet(space, mixture, dropout)


def build_subnet(space: SearchSpace, architecture: Architecture, dropout: float) -> Encoder:
    return Encoder(space, architecture, dropout)


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
        epsilon = norm_epsilon(space)
        self.norm = nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(dropout)
        entering = [width, *(layer.hidden for layer in stack)]
        self.links = nn.ModuleList(nn.Linear(wide, layer.hidden) for wide, layer in zip(entering, stack, strict=False))
        self.blocks = nn.ModuleList(Block(layer, dropout, epsilon) for layer in stack)
        self.head = (
            Classifier(entering[-1], width, labels) if labels else MaskedWords(entering[-1], width, self.word, epsilon)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.word(input_ids) + self.position(places)))
        # Two steps, not one: ONNX Runtime's attention fusion looks for them.
        mask = attention_mask.unsqueeze(1).unsqueeze(2)
        bias = (1.0 - mask.to(x.dtype)) * _MASKED
        once = isinstance(self.head, Classifier)
        for number, (link, block) in enumerate(zip(self.links, self.blocks, strict=True), start=1):
            # One answer is read off the first token: of the others the last layer needs the keys and values alone.
            x = block(link(x), bias, first_only=once and number == len(self.blocks))
        return cast("Tensor", self.head(x, positions))


class Block(nn.Module):
    """Self-attention and feed-forward at one layer's width. x [batch, sequence, hidden] -> the same."""

    def __init__(self, layer: Layer, dropout: float, epsilon: float) -> None:
        super().__init__()
        self.heads, self.head_width = layer.heads, layer.attention // layer.heads
        self.query = nn.Linear(layer.hidden, layer.attention)
        self.key = nn.Linear(layer.hidden, layer.attention)
        self.value = nn.Linear(layer.hidden, layer.attention)
        self.output = nn.Linear(layer.attention, layer.hidden)
        self.attention_norm = nn.LayerNorm(layer.hidden, epsilon)
        self.fc1 = nn.Linear(layer.hidden, layer.ffn)
        self.fc2 = nn.Linear(layer.ffn, layer.hidden)
        self.ffn_norm = nn.LayerNorm(layer.hidden, epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, *, first_only: bool = False) -> Tensor:
        """With `first_only` the result for the first token: [batch, 1, hidden]."""
        asked = x[:, :1] if first_only else x
        asked = self.attention_norm(asked + self.dropout(self._attend(asked, x, bias)))
        return cast("Tensor", self.ffn_norm(asked + self.dropout(self.fc2(F.gelu(self.fc1(asked))))))

    def _attend(self, asked: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._split(one) for one in (self.query(asked), self.key(x), self.value(x)))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width) + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ value
        joined = mixed.transpose(1, 2).reshape(asked.shape[0], asked.shape[1], self.heads * self.head_width)
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

    def __init__(self, hidden: int, width: int, word: nn.Embedding, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.word = word
        self.bias = nn.Parameter(torch.zeros(word.num_embeddings))

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is not None:
            x = x[positions[:, 0], positions[:, 1]]
        return F.linear(self.norm(F.gelu(self.dense(x))), self.word.weight, self.bias)


# -- the supernet: full-size weights, from which `fold` makes a subnet's -----------------------------------------------


class EncoderSupernet(Supernet):
    """The full-size weights of an encoder space; mixed are the feed-forward layers and, if so set, attention."""

    def __init__(self, space: SearchSpace, mixture: Mixture, dropout: float) -> None:
        super().__init__(space, mixture, dropout)
        width = space.fixed["width"]
        self.word = nn.Parameter(torch.randn(space.fixed["vocabulary_size"], width) / math.sqrt(width))
        self.position = nn.Parameter(torch.randn(space.fixed["maximum_length"], width) / math.sqrt(width))
        self.norm = SlicedNorm(width)
        self.layers = nn.ModuleList(
            _SuperLayer(width, largest, mixture, self.z_size) for largest in layers(space, space.largest())
        )
        self.head_dense = SlicedLinear(width, width)
        labels = space.fixed["labels"]
        self.head = SlicedLinear(labels, width) if labels else SlicedNorm(width)
        self.head_bias = None if labels else nn.Parameter(torch.zeros(space.fixed["vocabulary_size"]))

    def build_subnet(self, architecture: Architecture, dropout: float) -> Encoder:
        return build_subnet(self.space, architecture, dropout)

    def fold(self, architecture: Architecture) -> dict[str, Tensor]:
        z = self.encoding(architecture)
        embedding = embedding_width(self.space, architecture)
        weights = {"word.weight": self.word[:, :embedding], "position.weight": self.position[:, :embedding]}
        weights |= self.norm.fold("norm", embedding)
        leaving: tuple[Tensor, Tensor] | None = None
        for number, size in enumerate(layers(self.space, architecture)):
            layer = _super_layer(self.layers[number])
            # The first layer reads the embedding, the others the whole backbone.
            entering = layer.into.fold(size.hidden, self.space.fixed["width"] if leaving else embedding)
            weights |= named(f"links.{number}", _compose(entering, leaving))
            weights |= layer.fold(f"blocks.{number}", size, z)
            leaving = layer.out.weight[:, : size.hidden], layer.out.bias
        dense = self.head_dense.fold(embedding, self.space.fixed["width"])
        weights |= named("head.dense", _compose(dense, leaving))
        if isinstance(self.head, SlicedLinear):
            return weights | named("head.labels", self.head.fold(self.space.fixed["labels"], embedding))
        return weights | self.head.fold("head.norm", embedding) | {"head.bias": cast("Tensor", self.head_bias)}

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """The largest subnet becomes the given model: bottlenecks are identities, every expert its weight and noise.

        Experts that were equal would give the router no gradient and stay equal. The noise cancels in what the router
        mixes for the largest subnet (see MixedLinear.copy_from).
        """
        width = self.space.fixed["width"]
        if any(layer.hidden != width for layer in layers(self.space, self.space.largest())):
            raise UsageError(
                "the space's widest layers are narrower than its backbone", hint=f"let them be {width} wide"
            )
        own = {name: tensor.shape for name, tensor in self.fold(self.space.largest()).items()}
        given = {name: weight.shape for name, weight in weights.items()}
        if isinstance(self.head, SlicedLinear):  # the answers of a labelled task are learned from nothing
            own = {name: shape for name, shape in own.items() if not name.startswith("head.labels")}
            given = {name: shape for name, shape in given.items() if name in own}
        if own != given:
            wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
            raise IntegrityError(
                "the pretrained weights do not fit the space's largest subnet",
                why=f"{wrong[0]}: {given.get(wrong[0])} where {own.get(wrong[0])} is wanted",
                hint="its width, depth, heads and ffn must be the checkpoint's",
            )
        z = self.encoding(self.space.largest())
        with torch.no_grad():
            self.word.copy_(weights["word.weight"])
            self.position.copy_(weights["position.weight"])
            self.norm.copy_from("norm", weights)
            for number, layer in enumerate(map(_super_layer, self.layers)):
                layer.start_from(f"links.{number}", f"blocks.{number}", weights, z)
            self.head_dense.copy_from("head.dense", weights)
            if isinstance(self.head, SlicedNorm):
                self.head.copy_from("head.norm", weights)
            if self.head_bias is not None:
                self.head_bias.copy_(weights["head.bias"])


class _SuperLayer(nn.Module):
    """One layer's full-size weights: bottlenecks, attention, feed-forward."""

    def __init__(self, width: int, largest: Layer, mixture: Mixture, z_size: int) -> None:
        super().__init__()
        self.into = SlicedLinear(largest.hidden, width, identity=True)
        self.out = SlicedLinear(width, largest.hidden, identity=True)
        self.attention = MixedGroup(_attention(largest), mixture if mixture.attention else PLAIN, z_size)
        self.attention_norm, self.ffn_norm = SlicedNorm(largest.hidden), SlicedNorm(largest.hidden)
        self.ffn = MixedGroup(_feed_forward(largest), mixture, z_size)

    def fold(self, name: str, size: Layer, z: Tensor) -> dict[str, Tensor]:
        return (
            self.attention.fold(name, _attention(size), z)
            | self.attention_norm.fold(f"{name}.attention_norm", size.hidden)
            | self.ffn.fold(name, _feed_forward(size), z)
            | self.ffn_norm.fold(f"{name}.ffn_norm", size.hidden)
        )

    def start_from(self, link: str, block: str, weights: Mapping[str, Tensor], z: Tensor) -> None:
        self.into.copy_from(link, weights)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for group in self.groups():
            group.copy_from(block, weights, z)
        self.attention_norm.copy_from(f"{block}.attention_norm", weights)
        self.ffn_norm.copy_from(f"{block}.ffn_norm", weights)

    def groups(self) -> tuple[MixedGroup, MixedGroup]:
        return self.attention, self.ffn


def _super_layer(module: nn.Module) -> _SuperLayer:
    return cast("_SuperLayer", module)


def _attention(size: Layer) -> dict[str, tuple[int, int]]:
    into = (size.attention, size.hidden)
    return {"query": into, "key": into, "value": into, "output": (size.hidden, size.attention)}


def _feed_forward(size: Layer) -> dict[str, tuple[int, int]]:
    return {"fc1": (size.ffn, size.hidden), "fc2": (size.hidden, size.ffn)}


def _compose(after: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The one linear map that does `before`, then `after`; each is (weight [out, in], bias [out])."""
    if before is None:
        return after
    return after[0] @ before[0], after[0] @ before[1] + after[1]
