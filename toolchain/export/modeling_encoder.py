"""The encoder of this folder for transformers: `AutoModelForMaskedLM` or `AutoModelForSequenceClassification`
`.from_pretrained(folder, trust_remote_code=True)`. Needs torch and transformers alone.

BERT's post-norm layers, each of sizes of its own (`layers` in config.json), with a linear map from one layer's width to
the next one's. Dropout as in config.json, where training goes on.
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput, SequenceClassifierOutput

MASKED = -10000.0
"""Added to attention scores of padding: zero after softmax."""


class Encoder(PreTrainedModel):
    """Embeddings and layers; a head is added by the classes below."""

    config_class = BertConfig
    base_model_prefix = "encoder"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.word = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        entering = [width, *(layer["hidden"] for layer in config.layers)]
        self.links = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(entering))
        self.blocks = nn.ModuleList(Block(epsilon, config.hidden_dropout_prob, **layer) for layer in config.layers)
        self.leaving = entering[-1]

    def get_input_embeddings(self) -> nn.Module:
        return self.word

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """[batch, sequence] of tokens -> [batch, sequence, width of the last layer]."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.word(input_ids) + self.position(places)))
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        for link, block in zip(self.links, self.blocks, strict=True):
            x = block(link(x), bias)
        return x

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class EncoderForMaskedLM(Encoder):
    """Logits for each token, by the word embedding itself."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.head = WordHead(self.leaving, config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> MaskedLMOutput:
        """`labels` [batch, sequence]: the tokens that were hidden, -100 elsewhere."""
        logits = F.linear(self.head(self.encode(input_ids, attention_mask)), self.word.weight, self.head.bias)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


class EncoderForSequenceClassification(Encoder):
    """Logits for each text, from its first token; of a regression, one number."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.head = TextHead(self.leaving, config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """`labels` [batch]: the number of each text's label, or its number to predict."""
        logits = self.head(self.encode(input_ids, attention_mask))
        loss = None
        if labels is not None and self.config.problem_type == "regression":
            loss = F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        elif labels is not None:
            loss = F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class WordHead(nn.Module):
    """What is compared with the word embedding."""

    def __init__(self, leaving: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(leaving, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x)))


class TextHead(nn.Module):
    """The answer to a whole text."""

    def __init__(self, leaving: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(leaving, config.hidden_size)
        self.labels = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.labels(torch.tanh(self.dense(x[:, 0])))


class Block(nn.Module):
    """Self-attention and feed-forward; `attention` is the summed width of the heads."""

    def __init__(self, epsilon: float, dropout: float, *, hidden: int, heads: int, attention: int, ffn: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, attention // heads
        self.query = nn.Linear(hidden, attention)
        self.key = nn.Linear(hidden, attention)
        self.value = nn.Linear(hidden, attention)
        self.output = nn.Linear(attention, hidden)
        self.attention_norm = nn.LayerNorm(hidden, epsilon)
        self.fc1 = nn.Linear(hidden, ffn)
        self.fc2 = nn.Linear(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attend(x, bias)))
        return self.ffn_norm(x + self.dropout(self.fc2(F.gelu(self.fc1(x)))))

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self.split(project(x)) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width) + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ value
        return self.output(mixed.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)
