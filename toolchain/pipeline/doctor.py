"""doctor: what works here, or on a device, and how to mend the rest."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import NamedTuple

from toolchain import devices, extras, profiling
from toolchain.devices import checks
from toolchain.devices.checks import Check
from toolchain.devices.facts import Facts, facts_here, facts_there
from toolchain.devices.remote import RemoteDevice
from toolchain.errors import DeviceError, MostoolError
from toolchain.onboard import nvidia, probe
from toolchain.onboard.channel import RefusalError
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.targets import Ssh, Target

HOST_MODULES = ("numpy", "onnx", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx")
_OF_SSH = ("cannot be reached", "host key", "no ssh here")
"""What an error says where it is the way to a device that fails, not the device."""


class Examined(NamedTuple):
    """What was looked at. `device` is empty for this machine itself."""

    device: str
    checks: list[Check]

    @property
    def failures(self) -> list[Check]:
        return checks.failures(self.checks)


def examine_host(project: Path, listener: ProgressListener = silent) -> Examined:
    """This machine, which builds models and reaches devices."""
    listener(Progress("doctor", 0, 1, "trying to import what mostool needs"))
    facts = facts_here(HOST_MODULES, project)
    found = checks.of_host(
        facts,
        ssh=shutil.which("ssh") is not None,
        pip=probe.has_pip(),
        gpu=_gpu(),
        lacking={extra: extras.missing(extra) for extra in extras.EXTRAS},
        both_runtimes=extras.both_runtimes(),
    )
    listener(Progress("doctor", 1, 1))
    return Examined("", found)


def examine_device(target: Target, project: Path, listener: ProgressListener = silent) -> Examined:
    """A target's device. One that cannot be reached has failed one check, and that is all there is to say.

    Raises:
        UsageError: the target's file does not say where the device is.
    """
    before: list[Check] = []
    listener(Progress("doctor", 0, 2, f"reaching {target.id}"))

    def tell(note: str) -> None:
        listener(Progress("doctor", 0, 2, note))

    try:
        with contextlib.closing(devices.open_device(target, project, tell)) as device:
            listener(Progress("doctor", 1, 2, f"looking at {target.id}"))
            facts, offset_s = _facts(device, project)
            if isinstance(target.connection, Ssh):
                before.append(Check("ssh", "ok", target.connection.host))
            engine = checks.engine_check(facts, target)
            provider = checks.provider_check(facts, target.runtime, _accelerator(device, engine))
            found = checks.of_device(facts, target, engine=engine, provider=provider, offset_s=offset_s)
    except DeviceError as error:
        way = any(words in error.what for words in _OF_SSH)
        if not way and not before and isinstance(target.connection, Ssh):
            before.append(Check("ssh", "ok", target.connection.host))
        found = [Check("ssh" if way else "agent", "failure", str(error), error.hint)]
    listener(Progress("doctor", 2, 2))
    return Examined(target.id, [*before, *found])


def _facts(device: devices.Device, project: Path) -> tuple[Facts, float | None]:
    modules = ("numpy", device.target.runtime.engine)
    if isinstance(device, RemoteDevice):
        return facts_there(device.link, modules)
    return facts_here(modules, project), None


def _accelerator(device: devices.Device, engine: Check) -> str | MostoolError | None:
    """What a worker says of the accelerator a target wants; None where it wants none, or lacks the engine."""
    if not device.target.runtime.on_accelerator or engine.state != "ok":
        return None
    try:
        return profiling.read_environment(device).accelerator or "an accelerator without a name"
    except MostoolError as error:
        return error


def _gpu() -> str:
    try:
        found = nvidia.describe()
    except (RefusalError, OSError):
        return ""
    return f"{found['accelerator']}, driver {found['driver']}"


def require_health(examined: Examined) -> None:
    """Raise where a check has failed; the error carries all of them.

    Raises:
        DeviceError: one of a device's; MostoolError: one of this machine's.
    """
    failed = examined.failures
    if not failed:
        return
    where = examined.device or "this machine"
    what = f"{where} is not ready: {len(failed)} of {len(examined.checks)} checks failed"
    why = "; ".join(f"{check.name}: {check.found}" for check in failed)
    kind = DeviceError if examined.device else MostoolError
    raise kind(what, why=why, hint=failed[0].mend, data=as_data(examined))


def as_data(examined: Examined) -> dict[str, object]:
    return {"device": examined.device or None, "checks": [check._asdict() for check in examined.checks]}
