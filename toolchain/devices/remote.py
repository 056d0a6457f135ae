"""A device behind ssh: its files by their content, its workers as jobs of its agent."""

from __future__ import annotations

import contextlib
import secrets
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
        for one in self.link.ask("jobs")["jobs"]:
            match one:
                case {"job": str(name), "label": {"key": str(stored), "models": list(models)}} if stored == key:
                    claim = Claim(key, tuple(map(str, models)))
                    found.append((claim, RemoteWorker(self.link, name, claim, started=True)))
                case _:
                    continue
        return found

    def place(self, path: Path) -> str:
        sha256 = sha256_file(path)
        if sha256 not in self._placed:
            found = self.link.ask("find", sha256=sha256)["path"]
            if found is None:
                found = self.link.ask("put", sha256=sha256, size=path.stat().st_size, content=path)["path"]
            self._placed[sha256] = str(found)
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
        while (line := self._lines.take()) is None:
            try:
                if not self._following:
                    self._link.ask("follow", job=self._job, offset=self._offset)
                    self._following = True
                self._take(self._link.event(timeout_s))
            except LinkLostError as lost:
                self._following = False
                self._link.reconnect(str(lost))
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
        """End the job, whatever it is doing, and let the device forget it; quietly where it is out of reach."""
        if self._closed or not self._started:
            return
        self._closed = True
        with contextlib.suppress(DeviceError):
            self._link.ask("forget", job=self._job, timeout_s=10.0)
