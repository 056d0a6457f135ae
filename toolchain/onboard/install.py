"""A runtime of the device's own: wheels unpacked, or fetched by the device's pip, into a folder nobody else uses.

A new one is tried before it takes the place of the old: what cannot be imported is removed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from typing import Any, Callable

from .store import Store, StoreError, free_bytes, remove_folder

_NAME = re.compile(r"[0-9a-f]{8,64}")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,]+\])?([<>=!~]=?[0-9A-Za-z.*]+(,[<>=!~]=?[0-9A-Za-z.*]+)*)?"
)
_DISTRIBUTION = re.compile(r"([A-Za-z0-9._]+)-([0-9][^-]*)\.dist-info")
_PIP = ("install", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--no-compile", "--no-deps")
_PIP_NETWORK = ("--retries", "2", "--timeout", "20", "--progress-bar", "off")
_PIP_S = 3600.0
_IMPORT_S = 120
_SPARE_BYTES = 32 << 20
_TAIL = 400
_TRY = (
    "import sys, importlib\n"
    "module = importlib.import_module(sys.argv[1])\n"
    "found = getattr(module, 'get_available_providers', None)\n"
    "print(getattr(module, '__version__', '?'), *(found() if found else []))\n"
)

Progress = Callable[[str], None]


def variables(root: str) -> dict[str, str]:
    """What a worker's environment gets, so that it finds the runtime that was set up for it."""
    return _path_first(os.path.join(root, "runtime")) if active(root) else {}


def active(root: str) -> str:
    """The name of the environment that is in use; empty where there is none."""
    link = os.path.join(root, "runtime")
    return os.path.basename(os.path.realpath(link)).partition("-")[2] if os.path.isdir(link) else ""


def unpack(
    root: str, environment: str, wheels: list[dict[str, str]], modules: list[str], store: Store, progress: Progress
) -> dict[str, Any]:
    """Unpack wheels (each {name, sha256}, in the store), and make the result the runtime of this device's workers.

    A host that lost the answer asks again: what is in use already is only tried again.

    Raises:
        StoreError: `sha256`, a wheel is not here; `wheel`, one is not what it should be; `disk`, there is no room.
    """
    if (done := _in_use(root, environment, modules, progress)) is not None:
        return done
    paths = []
    for wheel in wheels:
        path = store.find(wheel["sha256"])
        if path is None:
            raise StoreError("sha256", f"{wheel['name']} is not here")
        paths.append(path)
    with _part(root) as part:
        try:
            need = sum(_size(path) for path in paths)
            if free_bytes(root) < need + _SPARE_BYTES:
                raise StoreError("disk", f"{free_bytes(root) >> 20} MiB are free, {need >> 20} MiB are needed")
            for wheel, path in zip(wheels, paths):
                progress(f"unpacking {wheel['name']}")
                with zipfile.ZipFile(path) as archive:
                    _extract(archive, part)
        except zipfile.BadZipFile as fault:
            raise StoreError("wheel", str(fault)) from fault
        return _tried(root, environment, part, modules, progress)


def pip(root: str, environment: str, requirements: list[str], modules: list[str], progress: Progress) -> dict[str, Any]:
    """Let the device's own pip fetch them, wheels only, without what they say they need.

    Raises:
        StoreError: of kind `pip`: there is none, or it fails; with the last it said. `disk`: there is no room.
    """
    for one in requirements:
        if not _REQUIREMENT.fullmatch(one):
            raise ValueError(f"{one!r:.80} is no requirement")
    if (done := _in_use(root, environment, modules, progress)) is not None:
        return done
    with _part(root) as part:
        scratch = f"{part}/.tmp"  # not /tmp, which may be a small part of a small memory
        os.mkdir(scratch)
        command = [sys.executable, "-m", "pip", *_PIP, *_PIP_NETWORK, "--only-binary=:all:"]
        status, said = _said(
            [*command, "--target", part, *requirements], {"TMPDIR": scratch, "PIP_USER": "0"}, progress
        )
        if status:
            errors = " ".join(line for line in said if line.startswith("ERROR")) or " ".join(said[-3:])
            kind = "disk" if any("No space left" in line for line in said) else "pip"
            raise StoreError(kind, errors[-600:] or f"it ended with status {status}")
        remove_folder(scratch)
        return _tried(root, environment, part, modules, progress)


def imported(name: str, variables: dict[str, str], folder: str | None) -> dict[str, Any]:
    """Whether a module can be imported, in a process that may die of it: version, or error and signal."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_S,
            check=False,
            env={**os.environ, **variables},
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        return {"version": "", "error": f"no answer within {_IMPORT_S} s", "signal": 0}
    if done.returncode == 0:
        said = done.stdout.decode("utf-8", "replace").split("\n")
        version, *providers = said[-2 if len(said) > 1 else -1].split() or ["?"]
        return {"version": version, "providers": providers, "error": "", "signal": 0}
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()
    error = last[-1][-_TAIL:] if last else f"status {done.returncode}"
    return {"version": "", "error": error, "signal": max(0, -done.returncode)}


# -- a folder that is not in use yet ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _part(root: str) -> Iterator[str]:
    """A fresh folder for a runtime to be; gone at the end, unless it has been put in its place."""
    for name in os.listdir(root):
        if name.startswith("part-") and not _lives(name[len("part-") :]):
            remove_folder(os.path.join(root, name))
    part = os.path.join(root, f"part-{os.getpid()}")
    remove_folder(part)
    try:
        os.makedirs(part, mode=0o700)
        yield part
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):  # told now: once the folder is gone there is room again
            raise StoreError("disk", f"it became full: {free_bytes(root) >> 20} MiB are free") from fault
        raise
    finally:
        remove_folder(part)


def _lives(pid: str) -> bool:
    return pid.isdigit() and os.path.isdir(f"/proc/{pid}")


def _in_use(root: str, environment: str, modules: list[str], progress: Progress) -> dict[str, Any] | None:
    """The answer about an environment that is in use and works; None where it is to be made."""
    if not _NAME.fullmatch(environment):
        raise ValueError(f"{environment!r:.80} is no name of an environment")
    if active(root) != environment:
        return None
    found = _looked_at(root, os.path.join(root, f"runtime-{environment}"), modules, progress)
    return found if found["active"] else None


def _tried(root: str, environment: str, part: str, modules: list[str], progress: Progress) -> dict[str, Any]:
    """Put a folder to use, where its modules can be imported."""
    found = _looked_at(root, part, modules, progress)
    if found["active"]:
        _activate(root, os.path.join(root, f"runtime-{environment}"), part)
    return found


def _looked_at(root: str, folder: str, modules: list[str], progress: Progress) -> dict[str, Any]:
    """How importing each module from a folder goes, and the versions of what is in it."""
    tried = {}
    for name in modules:
        progress(f"trying {name}")
        tried[name] = imported(name, _path_first(folder), root)
    works = not any(one["error"] or one["signal"] for one in tried.values())
    versions = {match[1]: match[2] for match in map(_DISTRIBUTION.fullmatch, os.listdir(folder)) if match}
    return {"active": works, "modules": tried, "versions": versions}


def _activate(root: str, folder: str, part: str) -> None:
    """Put the finished folder in its place and point `runtime` at it; older ones go."""
    before = f"{part}.before"
    if os.path.isdir(folder):
        os.rename(folder, before)
    os.rename(part, folder)
    remove_folder(before)
    link = os.path.join(root, "runtime")
    fresh = f"{link}.part"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    os.symlink(os.path.basename(folder), fresh)
    os.replace(fresh, link)
    for name in os.listdir(root):
        if name.startswith("runtime-") and name != os.path.basename(folder):
            remove_folder(os.path.join(root, name))


def _path_first(folder: str) -> dict[str, str]:
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": folder + (os.pathsep + others if others else "")}


# -- wheels and pip ----------------------------------------------------------------------------------------------------


def _size(path: str) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(one.file_size for one in archive.infolist())


def _extract(archive: zipfile.ZipFile, folder: str) -> None:
    """Unpack below `folder` and nowhere else."""
    inside = os.path.realpath(folder) + os.sep
    for one in archive.infolist():
        if not os.path.realpath(os.path.join(folder, one.filename)).startswith(inside) and one.filename.strip("./"):
            raise ValueError(f"{one.filename!r:.80} leads out of its folder")
    archive.extractall(folder)


def _said(command: list[str], variables: dict[str, str], progress: Progress) -> tuple[int, list[str]]:
    """A program's status and its last lines, each told as it comes. Where nobody listens any more it is ended."""
    last: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables},
    ) as running:
        assert running.stdout is not None  # noqa: S101 - it is a pipe
        limit = threading.Timer(_PIP_S, running.kill)
        limit.daemon = True
        limit.start()
        try:
            for line in running.stdout:
                text = line.decode("utf-8", "replace").strip()
                if text:
                    last = [*last[-19:], text]
                    progress(text)
        except BaseException:
            running.kill()
            raise
        finally:
            limit.cancel()
    return running.returncode, last
