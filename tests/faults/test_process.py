"""mostool killed, stopped, run beside itself and without a terminal."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_project import (
    Called,
    Made,
    call,
    command,
    environment,
    journal_lines,
    made,
    measured_ids,
    one_thread,
    project,
    refused,
    require,
    started,
    wait_until,
)

from faults.forked import Forked, Nursery, nursery
from toolchain.profiling import read_table

__all__ = ["made", "one_thread", "project"]

INSTANT = """\
id = "instant"
title = "this machine, hardly measured"

[measure]
group = 2
warmup_s = 0.0
calls_per_turn = 1
minimum_rounds = 3
minimum_s = 0.0
maximum_s = 0.02
"""
PROFILE = ("profile", "--device", "instant", "--n")
KILLS, ROWS = 20, 24
RNG_SEED = 8


class Table:
    """The table that is killed over: its whole lines, which are all that was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, folder / "journal.jsonl"
        self.acknowledged: list[str] = []

    def check(self) -> None:
        """Nothing that was there is gone or there twice; a last line without its end was never acknowledged."""
        text = self.journal.read_text()
        kept = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        assert kept[: len(self.acknowledged)] == self.acknowledged
        self.acknowledged = kept
        ids = [json.dumps(json.loads(line)["record"]["architecture"], sort_keys=True) for line in kept]
        assert len(set(ids)) == len(ids)

    def size(self) -> int:
        return self.journal.stat().st_size

    def asked_for_at(self) -> int:
        """When a profiling last came to its predictor."""
        return (self.folder / "table.json").stat().st_mtime_ns

    def parts(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if ".part" in path.name]


def kill_when(process: Forked, changes: Callable[[], object], after_s: float, limit_s: float = 20.0) -> None:
    before, end = changes(), time.monotonic() + limit_s
    while changes() == before and time.monotonic() < end:
        time.sleep(0.0002)
    time.sleep(after_s)
    process.kill()


def kill_somewhere(born: Nursery, table: Table, number: int, rng: random.Random) -> str:
    """Kill a profiling: at any moment, as a row is being appended, or while its predictor is fitted; which it was."""
    if number >= KILLS * 3 // 4:
        for predictor in table.folder.glob("predictor*"):
            predictor.unlink()
        process, moment = born.start(*PROFILE, str(len(table.acknowledged))), "fit"
        kill_when(process, table.asked_for_at, rng.uniform(0, 0.03))
    else:
        process, moment = born.start(*PROFILE, str(ROWS)), rng.choice(["anywhere", "append"])
        if moment == "append":
            kill_when(process, table.size, rng.choice([0.0, 0.0, 0.002]))
        else:
            time.sleep(rng.uniform(0, 0.6))
            process.kill()
    return moment if process.wait() == -signal.SIGKILL else "too late"


@pytest.mark.fault("kill")
def test_twenty_kills_lose_nothing_and_measure_nothing_twice(project: Path) -> None:
    (project / "targets" / "instant.toml").write_text(INSTANT)
    rng = random.Random(RNG_SEED)  # noqa: S311 - moments, not secrets
    with nursery(project, *PROFILE, "8") as born:
        (folder,) = (project / "profiles" / "instant").iterdir()
        table = Table(folder)
        table.check()
        moments = []
        while len(moments) < KILLS:
            moment = kill_somewhere(born, table, len(moments), rng)
            table.check()
            if moment != "too late":
                moments.append(moment)
    assert {"fit", "append", "anywhere"} == set(moments)
    assert moments.count("fit") == KILLS // 4
    before = len(table.acknowledged)
    for part in table.parts():  # an hour later
        os.utime(part, (0, 0))
    done = call(project, *PROFILE, str(ROWS), "--json").data
    table.check()
    measured_now = len(table.acknowledged) - before
    assert (done["measured_now"], done["timed"]) == (measured_now, len(table.acknowledged))
    assert len(table.acknowledged) >= ROWS
    assert len(read_table(folder)[1]) == len(table.acknowledged)
    assert not table.parts()
    assert call(project, *PROFILE, str(ROWS), "--json").data["measured_now"] == 0
    require(call(project, "predict", "--device", "instant", "--n", "3"))


@pytest.mark.fault("lock-holder")
def test_a_lock_goes_with_its_holder(project: Path, made: Made) -> None:
    table = project / made.table.relative_to(made.root)
    before = journal_lines(table)
    profile = ("profile", "--device", "quick", "--n", "24")
    with started(project, *profile) as process:
        wait_until(lambda: len(journal_lines(table)) > len(before), process)
        refused(call(project, *profile), 4, "in use by another mostool", "wait until it has finished")
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    kept = journal_lines(table)
    more = str(len(kept) + 1)
    done = call(project, "profile", "--device", "quick", "--n", more, "--json").data
    assert journal_lines(table)[: len(before)] == before
    assert done["timed"] == len(journal_lines(table)) == len(set(measured_ids(table)))


def without_terminal(folder: Path, *arguments: str) -> Called:
    """As a service is started: no terminal to speak of, none to ask for, nothing to read."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(folder, TERM=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
        timeout=120,
    )
    return Called(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.fault("no-tty")
def test_without_a_terminal_progress_is_plain_lines(project: Path) -> None:
    told = require(without_terminal(project, "search", "--evaluations", "6", "--remeasure", "0", "--fresh"))
    assert re.search(r"^search: 6/6", told.err, re.MULTILINE), told.err
    failed = without_terminal(project, "search", "--latency", "1us", "--evaluations", "6", "--fresh")
    assert failed.code == 3
    assert [line.partition(":")[0] for line in failed.err.splitlines()[-3:]] == ["no answer", "why", "hint"]
    for said in (told, failed):
        assert not re.search(r"[\x1b\r\b]", said.out + said.err)
