"""This machine as a device: a worker is a child process, and files are where they are."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from toolchain import onboard
from toolchain.devices.device import Claim, Connection, ConnectionLostError
from toolchain.errors import DeviceError
from toolchain.targets import Target

WORKER = (sys.executable, "-P", "-m", onboard.__name__, "worker")
"""-P: a file numpy.py in the folder a user works in is not numpy."""
LONGEST_LINE_BYTES = 32 << 20
_LEAVE_S = 5.0
_CHUNK_BYTES = 1 << 16
_STDERR_BYTES = 2000


class LocalDevice:
    """The machine mostool runs on."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def remarks(self) -> list[str]:
        return []

    def start_worker(self, claim: Claim | None = None) -> Connection:  # noqa: ARG002 - a child is found by nobody else
        return LocalConnection(list(WORKER))

    def left_over(self, key: str) -> list[tuple[Claim, Connection]]:  # noqa: ARG002 - a local worker ends with its host
        return []

    def place(self, path: Path) -> str:
        return str(path.resolve())

    def discard(self, path: Path) -> None:
        """It is the caller's own file."""

    def close(self) -> None:
        """Nothing is open between workers."""


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
        self._lines = Lines()

    def send(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        try:
            while data:
                data = data[self._stdin.write(data) :]
        except (BrokenPipeError, ValueError):
            raise ConnectionLostError(self._ending()) from None

    def receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while (line := self._lines.take()) is None:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(self._stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                raise ConnectionLostError(self._ending())
            self._lines.add(chunk)
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
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_BYTES))
        return ending(status, self._stderr.read().decode("utf-8", "replace"))


class Lines:
    """Bytes as they come, lines as they are taken."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._searched = 0

    def add(self, chunk: bytes) -> None:
        self._pending += chunk

    def take(self) -> bytes | None:
        """The next whole line without its end; None where there is none yet.

        Raises:
            DeviceError: what is there is longer than any line can be.
        """
        end = self._pending.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._pending)
            if self._searched > LONGEST_LINE_BYTES:
                raise DeviceError("the worker sent garbage", why=f"a line of more than {LONGEST_LINE_BYTES} bytes")
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._searched = 0
        return line


def ending(status: int, printed: str) -> str:
    """How a process ended (its status as subprocess gives it), and the last line it printed."""
    how = f"killed by signal {-status}{_signal_hint(-status)}" if status < 0 else f"ended with status {status}"
    lines = printed.strip().splitlines()
    return f"{how}: {lines[-1][:300]}" if lines else how


def _signal_hint(number: int) -> str:
    if number == signal.SIGKILL:
        return " (out of memory?)"
    return f" ({signal.Signals(number).name})" if number in {*signal.Signals} else ""
