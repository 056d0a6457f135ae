"""devices add: a target of the project's own for a device behind ssh, once it is clear that it is the one meant."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain.devices import ssh as system_ssh
from toolchain.devices.ssh import HostKey
from toolchain.errors import DeviceError, UsageError
from toolchain.files import write_bytes
from toolchain.targets import Measure, Runtime, Ssh, Target, read_target, shipped_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USUAL = "rpi"


class Trust(NamedTuple):
    """How a host key that nobody knows yet may come to be trusted: this `fingerprint`, or whatever it is."""

    fingerprint: str = ""
    anything: bool = False


class Added(NamedTuple):
    """A target and its file, `written` or left alone. `fingerprint` is that of the key which was stored, empty
    where ssh knew it before."""

    target: Target
    file: Path
    fingerprint: str
    written: bool
    warnings: list[str]


def add(
    project: Path, name: str, given: Mapping[str, object], *, like: str = "", trust: Trust, force: bool = False
) -> Added:
    """Write targets/NAME.toml for a device behind ssh, once its host key is settled. `given` are fields of its
    connection; what is left out is as in the target `like` that, else the project's own file, else the shipped one.

    A file that says the same already is left as it is, where there is a key to be settled.

    Raises:
        UsageError: the name is none, is taken (without `force`), or there is no target `like` that.
        DeviceError: the device is out of reach, or its key is not the one that is trusted; nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a device", hint="letters, digits, dots, dashes and underscores")
    path = project / "targets" / f"{name}.toml"
    own = _own(project, name) if path.exists() else None
    pattern = read_target(like, project) if like else own or _shipped(name)
    usual = pattern.connection if isinstance(pattern.connection, Ssh) else Ssh()
    connection = msgspec.structs.replace(usual, **given)
    title = pattern.title if pattern.id == name else f"{name}: {pattern.title}"
    target = msgspec.structs.replace(pattern, id=name, title=title, connection=connection)
    taken = UsageError(f"there is {path} already", hint="--force writes it anew, another name leaves it alone")
    if path.exists() and not force and target != own:
        raise taken
    stored = _settle_host_key(target, connection, project, trust)
    if force or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, target_file(target).encode())
    elif stored is None:
        raise taken
    login = system_ssh.try_login(target, connection, project)
    warnings = [f"{login.error.what}: {login.error.why}; {login.error.hint}"] if login.error else []
    return Added(target, path, stored.fingerprint if stored else "", force or own is None, warnings)


def _own(project: Path, name: str) -> Target | None:
    """The project's own target; None where its file is none that can be read."""
    try:
        return read_target(name, project)
    except UsageError:
        return None


def _shipped(name: str) -> Target:
    """The target that ships for a device of this name; the usual one where there is none."""
    folder = shipped_folder("targets")
    return read_target(name if (folder / f"{name}.toml").is_file() else _USUAL, folder.parent)


def _settle_host_key(target: Target, ssh: Ssh, project: Path, trust: Trust) -> HostKey | None:
    """The key that was stored now; None where ssh knows the host already. A fingerprint that was given holds against
    the key the device shows, whoever trusts that one already."""
    login = system_ssh.try_login(target, ssh, project)
    if login.key == "known":
        if login.error and "Permission denied" not in login.error.why:
            raise login.error
        if not trust.fingerprint:
            return None
    if login.key == "changed" and not trust.fingerprint:
        assert login.error is not None  # noqa: S101 - it says what has changed
        raise login.error
    offered = system_ssh.offered_keys(target, ssh, project)
    shown = ", ".join(key.fingerprint for key in offered)
    data = {"fingerprints": [key.fingerprint for key in offered]}
    if trust.fingerprint:
        matching = [key for key in offered if key.fingerprint == trust.fingerprint]
        if not matching:
            raise DeviceError(
                f"{target.id} ({ssh.host}) is not the device that was meant",
                why=f"it shows {', '.join(map(str, offered))}, expected was {trust.fingerprint}",
                hint="on the device itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                data=data,
            )
        if login.key == "known":
            return None
        offered = matching
    elif not trust.anything:
        raise DeviceError(
            f"nobody has said yet that {ssh.host} is {target.id}",
            why=f"it shows {', '.join(map(str, offered))}",
            hint=f"if the device says the same (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), repeat with "
            f"--fingerprint {shown}; in a network you trust, with --accept-new-host-key",
            data=data,
        )
    system_ssh.trust(project, offered)
    return offered[0]


def own_path(project: Path, given: Path) -> str:
    """How a target's file names a file here: below the project where it lies there, else absolute.

    Raises:
        UsageError: there is no such file.
    """
    absolute, root = Path(os.path.abspath(given.expanduser())), Path(os.path.abspath(project))  # noqa: PTH100 - a link stays one
    if not absolute.is_file():
        raise UsageError(f"there is no file {given}")
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


def target_file(target: Target) -> str:
    """A target as the TOML file that reads as it; what has its default is left out."""
    lines = [f"schema = {target.schema}", f"id = {_value(target.id)}", f"title = {_value(target.title)}"]
    runtime, connection = target.runtime, target.connection
    always = {"engine": runtime.engine, "threads": runtime.threads}
    lines += _table("runtime", {**always, **_changed(runtime, Runtime(engine=runtime.engine))})
    for name in ("options", "provider_options"):
        lines += _table(f"runtime.{name}", getattr(runtime, name))
    lines += _table(
        "connection", {"kind": connection.__struct_config__.tag, **_changed(connection, type(connection)())}
    )
    lines += _table("measure", _changed(target.measure, Measure()))
    return "\n".join(lines) + "\n"


def _changed(record: msgspec.Struct, usual: msgspec.Struct) -> dict[str, object]:
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return {
        name: value
        for name, value in values.items()
        if value != getattr(usual, name) and not isinstance(value, Mapping)
    }


def _table(name: str, values: Mapping[str, object]) -> list[str]:
    if not values:
        return []
    return ["", f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in values.items())]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: object) -> str:
    """A number, a text or a list of them; JSON's texts are TOML's but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
