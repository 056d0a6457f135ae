"""What an inference costs in joules, where the machine has a sensor for it.

Some sensors count (RAPL, NVML), the others tell the power of the moment (INA219 and its kin, a Raspberry Pi 5's power
chip), which a thread then samples. Either way a meter is read over an idle and over a busy window, and a call's energy
is what the busy one took more.
"""

from __future__ import annotations

import contextlib
import glob
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .machine import read_text, system_path, vcgencmd

_SETTLING_S = 1.0
"""What ran before leaves clocks high for a while; the idle window begins after that."""
_SAMPLE_S = 0.02
_COMMAND_SAMPLE_S = 0.2
"""vcgencmd is a process each time: asked more often, it would be the load."""
_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Of a board's three-channel sensor, the channel that the others hang on."""


class Window(NamedTuple):
    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


class Meter(Protocol):
    """A sensor of energy.

    Attributes:
        name: of the sensor.
        limits: what it covers and what it leaves out, in words.
    """

    name: str
    limits: str

    def begin(self) -> None:
        """Start a window."""

    def end(self) -> Window | None:
        """The joules since `begin`, and over how many seconds; None where the sensor fell silent."""


def find_meter(gpu_energy_j: Callable[[], float | None] | None = None) -> Meter | None:
    """The best sensor here for what is measured. On a GPU, whose counter is `gpu_energy_j`, never a processor's."""
    if gpu_energy_j is not None:
        if gpu_energy_j() is not None:
            return Counter("nvml", "the GPU's board alone: no processor, no supply losses", gpu_energy_j)
        return _board_sensor()
    return _board_sensor() or _power_chip() or _packages()


def measure_energy(
    run: Callable[[], None], seconds: float, meter: Meter, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any] | None:
    """The energy of a call of `run`: `seconds` of nothing, then as long of calls. None where the sensor fell silent.

    A result of 0.0 joules is one that the sensor cannot tell from nothing.
    """
    sleep(min(_SETTLING_S, seconds))
    meter.begin()
    sleep(seconds)
    idle = meter.end()
    calls = 0
    meter.begin()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        calls += 1
    busy_s = time.perf_counter() - start
    busy = meter.end()
    if idle is None or busy is None or not calls:
        return None
    return {
        "sensor": meter.name,
        "limits": meter.limits,
        "joules_per_call": round(max(busy.watts - idle.watts, 0.0) * busy_s / calls, 9),
        "idle_w": round(idle.watts, 6),
        "busy_w": round(busy.watts, 6),
        "calls": calls,
        "window_s": round(busy_s, 6),
    }


class Counter:
    """A meter that counts joules itself, and starts again from 0 at `span_j` where it has one."""

    def __init__(self, name: str, limits: str, read_j: Callable[[], float | None], span_j: float = 0.0) -> None:
        self.name, self.limits = name, limits
        self._read_j, self._span_j = read_j, span_j
        self._began: tuple[float, float | None] = (0.0, None)

    def begin(self) -> None:
        self._began = (time.perf_counter(), self._read_j())

    def end(self) -> Window | None:
        (start, before), now, after = self._began, time.perf_counter(), self._read_j()
        if before is None or after is None:
            return None
        grown = after - before
        return Window(grown + self._span_j if grown < 0 else grown, max(now - start, 1e-9))


class Sum:
    """Several meters that count as one: the packages of a machine with more than one processor."""

    def __init__(self, meters: list[Counter]) -> None:
        self.name, self.limits = meters[0].name, meters[0].limits
        self._meters = meters

    def begin(self) -> None:
        for meter in self._meters:
            meter.begin()

    def end(self) -> Window | None:
        windows = [meter.end() for meter in self._meters]
        known = [window for window in windows if window is not None]
        if len(known) < len(windows):
            return None
        return Window(sum(window.joules for window in known), known[0].seconds)


class Sampled:
    """A meter that tells watts, read every `period_s` by a thread; between two readings power is taken as a line."""

    def __init__(self, name: str, limits: str, read_w: Callable[[], float | None], period_s: float = _SAMPLE_S) -> None:
        self.name, self.limits = name, limits
        self._read_w, self._period_s = read_w, period_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples: list[tuple[float, float]] = []

    def begin(self) -> None:
        self._samples = []
        self._stop.clear()
        self._sample()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> Window | None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        return under(self._samples)

    def _watch(self) -> None:
        while not self._stop.wait(self._period_s):
            self._sample()

    def _sample(self) -> None:
        watts = self._read_w()
        if watts is not None:
            self._samples.append((time.perf_counter(), watts))


def under(samples: list[tuple[float, float]]) -> Window | None:
    """The area under (seconds, watts); None where there are too few."""
    if len(samples) < 2:
        return None
    pairs = zip(samples, samples[1:])
    joules = sum((later - sooner) * (first + second) / 2 for (sooner, first), (later, second) in pairs)
    return Window(joules, max(samples[-1][0] - samples[0][0], 1e-9))


# -- where they are --------------------------------------------------------------------------------------------------


def _packages() -> Meter | None:
    """RAPL: the counters of the processor packages, which on most systems only root may read."""
    found: dict[str, Counter] = {}
    for zone in sorted(glob.glob(system_path("/sys/class/powercap/*:[0-9]*"))):
        driver, _, number = os.path.basename(zone).partition(":")
        package = read_text(f"{zone}/name")
        if not number.isdigit() or driver.endswith("-mmio") or not package.startswith("package"):
            continue  # a part of a package, or the same one read in another way
        read = _file(f"{zone}/energy_uj", 1e-6)
        if read() is not None:
            span = _file(f"{zone}/max_energy_range_uj", 1e-6)() or 0.0
            limits = "the processor packages alone: no board, no disk, no supply losses"
            found.setdefault(package, Counter("rapl", limits, read, span))
    return Sum(list(found.values())) if found else None


def _board_sensor() -> Meter | None:
    """A chip that measures a supply line: an INA219 or its kin, on a Jetson an INA3221."""
    for folder in sorted(glob.glob(system_path("/sys/class/hwmon/hwmon*"))):
        chip = read_text(f"{folder}/name")
        if not chip.startswith(("ina2", "ina3221")):
            continue
        read, rail = _power_of(folder, chip)
        if read is not None and read() is not None:
            return Sampled(" ".join(filter(None, (chip, rail))), "what flows through the sensor's line", read)
    return None


def _power_of(folder: str, chip: str) -> tuple[Callable[[], float | None] | None, str]:
    """How the chip's watts are read, and the name of its rail where it has several."""
    if not chip.startswith("ina3221"):
        power = _file(f"{folder}/power1_input", 1e-6)
        if power() is not None:
            return power, ""
        return _product(f"{folder}/in1_input", f"{folder}/curr1_input"), ""
    for number in (1, 2, 3):
        rail = read_text(f"{folder}/in{number}_label")
        if rail.startswith(_TOTAL_RAILS):
            return _product(f"{folder}/in{number}_input", f"{folder}/curr{number}_input"), rail
    return None, ""


def _power_chip() -> Meter | None:
    """A Raspberry Pi 5's power chip, by vcgencmd."""
    limits = "the rails its power chip feeds: no USB devices, no 5 V pins, no supply losses"
    return Sampled("pmic", limits, _rails_w, _COMMAND_SAMPLE_S) if _rails_w() is not None else None


def _rails_w() -> float | None:
    return rails_w(vcgencmd("pmic_read_adc"))


def rails_w(text: str) -> float | None:
    """The sum of volts times amperes over the rails of which both are told (`1V8_SYS_A current(1)=0.06A`)."""
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for line in text.splitlines():
        rail, _, kind = line.split()[0].rpartition("_") if line.split() else ("", "", "")
        with contextlib.suppress(ValueError):
            amount = float(line.rpartition("=")[2].strip().rstrip("AV"))
            if kind in ("A", "V"):
                (amperes if kind == "A" else volts)[rail] = amount
    both = [rail for rail in amperes if rail in volts]
    return sum(amperes[rail] * volts[rail] for rail in both) if both else None


def _product(volts: str, amperes: str) -> Callable[[], float | None]:
    millivolts, milliamperes = _file(volts, 1e-3), _file(amperes, 1e-3)

    def watts() -> float | None:
        first, second = millivolts(), milliamperes()
        return None if first is None or second is None else first * second

    return watts


def _file(path: str, unit: float) -> Callable[[], float | None]:
    def read() -> float | None:
        try:
            return float(read_text(path)) * unit
        except ValueError:
            return None

    return read
