"""Several processes, started as a user starts them: the same result, one voice, and the same again after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from made_project import Called, call, environment, require, sentences, wait_until, write_inputs
from safetensors.torch import load_file

from toolchain.errors import DeviceError
from toolchain.files import locked

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (
    *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
)
"""On CPUs too: `--cpu` would start one process alone, for it leaves the others to MPI."""

PAIRS_SPACE = """\
name = "made"
family = "translation"
fixed = { width = 16, attention = 16 }
axes = [
  { name = "encoder_embedding", choices = [8, 16] },
  { name = "decoder_embedding", choices = [8, 16] },
  { name = "encoder_depth", choices = [2, 3] },
  { name = "decoder_depth", choices = [1, 2] },
  { name = "encoder_ffn", choices = [8, 24], per = "encoder_depth" },
  { name = "encoder_heads", choices = [1, 2], per = "encoder_depth" },
  { name = "decoder_ffn", choices = [8, 24], per = "decoder_depth" },
  { name = "decoder_heads", choices = [1, 2], per = "decoder_depth" },
  { name = "cross_heads", choices = [1, 2], per = "decoder_depth" },
  { name = "cross_layers", choices = [1, 2], per = "decoder_depth" },
]
"""
TRAINING = (
    *("--updates", "12", "--evaluate-every", "4", "--batch-size", "16", "--sequence-length", "16", "--warmup-updates"),
    *("3", "--learning-rate", "0.003", "--accumulate", "2", "--dropout", "0.2", "--distill", "0.5"),
)
"""The sandwich and neuron-wise mixture, which are the defaults, with all that is random switched on."""
TASKS = {
    "mlm": ("--data", "text.txt", "--space", "space.toml", "--vocabulary-size", "200"),
    "classify": ("--data", "data.tsv", "--space", "space.toml", "--vocabulary-size", "200"),
    "translate": (
        *("--data", "text.en", "text.xx", "--space", "pairs.toml", "--vocabulary-size", "300"),
        *("--batch-tokens", "200"),
    ),
}

LOSSES, WEIGHTS = 1e-5, 1e-4
"""How far runs on different numbers of processes may be apart, relative: a loss, and a tensor by its norm. Measured are
5e-7 and 2e-5 after up to 60 updates; later chaos takes over, as between any two orders of summing."""

IN_TURN = """\
import json, sys
from toolchain.cli import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
sys.exit(next(filter(None, codes), 0))
"""


def training(task: str, out: str, *more: str) -> tuple[str, ...]:
    return ("train", "--task", task, *TASKS[task], *TRAINING, *more, "--out", out)


def launch(folder: Path, launcher: tuple[str, ...], *arguments: str) -> Called:
    done = subprocess.run(
        [*launcher, *arguments], cwd=folder, env=environment(folder), capture_output=True, check=False, timeout=180
    )
    return Called(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_inputs(tmp_path_factory.mktemp("processes") / "project")
    texts = [text for text, _ in sentences(300)]
    (root / "text.en").write_text("".join(f"{text}\n" for text in texts))
    (root / "text.xx").write_text("".join(f"{text[::-1]}\n" for text in texts))
    (root / "pairs.toml").write_text(PAIRS_SPACE)
    (root / "in_turn.py").write_text(IN_TURN)
    return root


class Run:
    """A finished run."""

    def __init__(self, folder: Path) -> None:
        info = json.loads((folder / "checkpoint.json").read_text())
        self.sha256: str = info["weights_sha256"]
        self.weights = load_file(folder / info["weights"])
        self.curve: list[dict[str, Any]] = json.loads((folder / "training.json").read_text())["curve"]


def compare(found: Run, expected: Run) -> None:
    assert [point["update"] for point in found.curve] == [point["update"] for point in expected.curve]
    for one, other in zip(found.curve, expected.curve, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=LOSSES)
        for name, quality in one["quality"].items():
            assert quality["loss"] == pytest.approx(other["quality"][name]["loss"], rel=LOSSES)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        if name.endswith("key.bias"):
            continue  # adds the same to every score of a row: its gradient is nothing but rounding
        assert torch.dist(found.weights[name], weight) <= WEIGHTS * weight.norm(), name


# -- the same result ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(inputs: Path) -> Called:
    """The three tasks, one after the other, in two processes; the classifier once more when it is finished."""
    turns = [training(task, f"runs/two-{task}") for task in TASKS]
    turns.append(training("classify", "runs/two-classify"))
    return launch(inputs, TORCHRUN, "in_turn.py", json.dumps(turns))


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_compute_what_one_does(inputs: Path, together: Called, task: str) -> None:
    require(together)
    require(call(inputs, *training(task, f"runs/one-{task}")))
    one, two = Run(inputs / "runs" / f"one-{task}"), Run(inputs / "runs" / f"two-{task}")
    assert one.sha256 != two.sha256, "one process ran"
    compare(two, one)


def test_one_process_speaks(together: Called) -> None:
    """No result twice, no progress twice, no warning; a finished run is found finished by both."""
    out, err = together.out.splitlines(), together.err.splitlines()
    assert [sum(line.startswith(f"runs/two-{task}: 12 updates") for line in out) for task in TASKS] == [1, 2, 1]
    assert sum(line.startswith("train: 12/12") for line in err) == 3
    assert all(line.startswith(("train: ", "preparing data: ")) for line in err), together.err


def test_accelerate_launches_it_and_tensorboard_hears_one(inputs: Path, together: Called) -> None:
    """The same two processes, however they were started: the same weights, bit by bit."""
    require(together)
    tracked = ("--track", "tensorboard")
    require(launch(inputs, ACCELERATE, "-m", "toolchain", *training("classify", "runs/accelerated", *tracked)))
    run = inputs / "runs" / "accelerated"
    assert Run(run).sha256 == Run(inputs / "runs" / "two-classify").sha256
    from tensorboard.backend.event_processing import event_accumulator  # noqa: PLC0415 - slow to import

    assert len(list((run / "tracking" / "accelerated").glob("events.*"))) == 1
    events = event_accumulator.EventAccumulator(str(run / "tracking" / "accelerated")).Reload()
    told = [(one.step, one.value) for one in events.Scalars("loss/largest")]
    assert told == [(point["update"], pytest.approx(point["losses"]["largest"])) for point in Run(run).curve]


# -- refused -----------------------------------------------------------------------------------------------------------


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def test_what_cannot_be_done_is_said_once(inputs: Path) -> None:
    """Whatever goes wrong, in all processes alike or in the first alone, ends them all with one message."""
    turns = (
        training("classify", "runs/none", "--data", "absent.tsv"),
        training("classify", "runs/none", "--track", "notebook"),
        training("classify", "runs/none", "--recipe", "single-path"),
        training("classify", "runs/used"),
        training("classify", "runs/none", "--accumulate", "3"),
    )
    with locked(inputs / "runs" / "used" / "lock"):
        done = launch(inputs, TORCHRUN, "in_turn.py", json.dumps(turns))
    assert not done.out
    said = (
        *("there is no absent.tsv", "no tracker is known as 'notebook'", "there is nobody to distill from"),
        *("runs/used is in use by another mostool", "2 processes cannot share 3 micro-batches an update evenly"),
    )
    assert errors(done.err) == [f"error: {what}" for what in said], done.err
    assert done.code == 1
    assert done.err.count("Traceback") == 1, "that of torchrun itself"
    assert not (inputs / "runs" / "none").exists()


# -- killed ------------------------------------------------------------------------------------------------------------


class Workers:
    """The processes that torchrun has started, in order; each in a group of its own."""

    def __init__(self, launcher: int) -> None:
        self._children = Path(f"/proc/{launcher}/task/{launcher}/children")
        self.ids: list[int] = []

    def find(self) -> None:
        self.ids = [int(found) for found in self._children.read_text().split()]
        assert len(self.ids) == 2

    def kill(self, *numbers: int) -> None:
        for number in numbers or range(len(self.ids)):
            with suppress(ProcessLookupError):
                os.kill(self.ids[number], signal.SIGKILL)


@contextmanager
def two_at_work(folder: Path, said: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Workers]]:
    """torchrun, and what finds its two processes; whatever is left of them at the end is killed."""
    command = [*TORCHRUN, "-m", "toolchain", *arguments]
    with (
        said.open("wb") as stream,
        subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=stream, stderr=stream) as process,
    ):
        workers = Workers(process.pid)
        try:
            yield process, workers
        finally:
            process.kill()
            workers.kill()


def wait_until_free(lock: Path, limit_s: float = 10.0) -> None:
    """Until those that were killed are gone, which is not at once."""
    end = time.monotonic() + limit_s
    while True:
        try:
            with locked(lock):
                return
        except DeviceError:
            assert time.monotonic() < end, "a lock is left held"
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
def test_processes_that_were_killed_end_with_the_same_weights(inputs: Path, tmp_path: Path) -> None:
    """All of them, one of them, and by Ctrl-C; then one process alone goes on to the end."""
    often = ("--updates", "60", "--evaluate-every", "1")
    broken = training("classify", "runs/broken", *often)
    run = inputs / "runs" / "broken"
    said = tmp_path / "said"

    def update() -> int:
        state = run / "training.json"
        return json.loads(state.read_text())["update"] if state.exists() else 0

    for wanted, how, told in (
        (1, "all", []),
        (12, "one", ["error: lost the other processes of this training"]),
        (24, "Ctrl-C", ["error: interrupted"]),
    ):
        with two_at_work(inputs, said, *broken) as (process, workers):
            wait_until(lambda wanted=wanted: update() >= wanted, process)  # type: ignore[misc]
            workers.find()
            if how == "all":
                process.kill()
                workers.kill()
            elif how == "one":
                workers.kill(1)
            else:
                process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) != 0
        assert errors(said.read_text()) == told, said.read_text()
        assert wanted <= update() < 60
        wait_until_free(run / "lock")
    assert not (run / "checkpoint.json").exists()
    require(call(inputs, *broken))
    require(call(inputs, *training("classify", "runs/whole", *often)))
    compare(Run(run), Run(inputs / "runs" / "whole"))
