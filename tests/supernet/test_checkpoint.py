from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import tiny
import torch
from safetensors.torch import save

from toolchain.errors import IntegrityError
from toolchain.files import sha256_file
from toolchain.records import CheckpointInfo, Data, now
from toolchain.space import SearchSpace
from toolchain.supernet.checkpoint import load_supernet, load_tensors, load_weights, save_tensors

from .toy_task import settings, toy_quality, toy_space, toy_train

NAME = "weights.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tensors(tiny.supernet(tiny.resolved()).state_dict(), tmp_path / NAME)
    return tmp_path / NAME


def load(path: Path) -> dict[str, torch.Tensor]:
    """Read a file whose sha256 is the one that is asked for: what is in it has to give it away."""
    return load_tensors(path.parent, path.name, sha256_file(path))


def test_weights_come_back(saved: Path) -> None:
    other = tiny.supernet(tiny.resolved(), seed=1)
    load_weights(other, load(saved), NAME)
    expected = tiny.supernet(tiny.resolved()).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())


def test_equal_weights_are_equal_files(saved: Path, tmp_path: Path) -> None:
    again = save_tensors(tiny.supernet(tiny.resolved()).state_dict(), tmp_path / "again")
    assert again == sha256_file(tmp_path / "again") == sha256_file(saved)


def test_a_run_s_supernet_comes_back_from_its_record(tmp_path: Path) -> None:
    supernet, state = toy_train(tmp_path, settings(updates=2))
    info = CheckpointInfo(
        space=toy_space(),
        training=settings(updates=2),
        data=Data(title="made", files={}, sha256="0" * 64, train=8, validation=8, test=8),
        vocabulary_size=tiny.VOCABULARY,
        updates_done=state.update,
        weights=state.weights,
        weights_sha256=state.weights_sha256,
        tokenizer_sha256="0" * 64,
        prepared_sha256="0" * 64,
        parameters=sum(parameter.numel() for parameter in supernet.parameters()),
        metrics=state.curve[-1].quality,
        versions={},
        created_at=now(),
    )
    loaded = load_supernet(info, tmp_path)
    assert not loaded.training
    for architecture in tiny.samples(toy_space(), 3):
        assert toy_quality(loaded, architecture) == toy_quality(supernet, architecture)
    other = msgspec.structs.replace(info, space=tiny.resolved(labels=0))
    with pytest.raises(IntegrityError, match="another model"):
        load_supernet(other, tmp_path)


def test_a_changed_file_is_not_read(saved: Path) -> None:
    sha256 = sha256_file(saved)
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    with pytest.raises(IntegrityError, match="not the file that was saved") as refusal:
        load_tensors(saved.parent, NAME, sha256)
    assert refusal.value.hint


@pytest.mark.parametrize("name", ["missing.safetensors", "../weights.safetensors", "/etc/hostname", "", "link"])
def test_only_plain_files_of_the_folder_are_read(saved: Path, name: str) -> None:
    folder = saved.parent / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(saved)
    with pytest.raises(IntegrityError):
        load_tensors(folder, name, sha256_file(saved))


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 300, -1000, -1])
def test_a_file_cut_short_is_refused(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        load(saved)


def test_no_safetensors_file_at_all(saved: Path) -> None:
    for data in (os.urandom(1000), b"{}", b"\x00" * 64, b"\xff" * 64, saved.read_bytes() + b"more"):
        saved.write_bytes(data)
        with pytest.raises(IntegrityError, match="not a safetensors file"):
            load(saved)


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_under_a_safe_name_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for legacy in (False, True):
        torch.save({"word": Payload(mark)}, tmp_path / NAME, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(IntegrityError):
            load(tmp_path / NAME)
        assert not mark.exists()
    (tmp_path / NAME).rename(tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert mark.is_dir()  # the payload works, where it is let


def other_spaces() -> dict[str, SearchSpace]:
    space = tiny.resolved()
    narrow = msgspec.structs.replace(space, fixed=space.fixed | {"vocabulary_size": tiny.VOCABULARY + 1})
    return {"another vocabulary": narrow, "another task": tiny.resolved(labels=0), "SuperShaper": tiny.resolved(3, 0)}


@pytest.mark.parametrize("name", other_spaces())
def test_weights_of_another_model_are_refused(saved: Path, name: str) -> None:
    supernet = tiny.supernet(other_spaces()[name])
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with pytest.raises(IntegrityError, match="another model"):
        load_weights(supernet, load(saved), NAME)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved: Path, bad: float) -> None:
    tensors = load(saved)
    tensors["layers.1.ffn.fc2.weight"][1, 3, 2] = bad
    saved.write_bytes(save(tensors))
    with pytest.raises(IntegrityError, match="not finite"):
        load_weights(tiny.supernet(tiny.resolved()), load(saved), NAME)


def test_weights_of_another_kind_of_number_are_refused(saved: Path) -> None:
    tensors = load(saved)
    tensors["word"] = tensors["word"].to(torch.int64)
    with pytest.raises(IntegrityError, match="another model"):
        load_weights(tiny.supernet(tiny.resolved()), tensors, NAME)
