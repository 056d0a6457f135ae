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
from typing import Any

from .machine import read_system
from .store import remove_folder

LEASE_S = 900.0
"""A worker that no host has followed for so long is ended."""
ABANDONED_S = 30.0
"""One that no host has followed for so long may be ended by the next that wants the device."""
_KEPT_S = 7 * 86400.0
_TAIL_BYTES = 2000
_NAME = re.compile(r"[0-9a-f]{8,64}")


def program() -> list[str]:
    """How this package is started again: the zip it came in, or the module it is here."""
    main = os.path.abspath(sys.argv[0])
    if os.path.isfile(main) and not main.endswith("__main__.py"):
        return [sys.executable, main]
    return [sys.executable, "-m", __package__]


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
        """Start the worker, unless it was: a host that lost the answer asks again."""
        if self.exists():
            return
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        _write(self.file("request.json"), request + "\n")
        _write(self.file("out.jsonl"), "")
        self.renew()
        keeper = subprocess.Popen(
            [*program(), "keep", self.folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **variables},
        )
        _write(
            self.file("label.json"),
            json.dumps({**label, "keeper": keeper.pid, "boot": _boot(), "started": time.time()}),
        )

    def label(self) -> dict[str, Any]:
        found = _read_json(self.file("label.json"))
        return found if isinstance(found, dict) else {}

    def renew(self) -> None:
        """A host is listening."""
        _write(self.file("lease"), "")

    def unattended_s(self) -> float:
        try:
            return time.time() - os.stat(self.file("lease")).st_mtime
        except OSError:
            return LEASE_S

    def lines(self, offset: int, most: int = 1 << 16) -> bytes:
        """What the worker has said from `offset` on."""
        with open(self.file("out.jsonl"), "rb") as stream:
            stream.seek(offset)
            return stream.read(most)

    def ended(self) -> dict[str, Any] | None:
        """How it ended: status and the last it printed; None while it is at work."""
        status = _read_json(self.file("status.json"))
        if status is None:
            if self._keeper_lives():
                return None
            status = _read_json(self.file("status.json")) or {"status": None}  # it may have ended in between
        return {**status, "stderr": self._tail()}

    def cancel(self) -> None:
        """End the worker, whatever it is doing."""
        pid = _read_json(self.file("worker"))
        if isinstance(pid, int) and self.label().get("boot") == _boot():
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while self.ended() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def forget(self) -> None:
        remove_folder(self.folder)

    def _keeper_lives(self) -> bool:
        label = self.label()
        if label.get("boot") != _boot():
            return False
        try:
            os.kill(label["keeper"], 0)
            with open(f"/proc/{label['keeper']}/stat", "rb") as stream:
                return stream.read().rpartition(b")")[2].split()[0] != b"Z"
        except (OSError, KeyError, TypeError, IndexError):
            return False

    def _tail(self) -> str:
        try:
            with open(self.file("err.txt"), "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""


def jobs(root: str) -> list[tuple[Job, dict[str, Any]]]:
    """Every job here with its label, oldest first; those of long ago are removed."""
    found = []
    folder = os.path.join(root, "jobs")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if not _NAME.fullmatch(name):
            continue
        job = Job(root, name)
        label = job.label()
        if not label or time.time() - label.get("started", 0) > _KEPT_S:
            if job.unattended_s() > ABANDONED_S:
                job.forget()
        else:
            found.append((job, label))
    return sorted(found, key=lambda one: one[1].get("started", 0))


def keep(folder: str) -> int:
    """The keeper: start the worker of a job, wait for it, write down how it ended."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with (
        open(f"{folder}/request.json", "rb") as asked,
        open(f"{folder}/out.jsonl", "ab") as said,
        open(f"{folder}/err.txt", "ab") as printed,
    ):
        worker = subprocess.Popen(
            [*program(), "worker"], stdin=asked, stdout=said, stderr=printed, cwd=folder, start_new_session=True
        )
    _write(f"{folder}/worker", str(worker.pid))

    def watch() -> None:
        while worker.poll() is None:
            time.sleep(5)
            if not os.path.isdir(folder) or _age_s(f"{folder}/lease") > LEASE_S:
                try:
                    os.killpg(worker.pid, signal.SIGKILL)
                except OSError:
                    return

    threading.Thread(target=watch, daemon=True).start()
    status = worker.wait()
    _write(f"{folder}/status.json", json.dumps({"status": status}))
    return 0


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return LEASE_S + 1


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
