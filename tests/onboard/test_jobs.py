"""Jobs with real keepers: workers that outlive whoever started them, once each, and end with a word of how."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolchain.onboard import jobs as module
from toolchain.onboard.jobs import Job, jobs, starting

from .test_store import fill, tiny_disk

__all__ = ["tiny_disk"]

NAME = "0123456789abcdef"
SAY_PID = "import os; print(os.getpid(), flush=True)\n"
FOR_EVER = SAY_PID + "import time; time.sleep(1000)"
PROGRAM = """
import json, os, sys
if sys.argv[1] == "worker":
    exec(json.loads(sys.stdin.readline()))
else:
    from toolchain.onboard import jobs
    jobs.LEASE_S, jobs.WATCH_S = float(os.environ.get("LEASE_S", "900")), 0.02
    sys.executable = os.environ.get("WORKERS_PYTHON", sys.executable)
    sys.exit(jobs.keep(sys.argv[2]))
"""
HALF_STARTED = """
import os, signal, sys
from toolchain.onboard import jobs
root, program, name, request, before, after = sys.argv[1:]
jobs.program = lambda: [sys.executable, program]
plain = jobs._write
def write(path, text):
    if os.path.basename(path) == before:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, text)
    if os.path.basename(path) == after:
        os.kill(os.getpid(), signal.SIGKILL)
jobs._write = write
with jobs.starting(root):
    jobs.Job(root, name).start(request, {}, {})
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started as keepers and workers; a worker does what its request says, in Python."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(module, "program", lambda: [sys.executable, str(path)])
    return path


@pytest.fixture
def root(tmp_path: Path, program: Path) -> Iterator[str]:
    """An agent's folder. Whatever is at work there in the end is ended."""
    folder = tmp_path / "root"
    folder.mkdir()
    yield str(folder)
    leave_nothing(folder)


def leave_nothing(folder: Path) -> None:
    for path in (folder / "jobs").glob("*"):
        for pid in [*keepers(path), *workers(path)]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def await_that(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def start(root: str, source: str, name: str = NAME, **variables: str) -> Job:
    job = Job(root, name)
    with starting(root):
        job.start(json.dumps(source), {"key": "k"}, variables)
    return job


def ending(job: Job) -> dict[str, Any]:
    await_that(lambda: job.ended() is not None)
    ended = job.ended()
    assert ended is not None
    return ended


def said(job: Job) -> list[str]:
    return job.lines(0).decode().split("\n")[:-1]


def processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def keepers(folder: Path | str) -> list[int]:
    """The processes that have the job's folder on their command line: another test run has jobs of the same name."""
    found = []
    for path in processes():
        with contextlib.suppress(OSError):
            if f"\0{folder}\0".encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def workers(folder: Path | str) -> list[int]:
    """The processes that are at work in the folder."""
    found = []
    for path in processes():
        with contextlib.suppress(OSError):
            if (path / "cwd").samefile(folder):
                found.append(int(path.name))
    return found


def at_work(job: Job) -> int:
    """The worker of a job, once it has said so."""
    await_that(lambda: job.lines(0).endswith(b"\n"))
    return int(said(job)[0])


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


# -- from its start to its end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "status", "stderr"),
    [
        ("pass", 0, ""),
        ("import sys; sys.exit('bad')", 1, "bad\n"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import os; os.write(2, b'x' * 5000 + b'\\xff!'); os.kill(os.getpid(), 11)", -11, "x" * 1998 + "\ufffd!"),
    ],
)
def test_how_it_ended_is_told(root: str, source: str, status: int, stderr: str) -> None:
    job = start(root, "print('before', flush=True)\n" + source)
    assert ending(job) == {"status": status, "stderr": stderr}
    assert said(job) == ["before"]


def test_a_worker_is_alone_in_its_folder_and_session_with_the_variables_it_was_given(root: str) -> None:
    source = "import os; print(os.getcwd(), os.getsid(0) == os.getpid(), os.environ['RUNTIME'], os.getppid())"
    job = start(root, source, RUNTIME="there")
    ending(job)
    folder, alone, variable, parent = said(job)[0].split()
    assert (folder, alone, variable) == (os.path.realpath(job.folder), "True", "there")
    assert int(parent) == job.label()["keeper"]
    assert (job.label()["key"], job.exists()) == ("k", True)


def test_a_keeper_survives_the_hang_up_of_its_connection(root: str) -> None:
    job = start(root, FOR_EVER)
    at_work(job)
    os.kill(job.label()["keeper"], signal.SIGHUP)
    os.killpg(at_work(job), signal.SIGTERM)
    assert ending(job)["status"] == -signal.SIGTERM


def test_what_was_said_is_read_from_any_offset(root: str) -> None:
    job = start(root, "print('abc'); print('defg')")
    ending(job)
    assert [job.lines(offset) for offset in (0, 2, 9, 100)] == [b"abc\ndefg\n", b"c\ndefg\n", b"", b""]
    assert job.lines(1, most=3) == b"bc\n"


def test_no_zombie_is_left(root: str) -> None:
    job = start(root, "pass")
    ending(job)
    await_that(lambda: not Path(f"/proc/{job.label()['keeper']}").exists())


@pytest.mark.parametrize("name", ["", "0123456", "0123456g", "ABCDEF01", "../../01234567", "01234567\n", "0" * 65])
def test_a_name_leads_nowhere_else(root: str, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a job"):
        Job(root, name)


# -- once, and not twice -----------------------------------------------------------------------------------------------


def test_started_twice_it_works_once(root: str) -> None:
    job = start(root, SAY_PID)
    start(root, SAY_PID)
    ending(job)
    start(root, SAY_PID)
    await_that(lambda: not keepers(job.folder))
    assert len(said(job)) == 1


def test_agents_that_start_it_at_the_same_time_start_it_once(root: str, program: Path) -> None:
    """A host whose connection broke asks again, while the agent that heard it first is still about it."""
    script = [sys.executable, "-c", HALF_STARTED, root, str(program), NAME, json.dumps(FOR_EVER), "-", "-"]
    agents = [subprocess.Popen(script) for _ in range(4)]
    assert [agent.wait() for agent in agents] == [0, 0, 0, 0]
    job = Job(root, NAME)
    worker = at_work(job)
    assert workers(job.folder) == [worker]
    assert keepers(job.folder) == [job.label()["keeper"]]


@pytest.mark.parametrize("before", ["request.json", "out.jsonl", "lease", "label.json"])
def test_an_agent_killed_in_the_middle_of_a_start_leaves_nothing_that_works(
    root: str, program: Path, before: str
) -> None:
    script = [sys.executable, "-c", HALF_STARTED, root, str(program), NAME, json.dumps(FOR_EVER), before, "-"]
    killed = subprocess.run(script, check=False)
    assert killed.returncode == -signal.SIGKILL
    job = Job(root, NAME)
    assert not job.exists()
    start(root, FOR_EVER)
    worker = at_work(job)
    await_that(lambda: keepers(job.folder) == [job.label()["keeper"]])
    assert workers(job.folder) == [worker]
    assert said(job) == [str(worker)]


def test_an_agent_killed_once_there_is_a_label_leaves_a_job_that_has_vanished(root: str, program: Path) -> None:
    script = [sys.executable, "-c", HALF_STARTED, root, str(program), NAME, json.dumps(FOR_EVER), "-", "label.json"]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    job = start(root, FOR_EVER)
    assert ending(job)["status"] is None
    assert (said(job), workers(job.folder)) == ([], [])


def test_what_is_left_of_a_job_whose_label_was_lost_is_none_of_the_next_ones(root: str) -> None:
    job = start(root, "print('old'); 1 / 0")
    ending(job)
    Path(job.file("label.json")).unlink()
    start(root, "print('new')")
    assert ending(job) == {"status": 0, "stderr": ""}
    assert said(job) == ["new"]


def test_while_one_agent_starts_something_the_others_wait(root: str) -> None:
    with Path(root, "jobs.lock").open("ab") as other:
        with starting(root), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- what cannot be started --------------------------------------------------------------------------------------------


def test_without_a_keeper_nothing_is_left(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "program", lambda: ["/nowhere/python"])
        with pytest.raises(FileNotFoundError):
            start(root, "pass")
    assert list(Path(root, "jobs").iterdir()) == []
    assert ending(start(root, "pass"))["status"] == 0


@pytest.mark.parametrize("name", ["request.json", "out.jsonl", "lease", "label.json"])
def test_a_disk_that_is_full_by_then_leaves_nothing(root: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plain = module._write

    def write(path: str, text: str) -> None:
        if Path(path).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", write)
        with pytest.raises(OSError, match="No space left"):
            start(root, FOR_EVER)
    assert list(Path(root, "jobs").iterdir()) == []
    assert keepers(Job(root, NAME).folder) == []
    assert ending(start(root, "pass"))["status"] == 0


def test_a_disk_that_is_really_full_leaves_nothing_either(tiny_disk: Path, program: Path) -> None:
    filler = tiny_disk / "filler"
    fill(filler)
    with pytest.raises(OSError, match="No space left"):
        start(str(tiny_disk), FOR_EVER)
    assert list((tiny_disk / "jobs").iterdir()) == []
    filler.unlink()
    assert ending(start(str(tiny_disk), "pass"))["status"] == 0


def test_a_full_disk_does_not_keep_a_host_from_being_heard(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start(root, "pass")
    os.utime(job.file("lease"), (0, 0))
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("there is no room"))
    job.renew()
    assert job.unattended_s() < 100


def test_a_worker_that_cannot_be_started_is_explained(root: str) -> None:
    ended = ending(start(root, "pass", WORKERS_PYTHON="/nowhere/python"))
    assert ended["status"] == 1
    assert "the worker cannot be started: " in ended["stderr"]
    assert "/nowhere/python" in ended["stderr"]


def test_a_worker_that_could_not_be_ended_is_not_started(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full just when its number should be written down."""
    job = start(root, "pass")
    ending(job)
    Path(job.file("request.json")).write_text(json.dumps(FOR_EVER) + "\n")
    started: list[int] = []

    def write(path: str, text: str) -> None:
        started.append(int(text))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        module._start_worker(job.folder)
    assert len(started) == 1
    assert gone(started[0])


# -- ended from outside ------------------------------------------------------------------------------------------------


def test_it_can_be_ended_with_all_that_it_has_started(root: str) -> None:
    job = start(root, "import os; os.fork(); " + FOR_EVER)
    await_that(lambda: len(said(job)) == 2)
    job.cancel()
    ended = job.ended()
    assert ended is not None
    assert ended["status"] == -signal.SIGKILL
    await_that(lambda: all(gone(int(pid)) for pid in said(job)))
    job.cancel()
    assert job.ended() == ended


def test_it_can_be_ended_before_it_has_begun(root: str) -> None:
    job = start(root, FOR_EVER)
    job.cancel()
    ended = job.ended()
    assert ended is not None
    assert ended["status"] == -signal.SIGKILL
    assert workers(job.folder) == []


def test_a_stranger_that_has_its_number_by_now_is_left_alone(root: str) -> None:
    job = start(root, "pass")
    ending(job)
    with subprocess.Popen(
        [sys.executable, "-c", "print(input())"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as stranger:
        Path(job.file("worker")).write_text(str(stranger.pid))
        job.cancel()
        job.forget()
        assert stranger.communicate(b"still here\n")[0] == b"still here\n"


def test_forgotten_it_is_as_if_it_had_never_been(root: str) -> None:
    job = start(root, "pass")
    ending(job)
    job.forget()
    assert not job.exists()
    assert list(Path(root, "jobs").iterdir()) == []
    job.cancel()
    job.forget()
    assert job.ended() == {"status": None, "stderr": ""}
    assert ending(start(root, "pass"))["status"] == 0


def test_a_worker_whose_folder_is_gone_is_ended(root: str) -> None:
    job = start(root, FOR_EVER)
    worker = at_work(job)
    job.forget()
    await_that(lambda: gone(worker))


# -- lost --------------------------------------------------------------------------------------------------------------


def test_without_its_keeper_a_job_has_vanished_and_its_worker_can_still_be_ended(root: str) -> None:
    job = start(root, FOR_EVER)
    worker = at_work(job)
    os.kill(job.label()["keeper"], signal.SIGKILL)
    assert ending(job) == {"status": None, "stderr": ""}
    assert not gone(worker)
    job.cancel()
    await_that(lambda: gone(worker))


def test_a_job_from_before_a_restart_has_vanished(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(tmp_path))
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("first\n")
    job = start(root, FOR_EVER)
    at_work(job)
    assert job.ended() is None
    boot.write_text("second\n")
    assert job.ended() == {"status": None, "stderr": ""}


def test_another_process_with_the_keepers_number_is_no_keeper(root: str) -> None:
    job = start(root, FOR_EVER)
    at_work(job)
    label = job.label()
    for pid in (os.getpid(), 1, 1 << 30, "../self", None):
        Path(job.file("label.json")).write_text(json.dumps({**label, "keeper": pid}))
        assert job.ended() == {"status": None, "stderr": ""}
    Path(job.file("label.json")).write_text(json.dumps(label))
    assert job.ended() is None


def test_a_zombie_keeps_nothing(root: str) -> None:
    job = start(root, FOR_EVER)
    label = job.label()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        own = {"keeper": other.pid, "born": module._born(other.pid)}
        Path(job.file("label.json")).write_text(json.dumps({**label, **own}))
        assert job.ended() is None
        other.kill()
        await_that(lambda: gone(other.pid))
        assert other.returncode is None
        assert job.ended() == {"status": None, "stderr": ""}


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "7"])
def test_what_a_power_cut_has_damaged_is_not_taken_for_an_answer(root: str, damage: str) -> None:
    job = start(root, "pass")
    ending(job)
    Path(job.file("status.json")).write_text(damage)
    assert ending(job) == {"status": None, "stderr": ""}
    Path(job.file("worker")).write_text(damage)
    job.cancel()
    Path(job.file("label.json")).write_text(damage)
    assert job.label() == {}
    assert jobs(root) == []


# -- a worker that nobody follows --------------------------------------------------------------------------------------


def test_a_worker_that_nobody_follows_is_ended(root: str) -> None:
    job = start(root, FOR_EVER, LEASE_S="0.1")
    assert ending(job)["status"] == -signal.SIGKILL


class Hours:
    """A clock on which hours pass at once, and what happens at each look of a keeper."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Callable[[float], None]) -> None:
        self.now = 0.0
        self.killed_at: float | None = None
        self.each = each
        self.pid = 77
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(os, "killpg", self.killpg)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.each(self.now)

    def killpg(self, pid: int, number: int) -> None:
        assert (pid, number) == (77, signal.SIGKILL)
        self.killed_at = self.now

    def poll(self) -> int | None:
        return 0 if self.killed_at is not None or self.now > 10 * 3600 else None


@pytest.mark.parametrize(
    ("leap_s", "followed_s", "killed_s"),
    [(0, 0, 900), (0, 1200, 2100), (10**9, 0, 900), (-(10**8), 0, 900), (10**9, 1e9, None), (0, 1e9, None)],
)
def test_the_lease_is_of_time_that_has_passed_however_the_clock_leaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leap_s: int, followed_s: float, killed_s: float | None
) -> None:
    """A board without a clock of its own learns the time once it has a network: years may go by at a blow."""
    lease = tmp_path / "lease"
    lease.touch()
    times = {"wall": 10**9, "renewed": 10**9}

    def each(now: float) -> None:
        if now <= followed_s:
            times["renewed"] = times["wall"] + int(now) + (leap_s if now > 60 else 0)
        os.utime(lease, (times["renewed"], times["renewed"]))

    hours = Hours(monkeypatch, each)
    each(0)
    module._watch(hours, str(tmp_path))  # type: ignore[arg-type]
    if killed_s is None:
        assert hours.killed_at is None
    else:
        assert hours.killed_at is not None
        assert killed_s <= hours.killed_at <= killed_s + 2 * module.WATCH_S


def test_a_lease_that_is_gone_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lease").touch()
    hours = Hours(monkeypatch, lambda now: (tmp_path / "lease").unlink(missing_ok=True) if now > 40 else None)
    module._watch(hours, str(tmp_path))  # type: ignore[arg-type]
    assert hours.killed_at == 45


def test_renewing_is_heard_even_where_the_lease_is_missing(root: str) -> None:
    job = start(root, "pass")
    ending(job)
    os.utime(job.file("lease"), (0, 0))
    assert job.unattended_s() > 1e9
    job.renew()
    assert job.unattended_s() < 100
    Path(job.file("lease")).unlink()
    assert job.unattended_s() == module.LEASE_S
    job.renew()
    assert job.unattended_s() < 100


# -- which there are ---------------------------------------------------------------------------------------------------


def made(root: str, name: str, started: float | None, unattended_s: float = 0, **label: object) -> Path:
    folder = Path(root, "jobs", name)
    folder.mkdir(parents=True)
    if started is not None:
        (folder / "label.json").write_text(json.dumps({"started": started, **label}))
    (folder / "lease").touch()
    os.utime(folder / "lease", (time.time() - unattended_s,) * 2)
    return folder


def test_jobs_are_listed_with_the_oldest_first_and_those_of_long_ago_are_removed(root: str) -> None:
    assert jobs(root) == []
    now = time.time()
    made(root, "bbbbbbbb", now - 20, key="b")
    made(root, "aaaaaaaa", now - 10, key="a")
    made(root, "cccccccc", now - 6 * 86400, 6 * 86400, key="c")
    removed = [made(root, "dddddddd", now - 8 * 86400, 7 * 86400), made(root, "eeeeeeee", None)]
    made(root, "ffffffff", now - 8 * 86400, 1, key="listened to")
    stranger = made(root, "a person's", now)
    with starting(root):
        found = jobs(root)
    assert [(job.name[:1], label["key"]) for job, label in found] == [
        ("f", "listened to"),
        ("c", "c"),
        ("b", "b"),
        ("a", "a"),
    ]
    assert not any(folder.exists() for folder in removed)
    assert stranger.exists()


def test_a_job_at_work_is_not_of_long_ago_because_the_clock_has_leapt(root: str) -> None:
    job = start(root, FOR_EVER)
    at_work(job)
    Path(job.file("label.json")).write_text(json.dumps({**job.label(), "started": 1000}))
    os.utime(job.file("lease"), (1000, 1000))
    assert [one.name for one, _ in jobs(root)] == [NAME]
    job.cancel()
    assert jobs(root) == []


# -- how it is started again -------------------------------------------------------------------------------------------


def test_a_keeper_is_what_its_agent_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "agent-0123.pyz"
    packed.touch()
    monkeypatch.setattr(sys, "argv", [str(packed), "agent", "root"])
    assert module.program() == [sys.executable, str(packed)]
    monkeypatch.setattr(sys, "argv", [str(Path(module.__file__).with_name("__main__.py")), "agent", "root"])
    assert module.program() == [sys.executable, "-m", "toolchain.onboard"]
    done = subprocess.run([*module.program(), "keep", str(tmp_path)], input=b"", check=False)
    assert done.returncode == 1
