"""The translation model: post-norm encoder-decoders with HAT's elastic sizes (arXiv 2005.14187).

One word embedding is read by both stacks and gives the output. A decoder layer attends to the outputs of the last one,
two or three encoder layers, laid one behind the other. The places of tokens are sinusoids, cut to the width at hand.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain.records import Mixture
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families.translation.declare import DecoderLayer, EncoderLayer, decoder_layers, encoder_layers
from toolchain.supernet.module import Subnet, Supernet
from toolchain.supernet.sliced import PLAIN, MixedGroup, SlicedNorm

MASKED = -10000.0
"""Added to attention scores of what may not be seen: finite in fp16 and int8, and zero after softmax."""

KeysValues = tuple[Tensor, Tensor]
"""Each [batch, heads, tokens, head width]."""


def build_supernet(space: SearchSpace, mixture: Mixture, dropout: float) -> TranslationSupernet:
    return TranslationSupernet(space, mixture, dropout)


def build_subnet(space: SearchSpace, architecture: Architecture, dropout: float) -> Translator:
    return Translator(space, architecture, dropout)


# -- the subnet: plain modules, what ships -----------------------------------------------------------------------------


class Decoding:
    """Where a translation in progress is: what the decoder remembers of the source and of its own words so far.

    `cross` and `past` hold keys and values for each decoder layer, `bias` what is added to the scores of the source's
    tokens for each number of encoder layers attended to, [batch, 1, 1, tokens].
    """

    def __init__(self, cross: list[KeysValues], bias: list[Tensor]) -> None:
        self.cross = cross
        self.bias = bias
        self.past: list[KeysValues | None] = [None] * len(cross)
        self.place = 0

    def pick(self, rows: Tensor) -> None:
        """Go on with these rows (some perhaps several times, some not at all)."""
        self.cross = [(keys[rows], values[rows]) for keys, values in self.cross]
        self.bias = [bias[rows] for bias in self.bias]
        self.past = [None if past is None else (past[0][rows], past[1][rows]) for past in self.past]


class Translator(Subnet):
    """One architecture as it ships.

    `forward(input_ids, attention_mask, decoder_ids, positions=None) -> logits` [batch, target, vocabulary], or [n,
    vocabulary] for the n `positions`; `start` and `step` translate word by word with a key/value cache.
    """

    def __init__(self, space: SearchSpace, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.architecture = architecture
        self.width, attention = space.fixed["width"], space.fixed["attention"]
        self.encoder_width = architecture.number("encoder_embedding")
        self.decoder_width = architecture.number("decoder_embedding")
        self.word = nn.Embedding(space.fixed["vocabulary_size"], max(self.encoder_width, self.decoder_width))
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            EncoderBlock(self.encoder_width, attention, layer, dropout) for layer in encoder_layers(architecture)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(self.decoder_width, self.encoder_width, attention, layer, dropout)
            for layer in decoder_layers(architecture)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_ids: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        outputs = self._encode(input_ids, attention_mask)
        length = decoder_ids.shape[1]
        unseen = torch.ones(length, length, dtype=outputs[0].dtype, device=decoder_ids.device).triu(1) * MASKED
        x = self._read(decoder_ids, self.decoder_width, 0)
        for block in map(_decoder_block, self.decoder):
            x = block(x, block.remember(outputs), source_bias(attention_mask, block.cross_layers, x), unseen)
        if positions is not None:
            x = x[positions[:, 0], positions[:, 1]]
        return self._answer(x)

    def start(self, input_ids: Tensor, attention_mask: Tensor) -> Decoding:
        """Read the source: int64 [batch, source]."""
        outputs = self._encode(input_ids, attention_mask)
        blocks = list(map(_decoder_block, self.decoder))
        return Decoding(
            [block.remember(outputs) for block in blocks],
            [source_bias(attention_mask, block.cross_layers, outputs[0]) for block in blocks],
        )

    def step(self, words: Tensor, decoding: Decoding) -> Tensor:
        """Logits [batch, vocabulary] of the next words after `words` [batch], the last ones so far."""
        x = self._read(words.unsqueeze(1), self.decoder_width, decoding.place)
        for number, block in enumerate(map(_decoder_block, self.decoder)):
            x, decoding.past[number] = block.step(
                x, decoding.cross[number], decoding.bias[number], decoding.past[number]
            )
        decoding.place += 1
        return self._answer(x[:, 0])

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """The output of each encoder layer, [batch, source, encoder width]."""
        x = self._read(input_ids, self.encoder_width, 0)
        bias = source_bias(attention_mask, 1, x)
        outputs = []
        for block in self.encoder:
            x = block(x, bias)
            outputs.append(x)
        return outputs

    def _read(self, ids: Tensor, width: int, start: int) -> Tensor:
        words = F.embedding(ids, self.word.weight[:, :width]) * math.sqrt(self.width)
        places = sinusoids(start, ids.shape[1], width, self.width, words)
        return cast("Tensor", self.dropout(words + places))

    def _answer(self, x: Tensor) -> Tensor:
        return F.linear(x, self.word.weight[:, : self.decoder_width])


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward. x [batch, source, width] -> the same."""

    def __init__(self, width: int, attention: int, layer: EncoderLayer, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, width, attention, layer.heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, layer.ffn), nn.Linear(layer.ffn, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, self.attention.remember(x), bias)))
        return cast("Tensor", self.ffn_norm(x + self.dropout(self.fc2(torch.relu(self.fc1(x))))))


class DecoderBlock(nn.Module):
    """Self-attention, attention to the source, feed-forward. x [batch, target, width] -> the same."""

    def __init__(self, width: int, read: int, attention: int, layer: DecoderLayer, dropout: float) -> None:
        super().__init__()
        self.cross_layers = layer.cross_layers
        self.attention = Attention(width, width, attention, layer.heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.cross = Attention(width, read, attention, layer.cross_heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, layer.ffn), nn.Linear(layer.ffn, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def remember(self, outputs: list[Tensor]) -> KeysValues:
        """Keys and values of the last encoder layers, the last one first."""
        seen = outputs[::-1][: self.cross_layers]
        return self.cross.remember(torch.cat(seen, dim=1) if len(seen) > 1 else seen[0])

    def forward(
        self, x: Tensor, source: KeysValues, source_bias: Tensor, bias: Tensor, own: KeysValues | None = None
    ) -> Tensor:
        """`own`: the keys and values of x, where somebody has them already."""
        own = self.attention.remember(x) if own is None else own
        return self._finish(x, self.attention(x, own, bias), source, source_bias)

    def step(
        self, x: Tensor, source: KeysValues, source_bias: Tensor, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """One more word, x [batch, 1, width]; the words before it are in `past`."""
        keys, values = self.attention.remember(x)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        attended = self.attention(x, (keys, values), None)
        return self._finish(x, attended, source, source_bias), (keys, values)

    def _finish(self, x: Tensor, attended: Tensor, source: KeysValues, source_bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(attended))
        x = self.cross_norm(x + self.dropout(self.cross(x, source, source_bias)))
        return cast("Tensor", self.ffn_norm(x + self.dropout(self.fc2(torch.relu(self.fc1(x))))))


class Attention(nn.Module):
    """Multi-head attention of x [batch, target, width] to keys and values of what is `read` wide."""

    def __init__(self, width: int, read: int, attention: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = heads, attention // heads
        self.query = nn.Linear(width, attention)
        self.key, self.value = nn.Linear(read, attention), nn.Linear(read, attention)
        self.output = nn.Linear(attention, width)
        self.dropout = nn.Dropout(dropout)

    def remember(self, read: Tensor) -> KeysValues:
        return self._split(self.key(read)), self._split(self.value(read))

    def forward(self, x: Tensor, remembered: KeysValues, bias: Tensor | None) -> Tensor:
        keys, values = remembered
        scores = self._split(self.query(x)) @ keys.transpose(-1, -2) / math.sqrt(self.head_width)
        if bias is not None:
            scores = scores + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ values
        joined = mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.head_width)
        return cast("Tensor", self.output(joined))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)


def _decoder_block(module: nn.Module) -> DecoderBlock:
    return cast("DecoderBlock", module)


def source_bias(attention_mask: Tensor, layers: int, like: Tensor) -> Tensor:
    """What is added to the scores of the tokens of `layers` encoder layers: [batch, 1, 1, source x layers]."""
    mask = attention_mask.unsqueeze(1).unsqueeze(2)
    bias = (1.0 - mask.to(like.dtype)) * MASKED
    return bias.repeat(1, 1, 1, layers) if layers > 1 else bias


def sinusoids(start: int, count: int, width: int, full_width: int, like: Tensor) -> Tensor:
    """The places start .. start + count - 1 as waves, [count, width]; a narrower table is the left part of a wider one.

    Source: Attention Is All You Need, arXiv 1706.03762; sine and cosine of one frequency stand side by side.
    """
    places = torch.arange(start, start + count, device=like.device, dtype=like.dtype).unsqueeze(1)
    columns = torch.arange(width, device=like.device)
    rates = torch.exp((columns // 2 * 2).to(like.dtype) * (-math.log(10000.0) / full_width))
    return torch.where(columns % 2 == 0, torch.sin(places * rates), torch.cos(places * rates))


# -- the supernet: full-size weights, from which `fold` makes a subnet's -----------------------------------------------


class TranslationSupernet(Supernet):
    """The full-size weights of a translation space; mixed are the feed-forward layers and, if so set, attention."""

    def __init__(self, space: SearchSpace, mixture: Mixture, dropout: float) -> None:
        super().__init__(space, mixture, dropout)
        width, attention, z_size = space.fixed["width"], space.fixed["attention"], self.z_size
        largest = space.largest()
        encoder, decoder = largest.number("encoder_embedding"), largest.number("decoder_embedding")
        self.word = nn.Parameter(torch.randn(space.fixed["vocabulary_size"], width) / math.sqrt(width))
        self.encoder = nn.ModuleList(
            _SuperEncoderLayer(encoder, attention, layer.ffn, mixture, z_size) for layer in encoder_layers(largest)
        )
        self.decoder = nn.ModuleList(
            _SuperDecoderLayer(decoder, encoder, attention, layer.ffn, mixture, z_size)
            for layer in decoder_layers(largest)
        )

    def build_subnet(self, architecture: Architecture, dropout: float) -> Translator:
        return build_subnet(self.space, architecture, dropout)

    def fold(self, architecture: Architecture) -> dict[str, Tensor]:
        z, attention = self.encoding(architecture), self.space.fixed["attention"]
        encoder, decoder = architecture.number("encoder_embedding"), architecture.number("decoder_embedding")
        weights = {"word.weight": self.word[:, : max(encoder, decoder)]}
        for number, layer in enumerate(encoder_layers(architecture)):
            below = cast("_SuperEncoderLayer", self.encoder[number])
            weights |= below.fold(f"encoder.{number}", encoder, attention, layer.ffn, z)
        for number, deep in enumerate(decoder_layers(architecture)):
            above = cast("_SuperDecoderLayer", self.decoder[number])
            weights |= above.fold(f"decoder.{number}", decoder, encoder, attention, deep.ffn, z)
        return weights


class _SuperEncoderLayer(nn.Module):
    """One encoder layer's full-size weights."""

    def __init__(self, width: int, attention: int, ffn: int, mixture: Mixture, z_size: int) -> None:
        super().__init__()
        self.attention = MixedGroup(_attention(width, width, attention), _of_attention(mixture), z_size)
        self.attention_norm, self.ffn_norm = SlicedNorm(width), SlicedNorm(width)
        self.ffn = MixedGroup(_feed_forward(width, ffn), mixture, z_size)

    def fold(self, name: str, width: int, attention: int, ffn: int, z: Tensor) -> dict[str, Tensor]:
        return (
            self.attention.fold(f"{name}.attention", _attention(width, width, attention), z)
            | self.attention_norm.fold(f"{name}.attention_norm", width)
            | self.ffn.fold(name, _feed_forward(width, ffn), z)
            | self.ffn_norm.fold(f"{name}.ffn_norm", width)
        )


class _SuperDecoderLayer(nn.Module):
    """One decoder layer's full-size weights."""

    def __init__(self, width: int, read: int, attention: int, ffn: int, mixture: Mixture, z_size: int) -> None:
        super().__init__()
        self.attention = MixedGroup(_attention(width, width, attention), _of_attention(mixture), z_size)
        self.cross = MixedGroup(_attention(width, read, attention), _of_attention(mixture), z_size)
        self.attention_norm, self.cross_norm, self.ffn_norm = SlicedNorm(width), SlicedNorm(width), SlicedNorm(width)
        self.ffn = MixedGroup(_feed_forward(width, ffn), mixture, z_size)

    def fold(self, name: str, width: int, read: int, attention: int, ffn: int, z: Tensor) -> dict[str, Tensor]:
        return (
            self.attention.fold(f"{name}.attention", _attention(width, width, attention), z)
            | self.attention_norm.fold(f"{name}.attention_norm", width)
            | self.cross.fold(f"{name}.cross", _attention(width, read, attention), z)
            | self.cross_norm.fold(f"{name}.cross_norm", width)
            | self.ffn.fold(name, _feed_forward(width, ffn), z)
            | self.ffn_norm.fold(f"{name}.ffn_norm", width)
        )


def _of_attention(mixture: Mixture) -> Mixture:
    return mixture if mixture.attention else PLAIN


def _attention(width: int, read: int, attention: int) -> dict[str, tuple[int, int]]:
    return {
        "query": (attention, width),
        "key": (attention, read),
        "value": (attention, read),
        "output": (width, attention),
    }


def _feed_forward(width: int, ffn: int) -> dict[str, tuple[int, int]]:
    return {"fc1": (ffn, width), "fc2": (width, ffn)}
