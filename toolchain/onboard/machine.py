"""Facts about the machine this runs on, read from /proc and /sys."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import struct
import subprocess
import sys
from typing import Any

ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "asimdhp", "i8mm", "bf16", "sve")
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd42": "Cortex-A78AE",
}
_UNIT_DIGITS = 6
"""Of a board's hashed serial number: enough to tell two boards apart, too few to find the number again."""


def system_path(path: str) -> str:
    """A path under /sys or /proc, led elsewhere by MOSTOOL_SYSROOT."""
    return os.environ.get("MOSTOOL_SYSROOT", "").rstrip("/") + path


def read_system(path: str) -> str:
    """The text of a file under /sys or /proc; empty where it cannot be read."""
    return read_text(system_path(path))


def read_text(path: str) -> str:
    """The text of a small file, as it is named; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
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


def describe() -> dict[str, Any]:
    """What a measurement's environment says of the machine. No host name, no serial number."""
    cpu = fields(read_system("/proc/cpuinfo"), ":")
    features = (cpu.get("flags") or cpu.get("Features") or "").split()
    part = cpu.get("CPU part", "")
    release: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as stream:
        release = fields(stream.read(), "=")
    return {
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "cpu": cpu.get("model name") or ARM_PARTS.get(part, part) or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes("MemTotal"),
        "os": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "governor": read_system("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "python": platform.python_version(),
        "isa": [name for name in ISA if name in features],
        "board": board(),
        "unit": unit(cpu.get("Serial", "")),
        "emulator": emulator(),
        "boot_id": read_system("/proc/sys/kernel/random/boot_id"),
    }


def environment(engine: dict[str, str]) -> dict[str, Any]:
    """The machine, and what its `engine` says of itself."""
    return {"accelerator": "", "driver": "", **describe(), **engine}


def board() -> str:
    return read_system("/proc/device-tree/model") or read_system("/sys/firmware/devicetree/base/model")


def unit(serial: str = "") -> str:
    """Tells this board from another of its kind: the beginning of a hash of its serial number or machine id."""
    own = (
        serial
        or read_system("/proc/device-tree/serial-number")
        or read_system("/sys/firmware/devicetree/base/serial-number")
    )
    if not own:
        with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii") as stream:
            own = stream.read().strip()
    return hashlib.sha256(b"mostool" + own.encode()).hexdigest()[:_UNIT_DIGITS] if own else ""


def emulator() -> str:
    """What pretends to be this processor; empty on a real one.

    User emulation shows a process its own /proc/self/cmdline as it would be on the real machine. It lets through the
    one of its thread, which is as the host runs it: the emulator with its program as an argument.
    """
    real = f"/proc/self/task/{os.getpid()}/cmdline"  # whatever SYSROOT says
    with contextlib.suppress(OSError), open(real, "rb") as stream:
        started = os.path.basename(stream.read().split(b"\0")[0])
        if started.startswith(b"qemu-"):
            return started.decode("ascii", "replace")
    # A whole machine may be emulated too. Some such are real processors' own, lent to a guest; but to call a real
    # number emulated is the smaller error.
    machine_kind = read_system("/sys/firmware/devicetree/base/compatible") or board()
    return "qemu-system" if "dummy-virt" in machine_kind else ""


def vcgencmd(question: str) -> str:
    """What a Raspberry Pi's firmware answers; empty where there is none to ask."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            ["vcgencmd", question],  # noqa: S607 - from PATH, as a user would
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=True,
        )
        return asked.stdout.decode("ascii", "replace").strip()
    return ""


def usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes(name: str) -> int:
    """A line of /proc/meminfo (MemTotal, MemAvailable); 0 where it is not known."""
    size = fields(read_system("/proc/meminfo"), ":").get(name, "0 kB").split()
    return int(size[0]) * 1024 if size and size[0].isdigit() else 0


def load_per_core() -> float:
    """How many processes want each core, over the last minute."""
    try:
        return os.getloadavg()[0] / usable_cores()
    except OSError:
        return 0.0


def peak_bytes() -> int:
    """The peak resident set. Not ru_maxrss where it can be helped: that one remembers the process that started us."""
    peak = fields(read_system("/proc/self/status"), ":").get("VmHWM", "").split()
    if peak:
        return int(peak[0]) * 1024
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Let `peak_bytes` count from now on, where the system can."""
    with contextlib.suppress(OSError), open(system_path("/proc/self/clear_refs"), "w", encoding="ascii") as stream:
        stream.write("5")


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
            for task in os.listdir(folder):  # names are enough
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
