"""The folder of somebody else's model, as `save_pretrained` of transformers writes it, looked at before it is loaded.

Read are settings, safetensors and tokenizer files. Code that comes with a model, and weights in files that may hold
code (pickle), are refused: what is loaded is a copy of the folder that has neither.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_bytes, sha256_file

T = TypeVar("T", bound=msgspec.Struct)

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
)
"""What the tokenizers of transformers are made of; none of it is code."""
_LARGEST_JSON_BYTES = 16 << 20
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_AGAIN = "get the model's folder again"
_SAVE = "load it with transformers and save it again: model.save_pretrained(folder) writes safetensors"


class Config(msgspec.Struct):
    """What is read of config.json here; transformers reads the rest."""

    model_type: str
    architectures: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    auto_map: dict[str, Any] | None = None
    quantization_config: dict[str, Any] | None = None
    max_position_embeddings: int | None = None
    n_positions: int | None = None
    pad_token_id: int | None = None


class _TokenizerConfig(msgspec.Struct):
    model_max_length: float | None = None
    auto_map: Any = None


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class Folder(NamedTuple):
    """A folder that was looked at: every file of it that is read, by name; what they say."""

    files: dict[str, Path]
    weights: tuple[str, ...]
    config: Config
    longest: float | None
    """What the tokenizer's settings say a text may have of tokens."""

    @property
    def sha256(self) -> str:
        """Of the weights file; of several, of their `sha256  name` lines."""
        if len(self.weights) == 1:
            return sha256_file(self.files[self.weights[0]])
        return sha256_bytes("".join(f"{sha256_file(self.files[one])}  {one}\n" for one in self.weights).encode())


def look_at(folder: Path) -> Folder:
    """Whether a folder can be exported at all.

    Raises:
        UsageError: it is no model's folder, brings its own code, or has its weights in a pickle or quantised.
        IntegrityError: a file is damaged, or a weight is not finite (the message names it).
    """
    config = _read(folder / _CONFIG, Config)
    if config is None:
        raise UsageError(
            f"{folder} is no model's folder",
            why=f"it has no {_CONFIG}",
            hint="give a folder as save_pretrained of transformers writes it",
        )
    tokenizer = _read(folder / "tokenizer_config.json", _TokenizerConfig) or _TokenizerConfig()
    if config.auto_map or tokenizer.auto_map:
        raise UsageError(
            f"{folder} brings its own code",
            why="auto_map in its settings names Python files, and mostool runs no code that comes with data",
            hint="give a model of one of transformers' own types; a bundle of mostool is compiled already",
        )
    if config.quantization_config:
        raise UsageError(f"the weights in {folder} are quantised", hint="give the model as it was before that")
    weights = _find_weights(folder)
    names = (_CONFIG, "generation_config.json", *TOKENIZER_FILES, *weights, *([_INDEX] if len(weights) > 1 else []))
    found = Folder(
        {name: folder / name for name in names if (folder / name).is_file()},
        weights,
        config,
        tokenizer.model_max_length,
    )
    for name in weights:
        _check_weights(folder / name)
    return found


def _find_weights(folder: Path) -> tuple[str, ...]:
    if (folder / _WEIGHTS).is_file():
        return (_WEIGHTS,)
    index = _read(folder / _INDEX, _Index)
    if index is not None:
        shards = tuple(sorted(set(index.weight_map.values())))
        for name in shards:
            if not _SHARD.fullmatch(name) or not (folder / name).is_file():
                raise IntegrityError(f"{folder} lacks the weights file {name!r}", why=f"{_INDEX} names it", hint=_AGAIN)
        if shards:
            return shards
    pickle = next((name for name in _PICKLES if (folder / name).is_file()), None)
    if pickle is not None:
        raise UsageError(
            f"the weights in {folder} are in {pickle}",
            why="such a file is a pickle: loading it may run code",
            hint=f"if you trust it, {_SAVE}",
        )
    raise UsageError(f"there are no weights in {folder}", why=f"neither {_WEIGHTS} nor {_INDEX}", hint=_SAVE)


def _check_weights(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise IntegrityError(
                        f"{path}: the tensor {name} holds numbers that are not finite",
                        hint="get the model from before its training failed",
                    )
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is not a safetensors file", why=str(error), hint=_AGAIN) from error


def _read(path: Path, kind: type[T]) -> T | None:
    """A small JSON file, None where there is none. Links are followed: the hub's cache is made of them."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_JSON_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error), hint="check the path") from error
    if len(data) > _LARGEST_JSON_BYTES:
        raise IntegrityError(f"{path} is too large", why=f"more than {_LARGEST_JSON_BYTES >> 20} MiB", hint=_AGAIN)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint=_AGAIN) from error
