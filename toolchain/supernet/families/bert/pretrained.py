"""A pretrained encoder as a start: a Hugging Face checkpoint of BERT's form, under the names of our plain `Encoder`.

Read are config.json and safetensors, never code. Where the forms differ, the weights take up the difference: the
embedding of token types (here all are type 0) is added to the positions, RoBERTa's two unused first positions are
dropped, and the links between layers, which those models do not have, are identities.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_bytes, sha256_file
from toolchain.space import Axis, SearchSpace

T = TypeVar("T")
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=1024)]

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_PICKLE_FILE = "pytorch_model.bin"
_WANTED = (
    "config.json",
    "model*.safetensors",
    _INDEX_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_LARGEST_JSON_BYTES = 16 << 20
_GET_AGAIN = "get the checkpoint's folder again"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LONGEST_HUB_NAME = 96
_HUB_FOLDER = "models--"
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


# -- finding a checkpoint ----------------------------------------------------------------------------------------------


def find_checkpoint(given: str) -> Path:
    """The folder of a checkpoint: `given` itself, or a name on the Hugging Face hub, fetched into the hub's own cache.

    Only settings, tokenizer files and safetensors are fetched; neither code nor pickled weights.

    Raises:
        UsageError: neither a folder nor a name the hub has, or it cannot be reached.
    """
    folder = Path(given)
    try:
        if given and folder.is_dir():
            return folder
        exists = folder.exists()
    except (OSError, ValueError) as error:  # a name too long, a NUL in it
        raise UsageError(f"cannot look for {given[:80]!r}", why=str(error), hint="give a folder") from error
    hint = "give a folder with config.json, model.safetensors and the tokenizer's files, as save_pretrained writes it"
    if exists:
        raise UsageError(f"{given!r} is no folder", hint=hint)
    if len(given) > _LONGEST_HUB_NAME or not _HUB_NAME.fullmatch(given) or ".." in given:
        raise UsageError(f"there is no folder {given}", why="and it is no name of a checkpoint on a hub", hint=hint)
    return _fetch(given, f"check the name and the connection, or {hint}")


def _fetch(name: str, hint: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow, and wanted for names alone

        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # the hub's own, those of requests or httpx (it changed), and the file system's
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"there is no folder {name}, and no such checkpoint could be had from the hub", why=why, hint=hint
        ) from error


def _title(folder: Path) -> str:
    """The name of a checkpoint: of its folder or, in the hub's cache, the one it has there."""
    place = next((part for part in folder.parts if part.startswith(_HUB_FOLDER)), "")
    return place.removeprefix(_HUB_FOLDER).replace("--", "/") or folder.resolve().name


# -- config.json -------------------------------------------------------------------------------------------------------


class _Kind(msgspec.Struct):
    model_type: str


class _Config(msgspec.Struct, kw_only=True):
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
    _Config,
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


class _Layout(NamedTuple):
    """Where a kind of checkpoint keeps what. `layer` and `block` name a layer's modules by ours."""

    prefix: str
    layer: str
    block: Mapping[str, str]
    head: Mapping[str, str]
    head_bias: tuple[str, ...]
    decoder: str
    config: type[_Config] = _Config
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
_BERT = _Layout(
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
    "distilbert": _Layout(
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
_WORD, _POSITION, _TYPES = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
_BODY = ("embeddings.", "encoder.", "transformer.")
_UNUSED = frozenset(("embeddings.position_ids", "embeddings.token_type_ids"))


def _read_config(folder: Path) -> tuple[_Config, _Layout]:
    path = folder / "config.json"
    data = _read_json(path)
    if data is None:
        raise UsageError(
            f"there is no {path}", hint="give the folder of a checkpoint; save_pretrained of transformers writes one"
        )
    kind = _decode(data, _Kind, path).model_type
    if kind not in _LAYOUTS:
        raise UsageError(f"{path} is of a model of kind {kind!r}", hint=f"mostool knows {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[kind]
    config = _decode(data, layout.config, path)
    _check_config(config, path)
    if layout.padded and config.pad_token_id is None:
        config.pad_token_id = 1
    return config, layout


def _check_config(config: _Config, path: Path) -> None:
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


def _norm_exponent(epsilon: float, path: Path) -> int:
    exponent = round(-math.log10(epsilon)) if 0 < epsilon < 1 else 0
    if exponent < 1 or not math.isclose(10.0**-exponent, epsilon, rel_tol=1e-3):
        raise UsageError(
            f"{path}: layer_norm_eps is {epsilon}",
            why="mostool knows powers of ten below 1",
            hint="start from another checkpoint, or train without --init",
        )
    return exponent


# -- weights -----------------------------------------------------------------------------------------------------------


class _Tensors:
    """The tensors of a checkpoint by their names without its prefix; each is read when it is taken."""

    def __init__(self, read: Mapping[str, Callable[[], Tensor]], prefix: str, where: Path) -> None:
        self._where = where
        self._read: dict[str, tuple[str, Callable[[], Tensor]]] = {}
        self.left = set[str]()
        for stored, reader in read.items():
            # Older files say gamma and beta.
            name = re.sub(r"LayerNorm\.(gamma|beta)$", _modern, stored.removeprefix(prefix))
            if name in self._read:
                raise IntegrityError(f"{where} holds {name} twice", why=f"as {stored} too", hint=_GET_AGAIN)
            self._read[name] = stored, reader
            self.left.add(name)

    def __contains__(self, name: str) -> bool:
        return name in self._read

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor as float32, in memory of its own.

        Raises:
            IntegrityError: it is missing, of another shape, no floating-point numbers, or not finite.
        """
        if name not in self._read:
            raise IntegrityError(
                f"{self._where} lacks the tensor {name}",
                hint="is config.json the one of these weights? if so, get the checkpoint again",
            )
        stored, reader = self._read[name]
        tensor = reader()
        if tuple(tensor.shape) != shape:
            raise IntegrityError(
                f"{self._where}: the tensor {stored} has the shape {list(tensor.shape)}",
                why=f"config.json makes it {list(shape)}",
                hint="is config.json the one of these weights?",
            )
        if not tensor.dtype.is_floating_point:
            raise IntegrityError(
                f"{self._where}: the tensor {stored} holds {tensor.dtype}",
                why="weights are floating-point numbers",
                hint="give the checkpoint before it was quantised",
            )
        self.left.discard(name)
        tensor = tensor.detach().to(torch.float32, copy=True).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            raise IntegrityError(
                f"{self._where}: the tensor {stored} holds numbers that are not finite", hint=_GET_AGAIN
            )
        return tensor


def _modern(match: re.Match[str]) -> str:
    return f"LayerNorm.{'weight' if match[1] == 'gamma' else 'bias'}"


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
    config, layout = _read_config(folder)
    path = folder / "config.json"
    exponent = _norm_exponent(config.layer_norm_eps, path)
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
            hint=f"ask for {places} or fewer",
        )
    stored, sha256, where = _open_weights(folder, allow_pickle_import=allow_pickle_import)
    tensors = _Tensors(stored, layout.prefix, where)
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
    return Pretrained(sizes, weights | head, _title(folder), sha256, notes)


def _body(
    tensors: _Tensors, config: _Config, layout: _Layout, rows: npt.NDArray[np.int64], kept: slice
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
    tensors: _Tensors, config: _Config, layout: _Layout, rows: npt.NDArray[np.int64]
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
        raise IntegrityError(f"{biases[0]} and {biases[1]} differ", why="they are one bias", hint=_GET_AGAIN)
    return weights | {"head.bias": found[0][torch.from_numpy(rows)]}, ()


def _pair(tensors: _Tensors, ours: str, theirs: str, *shape: int) -> dict[str, Tensor]:
    weight, bias = tensors.take(f"{theirs}.weight", *shape), tensors.take(f"{theirs}.bias", shape[0])
    return {f"{ours}.weight": weight, f"{ours}.bias": bias}


# -- weights files -----------------------------------------------------------------------------------------------------


def _open_weights(folder: Path, *, allow_pickle_import: bool) -> tuple[dict[str, Callable[[], Tensor]], str, Path]:
    """What reads each tensor, by its stored name; the sha256 of the file or files; the file to name in errors."""
    whole, index, pickled = folder / WEIGHTS_FILE, folder / _INDEX_FILE, folder / _PICKLE_FILE
    if whole.is_file():
        return _open_file(whole), sha256_file(whole), whole
    listed = _read_json(index)
    if listed is not None:
        files = _decode(listed, _Index, index).weight_map
        names = sorted(set(files.values()))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
                raise IntegrityError(
                    f"{index} names the file {name!r}", why="the folder has no such file", hint=_GET_AGAIN
                )
        parts = {name: _open_file(folder / name) for name in names}
        for tensor, name in files.items():
            if tensor not in parts[name]:
                raise IntegrityError(f"{folder / name} lacks the tensor {tensor}", hint=_GET_AGAIN)
        lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
        return {tensor: parts[name][tensor] for tensor, name in files.items()}, sha256_bytes(lines.encode()), index
    if pickled.is_file() and allow_pickle_import:
        return _open_pickle(pickled), sha256_file(pickled), pickled
    if pickled.is_file():
        raise UsageError(
            f"{folder} has its weights as {_PICKLE_FILE} alone",
            why="that is a pickle, which can hold code",
            hint=f"save it with transformers as {WEIGHTS_FILE} (save_pretrained), or pass --init-weights-only-pt, "
            "which reads nothing but tensors from it",
        )
    raise UsageError(
        f"there are no weights in {folder}",
        why=f"neither {WEIGHTS_FILE} nor {_INDEX_FILE}",
        hint="give the folder of a checkpoint; save_pretrained of transformers writes one",
    )


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _open_file(path: Path) -> dict[str, Callable[[], Tensor]]:
    try:
        opened: Any = safe_open(path, framework="pt")
        names: Iterable[str] = opened.keys()
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is not a safetensors file", why=str(error), hint=_GET_AGAIN) from error
    return {name: lambda name=name: opened.get_tensor(name) for name in names}  # type: ignore[misc]


def _open_pickle(path: Path) -> dict[str, Callable[[], Tensor]]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader of tensors alone has no error of its own for bytes that are none
        raise IntegrityError(
            f"{path} is no file of plain tensors",
            why=str(error).splitlines()[0][:200] if str(error) else "",
            hint=_GET_AGAIN,
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(one, Tensor) for one in loaded.values()):
        raise IntegrityError(f"{path} is no file of plain tensors", why="it holds something else", hint=_GET_AGAIN)
    return {str(name): lambda tensor=tensor: tensor for name, tensor in loaded.items()}  # type: ignore[misc]


def _read_json(path: Path) -> bytes | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_JSON_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}", why=error.strerror or str(error), hint="check the path and its permissions"
        ) from error
    if len(data) > _LARGEST_JSON_BYTES:
        raise IntegrityError(f"{path} is too large", why=f"more than {_LARGEST_JSON_BYTES >> 20} MiB", hint=_GET_AGAIN)
    return data


def _decode(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint=_GET_AGAIN) from error


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
