"""The link to an agent, over a pretend ssh: what is sent once, what survives a break, what is said of a refusal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fake_board import KEYS, FakeBoard, board

from toolchain.devices import Device, open_device
from toolchain.devices.remote import RemoteDevice
from toolchain.errors import DeviceError, UsageError
from toolchain.files import sha256_file
from toolchain.profiling import Candidate, InputShape, measure, peak_memory_bytes, read_environment, run_model
from toolchain.records import Failed, Timed
from toolchain.targets import Measure, Ssh, Target

__all__ = ["board"]

QUICK = Measure(group=4, warmup_s=0.0, calls_per_turn=2, minimum_rounds=5, minimum_s=0.0, maximum_s=0.02)
INPUTS = {"x": InputShape(dtype="float32", shape=(4, 8), low=-1.0, high=1.0)}


@pytest.fixture
def target() -> Target:
    reach = Ssh(host="board", user="pi", python=sys.executable, reconnect_s=60.0)
    return Target(id="rpi", title="a board", connection=reach, measure=QUICK)


@pytest.fixture
def project(tmp_path: Path, board: FakeBoard) -> Path:
    board.know(tmp_path)
    return tmp_path


@pytest.fixture
def device(target: Target, project: Path) -> Iterator[Device]:
    opened = open_device(target, project)
    yield opened
    opened.close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    from profiling.models import write_mlp  # noqa: PLC0415

    for seed, name in enumerate(("reference", "a", "b", "c", "d", "e", "f")):
        write_mlp(tmp_path / f"{name}.onnx", seed)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    return tmp_path


def named(models: Path, names: str) -> list[Candidate]:
    return [Candidate(name, models / f"{name}.onnx") for name in names.split()]


# -- what it can do ----------------------------------------------------------------------------------------------------


def test_a_device_behind_ssh_does_what_this_machine_does(device: Device, models: Path, board: FakeBoard) -> None:
    environment = read_environment(device)
    assert environment.engine == "onnxruntime"
    assert environment.emulator == ""
    group = [*named(models, "a b"), Candidate("broken", models / "broken.onnx")]
    answers = dict(measure(group, models / "reference.onnx", INPUTS, device, 0))
    assert {one.name: type(outcome) for one, outcome in answers.items()} == {"a": Timed, "b": Timed, "broken": Failed}
    assert all(one.model_memory_bytes is not None for one in answers.values() if isinstance(one, Timed))
    assert peak_memory_bytes(models / "a.onnx", INPUTS, device) is not None
    assert [job.name for job in board.jobs()] == [], "what was heard to its end is forgotten"
    assert device.remarks == []


def test_outputs_come_back_for_each_of_the_inputs(device: Device, models: Path) -> None:
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    given = [{"x": np.random.default_rng(seed).uniform(-1, 1, (4, 8)).astype(np.float32)} for seed in range(3)]
    session = onnxruntime.InferenceSession(models / "a.onnx", providers=["CPUExecutionProvider"])
    found = run_model(models / "a.onnx", given, device)
    for one, (output,) in zip(given, found, strict=True):
        np.testing.assert_allclose(output, session.run(None, one)[0], rtol=1e-6)


def test_a_file_is_sent_once_and_told_by_its_content(device: Device, models: Path, board: FakeBoard) -> None:
    blobs = board.root / "blobs"
    path = Path(device.place(models / "a.onnx"))
    assert path.parent == blobs
    assert path.name == sha256_file(models / "a.onnx") == sha256_file(path)
    written = path.stat().st_ino
    (models / "copy.onnx").write_bytes((models / "a.onnx").read_bytes())
    assert device.place(models / "copy.onnx") == str(path)
    device.close()
    again = open_device(device.target, models)
    assert again.place(models / "a.onnx") == str(path)
    assert path.stat().st_ino == written
    again.discard(models / "a.onnx")
    assert list(blobs.iterdir()) == []
    again.close()


def test_a_file_that_was_damaged_on_the_device_is_sent_again(device: Device, models: Path, project: Path) -> None:
    path = Path(device.place(models / "a.onnx"))
    path.write_bytes(b"x" + path.read_bytes()[1:])
    device.close()
    again = open_device(device.target, project)
    assert sha256_file(Path(again.place(models / "a.onnx"))) == sha256_file(models / "a.onnx")
    again.close()


def test_the_agent_is_kept_under_its_checksum_and_a_damaged_one_is_never_run(
    target: Target, project: Path, board: FakeBoard
) -> None:
    open_device(target, project).close()
    (agent,) = board.root.glob("agent-*.pyz")
    sound = agent.read_bytes()
    assert sha256_file(agent).startswith(agent.stem.removeprefix("agent-"))
    agent.write_bytes(b"#" + sound)
    open_device(target, project).close()
    assert agent.read_bytes() == sound
    assert [path.name for path in board.root.iterdir() if "agent" in path.name] == [agent.name]
    assert board.root.stat().st_mode & 0o077 == 0


def test_a_banner_is_passed_over(target: Target, project: Path, board: FakeBoard) -> None:
    board.set(banner="Welcome to your board!\nYou have mail.\n")
    opened = open_device(target, project)
    assert read_environment(opened).engine == "onnxruntime"
    opened.close()


@pytest.mark.parametrize("folder", ["~/a b/$(touch owned)", "~/;touch owned;", "~/`touch owned`", "~/'\"x"])
def test_names_are_text(target: Target, project: Path, board: FakeBoard, folder: str) -> None:
    reach = msgspec.structs.replace(target.connection, folder=folder)
    open_device(msgspec.structs.replace(target, connection=reach), project).close()
    assert list((board.folder / folder.removeprefix("~/")).glob("agent-*.pyz"))
    assert not list(board.folder.rglob("owned"))


@pytest.mark.parametrize("host", ["-oProxyCommand=touch owned", "", "a b", "x;touch owned", "$(touch owned)"])
def test_a_host_that_is_no_name_is_refused(target: Target, project: Path, host: str) -> None:
    reach = msgspec.structs.replace(target.connection, host=host)
    with pytest.raises(UsageError):
        open_device(msgspec.structs.replace(target, connection=reach), project)


# -- what breaks -------------------------------------------------------------------------------------------------------


def test_twenty_lost_connections_lose_and_repeat_nothing(device: Device, models: Path, board: FakeBoard) -> None:
    slow = msgspec.structs.replace(QUICK, minimum_s=1.0, maximum_s=1.5)
    killed: list[float] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 20 and not over.is_set():
            time.sleep(0.05 + 0.25 * ((len(killed) * 7919) % 10) / 10)
            if board.kill_connections():
                killed.append(time.monotonic())

    killer = threading.Thread(target=kill)
    killer.start()
    heard: list[str] = []
    workers = set()
    try:
        group = named(models, "a b c d e f")
        for candidate, outcome in measure(group, models / "reference.onnx", INPUTS, device, 0, settings=slow):
            assert isinstance(outcome, Timed)
            heard.append(candidate.name)
            workers |= {job.name for job in board.jobs()}
        while len(killed) < 20:
            assert read_environment(device).engine == "onnxruntime"
    finally:
        over.set()
        killer.join()
    assert sorted(heard) == ["a", "b", "c", "d", "e", "f"]
    assert len(killed) == 20
    assert isinstance(device, RemoteDevice)
    assert device.link.lost > 0  # a kill while it is being found again counts as none more: how many is luck
    assert "nothing was measured twice" in device.remarks[0]


def test_what_a_killed_host_had_started_is_heard_and_not_measured_again(
    target: Target, project: Path, models: Path, board: FakeBoard
) -> None:
    slow = msgspec.structs.replace(target, measure=msgspec.structs.replace(QUICK, minimum_s=0.3, maximum_s=1.0))
    group = named(models, "a b c")
    first = open_device(slow, project)
    assert isinstance(first, RemoteDevice)
    answers = measure(group, models / "reference.onnx", INPUTS, first, 0)
    had, _ = next(answers)
    board.set(refuses=True)  # as if the host had been killed: nobody says good-bye to the device
    first.link.close()
    first.link.reconnect = lambda why: (_ for _ in ()).throw(DeviceError(why))  # type: ignore[method-assign]
    with pytest.raises(DeviceError):
        list(answers)
    (job,) = board.jobs()
    board.set(refuses=False)
    second = open_device(slow, project)
    left = [one for one in group if one != had]
    outcomes = dict(measure(left, models / "reference.onnx", INPUTS, second, 5))
    assert {one.name for one in outcomes} == {one.name for one in left}
    assert all(isinstance(one, Timed) for one in outcomes.values())
    assert not job.exists()
    second.close()


def test_two_hosts_do_not_measure_on_one_device_at_once(device: Device, models: Path, project: Path) -> None:
    slow = msgspec.structs.replace(QUICK, minimum_s=1.0, maximum_s=2.0)
    answers = measure(named(models, "a b"), models / "reference.onnx", INPUTS, device, 0, settings=slow)
    started = threading.Thread(target=lambda: list(answers))
    started.start()
    time.sleep(0.8)
    other = open_device(device.target, project)
    with pytest.raises(DeviceError, match="busy"):
        list(measure(named(models, "c"), models / "reference.onnx", INPUTS, other, 0))
    assert read_environment(other).engine == "onnxruntime"
    started.join()
    other.close()


def test_a_device_that_stays_away_is_a_device_error(device: Device, board: FakeBoard) -> None:
    reach = msgspec.structs.replace(device.target.connection, reconnect_s=0.3)
    assert isinstance(device, RemoteDevice)
    device.link.ssh = reach
    board.set(refuses=True)
    board.kill_connections()
    with pytest.raises(DeviceError, match="cannot be reached") as caught:
        read_environment(device)
    assert "Connection refused" in caught.value.why
    assert caught.value.hint


def test_a_worker_that_dies_there_is_begun_again_model_by_model(device: Device, models: Path, board: FakeBoard) -> None:
    slow = msgspec.structs.replace(QUICK, minimum_s=0.5, maximum_s=0.6)

    def kill() -> None:
        while not any(b'"step":"rounds"' in (job / "out.jsonl").read_bytes() for job in board.jobs()):
            time.sleep(0.02)
        board.end_workers()

    killer = threading.Thread(target=kill)
    killer.start()
    answers = dict(measure(named(models, "a b"), models / "reference.onnx", INPUTS, device, 0, settings=slow))
    killer.join()
    assert {one.name: type(outcome) for one, outcome in answers.items()} == {"a": Timed, "b": Timed}


# -- what is refused ---------------------------------------------------------------------------------------------------


CHATTERING = """\
#!{python}
import struct, sys, time
def frame(content):
    sys.stdout.buffer.write(struct.pack("!I", len(content)) + content)
    sys.stdout.buffer.flush()
sys.stdout.buffer.write(b"\\nmostool-agent have\\n")
frame(b'{{"type":"hello","protocol":1,"python":"3.11.7","machine":"x86_64"}}')
sys.stdin.buffer.read(1)
while True:
    frame(b'{{"type":"said","offset":0,"text":""}}')
    time.sleep(0.01)
"""


def test_an_agent_that_answers_another_question_for_ever_does_not_answer(
    target: Target, project: Path, board: FakeBoard
) -> None:
    program = project / "chattering"
    program.write_text(CHATTERING.format(python=sys.executable))
    program.chmod(0o755)
    assert isinstance(target.connection, Ssh)
    reach = msgspec.structs.replace(target.connection, python=str(program))
    with contextlib.closing(open_device(msgspec.structs.replace(target, connection=reach), project)) as device:
        assert isinstance(device, RemoteDevice)
        with pytest.raises(DeviceError, match="does not answer"):
            device.link.ask("facts", timeout_s=0.5)


def test_an_unknown_host_key_is_refused_with_the_way_to_trust_it(
    target: Target, tmp_path: Path, board: FakeBoard
) -> None:
    with pytest.raises(DeviceError, match="host key of rpi") as caught:
        open_device(target, tmp_path)
    assert "devices add rpi" in caught.value.hint
    assert not board.root.exists()


def test_a_changed_host_key_is_refused_with_both_fingerprints(target: Target, project: Path, board: FakeBoard) -> None:
    board.set(key=KEYS[1])
    with pytest.raises(DeviceError, match="has changed") as caught:
        open_device(target, project)
    assert caught.value.why.count("SHA256:") == 2
    assert not board.root.exists()


@pytest.mark.parametrize(
    ("status", "says", "told"),
    [
        (127, "sh: 1: python3: not found\n", "has no"),
        (255, "pi@board: Permission denied (publickey).\n", "cannot be reached"),
        (255, "", "cannot be reached"),
        (1, "Segmentation fault\n", "does not start"),
    ],
)
def test_an_ssh_that_ends_is_explained(
    target: Target, project: Path, board: FakeBoard, status: int, says: str, told: str
) -> None:
    board.set(status=status, says=says)
    with pytest.raises(DeviceError, match=told) as caught:
        open_device(target, project)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('mostool-agent python 3.7')", "too old"),
        ("print('mostool-agent cannot [Errno 28] No space left on device')", "has no room"),
        ("print('mostool-agent cannot [Errno 13] Permission denied')", "cannot keep the agent"),
        ("print('mostool-agent damaged')", "whole"),
        ("print('mostool-agent have'); print('garbage, and more of it')", "garbage"),
        ("print('mostool-agent have'); import sys; sys.stdout.write(chr(0) * 7 + chr(2) + '[]')", "garbage"),
        ("[print('noise') for _ in range(1000)]", "garbage"),
    ],
)
def test_a_board_that_cannot_run_the_agent_says_why(
    target: Target, project: Path, tmp_path: Path, program: str, told: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{program}\n")
    python.chmod(0o755)
    reach = msgspec.structs.replace(target.connection, python=str(python))
    with pytest.raises(DeviceError, match=told) as caught:
        open_device(msgspec.structs.replace(target, connection=reach), project)
    assert "Traceback" not in str(caught.value)
