"""A device behind ssh: its files by their content, its workers as jobs of its agent."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from toolchain.devices.device import Claim, Connection, ConnectionLostError
from toolchain.devices.link import Link, LinkLostError
from toolchain.devices.local import Lines, ending
from toolchain.errors import DeviceError
from toolchain.files import sha256_file
from toolchain.progress import Tell
from toolchain.targets import Ssh, Target

_LEAST_FREE_BYTES = 1 << 20
_ANSWERS_S = 20.0
"""Within which an agent answers whose worker has fallen silent."""
_TAKE_OVER_S = 25.0
"""Longer than the agent takes a job that no host listens to for attended."""


class RemoteDevice:
    """A device whose agent is reached by ssh."""

    def __init__(self, target: Target, ssh: Ssh, project: Path, tell: Tell) -> None:
        self.target = target
        self.link = Link(target, ssh, project, tell)
        self._placed: dict[str, str] = {}

    @property
    def remarks(self) -> list[str]:
        if not self.link.lost:
            return []
        times = "once" if self.link.lost == 1 else f"{self.link.lost} times"
        return [f"the connection to {self.target.id} was lost {times} and found again; nothing was measured twice"]

    def start_worker(self, claim: Claim | None = None) -> Connection:
        return RemoteWorker(self.link, secrets.token_hex(8), claim)

    def left_over(self, key: str) -> list[tuple[Claim, Connection]]:
        found: list[tuple[Claim, Connection]] = []
        deadline = time.monotonic() + _TAKE_OVER_S
        for name, models, attended in self._jobs(key):
            listened_to = attended
            while listened_to and time.monotonic() < deadline:  # its host may have died a moment ago
                self.link.tell(f"{self.target.id}: the same is being measured there; waiting to see by whom")
                time.sleep(1.0)
                listened_to = any(other == name and still for other, _, still in self._jobs(key))
            if not listened_to:
                claim = Claim(key, models)
                found.append((claim, RemoteWorker(self.link, name, claim, started=True)))
        return found

    def _jobs(self, key: str) -> list[tuple[str, tuple[str, ...], bool]]:
        """Of the jobs with this key: the name, the models, and whether a host listens."""
        found = []
        for one in _listed(self.link.ask("jobs").get("jobs")):
            match one:
                case {
                    "job": str(name),
                    "attended": bool(attended),
                    "label": {"key": str(stored), "models": list(models)},
                } if stored == key:
                    found.append((name, tuple(map(str, models)), attended))
                case _:
                    continue
        return found

    def place(self, path: Path) -> str:
        sha256 = sha256_file(path)
        if sha256 not in self._placed:
            found = self.link.ask("find", sha256=sha256).get("path")
            if found is None:
                found = self.link.ask("put", sha256=sha256, size=path.stat().st_size, content=path).get("path")
            if not isinstance(found, str):
                raise DeviceError(f"the agent on {self.target.id} sent garbage", why=f"a path {found!r:.80}")
            self._placed[sha256] = found
        return self._placed[sha256]

    def discard(self, path: Path) -> None:
        sha256 = sha256_file(path)
        if self._placed.pop(sha256, None) is not None:
            self.link.ask("drop", sha256=sha256)

    def close(self) -> None:
        self.link.close()


class RemoteWorker:
    """A job on the device: sending starts it, receiving reads what it has said, from wherever the last read ended."""

    def __init__(self, link: Link, job: str, claim: Claim | None, *, started: bool = False) -> None:
        self._link, self._job, self._claim = link, job, claim
        self._lines = Lines()
        self._offset = 0
        self._following = False
        self._started = started
        self._closed = False

    def send(self, line: bytes) -> None:
        self._link.ask(
            "start",
            job=self._job,
            request=line.decode("ascii", "backslashreplace"),
            alone=self._claim is not None,
            label=self._claim._asdict() if self._claim else {},
            owner=self._link.token,
        )
        self._started = True

    def receive(self, timeout_s: float) -> bytes:
        """As `Connection` says. TimeoutError only where the worker is silent and its device is not."""
        while (line := self._lines.take()) is None:
            try:
                if not self._following:
                    self._link.ask("follow", job=self._job, offset=self._offset)
                    self._following = True
                self._take(self._link.event(timeout_s))
            except LinkLostError as lost:
                self._following = False
                self._link.reconnect(str(lost))
            except TimeoutError:
                self._following = False
                self._link.ask("jobs", timeout_s=_ANSWERS_S)  # a device that hangs altogether is no model's fault
                raise
        return line

    def _take(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "said", "offset": int(offset), "text": str(text)}:
                self._offset = offset
                self._lines.add(text.encode())
            case {"type": "ended", "status": int() | None as status, "stderr": str(printed), "free_bytes": int(free)}:
                self._following = False
                if free < _LEAST_FREE_BYTES:
                    raise DeviceError(
                        f"{self._link.target.id} has no room",
                        why=f"{free >> 10} KiB are free there, and its worker has ended",
                        hint=f"free some space in {self._link.ssh.folder} on the device",
                    )
                if status is None:
                    raise ConnectionLostError("it vanished: the device was restarted", restarted=True)
                raise ConnectionLostError(ending(status, printed))
            case {"type": "error"}:
                raise DeviceError(f"the agent on {self._link.target.id} refuses", why=f"{event.get('message')}"[:300])
            case _:
                raise DeviceError(f"the agent on {self._link.target.id} sent garbage", why=f"{event!r:.200}")

    def close(self) -> None:
        """End the job, whatever it is doing, and let the device forget it.

        Where the device is out of reach the job is left alone: the same command, run again, finds what it has said.
        """
        if self._closed or not self._started:
            return
        self._closed = True
        if self._link.connected:
            with contextlib.suppress(DeviceError):
                self._link.ask("forget", job=self._job, owner=self._link.token, once=True, timeout_s=10.0)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
