"""Which wheels fit a board, and where they come from: the host's pip, or a folder of files.

Choosing is a matter of names alone: what a board is (`Board`), what there is for it, what is wanted.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from toolchain.devices.checks import MACHINES, libc_version
from toolchain.devices.facts import Facts
from toolchain.errors import DeviceError, UsageError
from toolchain.progress import Tell

ENGINE = "onnxruntime"
PACKAGES = ("numpy", ENGINE)
"""All that an InferenceSession needs. onnxruntime names more (protobuf, sympy ...) for its tools."""
_KNOWN_AS = {"onnxruntime": ("onnxruntime", "onnxruntime_gpu")}
"""The distributions that hold a package: a vendor's build for its own GPU has another name."""
_SPEAKS_NUMPY_2 = (1, 19)
"""Older engines were compiled for numpy 1, and fail with a newer one."""
_OLDEST_MINOR = {"aarch64": 17, "x86_64": 5}
_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_VERSION = re.compile(r"\d+(\.\d+)*(\.post\d+)?")
_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)"
)
_PIP_S = 1800
_OFFLINE = ("Retrying (", "ConnectionError", "NewConnectionError", "SSLError", "Temporary failure", "ProxyError")
_NEWEST_MINOR = 20
"""Of Python 3; how far is looked for one that a version wants."""

Key = tuple[int, ...]


class Board(NamedTuple):
    """What a wheel has to fit."""

    python: tuple[int, int]
    machine: str
    libc: tuple[int, int]

    def __str__(self) -> str:
        return f"Python {_dotted(self.python)}, {self.machine}, glibc {_dotted(self.libc)}"


def board_of(facts: Facts) -> Board:
    """The board of facts that checks.fitness found nothing wrong with."""
    major, minor = (int(part) for part in facts.python.split(".")[:2])
    return Board((major, minor), MACHINES[facts.machine.lower()], libc_version(facts.libc) or (0, 0))


class Wheel(NamedTuple):
    """A wheel's file, and what its name says."""

    path: Path
    name: str
    version: str


# -- versions ----------------------------------------------------------------------------------------------------------


def key(version: str) -> Key:
    """For comparing releases: (1, 31, 1) of "1.31.1". What follows the numbers does not count."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition(".post")[0]))


def minor(version: str) -> Key:
    return key(version)[:2]


def newest(offered: Iterable[str], below: Key | None = None) -> str:
    """The newest release of those offered, older than `below` (a minor version) where that is given; empty: none."""
    releases = [one for one in offered if _VERSION.fullmatch(one) and (below is None or key(one) < below)]
    return max(releases, key=key, default="")


class Wanted(NamedTuple):
    """What a runtime is to be made of: an exact version where one is asked for, `preferred` where that one is to be
    had, else the newest; and always older than the minor versions of `below`, by package."""

    exact: str = ""
    preferred: str = ""
    below: Mapping[str, Key] = {}

    def choose(self, offered: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """A version for each package; empty where none will do."""
        limit = self.below.get(ENGINE)
        if self.exact:
            engine = self.exact if self.exact in offered[ENGINE] else ""
        elif self.preferred in offered[ENGINE] and (limit is None or key(self.preferred) < limit):
            engine = self.preferred
        else:
            engine = newest(offered[ENGINE], limit)
        limits = [one for one in (self.below.get("numpy"), numpy_limit(engine)) if one is not None]
        return {"numpy": newest(offered["numpy"], min(limits, default=None)), ENGINE: engine}

    def requirements(self) -> list[str]:
        """The same for a pip that chooses by itself."""
        engine = f"=={self.exact}" if self.exact else _below(self.below.get(ENGINE))
        limits = [one for one in (self.below.get("numpy"), numpy_limit(self.exact)) if one is not None]
        return [f"numpy{_below(min(limits, default=None))}", f"{ENGINE}{engine}"]


def numpy_limit(engine: str) -> Key | None:
    """What numpy has to be older than, for a version of the engine."""
    return (2,) if engine and minor(engine) < _SPEAKS_NUMPY_2 else None


def host_version() -> str:
    """The engine's version here; empty where it is not a plain release."""
    try:
        version = importlib.metadata.version(ENGINE)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return version if _VERSION.fullmatch(version) else ""


def _below(limit: Key | None) -> str:
    return "" if limit is None else f"<{_dotted(limit)}"


# -- what fits a board -------------------------------------------------------------------------------------------------


def platforms(board: Board) -> list[str]:
    """The platform tags whose wheels run there, the most modern first."""
    major, last = board.libc
    modern = [f"manylinux_{major}_{number}" for number in range(last, _OLDEST_MINOR[board.machine] - 1, -1)]
    legacy = [name for name, version in reversed(_LEGACY.items()) if version <= board.libc]
    if board.machine != "x86_64":
        legacy = [name for name in legacy if name == "manylinux2014"]
    return [f"{name}_{board.machine}" for name in (*modern, *legacy, "linux")]


def fits(name: str, board: Board) -> bool:
    """Whether the wheel of this file name runs there."""
    found = _WHEEL.fullmatch(name.removesuffix(".whl"))
    if found is None or not name.endswith(".whl"):
        return False
    tags = itertools.product(found["python"].split("."), found["abi"].split("."))
    good = {"any", *platforms(board)}
    return any(_interprets(board, python, abi) for python, abi in tags) and not good.isdisjoint(
        found["platform"].split(".")
    )


def _interprets(board: Board, python: str, abi: str) -> bool:
    own = f"cp{board.python[0]}{board.python[1]}"
    if abi == "abi3":
        since = re.fullmatch(r"cp3(\d+)", python)
        return since is not None and int(since[1]) <= board.python[1]
    return (python, abi) in {(own, own), (own, "none"), ("py3", "none"), (f"py3{board.python[1]}", "none")}


# -- where wheels come from --------------------------------------------------------------------------------------------


class Source(Protocol):
    """Somewhere wheels for a board come from."""

    def offered(self, package: str) -> list[str]:
        """The versions it has."""

    def fetch(self, versions: Mapping[str, str]) -> list[Wheel]:
        """The files of these versions, by package."""


class Folder:
    """Wheels that somebody has put into a folder."""

    def __init__(self, folder: Path, board: Board) -> None:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", hint=_how_to_fill(board, folder))
        self._folder, self._board = folder, board
        self._wheels = {package: self._those_of(package) for package in PACKAGES}
        for package, wheels in self._wheels.items():
            if not wheels:
                names = sorted(path.name for path in folder.glob("*.whl") if path.name.startswith(package))
                why = f"for {board}; there {'are' if names else 'is'} {', '.join(names[:4]) or 'none of it'}"
                raise UsageError(f"no {package} wheel in {folder} fits", why=why, hint=_how_to_fill(board, folder))

    def _those_of(self, package: str) -> dict[str, Path]:
        found = {}
        for path in sorted(self._folder.glob("*.whl")):
            match = _WHEEL.fullmatch(path.name.removesuffix(".whl"))
            if match and match["name"] in _KNOWN_AS.get(package, (package,)) and fits(path.name, self._board):
                found[match["version"]] = path
        return found

    def offered(self, package: str) -> list[str]:
        return list(self._wheels[package])

    def fetch(self, versions: Mapping[str, str]) -> list[Wheel]:
        found = [Wheel(self._wheels[name][version], name, version) for name, version in versions.items()]
        for wheel in found:
            if not zipfile.is_zipfile(wheel.path):
                raise UsageError(f"{wheel.path} is no wheel", why="it is not a zip file", hint="get it again")
        return found


class Pip:
    """The wheels that this machine's pip finds for a board. They are put into `folder`."""

    def __init__(self, board: Board, folder: Path, tell: Tell) -> None:
        self._board, self._folder, self._tell = board, folder, tell

    def offered(self, package: str) -> list[str]:
        return self._offered(package, self._board)

    def fetch(self, versions: Mapping[str, str]) -> list[Wheel]:
        status, said = self._run(self._board, [f"{name}=={version}" for name, version in versions.items()])
        if status:
            raise DeviceError(
                "pip cannot fetch the wheels", why=_errors(said), hint="try again, or use --wheels FOLDER"
            )
        return Folder(self._folder, self._board).fetch(versions)

    def pythons_with(self, version: str) -> list[str]:
        """The versions of Python that an engine's version has wheels for, on such a board."""
        major, own = self._board.python
        found = []
        for number in range(min(own, 9), _NEWEST_MINOR):
            if version in self._offered(ENGINE, self._board._replace(python=(major, number))):
                found.append(f"{major}.{number}")
            elif found:
                break
        return found

    def _offered(self, package: str, board: Board) -> list[str]:
        _, said = self._run(board, [f"{package}==0"])  # no such version: pip names those that there are
        versions = versions_in(said)
        if not versions and any(words in said for words in _OFFLINE):
            raise DeviceError(
                f"cannot look for {package}: no connection",
                why=_errors(said),
                hint=f"where there is one: {download_command(board, Path('wheels'))}, then --wheels wheels",
            )
        return versions

    def _run(self, board: Board, requirements: Sequence[str]) -> tuple[int, str]:
        command = [sys.executable, "-m", *_download(board, self._folder), *requirements]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as running:
            assert running.stdout is not None  # noqa: S101 - it is a pipe
            said = []
            try:
                for line in running.stdout:
                    said.append(line.strip())
                    if line.strip().startswith(("Downloading", "Saved", "WARNING: Retrying")):
                        self._tell(line.strip()[:120])
                running.wait(_PIP_S)
            except BaseException:
                running.kill()
                raise
        text = "\n".join(said)
        if "No module named pip" in text:
            raise DeviceError(
                "this Python has no pip to fetch wheels with",
                hint=f"{sys.executable} -m ensurepip, or let another machine fill a folder and give --wheels FOLDER",
            )
        return running.returncode, text


def versions_in(said: str) -> list[str]:
    """The versions that pip names where it has not found the one it was asked for."""
    found = re.search(r"\(from versions: ([^)]*)\)", said)
    return [] if found is None or found[1] == "none" else [one.strip() for one in found[1].split(",") if one.strip()]


def download_command(board: Board, folder: Path) -> str:
    """The command by which another machine fills a folder for a board."""
    return " ".join(["python3 -m", *_download(board, folder, brief=True), *PACKAGES])


def _download(board: Board, folder: Path, *, brief: bool = False) -> list[str]:
    tags = platforms(board)
    if brief:
        tags = [f"manylinux_2_{number}_{board.machine}" for number in (28, 27, 17) if (2, number) <= board.libc]
    quiet = [] if brief else ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = ["pip", "download", *quiet, "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", _dotted(board.python)]
    for tag in tags:
        command += ["--platform", tag]
    return [*command, "-d", str(folder)]


def _how_to_fill(board: Board, folder: Path) -> str:
    return f"fill it where there is a connection: {download_command(board, folder)}"


def _errors(said: str) -> str:
    lines = said.splitlines()
    told = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if "Retrying" in line]
    return " ".join(told or lines[-2:])[:400]


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
