"""Quicker arithmetic, bf16 and compiled code, trains as the plain kind does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import toolchain.supernet.train as train_module
from toolchain.errors import MostoolError, UsageError
from toolchain.progress import silent
from toolchain.records import Training
from toolchain.supernet.module import Extracted
from toolchain.supernet.state import TrainingState
from toolchain.supernet.train import Plan, train

from .toy_task import TokenBatch, settings, toy_batch, toy_quality, toy_space, toy_train


def losses(state: TrainingState) -> dict[str, float]:
    return {f"{name} {point.update}": value for point in state.curve for name, value in point.losses.items()}


def test_bf16_trains_like_fp32_and_keeps_its_weights_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    loss_of = train_module.answer_loss

    def recording(logits: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append(logits.dtype)
        return loss_of(logits, *others)

    monkeypatch.setattr(train_module, "answer_loss", recording)
    found = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        training = settings(precision=precision, updates=40, evaluate_every=10, learning_rate=1e-2, dropout=0.0)
        supernet, found[precision] = toy_train(
            tmp_path / precision, training, batches=lambda update: [toy_batch(update, rows=16)]
        )
        assert set(seen) == {dtype}
        assert {weight.dtype for weight in supernet.state_dict().values()} == {torch.float32}
        seen.clear()
    plain, short = losses(found["fp32"]), losses(found["bf16"])
    assert short != plain
    assert short == pytest.approx(plain, abs=0.05)
    assert found["bf16"].curve[-1].quality["largest"].loss < 0.4


# -- compiled ----------------------------------------------------------------------------------------------------------


def train_alone(folder: Path, training: Training, *, compiled: bool) -> TrainingState:
    """The toy task for its smallest architecture alone."""

    def batches(update: int, rank: int = 0, ranks: int = 1) -> list[TokenBatch]:
        return [toy_batch(update, rows=8 + update % 2)]

    space = toy_space().narrowed(toy_space().smallest())
    _, state = train(space, training, Plan(batches, toy_quality, compiled=compiled), folder, "toy", silent)
    return state


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs with a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it imports its compiler
def test_compiled_code_trains_as_plain_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    training = settings(dropout=0.0)  # compiled dropout draws otherwise
    plain, compiled = (train_alone(tmp_path / str(compiled), training, compiled=compiled) for compiled in (False, True))
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert [point.quality["largest"].loss for point in compiled.curve] == pytest.approx(
        [point.quality["largest"].loss for point in plain.curve], rel=1e-4
    )


def test_a_supernet_is_not_compiled(tmp_path: Path) -> None:
    plan = Plan(lambda *_: [toy_batch(0)], toy_quality, compiled=True)
    with pytest.raises(UsageError, match="a supernet is not compiled") as refusal:
        train(toy_space(), settings(), plan, tmp_path, "toy", silent)
    assert "--only" in refusal.value.hint


def test_where_torch_cannot_compile_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Extracted) -> None:
        def forward(*_: Any) -> None:
            raise RuntimeError("No working C++ compiler found\nand much more")

        monkeypatch.setattr(self.subnet, "forward", forward)

    monkeypatch.setattr(Extracted, "compile_subnet", failing)
    with pytest.raises(MostoolError, match="torch cannot compile this subnet") as refusal:
        train_alone(tmp_path, settings(), compiled=True)
    assert refusal.value.why == "No working C++ compiler found"
    assert "--compile" in refusal.value.hint
