"""What makes a bundle's folder a model of the Hugging Face world: config.json, weights and the tokenizer's settings.

`transformers` (safetensors) and `optimum.onnxruntime` (the ONNX files) load the same folder, without mostool.

Layers of differing sizes are no model of transformers. So the folder brings a modeling file, which `auto_map` in
config.json names, and `AutoModelFor*.from_pretrained(folder, trust_remote_code=True)` builds the very model. ONNX
models need no code, so `ORTModelFor*.from_pretrained(folder)` must not ask for any: the `model_type` is one that
transformers knows (bert, marian), with the true sizes where there is one for all and the largest where there is not.
Without trust_remote_code, transformers would therefore build a plain BERT, fill it with random numbers and only warn.
It cannot: the name of the activation in config.json is none that transformers has, but a sentence that says what to
do, and ends up in the error (tests/export/test_hub.py). ONNX Runtime never looks at it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch

from toolchain.records import Task
from toolchain.space import Architecture

Weights: TypeAlias = "Mapping[str, torch.Tensor | npt.NDArray[np.float32]]"

WEIGHTS_FILE = "model.safetensors"
_ENCODER, _TRANSLATION = "modeling_encoder", "modeling_translation"
_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_PAD, _UNK, _CLS, _SEP, _MASK = range(5)
_LOAD = "in layers of differing sizes: load this folder with trust_remote_code=True"


def hub_files(
    weights: Weights,
    architecture: Architecture,
    fixed: Mapping[str, int],
    *,
    task: Task,
    labels: Sequence[str],
    tokenizer: bytes,
) -> dict[str, bytes]:
    """The files to put beside the ONNX ones, by name; the same bytes for the same model.

    tokenizer.json is among them: of a translation with the [SEP] that ends a source, else as it was.

    Args:
        weights: the materialized subnet's, fp32, under its parameters' names.
        fixed: the sizes of the resolved space that are the same for all its architectures.
        tokenizer: tokenizer.json.
    """
    translates = task == "translate"
    config = _translation_config(architecture, fixed) if translates else _encoder_config(weights, architecture, fixed)
    if not translates:
        config |= _answers(task, labels)
    modeling = Path(__file__).with_name(f"{_TRANSLATION if translates else _ENCODER}.py")
    files = {
        "config.json": _json(config),
        WEIGHTS_FILE: _safetensors(weights),
        modeling.name: modeling.read_bytes(),
        "special_tokens_map.json": _json(_special_tokens(task)),
        "tokenizer_config.json": _json(_tokenizer_config(task, fixed["maximum_length"])),
        "tokenizer.json": _with_end(tokenizer) if translates else tokenizer,
    }
    if translates:
        files["generation_config.json"] = _json(_generation_config(fixed["maximum_length"]))
    return files


# -- encoders ----------------------------------------------------------------------------------------------------------


def _encoder_config(weights: Weights, architecture: Architecture, fixed: Mapping[str, int]) -> dict[str, Any]:
    vocabulary_size, width = weights["word.weight"].shape
    layers = []
    for number, heads in enumerate(architecture.layers("heads")):
        attention, hidden = weights[f"blocks.{number}.query.weight"].shape
        ffn = weights[f"blocks.{number}.fc1.weight"].shape[0]
        layers.append({"hidden": hidden, "heads": heads, "attention": attention, "ffn": ffn})
    return {
        "model_type": "bert",
        "vocab_size": vocabulary_size,
        "max_position_embeddings": weights["position.weight"].shape[0],
        "hidden_size": width,
        "embedding_size": width,  # it keeps transformers from asking that heads divide the width
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(layer["heads"] for layer in layers),
        "intermediate_size": max(layer["ffn"] for layer in layers),
        "layers": layers,
        "hidden_act": f"gelu {_LOAD}",
        "layer_norm_eps": float(f"1e-{fixed.get('norm_epsilon_exponent', 5)}"),
        "type_vocab_size": 1,
        "pad_token_id": _PAD,
        "tie_word_embeddings": False,  # the modeling file has one matrix, not two to be tied
        "torch_dtype": "float32",
    }


def _answers(task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """What the model answers with, and which class it is therefore."""
    if task == "mlm":
        return _classes(_ENCODER, "AutoModelForMaskedLM", "EncoderForMaskedLM")
    named = dict(enumerate(labels or ["number"]))
    return {
        **_classes(_ENCODER, "AutoModelForSequenceClassification", "EncoderForSequenceClassification"),
        "id2label": {str(number): name for number, name in named.items()},
        "label2id": {name: number for number, name in named.items()},
        "problem_type": "regression" if task == "regress" else "single_label_classification",
    }


def _classes(module: str, auto: str, name: str) -> dict[str, Any]:
    return {"architectures": [name], "auto_map": {auto: f"{module}.{name}"}}


# -- translation -------------------------------------------------------------------------------------------------------


def _translation_config(architecture: Architecture, fixed: Mapping[str, int]) -> dict[str, Any]:
    encoder = {"heads": "encoder_heads", "ffn": "encoder_ffn"}
    decoder = {
        "heads": "decoder_heads",
        "cross_heads": "cross_heads",
        "cross_layers": "cross_layers",
        "ffn": "decoder_ffn",
    }
    below, above = _stack(architecture, encoder), _stack(architecture, decoder)
    return {
        "model_type": "marian",
        **_classes(_TRANSLATION, "AutoModelForSeq2SeqLM", "TranslatorForSeq2SeqLM"),
        "is_encoder_decoder": True,
        "vocab_size": fixed["vocabulary_size"],
        "decoder_vocab_size": fixed["vocabulary_size"],
        "max_position_embeddings": fixed["maximum_length"],
        "d_model": architecture.number("decoder_embedding"),
        "full_width": fixed["width"],
        "encoder_width": architecture.number("encoder_embedding"),
        "decoder_width": architecture.number("decoder_embedding"),
        "attention_width": fixed["attention"],
        "encoder_layers": len(below),
        "decoder_layers": len(above),
        "encoder_attention_heads": max(layer["heads"] for layer in below),
        "decoder_attention_heads": max(layer["heads"] for layer in above),
        "encoder_ffn_dim": max(layer["ffn"] for layer in below),
        "decoder_ffn_dim": max(layer["ffn"] for layer in above),
        "encoder_stack": below,
        "decoder_stack": above,
        "activation_function": f"relu {_LOAD}",
        "scale_embedding": True,
        "tie_word_embeddings": False,
        **_MARKS,
        "torch_dtype": "float32",
    }


_MARKS = {
    "bos_token_id": _CLS,
    "decoder_start_token_id": _CLS,
    "eos_token_id": _SEP,
    "forced_eos_token_id": None,
    "pad_token_id": _PAD,
}


def _stack(architecture: Architecture, axes: Mapping[str, str]) -> list[dict[str, int]]:
    sizes = zip(*(architecture.layers(axis) for axis in axes.values()), strict=True)
    return [dict(zip(axes, layer, strict=True)) for layer in sizes]


def _generation_config(maximum_length: int) -> dict[str, Any]:
    """Greedy, and never a token that is part of no translation.

    Our own limit, twice the source's tokens and ten, is one for each source, which `generate` does not have: it takes
    `max_new_tokens`, and without it goes on to the longest there is.
    """
    return {
        **_MARKS,
        "suppress_tokens": [_PAD, _UNK, _CLS, _MASK],
        "max_length": maximum_length + 1,  # it counts the token that begins
        "num_beams": 1,
        "do_sample": False,
    }


def _with_end(tokenizer: bytes) -> bytes:
    """A tokenizer.json whose `encode` adds the [SEP] that a source ends with."""
    document = json.loads(tokenizer)
    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    second = [{"Sequence": {"id": "B", "type_id": 0}}, end]
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, *second],
        "special_tokens": {"[SEP]": {"id": "[SEP]", "ids": [_SEP], "tokens": ["[SEP]"]}},
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


# -- tokenizer and files -----------------------------------------------------------------------------------------------


def _special_tokens(task: Task) -> dict[str, str]:
    marks = {"bos_token": "[CLS]", "eos_token": "[SEP]"} if task == "translate" else {}
    return dict(sorted((_SPECIALS | {"mask_token": "[MASK]"} | marks).items()))


def _tokenizer_config(task: Task, maximum_length: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_special_tokens(task),
        "model_max_length": maximum_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        # Text that spells out a special token is text; only who hides words must be able to say [MASK].
        "split_special_tokens": task != "mlm",
    }


def _safetensors(weights: Weights) -> bytes:
    """Each number once: the masked-word head's copy of the word embedding is the embedding itself."""
    arrays = {
        name: np.ascontiguousarray(_array(weight), dtype=np.float32)
        for name, weight in sorted(weights.items())
        if name != "head.word.weight"
    }
    return safetensors.numpy.save(arrays, metadata={"format": "pt"})


def _array(weight: torch.Tensor | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return weight.detach().cpu().numpy() if isinstance(weight, torch.Tensor) else weight


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
