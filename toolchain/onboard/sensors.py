"""Heat, clocks and voltage: what a board says of itself, and when a round measured meanwhile is worth nothing."""

from __future__ import annotations

import glob
import math
import time
from typing import Any, Callable, NamedTuple

from .channel import Channel, RefusalError, Request
from .machine import read_system, read_text, system_path, vcgencmd

_LIVE = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16
"""Bits 0 to 3 of the firmware's word say what is so now, the same 16 higher what has been so since the start."""
_STEADY_DRIVERS = ("cpufreq-dt", "raspberrypi-cpufreq", "scmi", "tegra194", "bcm2835-cpufreq")
"""Clock drivers whose maximum is a speed the board keeps, not a boost it may reach."""
_SLOWED = 0.97
_CAUSES = {
    "under-voltage": ("the power supply is too weak", "use the board's own power supply and a short cable"),
    "clock at": ("its governor keeps it slow", "let it run: cpupower frequency-set -g performance"),
    "frequency capped": ("the firmware holds the clock down", "give it a fan, and the board's own power supply"),
    "": ("it is too hot", "give it a fan or a heat sink"),
}


class Reading(NamedTuple):
    """One look at the sensors; None is what the machine does not tell."""

    throttled: int | None = None
    temperature_c: float | None = None
    frequency_hz: float | None = None
    maximum_hz: float | None = None
    slowed: str = ""
    """Why an accelerator runs slower than it could; empty where it does not."""


class Sensors:
    """The sensors found on this machine."""

    def __init__(self, accelerator: Callable[[], Reading] | None = None) -> None:
        self._throttled = _throttled_source()
        self._temperatures = _temperature_files()
        self._clocks = sorted(glob.glob(system_path("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")))
        folder = "/sys/devices/system/cpu/cpu0/cpufreq/"
        steady = read_system(folder + "scaling_driver").startswith(_STEADY_DRIVERS)
        maximum_hz = _number(read_system(folder + "scaling_max_freq"), 1e3)
        self._maximum_hz = maximum_hz if steady and self._clocks else None
        self._accelerator = accelerator
        self.heat_counts = bool(steady or self._throttled or accelerator)
        """A laptop under load is as hot as it is meant to be: only where heat slows the clock is a limit one."""

    @property
    def watched(self) -> bool:
        """Whether there is anything a round could be discarded for."""
        return bool(self._throttled or self._temperatures or self._maximum_hz or self._accelerator)

    @property
    def sources(self) -> list[str]:
        found = []
        if self._throttled:
            found.append("firmware")
        if self._temperatures:
            found.append("temperature")
        if self._clocks:
            found.append("clock")
        if self._accelerator:
            found.append("accelerator")
        return found

    def read(self) -> Reading:
        clocks = [clock for clock in (_number(read_text(path), 1e3) for path in self._clocks[:8]) if clock]
        heats = [heat for heat in (_number(read_text(path), 1e-3) for path in self._temperatures) if heat is not None]
        reading = Reading(
            throttled=self._throttled() if self._throttled else None,
            temperature_c=max(heats) if heats else None,
            frequency_hz=max(clocks) if clocks else None,
            maximum_hz=self._maximum_hz,
        )
        if self._accelerator:
            own = self._accelerator()
            reading = own._replace(throttled=reading.throttled)
        return reading


def trouble(before: Reading, after: Reading, hot_c: float) -> str:
    """Why what ran between two readings was not measured at full speed; empty where it was."""
    for reading in (before, after):
        now = (reading.throttled or 0) & 0xF
        if now:
            return ", ".join(name for bit, name in _LIVE.items() if now >> bit & 1)
        if reading.slowed:
            return reading.slowed
        if reading.temperature_c is not None and reading.temperature_c >= hot_c:
            return f"{reading.temperature_c:.1f} degrees"
    new = (after.throttled or 0) & ~before.throttled if before.throttled is not None else 0
    since = [name for bit, name in _LIVE.items() if new >> (bit + _SINCE_BOOT) & 1]
    if since:
        return ", ".join(since)
    if after.frequency_hz and after.maximum_hz and after.frequency_hz < _SLOWED * after.maximum_hz:
        return f"clock at {after.frequency_hz / 1e6:.0f} of {after.maximum_hz / 1e6:.0f} MHz"
    return ""


class Guard:
    """Watches the sensors around each round; what was measured too hot or too slow is to be measured again.

    `thermal` of the request's settings: `guard` discards and waits, `sustained` measures whatever the heat.
    """

    _ATTEMPTS = 3

    def __init__(self, request: Request, sensors: Sensors, channel: Channel) -> None:
        settings = request["measure"]
        self._settings, self._sensors, self._channel = settings, sensors, channel
        self._acts = settings["thermal"] == "guard" and sensors.watched
        self._hot_c = settings["hot_c"] if sensors.heat_counts else math.inf
        self._cool_c = settings["cool_c"] if sensors.heat_counts else math.inf
        self._failed_in_a_row = 0
        self.start = self.last = sensors.read()
        self.discarded = 0
        self.cooled_s = 0.0
        self._highest_c = self.start.temperature_c
        self._lowest_hz: float | None = None  # of an idle device it says nothing

    def before(self) -> None:
        self.last = self._sensors.read()

    def after(self) -> bool:
        """Whether the round that has just ended counts. Where it does not, this returns once the board has recovered.

        Raises:
            RefusalError: `throttled`: it does not recover, or each attempt ends in the same way.
        """
        before, self.last = self.last, self._sensors.read()
        self._note(self.last)
        why = trouble(before, self.last, self._hot_c) if self._acts else ""
        if not why:
            self._failed_in_a_row = 0
            return True
        self.discarded += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row > self._ATTEMPTS:
            raise RefusalError("throttled", f"{why}: {self._failed_in_a_row} rounds in a row were discarded")
        self._recover(why)
        return False

    def _recover(self, why: str) -> None:
        """Wait until the board is cool and says nothing is wrong any more."""
        began = time.monotonic()
        while True:
            self._channel.step("cool-down", note=why)
            time.sleep(self._settings["cooling_poll_s"])
            reading = self._sensors.read()
            cool = reading.temperature_c is None or reading.temperature_c <= self._cool_c
            if cool and not (reading.throttled or 0) & 0xF and not reading.slowed:
                break
            waited = time.monotonic() - began
            if waited > self._settings["cooling_s"]:
                state = f", {reading.temperature_c:.1f} degrees" if reading.temperature_c is not None else ""
                raise RefusalError("throttled", f"{why}: no better after {waited:.0f} s{state}")
        self.cooled_s += time.monotonic() - began

    def _note(self, reading: Reading) -> None:
        if reading.temperature_c is not None:
            self._highest_c = max(self._highest_c or reading.temperature_c, reading.temperature_c)
        if reading.frequency_hz is not None:
            self._lowest_hz = min(self._lowest_hz or reading.frequency_hz, reading.frequency_hz)

    def conditions(self, load_per_core: float) -> dict[str, Any]:
        """What the sensors said from the start until now."""
        return {
            "temperature_start_c": self.start.temperature_c,
            "temperature_end_c": self.last.temperature_c,
            "temperature_highest_c": self._highest_c,
            "frequency_lowest_hz": self._lowest_hz,
            "throttled_start": self.start.throttled,
            "throttled_end": self.last.throttled,
            "rounds_discarded": self.discarded,
            "cooled_s": round(self.cooled_s, 3),
            "load_per_core": round(load_per_core, 3),
        }


def cause(why: str) -> tuple[str, str]:
    """What is behind a trouble, in words, and its cure."""
    return next(words for name, words in _CAUSES.items() if name in why)


# -- where they are --------------------------------------------------------------------------------------------------


def _throttled_source() -> Callable[[], int | None] | None:
    """How the firmware's word of throttle bits is read: by the board's vcgencmd, else from the kernel's file.

    The file comes last: the kernel keeps a word of up to two seconds ago in it, and clears its sticky bits.
    """
    if _vcgencmd() is not None:
        return _vcgencmd
    for path in sorted(glob.glob(system_path("/sys/devices/platform/soc*/*:firmware/get_throttled"))):
        return lambda: _hexadecimal(read_text(path))
    return None


def _vcgencmd() -> int | None:
    name, _, word = vcgencmd("get_throttled").partition("=")
    return _hexadecimal(word) if name == "throttled" else None  # others: error=1 error_msg="..."


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _temperature_files() -> list[str]:
    """The thermal zones of the processor; all of them where none says so."""
    zones = sorted(glob.glob(system_path("/sys/class/thermal/thermal_zone[0-9]*")))
    kinds = {zone: read_text(f"{zone}/type").lower() for zone in zones}
    own = [zone for zone, kind in kinds.items() if "cpu" in kind or "x86_pkg" in kind or "soc" in kind]
    return [f"{zone}/temp" for zone in own or zones if _number(read_text(f"{zone}/temp"), 1e-3) is not None]


def _number(text: str, unit: float) -> float | None:
    try:
        return float(text) * unit
    except ValueError:
        return None
