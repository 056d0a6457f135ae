"""Whoever answers, the figures are the same; and nobody is left at work afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import KilledWorker, LocalCluster
from made_project import copied, one_thread
from made_runs import Runs, drawn, runs

from toolchain.errors import DeviceError, MostoolError, UsageError
from toolchain.journal import read_journal
from toolchain.pipeline import workers
from toolchain.pipeline.answering import Answered
from toolchain.pipeline.judging import ANSWERS_FILE, Judge, Judged
from toolchain.pipeline.runs import Run
from toolchain.pipeline.workers import open_executor, told

__all__ = ["one_thread", "runs"]

SCRIPT = """\
import multiprocessing, time
from toolchain.pipeline.workers import open_executor
if __name__ == "__main__":
    with open_executor(2) as executor:
        list(executor.map(time.sleep, [0.2, 0.2]))
        print(*(one.pid for one in multiprocessing.active_children()), flush=True)
        executor.submit(time.sleep, 60).result()
"""


@pytest.fixture
def scheduler() -> Iterator[str]:
    """The address of a dask scheduler with two workers, in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        yield str(cluster.scheduler_address)


def judged(folder: Path, executor: Executor | None) -> tuple[list[Judged], list[str]]:
    """Verdicts on some subnets, and what was kept of them, sorted."""
    run = Run(folder)
    rival, *others = drawn(run, 6)
    with Judge(run, executor=executor) as judge:
        found = [*judge.judge([rival]), *judge.judge(others, [[rival]] * 3 + [[]] * 2)]
    return found, sorted(map(repr, read_journal(run.search_folder / ANSWERS_FILE, Answered)))


def test_processes_and_dask_give_exactly_what_one_process_gives(runs: Runs, tmp_path: Path, scheduler: str) -> None:
    folders = [copied(runs.folder("classify"), tmp_path / name) for name in ("alone", "pool", "dask")]
    alone = judged(folders[0], None)
    assert {one.stopped for one in alone[0]} == {True, False}
    with open_executor(2) as pool:
        assert pool is not None
        assert judged(folders[1], pool) == alone
    with open_executor(1, scheduler) as dask:
        assert dask is not None
        assert judged(folders[2], dask) == alone


def dying() -> None:
    with open_executor(2) as executor, told():
        assert executor is not None
        executor.submit(os._exit, 1).result()


def test_one_worker_is_this_process() -> None:
    with open_executor() as executor:
        assert executor is None


def test_a_worker_that_dies_is_told_and_the_next_pool_is_whole() -> None:
    with pytest.raises(MostoolError, match="a worker process died") as caught:
        dying()
    assert "memory" in caught.value.hint
    with open_executor(2) as executor:
        assert executor is not None
        assert executor.submit(abs, -3).result() == 3


def test_a_dask_worker_that_died_is_told_and_other_errors_pass() -> None:
    with pytest.raises(MostoolError, match="a worker process died"), told():
        raise KilledWorker("ask", SimpleNamespace(address="tcp://192.0.2.1:1"), 3)
    with pytest.raises(DeviceError, match="scheduler was lost"), told():
        raise CancelledError
    for error in (UsageError("no"), ValueError("no")):
        with pytest.raises(type(error), match="no"), told():
            raise error


@pytest.mark.parametrize(
    ("count", "address", "kind", "said"),
    [
        (0, None, UsageError, "0 workers"),
        (2, "tcp://127.0.0.1:8786", UsageError, "workers of its own"),
        (1, "nonsense://x", UsageError, "no scheduler's address"),
        (1, "", UsageError, "no scheduler's address"),
        (1, "tcp://127.0.0.1:9", DeviceError, "no dask scheduler answers"),
    ],
)
def test_what_cannot_be_opened_says_why(
    count: int, address: str | None, kind: type[MostoolError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_CONNECT_S", 0.5)
    with pytest.raises(kind, match=said) as caught, open_executor(count, address):
        pass
    assert caught.value.hint


def test_a_scheduler_without_workers_says_so() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster,
        pytest.raises(DeviceError, match="no workers"),
        open_executor(1, str(cluster.scheduler_address)),
    ):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError) as caught, open_executor(1, "tcp://127.0.0.1:8786"):
        pass
    assert "mostool[cluster]" in caught.value.hint


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        workers_ids = [int(word) for word in process.stdout.readline().split()]
        assert len(workers_ids) == 2
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.kill()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == (-sent if sent == signal.SIGKILL else -signal.SIGINT)
    assert errors.count(b"KeyboardInterrupt") <= 1, "the workers keep still"
    end = time.monotonic() + 10
    while any(_runs(one) for one in workers_ids):
        assert time.monotonic() < end, "a worker outlived the search"
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
