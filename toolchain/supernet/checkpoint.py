"""Weights on disk: safetensors only, never pickle, each file checked against its sha256 before it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from toolchain.errors import IntegrityError
from toolchain.files import inside, sha256_bytes, sha256_file, write_bytes
from toolchain.records import CheckpointInfo
from toolchain.supernet.families import build_supernet
from toolchain.supernet.module import Supernet


def save_tensors(tensors: dict[str, Tensor], path: Path) -> str:
    """Write named tensors atomically; the sha256 of the file."""
    # As bytes, and not by the library's own file writer, which hides the system's error when a disk is full.
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_bytes(path, data)
    return sha256_bytes(data)


def load_tensors(folder: Path, name: str, sha256: str) -> dict[str, Tensor]:
    """The tensors of `folder/name`.

    Raises:
        IntegrityError: the file is missing, was changed, is cut short or is no safetensors file.
    """
    path = inside(folder, name)
    if sha256_file(path) != sha256:
        raise IntegrityError(
            f"{path} is not the file that was saved",
            why="its sha256 differs",
            hint="get the folder again, or train with --fresh",
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"{path} is not a safetensors file", why=str(error)) from error


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a module's weights are, each once: a word embedding that also answers has one name."""
    once = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return {name: tensor for name, tensor in module.state_dict().items() if name in once}


def load_weights(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Fill `module` with `tensors`; every name, shape and kind of number must fit.

    Raises:
        IntegrityError: tensors of another model, or numbers that are not finite.
    """
    given, own = ({name: (one.shape, one.dtype) for name, one in of.items()} for of in (tensors, tensors_of(module)))
    if given != own:
        raise IntegrityError(f"{where} holds the weights of another model", hint="is it the checkpoint of this run?")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise IntegrityError(f"{where} holds numbers that are not finite", hint="train again from an earlier state")
    module.load_state_dict(tensors, strict=False)  # the second name of a shared one is not in the file


def load_supernet(info: CheckpointInfo, folder: Path) -> Supernet:
    """The trained supernet of a run folder, in evaluation mode."""
    supernet = build_supernet(info.space, info.training.mixture, info.training.dropout)
    load_weights(supernet, load_tensors(folder, info.weights, info.weights_sha256), info.weights)
    return supernet.eval()
