"""A checkpoint's folder: found on this machine or on the hub, and its files opened. Read is never code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_bytes, sha256_file

T = TypeVar("T")

WEIGHTS_FILE = "model.safetensors"
GET_AGAIN = "get the checkpoint's folder again"
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
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LONGEST_HUB_NAME = 96
_HUB_FOLDER = "models--"


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


def title_of(folder: Path) -> str:
    """The name of a checkpoint: of its folder or, in the hub's cache, the one it has there."""
    place = next((part for part in folder.parts if part.startswith(_HUB_FOLDER)), "")
    return place.removeprefix(_HUB_FOLDER).replace("--", "/") or folder.resolve().name


# -- settings ----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> bytes | None:
    """The bytes of a small file, None where there is none. Links are followed: the hub's cache is made of them."""
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
        raise IntegrityError(f"{path} is too large", why=f"more than {_LARGEST_JSON_BYTES >> 20} MiB", hint=GET_AGAIN)
    return data


def decode(data: bytes, kind: type[T], path: Path) -> T:
    """What `data` says, as `kind`; IntegrityError, naming `path`, where it does not say that."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint=GET_AGAIN) from error


# -- weights -----------------------------------------------------------------------------------------------------------


def open_weights(folder: Path, *, allow_pickle_import: bool) -> tuple[dict[str, Callable[[], Tensor]], str, Path]:
    """What reads each tensor, by its stored name; the sha256 of the file or files; the file to name in errors."""
    whole, index, pickled = folder / WEIGHTS_FILE, folder / _INDEX_FILE, folder / _PICKLE_FILE
    if whole.is_file():
        return _open_file(whole), sha256_file(whole), whole
    listed = read_json(index)
    if listed is not None:
        files = decode(listed, _Index, index).weight_map
        names = sorted(set(files.values()))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
                raise IntegrityError(
                    f"{index} names the file {name!r}", why="the folder has no such file", hint=GET_AGAIN
                )
        parts = {name: _open_file(folder / name) for name in names}
        for tensor, name in files.items():
            if tensor not in parts[name]:
                raise IntegrityError(f"{folder / name} lacks the tensor {tensor}", hint=GET_AGAIN)
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
        raise IntegrityError(f"{path} is not a safetensors file", why=str(error), hint=GET_AGAIN) from error
    return {name: lambda name=name: opened.get_tensor(name) for name in names}  # type: ignore[misc]


def _open_pickle(path: Path) -> dict[str, Callable[[], Tensor]]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader of tensors alone has no error of its own for bytes that are none
        raise IntegrityError(
            f"{path} is no file of plain tensors",
            why=str(error).splitlines()[0][:200] if str(error) else "",
            hint=GET_AGAIN,
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(one, Tensor) for one in loaded.values()):
        raise IntegrityError(f"{path} is no file of plain tensors", why="it holds something else", hint=GET_AGAIN)
    return {str(name): lambda tensor=tensor: tensor for name, tensor in loaded.items()}  # type: ignore[misc]


class Tensors:
    """The tensors of a checkpoint by their names without its prefix; each is read when it is taken."""

    def __init__(self, read: Mapping[str, Callable[[], Tensor]], prefix: str, where: Path) -> None:
        self._where = where
        self._read: dict[str, tuple[str, Callable[[], Tensor]]] = {}
        self.left = set[str]()
        for stored, reader in read.items():
            # Older files say gamma and beta.
            name = re.sub(r"LayerNorm\.(gamma|beta)$", _modern, stored.removeprefix(prefix))
            if name in self._read:
                raise IntegrityError(f"{where} holds {name} twice", why=f"as {stored} too", hint=GET_AGAIN)
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
                f"{self._where}: the tensor {stored} holds numbers that are not finite", hint=GET_AGAIN
            )
        return tensor


def _modern(match: re.Match[str]) -> str:
    return f"LayerNorm.{'weight' if match[1] == 'gamma' else 'bias'}"
