"""What a machine says of itself when it is looked at (onboard/probe.py), decoded: this one or a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from toolchain.devices.link import Link
from toolchain.errors import DeviceError
from toolchain.onboard import probe
from toolchain.onboard.store import free_bytes

PROBE_S = 300.0
"""Within which a device has tried to import a few modules, however slow it is."""


class Module(msgspec.Struct, frozen=True):
    """Whether a worker can import a module: its version, or the error and the signal that ended the attempt."""

    version: str = ""
    error: str = ""
    signal: int = 0
    providers: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        return not self.error and not self.signal


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as it is right now. What it does not tell is None, empty or 0."""

    machine: str
    bits: int
    cpu: str
    cores: int
    os: str
    libc: str
    governor: str
    python: str
    board: str
    emulator: str
    python_executable: str
    memory_bytes: int
    memory_available_bytes: int
    swap_bytes: int
    swap_free_bytes: int
    disk_free_bytes: int
    load_per_core: float
    busy_share: float
    waits_known: bool
    sensors: tuple[str, ...]
    throttled: int | None
    temperature_c: float | None
    frequency_hz: float | None
    maximum_hz: float | None
    pip: bool
    runtime: str
    clock: float
    modules: dict[str, Module]
    programs: dict[str, bool]


def facts_here(modules: Sequence[str], folder: Path) -> Facts:
    """This machine; `folder` is where its disk counts."""
    found = probe.facts(None, list(modules))
    found["disk_free_bytes"] = free_bytes(str(folder))
    return msgspec.convert(found, Facts)


def facts_there(link: Link, modules: Sequence[str]) -> tuple[Facts, float]:
    """A device, and how many seconds its clock differs from this machine's, at least.

    Raises:
        DeviceError: it is out of reach, or what it says is garbage.
    """
    before = time.time()
    quick = _decoded(link, link.ask("probe", modules=[], timeout_s=PROBE_S))  # load and clock first: imports disturb
    after = time.time()
    found = _decoded(link, link.ask("probe", modules=list(modules), timeout_s=PROBE_S))
    late, early = before - quick.clock, quick.clock - after
    offset_s = -late if late > 0 else max(early, 0.0)
    return msgspec.structs.replace(quick, modules=found.modules), offset_s


def _decoded(link: Link, answer: dict[str, Any]) -> Facts:
    try:
        return msgspec.convert(answer.get("facts"), Facts)
    except msgspec.ValidationError as fault:
        raise DeviceError(f"the agent on {link.target.id} sent garbage", why=str(fault)) from fault
