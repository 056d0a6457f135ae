"""Measuring through a worker: real ones, and recorded ones that say what no real one should."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from toolchain.devices import Connection, ConnectionLostError
from toolchain.devices.local import LONGEST_LINE_BYTES, LocalConnection, LocalDevice
from toolchain.errors import DeviceError, MostoolError
from toolchain.onboard.tensorrt_plan import is_plan
from toolchain.profiling.groups import Candidate, Spent, measure, noise_floor
from toolchain.profiling.session import (
    InputShape,
    ModelRefusedError,
    Plan,
    ProviderRefusedError,
    RefusedError,
    build_plan,
    peak_memory_bytes,
    read_builder,
    read_environment,
    run_model,
)
from toolchain.progress import Progress
from toolchain.records import Failed, Timed
from toolchain.targets import Runtime, Target

from .models import Replay, Started, timed

Inputs = dict[str, InputShape]

HELLO = b'{"type":"hello","protocol":2,"python":"3.11.2","machine":"x86_64"}'
DONE = b'{"type":"done"}'
TIMED = msgspec.json.encode({"type": "timed", "candidate": 0, "timed": timed([[0.1]], [0.1])})


def step(candidate: int) -> bytes:
    return json.dumps({"type": "step", "step": "load", "candidate": candidate, "rounds": 0, "half_width": 0}).encode()


def timed_line(candidate: int) -> bytes:
    return TIMED.replace(b'"candidate":0', b'"candidate":%d' % candidate)


def named(folder: Path, *names: str) -> list[Candidate]:
    return [Candidate(name, folder / f"{name}.onnx") for name in names]


def replaying(target: Target, *lives: list[bytes | Exception]) -> tuple[Started, list[Replay]]:
    """A device that starts these recorded workers, one after the other, and the ones started so far."""
    left, made = list(lives), []

    def start() -> Connection:
        made.append(Replay(left.pop(0)))
        return made[-1]

    return Started(target, start), made


# -- real workers ----------------------------------------------------------------------------------------------------


def test_good_candidates_are_timed_and_bad_ones_fail_alone(folder: Path, target: Target, inputs: Inputs) -> None:
    seen: list[Progress] = []
    group = named(folder, "good", "broken", "log", "other", "good")
    reference = folder / "reference.onnx"
    answers = list(measure(group, reference, inputs, LocalDevice(target), 7, listener=seen.append))
    assert [candidate.name for candidate, _ in answers[:2]] == ["broken", "log"], "outcomes come as they settle"
    assert sorted(candidate.name for candidate, _ in answers) == ["broken", "good", "good", "log", "other"]
    broken, log, *others = (outcome for _, outcome in answers)
    assert isinstance(broken, Failed)
    assert broken.stage == "load"
    assert str(folder) not in broken.error
    assert log == Failed(stage="run", error="output 'y' is not finite")
    for outcome in others:
        assert isinstance(outcome, Timed)
        assert len(outcome.rounds) >= target.measure.minimum_rounds
        assert all(len(turn.wall_s) == target.measure.calls_per_turn for turn in outcome.rounds)
        assert all(turn.reference_fastest_s <= turn.reference_wall_s for turn in outcome.rounds)
    assert {(one.done, one.total) for one in seen} == {(0, 5), (4, 5)}
    assert "try broken" in {one.note for one in seen}


def test_an_interval_that_stays_too_wide_is_flagged(folder: Path, target: Target, inputs: Inputs) -> None:
    strict = msgspec.structs.replace(target, measure=msgspec.structs.replace(target.measure, half_width=1e-12))
    ((_, outcome),) = measure(named(folder, "good"), folder / "reference.onnx", inputs, LocalDevice(strict), 0)
    assert isinstance(outcome, Timed)
    assert "unstable" in outcome.flags


def test_a_provider_that_is_not_there_is_refused_before_anything_is_measured(
    folder: Path, target: Target, inputs: Inputs
) -> None:
    elsewhere = msgspec.structs.replace(target, runtime=Runtime(provider="CUDAExecutionProvider"))
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        read_environment(LocalDevice(elsewhere))
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        list(measure(named(folder, "good"), folder / "reference.onnx", inputs, LocalDevice(elsewhere), 0))


@pytest.mark.parametrize("reference", ["broken", "log"])
def test_a_reference_that_fails_is_nobodys_fault_but_the_devices(
    folder: Path, target: Target, inputs: Inputs, reference: str
) -> None:
    with pytest.raises(DeviceError, match="reference model fails on cpu"):
        list(measure(named(folder, "good"), folder / f"{reference}.onnx", inputs, LocalDevice(target), 0))


def test_the_environment_of_this_machine(target: Target) -> None:
    environment = read_environment(LocalDevice(target))
    assert environment.engine_version == onnxruntime.__version__
    assert environment.provider == "CPUExecutionProvider"
    assert environment.cores >= 1
    assert environment.fingerprint == read_environment(LocalDevice(target)).fingerprint


def test_a_model_runs_there_as_it_does_here(folder: Path, target: Target) -> None:
    given = {"x": np.random.default_rng(0).uniform(-1, 1, (4, 8)).astype(np.float32)}
    session = onnxruntime.InferenceSession(folder / "good.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, given)
    ((found,),) = run_model(folder / "good.onnx", [given], LocalDevice(target))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(DeviceError, match="cpu cannot load the model"):
        run_model(folder / "broken.onnx", [given], LocalDevice(target))


def test_peak_memory_is_that_of_the_model_and_not_of_who_asks(folder: Path, target: Target, inputs: Inputs) -> None:
    ballast = np.ones(50 << 20, dtype=np.uint8)
    found = peak_memory_bytes(folder / "good.onnx", inputs, LocalDevice(target))
    assert found is not None
    assert 0 < found < ballast.nbytes
    assert peak_memory_bytes(folder / "broken.onnx", inputs, LocalDevice(target)) is None


DEADLY = """
import os, sys
from toolchain.onboard import onnxruntime_engine, worker
opened, parent = onnxruntime_engine.open_model, os.getpid()
def deadly(path, request, inputs):
    if "killer" in path and ({in_trial} or os.getpid() == parent):
        os.kill(os.getpid(), {signal})
    return opened(path, request, inputs)
onnxruntime_engine.open_model = deadly
sys.exit(worker.main())
"""


@pytest.mark.parametrize(
    ("signal", "in_trial", "stage", "sentence"),
    [
        (11, True, "load", "it crashes the engine: killed by signal 11"),
        (9, True, "memory", "killed by signal 9 (out of memory?)"),
        (11, False, "worker", "killed by signal 11 (SIGSEGV)"),
        (9, False, "worker", "killed by signal 9"),
    ],
)
def test_a_candidate_that_kills_its_process_fails_alone(
    folder: Path, target: Target, inputs: Inputs, signal: int, in_trial: bool, stage: str, sentence: str
) -> None:
    deadly = DEADLY.format(signal=signal, in_trial=in_trial)
    workers: list[Connection] = []

    def start() -> Connection:
        workers.append(LocalConnection([sys.executable, "-c", deadly]))
        return workers[-1]

    device = Started(target, start)
    group = named(folder, "good", "killer", "other")
    answers = dict(measure(group, folder / "reference.onnx", inputs, device, 0))
    assert {one.name: type(outcome) for one, outcome in answers.items()} == {
        "good": Timed,
        "killer": Failed,
        "other": Timed,
    }
    failed = answers[group[1]]
    assert isinstance(failed, Failed)
    assert failed.stage == stage
    assert failed.error.startswith(sentence)
    assert len(workers) == (1 if in_trial else 4), "one that dies in its trial takes no worker with it"
    if in_trial:
        assert peak_memory_bytes(folder / "killer.onnx", inputs, device) is None
    with pytest.raises(DeviceError, match="lost"):
        list(measure(named(folder, "good"), folder / "killer.onnx", inputs, device, 0))


# -- recorded workers ------------------------------------------------------------------------------------------------


def test_a_silent_worker_is_ended_and_only_the_culprit_fails(folder: Path, target: Target, inputs: Inputs) -> None:
    device, made = replaying(
        target,
        [HELLO, step(-1), step(0), step(1), TimeoutError()],
        [HELLO, step(-1), step(0), TIMED, DONE],
        [HELLO, step(-1), step(0), TimeoutError()],
    )
    group = named(folder, "good", "other")
    answers = list(measure(group, folder / "reference.onnx", inputs, device, 0))
    assert [type(outcome) for _, outcome in answers] == [Timed, Failed]
    assert answers[1][1] == Failed(stage="worker", error="no sign of life for 120 s")
    assert all(one.closed for one in made)
    asked = [json.loads(one.sent[0])["candidates"] for one in made]
    assert [len(one) for one in asked] == [2, 1, 1]


def test_what_had_its_answer_before_the_worker_died_is_not_measured_again(
    folder: Path, target: Target, inputs: Inputs
) -> None:
    device, made = replaying(
        target,
        [HELLO, step(0), timed_line(1), ConnectionLostError("killed by signal 9")],
        [HELLO, step(0), TIMED, DONE],
    )
    group = named(folder, "good", "other")
    answers = list(measure(group, folder / "reference.onnx", inputs, device, 0))
    assert [(candidate.name, type(outcome)) for candidate, outcome in answers] == [("other", Timed), ("good", Timed)]
    assert len(made) == 2


def test_a_device_that_was_restarted_is_asked_again_for_all_that_is_left(
    folder: Path, target: Target, inputs: Inputs
) -> None:
    gone = ConnectionLostError("it vanished", restarted=True)
    device, made = replaying(
        target,
        [HELLO, step(0), timed_line(1), gone],
        [HELLO, step(-1), timed_line(0), timed_line(1), DONE],
    )
    group = named(folder, "good", "other", "killer")
    answers = list(measure(group, folder / "reference.onnx", inputs, device, 0))
    assert [candidate.name for candidate, _ in answers] == ["other", "good", "killer"]
    asked = [len(json.loads(one.sent[0])["candidates"]) for one in made]
    assert asked == [3, 2]


def test_a_model_that_restarts_its_device_each_time_has_failed(folder: Path, target: Target, inputs: Inputs) -> None:
    gone = ConnectionLostError("it vanished", restarted=True)
    device, made = replaying(target, *([HELLO, step(0), gone] for _ in range(3)), [HELLO, step(0), TIMED, DONE])
    answers = dict(measure(named(folder, "killer", "good"), folder / "reference.onnx", inputs, device, 0))
    assert {one.name: type(outcome) for one, outcome in answers.items()} == {"killer": Failed, "good": Timed}
    assert len(made) == 4


def test_an_outcome_is_handed_on_while_the_rest_of_its_group_is_measured(
    folder: Path, target: Target, inputs: Inputs
) -> None:
    device, made = replaying(target, [HELLO, step(0), timed_line(1), step(0), TIMED, DONE])
    answers = measure(named(folder, "good", "other"), folder / "reference.onnx", inputs, device, 0)
    candidate, _ = next(answers)
    assert candidate.name == "other"
    assert not made[0].closed
    assert [candidate.name for candidate, _ in answers] == ["good"]
    assert made[0].closed


def test_a_worker_lost_after_its_last_outcome_takes_nothing_back(folder: Path, target: Target, inputs: Inputs) -> None:
    device, _ = replaying(target, [HELLO, step(0), TIMED, ConnectionLostError("killed by signal 9")])
    ((_, outcome),) = measure(named(folder, "good"), folder / "reference.onnx", inputs, device, 0)
    assert isinstance(outcome, Timed)


def test_a_worker_lost_over_the_reference_is_not_held_against_a_candidate(
    folder: Path, target: Target, inputs: Inputs
) -> None:
    device, made = replaying(target, [HELLO, step(-1), ConnectionLostError("killed by signal 4")])
    with pytest.raises(DeviceError, match="killed by signal 4"):
        list(measure(named(folder, "good"), folder / "reference.onnx", inputs, device, 0))
    assert made[0].closed


GARBAGE = {
    "a banner": b"Welcome to your device!",
    "half a line": TIMED[:50],
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "not a number": TIMED.replace(b"0.1", b"NaN"),
    "infinite": TIMED.replace(b"0.1", b"1e999"),
    "negative": TIMED.replace(b'"wall_s":[0.1]', b'"wall_s":[-0.1]'),
    "no time at all": TIMED.replace(b'"wall_s":[0.1]', b'"wall_s":[0]'),
    "text for a number": TIMED.replace(b'"wall_s":[0.1]', b'"wall_s":["0.1"]'),
    "lists of unlike length": TIMED.replace(b'"cpu_s":[0.1]', b'"cpu_s":[0.1,0.1]'),
    "no rounds": re.sub(rb'"rounds":\[.*\]', b'"rounds":[]', TIMED),
    "a field too many": TIMED.replace(b'"flags"', b'"host":"x","flags"'),
    "unknown kind": b'{"type":"shell"}',
    "nobody's candidate": timed_line(5),
    "twice the same": TIMED + b"\n" + TIMED,
    "done too early": DONE,
    "another answer": b'{"type":"memory","bytes":1}',
    "a second hello": HELLO,
    "a step of nobody": step(9),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_device_error(folder: Path, target: Target, inputs: Inputs, name: str) -> None:
    device, made = replaying(target, [HELLO, step(0), *GARBAGE[name].split(b"\n"), DONE])
    with pytest.raises(DeviceError, match="garbage"):
        list(measure(named(folder, "good"), folder / "reference.onnx", inputs, device, 0))
    assert made[0].closed


@pytest.mark.parametrize("first", [b"Last login: Sunday", DONE, HELLO.replace(b'"protocol":2', b'"protocol":3')])
def test_a_worker_must_say_hello_in_our_protocol(target: Target, first: bytes) -> None:
    device, made = replaying(target, [first])
    with pytest.raises(DeviceError):
        read_environment(device)
    assert made[0].closed


@pytest.mark.parametrize("kind", ["request", "engine", "provider", "reference", "load", "run", "memory", "throttled"])
def test_a_refusal_is_a_device_error_that_says_why(target: Target, kind: str) -> None:
    line = json.dumps({"type": "error", "kind": kind, "message": "because\nof this"}).encode()
    device, _ = replaying(target, [HELLO, line])
    with pytest.raises(DeviceError) as caught:
        read_environment(device)
    assert caught.value.why.startswith("because of this")


RAN = b'{"type":"ran","outputs":[{"dtype":"float32","shape":[2]}]}'
PART = b'{"type":"part","output":0,"data":"AACAPwAAAEA="}'


def test_outputs_come_in_parts(folder: Path, target: Target) -> None:
    parts = [PART.replace(b"AACAPwAAAEA=", data) for data in (b"AACAPw==", b"AAAAQA==")]
    device, _ = replaying(target, [HELLO, step(0), RAN, *parts, DONE])
    ((found,),) = run_model(folder / "good.onnx", [{"x": np.zeros(1)}], device)
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "lines",
    [
        [PART, DONE],
        [RAN, DONE],
        [RAN, PART, PART, DONE],
        [RAN, PART.replace(b'"output":0', b'"output":1'), DONE],
        [RAN, PART.replace(b"AAC", b"!!!"), DONE],
        [RAN, PART, RAN, PART, DONE],
        [DONE],
        [TIMED],
    ],
)
def test_outputs_that_are_not_as_announced_are_garbage(folder: Path, target: Target, lines: list[bytes]) -> None:
    device, _ = replaying(target, [HELLO, *lines])
    with pytest.raises(DeviceError, match="garbage"):
        run_model(folder / "good.onnx", [{"x": np.zeros(1)}], device)


PLANNED = b'{"type":"planned","builder":"tensorrt","version":"10.3.0","compute_capability":"8.7","size_bytes":8}'


def test_an_engine_comes_in_parts(folder: Path, target: Target, inputs: Inputs) -> None:
    parts = [PART.replace(b"AACAPwAAAEA=", data) for data in (b"AACAPw==", b"AAAAQA==")]
    optioned = msgspec.structs.replace(
        target, runtime=Runtime(engine="tensorrt", options={"profile.min": "x:1x8", "tf32": "1"})
    )
    device, made = replaying(optioned, [HELLO, step(-1), step(0), b'{"type":"beat"}', PLANNED, *parts, DONE])
    found = build_plan(folder / "good.onnx", inputs, device, {"profile.min": "x:2x8", "profile.max": "x:8x8"})
    assert found == Plan(b"\0\0\x80?\0\0\0@", "tensorrt", "10.3.0", "8.7")
    asked = json.loads(made[0].sent[0])
    assert (asked["op"], asked["model"]) == ("plan", str(folder / "good.onnx"))
    assert asked["options"] == {"profile.min": "x:2x8", "profile.max": "x:8x8", "tf32": "1"}
    assert asked["inputs"]["x"]["shape"] == [4, 8]


@pytest.mark.parametrize(
    "lines",
    [
        [DONE],
        [PLANNED, DONE],
        [PLANNED, PART.replace(b"AACAPwAAAEA=", b"AACAPw=="), DONE],
        [PLANNED, PART, PART, DONE],
        [PLANNED, PART.replace(b"AACAPwAAAEA=", b"AACAPwAAAEAA"), DONE],
        [PLANNED, PART.replace(b'"output":0', b'"output":1'), DONE],
        [PLANNED, PART.replace(b"AAC", b"!!!"), DONE],
        [PLANNED, PART.replace(b"AAC", "äää".encode()), DONE],
        [PLANNED, PLANNED, PART, DONE],
        [PLANNED.replace(b'"8.7"', b'""'), PART, DONE],
        [PLANNED.replace(b'"8.7"', b'"current"'), PART, DONE],
        [PLANNED.replace(b":8}", b":0}"), DONE],
        [PART, PLANNED, DONE],
        [RAN, PART, DONE],
    ],
)
def test_an_engine_that_is_not_as_announced_is_garbage(
    folder: Path, target: Target, inputs: Inputs, lines: list[bytes]
) -> None:
    device, made = replaying(target, [HELLO, step(0), *lines])
    with pytest.raises(DeviceError, match="garbage"):
        build_plan(folder / "good.onnx", inputs, device)
    assert made[0].closed


@pytest.mark.parametrize(
    ("kind", "error"), [("provider", ProviderRefusedError), ("load", ModelRefusedError), ("engine", RefusedError)]
)
def test_who_cannot_build_is_told_apart(
    folder: Path, target: Target, inputs: Inputs, kind: str, error: type[DeviceError]
) -> None:
    line = json.dumps({"type": "error", "kind": kind, "message": "because of this"}).encode()
    with pytest.raises(DeviceError) as caught:
        build_plan(folder / "good.onnx", inputs, replaying(target, [HELLO, step(0), line])[0])
    assert type(caught.value) is error
    with pytest.raises(DeviceError, match="lost"):
        build_plan(folder / "good.onnx", inputs, replaying(target, [HELLO, step(0), TimeoutError()])[0])


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_an_engine_is_built_by_a_worker_without_a_gpu(folder: Path, target: Target, inputs: Inputs) -> None:
    device = LocalDevice(msgspec.structs.replace(target, runtime=Runtime(engine="tensorrt_rtx")))
    named = Runtime(engine="tensorrt_rtx", options={"compute_capability": "8.9"})
    builder = LocalDevice(msgspec.structs.replace(target, runtime=named))
    assert read_builder(builder).engine == "tensorrt_rtx"
    plan = build_plan(folder / "good.onnx", inputs, builder)
    assert (plan.builder, plan.compute_capability) == ("tensorrt_rtx", "8.9")
    assert is_plan(plan.content)
    with pytest.raises(ModelRefusedError):
        build_plan(folder / "broken.onnx", inputs, builder)
    with pytest.raises(DeviceError, match="did not understand"):
        build_plan(folder / "good.onnx", inputs, LocalDevice(target))
    if not read_builder(builder).accelerator:
        with pytest.raises(ProviderRefusedError, match="has to be named"):
            build_plan(folder / "good.onnx", inputs, device)


# -- what a table's header says --------------------------------------------------------------------------------------


def test_the_noise_floor_is_that_of_copies_of_one_model(folder: Path, target: Target, inputs: Inputs) -> None:
    found = noise_floor(folder / "reference.onnx", inputs, LocalDevice(target), lambda _: None)
    assert found.copies == 4
    assert 0 <= found.value < 1


def test_where_the_time_went_is_added_up(folder: Path, target: Target, inputs: Inputs) -> None:
    spent = Spent()
    list(
        measure(named(folder, "good", "other"), folder / "reference.onnx", inputs, LocalDevice(target), 0, spent=spent)
    )
    assert 0 < spent.called_s < spent.elapsed_s


# -- the local pipe --------------------------------------------------------------------------------------------------


def test_a_line_without_end_is_refused() -> None:
    flood = f"import sys\nsys.stdout.write('x' * {LONGEST_LINE_BYTES + (1 << 20)})"
    connection = LocalConnection([sys.executable, "-c", flood])
    with pytest.raises(DeviceError, match="garbage"):
        connection.receive(60)
    connection.close()
    connection.close()


def test_lines_come_whole_and_in_order_and_the_end_is_told() -> None:
    program = "import sys\nprint('one\\ntwo')\nprint(sys.stdin.readline(), end='')\nsys.exit('no more')"
    connection = LocalConnection([sys.executable, "-c", program])
    connection.send(b"three")
    assert [connection.receive(60) for _ in range(3)] == [b"one", b"two", b"three"]
    with pytest.raises(ConnectionLostError, match="ended with status 1: no more"):
        connection.receive(60)
    with pytest.raises(ConnectionLostError):
        connection.send(b"four")
    connection.close()


def test_silence_is_a_time_out_and_closing_ends_the_worker() -> None:
    connection = LocalConnection([sys.executable, "-c", "import sys; sys.stdin.read()"])
    with pytest.raises(TimeoutError):
        connection.receive(0.0)
    connection.close()
    assert connection._child.returncode == -9


def test_a_worker_that_cannot_be_started_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(MostoolError, match="cannot be started"):
        LocalConnection([str(tmp_path / "nothing")])
