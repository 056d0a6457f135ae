"""A pretrained encoder as a start: a Hugging Face checkpoint of BERT's form, under the names of our plain `Encoder`.

Read are config.json and safetensors, never code. Where the forms differ, the weights take up the difference: the
embedding of token types (here all are type 0) is added to the positions, RoBERTa's two unused first positions are
dropped, and the links between layers, which those models do not have, are identities.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from toolchain.errors import IntegrityError, UsageError
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families.bert.checkpoint_config import Config, Layout, norm_exponent, read_config
from toolchain.supernet.families.bert.checkpoint_folder import GET_AGAIN, Tensors, open_weights, title_of

_WORD, _POSITION, _TYPES = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
_BODY = ("embeddings.", "encoder.", "transformer.")
_UNUSED = frozenset(("embeddings.position_ids", "embeddings.token_type_ids"))
_SHARES = (120 / 768, 240 / 768, 360 / 768, 480 / 768, 540 / 768, 600 / 768, 1.0)
"""SuperShaper's hidden widths as shares of the full one."""
_TORCH_EXPONENT = 5
"""torch's own layer norms add 1e-5; a space names only what differs from it."""


class Pretrained(NamedTuple):
    """A checkpoint, as the largest subnet of a space takes it.

    sizes: width, depth, heads, ffn, vocabulary_size, maximum_length and norm_epsilon_exponent (12: 1e-12).
    weights: float32, by the parameter names of a masked-word `Encoder` of these sizes, its own memory.
    sha256: of the weights file; of several, of their `sha256  name` lines.
    """

    sizes: dict[str, int]
    weights: dict[str, Tensor]
    title: str
    sha256: str
    notes: tuple[str, ...]


# -- weights -----------------------------------------------------------------------------------------------------------


def read_pretrained(
    folder: Path,
    rows: npt.NDArray[np.int64],
    *,
    maximum_length: int | None = None,
    allow_pickle_import: bool = False,
) -> Pretrained:
    """The weights of a checkpoint for a vocabulary in which token i is its own token `rows[i]`.

    rows: distinct, int64 [vocabulary_size]; the checkpoint's other rows are left out.
    maximum_length: how many positions to keep; None keeps all.
    allow_pickle_import: read pytorch_model.bin where there is no safetensors file (tensors only: no code is run).

    Raises:
        UsageError: a file is missing, the model is of another form, `maximum_length` is more than it has.
        IntegrityError: a file is broken, or a tensor is not what config.json says (the message names it).
    """
    config, layout = read_config(folder)
    path = folder / "config.json"
    exponent = norm_exponent(config.layer_norm_eps, path)
    if len(rows) > config.vocab_size or int(rows.max()) >= config.vocab_size or int(rows.min()) < 0:
        raise IntegrityError(
            f"the tokenizer in {folder} has tokens that the model has not",
            why=f"token {int(rows.max())} of {config.vocab_size} in config.json",
            hint="do the tokenizer and the weights belong together?",
        )
    first = (config.pad_token_id or 0) + 1 if layout.padded else 0
    places = config.max_position_embeddings - first
    length = places if maximum_length is None else maximum_length
    if not 1 <= length <= places:
        raise UsageError(
            f"the checkpoint {folder} has no {length} positions",
            why=f"it has {places}",
            hint=f"--sequence-length {places} or less",
        )
    stored, sha256, where = open_weights(folder, allow_pickle_import=allow_pickle_import)
    tensors = Tensors(stored, layout.prefix, where)
    weights = _body(tensors, config, layout, rows, slice(first, first + length))
    head, notes = _head(tensors, config, layout, rows)
    unknown = sorted(name for name in tensors.left - _UNUSED if name.startswith(_BODY))
    if unknown:
        raise IntegrityError(
            f"{where} holds {unknown[0]}",
            why="a model as config.json describes it has no such tensor",
            hint="is config.json the one of these weights?",
        )
    if len(rows) < config.vocab_size:
        notes = (*notes, f"{config.vocab_size - len(rows)} rows of the embedding belong to no token and were left out")
    sizes = {
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "ffn": config.intermediate_size,
        "vocabulary_size": len(rows),
        "maximum_length": length,
        "norm_epsilon_exponent": exponent,
    }
    return Pretrained(sizes, weights | head, title_of(folder), sha256, notes)


def _body(
    tensors: Tensors, config: Config, layout: Layout, rows: npt.NDArray[np.int64], kept: slice
) -> dict[str, Tensor]:
    """Embeddings and layers."""
    width, ffn = config.hidden_size, config.intermediate_size
    words = tensors.take(_WORD, config.vocab_size, width)
    if layout.decoder in tensors and not torch.equal(words, tensors.take(layout.decoder, config.vocab_size, width)):
        raise UsageError(
            f"{layout.decoder} is not the word embedding",
            why="mostool's masked-word head answers by the word embedding itself",
            hint="start from a checkpoint with tied weights",
        )
    position = tensors.take(_POSITION, config.max_position_embeddings, width)[kept].clone()
    if layout.types and config.type_vocab_size:
        position += tensors.take(_TYPES, config.type_vocab_size, width)[0]
    weights = {"word.weight": words[torch.from_numpy(rows)], "position.weight": position}
    weights |= _pair(tensors, "norm", "embeddings.LayerNorm", width)
    shapes = {"fc1": (ffn, width), "fc2": (width, ffn), "attention_norm": (width,), "ffn_norm": (width,)}
    for number in range(config.num_hidden_layers):
        weights |= {f"links.{number}.weight": torch.eye(width), f"links.{number}.bias": torch.zeros(width)}
        for ours, theirs in layout.block.items():
            name = f"{layout.layer}{number}.{theirs}"
            weights |= _pair(tensors, f"blocks.{number}.{ours}", name, *shapes.get(ours, (width, width)))
    return weights


def _head(
    tensors: Tensors, config: Config, layout: Layout, rows: npt.NDArray[np.int64]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The masked-word head; where the checkpoint has none, one that starts near the identity, and a note."""
    width = config.hidden_size
    if not any(f"{theirs}.weight" in tensors for theirs in layout.head.values()):
        made = {
            "head.dense.weight": torch.eye(width),
            "head.dense.bias": torch.zeros(width),
            "head.norm.weight": torch.ones(width),
            "head.norm.bias": torch.zeros(width),
            "head.bias": torch.zeros(len(rows)),
        }
        return made, ("the checkpoint has no masked-word head: a new one was made, and must be trained",)
    weights = _pair(tensors, "head.dense", layout.head["head.dense"], width, width)
    weights |= _pair(tensors, "head.norm", layout.head["head.norm"], width)
    biases = [name for name in layout.head_bias if name in tensors] or [layout.head_bias[0]]
    found = [tensors.take(name, config.vocab_size) for name in biases]
    if any(not torch.equal(one, found[0]) for one in found):
        raise IntegrityError(f"{biases[0]} and {biases[1]} differ", why="they are one bias", hint=GET_AGAIN)
    return weights | {"head.bias": found[0][torch.from_numpy(rows)]}, ()


def _pair(tensors: Tensors, ours: str, theirs: str, *shape: int) -> dict[str, Tensor]:
    weight, bias = tensors.take(f"{theirs}.weight", *shape), tensors.take(f"{theirs}.bias", shape[0])
    return {f"{ours}.weight": weight, f"{ours}.bias": bias}


# -- the space around it -----------------------------------------------------------------------------------------------


def space_of(sizes: Mapping[str, int], head_width: int = 0, name: str = "pretrained") -> SearchSpace:
    """A space whose largest subnet is the checkpoint: SuperShaper's hidden widths on its scale, all else as it is.

    head_width: 0 makes attention as wide as its layer; the checkpoint's own (width / heads) keeps it whole in all.

    Raises:
        UsageError: another head_width: no subnet would be the checkpoint.
    """
    width, heads = sizes["width"], sizes["heads"]
    if head_width not in (0, width // heads):
        raise UsageError(
            f"heads of width {head_width} are not the checkpoint's", hint=f"they can be 0 or {width // heads}"
        )
    hidden = sorted({heads * max(1, round(share * width / heads)) for share in _SHARES})
    axes = (
        Axis("depth", (sizes["depth"],)),
        Axis("hidden", tuple(hidden), per="depth"),
        Axis("heads", (heads,), per="depth"),
        Axis("ffn", (sizes["ffn"],), per="depth"),
    )
    fixed = {"width": width, "head_width": head_width}
    if sizes["norm_epsilon_exponent"] != _TORCH_EXPONENT:
        fixed["norm_epsilon_exponent"] = sizes["norm_epsilon_exponent"]
    return SearchSpace(name, "bert", axes, fixed)


def check_fits(space: SearchSpace, sizes: Mapping[str, int]) -> None:
    """Raise UsageError, naming the axis or size, where the largest subnet of `space` is not the checkpoint's model."""
    if space.family != "bert":
        raise UsageError(
            f"the space {space.name!r} is of family {space.family!r}",
            why="the checkpoint is a bert",
            hint="leave --space",
        )
    width = sizes["width"]
    largest = {"hidden": width, "heads": sizes["heads"], "ffn": sizes["ffn"], "depth": sizes["depth"]}
    if any(axis.name == "embedding" for axis in space.axes):
        largest["embedding"] = width
    found = {name: space.axis(name).choices[-1] for name in largest}
    fixed = {"width": (width,), "head_width": (0, width // sizes["heads"])}
    fixed |= {"norm_epsilon_exponent": (sizes["norm_epsilon_exponent"],)}
    for name, wanted in largest.items():
        if found[name] != wanted:
            raise UsageError(
                f"space {space.name!r}: the largest choice of the axis {name!r} is {found[name]}, "
                f"the checkpoint has {wanted}",
                hint=f"let the choices of {name!r} end with {wanted}, or leave --space: mostool makes one that fits",
            )
    for name, allowed in fixed.items():
        value = space.fixed.get(name, _TORCH_EXPONENT if name == "norm_epsilon_exponent" else None)
        if value not in allowed:
            raise UsageError(
                f"space {space.name!r}: the fixed size {name!r} is {value}, "
                f"the checkpoint needs {' or '.join(map(str, allowed))}",
                hint=f"write `{name} = {allowed[-1]}` under [fixed], or leave --space: mostool makes one that fits",
            )
