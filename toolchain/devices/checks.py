"""What a doctor says of a machine: facts in, judgements out, each with what would mend it. Nothing is asked here."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from toolchain.devices.facts import Facts, Module
from toolchain.errors import MostoolError
from toolchain.extras import INSTEAD, ONE_OF
from toolchain.onboard.sensors import Reading, cause, trouble
from toolchain.targets import Runtime, Target

State = Literal["ok", "warning", "failure", "not known", "not there"]

LEAST_MEMORY_BYTES = 400 << 20
LEAST_DISK_BYTES = 300 << 20
"""What unpacking a runtime, and importing it, take on a board."""
OLDEST_LIBC = (2, 17)
"""No wheel of any onnxruntime is for an older one."""
MACHINES = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64", "amd64": "x86_64"}
"""The processors there are wheels for, by the names a kernel gives them."""
_LITTLE_DISK_BYTES = 50 << 20
_LITTLE_PROJECT_BYTES = 1 << 30
_MUCH_SWAP_BYTES = 100 << 20
_BUSY = 0.5
_SLOWED = 0.97
_CLOCKS_APART_S = 60.0
_64_BIT = "install the 64-bit Raspberry Pi OS (or another 64-bit Linux): a 64-bit kernel alone is not enough"
_GOVERNOR = "there: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    mend: str = ""


def failures(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.state == "failure"]


def of_device(
    facts: Facts, target: Target, *, engine: Check, provider: Check, offset_s: float | None = None
) -> list[Check]:
    """Everything about a device that a measurement depends on. The two checks come from `engine_check` and
    `provider_check`; `offset_s` is how far its clock is off, None for this machine's own."""
    numpy = module_check("numpy", facts.modules.get("numpy"), setup_hint(target))
    ready = numpy.state == engine.state == "ok"
    return [
        *fitness(facts, ready=ready),
        swap(facts),
        numpy,
        engine,
        provider,
        board(facts),
        governor(facts),
        temperature(facts, target.measure.hot_c),
        *throttling(facts, guarded=target.measure.thermal == "guard"),
        clock_speed(facts),
        load(facts),
        waiting(facts),
        *([] if offset_s is None else [clock(offset_s)]),
        sensors(facts),
        *vcgencmd(facts),
    ]


# -- can it run a model at all -----------------------------------------------------------------------------------------


def fitness(facts: Facts, *, ready: bool) -> list[Check]:
    """Whether a runtime can be installed; where it is there already (`ready`), what matters of that all the same."""
    bad: State = "ok" if ready else "failure"
    bits = Check("64 bit", "ok", f"{facts.bits}-bit programs on {facts.machine}")
    if facts.bits != 64:
        bits = Check("64 bit", "failure", f"its programs are {facts.bits}-bit, on {facts.machine}", _64_BIT)
    known = facts.machine.lower() in MACHINES or facts.bits != 64
    machine = Check("processor", "ok" if known else bad, f"{facts.cpu}, {facts.cores} cores ({facts.machine})")
    if machine.state == "failure":
        machine = machine._replace(mend=f"there are ready-made runtimes for {' and '.join(sorted({*MACHINES}))} only")
    return [
        Check("python", "ok", f"{facts.python} ({facts.python_executable})"),
        bits,
        machine,
        _libc(facts, bad),
        _memory(facts, "warning" if ready else "failure"),
        _disk(facts, ready=ready),
    ]


def libc_version(text: str) -> tuple[int, int] | None:
    """(2, 36) of "glibc 2.36"; None for another C library."""
    found = re.fullmatch(r"(?:glibc|libc) (\d+)\.(\d+).*", text)
    return (int(found[1]), int(found[2])) if found else None


def _libc(facts: Facts, bad: State) -> Check:
    version = libc_version(facts.libc)
    if version is None:
        found = f"{facts.libc or 'not glibc'} ({facts.os})"
        mend = "onnxruntime is made for glibc, which Raspberry Pi OS, Debian and Ubuntu have; musl (Alpine) will not do"
        return Check("libc", bad, found, "" if bad == "ok" else mend)
    if version < OLDEST_LIBC:
        oldest = ".".join(map(str, OLDEST_LIBC))
        return Check("libc", bad, facts.libc, f"a newer system: every onnxruntime wants glibc {oldest} at least")
    return Check("libc", "ok", facts.libc)


def _memory(facts: Facts, little: State) -> Check:
    if not facts.memory_bytes:
        return Check("memory", "not known", "the system does not tell")
    found = f"{_mib(facts.memory_available_bytes)} of {_mib(facts.memory_bytes)} are free"
    if facts.memory_available_bytes >= LEAST_MEMORY_BYTES:
        return Check("memory", "ok", found)
    wanted = f"{_mib(LEAST_MEMORY_BYTES)} are wanted: end other programs, or do without the desktop (sudo raspi-config)"
    return Check("memory", little, found, wanted)


def _disk(facts: Facts, *, ready: bool) -> Check:
    found = f"{_mib(facts.disk_free_bytes)} are free"
    if facts.disk_free_bytes >= LEAST_DISK_BYTES:
        return Check("disk", "ok", found)
    state: State = "warning" if ready and facts.disk_free_bytes >= _LITTLE_DISK_BYTES else "failure"
    return Check("disk", state, found, f"free some space: {_mib(LEAST_DISK_BYTES)} are wanted")


def swap(facts: Facts) -> Check:
    used = facts.swap_bytes - facts.swap_free_bytes
    if not facts.swap_bytes:
        return Check("swap", "ok", "there is none")
    found = f"{_mib(used)} of {_mib(facts.swap_bytes)} are in use"
    if used <= _MUCH_SWAP_BYTES:
        return Check("swap", "ok", found)
    return Check("swap", "warning", found, "end other programs: what was swapped out makes latencies vary")


# -- its software ------------------------------------------------------------------------------------------------------


def setup_hint(target: Target) -> str:
    """How the runtime comes to the target's device."""
    if target.connection.__struct_config__.tag != "ssh":
        return f"install numpy and {target.runtime.engine} for the Python that runs mostool"
    if target.runtime.engine != "onnxruntime":
        return f"install {target.runtime.engine} there; on a Jetson, JetPack's: sudo apt install python3-libnvinfer"
    return f"mostool devices setup {target.id}"


def module_check(name: str, found: Module | None, mend: str) -> Check:
    """A module that has to be there."""
    if found is None:
        return Check(name, "not known", "nobody has tried to import it")
    if found.works:
        return Check(name, "ok", found.version)
    if found.signal == signal.SIGILL:
        return Check(name, "failure", "it dies of an instruction this processor lacks (SIGILL)", mend)
    return Check(name, "failure", f"{found.error}{_signal(found.signal)}", mend)


def engine_check(facts: Facts, target: Target) -> Check:
    name = target.runtime.engine
    return module_check(name, facts.modules.get(name), setup_hint(target))


def provider_check(facts: Facts, runtime: Runtime, asked: str | MostoolError | None) -> Check:
    """The provider a target wants. `asked` is what a worker said: the accelerator it found, or its refusal; None where
    no worker was asked, because the processor itself runs the model or the engine is not there."""
    engine = facts.modules.get(runtime.engine)
    name = runtime.provider or runtime.engine
    if isinstance(asked, MostoolError):
        return Check("provider", "failure", str(asked), asked.hint or "change the runtime in the target's file")
    if asked is not None:
        return Check("provider", "ok", f"{name} on {asked}")
    if engine is None or not engine.works:
        return Check("provider", "not known", f"{name}: {runtime.engine} has to be there first")
    if name in engine.providers:
        return Check("provider", "ok", name)
    have = ", ".join(engine.providers) or "none"
    return Check("provider", "failure", f"{name} is not there, only {have}", "change the runtime in the target's file")


# -- does it run at full speed -----------------------------------------------------------------------------------------


def board(facts: Facts) -> Check:
    name = facts.board or facts.cpu
    if facts.emulator:
        mend = "good for trying things out; its latencies say nothing about a real device"
        return Check("board", "warning", f"{name}, emulated by {facts.emulator}", mend)
    return Check("board", "ok", name)


def governor(facts: Facts) -> Check:
    if not facts.governor:
        return Check("governor", "not known", "the system does not tell")
    if facts.governor == "performance":
        return Check("governor", "ok", facts.governor)
    return Check("governor", "warning", f"{facts.governor}: the clock is not always at its highest", _GOVERNOR)


def temperature(facts: Facts, hot_c: float) -> Check:
    if facts.temperature_c is None:
        return Check("temperature", "not known", "no sensor")
    found = f"{facts.temperature_c:.1f} °C"
    if facts.temperature_c < hot_c:
        return Check("temperature", "ok", found)
    mend = f"let it cool, give it a fan: from {hot_c:g} °C on nothing is measured"
    return Check("temperature", "warning", found, mend)


def throttling(facts: Facts, *, guarded: bool) -> list[Check]:
    """The firmware's bits: what holds now stops a guarded measurement, what has held since the start is a remark."""
    if facts.throttled is None:
        return [Check("throttling", "not known", "the firmware does not tell")]
    now, before = facts.throttled & 0xF, facts.throttled >> 16 & 0xF
    if not now | before:
        return [Check("throttling", "ok", "neither now nor since it was started")]
    checks = []
    if now:
        checks.append(Check("throttling", "failure" if guarded else "warning", f"now: {_names(now)}", _mends(now)))
    if before & ~now:
        found = f"since it was started: {_names(before & ~now)}"
        checks.append(Check("throttling", "warning", found, _mends(before & ~now)))
    return checks


def clock_speed(facts: Facts) -> Check:
    if facts.frequency_hz is None:
        return Check("clock speed", "not known", "the system does not tell")
    found = f"{facts.frequency_hz / 1e6:.0f} MHz"
    if facts.maximum_hz is None:
        return Check("clock speed", "ok", found)
    found = f"{facts.frequency_hz / 1e6:.0f} of {facts.maximum_hz / 1e6:.0f} MHz"
    if facts.governor == "performance" and facts.frequency_hz < _SLOWED * facts.maximum_hz:
        return Check("clock speed", "warning", found, "it is held down: see temperature and throttling")
    return Check("clock speed", "ok", found)


def load(facts: Facts) -> Check:
    found = f"{facts.load_per_core:.2f} processes a core, {100 * facts.busy_share:.0f} % busy"
    if max(facts.load_per_core, facts.busy_share) <= _BUSY:
        return Check("load", "ok", found)
    return Check("load", "warning", found, "end other programs (top shows them), or wait: they make latencies vary")


def waiting(facts: Facts) -> Check:
    if facts.waits_known:
        return Check("waiting", "ok", "the kernel tells how long a process had to wait for a core")
    return Check("waiting", "not known", "the kernel does not tell how long a process had to wait for a core")


def clock(offset_s: float) -> Check:
    if not math.isfinite(offset_s) or abs(offset_s) > _CLOCKS_APART_S:
        found = f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
        return Check("clock", "warning", found, "there: sudo timedatectl set-ntp true (a wrong clock stops downloads)")
    return Check("clock", "ok", "agrees with this machine's")


def sensors(facts: Facts) -> Check:
    if not facts.sensors:
        return Check("sensors", "not known", "none: heat and throttling go unseen")
    return Check("sensors", "ok", ", ".join(facts.sensors))


def vcgencmd(facts: Facts) -> list[Check]:
    """On a Raspberry Pi alone: the program that asks its firmware."""
    if "Raspberry Pi" not in facts.board:
        return []
    there, answers = facts.programs.get("vcgencmd", False), "firmware" in facts.sensors
    if answers:
        return [Check("vcgencmd", "ok", "the firmware answers")]
    if there:
        return [Check("vcgencmd", "warning", "it gets no answer", "there: sudo usermod -aG video $USER, log in anew")]
    return [Check("vcgencmd", "warning", "it is not there", "there: sudo apt install raspi-utils")]


# -- the machine mostool itself runs on --------------------------------------------------------------------------------


def of_host(
    facts: Facts,
    *,
    ssh: bool,
    pip: bool,
    gpu: str,
    lacking: Mapping[str, Sequence[str]] = MappingProxyType({}),
    both_runtimes: bool = False,
) -> list[Check]:
    """What this machine has, to build and to reach devices with. `gpu` is its NVIDIA GPU, empty where there is none.

    `lacking` are the extras of mostool with the modules of each that are not installed (toolchain/extras.py).
    """
    pip_install = "install mostool anew: its packages belong to it"
    without = {module for modules in lacking.values() for module in modules}
    found = [
        Check("python", "ok", f"{facts.python} ({facts.python_executable})"),
        Check("processor", "ok", f"{facts.cpu}, {facts.cores} cores ({facts.machine})"),
        _memory(facts, "warning"),
        _project_disk(facts),
        *(module_check(name, facts.modules.get(name), pip_install) for name in ("numpy", "onnxruntime")),
        *(
            module_check(name, facts.modules.get(name), pip_install)
            for name in ("torch", "onnx", "tensorrt", "tensorrt_rtx")
            if name in facts.modules and name not in without
        ),
        *(_extra(name, modules) for name, modules in lacking.items()),
    ]
    if both_runtimes:
        both = f"{' and '.join(ONE_OF)} are both installed: which one runs is a matter of chance"
        found.append(Check("runtime", "warning", both, INSTEAD))
    found.append(Check("gpu", "ok", gpu or "no NVIDIA driver: only targets on a GPU need one"))
    if ssh:
        found.append(Check("ssh", "ok", "there"))
    else:
        found.append(Check("ssh", "warning", "not there: devices cannot be reached", "install the OpenSSH client"))
    if pip:
        found.append(Check("pip", "ok", "there"))
    else:
        missing = "not there: mostool devices setup cannot fetch a board's runtime"
        found.append(Check("pip", "warning", missing, "python -m ensurepip"))
    return found


def _extra(name: str, modules: Sequence[str]) -> Check:
    """An extra is no failure: what needs it says so."""
    if not modules:
        return Check(f"mostool[{name}]", "ok", "there")
    return Check(f"mostool[{name}]", "not there", f"lacks {', '.join(modules)}: pip install 'mostool[{name}]'")


def _project_disk(facts: Facts) -> Check:
    found = f"{_mib(facts.disk_free_bytes)} are free in this folder"
    if facts.disk_free_bytes >= _LITTLE_PROJECT_BYTES:
        return Check("disk", "ok", found)
    state: State = "warning" if facts.disk_free_bytes >= _LITTLE_DISK_BYTES else "failure"
    return Check("disk", state, found, f"free some space: a run takes up to {_mib(_LITTLE_PROJECT_BYTES)}")


# -- words -------------------------------------------------------------------------------------------------------------


def _mib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 10 << 30 else f"{size >> 20} MiB"


def _names(bits: int) -> str:
    """The firmware's bits of now, as a measurement that is stopped by them is told of them."""
    reading = Reading(throttled=bits)
    return trouble(reading, reading, math.inf)


def _mends(bits: int) -> str:
    return "; ".join(dict.fromkeys(cause(_names(bits & 1 << bit))[1] for bit in range(4) if bits >> bit & 1))


def _signal(number: int) -> str:
    if not number:
        return ""
    name = signal.Signals(number).name if number in {*signal.Signals} else str(number)
    return f" (killed by {name})"
