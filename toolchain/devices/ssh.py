"""The system's ssh: how it is called, what its complaints mean, and whose host keys are trusted.

Everything a user has set up for ssh (aliases, jump hosts, agents, hardware keys) works, because it is their ssh.
What is not theirs to decide: no password is asked for, no unknown host is trusted, nothing is forwarded.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from toolchain.errors import DeviceError, UsageError
from toolchain.files import write_bytes
from toolchain.targets import Ssh, Target

LOG = logging.getLogger(__name__)
KNOWN_HOSTS = "known_hosts"
"""In a project's targets/ folder: the host keys `mostool devices add` was told to trust."""

_SETTINGS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    # A connection that is shared with the user's own checks no key and keeps no time limit of ours.
    "ControlMaster=no",
    "ControlPath=none",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)
_NEWER_SETTINGS = ("StdinNull=no", "ForkAfterAuthentication=no", "SessionType=default")
_NEWER = (8, 7)
"""The first OpenSSH that knows those."""
_ASKED_S = 30
_OF_SSH_ITSELF = 255
"""The status of an ssh that did not get as far as the remote command."""
_UNKNOWN_KEY = ("Host key verification failed", "host key is known for")
_CHANGED = "IDENTIFICATION HAS CHANGED"
_WHOSE = re.compile(r"host key is known for (\S+) and|Host key for (\S+) (?:has changed|was revoked)")
_NO_ENTRY = ("Permission denied", "Too many authentication failures")


def command(target: Target, ssh: Ssh, project: Path, remote: list[str]) -> list[str]:
    """The arguments of an ssh that runs `remote` on the device."""
    known = " ".join(_quoted(path) for path in trusted_files(target, ssh, project))
    there = " ".join([_program(remote[0]), *map(shlex.quote, remote[1:])])
    return [*_base(target, ssh, project), "-o", f"UserKnownHostsFile={known}", "--", ssh.host, there]


def environment() -> dict[str, str]:
    """The variables of an ssh that must not ask. With a session of its own, which has no terminal, this holds for the
    ssh to a jump host too, which is not told of BatchMode."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def _program(path: str) -> str:
    """A program as a word of the device's shell, which alone knows where ~ is."""
    home = re.match(r"~[\w.-]*/", path)
    return home[0] + shlex.quote(path[home.end() :]) if home else shlex.quote(path)


def _base(target: Target, ssh: Ssh, project: Path) -> list[str]:
    check(target, ssh)
    arguments = ["ssh", "-T", "-a", "-x"]
    newer = _NEWER_SETTINGS if _version(shutil.which("ssh") or "") >= _NEWER else ()
    for setting in (*_SETTINGS, *newer, f"ConnectTimeout={max(1, round(ssh.connect_timeout_s))}"):
        arguments += ["-o", setting]
    if ssh.config:
        arguments += ["-F", str(_own_path(project, ssh.config))]
    if ssh.identity:
        identity = _quoted(str(_own_path(project, ssh.identity)))
        arguments += ["-o", f"IdentityFile={identity}", "-o", "IdentitiesOnly=yes"]
    if ssh.user:
        arguments += ["-l", ssh.user]
    if ssh.port:
        arguments += ["-p", str(ssh.port)]
    return arguments


def check(target: Target, ssh: Ssh) -> None:
    """Raise UsageError where a name could be taken for anything else than a name."""
    for what, text in (("host", ssh.host), ("user", ssh.user)):
        if text.startswith("-") or re.search(r"[\s\0-\x1f'\"\\$`;|&<>()]", text):
            raise UsageError(
                f"{target.id}: {text!r} is no {what}", hint=f"mend --{what} (connection.{what} in the target's file)"
            )
    if not ssh.host:
        raise UsageError(
            f"nobody has said yet where {target.id} is",
            hint=f"mostool devices add {target.id} --host HOST --user USER",
        )


def _own_path(project: Path, given: str) -> Path:
    """A path of the target's file: below the home folder, absolute, or below the project."""
    return project / Path(given).expanduser()


@functools.cache
def _version(program: str) -> tuple[int, int]:
    """That of OpenSSH; (0, 0) where the program does not tell, or there is none."""
    found = re.search(r"OpenSSH\w*?_(\d+)\.(\d+)", _run([program, "-V"]).stderr) if program else None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _quoted(path: str) -> str:
    """A path as the value of an option that holds paths: ssh undoes quotes, then % and ${}.

    Raises:
        UsageError: it has what cannot be written so that ssh takes it as it is.
    """
    if not _can_be_told(path):
        raise UsageError(
            f"ssh cannot be told of {path!r}",
            why="it takes ${ for the name of a variable, and a path for one line",
            hint="move or rename the folder so that its path has neither ${ nor a line's end",
        )
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _can_be_told(path: str) -> bool:
    return "${" not in path and not re.search(r"[\0\r\n]", path)


def trusted_files(target: Target, ssh: Ssh, project: Path) -> list[str]:
    """The files of host keys that hold for the device: the project's own, then those the user's ssh would read."""
    return [str((project / "targets" / KNOWN_HOSTS).absolute()), *_users_files(target, ssh, project)]


def _users_files(target: Target, ssh: Ssh, project: Path) -> list[str]:
    """ssh prints them without quotes, so that a space may be a path's own: the next path begins at the root or ~."""
    value = _settings(target, ssh, project).get("userknownhostsfile", "")
    parts = [[part] if part[:1] in "/~" else part.split() for part in re.split(r" (?=[/~])", value) if part]
    paths = [str(Path(path).expanduser()) for found in parts for path in found if path != "none"]
    return [path for path in paths if _can_be_told(path)]


def _settings(target: Target, ssh: Ssh, project: Path) -> dict[str, str]:
    """What ssh would do, by the names of its options in small letters; of several values the first."""
    asked = _run([*_base(target, ssh, project), "-G", "--", ssh.host])
    found: dict[str, str] = {}
    for line in asked.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, value)
    return found


def complaint(target: Target, ssh: Ssh, project: Path, said: str) -> DeviceError:
    """What an ssh that ended with `said` on stderr means, and what to do about it."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("@")]
    why = lines[-1][:300] if lines else "ssh ended without a word"
    where = f"{target.id} ({ssh.host})"
    if jump := _jump_host_at_fault(target, ssh, project, said):
        state = "has changed" if _CHANGED in said else "is not known"
        config = f"-F {shlex.quote(str(_own_path(project, ssh.config)))} " if ssh.config else ""
        return DeviceError(
            f"the host key of {jump} {state}, and {where} is behind it",
            why="a jump host has to be trusted before anything behind it can be reached",
            hint=f"settle it by hand: ssh {config}{_to_type(ssh.host if ',' in jump else jump)}",
        )
    if _CHANGED in said:
        return _changed_key(target, ssh, project)
    if any(words in said for words in _UNKNOWN_KEY):
        return DeviceError(
            f"the host key of {where} is not known",
            why="nobody has said yet that this is the device it claims to be",
            hint=f"mostool devices add {target.id} --host {ssh.host} shows its fingerprint and stores it",
        )
    hints = {
        "Permission denied": f"ssh {ssh.host} must work without a password: put your public key there "
        "(ssh-copy-id); a key with a passphrase has to be in your agent (ssh-add)",
        "Could not resolve": "check --host (connection.host in the target's file); try the device's address",
        "Connection refused": "is its ssh server on? on a Raspberry Pi: sudo raspi-config, Interface Options, SSH",
        "timed out": "is the device on, and in this network? try: ping",
        "No route": "is the device on, and in this network? try: ping",
        "bad permissions": "the private key must be readable by you alone: chmod 600",
    }
    hint = next((text for words, text in hints.items() if words in said), f"try by hand: ssh {ssh.host} true")
    return DeviceError(f"{where} cannot be reached", why=why, hint=hint)


def _jump_host_at_fault(target: Target, ssh: Ssh, project: Path, said: str) -> str:
    """The host on the way to the device whose key ssh does not trust; empty where it is not that.

    Our own ssh names the host whose key it refuses. One that was about to ask, as that to a jump host is, does not.
    """
    if _CHANGED not in said and not any(words in said for words in _UNKNOWN_KEY):
        return ""
    settings = _settings(target, ssh, project)
    name, port = settings.get("hostname", ssh.host), settings.get("port", "22")
    own = {settings.get("hostkeyalias", ""), name if port == "22" else f"[{name}]:{port}"}
    whose = next((first or second for first, second in _WHOSE.findall(said)), "")
    if whose.lower() in {one.lower() for one in own if one}:
        return ""
    jumps = settings.get("proxyjump", "")
    return jumps if jumps and ("," not in jumps or not whose) else whose


def _to_type(name: str) -> str:
    """host:port or [host]:port as one types it after ssh."""
    found = re.fullmatch(r"\[?([^][]+)\]?:(\d+)", name)
    return f"-p {found[2]} {found[1]}" if found else name


# -- host keys ---------------------------------------------------------------------------------------------------------


class HostKey(NamedTuple):
    """A host's public key: its line for a file of known hosts, and its fingerprint as ssh-keygen prints it."""

    line: str
    fingerprint: str

    def __str__(self) -> str:
        kind = next((name for name in ("ed25519", "ecdsa", "rsa") if name in self.line.split()[1]), "")
        return f"{kind.upper()} {self.fingerprint}".strip()


def offered_keys(target: Target, ssh: Ssh, project: Path) -> list[HostKey]:
    """The keys the device shows when asked for the way ssh will ask: through jump hosts and under aliases.

    Raises:
        DeviceError: it cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        known = Path(scratch) / "known_hosts"
        # The first value of an option counts for ssh, so what is different here goes first. HashKnownHosts would hide
        # the name the key is stored under.
        arguments = _base(target, ssh, project)
        different = (
            "StrictHostKeyChecking=accept-new",
            f"UserKnownHostsFile={_quoted(str(known))}",
            "HashKnownHosts=no",
        )
        options = [
            part for one in (*different, "UpdateHostKeys=no", "GlobalKnownHostsFile=none") for part in ("-o", one)
        ]
        asked = _run([arguments[0], *options, *arguments[1:], "--", ssh.host, "true"])
        if not known.is_file() or not known.read_text(encoding="utf-8").strip():
            raise complaint(target, ssh, project, asked.stderr)
        lines = [line for line in known.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [HostKey(line, fingerprint) for line in lines if (fingerprint := _fingerprint(line))]


class Login(NamedTuple):
    """How ssh fared: whether it trusts the host's key, and what it complained of."""

    key: Literal["known", "unknown", "changed"]
    error: DeviceError | None = None


def try_login(target: Target, ssh: Ssh, project: Path) -> Login:
    """Connect as every other command will. Asked of ssh itself, which also knows of certificates and global files.

    Raises:
        DeviceError: the device is out of reach, so that nobody can tell.
    """
    asked = _run(command(target, ssh, project, ["true"]))
    if asked.returncode != _OF_SSH_ITSELF:
        return Login("known")
    error = complaint(target, ssh, project, asked.stderr)
    if _jump_host_at_fault(target, ssh, project, asked.stderr):
        raise error
    if _CHANGED in asked.stderr:
        return Login("changed", error)
    if any(words in asked.stderr for words in _UNKNOWN_KEY):
        return Login("unknown", error)
    if any(words in asked.stderr for words in _NO_ENTRY):
        return Login("known", error)
    raise error


def _trusted(target: Target, ssh: Ssh, project: Path, keys: list[HostKey]) -> list[HostKey]:
    """What the files of known hosts hold under the names of `keys`."""
    found = []
    for name in {key.line.split()[0] for key in keys}:
        for path in trusted_files(target, ssh, project):
            if Path(path).is_file():
                listed = _run(["ssh-keygen", "-F", name, "-f", path])
                lines = [line for line in listed.stdout.splitlines() if line and not line.startswith("#")]
                found += [HostKey(line, fingerprint) for line in lines if (fingerprint := _fingerprint(line))]
    return found


def trust(project: Path, keys: list[HostKey]) -> Path:
    """Add keys to the project's known hosts; the file. What it held under the same names is replaced."""
    path = project / "targets" / KNOWN_HOSTS
    names = {key.line.split()[0] for key in keys}
    kept = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = [line for line in kept if line.split(" ")[0] not in names] + [key.line for key in keys]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _changed_key(target: Target, ssh: Ssh, project: Path) -> DeviceError:
    try:
        keys = offered_keys(target, ssh, project)
        stored = ", ".join(sorted({str(key) for key in _trusted(target, ssh, project, keys)}))
        why = f"it shows {', '.join(map(str, keys))}, known is {stored}"
    except DeviceError as error:
        why = str(error)
    return DeviceError(
        f"the host key of {target.id} ({ssh.host}) has changed",
        why=why,
        hint="a new installation, or another machine in its place? if you know why: "
        f"mostool devices add {target.id} --host {ssh.host} --fingerprint SHA256:...",
    )


def _fingerprint(line: str) -> str:
    """That of a line of known hosts, as ssh-keygen prints it; empty where the line holds no key of one host."""
    words = line.split()
    if len(words) < 3 or words[0].startswith("@"):
        return ""
    try:
        digest = hashlib.sha256(base64.b64decode(words[2], validate=True)).digest()
    except ValueError:
        return ""
    return f"SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """What a program says that must not ask. Where its time is up, what it started (an ssh to a jump host) ends too."""
    LOG.info("runs %s", shlex.join(arguments))
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise DeviceError(f"there is no {arguments[0]} here", hint="install the OpenSSH client") from None
    with process:
        try:
            said, complained = process.communicate(timeout=_ASKED_S)
        except BaseException as fault:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(fault, subprocess.TimeoutExpired):
                raise
            complained = f"{arguments[0]}: timed out after {_ASKED_S} s"
            return subprocess.CompletedProcess(arguments, _OF_SSH_ITSELF, "", complained)
    return subprocess.CompletedProcess(arguments, process.returncode, said, complained)
