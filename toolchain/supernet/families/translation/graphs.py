"""A translator as the three graphs that optimum knows: what reads the source, what begins a translation, what goes on.

Names, order and shapes are those of optimum-onnx 0.1.0's ORTModelForSeq2SeqLM (encoder_model.onnx, decoder_model.onnx,
decoder_with_past_model.onnx). Modules keep the paths they have in the translator (`decoder.0.attention.query`), so
nodes are named by them; the word table is `word` where it is looked up and `answer` where it multiplies.
"""

from __future__ import annotations

import abc
import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolchain.supernet.families.translation.model import (
    MASKED,
    DecoderBlock,
    Translator,
    sinusoids,
    source_bias,
)

Axes = dict[str, dict[int, str]]

_SIDES = ("decoder", "encoder")
_KINDS = ("key", "value")


class TranslatorGraphs(NamedTuple):
    """The graphs of one translator, sharing its weights. See GraphModule for what each tells of itself."""

    encoder: Encoder
    first: FirstStep
    step: NextStep


def translator_graphs(model: Translator, longest: int) -> TranslatorGraphs:
    """Args: longest: the most tokens of a source or a translation (`maximum_length`)."""
    model = model.eval()
    return TranslatorGraphs(Encoder(model, longest), FirstStep(model, longest), NextStep(model, longest))


class GraphModule(nn.Module, abc.ABC):
    """What a tracing exporter has to know: names of inputs and outputs in order, axes that vary, arguments to trace
    with."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    axes: Axes

    @abc.abstractmethod
    def example(self) -> tuple[Tensor, ...]: ...


class Encoder(GraphModule):
    """input_ids, attention_mask [batch, source] -> last_hidden_state [batch, source, width x layers attended to].

    That is, side by side, the outputs of as many of the last layers as any decoder layer attends to, the last one
    first: one tensor, which whoever runs the decoder passes on unseen.
    """

    input_names = ("input_ids", "attention_mask")
    output_names = ("last_hidden_state",)

    def __init__(self, model: Translator, longest: int) -> None:
        super().__init__()
        self.word = Word(model, model.encoder_width, longest)
        self.encoder = model.encoder
        self.layers_read = max(block.cross_layers for block in _decoder_blocks(model.decoder))
        self.axes = {name: {0: "batch", 1: "source"} for name in (*self.input_names, *self.output_names)}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.word(input_ids) + self.word.places[: input_ids.shape[1]]
        bias = source_bias(attention_mask, 1, x)
        outputs = []
        for block in self.encoder:
            x = block(x, bias)
            outputs.append(x)
        seen = outputs[::-1][: self.layers_read]
        return torch.cat(seen, dim=-1) if len(seen) > 1 else seen[0]

    def example(self) -> tuple[Tensor, ...]:
        return _some_ids(2, 5), torch.ones(2, 5, dtype=torch.int64)


class _Decoder(GraphModule):
    def __init__(self, model: Translator, longest: int) -> None:
        super().__init__()
        self.read = model.encoder_width
        self.word = Word(model, model.decoder_width, longest)
        self.decoder = model.decoder
        self.answer = Answer(self.word)

    def _names(self, prefix: str, sides: tuple[str, ...]) -> tuple[str, ...]:
        layers = range(len(self.decoder))
        return tuple(f"{prefix}.{layer}.{side}.{kind}" for layer in layers for side in sides for kind in _KINDS)

    def _source_bias(self, mask: Tensor, like: Tensor) -> dict[int, Tensor]:
        """What is added to the scores of the source's tokens, for each number of encoder layers attended to."""
        numbers = sorted({block.cross_layers for block in _decoder_blocks(self.decoder)})
        return {number: source_bias(mask, number, like) for number in numbers}


class FirstStep(_Decoder):
    """input_ids [batch, target], the encoder's output and mask -> logits [batch, target, vocabulary], and for each
    layer keys and values of the words and of the source: [batch, heads, tokens, head width]."""

    def __init__(self, model: Translator, longest: int) -> None:
        super().__init__(model, longest)
        self.input_names = ("encoder_attention_mask", "input_ids", "encoder_hidden_states")
        present = self._names("present", _SIDES)
        self.output_names = ("logits", *present)
        self.axes = {
            "encoder_attention_mask": {0: "batch", 1: "source"},
            "input_ids": {0: "batch", 1: "target"},
            "encoder_hidden_states": {0: "batch", 1: "source"},
            "logits": {0: "batch", 1: "target"},
            **{name: {0: "batch", 2: "target" if ".decoder." in name else f"{name} tokens"} for name in present},
        }

    def forward(self, mask: Tensor, input_ids: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        length = input_ids.shape[1]
        x = self.word(input_ids) + self.word.places[:length]
        unseen = torch.ones(length, length, dtype=x.dtype).triu(1) * MASKED
        biases = self._source_bias(mask, x)
        present: list[Tensor] = []
        for block in _decoder_blocks(self.decoder):
            own, source = block.attention.remember(x), block.cross.remember(self._layers(hidden, block.cross_layers))
            x = block(x, source, biases[block.cross_layers], unseen, own)
            present += [*own, *source]
        return (self.answer(x), *present)

    def example(self) -> tuple[Tensor, ...]:
        layers = max(block.cross_layers for block in _decoder_blocks(self.decoder))
        hidden = torch.randn(2, 5, self.read * layers, generator=torch.Generator().manual_seed(0))
        return torch.ones(2, 5, dtype=torch.int64), _some_ids(2, 3), hidden

    def _layers(self, hidden: Tensor, count: int) -> Tensor:
        """The outputs of the last encoder layers laid one behind the other: [batch, source x count, width]."""
        parts = [hidden[..., number * self.read : (number + 1) * self.read] for number in range(count)]
        return torch.cat(parts, dim=1) if count > 1 else parts[0] if parts[0].shape[-1] < hidden.shape[-1] else hidden


class NextStep(_Decoder):
    """input_ids [batch, 1], the mask, and of each layer the keys and values so far -> logits [batch, 1, vocabulary],
    and the keys and values of the words with this one."""

    def __init__(self, model: Translator, longest: int) -> None:
        super().__init__(model, longest)
        past = self._names("past_key_values", _SIDES)
        present = self._names("present", _SIDES[:1])
        self.input_names = ("encoder_attention_mask", "input_ids", *past)
        self.output_names = ("logits", *present)
        self.axes = {
            "encoder_attention_mask": {0: "batch", 1: "source"},
            "input_ids": {0: "batch"},
            "logits": {0: "batch"},
            **{name: {0: "batch", 2: "past" if ".decoder." in name else f"{name} tokens"} for name in past},
            **{name: {0: "batch", 2: "past + 1"} for name in present},
        }

    def forward(self, mask: Tensor, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        x = self.word(input_ids) + self.word.places[past[0].shape[2]]
        biases = self._source_bias(mask, x)
        present: list[Tensor] = []
        for number, block in enumerate(_decoder_blocks(self.decoder)):
            keys, values, *source = past[4 * number : 4 * number + 4]
            x, own = block.step(x, (source[0], source[1]), biases[block.cross_layers], (keys, values))
            present += own
        return (self.answer(x), *present)

    def example(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        past: list[Tensor] = []
        for block in _decoder_blocks(self.decoder):
            for attention, tokens in ((block.attention, 3), (block.cross, 5 * block.cross_layers)):
                shape = (2, attention.heads, tokens, attention.head_width)
                past += [torch.randn(shape, generator=generator) for _ in _KINDS]
        return torch.ones(2, 5, dtype=torch.int64), _some_ids(2, 1), *past


class Word(nn.Module):
    """Token ids -> their rows of the word table, as wide as the stack that reads them, scaled.

    `places` [longest, width] are the waves that are added. They are computed where they are read, so that a traced
    graph holds their formula and a runtime works it out once, on loading.
    """

    def __init__(self, model: Translator, width: int, longest: int) -> None:
        super().__init__()
        table = model.word.weight
        # A part of the table is a parameter of its own here: quantising knows whole matrices.
        self.weight = table if table.shape[1] == width else nn.Parameter(table[:, :width].detach().contiguous())
        self.full_width, self.longest = model.width, longest

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight) * math.sqrt(self.full_width)

    @property
    def places(self) -> Tensor:
        return sinusoids(0, self.longest, self.weight.shape[1], self.full_width, self.weight)


class Answer(nn.Module):
    """x [..., width] -> logits [..., vocabulary], by the word table itself."""

    def __init__(self, word: Word) -> None:
        super().__init__()
        self.weight = word.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def _decoder_blocks(modules: nn.Module) -> list[DecoderBlock]:
    return [cast("DecoderBlock", module) for module in cast("nn.ModuleList", modules)]


def _some_ids(rows: int, length: int) -> Tensor:
    return torch.ones(rows, length, dtype=torch.int64)
