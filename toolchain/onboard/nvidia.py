"""What an NVIDIA GPU says of itself: its name and driver for the record, its heat, clocks and energy while it runs.

Through ctypes, from the two libraries that come with the driver: libcuda (cuda.py) for what it is, libnvidia-ml (NVML)
for how it does. A Jetson may have the first alone; its heat is among the board's thermal zones.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any

from .channel import RefusalError, Request
from .cuda import Device, open_library
from .machine import read_system
from .sensors import Reading

_PLACES = ("libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_SM = 1
"""Of the clocks, the one of the streaming multiprocessors."""
_SLOWDOWNS = {
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x08: "hardware slowdown",
}
_LIMITS = {0x02: "application clocks", 0x04: "software power cap", 0x10: "sync boost", 0x100: "display clocks"}
"""Reasons for a lower clock that are no trouble: how this GPU is set up, or as fast as its power limit allows."""
_SIGNATURES = {
    "nvmlInit_v2": (),
    "nvmlSystemGetDriverVersion": (c_char_p, c_uint),
    "nvmlDeviceGetHandleByPciBusId_v2": (c_char_p, POINTER(c_void_p)),
    "nvmlDeviceGetTemperature": (c_void_p, c_int, POINTER(c_uint)),
    "nvmlDeviceGetClockInfo": (c_void_p, c_int, POINTER(c_uint)),
    "nvmlDeviceGetMaxClockInfo": (c_void_p, c_int, POINTER(c_uint)),
    "nvmlDeviceGetApplicationsClock": (c_void_p, c_int, POINTER(c_uint)),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (c_void_p, POINTER(c_ulonglong)),
    "nvmlDeviceGetPersistenceMode": (c_void_p, POINTER(c_int)),
    "nvmlDeviceGetEnforcedPowerLimit": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetTotalEnergyConsumption": (c_void_p, POINTER(c_ulonglong)),
}


def device_of(request: Request) -> int:
    """The number of the GPU a request is for, as CUDA numbers them."""
    number = request["provider_options"].get("device_id", "0")
    if not number.isdigit():
        raise RefusalError("request", f"device_id must be a number, not {number!r}")
    return int(number)


def describe(number: int = 0) -> dict[str, str]:
    """The accelerator and its driver.

    Raises:
        RefusalError: `provider`: there is no driver, or no such GPU.
    """
    device = Device(number)
    versions = [_driver_version(_management()), f"CUDA {device.version}"]
    return {"accelerator": str(device), "driver": ", ".join(version for version in versions if version)}


def _driver_version(library: Any) -> str:
    """As NVML has it; a Jetson's by the release of its board software, which it comes with."""
    text = ctypes.create_string_buffer(96)
    if library is not None and not library.nvmlSystemGetDriverVersion(text, len(text)):
        return text.value.decode("ascii", "replace")
    words = read_system("/etc/nv_tegra_release").replace(",", " ").split()
    if len(words) > 4 and words[1].startswith("R"):  # "# R36 (release), REVISION: 4.0, ..."
        return f"L4T {words[1][1:]}.{words[4]}"
    return ""


def _management() -> Any:
    """NVML, started; None where it is not to be had."""
    library = open_library(_PLACES, _SIGNATURES)
    if library is not None and not library.nvmlInit_v2():
        return library
    return None


class Gpu:
    """The sensors of one GPU. `library` is NVML, or something with its functions.

    Attributes:
        watched: whether there are any; without NVML there are none.

    Raises:
        RefusalError: `provider`: there is no driver, or no such GPU.
    """

    def __init__(self, number: int = 0, device: Device | None = None, library: Any = None) -> None:
        bus = (device or Device(number)).bus
        self._library = library if library is not None else _management()
        self._handle = c_void_p()
        # By its place on the bus: NVML counts GPUs in another order than CUDA, and CUDA_VISIBLE_DEVICES hides some.
        self.watched = self._library is not None and not self._library.nvmlDeviceGetHandleByPciBusId_v2(
            bus.encode("ascii"), byref(self._handle)
        )

    def read(self) -> Reading:
        """Its heat, the clock it runs at, and why that is lower than it could be, where something is wrong."""
        temperature = self._number("nvmlDeviceGetTemperature", c_uint(), 0)
        clock = self._number("nvmlDeviceGetClockInfo", c_uint(), _SM)
        return Reading(
            temperature_c=None if temperature is None else float(temperature),
            frequency_hz=None if clock is None else clock * 1e6,
            slowed=_named(self._reasons(), _SLOWDOWNS),
        )

    def total_energy_j(self) -> float | None:
        """What it has used since its driver was loaded; None where it has no such meter (before Volta, a Jetson)."""
        millijoules = self._number("nvmlDeviceGetTotalEnergyConsumption", c_ulonglong())
        return None if millijoules is None else millijoules / 1e3

    def clock_facts(self) -> dict[str, Any]:
        """How its clocks are set up, for the record; what it does not tell is None."""
        power = self._number("nvmlDeviceGetEnforcedPowerLimit", c_uint())
        persistent = self._number("nvmlDeviceGetPersistenceMode", c_int())
        return {
            "maximum_hz": self._hertz("nvmlDeviceGetMaxClockInfo"),
            "application_hz": self._hertz("nvmlDeviceGetApplicationsClock"),
            "power_limit_w": None if power is None else power / 1e3,
            "persistence": None if persistent is None else bool(persistent),
            "limited": _named(self._reasons(), {**_SLOWDOWNS, **_LIMITS}),
        }

    def _reasons(self) -> int:
        return self._number("nvmlDeviceGetCurrentClocksThrottleReasons", c_ulonglong()) or 0

    def _hertz(self, function: str) -> float | None:
        clock = self._number(function, c_uint(), _SM)
        return None if clock is None else clock * 1e6

    def _number(self, function: str, value: Any, *arguments: int) -> int | None:
        """What NVML answers; None where this GPU or this driver does not tell."""
        asked = getattr(self._library, function, None) if self.watched else None
        if asked is None or asked(self._handle, *arguments, byref(value)):
            return None
        return int(value.value)


def _named(reasons: int, names: dict[int, str]) -> str:
    return ", ".join(name for bit, name in names.items() if reasons & bit)
