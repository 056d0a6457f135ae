"""The measurement protocol: models timed in turns, round after round, beside a reference. Its reasons: README.md."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, NamedTuple

from . import machine
from .channel import REFERENCE, Channel, RefusalError, Request
from .engines import engine_of
from .model import FEWEST_ROUNDS, Model, made_inputs, median, quiet
from .sensors import Guard, Sensors
from .trials import fail, trials

TURN_S = 0.3
PROGRESS_S = 0.2


def measure(request: Request, channel: Channel) -> None:
    """Time a group of models against the reference, and send one `timed` or `failed` for each of them."""
    began, load = time.perf_counter(), machine.load_per_core()
    channel.step("import")
    engine = engine_of(request)
    channel.send("environment", environment=machine.environment(engine.describe(request)))
    inputs = made_inputs(request)
    settings = request["measure"]
    memory = trials(request, inputs, channel) if engine.forks(request) else {}
    watch = _Watch.of(request)
    guard = Guard(request, watch.sensors, channel)
    try:
        reference = Model(REFERENCE, request["reference"], request, inputs, channel)
        reference.warm_up(
            max(settings["warmup_s"], settings["sustained_s"] if settings["thermal"] == "sustained" else 0)
        )
    except RefusalError as refusal:
        kind = "provider" if refusal.kind == "provider" else "reference"
        raise RefusalError(kind, f"{refusal.kind}: {refusal}") from refusal
    models: list[Model] = []
    for number, path in enumerate(request["candidates"]):
        tried = memory.get(number)
        try:
            if isinstance(tried, RefusalError):
                raise tried
            model = Model(number, path, request, inputs, channel)
            model.memory_bytes = tried
            model.warm_up(settings["warmup_s"])
            models.append(model)
        except RefusalError as refusal:
            fail(number, refusal, channel)
    everyone = [reference, *models]
    queue = machine.RunQueue()
    gc.collect()
    gc.disable()
    try:
        _Rounds(models, reference, request, queue, guard, watch, channel, load).run()
    finally:
        gc.enable()
        queue.close()
    channel.send(
        "done",
        called_s=round(sum(model.called_s for model in everyone), 6),
        elapsed_s=round(time.perf_counter() - began, 6),
    )


class _Watch(NamedTuple):
    """The sensors of what runs the model: the processor's, or the accelerator's beside them."""

    sensors: Sensors
    accelerator_j: Callable[[], float | None] | None

    @classmethod
    def of(cls, request: Request) -> _Watch:
        if not engine_of(request).on_nvidia(request):
            return cls(Sensors(), None)
        from . import nvidia  # looked for where an accelerator is asked for

        gpu = nvidia.Gpu(nvidia.device_of(request))
        return cls(Sensors(gpu.read if gpu.watched else None), gpu.total_energy_j)


class _Rounds:
    """Interleaved rounds until every model has settled, failed, or used up its time."""

    def __init__(
        self,
        models: list[Model],
        reference: Model,
        request: Request,
        queue: machine.RunQueue,
        guard: Guard,
        watch: _Watch,
        channel: Channel,
        load: float,
    ) -> None:
        import numpy as np

        self.models, self.reference, self.queue, self.guard, self.channel = models, reference, queue, guard, channel
        self.settings, self.watch, self.load = request["measure"], watch, load
        slowest = max(model.call_s for model in [reference, *models])
        self.calls = max(1, min(self.settings["calls_per_turn"], int(TURN_S / slowest)))
        self.rng = np.random.default_rng([request["seed"], 1])

    def run(self) -> None:
        count = 0
        before = self._reference_turn()
        while self.models:
            if not count or time.monotonic() - self.channel.spoke_at > PROGRESS_S:
                widest = max(model.half_width() for model in self.models)
                self.channel.step("rounds", self.models[0].number, count, widest)
            self.guard.before()
            turns, after = self._round(before)
            if not self.guard.after():
                self.reference.warm_up(self.settings["warmup_s"])  # while it waited the clock fell
                before = self._reference_turn()
                continue
            for model, samples in turns:
                model.rounds.append(samples)
                model.ratios.append(min(samples["wall_s"]) / samples["reference_fastest_s"])
            before = after
            count += 1
            finished = [model for model in self.models if self._finished(model, count)]
            for model in finished:
                self._tell(model)
                self.models.remove(model)
            if finished and self.settings["energy_s"]:
                before = self._reference_turn()  # the last one was long ago

    def _round(self, before: dict[str, float]) -> Any:
        """A turn of every model in random order, each with the reference's time around it; and the reference's last."""
        order = [self.models[i] for i in self.rng.permutation(len(self.models))]
        every = self.settings["reference_every"]
        done = []
        for start in range(0, len(order), every):
            turns = []
            for model in order[start : start + every]:
                try:
                    turns.append((model, model.turn(self.calls, self.queue)))
                except RefusalError as refusal:
                    fail(model.number, refusal, self.channel)
                    self.models.remove(model)
            after = self._reference_turn()
            around = {name: round((before[name] + after[name]) / 2, 9) for name in after}
            done += [(model, {**samples, **around}) for model, samples in turns]
            before = after
        return done, before

    def _reference_turn(self) -> dict[str, float]:
        """How long the reference takes now."""
        try:
            samples = self.reference.turn(self.calls, self.queue)
        except RefusalError as refusal:
            raise RefusalError("reference", str(refusal)) from refusal
        kept = quiet(samples["wall_s"], samples["delay_s"])
        return {
            "reference_wall_s": median([samples["wall_s"][i] for i in kept]),
            "reference_cpu_s": median([samples["cpu_s"][i] for i in kept]),
            "reference_fastest_s": min(samples["wall_s"]),
        }

    def _finished(self, model: Model, count: int) -> bool:
        """Whether a model needs no more rounds: its interval is narrow enough, or its time is up (flag `unstable`)."""
        if count < FEWEST_ROUNDS:
            return False
        enough = count >= self.settings["minimum_rounds"] and model.spent_s >= self.settings["minimum_s"]
        if enough and model.half_width() <= self.settings["half_width"]:
            return True
        if model.spent_s < self.settings["maximum_s"]:
            return False
        model.flags.append("unstable")
        return True

    def _tell(self, model: Model) -> None:
        flags = model.flags + model.runner.flags + ([] if self.queue.known else ["delay-unknown"])
        energy = self._energy(model)
        self.channel.send(
            "timed",
            candidate=model.number,
            timed={
                "rounds": model.rounds,
                "session_s": round(model.session_s, 9),
                "first_run_s": round(model.first_run_s, 9),
                "model_memory_bytes": model.memory_bytes,
                "energy": energy,
                "conditions": self.guard.conditions(self.load),
                "flags": flags,
            },
        )

    def _energy(self, model: Model) -> dict[str, Any] | None:
        """What a call costs in joules, where it is asked for and a sensor exists."""
        if not self.settings["energy_s"]:
            return None
        from . import energy  # asked for by few

        meter = energy.find_meter(self.watch.accelerator_j)
        if meter is None:
            return None
        self.channel.step("energy", model.number)
        return energy.measure_energy(model.call, self.settings["energy_s"], meter)
