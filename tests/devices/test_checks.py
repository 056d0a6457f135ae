"""What a doctor says of a machine: each fact that matters, its judgement, its mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolchain.devices import checks
from toolchain.devices.checks import Check
from toolchain.devices.facts import Facts, Module, facts_here
from toolchain.errors import DeviceError
from toolchain.targets import Measure, Runtime, Ssh, Target

TARGET = Target(id="rpi", title="a board", connection=Ssh(host="board"))
ENGINE = Module(version="1.22.1", providers=("AzureExecutionProvider", "CPUExecutionProvider"))
HEALTHY = Facts(
    machine="aarch64",
    bits=64,
    cpu="Cortex-A72",
    cores=4,
    os="Debian GNU/Linux 12 (bookworm)",
    libc="glibc 2.36",
    governor="performance",
    python="3.11.2",
    board="Raspberry Pi 4 Model B Rev 1.5",
    emulator="",
    python_executable="/usr/bin/python3",
    memory_bytes=4 << 30,
    memory_available_bytes=3 << 30,
    swap_bytes=512 << 20,
    swap_free_bytes=512 << 20,
    disk_free_bytes=20 << 30,
    load_per_core=0.1,
    busy_share=0.02,
    waits_known=True,
    sensors=("firmware", "temperature", "clock"),
    throttled=0,
    temperature_c=48.3,
    frequency_hz=1.8e9,
    maximum_hz=1.8e9,
    pip=True,
    runtime="",
    clock=1.7e9,
    modules={"numpy": Module(version="2.2.6"), "onnxruntime": ENGINE},
    programs={"vcgencmd": True, "nvidia-smi": False},
)


def examined(target: Target = TARGET, offset_s: float | None = 0.0, **changed: Any) -> list[Check]:
    facts = msgspec.structs.replace(HEALTHY, **changed)
    engine = checks.engine_check(facts, target)
    provider = checks.provider_check(facts, target.runtime, None)
    return checks.of_device(facts, target, engine=engine, provider=provider, offset_s=offset_s)


def test_nothing_is_wrong_with_a_healthy_board() -> None:
    found = examined()
    assert {check.state for check in found} == {"ok"}
    assert not any(check.mend for check in found)
    assert len({check.name for check in found}) == len(found)


@pytest.mark.parametrize(
    ("changed", "name", "state", "said"),
    [
        ({"bits": 32}, "64 bit", "failure", "64-bit Raspberry Pi OS"),
        ({"bits": 32, "machine": "armv7l"}, "64 bit", "failure", "on armv7l"),
        ({"memory_available_bytes": 200 << 20}, "memory", "warning", "400 MiB are wanted"),
        ({"memory_bytes": 0}, "memory", "not known", ""),
        ({"disk_free_bytes": 200 << 20}, "disk", "warning", "300 MiB are wanted"),
        ({"disk_free_bytes": 20 << 20}, "disk", "failure", "20 MiB are free"),
        ({"swap_free_bytes": 300 << 20}, "swap", "warning", "212 MiB of 512 MiB are in use"),
        ({"swap_bytes": 0, "swap_free_bytes": 0}, "swap", "ok", "there is none"),
        ({"emulator": "qemu-aarch64"}, "board", "warning", "emulated by qemu-aarch64"),
        ({"governor": "ondemand"}, "governor", "warning", "echo performance | sudo tee"),
        ({"governor": ""}, "governor", "not known", ""),
        ({"temperature_c": 79.0}, "temperature", "warning", "79.0 °C"),
        ({"temperature_c": None}, "temperature", "not known", ""),
        ({"throttled": 0x1}, "throttling", "failure", "now: under-voltage"),
        ({"throttled": 0x50000}, "throttling", "warning", "since it was started: under-voltage, throttled"),
        ({"throttled": 0xE0000}, "throttling", "warning", "a fan or a heat sink"),
        ({"throttled": None}, "throttling", "not known", ""),
        ({"frequency_hz": 6e8}, "clock speed", "warning", "600 of 1800 MHz"),
        ({"frequency_hz": 6e8, "governor": "ondemand"}, "clock speed", "ok", "600 of 1800 MHz"),
        ({"maximum_hz": None}, "clock speed", "ok", "1800 MHz"),
        ({"frequency_hz": None}, "clock speed", "not known", ""),
        ({"load_per_core": 0.8}, "load", "warning", "0.80 processes a core"),
        ({"busy_share": 0.7}, "load", "warning", "70 % busy"),
        ({"waits_known": False}, "waiting", "not known", ""),
        ({"sensors": ()}, "sensors", "not known", "none"),
        ({"sensors": ("temperature",)}, "vcgencmd", "warning", "usermod -aG video"),
        ({"sensors": (), "programs": {}}, "vcgencmd", "warning", "apt install raspi-utils"),
        ({"offset_s": -7200.0}, "clock", "warning", "7200 s behind this machine's"),
        ({"offset_s": 90.0}, "clock", "warning", "90 s ahead of this machine's"),
        ({"offset_s": float("nan")}, "clock", "warning", "timedatectl"),
    ],
    ids=str,
)
def test_each_trouble_is_seen_and_has_its_mend(changed: dict[str, Any], name: str, state: str, said: str) -> None:
    (check,) = (check for check in examined(**changed) if check.name == name)
    assert check.state == state
    assert said in f"{check.found} -> {check.mend}"
    assert bool(check.mend) is (state in {"warning", "failure"})


def test_only_a_raspberry_pi_is_asked_for_its_firmwares_program() -> None:
    assert "vcgencmd" not in {check.name for check in examined(board="Jetson Nano", sensors=())}


def test_this_machines_clock_is_not_compared_with_itself() -> None:
    assert "clock" not in {check.name for check in examined(offset_s=None)}


def test_throttling_now_does_not_stop_a_sustained_measurement() -> None:
    target = msgspec.structs.replace(TARGET, measure=Measure(thermal="sustained"))
    (now, before) = (check for check in examined(target, throttled=0x50004) if check.name == "throttling")
    assert (now.state, now.found) == ("warning", "now: throttled")
    assert (before.state, before.found) == ("warning", "since it was started: under-voltage")


def test_heat_is_judged_by_the_target() -> None:
    target = msgspec.structs.replace(TARGET, measure=Measure(hot_c=85.0))
    assert {check.state for check in examined(target, temperature_c=80.0) if check.name == "temperature"} == {"ok"}


# -- software ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Module(error="ModuleNotFoundError: No module named 'onnxruntime'"), "No module named"),
        (Module(error="status 132", signal=4), "an instruction this processor lacks (SIGILL)"),
        (Module(error="out of words", signal=11), "out of words (killed by SIGSEGV)"),
        (Module(error="out of words", signal=99), "out of words (killed by 99)"),
    ],
)
def test_an_engine_that_cannot_be_imported_is_set_up(module: Module, said: str) -> None:
    found = examined(modules={"numpy": Module(version="2"), "onnxruntime": module})
    (engine,) = (check for check in found if check.name == "onnxruntime")
    assert (engine.state, engine.mend) == ("failure", "mostool devices setup rpi")
    assert said in engine.found
    (provider,) = (check for check in found if check.name == "provider")
    assert provider.state == "not known"


def test_what_setup_does_not_install_is_not_told_to_be_set_up() -> None:
    jetson = Target(id="jetson", title="", runtime=Runtime(engine="tensorrt"), connection=Ssh(host="jetson"))
    (engine,) = (check for check in examined(jetson, modules={}) if check.name == "tensorrt")
    assert engine.state == "not known"
    assert "JetPack" in checks.setup_hint(jetson)
    assert "setup" not in checks.setup_hint(Target(id="cpu", title=""))


def test_a_provider_is_asked_for_by_name() -> None:
    gpu = Runtime(provider="CUDAExecutionProvider")
    assert checks.provider_check(HEALTHY, Runtime(), None).state == "ok"
    missing = checks.provider_check(HEALTHY, gpu, None)
    assert (missing.state, "only AzureExecutionProvider" in missing.found) == ("failure", True)
    assert checks.provider_check(HEALTHY, gpu, "NVIDIA T4").found == "CUDAExecutionProvider on NVIDIA T4"
    refused = checks.provider_check(HEALTHY, gpu, DeviceError("no GPU", why="no driver", hint="install it"))
    assert refused == Check("provider", "failure", "no GPU (no driver)", "install it")


# -- what a setup refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"bits": 32}, "64 bit"),
        ({"machine": "riscv64"}, "processor"),
        ({"libc": "glibc 2.16"}, "libc"),
        ({"libc": ""}, "libc"),
        ({"libc": "musl 1.2"}, "libc"),
        ({"memory_available_bytes": 200 << 20}, "memory"),
        ({"disk_free_bytes": 200 << 20}, "disk"),
    ],
    ids=str,
)
def test_what_stops_a_setup_is_known_before_it_begins(changed: dict[str, Any], name: str) -> None:
    facts = msgspec.structs.replace(HEALTHY, **changed)
    (failed,) = checks.failures(checks.fitness(facts, ready=False))
    assert failed.name == name
    assert failed.mend
    if name != "64 bit":
        assert not checks.failures(checks.fitness(facts, ready=True))


@pytest.mark.parametrize(
    ("text", "version"),
    [("glibc 2.36", (2, 36)), ("libc 2.31", (2, 31)), ("glibc 2.36-9", (2, 36)), ("musl 1.2", None), ("", None)],
)
def test_the_version_of_a_c_library(text: str, version: tuple[int, int] | None) -> None:
    assert checks.libc_version(text) == version


# -- this machine ------------------------------------------------------------------------------------------------------


def test_this_machine_says_what_the_checks_want_to_know(tmp_path: Path) -> None:
    facts = facts_here(["json", "no_such_module"], tmp_path)
    assert facts.modules["json"].works
    assert not facts.modules["no_such_module"].works
    assert facts.disk_free_bytes > 0


def test_a_host_that_lacks_what_only_some_need_is_healthy() -> None:
    names = ("numpy", "onnx", "onnxruntime", "torch")
    facts = msgspec.structs.replace(HEALTHY, modules={name: Module(version="1") for name in names})
    found = checks.of_host(facts, ssh=True, pip=True, gpu="")
    assert {check.state for check in found} == {"ok"}
    optional = checks.of_host(facts, ssh=True, pip=True, gpu="", lacking={"track": ("accelerate",), "search": ()})
    assert {check.name: check.state for check in optional if check.name.startswith("mostool[")} == {
        "mostool[track]": "not there",
        "mostool[search]": "ok",
    }
    lacking = checks.of_host(facts, ssh=False, pip=False, gpu="")
    assert [check.name for check in lacking if check.state == "warning"] == ["ssh", "pip"]
    broken = msgspec.structs.replace(HEALTHY, modules={}, disk_free_bytes=1 << 20)
    assert [check.name for check in checks.failures(checks.of_host(broken, ssh=True, pip=True, gpu=""))] == ["disk"]
