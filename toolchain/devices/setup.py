"""Setting a device up: a runtime that works there, in a folder of its own, without root.

It comes by the board's own pip, or from here as wheels. Whichever way, it is tried on the board before it is used; one
that dies of an instruction the processor lacks is followed by its predecessors.
"""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from toolchain.devices import wheels as wheelhouse
from toolchain.devices.checks import failures, fitness
from toolchain.devices.facts import Facts, Module, facts_there
from toolchain.devices.link import Link
from toolchain.devices.wheels import ENGINE, PACKAGES, Board, Folder, Pip, Source, Wanted, Wheel
from toolchain.errors import DeviceError, UsageError
from toolchain.files import sha256_bytes, sha256_file
from toolchain.progress import Progress, ProgressListener, Tell, silent

_INSTALL_S = 900.0
"""The longest a board is silent while it unpacks one wheel, or waits for its pip's next line."""
_PREDECESSORS = 3
_STEPS = 5

Way = Literal["auto", "board", "host"]


class Installed(NamedTuple):
    """What a device has now: the versions, where they came from (`there`: they were there before), which versions were
    tried and died of an instruction, and why the board's own pip was of no use, where it was tried and was not."""

    origin: Literal["there", "board", "host", "folder"]
    versions: dict[str, str]
    died: tuple[str, ...] = ()
    pip_failed: str = ""


class _Answer(msgspec.Struct, frozen=True):
    """What the agent says of an installation: `active` where it works and is in use."""

    active: bool
    modules: dict[str, Module]
    versions: dict[str, str]


def set_up(
    link: Link,
    way: Way = "auto",
    *,
    version: str = "",
    folder: Path | None = None,
    listener: ProgressListener = silent,
) -> Installed:
    """Give a device what it lacks: onnxruntime (of this `version`, where one is given) and numpy.

    `auto` leaves alone what works, then tries the board's pip, then wheels from here. With `folder` the wheels are
    those in it.

    Raises:
        UsageError: the folder lacks what fits.
        DeviceError: the device cannot run it (told before anything is sent), is busy, or out of reach; or no version
            that was tried works.
    """
    say = _Steps(link.target.id, listener)
    say(0, "looking at the board")
    facts, _ = facts_there(link, PACKAGES)
    there = {name: facts.modules[name].version for name in PACKAGES if facts.modules[name].works}
    if way == "auto" and folder is None and there.keys() == {*PACKAGES} and version in {"", there[ENGINE]}:
        return Installed("there", there)
    _refuse(link, facts)
    wanted, pip_failed = Wanted(exact=version, preferred=wheelhouse.host_version()), ""
    if folder is None and (way == "board" or (way == "auto" and facts.pip)):
        try:
            return _in_attempts(link, wanted, "board", lambda one: _by_pip(link, one, say), say)
        except DeviceError as error:
            if way == "board":
                raise
            pip_failed = error.why or error.what
    board = wheelhouse.board_of(facts)
    with tempfile.TemporaryDirectory() as scratch:
        tell: Tell = lambda note: say(1, note)  # noqa: E731
        source: Source = Folder(folder, board) if folder else Pip(board, Path(scratch), tell)
        say(1, f"looking for wheels for {board}")
        offered = {name: source.offered(name) for name in PACKAGES}

        def install(one: Wanted) -> _Answer:
            versions = one.choose(offered)
            if not all(versions.values()):
                raise _nothing_fits(link, board, one, offered, source)
            say(1, f"fetching {_listed(versions)}")
            return _by_wheels(link, facts, source.fetch(versions), say)

        done = _in_attempts(link, wanted, "folder" if folder else "host", install, say)
        return done._replace(pip_failed=pip_failed)


def _refuse(link: Link, facts: Facts) -> None:
    """Before anything is sent: what cannot be mended by sending it."""
    name = link.target.id
    for check in failures(fitness(facts, ready=False)):
        raise DeviceError(f"{name} cannot run {ENGINE} as it is", why=f"{check.name}: {check.found}", hint=check.mend)
    for one in link.ask("jobs")["jobs"]:
        if not one.get("ended", True):
            raise DeviceError(f"{name} is busy", why="something is being measured there", hint="wait for its end")


def _in_attempts(
    link: Link,
    wanted: Wanted,
    origin: Literal["board", "host", "folder"],
    install: Callable[[Wanted], _Answer],
    say: _Steps,
) -> Installed:
    """Install, and again something older while what was installed dies of an instruction."""
    died: list[str] = []
    name = link.target.id
    for _ in range(1 + _PREDECESSORS):
        answer = install(wanted)
        if answer.active:
            say(_STEPS, "done")
            return Installed(origin, {one: answer.modules[one].version for one in PACKAGES}, tuple(died))
        dead = next((one for one in PACKAGES if answer.modules[one].signal == signal.SIGILL), None)
        if dead is None:
            broken = next(one for one in PACKAGES if not answer.modules[one].works)
            module, version = answer.modules[broken], answer.versions.get(broken, "")
            why = module.error or f"killed by signal {module.signal}"
            raise DeviceError(
                f"{broken} {version} does not work on {name}",
                why=why,
                hint="try another one: --version X.Y.Z; what was there before is still in use",
            )
        version = answer.versions.get(dead, "")
        died.append(f"{dead} {version}")
        if wanted.exact or not version:
            break
        wanted = wanted._replace(below={**wanted.below, dead: wheelhouse.minor(version)})
    raise DeviceError(
        f"no version that was tried works on {name}",
        why=f"each dies of an instruction its processor lacks (SIGILL): {', '.join(died)}",
        hint=f"try an older one: mostool devices setup {name} --version X.Y.Z",
    )


def _by_pip(link: Link, wanted: Wanted, say: _Steps) -> _Answer:
    requirements = wanted.requirements()
    say(2, f"its pip fetches {' and '.join(requirements)}")
    answer = link.ask(
        "pip",
        environment=sha256_bytes(json.dumps(["pip", *requirements]).encode())[:16],
        requirements=requirements,
        modules=list(PACKAGES),
        timeout_s=_INSTALL_S,
        progress=lambda note: say(3, note),
    )
    return _decoded(link, answer)


def _by_wheels(link: Link, facts: Facts, wheels: list[Wheel], say: _Steps) -> _Answer:
    digests = [sha256_file(wheel.path) for wheel in wheels]
    environment = sha256_bytes(json.dumps(digests).encode())[:16]
    if facts.runtime == environment and all(facts.modules[name].works for name in PACKAGES):
        return _Answer(True, dict(facts.modules), {wheel.name: wheel.version for wheel in wheels})
    for wheel, digest in zip(wheels, digests, strict=True):
        if link.ask("find", sha256=digest)["path"] is None:
            size = wheel.path.stat().st_size
            say(2, f"sending {wheel.name} {wheel.version}, {size >> 20} MiB")
            link.ask("put", sha256=digest, size=size, content=wheel.path)
    answer = link.ask(
        "unpack",
        environment=environment,
        wheels=[{"name": one.path.name, "sha256": digest} for one, digest in zip(wheels, digests, strict=True)],
        modules=list(PACKAGES),
        timeout_s=_INSTALL_S,
        progress=lambda note: say(3, note),
    )
    done = _decoded(link, answer)
    for wheel, digest in zip(wheels, digests, strict=True):
        if done.active or not done.modules[wheel.name].works:
            link.ask("drop", sha256=digest)
    return done


def _decoded(link: Link, answer: dict[str, Any]) -> _Answer:
    try:
        done = msgspec.convert({name: answer.get(name) for name in _Answer.__struct_fields__}, _Answer)
    except msgspec.ValidationError as fault:
        raise DeviceError(f"the agent on {link.target.id} sent garbage", why=str(fault)) from fault
    if done.modules.keys() != {*PACKAGES}:
        raise DeviceError(f"the agent on {link.target.id} sent garbage", why=f"it tried {sorted(done.modules)}")
    return done


def _nothing_fits(
    link: Link, board: Board, wanted: Wanted, offered: dict[str, list[str]], source: Source
) -> DeviceError | UsageError:
    """Why there is no version to install, and what would help."""
    name, engines = link.target.id, offered[ENGINE]
    if wanted.below:
        dead = ", ".join(f"{package} {'.'.join(map(str, limit))}" for package, limit in wanted.below.items())
        why = f"those from {dead} on die of an instruction its processor lacks (SIGILL)"
        return DeviceError(f"there is nothing older to try on {name}", why=why, hint="a board with a newer processor")
    asked = wanted.exact or wanted.preferred
    pythons = source.pythons_with(asked) if isinstance(source, Pip) and asked else []
    why = f"there is no wheel of it for {board}"
    if pythons:
        why = f"{ENGINE} {asked} is for Python {pythons[0]} to {pythons[-1]}; there it is {board}"
    if engines:
        fitting = wheelhouse.newest(engines)
        what = f"{ENGINE} {asked} is not for {name}" if asked not in engines else f"no numpy fits {ENGINE} on {name}"
        return DeviceError(what, why=why, hint=f"--version {fitting} is the newest that fits")
    hint = "install such a Python there, and name it in connection.python of the target's file"
    return DeviceError(f"there is no {ENGINE} for {name}", why=why, hint=hint)


class _Steps:
    """Tells a listener how far a setting up is."""

    def __init__(self, name: str, listener: ProgressListener) -> None:
        self._name, self._listener = name, listener

    def __call__(self, step: int, note: str) -> None:
        self._listener(Progress(f"setup {self._name}", step, _STEPS, note))


def _listed(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())
