"""The agent: what a host talks to on a device, through the stdin and stdout of one ssh. Standard library only.

It keeps files by their content, starts jobs and tells what they say, looks at the machine, installs a runtime. It never
imports an engine: that is a worker's business, in a process that may die.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from typing import Any

from . import install, probe
from .frames import Frames
from .jobs import PIECE_BYTES, Job, jobs, starting
from .store import Store, StoreError, free_bytes

AGENT_PROTOCOL = 1
POLL_S = 0.05
_LEAST_FREE_BYTES = 8 << 20

Message = dict[str, Any]


class Agent:
    """Answers one host. Each request has one answer; a job that is followed speaks until it ends or the host does."""

    def __init__(self, root: str, frames: Frames) -> None:
        self.root, self.frames = root, frames
        self.store = Store(root)
        self.followed: Job | None = None
        self.offset = 0
        self.behind = False
        """Whether the followed job has said more than one frame took."""

    def serve(self) -> None:
        self.frames.send(
            {
                "type": "hello",
                "protocol": AGENT_PROTOCOL,
                "python": platform.python_version(),
                "machine": platform.machine(),
            }
        )
        while True:
            if self.followed is not None and not self.frames.ready(0.0 if self.behind else POLL_S):
                self._tell(self.followed)
                continue
            request = self.frames.receive()
            if request.get("op") == "alive":
                self._renew()
                continue
            self.followed = None
            answer = self._answered(request)
            self.frames.send({**answer, "id": request["id"]} if "id" in request else answer)

    def _answered(self, request: Message) -> Message:
        """The answer, whatever happens: a host whose question ends the agent would ask it again, and again."""
        try:
            return self._answer(request)
        except EOFError:
            raise
        except StoreError as fault:
            return {"type": "error", "kind": fault.kind, "message": str(fault)}
        except OSError as fault:
            kind = "disk" if free_bytes(self.root) < _LEAST_FREE_BYTES else "system"
            return {"type": "error", "kind": kind, "message": fault.strerror or str(fault)}
        except (KeyError, TypeError, ValueError) as fault:
            return {"type": "error", "kind": "request", "message": f"{fault!r}"[:500]}
        except Exception as fault:
            return {"type": "error", "kind": "bug", "message": f"{fault!r}"[:500]}

    def _renew(self) -> None:
        """The host that follows a job has just said that it is there."""
        if self.followed is not None:
            with contextlib.suppress(OSError):
                self.followed.renew()

    def _answer(self, request: Message) -> Message:  # noqa: C901, PLR0911 - one arm for each operation
        operation = request["op"]
        if operation == "find":
            return {"type": "found", "path": self.store.find(request["sha256"])}
        if operation == "put":
            path = self.store.put(request["sha256"], request["size"], self.frames.read)
            return {"type": "found", "path": path}
        if operation == "drop":
            self.store.drop(request["sha256"])
            return {"type": "done"}
        if operation == "jobs":
            with starting(self.root):
                found = jobs(self.root)
            listed = [
                {"job": job.name, "label": label, "ended": job.ended() is not None, "attended": job.attended()}
                for job, label in found
            ]
            return {"type": "jobs", "jobs": listed}
        if operation == "start":
            with starting(self.root):
                return self._start(request)
        if operation == "follow":
            self.followed, self.offset = Job(self.root, request["job"]), request["offset"]
            if not self.followed.exists():
                self.followed = None
                return {"type": "error", "kind": "job", "message": f"there is no job {request['job']}"}
            self._renew()
            return {"type": "done"}
        if operation == "forget":
            job = Job(self.root, request["job"])
            if job.label().get("owner") != request["owner"] and job.attended():
                return {"type": "error", "kind": "busy", "message": "another mostool listens to it"}
            job.cancel()
            job.forget()
            return {"type": "done"}
        if operation == "probe":
            return {"type": "facts", "facts": probe.facts(self.root, request.get("modules", []))}
        if operation == "unpack":
            asked = (request["environment"], request["wheels"], request["modules"])
            return {"type": "installed", **install.unpack(self.root, *asked, self.store, self._progress)}
        if operation == "pip":
            asked = (request["environment"], request["requirements"], request["modules"])
            return {"type": "installed", **install.pip(self.root, *asked, self._progress)}
        raise ValueError(f"no operation {operation!r:.80}")

    def _progress(self, note: str) -> None:
        self.frames.send({"type": "progress", "note": note[:200]})

    def _start(self, request: Message) -> Message:
        job, owner, alone = Job(self.root, request["job"]), request["owner"], request["alone"]
        for other, label in jobs(self.root) if alone else []:
            if other.name == job.name or not label.get("alone"):
                continue
            ended = other.ended()
            if ended is not None:
                if ended["status"] is None:  # its keeper was killed: the worker may go on measuring for nobody
                    other.cancel()
                continue
            if label.get("owner") != owner and other.attended():
                since = time.time() - label.get("started", 0)
                return {
                    "type": "error",
                    "kind": "busy",
                    "message": f"another mostool has been measuring for {since:.0f} s",
                }
            other.cancel()
        if free_bytes(self.root) < _LEAST_FREE_BYTES:
            return {"type": "error", "kind": "disk", "message": f"{free_bytes(self.root) >> 10} KiB are free"}
        label = {**request["label"], "owner": owner, "alone": alone}
        job.start(request["request"], label, install.variables(self.root))
        return {"type": "done"}

    def _tell(self, job: Job) -> None:
        """Send what a job has said since; or how it ended, once all of that is sent."""
        try:
            ended = job.ended()  # asked first: what it said before it ended is then there to be read
            said = job.lines(self.offset)
        except (OSError, TypeError, ValueError) as fault:  # another host may have had it forgotten
            self.followed = None
            self.frames.send({"type": "error", "kind": "job", "message": f"nothing of {job.name} can be read: {fault}"})
            return
        if said:
            self.offset += len(said)
            self.behind = len(said) == PIECE_BYTES
            self.frames.send({"type": "said", "offset": self.offset, "text": said.decode("utf-8", "replace")})
            return
        self.behind = False
        if ended is not None:
            self.followed = None
            self.frames.send({"type": "ended", "free_bytes": free_bytes(self.root), **ended})


def main(root: str) -> int:
    """Serve the host at the other end of stdin and stdout, until it leaves."""
    os.umask(0o077)
    frames = Frames(os.dup(0), os.dup(1))
    sink = os.open(os.devnull, os.O_RDWR)
    os.dup2(sink, 0)
    os.dup2(2, 1)  # nothing but frames reaches the host's ear
    try:
        Agent(root, frames).serve()
    except EOFError:
        return 0
    except (ValueError, RecursionError) as fault:
        sys.stderr.write(f"the host sent garbage: {fault}\n")
        return 1
    return 0
