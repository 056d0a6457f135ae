"""A pretend board with a project that has begun to measure it, and programs that make it go wrong.

A program is Python that every process on the board runs before its own (`sitecustomize`): it can change what the worker
says, what onnxruntime does or what time it is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_board import FakeBoard
from made_project import (
    Called,
    Made,
    call,
    copied,
    journal_lines,
    made,
    measured_ids,
    one_thread,
    require,
    started,
)

TARGET = """\
schema = 1
id = "rpi"
title = "a pretend board"

[connection]
kind = "ssh"
host = "board"
python = "{python}"
reconnect_s = {reconnect_s}

[measure]
group = {group}
warmup_s = 0.0
calls_per_turn = 2
minimum_rounds = 5
minimum_s = {minimum_s}
maximum_s = {maximum_s}
half_width = 0.5
call_timeout_s = {call_timeout_s}
cooling_s = 1.0
cooling_poll_s = 0.05
"""
BEGUN = 2
"""Rows that the table has before anything goes wrong."""
ROWS = 6
_SYSTEM = {
    "boot": "proc/sys/kernel/random/boot_id",
    "driver": "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
    "governor": "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "clock": "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "highest": "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
}
PROFILE = ("profile", "--device", "rpi", "--n", str(ROWS))

SAYS = """\
import json, sys
if sys.orig_argv[-1:] == ["worker"]:
    plain, said = json.dumps, []
    def dumps(message, **how):
        line = plain(message, **how)
        said.append(message["type"])
        return changed(line) if message["type"] == "timed" and said.count("timed") == 2 else line
    def changed(line):
        return {changed}
    json.dumps = dumps
"""
"""The second latency that a worker tells is not what was meant."""
RUNTIME = """\
import os, signal, sys
sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
del sys.modules["onnxruntime"]
{before}
import onnxruntime
worker, calls, seen = os.getpid(), [], __file__ + ".seen"
def second(path):
    names = open(seen).read().split() if os.path.exists(seen) else []
    if path not in names:
        names.append(path)
        open(seen, "w").write(" ".join(names))
    return names.index(path) == 1
def dies(number):
    os.kill(os.getpid(), number)
class InferenceSession(onnxruntime.InferenceSession):
    def __init__(self, path, *given, **named):
        self.second = second(path)
        self.content = open(path, "rb").read()
        {loading}
        super().__init__(self.content, *given, **named)
    def run(self, *given):
        calls.append(self)
        found = super().run(*given)
        {running}
        return found
onnxruntime.InferenceSession = InferenceSession
"""
"""The board's onnxruntime with something done before it is imported, while it loads a model, or when it has run one.
The `second` model that is ever loaded is a subnet: those are tried before the reference is loaded."""


class Boarded(NamedTuple):
    """A project on a host, the board beside it, and the board's latency table."""

    project: Path
    board: FakeBoard
    table: Path

    def aim(
        self,
        *,
        python: str | Path = sys.executable,
        reconnect_s: float = 30.0,
        group: int = 4,
        call_timeout_s: float = 60.0,
        minimum_s: float = 0.0,
    ) -> None:
        """Say in the target's file how the board is reached and measured."""
        fields = {"python": python, "reconnect_s": reconnect_s, "group": group, "call_timeout_s": call_timeout_s}
        text = TARGET.format(**fields, minimum_s=minimum_s, maximum_s=max(0.05, 2 * minimum_s))
        (self.project / "targets" / "rpi.toml").write_text(text)

    def program(self, text: str) -> None:
        """Let every process on the board run this first; nothing where it is empty."""
        folder = self.board.folder.parent / "programs"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(text)
        self.board.set(variables={**self.board.state["variables"], "PYTHONPATH": str(folder)})

    def runtime(self, *, before: str = "", loading: str = "pass", running: str = "pass") -> None:
        """Let the board's onnxruntime be another (RUNTIME)."""
        self.program("")
        package = self.board.folder.parent / "programs" / "onnxruntime"
        package.mkdir()
        (package / "__init__.py").write_text(RUNTIME.format(before=before, loading=loading, running=running))

    def heal(self) -> None:
        """No program runs before the board's own any more."""
        shutil.rmtree(self.board.folder.parent / "programs", ignore_errors=True)

    def system(self, **files: str) -> None:
        """Let the board say of itself what these files under /proc and /sys say, and else what this machine says."""
        root = self.board.folder.parent / "root"
        if not root.exists():
            (root / "proc").mkdir(parents=True)
            for name in ("cpuinfo", "meminfo", "self"):
                (root / "proc" / name).symlink_to(f"/proc/{name}")
            self.board.set(variables={**self.board.state["variables"], "MOSTOOL_SYSROOT": str(root)})
        for name, text in files.items():
            path = root / _SYSTEM[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def firmware(self, bits: int) -> None:
        """Let the board's vcgencmd tell these bits of throttling."""
        part = self.board.folder.parent / "throttled.part"
        part.write_text(f"throttled={bits:#x}\n")
        part.replace(part.with_suffix(""))
        program = self.board.bin / "vcgencmd"
        if not program.exists():
            program.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && cat "{part.with_suffix("")}"\n')
            program.chmod(0o755)

    def processes(self) -> list[int]:
        """All that runs on the board: what carries connections, then the keepers of jobs, then their workers."""
        found = list(self.board.connections)
        for name in ("label.json", "worker"):
            for job in self.board.jobs():
                with contextlib.suppress(OSError, ValueError):
                    told = json.loads((job / name).read_text())
                    found.append(told["keeper"] if name == "label.json" else told)
        return found

    def signal(self, number: signal.Signals, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def lines(self) -> list[str]:
        return journal_lines(self.table) if self.table.is_dir() else []

    def profile(self, *more: str) -> Called:
        return call(self.project, *PROFILE, *more)

    @contextlib.contextmanager
    def profiling(self) -> Iterator[subprocess.Popen[bytes]]:
        """A profiling at work, once its worker is in the middle of its rounds."""
        with started(self.project, *PROFILE, "--json") as process:
            self.await_said(b'"step":"rounds"', process)
            yield process

    def await_said(self, words: bytes, process: subprocess.Popen[bytes] | None = None, limit_s: float = 60.0) -> None:
        """Until a worker has said that."""
        end = time.monotonic() + limit_s
        while not any(words in said.read_bytes() for said in self.said()):
            assert process is None or process.poll() is None, process.communicate()
            assert time.monotonic() < end, f"nobody said {words!r}"
            time.sleep(0.01)

    def said(self) -> list[Path]:
        return [path for job in self.board.jobs() if (path := job / "out.jsonl").exists()]

    def keeps(self, before: list[str]) -> list[str]:
        """That every row acknowledged is there, each once, and nothing half written; the rows."""
        found = self.lines()
        assert found[: len(before)] == before
        assert len(set(measured_ids(self.table))) == len(found)
        assert not [path for path in self.project.rglob("*") if ".part" in path.name]
        return found

    def mends(self, before: list[str]) -> None:
        """That the same command goes on where it stopped: what was measured is measured no more."""
        had = self.keeps(before)
        done = require(self.profile("--json")).data
        assert (done["measured_now"], done["timed"]) == (ROWS - len(had), ROWS)
        self.keeps(had)
        assert self.profile("--json").data["measured_now"] == 0


def ended(process: subprocess.Popen[bytes]) -> Called:
    out, err = process.communicate(timeout=120)
    return Called(process.returncode, out.decode(), err.decode())


@contextlib.contextmanager
def _on_path(board: FakeBoard) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{board.bin}{os.pathsep}{os.environ['PATH']}")
        yield
        board.end_everything()


@functools.cache
def _begun(base: Path, made: Path) -> Path:
    """The made project with a board whose table has its first rows. Look, do not touch."""
    root = copied(made, base / "boarded")
    board = FakeBoard(base / "first-board")
    board.know(root)
    begun = Boarded(root, board, root / "profiles" / "rpi")
    begun.aim()
    with _on_path(board):
        require(call(root, *PROFILE[:-1], str(BEGUN)))
    return root


@pytest.fixture
def boarded(made: Made, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boarded]:
    """A project of one's own whose board has been measured a little; `ssh` on PATH reaches it."""
    root = copied(_begun(tmp_path_factory.getbasetemp(), made.root), tmp_path / "project")
    board = FakeBoard(tmp_path / "board")
    (table,) = (root / "profiles" / "rpi").iterdir()
    with _on_path(board):
        yield Boarded(root, board, table)


__all__ = ["boarded", "made", "one_thread"]
