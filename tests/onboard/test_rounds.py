"""The protocol of measuring, on an engine whose runs take exactly as long as they say, and models that die."""

import gc
import io
import itertools
import json
import mmap
import os
import resource
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from toolchain.onboard import channel as channel_module
from toolchain.onboard import energy, engines, machine, model, rounds, sensors, trials
from toolchain.onboard.channel import REFERENCE, Channel, RefusalError
from toolchain.onboard.model import FEWEST_ROUNDS, Model

from .asked import refusal_of
from .test_sensors import Board

NAME = "fake"
QUICK = {
    "group": 8,
    "reference_every": 2,
    "warmup_s": 0.0,
    "calls_per_turn": 3,
    "minimum_rounds": 6,
    "minimum_s": 0.0,
    "maximum_s": 5.0,
    "half_width": 0.01,
    "thermal": "guard",
    "hot_c": 78.0,
    "cool_c": 60.0,
    "cooling_s": 180.0,
    "cooling_poll_s": 1.0,
    "sustained_s": 60.0,
    "energy_s": 0.0,
}

TURN = 4
"""Calls of a turn: one that is discarded, and three that are timed."""
FIRST = 1 + 10
"""The first call of a model's first turn, where it is steady from its first call on."""

Run = Callable[[int], float]
"""What a run of a model does, given how many there were before; how long it takes."""


class Clock:
    """Time that passes only where something takes some."""

    def __init__(self) -> None:
        self.now = 50.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def in_place_of_time(self) -> SimpleNamespace:
        return SimpleNamespace(
            perf_counter=lambda: self.now,
            monotonic=lambda: self.now,
            perf_counter_ns=lambda: round(self.now * 1e9),
            process_time_ns=lambda: round(self.now * 5e8),
            sleep=self.sleep,
        )


def wavers(count: int) -> float:
    """Another time in each turn."""
    return 0.010 + (0.002 * (count // TURN % 5) if count >= FIRST else 0)


class FakeRunner:
    names = ("y",)

    def __init__(self, lab: "Lab", path: str) -> None:
        self.lab, self.path, self.count = lab, path, 0
        self.flags = list(lab.flags)

    def run(self) -> None:
        took = self.lab.runs[self.path](self.count)
        self.count += 1
        self.lab.log.append((self.path, took))
        self.lab.clock.now += took

    def outputs(self) -> list[Any]:
        return [self.lab.output]


class Lab:
    """Models by their path, an engine that runs them, and a log of what was run and said in which order."""

    load_s = 0.25

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.runs: dict[str, Run] = {"reference": lambda _: 0.010}
        self.refused: dict[str, RefusalError] = {}
        self.flags: list[str] = []
        self.output: Any = np.ones(3, np.float32)
        self.log: list[tuple[str, float]] = []
        self.messages: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = dict(QUICK)
        self.seed = 0
        self.channel = Channel(self._stream())

    def _stream(self) -> io.StringIO:
        lab = self

        class Stream(io.StringIO):
            def write(self, text: str) -> int:
                message = json.loads(text)
                lab.messages.append(message)
                lab.log.append((f"says {message.get('step', message['type'])}", 0.0))
                return len(text)

        return Stream()

    def engine(self) -> ModuleType:
        module = ModuleType(f"toolchain.onboard.{NAME}")
        module.describe = lambda _: {"engine": NAME}  # type: ignore[attr-defined]
        module.errors = lambda: (ArithmeticError,)  # type: ignore[attr-defined]
        module.forks = lambda _: True  # type: ignore[attr-defined]
        module.on_nvidia = lambda _: False  # type: ignore[attr-defined]
        module.open_model = self.open_model  # type: ignore[attr-defined]
        return module

    def open_model(self, path: str, request: dict[str, Any], inputs: dict[str, Any]) -> FakeRunner:
        assert request["engine"] == NAME
        assert inputs["x"].shape == (2,)
        self.clock.now += self.load_s
        if path in self.refused:
            raise self.refused[path]
        return FakeRunner(self, path)

    def request(self, *candidates: str) -> dict[str, Any]:
        return {
            "engine": NAME,
            "reference": "reference",
            "candidates": list(candidates),
            "inputs": {"x": {"dtype": "float32", "shape": [2], "low": 0, "high": 1}},
            "seed": self.seed,
            "measure": self.settings,
        }

    def measure(self, **candidates: Run) -> dict[str, dict[str, Any]]:
        """Measure them; the answer about each by its name."""
        self.runs |= candidates
        names = list(candidates)
        rounds.measure(self.request(*names), self.channel)
        assert self.messages[-1]["type"] == "done"
        return self.answers(names)

    def answers(self, names: list[str]) -> dict[str, dict[str, Any]]:
        found = [message for message in self.messages if message["type"] in ("timed", "failed")]
        assert len({message["candidate"] for message in found}) == len(found), "one answer each"
        return {names[message["candidate"]]: message for message in found}

    def turns(self) -> list[tuple[str, list[float]]]:
        """Which model ran how often in a row, from the reference's turn before the first round on."""
        names = [name for name, _ in self.log]
        start = names.index("says rounds")
        while names[start - 1] in ("reference", "says beat"):
            start -= 1
        runs = [one for one in self.log[start:] if not one[0].startswith("says ")]
        return [(name, [took for _, took in group]) for name, group in itertools.groupby(runs, lambda one: one[0])]

    def steps(self) -> list[str]:
        return [message["step"] for message in self.messages if message["type"] == "step"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (rounds, model, channel_module, sensors):
        monkeypatch.setattr(module, "time", made.in_place_of_time())
    return made


@pytest.fixture
def lab(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(clock)
    monkeypatch.setitem(engines._MODULES, NAME, NAME)
    monkeypatch.setitem(sys.modules, f"toolchain.onboard.{NAME}", made.engine())
    monkeypatch.setattr(machine, "RunQueue", lambda: SimpleNamespace(known=True, waited_ns=lambda: 0, close=lambda: 0))
    monkeypatch.setattr(machine, "load_per_core", lambda: 0.25)
    yield made
    assert gc.isenabled()


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is tried in a fork first."""
    monkeypatch.setattr(rounds, "trials", lambda *_: {})


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A Raspberry Pi's sensors, of a cool one."""
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(tmp_path))
    made = Board(tmp_path)
    made.pi()
    return made


def wall(answer: dict[str, Any]) -> list[list[float]]:
    return [one["wall_s"] for one in answer["timed"]["rounds"]]


# -- rounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untried")
def test_every_model_has_a_turn_in_every_round_beside_the_reference(lab: Lab) -> None:
    answers = lab.measure(a=lambda _: 0.020, b=lambda _: 0.005, c=lambda _: 0.001)
    for name, took in (("a", 0.020), ("b", 0.005), ("c", 0.001)):
        assert wall(answers[name]) == [[pytest.approx(took)] * 3] * 6
        for one in answers[name]["timed"]["rounds"]:
            assert one["cpu_s"] == [pytest.approx(took / 2)] * 3
            assert one["delay_s"] == [0.0] * 3
            assert (one["reference_wall_s"], one["reference_cpu_s"]) == (pytest.approx(0.010), pytest.approx(0.005))
        assert answers[name]["timed"]["session_s"] == pytest.approx(0.25)
        assert answers[name]["timed"]["first_run_s"] == pytest.approx(took)
        assert answers[name]["timed"]["flags"] == []
        assert answers[name]["timed"]["conditions"]["load_per_core"] == 0.25
    turns = lab.turns()
    assert [len(group) for _, group in turns] == [4] * len(turns), "one call to fill the caches, and three that count"
    order = [name for name, _ in turns]
    assert order[0] == "reference"
    by_round = [order[i + 1 : i + 6] for i in range(0, len(order) - 1, 5)]
    assert len(by_round) == 6
    for one in by_round:
        assert (one[2], one[4], sorted(one)) == ("reference", "reference", ["a", "b", "c", "reference", "reference"])
    assert len({tuple(one) for one in by_round}) > 1, "in another order each time"


@pytest.mark.usefixtures("untried")
def test_the_order_is_the_seeds(lab: Lab) -> None:
    def order(seed: int) -> list[str]:
        lab.log.clear()
        lab.messages.clear()
        lab.seed = seed
        lab.measure(**{name: lambda _: 0.01 for name in "abcd"})
        return [name for name, _ in lab.turns()]

    first = order(1)
    assert order(1) == first
    assert order(2) != first


@pytest.mark.usefixtures("untried")
def test_the_references_time_is_that_around_each_turn(lab: Lab) -> None:
    """It drifts: what stands beside a turn is the mean of the reference just before and just after it."""
    lab.runs["reference"] = lambda count: 0.010 + 0.0001 * count
    answers = lab.measure(a=lambda _: 0.02, b=lambda _: 0.03, c=lambda _: 0.04)
    turns = lab.turns()
    seen = dict.fromkeys("abc", 0)
    references = [i for i, (name, _) in enumerate(turns) if name == "reference"]
    for i, (name, _) in enumerate(turns):
        if name == "reference":
            continue
        around = [turns[max(j for j in references if j < i)][1][1:], turns[min(j for j in references if j > i)][1][1:]]
        one = answers[name]["timed"]["rounds"][seen[name]]
        seen[name] += 1
        assert one["reference_wall_s"] == pytest.approx(statistics.mean(map(statistics.median, around)))
        assert one["reference_fastest_s"] == pytest.approx(statistics.mean(map(min, around)))
    assert seen == {name: len(wall(answer)) for name, answer in answers.items()}


@pytest.mark.usefixtures("untried")
def test_samples_that_waited_are_told_and_not_the_references(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits for a processor is slow, as here two samples of three are."""
    waited = [0]
    queue = SimpleNamespace(known=False, waited_ns=lambda: waited[0], close=lambda: None)
    monkeypatch.setattr(machine, "RunQueue", lambda: queue)

    def run(count: int) -> float:
        late = (count - FIRST) % TURN >= 2
        waited[0] += 3_000_000 * late
        return 0.013 if late else 0.010

    lab.runs["reference"] = run
    (answer,) = lab.measure(a=run).values()
    for one in answer["timed"]["rounds"]:
        assert max(one["delay_s"]) == pytest.approx(0.003)
        assert max(one["wall_s"]) == pytest.approx(0.013)
        assert (one["reference_wall_s"], one["reference_cpu_s"]) == (pytest.approx(0.010), pytest.approx(0.005))
    assert answer["timed"]["flags"] == ["delay-unknown"]


@pytest.mark.usefixtures("untried")
def test_turns_of_slow_models_are_shorter(lab: Lab) -> None:
    answers = lab.measure(slow=lambda _: 0.12, fast=lambda _: 0.01)
    assert {len(one) for answer in answers.values() for one in wall(answer)} == {2}, "0.3 s of the slowest"
    lab.log.clear()
    lab.messages.clear()
    answers = lab.measure(slow=lambda _: 3.0)
    assert {len(one) for one in wall(answers["slow"])} == {1}


# -- when it is enough -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untried")
def test_a_model_leaves_when_it_is_settled_and_the_others_go_on(lab: Lab) -> None:
    """The wavering one has other times in each turn, and never settles: its time runs out."""
    answers = lab.measure(steady=lambda _: 0.010, wavering=wavers)
    steady, wavering = answers["steady"]["timed"], answers["wavering"]["timed"]
    assert len(steady["rounds"]) == 6
    assert len(wavering["rounds"]) > 50
    assert (steady["flags"], wavering["flags"]) == ([], ["unstable"])
    told = lab.log.index(("says timed", 0.0))
    assert "steady" not in [name for name, _ in lab.log[told:]]
    spent = sum(took for name, group in lab.turns() if name == "wavering" for took in group)
    assert 5.0 <= spent <= 5.0 + 4 * 0.018, "maximum_s of its own turns, and no round more"


@pytest.mark.usefixtures("untried")
def test_a_drift_of_the_whole_machine_does_not_keep_a_model_from_settling(lab: Lab) -> None:
    """It becomes slower by a fifth in each second, while all models keep their proportions."""

    def drifting(seconds: float) -> Run:
        return lambda _: seconds * 1.2 ** (lab.clock.now - 50)

    lab.runs["reference"] = drifting(0.010)
    (answer,) = lab.measure(a=drifting(0.010)).values()
    times = [min(one) for one in wall(answer)]
    assert max(times) / min(times) > 1.03, "there was something to settle in spite of"
    assert len(times) == 6
    assert answer["timed"]["flags"] == []


@pytest.mark.usefixtures("untried")
def test_what_settles_at_last_is_not_called_unstable(lab: Lab) -> None:
    (answer,) = lab.measure(a=lambda count: wavers(count) if count < 100 else 0.010).values()
    assert answer["timed"]["flags"] == []
    assert 20 < len(answer["timed"]["rounds"]) < 200


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"minimum_rounds": 1}, FEWEST_ROUNDS),
        ({"minimum_rounds": 9}, 9),
        ({"minimum_rounds": 1, "minimum_s": 0.5}, 13),  # 0.04 s a turn
        ({"maximum_s": 0.001}, FEWEST_ROUNDS),
        ({"maximum_s": 0.5, "minimum_s": 10.0}, 13),
    ],
)
@pytest.mark.usefixtures("untried")
def test_the_least_and_the_most_of_rounds(lab: Lab, settings: dict[str, Any], least: int) -> None:
    lab.settings |= settings
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert len(answer["timed"]["rounds"]) == least
    assert answer["timed"]["flags"] == (["unstable"] if "maximum_s" in settings else [])


@pytest.mark.usefixtures("untried")
def test_progress_is_told_now_and_then(lab: Lab) -> None:
    lab.measure(a=wavers)
    told = [one for one in lab.messages if one["type"] == "step" and one["step"] == "rounds"]
    assert told[0]["rounds"] == 0
    assert [one["rounds"] for one in told] == sorted({one["rounds"] for one in told})
    assert told[0]["half_width"] == 1.0
    assert 0 < told[-1]["half_width"] < 1
    assert 10 <= len(told) <= 60, "5 s of turns beside a reference's"


@pytest.mark.usefixtures("untried")
def test_what_was_spent_inside_inferences_is_no_more_than_all(lab: Lab) -> None:
    lab.refused["lost"] = RefusalError("load", "broken")
    lab.measure(a=lambda _: 0.020, short=lambda _: 0.00001, lost=lambda _: 1.0)
    done = lab.messages[-1]
    runs = sum(took for name, took in lab.log if not name.startswith("says "))
    assert done["called_s"] == pytest.approx(runs, abs=1e-5)
    assert done["elapsed_s"] == pytest.approx(runs + 4 * lab.load_s, abs=1e-5)
    assert done["called_s"] <= done["elapsed_s"]


# -- what fails --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untried")
def test_a_model_that_fails_in_mid_round_is_reported_and_the_others_measured_on(lab: Lab) -> None:
    def breaks(count: int) -> float:
        if count >= 30:
            raise ZeroDivisionError("it broke")
        return 0.010

    answers = lab.measure(a=lambda _: 0.010, breaks=breaks, b=lambda _: 0.020)
    assert answers["breaks"]["stage"] == "run"
    assert answers["breaks"]["error"] == "it broke"
    assert len(wall(answers["a"])) == len(wall(answers["b"])) == 6
    assert lab.log.index(("says failed", 0.0)) > lab.log.index(("says rounds", 0.0))


@pytest.mark.usefixtures("untried")
def test_a_group_of_which_nothing_is_left_is_done(lab: Lab) -> None:
    def breaks(count: int) -> float:
        if count >= 30:
            raise ZeroDivisionError
        return 0.010

    answers = lab.measure(a=breaks, b=breaks)
    assert [answer["type"] for answer in answers.values()] == ["failed", "failed"]
    lab.messages.clear()
    assert lab.measure() == {}


@pytest.mark.parametrize("kind", ["load", "run", "memory"])
@pytest.mark.usefixtures("untried")
def test_a_model_that_is_refused_is_a_failure_of_its_own(lab: Lab, kind: str) -> None:
    lab.refused["bad"] = RefusalError(kind, "x" * 1000)
    answers = lab.measure(bad=lambda _: 1.0, good=lambda _: 0.010)
    assert (answers["bad"]["type"], answers["bad"]["stage"], answers["bad"]["error"]) == ("failed", kind, "x" * 500)
    assert answers["good"]["type"] == "timed"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("untried")
def test_outputs_that_are_no_numbers_are_a_failure(lab: Lab, value: float) -> None:
    plain = lab.output

    def spoils(count: int) -> float:
        lab.output = np.array([1.0, value], np.float16) if count == 0 else plain
        return 0.010

    answers = lab.measure(bad=spoils, good=lambda _: lab.__setattr__("output", plain) or 0.010)
    assert (answers["bad"]["stage"], answers["bad"]["error"]) == ("run", "output 'y' is not finite")
    assert answers["good"]["type"] == "timed"


@pytest.mark.usefixtures("untried")
def test_a_provider_that_is_missing_fails_all(lab: Lab) -> None:
    lab.refused["a"] = RefusalError("provider", "no such")
    with refusal_of("provider", "no such"):
        lab.measure(a=lambda _: 1.0)


@pytest.mark.parametrize(("kind", "told"), [("load", "reference"), ("run", "reference"), ("provider", "provider")])
@pytest.mark.usefixtures("untried")
def test_without_a_reference_nothing_is_measured(lab: Lab, kind: str, told: str) -> None:
    lab.refused["reference"] = RefusalError(kind, "why")
    with refusal_of(told, f"{kind}: why"):
        lab.measure(a=lambda _: 0.010)


@pytest.mark.usefixtures("untried")
def test_a_reference_that_fails_in_mid_round_fails_all(lab: Lab) -> None:
    def breaks(count: int) -> float:
        if count >= 60:
            raise ZeroDivisionError("it broke")
        return 0.010

    lab.runs["reference"] = breaks
    with refusal_of("reference", "it broke"):
        lab.measure(a=wavers)


# -- heat --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untried")
def test_a_hot_round_leaves_no_samples_and_is_made_again(
    lab: Lab, board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds are ten times as slow as the others, and the board says why."""

    def heats(count: int) -> float:
        if (count - FIRST) // TURN in (3, 7):
            board.pi(degrees=85, now_mhz=600)
            return 0.100
        return 0.010

    def cools(seconds: float) -> None:
        clock.now += seconds
        board.pi()

    sensors.time.sleep = cools  # type: ignore[attr-defined]
    lab.settings |= {"minimum_rounds": 12}
    answers = lab.measure(heats=heats, other=lambda _: 0.010)
    conditions = answers["heats"]["timed"]["conditions"]
    assert (conditions["rounds_discarded"], conditions["cooled_s"]) == (2, 2.0)
    assert conditions["temperature_highest_c"] == 85
    for answer in answers.values():
        assert wall(answer) == [[pytest.approx(0.010)] * 3] * 12
        assert [one["reference_wall_s"] for one in answer["timed"]["rounds"]] == [pytest.approx(0.010)] * 12
    assert sum(name == "heats" for name, _ in lab.turns()) == 14
    assert lab.steps().count("cool-down") == 2


@pytest.mark.usefixtures("untried")
def test_after_a_discarded_round_the_reference_is_measured_anew(lab: Lab, board: Board) -> None:
    """Its time in the heat stands beside no turn."""
    state = {"hot": 0}

    def run(count: int) -> float:
        if count == FIRST + 3 * TURN:
            state["hot"] = 1
            board.pi(degrees=85)
        return 0.010

    def cools(seconds: float) -> None:
        state["hot"] = 0
        board.pi()

    sensors.time.sleep = cools  # type: ignore[attr-defined]
    lab.runs["reference"] = lambda _: 0.500 if state["hot"] else 0.010
    lab.settings |= {"minimum_rounds": 12}
    (answer,) = lab.measure(a=run).values()
    assert answer["timed"]["conditions"]["rounds_discarded"] == 1
    assert {one["reference_wall_s"] for one in answer["timed"]["rounds"]} == {0.010}
    assert any(0.500 in group for name, group in lab.turns() if name == "reference")


@pytest.mark.usefixtures("untried")
def test_a_board_that_stays_hot_is_given_up_and_what_was_settled_is_told_before(lab: Lab, board: Board) -> None:
    def run(count: int) -> float:
        if count > 60:
            board.pi(throttled=1)
        return wavers(count)

    with refusal_of("throttled", "under-voltage: no better after 181 s, 50.0 degrees"):
        lab.measure(a=run, settles=lambda _: 0.010)
    assert [message["type"] for message in lab.answers(["a", "settles"]).values()] == ["timed"]


@pytest.mark.usefixtures("untried")
def test_sustained_heats_up_first_and_takes_every_round(lab: Lab, board: Board) -> None:
    board.pi(degrees=90, throttled=0xF)
    lab.settings |= {"thermal": "sustained", "sustained_s": 20.0}
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert len(wall(answer)) == 6
    assert answer["timed"]["conditions"]["rounds_discarded"] == 0
    assert "cool-down" not in lab.steps()
    warm_up = [name for name, _ in lab.log].index("a")
    assert sum(took for name, took in lab.log[:warm_up] if name == "reference") >= 20


# -- energy, remarks ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untried")
def test_energy_is_metered_where_it_is_asked_for_and_a_meter_is_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    metered: list[float] = []

    def measures(call: Callable[[], None], seconds: float, meter: object) -> dict[str, Any]:
        assert meter == "a meter"
        call()
        metered.append(seconds)
        return {"joules_per_call": 1.0}

    monkeypatch.setattr(energy, "measure_energy", measures)
    monkeypatch.setattr(energy, "find_meter", lambda _: "a meter")
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert (answer["timed"]["energy"], metered) == (None, [])
    lab.messages.clear()
    lab.settings["energy_s"] = 3.0
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert (answer["timed"]["energy"], metered) == ({"joules_per_call": 1.0}, [3.0])
    assert "energy" in lab.steps()
    lab.messages.clear()
    monkeypatch.setattr(energy, "find_meter", lambda _: None)
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert answer["timed"]["energy"] is None


@pytest.mark.usefixtures("untried")
def test_an_engines_remarks_are_handed_on(lab: Lab) -> None:
    lab.flags = ["enqueue-bound"]
    (answer,) = lab.measure(a=lambda _: 0.010).values()
    assert answer["timed"]["flags"] == ["enqueue-bound"]


# -- one model ---------------------------------------------------------------------------------------------------------


def warmed(lab: Lab, run: Run, seconds: float = 0.0) -> tuple[Model, int]:
    """A model after its warm-up, and how many calls that took."""
    lab.runs["a"] = run
    one = Model(0, "a", lab.request(), {"x": np.zeros(2)}, lab.channel)
    one.warm_up(seconds)
    return one, sum(name == "a" for name, _ in lab.log) - 1


@pytest.mark.parametrize(
    ("run", "seconds", "calls", "flags"),
    [
        (lambda _: 0.010, 0.0, 10, []),
        (lambda _: 0.010, 0.495, 50, []),
        (lambda count: 0.010 * 1.05 ** min(count, 20), 0.0, 27, []),  # until both medians are of the 20th or later ones
        (lambda count: 0.010 * 1.01 ** min(count, 20), 0.0, 25, []),  # or of one that differs by 2 % from it
        (lambda count: 0.010 * (2 + (-1) ** (count // 5)), 0.0, None, ["not-steady"]),
        (lambda _: 4.0, 0.0, 3, ["not-steady"]),
        (lambda _: 11.0, 0.0, 1, ["not-steady"]),
    ],
)
def test_a_model_is_warmed_up_until_it_is_steady(
    lab: Lab, run: Run, seconds: float, calls: int | None, flags: list[str]
) -> None:
    one, took = warmed(lab, run, seconds)
    assert one.flags == flags
    if calls is None:
        assert sum(took for name, took in lab.log if name == "a") == pytest.approx(10, abs=0.1)
    else:
        assert took == calls


@pytest.mark.parametrize(("call_s", "repeats"), [(0.01, 1), (101e-6, 1), (99e-6, 3), (19e-6, 11), (0.5e-6, 200)])
def test_short_calls_are_timed_in_batches(lab: Lab, call_s: float, repeats: int) -> None:
    one, calls = warmed(lab, lambda _: call_s)
    assert one.repeats == pytest.approx(repeats, abs=1 if call_s < 1e-6 else 0)
    samples = one.turn(2, machine.RunQueue())
    assert samples["wall_s"] == [pytest.approx(call_s, rel=1e-3)] * 2
    assert samples["cpu_s"] == [pytest.approx(call_s / 2, rel=0.01)] * 2
    assert sum(name == "a" for name, _ in lab.log) - 1 - calls == 1 + 2 * one.repeats


def test_a_long_silence_is_broken(lab: Lab) -> None:
    warmed(lab, lambda _: 1.5)
    assert [message["type"] for message in lab.messages].count("beat") >= 5


@pytest.mark.parametrize(
    ("ratios", "half_width"),
    [
        ([], 1.0),
        ([1.0] * 4, 1.0),
        ([1.0] * 5, 0.0),
        ([1.0, 1.1, 0.9, 1.05, 0.95], 0.1),
        ([1.0] * 50 + [9.0] * 5, 0.0),
        ([*range(1, 101)], (60 - 41) / (2 * 50.5)),  # the 41st and the 60th of a hundred
    ],
)
def test_the_interval_is_of_order_statistics(lab: Lab, ratios: list[float], half_width: float) -> None:
    one, _ = warmed(lab, lambda _: 0.010)
    one.ratios = ratios
    assert one.half_width() == pytest.approx(half_width)


# -- trials ------------------------------------------------------------------------------------------------------------

forking = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def dies(number: int) -> Run:
    def run(_: int) -> float:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # pytest has a handler that tells where
        os.kill(os.getpid(), number)
        raise AssertionError("it lives")

    return run


@forking
def test_a_model_that_dies_takes_nothing_with_it(lab: Lab) -> None:
    answers = lab.measure(
        good=lambda _: 0.010,
        killed=dies(signal.SIGKILL),
        crashes=dies(signal.SIGSEGV),
        aborts=dies(signal.SIGABRT),
        leaves=lambda _: os._exit(3),
        also_good=lambda _: 0.020,
    )
    failed = {name: (one["stage"], one["error"]) for name, one in answers.items() if one["type"] == "failed"}
    assert failed == {
        "killed": ("memory", "killed by signal 9 (out of memory?)"),
        "crashes": ("load", "it crashes the engine: killed by signal 11"),
        "aborts": ("load", "it crashes the engine: killed by signal 6"),
        "leaves": ("load", "its process ended with status 3"),
    }
    assert wall(answers["also_good"]) == [[pytest.approx(0.020)] * 3] * 6
    assert answers["good"]["timed"]["model_memory_bytes"] >= 0
    ran = {name for name, _ in lab.log if not name.startswith("says ")}
    assert ran == {"reference", "good", "also_good"}, "nothing of the others here"
    tried = [one["candidate"] for one in lab.messages if one["type"] == "step" and one["step"] == "try"]
    assert tried == [0, 1, 2, 3, 4, 5]


@forking
def test_no_model_is_loaded_here_before_all_are_tried(lab: Lab) -> None:
    lab.measure(a=lambda _: 0.010, b=lambda _: 0.010)
    steps = lab.steps()
    assert steps.index("load") > max(i for i, step in enumerate(steps) if step == "try")
    assert next(one["candidate"] for one in lab.messages if one.get("step") == "load") == REFERENCE


@forking
@pytest.mark.parametrize("kind", ["load", "run", "memory", "provider"])
def test_what_is_refused_in_a_trial_is_refused(lab: Lab, kind: str) -> None:
    lab.refused["a"] = RefusalError(kind, "because of\nthis, and ünïcode \udc80")
    lab.runs["a"] = lambda _: 0.010
    with pytest.raises(RefusalError) as caught:
        trials.in_a_fork("a", lab.request("a"), {"x": np.zeros(2)})
    assert caught.value.kind == kind
    assert str(caught.value).startswith("because of\nthis, and ünïcode ")


@forking
@pytest.mark.parametrize("fault", [ZeroDivisionError("it broke"), RefusalError("run", "it broke")])
def test_a_run_that_fails_in_a_trial_has_failed(lab: Lab, fault: Exception) -> None:
    def breaks(_: int) -> float:
        raise fault

    lab.runs["a"] = breaks
    with refusal_of("run", "it broke"):
        trials.in_a_fork("a", lab.request("a"), {"x": np.zeros(2)})


@forking
def test_a_fault_nobody_expects_ends_the_trial_and_not_the_worker(lab: Lab) -> None:
    def breaks(_: int) -> float:
        raise KeyboardInterrupt

    lab.runs["a"] = breaks
    with refusal_of("load", "its process ended with status 1"):
        trials.in_a_fork("a", lab.request("a"), {"x": np.zeros(2)})


@forking
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset here")
def test_the_memory_of_one_model_alone_is_told(lab: Lab) -> None:
    kept: list[mmap.mmap] = []

    def takes(mebibytes: int) -> Run:
        def run(count: int) -> float:
            if count == 0 and mebibytes:
                kept.append(mmap.mmap(-1, mebibytes << 20))  # pages of its own: malloc may hand out what others freed
                for start in range(0, mebibytes << 20, mmap.PAGESIZE):
                    kept[-1][start] = 1
            return 0.010

        return run

    found = {}
    for size in (0, 64, 128):
        lab.runs["a"] = takes(size)
        found[size] = trials.in_a_fork("a", lab.request("a"), {"x": np.zeros(2)})
    assert kept == [], "all of it was somewhere else"
    assert found[0] < 8 << 20
    assert 63 << 20 < found[64] < 72 << 20
    assert 127 << 20 < found[128] < 136 << 20


@forking
def test_a_provider_that_is_missing_in_a_trial_fails_all(lab: Lab) -> None:
    lab.refused["b"] = RefusalError("provider", "no such")
    with refusal_of("provider", "no such"):
        lab.measure(a=lambda _: 0.010, b=lambda _: 0.010)
