"""Memory that runs out, in each of torch's ways of saying so: the architecture is named, and the batch that fits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_project import CLASSIFY, call, refused, require, write_inputs

import toolchain.supernet.train as train_module
from toolchain.errors import MostoolError
from toolchain.records import Quality, read_record
from toolchain.space import Architecture
from toolchain.supernet.checkpoint import load_tensors
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.state import STATE_FILE, TrainingState

from .toy_task import settings, toy_batch, toy_quality, toy_space, toy_train

SAID: list[BaseException] = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 137438953472 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.43 GB, other allocations: 384.00 KB)"),
    MemoryError(),
]
FORWARD = Supernet.forward
Forward = Callable[[Supernet, Batch, Architecture], torch.Tensor]


def short_of_memory(
    rows: int, error: BaseException, only: Callable[[Supernet, Architecture], bool] = lambda *_: True
) -> Forward:
    """A forward that runs out of memory above so many rows."""

    def forward(self: Supernet, batch: Batch, architecture: Architecture) -> torch.Tensor:
        if self.training and len(batch.ids) > rows and only(self, architecture):
            raise error
        return FORWARD(self, batch, architecture)

    return forward


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:40] or "MemoryError")
@pytest.mark.parametrize(("rows", "fits"), [(15, 8), (8, 8), (7, 4), (1, 1)])
def test_the_architecture_and_the_batch_that_fits_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, rows: int, fits: int
) -> None:
    monkeypatch.setattr(Supernet, "forward", short_of_memory(rows, error))
    with pytest.raises(MostoolError) as refusal:
        toy_train(tmp_path, settings(batch_size=16), batches=lambda update: [toy_batch(update, rows=16)])
    told = refusal.value
    assert type(told) is MostoolError
    assert told.what == f"out of memory while training {toy_space().largest().id} on a batch of 16 x 8 tokens"
    assert told.why == f"a batch of {fits} fits on cpu"
    assert f"--batch-size {fits}," in told.hint
    assert "--accumulate" in told.hint
    assert told.exit_code == 1
    assert told.__cause__ is error


def test_where_not_one_row_fits_a_smaller_space_is_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supernet, "forward", short_of_memory(0, SAID[0]))
    with pytest.raises(MostoolError, match="8 x 8 tokens") as refusal:
        toy_train(tmp_path, settings())
    assert refusal.value.why == "one row of it does not fit either"
    assert "smaller space" in refusal.value.hint
    assert "--sequence-length" in refusal.value.hint


def test_the_architecture_that_is_named_is_the_one_that_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = toy_space().smallest()
    forward = short_of_memory(4, SAID[0], lambda _, architecture: architecture == smallest)
    monkeypatch.setattr(Supernet, "forward", forward)
    with pytest.raises(MostoolError, match=smallest.id):
        toy_train(tmp_path, settings())


def test_memory_that_runs_out_on_the_way_back_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Supernet, batch: Batch, architecture: Architecture) -> torch.Tensor:
        logits = FORWARD(self, batch, architecture)
        if self.training and len(batch.ids) > 4:
            logits.register_hook(_raise)
        return logits

    def _raise(_: torch.Tensor) -> None:
        raise SAID[2]

    monkeypatch.setattr(Supernet, "forward", forward)
    with pytest.raises(MostoolError, match="out of memory while training") as refusal:
        toy_train(tmp_path, settings())
    assert refusal.value.why == "a batch of 4 fits on cpu"


def test_another_error_is_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Supernet, "forward", short_of_memory(4, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    )
    with pytest.raises(RuntimeError, match="mat1"):
        toy_train(tmp_path, settings())

    def twice(self: Supernet, batch: Batch, architecture: Architecture) -> torch.Tensor:
        raise SAID[0] if len(batch.ids) > 4 else RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Supernet, "forward", twice)
    with pytest.raises(RuntimeError, match="mat1"):
        toy_train(tmp_path, settings())


@pytest.mark.parametrize("where", ["forward", "validation"])
def test_the_last_good_state_is_left_and_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The state of update 4, whose weights are those of a run that never failed, and so are the last ones."""
    monkeypatch.setattr(train_module, "_CHECKPOINT_EVERY_S", math.inf)
    whole, _ = toy_train(tmp_path / "whole", settings())
    looks: list[int] = []

    def validate(supernet: Supernet, architecture: Architecture) -> Quality:
        looks.append(1)
        if where == "validation" and len(looks) == 5:  # two a look: the third, after update 6
            raise SAID[0]
        return toy_quality(supernet, architecture)

    passes: list[int] = []

    def failing(_: Supernet, __: Architecture) -> bool:
        passes.append(1)
        return where == "forward" and len(passes) > 3 * 5

    monkeypatch.setattr(Supernet, "forward", short_of_memory(4, SAID[0], failing))
    with pytest.raises((MostoolError, RuntimeError), match="memory"):
        toy_train(tmp_path / "short", settings(), validate=validate)
    monkeypatch.undo()
    state = read_record(tmp_path / "short" / STATE_FILE, TrainingState)
    assert state.update == 4
    assert load_tensors(tmp_path / "short", state.weights, state.weights_sha256)
    resumed, end = toy_train(tmp_path / "short", settings())
    assert end.update == 8
    expected = whole.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.state_dict().items())


# -- as a user sees it -------------------------------------------------------------------------------------------------


def test_the_command_says_so_and_goes_on_with_the_batch_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path / "project")
    arguments = (*CLASSIFY, "--out", "runs/short", "--evaluate-every", "1")
    passes: list[int] = []

    def later(_: Supernet, __: Architecture) -> bool:
        passes.append(1)
        return len(passes) > 3 * 5

    monkeypatch.setattr(Supernet, "forward", short_of_memory(8, SAID[0], later))
    told = refused(call(inputs, *arguments), 1, "error: out of memory while training", "why: a batch of 8 fits on cpu")
    assert "hint: --batch-size 8" in told.err
    assert json.loads((inputs / "runs" / "short" / STATE_FILE).read_text())["update"] == 5
    assert not (inputs / "runs" / "short" / "checkpoint.json").exists()
    failed = call(inputs, *arguments, "--json").error
    assert (failed["code"], failed["kind"]) == (1, "failed")
    assert "a batch of 8 fits" in failed["message"]
    halves = (*arguments[:-4], "--out", "runs/fitting", "--batch-size", "8", "--accumulate", "2", "--updates", "2")
    require(call(inputs, *halves))
    monkeypatch.undo()
    require(call(inputs, *arguments))


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:40] or "MemoryError")
def test_memory_that_runs_out_elsewhere_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """While a subnet is looked at, say: a batch of training is not to blame."""

    def forward(self: Supernet, batch: Batch, architecture: Architecture) -> torch.Tensor:
        if not self.training:
            raise error
        return FORWARD(self, batch, architecture)

    monkeypatch.setattr(Supernet, "forward", forward)
    refused(call(write_inputs(tmp_path / "project"), *CLASSIFY), 1, "error: out of memory", "hint: use a smaller")
