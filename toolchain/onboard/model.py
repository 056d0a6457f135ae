"""A model that is loaded, called and timed; and its inputs."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from . import machine
from .channel import Channel, RefusalError, Request
from .engines import engine_of

SHORT_CALL_S = 100e-6
SAMPLE_S = 200e-6
WINDOW = 5
STEADY = 0.02
GIVE_UP_S = 10.0
BUILD_S = 1800.0
FEWEST_ROUNDS = 5


class Model:
    """A model in this process and what was measured of it.

    Raises:
        RefusalError: of kind `load` or `run` where the model fails, `provider` where another provider would run it.
    """

    def __init__(self, number: int, path: str, request: Request, inputs: dict[str, Any], channel: Channel) -> None:
        engine = engine_of(request)
        self.number = number
        self.channel = channel
        self.errors = engine.errors()
        self.flags: list[str] = []
        self.rounds: list[dict[str, Any]] = []
        self.ratios: list[float] = []
        self.memory_bytes: int | None = None
        self.spent_s = 0.0
        self.called_s = 0.0
        self.call_s = 0.0
        self.repeats = 1
        channel.step("load", number)
        start = time.perf_counter()
        # An accelerator's engine may be built for half an hour; a processor that loads for two minutes hangs.
        with contextlib.nullcontext() if engine.forks(request) else channel.busy(BUILD_S):
            self.runner = engine.open_model(path, request, inputs)
        self.session_s = time.perf_counter() - start
        channel.step("run", number)
        start = time.perf_counter()
        self.call()
        self.first_run_s = time.perf_counter() - start
        self._check()

    def _check(self) -> None:
        import numpy as np

        for name, array in zip(self.runner.names, self.runner.outputs()):
            if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
                raise RefusalError("run", f"output {name!r} is not finite")

    def call(self) -> None:
        """One inference."""
        start = time.perf_counter()
        try:
            self.runner.run()
        except self.errors as fault:
            raise RefusalError("run", str(fault)) from fault
        self.called_s += time.perf_counter() - start
        self.channel.beat()

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

    def turn(self, calls: int, queue: machine.RunQueue) -> dict[str, list[float]]:
        """One discarded call, which refills the caches, and `calls` timed samples."""
        started = time.perf_counter()
        self.call()
        samples: dict[str, list[float]] = {"wall_s": [], "cpu_s": [], "delay_s": []}
        run = self.runner.run
        for _ in range(calls):
            waited = queue.waited_ns()
            cpu = time.process_time_ns()
            wall = time.perf_counter_ns()
            try:
                for _ in range(self.repeats):
                    run()
            except self.errors as fault:
                raise RefusalError("run", str(fault)) from fault
            wall = time.perf_counter_ns() - wall
            cpu = time.process_time_ns() - cpu
            waited = queue.waited_ns() - waited
            self.called_s += wall / 1e9
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


def median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quiet(wall_s: list[float], delay_s: list[float]) -> list[int]:
    """Which samples of a turn waited for a processor no longer than max(20 us, 1 %); all where none did."""
    kept = [i for i, wall in enumerate(wall_s) if delay_s[i] <= max(20e-6, 0.01 * wall)]
    return kept or list(range(len(wall_s)))


def made_inputs(request: Request) -> dict[str, Any]:
    """The arrays described by `inputs` ({name: {dtype, shape, low, high}}, `high` excluded), from `seed`."""
    import numpy as np

    rng = np.random.default_rng(request["seed"])
    arrays = {}
    for name, form in sorted(request["inputs"].items()):
        whole = np.dtype(form["dtype"]).kind in "iub"
        draw = rng.integers if whole else rng.uniform
        arrays[name] = np.asarray(draw(form["low"], form["high"], tuple(form["shape"]))).astype(form["dtype"])
    return arrays
