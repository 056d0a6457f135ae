"""Two real processes that train together, joined by gloo, and what their launcher may get wrong."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toolchain.supernet.train as train_module
from toolchain.errors import MostoolError, UsageError
from toolchain.supernet.parallel import Ranks, alone, check_share, join_ranks, joined

from .toy_task import halves, settings, toy_batch, toy_train


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def launched(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher sets."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}


def set_launched(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in (launched(0, 2, 29500) | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


# -- two processes -----------------------------------------------------------------------------------------------------


def in_two(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, *arguments)` gives in each of two processes; their warnings are errors here too."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [
        context.Process(target=_at_work, args=(sending, rank, port, work, *arguments), daemon=True)
        for rank, (_, sending) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        assert all(receiving.poll(timeout=120) for receiving, _ in pipes), "they wait for one another"
        found = [receiving.recv() for receiving, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
        for end in itertools.chain.from_iterable(pipes):
            end.close()
    for result, problem in found:
        assert problem is None, problem
        assert result is not None
    return [result for result, _ in found]


def _at_work(sending: Any, rank: int, port: int, work: Callable[..., Any], *arguments: Any) -> None:
    warnings.simplefilter("error")
    os.environ.update(launched(rank, 2, port))
    torch.set_num_threads(1)
    try:
        sending.send((work(rank, *arguments), None))
    except BaseException:
        sending.send((None, f"process {rank}: {traceback.format_exc()}"))


def summing(rank: int) -> dict[str, Any]:
    """Two trainings, one after the other, in the same processes."""
    found: dict[str, Any] = {}
    with joined() as ranks:
        assert (ranks.rank, ranks.size, ranks.device.type) == (rank, 2, "cpu")
        found["figures"] = ranks.sum_figures({"a": 1.5 + rank, "b": 1e-9})
        found["agreed"] = [ranks.agree(said) for said in (rank == 0, rank == 1)]
    with joined() as ranks:
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (), (5,))]
        for number, parameter in enumerate(parameters):
            if number != 1:
                parameter.grad = torch.full_like(parameter, (10.0**number) * (1 + rank))
        strided = torch.arange(6.0).reshape(3, 2).t()
        parameters[0].grad = strided * (1 + rank)
        ranks.sum_gradients(parameters)
        found["gradients"] = [None if one.grad is None else one.grad.tolist() for one in parameters]
        ranks.wait()
    found["left"] = not torch.distributed.is_initialized()
    return found


def training(rank: int, folder: str) -> str:
    """A training whose files the first process clears away as soon as it is done, as a finished run does."""

    def batches(update: int) -> list[Any]:
        return halves(toy_batch(update))

    load = train_module.load_state

    def loading(*given: Any) -> Any:
        time.sleep(0.3 * rank)
        return load(*given)

    train_module.load_state = loading
    with joined() as ranks:
        supernet, state = toy_train(
            Path(folder), settings(accumulate=2, dropout=0.2, distill=0.5), batches=batches, ranks=ranks
        )
        if ranks.first:
            for path in Path(folder).glob("*.safetensors"):
                path.unlink()
        ranks.wait()
    weights = torch.cat([one.detach().flatten() for one in supernet.parameters()])
    return json.dumps([state.weights_sha256, weights.double().norm().item(), weights[:100].tolist()])


def failing(rank: int, fails: int | None) -> tuple[str, int]:
    """How each of two processes ends when one fails (or, with None, both fail alike): with an error, or in silence."""
    try:
        with joined() as ranks:
            if fails in (rank, None):
                raise UsageError("bad data")
            ranks.wait()
    except MostoolError as error:
        return str(error), error.exit_code
    except SystemExit as end:
        return "", end.code if isinstance(end.code, int) else -1
    return "nothing happened", 0


def everything(rank: int, folder: str) -> dict[str, Any]:
    """All of the above in one pair of processes: starting them takes longer than what they do."""
    return {
        "summing": summing(rank),
        "training": training(rank, folder),
        "failing": {str(fails): failing(rank, fails) for fails in (0, 1, None)},
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two(everything, str(tmp_path_factory.mktemp("two")))


def test_figures_and_decisions_are_shared(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["summing"]["figures"] == {"a": 4.0, "b": 2e-9}
        assert found["summing"]["agreed"] == [True, False]
        assert found["summing"]["left"]


def test_gradients_are_summed_where_there_are_any(two: list[dict[str, Any]]) -> None:
    strided = (3 * torch.arange(6.0).reshape(3, 2).t()).tolist()
    for found in two:
        assert found["summing"]["gradients"] == [strided, None, 300.0, [3000.0] * 5]


def test_two_processes_train_as_one_does(two: list[dict[str, Any]], tmp_path: Path) -> None:
    """The same weights on both, bit by bit, and those of one process but for rounding."""
    assert two[0]["training"] == two[1]["training"]
    _, norm, first = json.loads(two[0]["training"])
    supernet, _ = toy_train(
        tmp_path,
        settings(accumulate=2, dropout=0.2, distill=0.5),
        batches=lambda update: halves(toy_batch(update)),
    )
    weights = torch.cat([one.detach().flatten() for one in supernet.parameters()])
    assert weights.double().norm().item() == pytest.approx(norm, rel=1e-6)
    torch.testing.assert_close(weights[:100], torch.tensor(first), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fails", ["0", "1", "None"])
def test_of_one_failure_one_process_tells(two: list[dict[str, Any]], fails: str) -> None:
    ends = [found["failing"][fails] for found in two]
    assert sorted(said for said, _ in ends) == ["", "bad data"]
    if fails != "None":
        assert ends[int(fails)] == ("bad data", 2)
    assert all(code for _, code in ends)


# -- one process, and what a launcher sets -----------------------------------------------------------------------------


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launched(monkeypatch, WORLD_SIZE="1", LOCAL_RANK=None, MASTER_ADDR=None)
    assert join_ranks() == alone() == Ranks(0, 1, alone().device)
    set_launched(monkeypatch, RANK=None)
    with joined() as ranks:
        assert ranks.first
        assert ranks.sum_figures({"a": 1.0}) == {"a": 1.0}
        assert ranks.agree(True)
        assert not ranks.agree(False)
        ranks.wait()
    with pytest.raises(UsageError, match="bad data"), joined():
        raise UsageError("bad data")
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
        ({"LOCAL_RANK": None, "MASTER_PORT": ""}, "LOCAL_RANK is not set, MASTER_PORT is not set"),
        ({"RANK": "first"}, "RANK first, WORLD_SIZE 2, LOCAL_RANK 0"),
        ({"RANK": "2"}, "RANK 2, WORLD_SIZE 2, LOCAL_RANK 0"),
        ({"LOCAL_RANK": "-1"}, "RANK 0, WORLD_SIZE 2, LOCAL_RANK -1"),
    ],
)
def test_variables_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], why: str
) -> None:
    set_launched(monkeypatch, **changes)
    with pytest.raises(UsageError, match="not as a launcher sets it") as refusal:
        join_ranks()
    assert refusal.value.why == why
    assert "torchrun" in refusal.value.hint


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launched(monkeypatch, MASTER_PORT="harbour")
    with pytest.raises(MostoolError, match="process 0 of 2 does not find the others") as refusal:
        join_ranks()
    assert "harbour" in refusal.value.why


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    set_launched(monkeypatch, RANK="1", LOCAL_RANK="1")
    with pytest.raises(UsageError, match="process 1 of this machine has no GPU") as refusal:
        join_ranks()
    assert refusal.value.why == "there are 1"


def test_accelerate_can_keep_a_process_off_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert alone().device.type == "cuda"
    for said, device in (("True", "cpu"), ("1", "cpu"), ("False", "cuda")):
        monkeypatch.setenv("ACCELERATE_USE_CPU", said)
        assert alone().device.type == device


@pytest.mark.parametrize(
    ("size", "accumulate", "hint"), [(2, 3, "--accumulate 4"), (2, 1, "--accumulate 2"), (4, 5, "--accumulate 4")]
)
def test_a_share_that_is_uneven_is_refused(size: int, accumulate: int, hint: str) -> None:
    ranks = Ranks(0, size, torch.device("cpu"))
    check_share(ranks, 2 * size)
    with pytest.raises(UsageError, match=f"{size} processes cannot share {accumulate} micro-batches") as refusal:
        check_share(ranks, accumulate)
    assert hint in refusal.value.hint
