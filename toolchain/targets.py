"""Targets: the devices mostool knows, each a TOML file.

The ones that ship stand in `targets/` of a checkout and in `toolchain/shipped/targets/` of a wheel; a project's own
`targets/` folder comes first. The fields are documented in targets/README.md.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from toolchain.errors import UsageError, unknown_name
from toolchain.records import SCHEMA, Record, Stored

_LARGEST_TARGET_BYTES = 1 << 20


class Runtime(Record, frozen=True):
    """The engine that runs the model.

    `options` are its session settings and `provider_options` its provider's, both by the engine's own names. `provider`
    is onnxruntime's execution provider; the TensorRT engines have none. `cores` are the processors a worker keeps to
    (none: whichever the system gives it).
    """

    engine: Literal["onnxruntime", "tensorrt", "tensorrt_rtx"] = "onnxruntime"
    provider: str = ""
    threads: int = 1
    options: dict[str, str] = {}
    provider_options: dict[str, str] = {}
    cores: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError("runtime.threads must be at least 1")
        if any(core < 0 for core in self.cores):
            raise ValueError("runtime.cores are numbers of processors, from 0")
        if self.engine == "onnxruntime" and not self.provider:
            msgspec.structs.force_setattr(self, "provider", "CPUExecutionProvider")
        elif self.engine != "onnxruntime" and self.provider:
            raise ValueError(f"{self.engine} has no providers: leave runtime.provider out")

    @property
    def on_accelerator(self) -> bool:
        """Whether the model runs elsewhere than on the processor."""
        return self.provider != "CPUExecutionProvider"


class Local(Record, frozen=True, tag="local", tag_field="kind"):
    """This machine."""


class Ssh(Record, frozen=True, tag="ssh", tag_field="kind"):
    """A machine that the system's ssh reaches. What is empty here is as the user's ssh has it.

    `folder` is the agent's on the device; `config` and `identity` are files here, below the project where they are
    relative. After a lost connection it is tried again for `reconnect_s` seconds.
    """

    host: str = ""
    user: str = ""
    port: int = 0
    identity: str = ""
    config: str = ""
    python: str = "python3"
    folder: str = "~/.cache/mostool"
    connect_timeout_s: float = 10.0
    reconnect_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError("connection.port must be 1 to 65535")
        for name in ("connect_timeout_s", "reconnect_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"connection.{name} must be above zero")


class Measure(Record, frozen=True):
    """The measurement protocol (profiling/README.md). Times in seconds; `half_width` is a fraction of the median.

    `group` candidates share a worker; in a round each has a turn of `calls_per_turn` calls, and the reference has one
    after every `reference_every` of them. `thermal` says what becomes of a round that was measured hot or throttled:
    with `guard` it is discarded, and the device is given `cooling_s` to fall from `hot_c` to `cool_c`; with `sustained`
    the models run for `sustained_s` first, and then whatever the heat. `energy_s` of each model's calls are metered,
    where a sensor exists.
    """

    group: int = 8
    reference_every: int = 2
    warmup_s: float = 0.3
    calls_per_turn: int = 6
    minimum_rounds: int = 15
    minimum_s: float = 0.6
    maximum_s: float = 6.0
    half_width: float = 0.01
    call_timeout_s: float = 120.0
    thermal: Literal["guard", "sustained"] = "guard"
    hot_c: float = 78.0
    cool_c: float = 60.0
    cooling_s: float = 180.0
    cooling_poll_s: float = 1.0
    sustained_s: float = 60.0
    energy_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("group", "reference_every", "calls_per_turn", "minimum_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"measure.{name} must be at least 1")
        for name in ("maximum_s", "half_width", "call_timeout_s", "cooling_s", "cooling_poll_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"measure.{name} must be above zero")
        for name in ("warmup_s", "minimum_s", "sustained_s", "energy_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"measure.{name} must not be negative")
        if self.energy_s > 60:
            raise ValueError("measure.energy_s must be at most 60")
        if not -50 < self.cool_c <= self.hot_c < 200:
            raise ValueError("measure.cool_c must not be above measure.hot_c, both in degrees Celsius")


class Target(Stored, frozen=True):
    """A device, its runtime, and how it is measured."""

    id: str
    title: str
    runtime: Runtime = Runtime()
    connection: Local | Ssh = Local()
    measure: Measure = Measure()


def shipped_folder(name: str) -> Path:
    """The folder `name` (targets, profiles) that came with this installation, wheel or checkout."""
    package = Path(__file__).resolve().parent
    packed = package / "shipped" / name
    return packed if packed.is_dir() else package.parent / name


def find_targets(project: Path) -> dict[str, Path]:
    """Every known target's file by name; the project's own win over the shipped ones."""
    found: dict[str, Path] = {}
    for folder in (shipped_folder("targets"), project / "targets"):
        if folder.is_dir():
            found |= {path.stem: path for path in sorted(folder.glob("*.toml")) if path.is_file()}
    return found


def read_target(name: str, project: Path) -> Target:
    """The target `name`.

    Raises:
        UsageError: no such target, or its file is not valid (the message names the field).
    """
    known = find_targets(project)
    if name not in known:
        unknown = unknown_name("device", name, known)
        raise UsageError(unknown.what, hint=f"{unknown.hint}; or add it: mostool devices add NAME --host HOST")
    path = known[name]
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_TARGET_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    if len(data) > _LARGEST_TARGET_BYTES:
        raise UsageError(f"{path} is too large to be a target")
    target = _decoded(path, data.removeprefix(b"\xef\xbb\xbf"))
    if target.id != name:
        raise UsageError(f"{path} says it is {target.id!r}", hint="a target's id is its file's name")
    return target


class _Header(msgspec.Struct):
    """The one field of a target that no version changes."""

    schema: int = SCHEMA


def _decoded(path: Path, data: bytes) -> Target:
    header = _Header()
    try:
        header = msgspec.toml.decode(data, type=_Header)
        if header.schema <= SCHEMA:
            return msgspec.toml.decode(data, type=Target)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{path} is not a valid target", why=str(error), hint="targets/README.md lists the fields"
        ) from error
    raise UsageError(
        f"{path} was written for a newer mostool",
        why=f"schema {header.schema}, this one knows {SCHEMA}",
        hint="upgrade mostool",
    )
