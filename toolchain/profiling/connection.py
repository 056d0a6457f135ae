"""How lines travel to a worker and back. The protocol suits a pipe of any kind; the one here is local."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from toolchain.errors import DeviceError
from toolchain.targets import Target

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LINE_BYTES = 32 << 20
_LEAVE_S = 5.0
_CHUNK_BYTES = 1 << 16
_STDERR_BYTES = 2000


class ConnectionLostError(Exception):
    """The other end has gone; the text says how it ended."""


class Connection(Protocol):
    """A pipe of lines to one worker process."""

    def send(self, line: bytes) -> None:
        """Send one line (without its end). Raises ConnectionLostError."""

    def receive(self, timeout_s: float) -> bytes:
        """The next line, without its end.

        Raises:
            TimeoutError: none came within `timeout_s`.
            ConnectionLostError: none will come.
            DeviceError: a line longer than any answer can be.
        """

    def close(self) -> None:
        """End the worker, whatever it is doing. May be called twice."""


Connect = Callable[[Target], Connection]


def connect(target: Target) -> Connection:
    """A connection to a fresh worker process on the target's device."""
    if not target.runtime.engine == "onnxruntime":
        raise DeviceError(f"{target.id}: no worker runs {target.runtime.engine}")
    return LocalConnection([sys.executable, str(WORKER)])


class LocalConnection:
    """A worker as a child process of this one; it is killed when the connection is closed."""

    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
            )
        except OSError as error:
            self._stderr.close()
            raise DeviceError("the worker cannot be started", why=error.strerror or str(error)) from error
        assert self._child.stdin is not None and self._child.stdout is not None  # noqa: S101, PT018 - both are pipes
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._pending = bytearray()
        self._searched = 0

    def send(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        try:
            while data:
                data = data[self._stdin.write(data) :]
        except (BrokenPipeError, ValueError):
            raise ConnectionLostError(self._ending()) from None

    def receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while (end := self._pending.find(b"\n", self._searched)) < 0:
            self._searched = len(self._pending)
            if self._searched > LONGEST_LINE_BYTES:
                raise DeviceError("the worker sent garbage", why=f"a line of more than {LONGEST_LINE_BYTES} bytes")
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(self._stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                raise ConnectionLostError(self._ending())
            self._pending += chunk
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._searched = 0
        return line

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._selector.close()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _ending(self) -> str:
        """How the child ended, and the last it printed."""
        try:
            status = self._child.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        how = f"killed by signal {-status}{_signal_hint(-status)}" if status < 0 else f"ended with status {status}"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_BYTES))
        printed = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"{how}: {printed[-1][:300]}" if printed else how


def _signal_hint(number: int) -> str:
    if number == signal.SIGKILL:
        return " (out of memory?)"
    return f" ({signal.Signals(number).name})" if number in {*signal.Signals} else ""
