"""A project as a user has it, small enough to be made in seconds: data, space, device, and runs of both tasks.

Everything goes through the command line, in this process (`call`) or in one of its own (`spawn`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from made_space import SPACE

from toolchain.cli import main

LABELS = {
    "sea": "wave harbour sail tide gull anchor island storm",
    "kitchen": "oven flour spoon butter recipe kettle onion plate",
    "forest": "oak fox moss trail owl fern river pine",
}
_SHARED = ("the", "a", "old", "small", "near", "over", "behind", "we", "saw", "found", "left", "again", "today")

DEVICE = """\
id = "quick"
title = "this machine, measured in haste"

[measure]
group = 4
warmup_s = 0.01
calls_per_turn = 2
minimum_rounds = 3
minimum_s = 0.01
maximum_s = 0.3
half_width = 0.05
"""

TRAINING = (
    *("--space", "space.toml", "--updates", "30", "--evaluate-every", "10", "--batch-size", "16"),
    *("--sequence-length", "16", "--vocabulary-size", "200", "--warmup-updates", "5", "--learning-rate", "0.005"),
)
CLASSIFY = ("train", "--data", "data.tsv", *TRAINING)
MLM = ("train", "--task", "mlm", "--data", "text.txt", *TRAINING)
PROFILE = ("profile", "--device", "quick", "--n", "10")
SEARCH = ("search", "--evaluations", "20")


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct made-up sentences with the label most of their telling words belong to."""
    rng = random.Random(seed)  # noqa: S311 - words, not secrets
    found: dict[str, str] = {}
    while len(found) < count:
        label = rng.choice(list(LABELS))
        telling = LABELS[label].split()
        words = [rng.choice(telling if rng.random() < 0.5 else _SHARED) for _ in range(rng.randint(5, 12))]
        found.setdefault(" ".join(words), label)
    return list(found.items())


def write_inputs(root: Path) -> Path:
    """What a user brings: data.tsv, text.txt, space.toml and targets/quick.toml."""
    items = sentences(300)
    (root / "targets").mkdir(parents=True)
    (root / "data.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in [("sentence", "label"), *items]))
    (root / "text.txt").write_text("\n\n".join(f"{text}." for text, _ in items) + "\n")
    (root / "space.toml").write_text(SPACE)
    (root / "targets" / "quick.toml").write_text(DEVICE)
    return root


# -- in this process -------------------------------------------------------------------------------------------------


class Called(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """Standard output, which must be one line of strict JSON."""
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line, parse_constant=_refuse_constant)
        return found

    @property
    def data(self) -> Any:
        assert self.code == 0, self
        assert self.envelope.keys() == {"schema", "ok", "data", "warnings"}
        assert self.envelope["schema"] == 1
        assert self.envelope["ok"] is True
        return self.envelope["data"]

    @property
    def error(self) -> Any:
        assert self.envelope.keys() == {"schema", "ok", "error", "warnings"}
        assert self.envelope["schema"] == 1
        assert self.envelope["ok"] is False
        error = self.envelope["error"]
        assert error.keys() == {"code", "kind", "message", "hint"}
        assert error["code"] == self.code != 0
        return error


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def call(folder: Path, *arguments: str | Path, variables: dict[str, str] | None = None) -> Called:
    """Run a command in this process as if it had been started in `folder`; leaves the process as it was."""
    out, err = io.StringIO(), io.StringIO()
    handler, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    os.environ.update({"XDG_CONFIG_HOME": str(folder / "no-settings"), **(variables or {})})
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)
        os.environ.clear()
        os.environ.update(environment)
    return Called(code, out.getvalue(), err.getvalue())


def require(called: Called, code: int = 0) -> Called:
    assert called.code == code, called
    assert "Traceback" not in called.err
    return called


def refused(called: Called, code: int, *said: str) -> Called:
    """The command failed as a user should see it: the code, one line what, at most one why, one hint, no traceback."""
    require(called, code)
    lines = called.err.splitlines()
    told = [line for line in lines if line.startswith(("error: ", "no answer: ", "why: ", "hint: "))]
    starts = [line.partition(":")[0] for line in told]
    assert starts in (["error", "hint"], ["error", "why", "hint"], ["no answer", "why", "hint"]), called.err
    assert lines[-len(told) :] == told, called.err
    assert not called.out
    for words in said:
        assert words in called.err, called.err
    return called


def read_terminal(leader: int) -> bytes:
    """All that is written to a pseudo-terminal until its other end is closed."""
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 1 << 16)
        except OSError:  # the other end is closed: that is how a terminal ends
            return shown
        if not chunk:
            return shown
        shown += chunk


# -- in a process of its own -----------------------------------------------------------------------------------------


def environment(folder: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOSTOOL_")}
    return kept | {"XDG_CONFIG_HOME": str(folder / "no-settings"), "OMP_NUM_THREADS": "1", **variables}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "toolchain", *map(str, arguments)]


def spawn(folder: Path, *arguments: str | Path, **variables: str) -> Called:
    """Run a command in a process of its own, in `folder`."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return Called(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def started(folder: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command at work; whatever is left of it at the end is killed."""
    with subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float = 60.0) -> None:
    """Until something is so, or the process has ended without it."""
    end = time.monotonic() + limit_s
    while not happened():
        if process.poll() is not None:
            assert happened(), process.communicate()
            return
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices are slower on two threads, and weights trained here and in other processes are compared bitwise."""
    torch.set_num_threads(1)


# -- made once -------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A finished project: both tasks trained, the classifier profiled, searched and exported. Look, do not touch.

    `said` holds what each command printed, by its name; those of the masked-word run begin with `mlm `.
    """

    root: Path
    classify: Path
    mlm: Path
    table: Path
    bundle: Path
    said: dict[str, Called]


@functools.cache
def _make(base: Path) -> Made:
    root = write_inputs(base / "project")
    said = {"mlm train": call(root, *MLM, "--out", "runs/words", "--json")}
    said["mlm evaluate"] = call(root, "evaluate", "--arch", "largest", "--json")
    said["train"] = call(root, *CLASSIFY)
    said["profile"] = call(root, *PROFILE)
    said["search"] = call(root, *SEARCH)
    said["export"] = call(root, "export")
    for one in said.values():
        require(one)
    (classify,) = (path for path in (root / "runs").iterdir() if path.name != "words")
    (table,) = (root / "profiles" / "quick").iterdir()
    (bundle,) = (root / "bundles").iterdir()
    return Made(root, classify, root / "runs" / "words", table, bundle, said)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The finished project, the same for every test of the session."""
    return _make(tmp_path_factory.getbasetemp())


@pytest.fixture
def project(made: Made, tmp_path: Path) -> Path:
    """A copy of the finished project, to be changed at will."""
    return copied(made.root, tmp_path / "project")


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S607 - times kept: the newest run stays so
    return target


def journal_lines(table: Path) -> list[str]:
    return (table / "journal.jsonl").read_text().splitlines()


def measured_ids(table: Path) -> list[str]:
    """The architectures of a table's journal, in order, however often each is there."""
    return [json.dumps(json.loads(line)["record"]["architecture"], sort_keys=True) for line in journal_lines(table)]


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def one_of(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.rglob(pattern))
