"""A Raspberry Pi for tests: an arm64 userland under user-mode emulation, reached through a real SSH server.

A board is a folder of ours, and a set of namespaces whose first process is its SSH server: what is mounted for the
board and what runs on it ends with that one process, as in a power cut. See README.md beside this file.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from standin import fakes, userland
from standin.userland import StandinError, why_not

__all__ = ["Board", "StandinError", "purge", "why_not"]

_HOME_KIB = 2 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Board:
    """A board that is up, or was: made by `up`, found again by `find`."""

    name: str
    model: str
    port: int

    @classmethod
    def up(cls, name: str = "pi4", model: str = "4", port: int = 0, packages: Sequence[str] = ()) -> Self:
        """A new board that answers. What is left of an earlier one of its name, running or not, is removed.

        `packages` are pip requirements with their versions, put into the board's own Python; there are none otherwise.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) or model not in fakes.KINDS:
            raise StandinError(f"a board has a name such as pi-a and a model of 4 or 5, not {name!r} and {model!r}")
        if reason := why_not():
            raise StandinError(reason)
        with userland.alone():
            layers = userland.prepare(tuple(packages))
            board = cls(name, model, port)
            board.down()
            board = dataclasses.replace(board, port=port or _free_port())
            board._make(layers)
            board.start_sshd()
        if (answer := board.run("true")).returncode:
            raise StandinError(f"{name} does not answer: {answer.stderr.strip()}")
        return board

    @classmethod
    def find(cls, name: str) -> Self:
        """A board made earlier, perhaps by another process."""
        try:
            return cls(**json.loads((userland.ROOT / "boards" / name / "board.json").read_text()))
        except OSError:
            raise StandinError(f"there is no board named {name!r}") from None

    @property
    def folder(self) -> Path:
        return userland.ROOT / "boards" / self.name

    @property
    def rootfs(self) -> Path:
        """The board's files. They are hard links to every board's: replace or remove one, never write into it."""
        return self.folder / "rootfs"

    @property
    def home(self) -> Path:
        """The home folder of the board's user, as this machine sees it."""
        return self.folder / "home"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def host(self) -> str:
        """The alias in `ssh_config`."""
        return self.name

    @property
    def user(self) -> str:
        return userland.USER

    @property
    def kind(self) -> fakes.Kind:
        return fakes.KINDS[self.model]

    @property
    def _log(self) -> Path:
        return self.folder / "sshd.log"

    @property
    def serial(self) -> str:
        return f"10000000{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on the board through SSH; the arguments arrive as they are."""
        return subprocess.run(
            [userland.tool("ssh"), "-F", str(self.ssh_config), self.host, "--", shlex.join(command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    # -- making one

    def _make(self, layers: dict[Path, str]) -> None:
        userland.run("rm", "-rf", "--one-file-system", self.folder)
        self.rootfs.mkdir(parents=True)
        for layer, below in layers.items():
            userland.run("cp", "--archive", "--link", f"{layer}/.", self.rootfs / below)
        account = userland.account()
        ids = f"{account.pw_uid}:{account.pw_gid}"
        for name, text in {
            "passwd": f"root:x:0:0:root:/root:/bin/bash\n{self.user}:x:{ids}::/home/{self.user}:/bin/bash\n",
            "group": f"root:x:0:\n{self.user}:x:{account.pw_gid}:\n",
            "hostname": f"{self.name}\n",
            "hosts": f"127.0.0.1 localhost {self.name}\n",
            "machine-id": f"{hashlib.sha256(self.serial.encode()).hexdigest()[:32]}\n",
        }.items():
            userland.replace(self.rootfs / "etc" / name, text)
        userland.replace(self.folder / "cpuinfo", fakes.cpuinfo(self.kind, self.serial))
        for name, text in fakes.sysfs(self.kind, self.serial).items():
            userland.replace(self.folder / "sys" / name, text)
        for core in range(fakes.CORES):
            (self.folder / f"sys/devices/system/cpu/cpu{core}/cpufreq").symlink_to("../cpufreq/policy0")
        self.home.mkdir()
        options = f"size={_HOME_KIB}k,mode=0700,uid={account.pw_uid},gid={account.pw_gid}"
        userland.run("mount", "-t", "tmpfs", "-o", options, f"{self.name}-home", self.home)
        for key in ("client_key", "host_key"):
            self._new_key(key)
        host_key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        userland.replace(self.folder / "known_hosts", f"[127.0.0.1]:{self.port} {host_key}\n")
        userland.replace(self.folder / "sshd_config", self._sshd_settings())
        userland.replace(self.ssh_config, self._ssh_settings())
        userland.replace(self.folder / "board.json", json.dumps(dataclasses.asdict(self)))

    def _sshd_settings(self) -> str:
        return f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host_key
PidFile none
AuthorizedKeysFile {self.folder}/client_key.pub
AuthenticationMethods publickey
AllowUsers {self.user}
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
AllowTcpForwarding no
MaxStartups 50
MaxSessions 50
ChrootDirectory {self.rootfs}
Subsystem sftp internal-sftp
SetEnv QEMU_CPU={self.kind.emulated} LANG=C.UTF-8
"""

    def _ssh_settings(self) -> str:
        return f"""Host {self.host}
  HostName 127.0.0.1
  Port {self.port}
  User {self.user}
  IdentityFile {self.folder}/client_key
  IdentitiesOnly yes
  UserKnownHostsFile {self.folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  StrictHostKeyChecking yes
  BatchMode yes
"""

    # -- its power and its network

    def start_sshd(self) -> None:
        """Start the board; returns once its SSH server listens."""
        if self._keepers():
            return
        if not self.home.is_mount():
            raise StandinError(f"{self.name} was taken down; it has to be made anew")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = (sys.executable, Path(__file__).resolve().parent, "_boot", self.folder)
        command = [userland.tool("setsid"), "--fork", *userland.isolated(*program)]
        with self._log.open("ab") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        if not _until(self._listens):
            raise StandinError(f"{self.name} does not start: {self._log.read_text(errors='replace')[-1000:].strip()}")

    def boot(self) -> None:
        """Become the board: called as the first process of its namespaces, this mounts and does not return."""
        mounts: list[tuple[str | Path, ...]] = [
            ("-t", "proc", "proc", self.rootfs / "proc"),
            ("--bind", self.folder / "cpuinfo", self.rootfs / "proc/cpuinfo"),
            ("--bind", self.folder / "boot_id", self.rootfs / "proc/sys/kernel/random/boot_id"),
            ("--bind", "-o", "ro", self.folder / "sys", self.rootfs / "sys"),
            ("--bind", self.home, self.rootfs / "home" / self.user),
            *(("-t", "tmpfs", "-o", "mode=1777", "tmpfs", self.rootfs / name) for name in ("tmp", "dev/shm")),
        ]
        userland.replace(self.folder / "boot_id", f"{uuid.uuid4()}\n")
        for mount in mounts:
            userland.run("mount", *mount)
        socket.sethostname(self.name)
        server = userland.tool("sshd")
        options = ["-D", "-f", str(self.folder / "sshd_config"), "-E", str(self._log)]
        os.execv(server, [server, *options])  # noqa: S606 - it is to be this very process

    def kill_sshd(self) -> None:
        """Cut the power: the SSH server and all that runs on the board ends at once. Its files stay, but for /tmp."""
        for keeper in self._keepers():
            for process in (*_inside(keeper), keeper):
                _signal(process, signal.SIGKILL)
        if not _until(lambda: not (self._keepers() or self._listens())):
            raise StandinError(f"{self.name} does not end")

    def kill_connections(self) -> None:
        """Drop every connection. What they ran goes on until it reads or writes, as on a real board."""
        self._signal_connections(signal.SIGKILL)

    def freeze_connections(self) -> None:
        """Let every connection fall silent, as where a cable is pulled: nobody is told."""
        self._signal_connections(signal.SIGSTOP)

    def thaw_connections(self) -> None:
        """Let them speak again."""
        self._signal_connections(signal.SIGCONT)

    def down(self) -> None:
        """Stop the board and unmount its home, which is gone with that."""
        self.kill_sshd()
        while self.home.is_mount():
            userland.run("umount", "--lazy", self.home)

    def _keepers(self) -> list[int]:
        """The processes that wait for the board's first one; one while it is up, none while it is not."""
        return [pid for pid in _pids() if f"\0_boot\0{self.folder}\0" in _about(pid, "cmdline")]

    def _signal_connections(self, number: signal.Signals) -> None:
        for keeper in self._keepers():
            for process in _inside(keeper):
                first = re.search(r"^NSpid:.*\t1$", _about(process, "status"), re.MULTILINE)
                if _about(process, "comm").startswith("sshd") and not first:
                    _signal(process, number)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    # -- what goes wrong with it

    def _new_key(self, name: str) -> None:
        for path in (self.folder / name, self.folder / f"{name}.pub"):
            path.unlink(missing_ok=True)
        userland.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", self.folder / name)

    def change_host_key(self) -> None:
        """Start again with a host key that known_hosts does not have: another machine, or a card written anew."""
        self.kill_sshd()
        if not (self.folder / "host_key.known").exists():
            (self.folder / "host_key").rename(self.folder / "host_key.known")
        self._new_key("host_key")
        self.start_sshd()

    def restore_host_key(self) -> None:
        """Start again with the host key that known_hosts has."""
        self.kill_sshd()
        if (self.folder / "host_key.known").exists():
            (self.folder / "host_key.known").rename(self.folder / "host_key")
        self.start_sshd()

    def inject(
        self,
        *,
        throttled: int | None = None,
        temperature_c: float | None = None,
        frequency_khz: int | None = None,
        governor: str | None = None,
    ) -> None:
        """Change what the board's sensors say, from now on; the rest they go on saying."""
        said = {
            self.kind.throttled: None if throttled is None else f"{throttled:x}",
            fakes.HEAT: None if temperature_c is None else f"{temperature_c * 1000:.0f}",
            f"{fakes.CLOCK}/scaling_cur_freq": None if frequency_khz is None else str(frequency_khz),
            f"{fakes.CLOCK}/scaling_governor": governor,
        }
        for name, text in said.items():
            if text is not None:
                userland.replace(self.folder / "sys" / name, f"{text}\n")

    def fill_disk(self, free_kib: int = 0) -> contextlib.AbstractContextManager[object]:
        """Leave this much of the home's disk, at least a page, also to programs that have files open there.

        As a context it frees the disk again at its end.
        """
        disk = os.statvfs(self.home)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        self._resize(used + max(free_kib, 4))
        after = contextlib.ExitStack()
        after.callback(self.free_disk)
        return after

    def free_disk(self) -> None:
        """Give the home its whole disk back."""
        self._resize(_HOME_KIB)

    def _resize(self, kib: int) -> None:
        userland.run("mount", "-o", f"remount,size={kib}k", self.home)


def purge() -> None:
    """Remove every board and what they are made from; the account and the packages of tools stay."""
    for folder in (userland.ROOT / "boards").glob("*"):
        Board(folder.name, "4", 0).down()
    userland.forget()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _about(pid: int, what: str) -> str:
    """A file of /proc about a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


def _namespace(pid: int, which: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{which}").readlink())
    except OSError:
        return ""


def _inside(keeper: int) -> list[int]:
    """The processes of the namespace that a keeper made."""
    made = _namespace(keeper, "pid_for_children")
    return [pid for pid in _pids() if made and _namespace(pid, "pid") == made]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _until(done: Callable[[], bool], timeout_s: float = 15) -> bool:
    end = time.monotonic() + timeout_s
    while not (is_done := done()) and time.monotonic() < end:
        time.sleep(0.02)
    return is_done
