"""A board without a network: a pretend `ssh` that runs what it is told here, in a home folder of its own.

It checks what a real one would (no password is asked for, the host key must be known) and can be told to break:
lose every connection, refuse new ones, show another host key, print a banner. A real sshd and ARM64: tests/standin.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SSH = """#!{python}
import json, os, re, sys
arguments = sys.argv[1:]
state = json.load(open({state!r}))
if arguments == ["-V"]:
    sys.exit("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026")
options, position = {{}}, 0
while position < len(arguments) and arguments[position].startswith("-") and arguments[position] != "--":
    flag = arguments[position]
    if flag in ("-T", "-a", "-x", "-G"):
        options[flag] = True
        position += 1
        continue
    value = arguments[position + 1]
    if flag == "-o":
        name, _, value = value.partition("=")
        options.setdefault(name, value)
    else:
        options[flag] = value
    position += 2
assert arguments[position] == "--", arguments
host, remote = arguments[position + 1], arguments[position + 2 :]
if "-G" in options:
    print("hostname", host)
    print(state["config"])
    print("userknownhostsfile", state["home"] + "/known_hosts_of_the_user")
    sys.exit(0)
assert options["BatchMode"] == "yes", options
assert os.getsid(0) == os.getpid(), "it could ask on the terminal"
assert os.environ["SSH_ASKPASS_REQUIRE"] == "never"
if state["refuses"]:
    sys.stderr.write(f"ssh: connect to host {{host}} port 22: Connection refused\\n")
    sys.exit(255)
key = f"{{host}} ssh-ed25519 {{state['key']}}"
quoted = re.findall(r'"((?:[^"\\\\]|\\\\.)*)"', options["UserKnownHostsFile"])
known = [re.sub(r"\\\\(.)", r"\\1", path).replace("%%", "%") for path in quoted]
lines = [line for path in known if os.path.exists(path) for line in open(path).read().splitlines()]
if options["StrictHostKeyChecking"] == "accept-new":
    open(known[0], "a").write(key + "\\n")
elif key not in lines and any(line.split(" ")[0] == host for line in lines):
    sys.stderr.write("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\\n"
                     "Host key verification failed.\\n")
    sys.exit(255)
elif key not in lines:
    sys.stderr.write(f"No ED25519 host key is known for {{host}} and you have requested strict checking.\\n"
                     "Host key verification failed.\\n")
    sys.exit(255)
environment = dict(os.environ, HOME=state["home"], **state["variables"])
with open(state["home"] + "/connections", "a") as stream:
    stream.write(str(os.getpid()) + "\\n")
sys.stdout.write(state["banner"])
sys.stdout.flush()
if state["status"]:
    sys.stderr.write(state["says"])
    sys.exit(state["status"])
os.chdir(state["home"])
os.execve(state["shell"], ["sh", "-c", "exec " + " ".join(remote)], environment)
"""
# Two real ed25519 public keys, made for this file; nobody has the private ones any more.
KEYS = (
    "AAAAC3NzaC1lZDI1NTE5AAAAIChmaWKd+OlKEKwGZV/nUr067P3ui8x9derLZ+YvxPk+",
    "AAAAC3NzaC1lZDI1NTE5AAAAILB65E4UFYWs3po7Iw+nuj352nZefaGxSV8thS25a+sQ",
)


class FakeBoard:
    """What the pretend ssh connects to. `folder` is its home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "home"
        self.bin = folder / "bin"
        self._state = folder / "state.json"
        self.state: dict[str, Any] = {
            "home": str(self.folder),
            "key": KEYS[0],
            "refuses": False,
            "banner": "",
            "status": 0,
            "says": "",
            "config": "",
            "shell": "/bin/sh",
            "variables": {},
        }
        self.folder.mkdir(parents=True)
        self.bin.mkdir()
        program = self.bin / "ssh"
        program.write_text(_SSH.format(python=sys.executable, state=str(self._state)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.set()

    def set(self, **state: Any) -> None:
        """Change how it behaves: key, refuses, banner, status and says (it ends so instead), config (lines that -G
        prints), shell, variables."""
        self.state |= state
        part = self._state.with_suffix(".part")
        part.write_text(json.dumps(self.state))
        part.replace(self._state)

    @property
    def root(self) -> Path:
        """The agent's folder on the board."""
        return self.folder / ".cache" / "mostool"

    def know(self, project: Path, host: str = "board") -> None:
        """Let a project trust the board's key."""
        (project / "targets").mkdir(parents=True, exist_ok=True)
        with (project / "targets" / "known_hosts").open("a") as stream:
            stream.write(f"{host} ssh-ed25519 {self.state['key']}\n")

    @property
    def connections(self) -> list[int]:
        """The processes that carry a connection now."""
        path = self.folder / "connections"
        return [pid for pid in map(int, path.read_text().split()) if _lives(pid)] if path.exists() else []

    def kill_connections(self) -> int:
        """Lose every connection; how many there were. What was started on the board goes on."""
        living = self.connections
        for pid in living:
            os.kill(pid, signal.SIGKILL)
        return len(living)

    def jobs(self) -> list[Path]:
        folder = self.root / "jobs"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def end_workers(self) -> None:
        """Kill every worker, as the kernel would that has no memory left."""
        for job in self.jobs():
            with contextlib.suppress(OSError, ValueError):
                os.killpg(int((job / "worker").read_text()), signal.SIGKILL)

    def end_everything(self) -> None:
        """Leave nothing behind that runs."""
        self.end_workers()
        deadline = time.monotonic() + 5
        while self.connections and time.monotonic() < deadline:
            self.kill_connections()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBoard]:
    """A board named `board`, whose key nobody knows yet; `ssh` on PATH reaches it."""
    fake = FakeBoard(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    yield fake
    fake.end_everything()
