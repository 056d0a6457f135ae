"""The translation model of this folder for transformers:
`AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)`. Needs torch and transformers alone.

Post-norm layers, each of sizes of its own (`encoder_stack`, `decoder_stack` in config.json). A decoder layer attends to
the outputs of the last one or more encoder layers, so `last_hidden_state` of the encoder holds, side by side, the
outputs of as many as any layer attends to, the last one first. The form: HAT, arXiv 2005.14187.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, MarianConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

MASKED = -10000.0
"""Added to attention scores of what may not be seen: zero after softmax."""


class TranslatorForSeq2SeqLM(PreTrainedModel, GenerationMixin):
    """One word embedding is read by both stacks and gives the output; each takes the first columns it needs."""

    config_class = MarianConfig
    base_model_prefix = "translator"
    main_input_name = "input_ids"

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        self.word = nn.Embedding(config.vocab_size, max(config.encoder_width, config.decoder_width))
        self.encoder = EncoderBlocks(EncoderBlock(config, **layer) for layer in config.encoder_stack)
        self.decoder = nn.ModuleList(DecoderBlock(config, **layer) for layer in config.decoder_stack)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.word

    def get_encoder(self) -> "Reader":
        return Reader(self)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits [batch, target, vocabulary] of what follows each of `decoder_input_ids` [batch, target].

        `labels` [batch, target]: the translation and its end, -100 or padding after it.
        """
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("give input_ids or encoder_outputs")
            encoder_outputs = self.read(input_ids, attention_mask)
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        source = encoder_outputs[0]
        if attention_mask is None:
            attention_mask = source.new_ones(source.shape[:2])
        start = 0 if past_key_values is None else past_key_values.get_seq_length()
        x = self.dropout(self.embed(decoder_input_ids, self.config.decoder_width, start))
        unseen = x.new_ones(x.shape[1], start + x.shape[1]).triu(start + 1) * MASKED
        masked = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        for number, block in enumerate(self.decoder):
            x = block(x, unseen, source, masked, past_key_values, number)
        logits = F.linear(x, self.word.weight[:, : self.config.decoder_width])
        loss = None
        if labels is not None:
            wanted = labels.masked_fill(labels == self.config.pad_token_id, -100)
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            encoder_last_hidden_state=source,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The same, one place later, after the token that begins a translation."""
        shifted = labels.masked_fill(labels == -100, self.config.pad_token_id).roll(1, dims=1)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted

    def read(self, input_ids: Tensor, attention_mask: Tensor | None) -> BaseModelOutput:
        """[batch, source] of tokens -> [batch, source, encoder width x encoder layers attended to]."""
        x = self.dropout(self.embed(input_ids, self.config.encoder_width, 0))
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        outputs: list[Tensor] = []
        for block in self.encoder:
            x = block(x, bias)
            outputs.insert(0, x)
        seen = max(layer["cross_layers"] for layer in self.config.decoder_stack)
        return BaseModelOutput(last_hidden_state=torch.cat(outputs[:seen], dim=-1))

    def embed(self, ids: Tensor, width: int, start: int) -> Tensor:
        """Words and, as sinusoids, their places from `start` on."""
        words = F.embedding(ids, self.word.weight[:, :width]) * math.sqrt(self.config.full_width)
        places = torch.arange(start, start + ids.shape[1], device=ids.device, dtype=words.dtype).unsqueeze(1)
        columns = torch.arange(width, device=ids.device)
        rates = torch.exp((columns // 2 * 2).to(words.dtype) * (-math.log(10000.0) / self.config.full_width))
        return words + torch.where(columns % 2 == 0, torch.sin(places * rates), torch.cos(places * rates))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class Reader:
    """The encoder as `generate` asks for it."""

    main_input_name = "input_ids"

    def __init__(self, model: TranslatorForSeq2SeqLM) -> None:
        self._model = model

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        return self._model.read(input_ids, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        return self._model.read(input_ids, attention_mask)


class EncoderBlocks(nn.ModuleList):
    main_input_name = "input_ids"  # `generate` looks for it in what is called `encoder`


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: MarianConfig, *, heads: int, ffn: int) -> None:
        super().__init__()
        width = config.encoder_width
        self.attention = Attention(width, width, config.attention_width, heads, config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, *self.attention.remember(x), bias)))
        return self.ffn_norm(x + self.dropout(self.fc2(torch.relu(self.fc1(x)))))


class DecoderBlock(nn.Module):
    """Self-attention, attention to the source, feed-forward."""

    def __init__(self, config: MarianConfig, *, heads: int, cross_heads: int, cross_layers: int, ffn: int) -> None:
        super().__init__()
        width, self.read, self.cross_layers = config.decoder_width, config.encoder_width, cross_layers
        self.attention = Attention(width, width, config.attention_width, heads, config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.cross = Attention(width, self.read, config.attention_width, cross_heads, config.dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        unseen: Tensor,
        source: Tensor,
        masked: Tensor,
        past: EncoderDecoderCache | None,
        number: int,
    ) -> Tensor:
        keys, values = self.attention.remember(x)
        if past is not None:
            keys, values = past.self_attention_cache.update(keys, values, number)
        x = self.attention_norm(x + self.dropout(self.attention(x, keys, values, unseen)))
        keys, values = self.remember(source, past, number)
        attended = self.cross(x, keys, values, masked.repeat(1, 1, 1, self.cross_layers))
        x = self.cross_norm(x + self.dropout(attended))
        return self.ffn_norm(x + self.dropout(self.fc2(torch.relu(self.fc1(x)))))

    def remember(self, source: Tensor, past: EncoderDecoderCache | None, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder layers attended to, one behind the other; made once for a translation."""
        if past is not None and past.is_updated.get(number):
            layer = past.cross_attention_cache.layers[number]
            return layer.keys, layer.values
        seen = [source[..., self.read * one : self.read * (one + 1)] for one in range(self.cross_layers)]
        keys, values = self.cross.remember(torch.cat(seen, dim=1))
        if past is not None:
            keys, values = past.cross_attention_cache.update(keys, values, number)
            past.is_updated[number] = True
        return keys, values


class Attention(nn.Module):
    """Multi-head attention of x [batch, target, width] to keys and values of what is `read` wide."""

    def __init__(self, width: int, read: int, attention: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = heads, attention // heads
        self.query = nn.Linear(width, attention)
        self.key, self.value = nn.Linear(read, attention), nn.Linear(read, attention)
        self.output = nn.Linear(attention, width)
        self.dropout = nn.Dropout(dropout)

    def remember(self, read: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.key(read)), self.split(self.value(read))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        scores = self.split(self.query(x)) @ keys.transpose(-1, -2) / math.sqrt(self.head_width) + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ values
        return self.output(mixed.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)
