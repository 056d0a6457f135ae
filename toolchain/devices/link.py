"""The link to an agent: one long-lived ssh, found again when it is lost.

Everything a host asks of an agent may be asked twice, so after a break the question is simply repeated: a file that is
there is not sent again, a job that was started is not started again, and what a job said is read on from where it was.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.devices import ssh as system_ssh
from toolchain.devices.package import packed, packed_sha256
from toolchain.errors import DeviceError
from toolchain.onboard.agent import AGENT_PROTOCOL
from toolchain.onboard.frames import Frames
from toolchain.progress import Tell
from toolchain.targets import Ssh, Target

LOG = logging.getLogger(__name__)
Message = dict[str, Any]

BOOT_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60.0
_LONGEST_BANNER = 200
_PIECE_BYTES = 1 << 18
_BACK_OFF_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
_ALIVE_S = 3.0
"""How often a device that is listened to is told so."""
_MOST_LOSSES = 20
"""Of the connection over one and the same question: more are the question's doing."""

# The one program that is given to the device's python on its command line: it fetches the agent unless that is there,
# named by its checksum, and becomes it. Python 3.6, so that what is too old can be told. Each of its words begins a
# line: what a shell's start-up files print before may lack its end.
LOADER = r"""
import hashlib, os, sys
i, o = sys.stdin.buffer, sys.stdout.buffer
def say(*words):
    o.write(("\n" + " ".join(["mostool-agent"] + list(words)) + "\n").encode()); o.flush()
def content(path):
    try:
        return open(path, "rb").read()
    except OSError:
        return b""
if sys.version_info < (3, 9):
    say("python", "%d.%d" % sys.version_info[:2]); sys.exit(0)
try:
    os.umask(0o077)
    root = os.path.expanduser(sys.argv[1]); digest = sys.argv[2]; size = int(sys.argv[3])
    os.makedirs(root, exist_ok=True)
    path = os.path.join(root, "agent-" + digest[:16] + ".pyz")
    if hashlib.sha256(content(path)).hexdigest() == digest:
        os.utime(path, None)
        say("have")
    else:
        say("want")
        data = b""
        while len(data) < size:
            piece = os.read(0, min(65536, size - len(data)))
            if not piece:
                sys.exit(1)
            data += piece
        if hashlib.sha256(data).hexdigest() != digest:
            say("damaged"); sys.exit(0)
        part = path + "." + str(os.getpid())
        try:
            with open(part, "wb") as f:
                f.write(data); f.flush(); os.fsync(f.fileno())
            os.replace(part, path)
        except OSError:
            try:
                os.unlink(part)
            except OSError:
                pass
            raise
        say("have")
except OSError as fault:
    say("cannot", "%s: %s" % (fault.strerror or fault, fault.filename or root)); sys.exit(0)
os.execv(sys.executable, [sys.executable, path, "agent", root])
""".strip()
# In one line: a csh takes no other. No quote of a shell's is in it but those around the text.
LOADER_LINE = f'import base64; exec(base64.b64decode("{base64.b64encode(LOADER.encode()).decode()}"))'


class LinkLostError(Exception):
    """The ssh that carried the link has ended; the text is what it said."""


class Link:
    """A link to the agent of one device. Made, it is connected.

    Attributes:
        token: tells the jobs that were started through it from others'.
        lost: how often the connection was lost and found again.
    """

    def __init__(self, target: Target, ssh: Ssh, project: Path, tell: Tell) -> None:
        self.target, self.ssh, self.project, self.tell = target, ssh, project, tell
        self.token = secrets.token_hex(8)
        self.lost = 0
        self._questions = itertools.count(1)
        self._alive_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._frames: Frames | None = None
        self._connect()

    # -- what is asked -------------------------------------------------------------------------------------------------

    def ask(
        self,
        operation: str,
        *,
        content: Path | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        progress: Callable[[str], None] | None = None,
        once: bool = False,
        **fields: Any,
    ) -> Message:
        """The agent's answer, whatever becomes of the connection meanwhile. `content` follows the request.

        `once`: it is not worth a new connection.

        Raises:
            DeviceError: the device stays out of reach, does not answer in time, or refuses.
        """
        for _ in range(_MOST_LOSSES):
            try:
                return self._asked({"op": operation, **fields}, content, timeout_s, progress)
            except LinkLostError as lost:
                if once:
                    raise DeviceError(f"{self.target.id} is out of reach", why=str(lost)) from lost
                self.reconnect(str(lost))
        raise DeviceError(
            f"the agent on {self.target.id} ends whenever it is asked to {operation}",
            hint=f"mostool doctor --device {self.target.id}",
        )

    def event(self, timeout_s: float) -> Message:
        """The next thing a followed job says.

        Raises:
            TimeoutError: it says nothing within the time.
            LinkLostError: the connection is gone; `reconnect`, and follow again from where it was.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._say_alive()
            left = deadline - time.monotonic()
            try:
                return self._receive(max(0.0, min(left, _ALIVE_S)))
            except TimeoutError:
                if left <= _ALIVE_S:
                    raise

    def _say_alive(self) -> None:
        """Let the agent know that somebody still listens: that it can write says nothing, a dead network takes much."""
        if time.monotonic() - self._alive_at < _ALIVE_S:
            return
        self._alive_at = time.monotonic()
        try:
            self._open_frames().send({"op": "alive"}, _ALIVE_S)
        except (EOFError, TimeoutError):
            raise LinkLostError(self._last_words()) from None

    def _asked(
        self, message: Message, content: Path | None, timeout_s: float, progress: Callable[[str], None] | None
    ) -> Message:
        frames, number = self._open_frames(), next(self._questions)
        try:
            frames.send({**message, "id": number}, timeout_s)
            if content is not None:
                with content.open("rb") as stream:
                    while piece := stream.read(_PIECE_BYTES):
                        frames.write(piece, timeout_s)
            deadline = time.monotonic() + timeout_s
            while (answer := self._receive(max(0.0, deadline - time.monotonic()))).get("id") != number:
                if answer.get("type") != "progress":  # of a job no longer followed: not for ever, though
                    continue
                deadline = time.monotonic() + timeout_s
                if progress is not None:
                    progress(str(answer.get("note", "")))
        except EOFError:
            raise LinkLostError(self._last_words()) from None
        except TimeoutError:
            self.close()  # a late answer must not be taken for that to another question
            raise DeviceError(
                f"{self.target.id} does not answer",
                why=f"nothing came within {timeout_s:g} s",
                hint="is it overloaded?",
            ) from None
        if answer.get("type") == "error":
            raise self._refusal(answer)
        return answer

    def _receive(self, timeout_s: float) -> Message:
        try:
            message = self._open_frames().receive(timeout_s)
            json.dumps(message, ensure_ascii=False).encode()  # half a character is text in JSON, and nowhere else
            return message
        except EOFError:
            raise LinkLostError(self._last_words()) from None
        except (ValueError, RecursionError) as fault:
            raise DeviceError(
                f"the agent on {self.target.id} sent garbage",
                why=f"{fault}"[:200],
                hint="does something on the device print into the connection?",
            ) from fault

    def _refusal(self, answer: Message) -> DeviceError:
        kind, message = str(answer.get("kind")), " ".join(str(answer.get("message")).split())[:600]
        what, hint = {
            "busy": (f"{self.target.id} is busy", "wait until the other one has finished, then run this again"),
            "disk": (f"{self.target.id} has no room", f"free some space in {self.ssh.folder} on the device"),
            "sha256": (f"a file did not reach {self.target.id} whole", "run this again"),
            "job": (f"{self.target.id} has forgotten its work", "run this again: it continues where it stopped"),
            "pip": (f"pip on {self.target.id} failed", f"mostool devices setup {self.target.id} --from host"),
        }.get(kind, (f"the agent on {self.target.id} cannot do that", "run with --debug for the place"))
        return DeviceError(what, why=message, hint=hint)

    # -- the connection ------------------------------------------------------------------------------------------------

    def reconnect(self, why: str) -> None:
        """Connect anew, again and again, for as long as the target says.

        Raises:
            DeviceError: it stays out of reach, or is refused in a way that waiting does not mend.
        """
        deadline = time.monotonic() + self.ssh.reconnect_s
        for wait_s in itertools.chain(_BACK_OFF_S, itertools.repeat(_BACK_OFF_S[-1])):
            self.tell(f"{self.target.id}: the connection was lost ({why}), trying again")
            time.sleep(wait_s)
            try:
                self._connect()
            except DeviceError as error:
                if time.monotonic() > deadline or "host key" in error.what:
                    raise
                why = error.why
            else:
                self.lost += 1
                return

    def _connect(self) -> None:
        self.close()
        remote = [self.ssh.python, "-c", LOADER_LINE, self.ssh.folder, packed_sha256(), str(len(packed()))]
        arguments = system_ssh.command(self.target, self.ssh, self.project, remote)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        LOG.info("connects: %s", shlex.join(arguments))
        try:
            # A session of its own: a Ctrl-C in the terminal is for mostool, which then ends what it started, and no
            # ssh to a jump host asks there.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env=system_ssh.environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            self._stderr.close()
            raise DeviceError("there is no ssh here", hint="install the OpenSSH client") from None
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - both are pipes
        os.set_blocking(self._process.stdin.fileno(), False)
        self._frames = Frames(self._process.stdout.fileno(), self._process.stdin.fileno())
        try:
            self._boot(self._frames)
        except BaseException:
            self.close()
            raise

    def _boot(self, frames: Frames) -> None:
        """Make the device's python the agent, sending the agent first where the device lacks it."""
        try:
            answer = self._loader_says(frames)
            if answer[:1] == ["want"]:
                frames.write_raw(packed(), BOOT_TIMEOUT_S)
                answer = self._loader_says(frames)
            if answer[:1] != ["have"]:
                raise self._cannot_start(answer)
            hello = frames.receive(BOOT_TIMEOUT_S)
        except EOFError:
            raise self._complaint() from None
        except TimeoutError:
            raise DeviceError(
                f"{self.target.id} does not answer",
                why=f"no agent within {BOOT_TIMEOUT_S:g} s",
                hint=f"try by hand: ssh {self.ssh.host} {self.ssh.python} --version",
            ) from None
        except (ValueError, RecursionError) as fault:
            raise DeviceError(f"the agent on {self.target.id} sent garbage", why=str(fault)[:200]) from fault
        if hello.get("type") != "hello" or hello.get("protocol") != AGENT_PROTOCOL:
            raise DeviceError(f"the agent on {self.target.id} sent garbage", why=f"{hello!r:.200}")

    def _loader_says(self, frames: Frames) -> list[str]:
        """The loader's next words. Whatever a shell's start-up files print before them is passed over."""
        for _ in range(_LONGEST_BANNER):
            line = frames.read_line(BOOT_TIMEOUT_S)
            if line.startswith(b"mostool-agent "):
                return line.decode("utf-8", "replace").split()[1:]
        raise ValueError(f"more than {_LONGEST_BANNER} lines before the agent's first")

    def _cannot_start(self, answer: list[str]) -> DeviceError:
        why = " ".join(answer)
        if answer[:1] == ["python"]:
            return DeviceError(
                f"the Python on {self.target.id} is too old",
                why=f"{self.ssh.python} there is {answer[1]}, 3.9 is the oldest that will do",
                hint="install a newer system or Python, and name it in connection.python of the target's file",
            )
        if answer[:1] == ["cannot"]:
            full = "No space left" in why
            hint = "free some space there" if full else "is connection.folder one that you may write?"
            return DeviceError(
                f"{self.target.id} {'has no room' if full else 'cannot keep the agent'}", why=why[7:], hint=hint
            )
        return DeviceError(f"the agent did not reach {self.target.id} whole", why=why, hint="run this again")

    def _complaint(self) -> DeviceError:
        said, status = self._said()
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        program = self.ssh.python.rpartition("/")[2]
        if status == 127 or "not found" in said and program in said:  # noqa: RUF021 - a shell's word
            return DeviceError(
                f"{self.target.id} has no {self.ssh.python}",
                why=last[:200],
                hint="install python3 there, or name it in connection.python of the target's file",
            )
        if status is None or status == 255 or status < 0:
            return system_ssh.complaint(self.target, self.ssh, self.project, said)
        return DeviceError(
            f"the agent does not start on {self.target.id}",
            why=f"status {status}: {last[:300]}",
            hint=f"mostool doctor --device {self.target.id}",
        )

    def _last_words(self) -> str:
        said, status = self._said()
        lines = said.strip().splitlines()
        return lines[-1][:200] if lines else f"ssh ended with status {status}"

    def _said(self) -> tuple[str, int | None]:
        """What ssh, which has closed its end, printed; and its status."""
        if self._process is None:
            return "", None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._stderr.seek(0)
        return self._stderr.read(1 << 16).decode("utf-8", "replace"), self._process.returncode

    def _open_frames(self) -> Frames:
        if self._frames is None:
            raise LinkLostError("it is closed")
        return self._frames

    def close(self) -> None:
        """Leave the device; jobs that were started there go on."""
        process, self._process, self._frames = self._process, None, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._stderr.close()

    @property
    def connected(self) -> bool:
        return self._frames is not None
