"""The one file that runs on a device: it loads models, times them, and says what machine it is on.

    python worker.py

One JSON object per line on stdin asks, one JSON object per line on stdout answers; the first answer is a `hello`, sent
before numpy and onnxruntime are imported, so that a device that lacks them can say so. Needs Python >= 3.9, numpy and
onnxruntime; imports no sibling, because it travels alone. The protocol and its reasons: README.md beside this file.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import sys
import time
from typing import IO, Any

PROTOCOL = 1
REFERENCE = -1
"""The number of the reference model where candidates are numbered from 0."""

SHORT_CALL_S = 100e-6
SAMPLE_S = 200e-6
TURN_S = 0.3
WINDOW = 5
STEADY = 0.02
GIVE_UP_S = 10.0
FEWEST_ROUNDS = 5
HEARTBEAT_S = 1.0
PROGRESS_S = 0.2
LONGEST_ERROR = 500
ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "asimdhp", "i8mm", "bf16", "sve")
ARM_PARTS = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1"}

Request = dict[str, Any]


class RefusalError(Exception):
    """What was asked cannot be had; it becomes an `error` answer. `kind`: engine, provider, reference, load, run."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """The answering side of the pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.spoke_at = 0.0

    def send(self, kind: str, /, **fields: Any) -> None:
        self.stream.write(json.dumps({"type": kind, **fields}, allow_nan=False, separators=(",", ":")) + "\n")
        self.stream.flush()
        self.spoke_at = time.monotonic()

    def step(self, step: str, candidate: int = REFERENCE, rounds: int = 0, half_width: float = 0.0) -> None:
        """Say what is about to happen, so that the host knows what it was when nothing more is heard."""
        self.send("step", step=step, candidate=candidate, rounds=rounds, half_width=round(half_width, 6))

    def beat(self) -> None:
        """Break a long silence: the host takes one longer than a call may last for a hang."""
        if time.monotonic() - self.spoke_at > HEARTBEAT_S:
            self.send("beat")


# -- the machine -----------------------------------------------------------------------------------------------------


def system_path(path: str) -> str:
    """A path under /sys or /proc, led elsewhere by MOSTOOL_SYSROOT."""
    return os.environ.get("MOSTOOL_SYSROOT", "").rstrip("/") + path


def read_system(path: str) -> str:
    """The text of a file under /sys or /proc; empty where it cannot be read."""
    try:
        with open(system_path(path), encoding="utf-8", errors="replace") as stream:  # noqa: PTH123 - proc files
            return stream.read().strip("\0\n ")
    except OSError:
        return ""


def fields(text: str, separator: str) -> dict[str, str]:
    """`name<separator>value` lines; of lines with the same name the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        found.setdefault(name.strip(), value.strip().strip('"'))
    return found


def environment(request: Request, channel: Channel) -> None:
    ort = engine()
    if request["provider"] not in ort.get_available_providers():
        have = ", ".join(ort.get_available_providers())
        raise RefusalError("provider", f"{request['provider']} is not available; onnxruntime here has {have}")
    cpu = fields(read_system("/proc/cpuinfo"), ":")
    features = (cpu.get("flags") or cpu.get("Features") or "").split()
    part = cpu.get("CPU part", "")
    release = {}
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as stream:  # noqa: PTH123
        release = fields(stream.read(), "=")
    memory = fields(read_system("/proc/meminfo"), ":").get("MemTotal", "0 kB").split()[0]
    affinity = getattr(os, "sched_getaffinity", None)
    channel.send(
        "environment",
        environment={
            "machine": platform.machine(),
            "cpu": cpu.get("model name") or ARM_PARTS.get(part, part) or platform.processor() or platform.machine(),
            "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
            "memory_bytes": int(memory) * 1024 if memory.isdigit() else 0,
            "os": release.get("PRETTY_NAME", platform.system()),
            "kernel": platform.release(),
            "governor": read_system("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "python": platform.python_version(),
            "engine": "onnxruntime",
            "engine_version": ort.__version__,
            "provider": request["provider"],
            "isa": [name for name in ISA if name in features],
            "board": read_system("/proc/device-tree/model") or read_system("/sys/firmware/devicetree/base/model"),
            "boot_id": read_system("/proc/sys/kernel/random/boot_id"),
        },
    )


class RunQueue:
    """How long the threads of this process have waited for a processor, by /proc/self/task/*/schedstat."""

    def __init__(self) -> None:
        self.files: list[int] = []
        self.open()
        self.known = bool(self.files) and len(os.pread(self.files[0], 96, 0).split()) == 3

    def open(self) -> None:
        self.close()
        folder = system_path("/proc/self/task")
        with contextlib.suppress(OSError):
            for task in os.listdir(folder):  # noqa: PTH208 - names are enough
                self.files.append(os.open(f"{folder}/{task}/schedstat", os.O_RDONLY))

    def waited_ns(self) -> int:
        if not self.known:
            return 0
        try:
            return sum(int(os.pread(file, 96, 0).split()[1]) for file in self.files)
        except ProcessLookupError:  # a thread has ended
            self.open()
            return self.waited_ns() if self.files else 0

    def close(self) -> None:
        while self.files:
            os.close(self.files.pop())


# -- the engine ------------------------------------------------------------------------------------------------------


def engine() -> Any:
    """onnxruntime, or the RefusalError that it is not there."""
    try:
        import onnxruntime  # noqa: PLC0415 - after the handshake, see above
    except (ImportError, AttributeError, OSError) as fault:
        raise RefusalError("engine", f"onnxruntime cannot be imported: {fault}") from fault
    return onnxruntime


def engine_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises about a model. Its own classes share no base but Exception, so they are looked up."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, OSError, MemoryError)


def made_inputs(request: Request) -> dict[str, Any]:
    """The arrays described by `inputs` ({name: {dtype, shape, low, high}}, `high` excluded), from `seed`."""
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(request["seed"])
    arrays = {}
    for name, form in sorted(request["inputs"].items()):
        whole = np.dtype(form["dtype"]).kind in "iub"
        draw = rng.integers if whole else rng.uniform
        arrays[name] = np.asarray(draw(form["low"], form["high"], tuple(form["shape"]))).astype(form["dtype"])
    return arrays


class Model:
    """A model in this process: its session, its inputs and what was measured of it.

    Raises:
        RefusalError: of kind `load` or `run` where the model fails, `provider` where another provider would run it.
    """

    def __init__(self, number: int, path: str, request: Request, inputs: dict[str, Any], channel: Channel) -> None:
        self.number = number
        self.channel = channel
        self.inputs = inputs
        self.errors = engine_errors()
        self.flags: list[str] = []
        self.rounds: list[dict[str, Any]] = []
        self.ratios: list[float] = []
        self.spent_s = 0.0
        self.call_s = 0.0
        self.repeats = 1
        channel.step("load", number)
        start = time.perf_counter()
        self.session = self._open(path, request)
        self.session_s = time.perf_counter() - start
        channel.step("run", number)
        start = time.perf_counter()
        self.outputs = self.call()
        self.first_run_s = time.perf_counter() - start
        self._check(self.outputs)

    def _open(self, path: str, request: Request) -> Any:
        ort = engine()
        options = ort.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        try:
            for name, value in request["options"].items():
                options.add_session_config_entry(name, value)
            session = ort.InferenceSession(path, options, providers=[request["provider"]])
        except self.errors as fault:
            raise RefusalError("load", str(fault)) from fault
        if session.get_providers()[0] != request["provider"]:
            given = session.get_providers()[0]
            raise RefusalError("provider", f"{request['provider']} was asked for, onnxruntime would run on {given}")
        return session

    def _check(self, outputs: list[Any]) -> None:
        import numpy as np  # noqa: PLC0415

        for form, array in zip(self.session.get_outputs(), outputs):  # noqa: B905 - Python 3.9
            if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
                raise RefusalError("run", f"output {form.name!r} is not finite")

    def call(self) -> list[Any]:
        """One inference."""
        try:
            outputs: list[Any] = self.session.run(None, self.inputs)
        except self.errors as fault:
            raise RefusalError("run", str(fault)) from fault
        self.channel.beat()
        return outputs

    def warm_up(self, seconds: float) -> None:
        """Call until `seconds` and 10 calls have gone and two windows of 5 calls agree; flag what never does."""
        self.channel.step("warm-up", self.number)
        start = time.perf_counter()
        calls: list[float] = []
        while True:
            begin = time.perf_counter()
            self.call()
            end = time.perf_counter()
            calls.append(end - begin)
            if len(calls) >= 2 * WINDOW and end - start >= seconds:
                last, before = median(calls[-WINDOW:]), median(calls[-2 * WINDOW : -WINDOW])
                if abs(last - before) <= STEADY * last:
                    break
            if end - start >= max(GIVE_UP_S, seconds):
                self.flags.append("not-steady")
                break
        self.call_s = median(calls[-WINDOW:])
        if self.call_s < SHORT_CALL_S:
            self.repeats = math.ceil(SAMPLE_S / max(self.call_s, 1e-6))

    def turn(self, calls: int, queue: RunQueue) -> dict[str, list[float]]:
        """One discarded call, which refills the caches, and `calls` timed samples."""
        started = time.perf_counter()
        self.call()
        samples: dict[str, list[float]] = {"wall_s": [], "cpu_s": [], "delay_s": []}
        run, inputs = self.session.run, self.inputs
        for _ in range(calls):
            waited = queue.waited_ns()
            cpu = time.process_time_ns()
            wall = time.perf_counter_ns()
            try:
                for _ in range(self.repeats):
                    run(None, inputs)
            except self.errors as fault:
                raise RefusalError("run", str(fault)) from fault
            wall = time.perf_counter_ns() - wall
            cpu = time.process_time_ns() - cpu
            waited = queue.waited_ns() - waited
            samples["wall_s"].append(max(round(wall / self.repeats / 1e9, 9), 1e-9))
            samples["cpu_s"].append(round(cpu / self.repeats / 1e9, 9))
            samples["delay_s"].append(round(max(waited, 0) / 1e9, 9))
            self.channel.beat()
        self.spent_s += time.perf_counter() - started
        return samples

    def half_width(self) -> float:
        """Half the 95 % interval of the median ratio to the reference, by order statistics, relative to it."""
        ordered = sorted(self.ratios)
        lowest = int(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered)))
        if len(ordered) < FEWEST_ROUNDS:
            return 1.0
        return (ordered[-1 - lowest] - ordered[lowest]) / (2 * median(ordered))


# -- measuring -------------------------------------------------------------------------------------------------------


def median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quiet(wall_s: list[float], delay_s: list[float]) -> list[int]:
    """Which samples of a turn waited for a processor no longer than max(20 us, 1 %); all where none did."""
    kept = [i for i, wall in enumerate(wall_s) if delay_s[i] <= max(20e-6, 0.01 * wall)]
    return kept or list(range(len(wall_s)))


def measure(request: Request, channel: Channel) -> None:
    """Time a group of models against the reference, and send one `timed` or `failed` for each of them."""
    channel.step("import")
    engine()
    inputs = made_inputs(request)
    settings = request["measure"]
    try:
        reference = Model(REFERENCE, request["reference"], request, inputs, channel)
        reference.warm_up(settings["warmup_s"])
    except RefusalError as refusal:
        kind = "provider" if refusal.kind == "provider" else "reference"
        raise RefusalError(kind, f"{refusal.kind}: {refusal}") from refusal
    reference.outputs = []
    models: list[Model] = []
    for number, path in enumerate(request["candidates"]):
        try:
            model = Model(number, path, request, inputs, channel)
            model.warm_up(settings["warmup_s"])
            model.outputs = []
            models.append(model)
        except RefusalError as refusal:
            fail(number, refusal, channel)
    queue = RunQueue()
    gc.collect()
    gc.disable()
    try:
        rounds(models, reference, request, queue, channel)
    finally:
        gc.enable()
        queue.close()
    channel.send("done")


def rounds(models: list[Model], reference: Model, request: Request, queue: RunQueue, channel: Channel) -> None:
    """Interleaved rounds until every model has settled, failed, or used up its time."""
    import numpy as np  # noqa: PLC0415

    settings = request["measure"]
    every = settings["reference_every"]
    slowest = max(model.call_s for model in [reference, *models])
    calls = max(1, min(settings["calls_per_turn"], int(TURN_S / slowest)))
    rng = np.random.default_rng([request["seed"], 1])
    count = 0
    before = reference_turn(reference, calls, queue)
    while models:
        if not count or time.monotonic() - channel.spoke_at > PROGRESS_S:
            channel.step("rounds", models[0].number, count, max(model.half_width() for model in models))
        order = [models[i] for i in rng.permutation(len(models))]
        for start in range(0, len(order), every):
            turns = []
            for model in order[start : start + every]:
                try:
                    turns.append((model, model.turn(calls, queue)))
                except RefusalError as refusal:
                    fail(model.number, refusal, channel)
                    models.remove(model)
            after = reference_turn(reference, calls, queue)
            around = {name: round((before[name] + after[name]) / 2, 9) for name in after}
            for model, samples in turns:
                model.rounds.append({**samples, **around})
                model.ratios.append(min(samples["wall_s"]) / around["reference_fastest_s"])
            before = after
        count += 1
        for model in [model for model in models if finished(model, settings, count)]:
            flags = model.flags + ([] if queue.known else ["delay-unknown"])
            channel.send(
                "timed",
                candidate=model.number,
                timed={
                    "rounds": model.rounds,
                    "session_s": round(model.session_s, 9),
                    "first_run_s": round(model.first_run_s, 9),
                    "flags": flags,
                },
            )
            models.remove(model)


def finished(model: Model, settings: dict[str, Any], count: int) -> bool:
    """Whether a model needs no more rounds: its interval is narrow enough, or its time is up (flag `unstable`)."""
    if count < FEWEST_ROUNDS:
        return False
    enough = count >= settings["minimum_rounds"] and model.spent_s >= settings["minimum_s"]
    if enough and model.half_width() <= settings["half_width"]:
        return True
    if model.spent_s < settings["maximum_s"]:
        return False
    model.flags.append("unstable")
    return True


def fail(number: int, refusal: RefusalError, channel: Channel) -> None:
    """Report one model's failure; one that would fail every model alike is raised."""
    if refusal.kind not in ("load", "run"):
        raise refusal
    channel.send("failed", candidate=number, stage=refusal.kind, error=str(refusal)[:LONGEST_ERROR])


def reference_turn(reference: Model, calls: int, queue: RunQueue) -> dict[str, float]:
    """How long the reference takes now."""
    try:
        samples = reference.turn(calls, queue)
    except RefusalError as refusal:
        raise RefusalError("reference", str(refusal)) from refusal
    kept = quiet(samples["wall_s"], samples["delay_s"])
    return {
        "reference_wall_s": median([samples["wall_s"][i] for i in kept]),
        "reference_cpu_s": median([samples["cpu_s"][i] for i in kept]),
        "reference_fastest_s": min(samples["wall_s"]),
    }


# -- one model alone -------------------------------------------------------------------------------------------------


def memory(request: Request, channel: Channel) -> None:
    """How far the peak resident set of this process, fresh as it should be, grows by loading and running one model."""
    channel.step("import")
    engine()
    inputs = made_inputs(request)
    gc.collect()
    with contextlib.suppress(OSError), open(system_path("/proc/self/clear_refs"), "w", encoding="ascii") as stream:  # noqa: PTH123
        stream.write("5")
    before = peak_bytes()
    model = Model(0, request["model"], request, inputs, channel)
    for _ in range(3):
        model.call()
    channel.send("memory", bytes=max(peak_bytes() - before, 0))


def peak_bytes() -> int:
    """The peak resident set. Not ru_maxrss where it can be helped: that one remembers the process that started us."""
    peak = fields(read_system("/proc/self/status"), ":").get("VmHWM", "").split()
    if peak:
        return int(peak[0]) * 1024
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(request: Request, channel: Channel) -> None:
    """Run a model once on `inputs` (an .npz file, or {name: {dtype, values}}); save output_0, output_1, ... as .npz."""
    channel.step("import")
    engine()
    import numpy as np  # noqa: PLC0415

    given = request["inputs"]
    if isinstance(given, str):
        with np.load(given, allow_pickle=False) as stored:
            inputs = {name: stored[name] for name in stored.files}
    else:
        inputs = {name: np.asarray(form["values"], dtype=form["dtype"]) for name, form in given.items()}
    model = Model(0, request["model"], request, inputs, channel)
    np.savez(request["outputs"], **{f"output_{i}": array for i, array in enumerate(model.outputs)})
    channel.send("ran", outputs=len(model.outputs))


OPERATIONS = {"environment": environment, "measure": measure, "memory": memory, "run": run}


def answer(line: bytes, channel: Channel) -> None:
    """Carry out one request; what goes wrong in a way somebody can mend is an answer."""
    try:
        request = json.loads(line)
        operation = OPERATIONS[request["op"]]
    except (ValueError, KeyError, TypeError) as fault:
        channel.send("error", kind="request", message=f"not a request: {fault!r}"[:LONGEST_ERROR])
        return
    try:
        operation(request, channel)
    except RefusalError as refusal:
        channel.send("error", kind=refusal.kind, message=str(refusal)[:LONGEST_ERROR])
    except ImportError as fault:
        channel.send("error", kind="engine", message=f"numpy cannot be imported: {fault}"[:LONGEST_ERROR])
    except (KeyError, ValueError, TypeError, OSError) as fault:
        if isinstance(fault, BrokenPipeError):
            raise
        channel.send("error", kind="request", message=f"{request['op']}: {fault!r}"[:LONGEST_ERROR])


def main() -> int:
    """Answer requests until stdin ends. Whatever else prints (onnxruntime does) goes to stderr."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before other imports
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]  # noqa: PTH100 - README.md
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    channel = Channel(protocol)
    try:
        channel.send("hello", protocol=PROTOCOL, python=platform.python_version(), machine=platform.machine())
        for line in sys.stdin.buffer:
            answer(line, channel)
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
