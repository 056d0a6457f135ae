"""What every device can do, wherever it is, and the door to each kind."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from toolchain.progress import Tell, silent_tell
from toolchain.targets import Ssh, Target


class ConnectionLostError(Exception):
    """The worker has gone; the text says how it ended. `restarted`: its device was, and it did not end by itself."""

    def __init__(self, how: str, *, restarted: bool = False) -> None:
        super().__init__(how)
        self.restarted = restarted


class Claim(NamedTuple):
    """What a worker is to measure: the `key` of everything its results depend on but the models, and the models'
    sha256 in order. By it the answers are found again after the host was killed."""

    key: str
    models: tuple[str, ...]


class Connection(Protocol):
    """A pipe of lines to one worker process."""

    def send(self, line: bytes) -> None:
        """Send one line (without its end). Raises ConnectionLostError."""

    def receive(self, timeout_s: float) -> bytes:
        """The next line, without its end.

        Raises:
            TimeoutError: none came within `timeout_s`.
            ConnectionLostError: none will come: the worker has ended.
            DeviceError: the device is out of reach and stays so, or a line is longer than any answer can be.
        """

    def close(self) -> None:
        """End the worker, whatever it is doing. May be called twice."""


class Device(Protocol):
    """A target's device, reached.

    Attributes:
        remarks: what a person should know about how it went, such as connections that were lost.
    """

    target: Target

    @property
    def remarks(self) -> list[str]: ...

    def start_worker(self, claim: Claim | None = None) -> Connection:
        """A fresh worker; with a claim, the only one that measures there.

        Raises:
            DeviceError: the device is out of reach, busy, or cannot start one.
        """

    def left_over(self, key: str) -> list[tuple[Claim, Connection]]:
        """Workers that were started with claims of this key by a mostool that is gone, and what they have said, to be
        listened to; `close` forgets one."""

    def place(self, path: Path) -> str:
        """Bring a file to the device, unless it is there; the path that workers find it by."""

    def discard(self, path: Path) -> None:
        """The device may forget a file that was placed."""

    def close(self) -> None: ...


def open_device(target: Target, project: Path, tell: Tell = silent_tell) -> Device:
    """The device of a target; the folder `project` holds the host keys it trusts. Close it when done.

    Raises:
        DeviceError: it cannot be reached; the hint says what to try.
    """
    if isinstance(target.connection, Ssh):
        from toolchain.devices.remote import RemoteDevice  # noqa: PLC0415 - each kind is a module of its own

        return RemoteDevice(target, target.connection, project, tell)
    from toolchain.devices.local import LocalDevice  # noqa: PLC0415

    return LocalDevice(target)
