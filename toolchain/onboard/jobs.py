"""Jobs: workers that outlive the connection that started them.

A job is a folder: its request, what its worker has answered so far, how it ended. A keeper, a process of its own
session, starts the worker and waits for it; an agent only looks into the folder. So a host that has lost its connection
finds, when it is back, every line that was said meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .machine import read_system
from .store import remove_folder

LEASE_S = 900.0
"""A worker that no host has followed for so long is ended."""
WATCH_S = 5.0
ABANDONED_S = 15.0
"""One that no host has followed for so long may be taken over, or ended, by the next that wants the device."""
PIECE_BYTES = 1 << 16
"""So much of what a worker has said is told at once."""
_KEPT_S = 7 * 86400.0
_TAIL_BYTES = 2000
_GO = b"go"
_NAME = re.compile(r"[0-9a-f]{8,64}")


def program() -> list[str]:
    """How this package is started again: the zip it came in, or the module it is here."""
    main = os.path.abspath(sys.argv[0])
    if os.path.isfile(main) and not main.endswith("__main__.py"):
        return [sys.executable, main]
    return [sys.executable, "-m", __package__]


@contextlib.contextmanager
def starting(root: str) -> Iterator[None]:
    """One agent at a time may ask what is at work here and start something, for it is not always one connection's:
    a host whose connection broke repeats its question while the agent that heard it first is still answering."""
    import fcntl  # the hosts that import this module may have none

    with open(os.path.join(root, "jobs.lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Job:
    """One job's folder, as an agent sees it."""

    def __init__(self, root: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name of a job")
        self.name = name
        self.folder = os.path.join(root, "jobs", name)

    def file(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def exists(self) -> bool:
        return os.path.isfile(self.file("label.json"))

    def start(self, request: str, label: dict[str, Any], variables: dict[str, str]) -> None:
        """Start the worker, unless it was: a host that lost the answer asks again. To be called within `starting`.

        Raises:
            OSError: it cannot be started, and nothing of it is left.
        """
        if self.exists():
            return
        self.forget()  # what an agent that was killed has left half made
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        try:
            _write(self.file("request.json"), request + "\n")
            _write(self.file("out.jsonl"), "")
            self.renew()
            self._start_keeper(label, variables)
        except BaseException:
            self.forget()
            raise

    def _start_keeper(self, label: dict[str, Any], variables: dict[str, str]) -> None:
        """The keeper waits for a word before it starts the worker, so that there is none without a label."""
        keeper = subprocess.Popen(
            [*program(), "keep", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **variables},
        )
        assert keeper.stdin is not None  # noqa: S101 - it is a pipe
        try:
            which = {"keeper": keeper.pid, "born": _born(keeper.pid), "boot": _boot()}
            _write(self.file("label.json"), json.dumps({**label, **which, "started": time.time()}))
        except BaseException:
            keeper.kill()
            keeper.communicate()
            raise
        with contextlib.suppress(OSError), keeper.stdin:
            keeper.stdin.write(_GO)
        threading.Thread(target=keeper.wait, daemon=True).start()  # leaves no zombie behind

    def label(self) -> dict[str, Any]:
        found = _read_json(self.file("label.json"))
        return found if isinstance(found, dict) else {}

    def renew(self) -> None:
        """A host is listening."""
        try:
            os.utime(self.file("lease"))  # a full disk has room for that
        except FileNotFoundError:
            _write(self.file("lease"), "")

    def unattended_s(self) -> float:
        try:
            return time.time() - os.stat(self.file("lease")).st_mtime
        except OSError:
            return LEASE_S

    def attended(self) -> bool:
        """Whether it is at work and a host listens to it."""
        return self.unattended_s() < ABANDONED_S and self.ended() is None

    def lines(self, offset: int, most: int = PIECE_BYTES) -> bytes:
        """What the worker has said from `offset` on, `most` bytes at the most."""
        with open(self.file("out.jsonl"), "rb") as stream:
            stream.seek(offset)
            return stream.read(most)

    def ended(self) -> dict[str, Any] | None:
        """How it ended: status and the last it printed; None while it is at work. A status of None: it vanished."""
        status = self._status()
        if status is None:
            if self._keeper_lives():
                return None
            status = self._status() or {"status": None}  # it may have ended in between
        return {**status, "stderr": self._tail()}

    def _status(self) -> dict[str, Any] | None:
        found = _read_json(self.file("status.json"))
        return found if isinstance(found, dict) else None

    def cancel(self) -> None:
        """End the worker, whatever it is doing; one that has only just been asked for as soon as it is there."""
        deadline = time.monotonic() + 5
        while True:
            self._kill_worker()
            if self.ended() is not None or time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def _kill_worker(self) -> None:
        """It may have ended long ago, and its number be another's by now: that one is not at work in this folder."""
        pid = _read_json(self.file("worker"))
        with contextlib.suppress(OSError):
            if isinstance(pid, int) and os.path.samefile(f"/proc/{pid}/cwd", self.folder):
                os.killpg(pid, signal.SIGKILL)

    def forget(self) -> None:
        remove_folder(self.folder)

    def _keeper_lives(self) -> bool:
        label = self.label()
        born = label.get("born")
        return born is not None and label.get("boot") == _boot() and _born(label.get("keeper")) == born

    def _tail(self) -> str:
        try:
            with open(self.file("err.txt"), "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""


def jobs(root: str) -> list[tuple[Job, dict[str, Any]]]:
    """Every job here with its label, oldest first; those half made or of long ago are removed. Within `starting`."""
    found = []
    folder = os.path.join(root, "jobs")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if not _NAME.fullmatch(name):
            continue
        job = Job(root, name)
        label = job.label()
        # A board's clock may leap by years: what is still at work, or listened to, is not of long ago.
        old = time.time() - label.get("started", 0) > _KEPT_S and job.unattended_s() > ABANDONED_S
        if not label or (old and job.ended() is not None):
            job.forget()
        else:
            found.append((job, label))
    return sorted(found, key=lambda one: one[1].get("started", 0))


def keep(folder: str) -> int:
    """The keeper: start the worker of a job, wait for it, write down how it ended."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.stdin.buffer.read(len(_GO)) != _GO:
        return 1  # the agent is gone and has written no label: to the host there is no such job, it asks again
    try:
        worker = _start_worker(folder)
    except OSError as fault:
        _write(f"{folder}/err.txt", f"the worker cannot be started: {fault}\n")
        _write(f"{folder}/status.json", json.dumps({"status": 1}))
        return 1
    threading.Thread(target=_watch, args=(worker, folder), daemon=True).start()
    status = worker.wait()
    _write(f"{folder}/status.json", json.dumps({"status": status}))
    return 0


def _start_worker(folder: str) -> subprocess.Popen[bytes]:
    with (
        open(f"{folder}/request.json", "rb") as asked,
        open(f"{folder}/out.jsonl", "ab") as said,
        open(f"{folder}/err.txt", "ab") as printed,
    ):
        worker = subprocess.Popen(
            [*program(), "worker"], stdin=asked, stdout=said, stderr=printed, cwd=folder, start_new_session=True
        )
    try:
        _write(f"{folder}/worker", str(worker.pid))
    except OSError:  # nobody could end it
        worker.kill()
        worker.wait()
        raise
    return worker


def _watch(worker: subprocess.Popen[bytes], folder: str) -> None:
    """End a worker that no host has followed for long, or whose folder is gone; the clock may leap meanwhile."""
    seen, since = _changed_ns(f"{folder}/lease"), time.monotonic()
    while worker.poll() is None:
        time.sleep(WATCH_S)
        lease = _changed_ns(f"{folder}/lease")
        if lease != seen:
            seen, since = lease, time.monotonic()
        if lease is None or time.monotonic() - since > LEASE_S:
            try:
                os.killpg(worker.pid, signal.SIGKILL)
            except OSError:
                return


def _changed_ns(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def _born(pid: Any) -> int | None:
    """The tick at which a process started, which tells it from a later one of its number; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
        return None if fields[0] in b"ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot() -> str:
    return read_system("/proc/sys/kernel/random/boot_id")


def _write(path: str, text: str) -> None:
    """Put a small file in place whole."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(part, path)


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None
