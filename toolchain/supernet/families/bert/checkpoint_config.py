"""What config.json says of a checkpoint, and under which names that kind of checkpoint keeps its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from toolchain.errors import UsageError
from toolchain.supernet.families.bert.checkpoint_folder import decode, read_json

Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=1024)]


class _Kind(msgspec.Struct):
    model_type: str


class Config(msgspec.Struct, kw_only=True):
    """What config.json says that decides what the weights mean; the names are BERT's."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    intermediate_size: Size
    vocab_size: Size
    max_position_embeddings: Size
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    type_vocab_size: Annotated[int, msgspec.Meta(ge=0)] = 2
    pad_token_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    position_embedding_type: str | None = "absolute"
    embedding_size: int | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    pruned_heads: dict[str, list[int]] | None = None


class _DistilConfig(
    Config,
    kw_only=True,
    rename={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
):
    """DistilBERT's names for the same."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    intermediate_size: Size
    hidden_act: str = "gelu"


class Layout(NamedTuple):
    """Where a kind of checkpoint keeps what. `layer` and `block` name a layer's modules by ours."""

    prefix: str
    layer: str
    block: Mapping[str, str]
    head: Mapping[str, str]
    head_bias: tuple[str, ...]
    decoder: str
    config: type[Config] = Config
    types: bool = True
    """There is an embedding of token types."""
    padded: bool = False
    """Positions begin after the number of the padding token."""


_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_BERT = Layout(
    prefix="bert.",
    layer="encoder.layer.",
    block=_BLOCK,
    head={
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
    },
    head_bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
    decoder="cls.predictions.decoder.weight",
)
_ROBERTA = _BERT._replace(
    prefix="roberta.",
    head={"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm"},
    head_bias=("lm_head.bias", "lm_head.decoder.bias"),
    decoder="lm_head.decoder.weight",
    padded=True,
)
_LAYOUTS = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _BERT._replace(
        prefix="electra.",
        head={"head.dense": "generator_predictions.dense", "head.norm": "generator_predictions.LayerNorm"},
        head_bias=("generator_lm_head.bias",),
        decoder="generator_lm_head.weight",
    ),
    "distilbert": Layout(
        prefix="distilbert.",
        layer="transformer.layer.",
        block={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "fc1": "ffn.lin1",
            "fc2": "ffn.lin2",
            "ffn_norm": "output_layer_norm",
        },
        head={"head.dense": "vocab_transform", "head.norm": "vocab_layer_norm"},
        head_bias=("vocab_projector.bias",),
        decoder="vocab_projector.weight",
        config=_DistilConfig,
        types=False,
    ),
}


def read_config(folder: Path) -> tuple[Config, Layout]:
    path = folder / "config.json"
    data = read_json(path)
    if data is None:
        raise UsageError(
            f"there is no {path}", hint="give the folder of a checkpoint; save_pretrained of transformers writes one"
        )
    kind = decode(data, _Kind, path).model_type
    if kind not in _LAYOUTS:
        raise UsageError(f"{path} is of a model of kind {kind!r}", hint=f"mostool knows {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[kind]
    config = decode(data, layout.config, path)
    _check_config(config, path)
    if layout.padded and config.pad_token_id is None:
        config.pad_token_id = 1
    return config, layout


def _check_config(config: Config, path: Path) -> None:
    """Refuse what would make the same weights mean another function."""
    refused = {
        "hidden_act": (config.hidden_act != "gelu", config.hidden_act, "gelu"),
        "position_embedding_type": (
            config.position_embedding_type not in (None, "absolute"),
            config.position_embedding_type,
            "absolute",
        ),
        "is_decoder": (config.is_decoder, "true", "false: an encoder"),
        "add_cross_attention": (config.add_cross_attention, "true", "false"),
        "embedding_size": (
            config.embedding_size not in (None, config.hidden_size),
            config.embedding_size,
            f"{config.hidden_size}, the hidden size",
        ),
        "pruned_heads": (bool(config.pruned_heads), "some", "none"),
        "num_attention_heads": (
            config.hidden_size % config.num_attention_heads != 0,
            config.num_attention_heads,
            f"a divisor of the hidden size {config.hidden_size}",
        ),
    }
    for name, (wrong, value, wanted) in refused.items():
        if wrong:
            raise UsageError(
                f"{path}: {name} is {value}",
                why=f"mostool's encoder has {wanted}",
                hint="start from another checkpoint, or train without --init",
            )


def norm_exponent(epsilon: float, path: Path) -> int:
    exponent = round(-math.log10(epsilon)) if 0 < epsilon < 1 else 0
    if exponent < 1 or not math.isclose(10.0**-exponent, epsilon, rel_tol=1e-3):
        raise UsageError(
            f"{path}: layer_norm_eps is {epsilon}",
            why="mostool knows powers of ten below 1",
            hint="start from another checkpoint, or train without --init",
        )
    return exponent
