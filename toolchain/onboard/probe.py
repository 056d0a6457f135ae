"""What a person would look at before measuring on a machine: facts, no judgement (devices/checks.py has that)."""

from __future__ import annotations

import importlib.machinery
import shutil
import sys
import time
from typing import Any

from . import install, machine
from .sensors import Sensors
from .store import free_bytes


def facts(root: str | None, modules: list[str]) -> dict[str, Any]:
    """The machine, its room and heat, and whether a worker can import each of `modules`. `root` is the agent's."""
    sensors = Sensors()
    reading = sensors.read()
    variables = install.variables(root) if root else {}
    found = machine.describe()
    found.update(
        python_executable=sys.executable,
        memory_available_bytes=machine.memory_bytes("MemAvailable"),
        swap_bytes=machine.memory_bytes("SwapTotal"),
        swap_free_bytes=machine.memory_bytes("SwapFree"),
        disk_free_bytes=free_bytes(root or "."),
        load_per_core=round(machine.load_per_core(), 3),
        busy_share=busy_share(),
        waits_known=machine.RunQueue().known,
        sensors=sensors.sources,
        throttled=reading.throttled,
        temperature_c=reading.temperature_c,
        frequency_hz=reading.frequency_hz,
        maximum_hz=reading.maximum_hz,
        pip=has_pip(),
        runtime=install.active(root) if root else "",
        clock=time.time(),
        modules={name: install.imported(name, variables, root) for name in modules},
        programs={name: shutil.which(name) is not None for name in ("vcgencmd", "nvidia-smi")},
    )
    return found


def has_pip() -> bool:
    """Whether this Python has pip. Looked for on the path alone: setuptools, where it is there, takes any other
    question after pip for a build's beginning, and puts its own distutils in place."""
    return importlib.machinery.PathFinder.find_spec("pip") is not None


def busy_share(seconds: float = 0.3) -> float:
    """What share of the processors' time somebody uses right now."""
    first = _ticks()
    time.sleep(seconds)
    last = _ticks()
    if first is None or last is None or last[1] <= first[1]:
        return 0.0
    return round(max(0.0, 1 - (last[0] - first[0]) / (last[1] - first[1])), 3)


def _ticks() -> list[int] | None:
    """Idle ticks and all ticks since the start, from /proc/stat."""
    line = machine.read_system("/proc/stat").partition("\n")[0].split()
    if len(line) < 6 or line[0] != "cpu":
        return None
    ticks = [int(one) for one in line[1:9]]
    return [ticks[3] + ticks[4], sum(ticks)]
