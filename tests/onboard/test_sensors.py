"""Heat, clocks and voltage: boards as trees of files, and what becomes of a round that was measured too hot."""

import io
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolchain.onboard import sensors as module
from toolchain.onboard.channel import Channel
from toolchain.onboard.sensors import Guard, Reading, Sensors, cause, trouble

from .asked import refusal_of

HOT_C = 78.0
FIRMWARE = {
    "pi4": "sys/devices/platform/soc/soc:firmware/get_throttled",
    "pi5": "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
}
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = (1 << bit for bit in range(4))


class Board:
    """A tree of /sys files, which MOSTOOL_SYSROOT leads to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, **files: object) -> None:
        """Files by their path, `/` written as `__`."""
        for name, content in files.items():
            self.write(name.replace("__", "/"), content)

    def write(self, name: str, content: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")

    def zone(self, number: int, kind: str, degrees: float) -> None:
        self.write(f"sys/class/thermal/thermal_zone{number}/type", kind)
        self.write(f"sys/class/thermal/thermal_zone{number}/temp", round(1000 * degrees))

    def clocks(self, driver: str, maximum_mhz: int, *now_mhz: int) -> None:
        for core, now in enumerate(now_mhz):
            folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            self.write(f"{folder}/scaling_driver", driver)
            self.write(f"{folder}/scaling_max_freq", 1000 * maximum_mhz)
            self.write(f"{folder}/scaling_cur_freq", 1000 * now)

    def pi(self, model: str = "pi4", degrees: float = 50, throttled: int = 0, now_mhz: int = 1800) -> None:
        self.write(FIRMWARE[model], f"{throttled:x}")
        self.zone(0, "cpu-thermal", degrees)
        self.clocks("cpufreq-dt", 1800 if model == "pi4" else 2400, 600, now_mhz, 600, 600)


@pytest.fixture(autouse=True)
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A machine without any sensors."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(root))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Board(root)


@pytest.fixture
def vcgencmd(tmp_path: Path) -> Callable[[str], Path]:
    """Puts a vcgencmd on PATH that does this in a shell."""

    def put(script: str) -> Path:
        path = tmp_path / "bin" / "vcgencmd"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\n[ "$*" = get_throttled ] || exit 3\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


# -- which there are ---------------------------------------------------------------------------------------------------


def test_a_raspberry_pi_4(board: Board) -> None:
    board.pi("pi4", degrees=52.582, throttled=0x50000, now_mhz=1800)
    sensors = Sensors()
    assert sensors.watched
    assert sensors.sources == ["firmware", "temperature", "clock"]
    assert sensors.read() == Reading(0x50000, pytest.approx(52.582), 1.8e9, 1.8e9)
    board.pi("pi4", degrees=81, throttled=0xD0008, now_mhz=1000)
    assert sensors.read() == Reading(0xD0008, pytest.approx(81), 1e9, 1.8e9), "each reading is of its moment"


def test_a_raspberry_pi_5(board: Board) -> None:
    board.pi("pi5", degrees=49.4, throttled=0xE0000, now_mhz=2400)
    board.zone(1, "rp1_adc", 61)
    sensors = Sensors()
    assert sensors.sources == ["firmware", "temperature", "clock"]
    assert sensors.read() == Reading(0xE0000, pytest.approx(49.4), 2.4e9, 2.4e9)


def test_a_processor_with_a_boost_is_not_slowed_by_having_none(board: Board) -> None:
    board.zone(0, "acpitz", 27.8)
    board.zone(1, "x86_pkg_temp", 71)
    board.zone(2, "iwlwifi_1", 95)
    board.put(sys__class__hwmon__hwmon3__name="coretemp", sys__class__hwmon__hwmon3__temp1_input="71000")
    board.clocks("intel_pstate", 4600, 800, 2100)
    sensors = Sensors()
    assert sensors.sources == ["temperature", "clock"]
    reading = sensors.read()
    assert reading == Reading(None, pytest.approx(71), 2.1e9, None)
    assert trouble(reading, reading, HOT_C) == ""


def test_all_zones_count_where_none_is_called_the_processors(board: Board) -> None:
    board.zone(0, "acpitz", 27.8)
    board.zone(1, "board", 44)
    board.write("sys/class/thermal/thermal_zone2/type", "broken")
    assert Sensors().read().temperature_c == pytest.approx(44)
    board.zone(3, "soc-thermal", 41)
    assert Sensors().read().temperature_c == pytest.approx(41)
    board.zone(4, "CPU-therm", 43)
    assert Sensors().read().temperature_c == pytest.approx(43), "the hottest of them"


def test_a_machine_without_any(board: Board) -> None:
    sensors = Sensors()
    assert (sensors.watched, sensors.sources, sensors.read()) == (False, [], Reading())
    assert trouble(sensors.read(), sensors.read(), -100) == ""


@pytest.mark.parametrize(("driver", "watched"), [("cpufreq-dt", True), ("scmi", True), ("acpi-cpufreq", False)])
def test_a_clock_alone_is_watched_where_it_says_something(board: Board, driver: str, watched: bool) -> None:
    board.clocks(driver, 1500, 1200)
    assert Sensors().watched == watched
    assert bool(trouble(Sensors().read(), Sensors().read(), HOT_C)) == watched


def test_a_sensor_that_stops_telling_is_missed_by_nobody(board: Board) -> None:
    board.pi()
    sensors = Sensors()
    before = sensors.read()
    for path in board.root.rglob("*"):
        if path.is_file():
            path.write_text("")
    assert sensors.read() == Reading(maximum_hz=1.8e9)
    assert trouble(before, sensors.read(), HOT_C) == ""


# -- an accelerator beside it ------------------------------------------------------------------------------------------


def test_an_accelerators_clock_is_not_compared_with_the_processors(board: Board) -> None:
    board.pi(throttled=0x50000)
    sensors = Sensors(lambda: Reading(temperature_c=40, frequency_hz=0.9e9))
    assert sensors.sources == ["firmware", "temperature", "clock", "accelerator"]
    reading = sensors.read()
    assert reading == Reading(0x50000, 40, 0.9e9, None)
    assert trouble(reading, reading, HOT_C) == ""


def test_an_accelerators_heat_is_what_counts_beside_it(board: Board) -> None:
    board.zone(0, "cpu-thermal", 85)
    assert Sensors(lambda: Reading(temperature_c=40.0)).read().temperature_c == 40
    assert Sensors(lambda: Reading(temperature_c=0.0)).read().temperature_c == 0
    assert Sensors(Reading).read().temperature_c is None
    assert Sensors().read().temperature_c == 85


def test_an_accelerator_that_slows_itself_down_is_trouble(board: Board) -> None:
    reading = Sensors(lambda: Reading(slowed="power brake")).read()
    assert trouble(Reading(), reading, HOT_C) == "power brake"
    assert trouble(reading, Reading(), HOT_C) == "power brake"


# -- vcgencmd ----------------------------------------------------------------------------------------------------------


def test_vcgencmd_is_asked_where_the_kernel_has_no_file(vcgencmd: Callable[[str], Path], tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("throttled=0x50005")
    vcgencmd(f'while read -r line || [ "$line" ]; do echo "$line"; done < {word}')
    sensors = Sensors()
    assert sensors.sources == ["firmware"]
    assert sensors.read().throttled == 0x50005
    word.write_text("throttled=0x0\n")
    assert sensors.read().throttled == 0


def test_vcgencmd_is_asked_before_the_kernels_file_which_is_late(board: Board, vcgencmd: Callable[[str], Path]) -> None:
    board.pi("pi5", throttled=0x4)
    vcgencmd("echo throttled=0x1")
    assert Sensors().read().throttled == 1
    vcgencmd("exit 1")
    assert Sensors().read().throttled == 4


@pytest.mark.parametrize(
    "script",
    [
        "echo 'error=1 error_msg=\"Command not registered\"'",
        "echo error=1",
        "echo VCHI initialization failed; exit 255",
        "echo throttled=0x50000; exit 1",
        "echo throttled=",
        "echo throttled=nonsense",
        "echo can not open /dev/vcio >&2",
        "kill -9 $$",
    ],
)
def test_a_vcgencmd_that_does_not_tell_is_no_sensor(vcgencmd: Callable[[str], Path], script: str) -> None:
    vcgencmd(script)
    assert Sensors().sources == []


def test_a_vcgencmd_that_fails_later_is_no_trouble(vcgencmd: Callable[[str], Path]) -> None:
    """Neither is its word new, when it is back: what it has said since the start it had said before."""
    vcgencmd("echo throttled=0x50000")
    sensors = Sensors()
    path = vcgencmd("exit 1")
    failed = sensors.read()
    assert failed.throttled is None
    vcgencmd("echo throttled=0x50000")
    assert trouble(failed, sensors.read(), HOT_C) == ""
    path.unlink()
    assert trouble(sensors.read(), failed, HOT_C) == ""


def test_a_vcgencmd_that_hangs_is_no_trouble(vcgencmd: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    vcgencmd("echo throttled=0x1")
    sensors = Sensors()

    def hangs(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert sensors.read().throttled is None


# -- what is trouble ---------------------------------------------------------------------------------------------------

FINE = Reading(0, 60.0, 1.8e9, 1.8e9)


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (UNDER_VOLTAGE, "under-voltage"),
        (CAPPED, "frequency capped"),
        (THROTTLED, "throttled"),
        (SOFT_LIMIT, "soft temperature limit"),
        (UNDER_VOLTAGE | THROTTLED, "under-voltage, throttled"),
        (0xF, "under-voltage, frequency capped, throttled, soft temperature limit"),
    ],
)
def test_each_bit_of_the_firmware_is_trouble_now_and_when_it_is_new(bits: int, said: str) -> None:
    old = FINE._replace(throttled=0xF0000)
    for live in (FINE._replace(throttled=bits), FINE._replace(throttled=bits | bits << 16)):
        assert trouble(FINE, live, HOT_C) == said
        assert trouble(live, FINE, HOT_C) == said
        assert trouble(old, live._replace(throttled=bits | 0xF0000), HOT_C) == said
    assert trouble(FINE, FINE._replace(throttled=bits << 16), HOT_C) == said, "it came and went in between"
    assert trouble(FINE._replace(throttled=bits << 16), FINE._replace(throttled=bits << 16), HOT_C) == ""
    assert trouble(old, old, HOT_C) == "", "of long ago"


def test_only_what_is_new_is_named() -> None:
    before, after = (FINE._replace(throttled=bits << 16) for bits in (UNDER_VOLTAGE, UNDER_VOLTAGE | THROTTLED))
    assert trouble(before, after, HOT_C) == "throttled"


def test_bits_nobody_knows_are_no_trouble() -> None:
    assert trouble(FINE, FINE._replace(throttled=0xFFF0FFF0), HOT_C) == ""


@pytest.mark.parametrize(("degrees", "said"), [(77.9, ""), (78.0, "78.0 degrees"), (85.25, "85.2 degrees")])
def test_heat_is_trouble_from_a_limit_on(degrees: float, said: str) -> None:
    hot = FINE._replace(temperature_c=degrees)
    assert trouble(FINE, hot, HOT_C) == said
    assert trouble(hot, FINE, HOT_C) == said


@pytest.mark.parametrize(
    ("share", "maximum_hz", "said"),
    [
        (1.0, 1.8e9, ""),
        (0.975, 1.8e9, ""),
        (0.9, 1.8e9, "clock at 1620 of 1800 MHz"),
        (0.9, None, ""),
    ],
)
def test_a_slow_clock_is_trouble_where_its_maximum_is_a_speed_to_keep(
    share: float, maximum_hz: float | None, said: str
) -> None:
    after = FINE._replace(frequency_hz=share * 1.8e9, maximum_hz=maximum_hz)
    assert trouble(FINE, after, HOT_C) == said
    assert trouble(after, FINE, HOT_C) == "", "it was idle before"


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("cpufreq-dt", "clock at 1620 of 1800 MHz"),
        ("tegra194", "clock at 1620 of 1800 MHz"),
        ("intel_pstate", ""),
        ("intel_cpufreq", ""),
        ("amd-pstate-epp", ""),
        ("acpi-cpufreq", ""),
        ("", ""),
    ],
)
def test_which_clocks_keep_their_maximum(board: Board, driver: str, said: str) -> None:
    board.clocks(driver, 1800, 600, 1620)
    board.zone(0, "cpu-thermal", 50)
    assert trouble(Sensors().read(), Sensors().read(), HOT_C) == said


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("under-voltage", "power supply"),
        ("under-voltage, throttled", "power supply"),
        ("frequency capped", "firmware"),
        ("soft temperature limit", "too hot"),
        ("81.0 degrees", "too hot"),
        ("clock at 600 of 1800 MHz", "governor"),
    ],
)
def test_every_trouble_has_a_cause_and_a_cure(why: str, words: str) -> None:
    behind, cure = cause(f"{why}: no better after 180 s")
    assert words in behind
    assert cure


# -- a guard -----------------------------------------------------------------------------------------------------------


class Round:
    """A guard on a board whose time passes only when it is waited for; `each` is called at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Callable[[float], None] | None = None, **measure: Any):
        self.now = 1000.0
        self.waits: list[float] = []
        self.each = each or (lambda _: None)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep))
        settings = {
            "thermal": "guard",
            "hot_c": HOT_C,
            "cool_c": 60.0,
            "cooling_s": 180.0,
            "cooling_poll_s": 2.0,
            **measure,
        }
        self.stream = io.StringIO()
        self.guard = Guard({"measure": settings}, Sensors(), Channel(self.stream))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
        self.each(self.now - 1000)

    def make(self, during: Callable[[], None] = lambda: None) -> bool:
        """A round, and whether it counts."""
        self.guard.before()
        during()
        return self.guard.after()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def test_a_cool_board_is_not_waited_for(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi(throttled=0xF0000)
    run = Round(monkeypatch)
    assert [run.make() for _ in range(10)] == [True] * 10
    assert (run.waits, run.told, run.guard.discarded, run.guard.cooled_s) == ([], [], 0, 0)


def test_a_hot_round_is_discarded_and_the_board_given_time_to_cool(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.pi()
    run = Round(monkeypatch, lambda waited: board.pi(degrees=80 - waited))
    assert not run.make(lambda: board.pi(degrees=80))
    assert len(run.waits) == 10, "until it is at 60 degrees, looked at every 2 s"
    assert [(one["step"], one["note"]) for one in run.told] == [("cool-down", "80.0 degrees")] * 10
    assert run.make()
    assert (run.guard.discarded, run.guard.cooled_s) == (1, 20.0)


def test_a_board_is_not_recovered_while_a_bit_is_live(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """However cool it is; and bits of the past do not matter."""
    board.pi()
    run = Round(monkeypatch, lambda waited: board.pi(throttled=0x50000 | (UNDER_VOLTAGE if waited < 30 else 0)))
    assert not run.make(lambda: board.pi(throttled=0x50000 | UNDER_VOLTAGE))
    assert run.guard.cooled_s == 30
    assert {one["note"] for one in run.told} == {"under-voltage"}
    assert run.make()


def test_what_was_hot_only_before_a_round_discards_it_too(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi(degrees=79)
    run = Round(monkeypatch)
    assert not run.make(lambda: board.pi(degrees=59))
    assert run.make()


def test_a_short_dip_is_recovered_from_at_the_next_look(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi()
    run = Round(monkeypatch)
    assert not run.make(lambda: board.pi(throttled=UNDER_VOLTAGE << 16))
    assert run.waits == [2.0]
    assert run.make()


def test_an_accelerator_is_waited_for_until_it_is_no_longer_slowed(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"slowed": ""}
    run = Round(monkeypatch, lambda waited: state.update(slowed="too hot" if waited < 10 else ""))
    run.guard = Guard(
        {"measure": run.guard._settings}, Sensors(lambda: Reading(slowed=state["slowed"])), Channel(run.stream)
    )
    assert not run.make(lambda: state.update(slowed="too hot"))
    assert run.guard.cooled_s == 10


@pytest.mark.parametrize(("cooling_s", "looks"), [(180.0, 91), (10.0, 6)])
def test_a_board_that_does_not_cool_is_given_up(
    board: Board, monkeypatch: pytest.MonkeyPatch, cooling_s: float, looks: int
) -> None:
    board.pi()
    run = Round(monkeypatch, cooling_s=cooling_s)
    words = rf"80\.0 degrees: no better after {cooling_s + 2:.0f} s, 80\.0 degrees"
    with refusal_of("throttled", words):
        run.make(lambda: board.pi(degrees=80))
    assert len(run.waits) == looks


def test_a_board_without_a_thermometer_is_given_up_in_fewer_words(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.write(FIRMWARE["pi4"], "1")
    with refusal_of("throttled", r"^under-voltage: no better after 182 s$"):
        Round(monkeypatch).make()


def test_three_in_a_row_are_forgiven_and_not_a_fourth(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi()
    run = Round(monkeypatch, lambda _: board.pi())
    for _ in range(3):
        assert not run.make(lambda: board.pi(degrees=90))
    with refusal_of("throttled", r"90\.0 degrees: 4 rounds in a row were discarded"):
        run.make(lambda: board.pi(degrees=90))


def test_a_good_round_makes_up_for_the_bad_ones_before(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi()
    run = Round(monkeypatch, lambda _: board.pi())
    for _ in range(3):
        assert [run.make(lambda: board.pi(degrees=90)) for _ in range(3)] == [False] * 3
        assert run.make()
    assert (run.guard.discarded, run.guard.cooled_s) == (9, 18.0)


def test_sustained_takes_every_round_as_it_is(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.pi(degrees=85, throttled=0xF000F, now_mhz=600)
    run = Round(monkeypatch, thermal="sustained")
    assert [run.make() for _ in range(10)] == [True] * 10
    assert (run.waits, run.guard.discarded) == ([], 0)
    assert run.guard.conditions(0)["temperature_highest_c"] == pytest.approx(85)


@pytest.mark.parametrize(("driver", "counts"), [("intel_pstate", True), ("acpi-cpufreq", True), ("cpufreq-dt", False)])
def test_a_laptop_may_be_as_hot_as_it_is_meant_to_be(
    board: Board, monkeypatch: pytest.MonkeyPatch, driver: str, counts: bool
) -> None:
    """Only where heat slows a clock that would else be steady is a limit one."""
    board.zone(0, "x86_pkg_temp", 96)
    board.clocks(driver, 4000, 4000)
    assert Sensors().heat_counts != counts
    run = Round(monkeypatch, lambda _: board.zone(0, "x86_pkg_temp", 50))
    assert run.make() == counts
    assert run.waits == ([] if counts else [2.0])


def test_an_accelerator_beside_a_hot_laptop_is_watched(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.zone(0, "x86_pkg_temp", 96)
    state = {"heat": 90.0}
    run = Round(monkeypatch, lambda waited: state.update(heat=90 - waited))
    request = {"measure": run.guard._settings}
    run.guard = Guard(request, Sensors(lambda: Reading(temperature_c=state["heat"])), Channel(run.stream))
    assert not run.make()
    assert run.guard.cooled_s == 30


def test_without_sensors_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Round(monkeypatch)
    assert run.make()
    assert run.guard.conditions(0.25) == {
        "temperature_start_c": None,
        "temperature_end_c": None,
        "temperature_highest_c": None,
        "frequency_lowest_hz": None,
        "throttled_start": None,
        "throttled_end": None,
        "rounds_discarded": 0,
        "cooled_s": 0.0,
        "load_per_core": 0.25,
    }


def test_the_conditions_are_those_of_the_whole_time(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the idle board at the start is none of them: it says nothing of the rounds."""
    board.pi(degrees=40, throttled=0x50000, now_mhz=600)
    run = Round(monkeypatch, lambda _: board.pi(degrees=55, throttled=0x50000, now_mhz=600))
    assert run.guard.conditions(0)["frequency_lowest_hz"] is None
    for degrees, now_mhz, throttled in ((62, 1800, 0x50000), (79, 1500, 0x50000), (66, 1790, 0x50000)):
        run.make(lambda: board.pi(degrees=degrees, throttled=throttled, now_mhz=now_mhz))  # noqa: B023 - called at once
    conditions = run.guard.conditions(0.12345)
    assert conditions == {
        "temperature_start_c": pytest.approx(40),
        "temperature_end_c": pytest.approx(66),
        "temperature_highest_c": pytest.approx(79),
        "frequency_lowest_hz": 1.5e9,
        "throttled_start": 0x50000,
        "throttled_end": 0x50000,
        "rounds_discarded": 1,
        "cooled_s": 2.0,
        "load_per_core": 0.123,
    }
