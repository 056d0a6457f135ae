"""The agent over pipes: what it answers to each question, to several hosts, and to one that is gone."""

import errno
import hashlib
import json
import os
import platform
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from toolchain.onboard import agent as module
from toolchain.onboard import install
from toolchain.onboard.agent import AGENT_PROTOCOL, Agent
from toolchain.onboard.frames import Frames
from toolchain.onboard.jobs import ABANDONED_S, Job
from toolchain.onboard.store import StoreError, free_bytes

from .test_jobs import FOR_EVER, NAME, at_work, await_that, ending, gone, program, root, workers
from .test_store import fill, tiny_disk

__all__ = ["program", "root", "tiny_disk"]

OTHER = "fedcba9876543210"
CONTENT = b"a model" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Host:
    """A host at the other end of an agent's pipes; the agent serves it in a thread."""

    def __init__(self, root: str) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self.frames = Frames(self._in, self._out)
        self.root = root
        self.left = False
        self.fault: BaseException | None = None
        self._theirs = (theirs_in, theirs_out)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.hello = self.hear()

    def _serve(self) -> None:
        try:
            Agent(self.root, Frames(*self._theirs)).serve()
        except BaseException as fault:
            self.fault = fault
        finally:
            for descriptor in self._theirs:
                os.close(descriptor)

    def hear(self) -> dict[str, Any]:
        return self.frames.receive(timeout_s=60)

    def ask(self, operation: str, *content: bytes, **fields: object) -> dict[str, Any]:
        self.frames.send({"op": operation, **fields}, timeout_s=60)
        for piece in content:
            self.frames.write(piece, timeout_s=60)
        while (answer := self.hear())["type"] in ("said", "ended", "progress"):
            pass
        return answer

    def start(self, source: str, name: str = NAME, *, alone: bool = True, owner: str = "me", **label: object) -> Any:
        label = {"key": "k", **label}
        return self.ask("start", job=name, request=json.dumps(source), alone=alone, label=label, owner=owner)

    def follow(self, name: str = NAME, offset: int = 0) -> tuple[str, dict[str, Any]]:
        """All that a job says from an offset on, and how it ended."""
        assert self.ask("follow", job=name, offset=offset) == {"type": "done"}
        text = ""
        while (event := self.hear())["type"] == "said":
            text += event["text"]
            assert event["offset"] == offset + len(text)
        return text, event

    def leave(self) -> BaseException | None:
        """Hang up; what the agent's serving ended with."""
        if not self.left:
            self.left = True
            os.close(self._out)
            self._thread.join()
            os.close(self._in)
        return self.fault


@pytest.fixture
def hosts(root: str) -> Iterator[Callable[[], Host]]:
    """Connects a host to an agent of its own."""
    made: list[Host] = []

    def connect(folder: str = root) -> Host:
        made.append(Host(folder))
        return made[-1]

    yield connect
    for host in made:
        assert isinstance(host.leave(), EOFError), f"the agent ended with {host.fault!r}"


@pytest.fixture
def host(hosts: Callable[[], Host]) -> Host:
    return hosts()


# -- one question, one answer ------------------------------------------------------------------------------------------


def test_it_says_hello(host: Host) -> None:
    python, machine = platform.python_version(), platform.machine()
    assert host.hello == {"type": "hello", "protocol": AGENT_PROTOCOL, "python": python, "machine": machine}


def test_files_are_put_found_and_dropped(host: Host, root: str) -> None:
    path = str(Path(root, "blobs", SHA256))
    assert host.ask("find", sha256=SHA256) == {"type": "found", "path": None}
    assert host.ask("put", CONTENT[:100], CONTENT[100:], sha256=SHA256, size=len(CONTENT)) == {
        "type": "found",
        "path": path,
    }
    assert host.ask("find", sha256=SHA256) == {"type": "found", "path": path}
    assert host.ask("drop", sha256=SHA256) == {"type": "done"}
    assert host.ask("find", sha256=SHA256) == {"type": "found", "path": None}


def test_facts_about_the_machine(host: Host) -> None:
    facts = host.ask("probe", modules=["json", "nowhere"])["facts"]
    assert facts["python"] == platform.python_version()
    assert facts["disk_free_bytes"] > 0
    assert not facts["modules"]["json"]["error"]
    assert "nowhere" in facts["modules"]["nowhere"]["error"]
    assert host.ask("probe")["facts"]["modules"] == {}


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("unpack", {"wheels": [{"name": "w", "sha256": SHA256}]}), ("pip", {"requirements": ["numpy==2"]})],
)
def test_a_runtime_is_installed_and_its_progress_told(
    host: Host, root: str, monkeypatch: pytest.MonkeyPatch, operation: str, fields: dict[str, Any]
) -> None:
    given: list[Any] = []

    def installs(*arguments: Any) -> dict[str, Any]:
        given.extend(arguments)
        arguments[-1]("x" * 1000)
        return {"versions": {"numpy": "2"}}

    monkeypatch.setattr(install, operation, installs)
    host.frames.send({"op": operation, "environment": "01234567", "modules": ["numpy"], **fields})
    assert host.hear() == {"type": "progress", "note": "x" * 200}
    assert host.hear() == {"type": "installed", "versions": {"numpy": "2"}}
    assert given[:4] == [root, "01234567", *fields.values(), ["numpy"]]


def test_a_runtime_that_was_set_up_is_the_workers(host: Host, root: str) -> None:
    Path(root, "runtime-0123").mkdir()
    Path(root, "runtime").symlink_to("runtime-0123")
    host.start("import os; print(os.environ['PYTHONPATH'])")
    assert host.follow()[0].strip().split(os.pathsep)[0] == str(Path(root, "runtime"))


# -- what cannot be had ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "shell", "command": "reboot"},
        {"op": ["find"]},
        {"op": None},
        {"op": "find"},
        {"op": "find", "sha256": 7},
        {"op": "put", "sha256": SHA256},
        {"op": "start", "job": NAME},
        {"op": "start", "job": "../x", "owner": "me", "alone": True, "label": {}, "request": "pass"},
        {"op": "start", "job": NAME, "owner": "me", "alone": False, "label": [1], "request": "pass"},
        {"op": "start", "job": NAME, "owner": "me", "alone": False, "label": {}, "request": 7},
        {"op": "follow", "job": NAME},
        {"op": "forget", "job": "../../etc", "owner": "me"},
        {"op": "forget", "job": NAME},
        {"op": "forget", "job": "", "owner": "me"},
        {"op": "pip", "environment": "01234567", "requirements": ["--index-url=http://x"], "modules": []},
        {"op": "pip", "environment": "../../away", "requirements": ["numpy"], "modules": []},
        {"op": "unpack", "environment": "01234567"},
    ],
)
def test_what_is_no_request_is_told_and_the_next_is_answered(host: Host, root: str, request_: dict[str, Any]) -> None:
    host.frames.send(request_)
    answer = host.hear()
    assert (answer["type"], answer["kind"]) == ("error", "request"), answer
    assert len(answer["message"]) <= 500
    assert host.ask("jobs") == {"type": "jobs", "jobs": []}
    assert not Path(root, "jobs", NAME).exists()


def test_an_answer_has_the_number_of_its_question(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.ask("find", sha256=SHA256, id=7)["id"] == 7
    assert host.ask("find", id="x")["id"] == "x"
    assert "id" not in host.ask("find", sha256=SHA256)


def test_a_question_that_nobody_thought_of_does_not_end_the_agent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RecursionError("how?")

    monkeypatch.setattr(install, "pip", breaks)
    answer = host.ask("pip", environment="01234567", requirements=["x"], modules=[], id=1)
    assert answer == {"type": "error", "kind": "bug", "message": "RecursionError('how?')", "id": 1}
    assert host.ask("find", sha256=SHA256)["type"] == "found"


def test_an_unknown_operation_is_named(host: Host) -> None:
    assert "no operation 'xxx" in host.ask("x" * 1000)["message"]


def test_content_that_is_refused_does_not_become_questions(host: Host) -> None:
    wrong = hashlib.sha256(b"another").hexdigest()
    assert host.ask("put", CONTENT, sha256=wrong, size=len(CONTENT))["kind"] == "sha256"
    assert host.ask("put", CONTENT, sha256="no name", size=len(CONTENT))["kind"] == "sha256"
    assert host.ask("find", sha256="no name")["kind"] == "sha256"
    assert host.ask("put", CONTENT, sha256=SHA256, size=len(CONTENT))["type"] == "found"


@pytest.mark.parametrize(
    ("free", "kind", "number"),
    [(1 << 30, "system", errno.EROFS), (1000, "disk", errno.EIO), (1 << 30, "disk", errno.ENOSPC)],
)
def test_a_fault_of_the_system_is_told_by_its_kind(
    host: Host, monkeypatch: pytest.MonkeyPatch, free: int, kind: str, number: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr(module, "free_bytes", lambda _: free)
    answer = host.ask("put", CONTENT, sha256=SHA256, size=len(CONTENT))
    assert answer == {"type": "error", "kind": kind, "message": os.strerror(number)}
    monkeypatch.undo()
    assert host.ask("put", CONTENT, sha256=SHA256, size=len(CONTENT))["type"] == "found"


def test_what_an_installer_refuses_is_told_by_its_kind(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise StoreError("pip", "no such package")

    monkeypatch.setattr(install, "pip", refuses)
    answer = host.ask("pip", environment="01234567", requirements=["x"], modules=[])
    assert answer == {"type": "error", "kind": "pip", "message": "no such package"}


def test_nothing_is_started_where_there_is_no_room(host: Host, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: (8 << 20) - 1)
    assert host.start("pass") == {"type": "error", "kind": "disk", "message": "8191 KiB are free"}
    assert host.ask("jobs")["jobs"] == []
    monkeypatch.undo()
    assert host.start("pass") == {"type": "done"}


def test_a_disk_that_is_really_full(tiny_disk: Path, program: Path, hosts: Callable[..., Host]) -> None:
    host = hosts(str(tiny_disk))
    fill(tiny_disk / "filler")
    assert free_bytes(str(tiny_disk)) == 0
    assert host.ask("put", CONTENT, sha256=SHA256, size=len(CONTENT))["kind"] == "disk"
    assert host.start("pass")["kind"] == "disk"
    (tiny_disk / "filler").unlink()
    assert host.start("import time; time.sleep(0.5); print('done')") == {"type": "done"}
    assert host.ask("follow", job=NAME, offset=0) == {"type": "done"}
    fill(tiny_disk / "filler")
    while (event := host.hear())["type"] == "said":
        pass
    assert event["type"] == "ended"
    assert event["free_bytes"] == 0, "so that the host knows why it ended so"


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_job_is_started_followed_listed_and_forgotten(host: Host, root: str) -> None:
    assert host.start("import sys; print('one'); print('two'); sys.exit('bad')", models=["a"]) == {"type": "done"}
    text, ended = host.follow()
    assert text == "one\ntwo\n"
    assert ended.pop("free_bytes") > 0
    assert ended == {"type": "ended", "status": 1, "stderr": "bad\n"}
    (listed,) = host.ask("jobs")["jobs"]
    assert (listed["job"], listed["ended"], listed["attended"]) == (NAME, True, False)
    assert {"key": "k", "models": ["a"], "owner": "me", "alone": True}.items() <= listed["label"].items()
    for _ in range(2):
        assert host.ask("forget", job=NAME, owner="me") == {"type": "done"}
        assert host.ask("jobs")["jobs"] == []


def test_a_job_is_listed_while_it_is_at_work_and_ended_when_it_is_forgotten(host: Host, root: str) -> None:
    host.start(FOR_EVER)
    job = Job(root, NAME)
    worker = at_work(job)
    assert [(one["ended"], one["attended"]) for one in host.ask("jobs")["jobs"]] == [(False, True)]
    os.utime(job.file("lease"), (0, 0))
    assert [(one["ended"], one["attended"]) for one in host.ask("jobs")["jobs"]] == [(False, False)]
    assert host.ask("forget", job=NAME, owner="me") == {"type": "done"}
    assert gone(worker)
    assert not Path(job.folder).exists()


@pytest.mark.parametrize("offset", [0, 1, 4, 5, 100_000, 199_999, 200_000])
def test_what_was_said_is_told_from_the_offset_that_is_asked_for(host: Host, root: str, offset: int) -> None:
    said = "abc\n" * 50_000
    host.start("print('abc\\n' * 50_000, end='')")
    ending(Job(root, NAME))
    text, ended = host.follow(offset=offset)
    assert text == said[offset:]
    assert ended["status"] == 0


def test_a_question_in_between_ends_the_following_and_it_goes_on_where_it_was(host: Host, root: str) -> None:
    """What the job says meanwhile is neither lost nor told twice."""
    source = "import sys, time\nfor number in range(300): print(number, flush=True); time.sleep(0.001)"
    host.start(source)
    told, offset, ended = "", 0, False
    while not ended:
        assert host.ask("follow", job=NAME, offset=offset) == {"type": "done"}
        event = host.hear()
        ended = event["type"] == "ended"
        if not ended:
            told, offset = told + event["text"], event["offset"]
            host.frames.send({"op": "find", "sha256": SHA256})
            while (answer := host.hear())["type"] == "said":  # on its way already
                told, offset = told + answer["text"], answer["offset"]
            ended = answer["type"] == "ended"
            assert ended or answer["type"] == "found"
    assert told == "".join(f"{number}\n" for number in range(300))


def test_after_another_question_nothing_more_is_said(host: Host, root: str) -> None:
    host.start(FOR_EVER)
    host.ask("follow", job=NAME, offset=0)
    assert host.hear()["type"] == "said"
    host.ask("find", sha256=SHA256)
    with Path(Job(root, NAME).file("out.jsonl")).open("a") as stream:
        stream.write("more\n")
    assert not host.frames.ready(4 * module.POLL_S)


def test_a_job_that_is_not_there_cannot_be_followed(host: Host) -> None:
    answer = host.ask("follow", job=NAME, offset=0)
    assert answer == {"type": "error", "kind": "job", "message": f"there is no job {NAME}"}
    assert host.ask("find", sha256=SHA256)["type"] == "found"


@pytest.mark.parametrize("offset", [-1, "0", None, [1]])
def test_an_offset_that_is_none_is_told(host: Host, offset: object) -> None:
    host.start("pass")
    assert host.ask("follow", job=NAME, offset=offset) == {"type": "done"}
    answer = host.hear()
    assert (answer["type"], answer["kind"]) == ("error", "job")
    assert host.ask("find", sha256=SHA256)["type"] == "found"


def test_a_job_that_another_host_has_forgotten_is_told_to_the_one_that_follows(hosts: Callable[[], Host]) -> None:
    one, other = hosts(), hosts()
    one.start(FOR_EVER)
    one.ask("follow", job=NAME, offset=0)
    assert one.hear()["type"] == "said"
    assert other.ask("forget", job=NAME, owner="me") == {"type": "done"}
    event = one.hear()
    assert event.get("status") == -9 or event["kind"] == "job"
    assert one.ask("find", sha256=SHA256)["type"] == "found"


def test_a_job_whose_folder_is_gone_is_told_to_the_one_that_follows(host: Host, root: str) -> None:
    host.start(FOR_EVER)
    host.ask("follow", job=NAME, offset=0)
    assert host.hear()["type"] == "said"
    Job(root, NAME).forget()
    event = host.hear()
    assert (event["type"], event["kind"]) == ("error", "job")
    assert host.ask("find", sha256=SHA256)["type"] == "found"


def test_a_host_says_that_it_is_there_and_a_full_disk_does_not_matter(
    host: Host, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[str] = []

    def renew(job: Job) -> None:
        renewed.append(job.name)
        raise OSError(errno.ENOSPC, "No space left on device")

    host.start(FOR_EVER)
    monkeypatch.setattr(Job, "renew", renew)
    host.frames.send({"op": "alive"})
    assert host.ask("find", sha256=SHA256)["type"] == "found", "and it gets no answer"
    assert renewed == [], "it listens to nothing"
    host.ask("follow", job=NAME, offset=0)
    assert renewed == [NAME]
    host.frames.send({"op": "alive"})
    host.frames.send({"op": "alive"})
    host.ask("find", sha256=SHA256)
    assert renewed == [NAME] * 3
    host.frames.send({"op": "alive"})
    host.ask("find", sha256=SHA256)
    assert renewed == [NAME] * 3, "it no longer follows"


def test_who_is_alive_is_still_told_what_a_job_says(host: Host, root: str) -> None:
    host.start(FOR_EVER)
    host.ask("follow", job=NAME, offset=0)
    assert host.hear()["type"] == "said"
    host.frames.send({"op": "alive"})
    with Path(Job(root, NAME).file("out.jsonl")).open("a") as stream:
        stream.write("more\n")
    assert host.hear()["text"] == "more\n"


# -- several hosts -----------------------------------------------------------------------------------------------------


def test_a_question_is_answered_alike_when_it_is_asked_again_by_the_next_connection(
    hosts: Callable[[], Host], root: str
) -> None:
    first = hosts()
    first.start(FOR_EVER)
    worker = at_work(Job(root, NAME))
    first.leave()
    again = hosts()
    assert again.start(FOR_EVER) == {"type": "done"}
    assert workers(Job(root, NAME).folder) == [worker]
    again.ask("follow", job=NAME, offset=0)
    assert again.hear()["text"] == f"{worker}\n"


def test_a_device_that_is_measured_on_is_busy_for_others(hosts: Callable[[], Host], root: str) -> None:
    first, other = hosts(), hosts()
    first.start(FOR_EVER, owner="me")
    refused = other.start("pass", OTHER, owner="you")
    assert (refused["type"], refused["kind"]) == ("error", "busy")
    assert re.fullmatch(r"another mostool has been measuring for \d s", refused["message"])
    assert [one["job"] for one in other.ask("jobs")["jobs"]] == [NAME]
    assert other.start("pass", OTHER, alone=False, owner="you") == {"type": "done"}, "that one does not measure"
    assert Job(root, NAME).ended() is None


def test_two_that_come_at_once_do_not_both_measure(hosts: Callable[[], Host]) -> None:
    """Whether a device is busy is asked, and acted on, by one at a time."""
    asking = [hosts() for _ in range(4)]
    for number, host in enumerate(asking):
        label, name = {"key": "k"}, f"{number:08x}"
        host.frames.send(
            {"op": "start", "job": name, "request": json.dumps(FOR_EVER), "alone": True, "label": label, "owner": name}
        )
    answers = [host.hear() for host in asking]
    assert sorted(answer.get("kind", answer["type"]) for answer in answers) == ["busy", "busy", "busy", "done"]
    assert len(asking[0].ask("jobs")["jobs"]) == 1


def test_a_host_ends_what_it_started_itself_to_start_the_next(hosts: Callable[[], Host], root: str) -> None:
    first = hosts()
    first.start(FOR_EVER, owner="me")
    worker = at_work(Job(root, NAME))
    assert hosts().start("pass", OTHER, owner="me") == {"type": "done"}
    assert gone(worker)


@pytest.mark.parametrize(
    ("unattended_s", "answer"), [(0, "busy"), (ABANDONED_S - 8, "busy"), (ABANDONED_S + 1, "done")]
)
def test_what_nobody_has_followed_for_long_may_be_ended_by_another(
    host: Host, root: str, unattended_s: float, answer: str
) -> None:
    host.start(FOR_EVER, owner="me")
    job = Job(root, NAME)
    worker = at_work(job)
    os.utime(job.file("lease"), (time.time() - unattended_s,) * 2)
    answered = host.start("pass", OTHER, owner="you")
    assert answered.get("kind", answered["type"]) == answer
    assert (job.ended() is not None) == gone(worker) == (answer == "done")


def test_a_worker_without_a_keeper_does_not_disturb_the_next(host: Host, root: str) -> None:
    host.start(FOR_EVER, owner="me")
    job = Job(root, NAME)
    worker = at_work(job)
    os.kill(job.label()["keeper"], 9)
    assert ending(job)["status"] is None
    assert host.start("pass", OTHER, owner="you") == {"type": "done"}
    await_that(lambda: gone(worker))


@pytest.mark.parametrize(
    ("owner", "unattended_s", "answer"),
    [("you", 0, "busy"), ("me", 0, "done"), ("you", ABANDONED_S + 1, "done"), (None, 0, "busy")],
)
def test_what_another_listens_to_is_not_forgotten(
    host: Host, root: str, owner: str | None, unattended_s: float, answer: str
) -> None:
    host.start(FOR_EVER, owner="me")
    job = Job(root, NAME)
    worker = at_work(job)
    os.utime(job.file("lease"), (time.time() - unattended_s,) * 2)
    answered = host.ask("forget", job=NAME, owner=owner)
    assert answered.get("kind", answered["type"]) == answer
    assert gone(worker) == (not job.exists()) == (answer == "done")


def test_what_has_ended_may_be_forgotten_by_all(host: Host, root: str) -> None:
    host.start("pass", owner="me")
    ending(Job(root, NAME))
    assert host.ask("forget", job=NAME, owner="you") == {"type": "done"}
    assert not Job(root, NAME).exists()


def test_what_does_not_measure_disturbs_nobody_and_is_not_ended(host: Host, root: str) -> None:
    host.start(FOR_EVER, alone=False, owner="me")
    at_work(Job(root, NAME))
    assert host.start("pass", OTHER, owner="you") == {"type": "done"}
    assert Job(root, NAME).ended() is None


# -- as a process ------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(root: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "toolchain.onboard", "agent", root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process
        process.kill()


def frames_of(process: subprocess.Popen[bytes]) -> Frames:
    assert process.stdin is not None
    assert process.stdout is not None
    return Frames(process.stdout.fileno(), process.stdin.fileno())


@pytest.mark.parametrize("begun", [b"", b"\0", struct.pack("!I", 100) + b'{"op":'])
def test_a_host_that_leaves_leaves_no_agent(agent: subprocess.Popen[bytes], begun: bytes) -> None:
    frames = frames_of(agent)
    assert frames.receive(60)["type"] == "hello"
    said = agent.communicate(begun, timeout=60)
    assert (agent.returncode, *said) == (0, b"", b"")


def test_a_host_that_leaves_in_mid_file_or_does_not_listen_leaves_no_agent(
    agent: subprocess.Popen[bytes], root: str
) -> None:
    frames = frames_of(agent)
    frames.receive(60)
    frames.send({"op": "put", "sha256": SHA256, "size": len(CONTENT)})
    frames.write(CONTENT[:10])
    assert agent.stdout is not None
    agent.stdout.close()
    assert agent.stdin is not None
    agent.stdin.close()
    assert agent.wait(60) == 0
    assert list(Path(root, "blobs").iterdir()) == []


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", struct.pack("!I", 2) + b"[]", struct.pack("!I", 100_000) + b"[" * 100_000]
)
def test_a_host_that_sends_garbage_is_left(agent: subprocess.Popen[bytes], garbage: bytes) -> None:
    frames = frames_of(agent)
    frames.receive(60)
    with suppress(EOFError):
        frames.write_raw(garbage)
    assert agent.wait(60) == 1
    assert agent.stderr is not None
    assert agent.stderr.read().startswith(b"the host sent garbage: ")


def test_a_job_outlives_the_agent_that_started_it(agent: subprocess.Popen[bytes], root: str) -> None:
    frames = frames_of(agent)
    frames.receive(60)
    request = json.dumps({"op": "nothing"})
    frames.send({"op": "start", "job": NAME, "request": request, "alone": True, "label": {}, "owner": "me"})
    assert frames.receive(60) == {"type": "done"}
    agent.kill()
    agent.wait()
    assert ending(Job(root, NAME))["status"] == 0
    said = [json.loads(line) for line in Job(root, NAME).lines(0).splitlines()]
    assert [one["type"] for one in said] == ["hello", "error"]
    assert Path(root, "blobs").stat().st_mode & 0o077 == 0
    assert Path(Job(root, NAME).file("out.jsonl")).stat().st_mode & 0o077 == 0
