"""Who answers: this process, several on this machine, or the workers of a dask scheduler. All are an Executor.

They give equal results: a question is answered by one thread, and nobody shares anything. A cluster of unlike
processors may differ in the last bits of a loss, as two machines do.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from toolchain.errors import DeviceError, MostoolError, UsageError

_CONNECT_S = 5


@contextlib.contextmanager
def open_executor(workers: int = 1, scheduler: str | None = None) -> Iterator[Executor | None]:
    """An executor of so many processes, or of the dask workers behind `scheduler` (tcp://host:8786); else None.

    A process pool leaves no process behind: not after Ctrl-C, nor where this process is killed.

    Raises:
        UsageError: fewer than one worker, workers besides a scheduler, dask is not installed, or no address.
        DeviceError: no scheduler answers there.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers can do nothing", hint="give 1 or more")
    if scheduler is not None:
        if workers > 1:
            raise UsageError("a scheduler has workers of its own", hint="leave --workers or --scheduler out")
        with _dask(scheduler) as executor:
            yield executor
    elif workers == 1:
        yield None
    else:
        with _pool(workers) as executor:
            yield executor


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Say of workers that died, or were lost, what has happened and what to do."""
    try:
        yield
    except BrokenExecutor as error:
        raise _lost(str(error)) from error
    except CancelledError as error:  # nobody here cancels what it still waits for
        raise DeviceError(
            "the dask scheduler was lost while subnets were evaluated",
            hint="start it again, and run this again: it goes on where it was",
        ) from error
    except MostoolError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "distributed":  # KilledWorker and its like
            raise _lost(f"{type(error).__name__}: {error}") from error
        raise


def _lost(why: str) -> MostoolError:
    return MostoolError(
        "a worker process died while it evaluated a subnet",
        why=" ".join(why.split())[:300],
        hint="mostly it is memory that ran out: use fewer --workers; run this again, and it goes on where it was",
    )


# -- on this machine -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    before = set(multiprocessing.active_children())
    # Started afresh, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _follow_parent)
    try:
        # Ctrl-C on a terminal goes to every process there: blocked while the workers start, it stays so in them, and
        # it is this process that ends them.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(workers):  # each starts one
                pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """In a worker: end when the process that started it does, even if that one is killed; and not before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:  # pragma: no cover: workers have one
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


# -- past one machine ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise UsageError(
            "a scheduler needs dask", why=str(error), hint="pip install 'mostool[cluster]', here and on the workers"
        ) from error
    _greet(address)
    with Client(address, timeout=_CONNECT_S, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        executor: Executor = client.get_executor(pure=False, retries=0)
        yield executor


def _greet(address: str) -> None:
    """See that a scheduler answers and has workers: a dask client that fails to find one hangs when it is cleared away.

    Raises UsageError, DeviceError: see `open_executor`.
    """
    from distributed.core import rpc  # noqa: PLC0415

    async def ask() -> dict[str, Any]:
        async with rpc(address, timeout=_CONNECT_S) as scheduler:  # type: ignore[no-untyped-call]
            told: dict[str, Any] = await scheduler.identity()
            return told

    try:
        identity = asyncio.run(asyncio.wait_for(ask(), _CONNECT_S))
        kind, workers = str(identity["type"]), len(identity["workers"])
    except ValueError as error:
        raise UsageError(
            f"{address!r} is no scheduler's address", why=str(error), hint="it is like tcp://host:8786"
        ) from error
    except Exception as error:  # whoever listens there may send anything
        raise DeviceError(
            f"no dask scheduler answers at {address}",
            why=" ".join(f"{type(error).__name__} {error}".split())[:300],
            hint="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
        ) from error
    if kind != "Scheduler" or not workers:
        raise DeviceError(
            f"the dask scheduler at {address} has no workers", hint=f"start some: dask worker {address} --nthreads 1"
        )
