"""Setting a device up, over a pretend ssh: what is installed, what is tried, what is refused, what stays in use."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_board import FakeBoard, board

from devices.made_wheels import BREAKS, DIES, write_wheel
from toolchain.devices import setup, wheels
from toolchain.devices.facts import facts_there
from toolchain.devices.link import Link
from toolchain.devices.setup import Installed, set_up
from toolchain.errors import DeviceError, UsageError
from toolchain.files import sha256_file
from toolchain.onboard import install
from toolchain.onboard.store import Store, StoreError
from toolchain.progress import Progress, silent_tell
from toolchain.targets import Ssh, Target

__all__ = ["board"]

ENVIRONMENT = "0123456789abcdef"


@pytest.fixture
def link(board: FakeBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """To a board whose Python has pip, but neither numpy nor an engine; pip finds what is in wheels/, nothing else."""
    lacking = tmp_path / "lacking"
    for name in wheels.PACKAGES:
        (lacking / name).mkdir(parents=True)
        (lacking / name / "__init__.py").write_text(f"raise ModuleNotFoundError('No module named {name}')\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_CONFIG_FILE": "/dev/null"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    board.set(variables={"PYTHONPATH": str(lacking)})
    board.know(tmp_path)
    reach = Ssh(host="board", user="pi", python=sys.executable, reconnect_s=30.0)
    opened = Link(Target(id="rpi", title="a board", connection=reach), reach, tmp_path, silent_tell)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_wheel(tmp_path / "wheels", "numpy", "2.2.6")
    return tmp_path / "wheels"


def without_pip(link: Link, board: FakeBoard) -> None:
    """Let the board's pip find nothing, while this machine's does."""
    board.set(variables={**board.state["variables"], "PIP_FIND_LINKS": "/nowhere"})
    link.reconnect("to be told so")


def blobs(board: FakeBoard) -> list[Path]:
    return sorted((board.root / "blobs").iterdir())


# -- what goes well ----------------------------------------------------------------------------------------------------


def test_a_board_is_set_up_once(link: Link, board: FakeBoard, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")
    assert not facts_there(link, wheels.PACKAGES)[0].modules["numpy"].works
    done = set_up(link, folder=folder)
    versions = {"numpy": "2.2.6", "onnxruntime": "1.22.1"}
    assert done == Installed("folder", versions)
    assert set_up(link) == Installed("there", versions)
    assert set_up(link, version="1.22.1") == Installed("there", versions)
    assert blobs(board) == []
    assert (board.root / "runtime").resolve() == next(board.root.glob("runtime-*"))
    assert not list(board.root.glob("part-*"))


def test_the_same_wheels_are_not_sent_again(link: Link, board: FakeBoard, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")
    set_up(link, folder=folder)
    before = (board.root / "runtime").resolve().stat().st_ctime_ns
    steps: list[Progress] = []
    assert set_up(link, folder=folder, listener=steps.append).origin == "folder"
    assert not [one for one in steps if one.note.startswith(("sending", "unpacking"))]
    assert (board.root / "runtime").resolve().stat().st_ctime_ns == before


def test_another_version_takes_the_place_of_the_first(link: Link, board: FakeBoard, folder: Path) -> None:
    for version in ("1.21.0", "1.22.1"):
        write_wheel(folder, "onnxruntime", version)
    assert set_up(link, folder=folder).versions["onnxruntime"] == "1.22.1"
    assert set_up(link, folder=folder, version="1.21.0").versions["onnxruntime"] == "1.21.0"
    assert len(list(board.root.glob("runtime-*"))) == 1


def test_the_boards_own_pip_comes_first(link: Link, board: FakeBoard, folder: Path) -> None:
    for version in ("1.21.0", "1.22.1"):
        write_wheel(folder, "onnxruntime", version)
    assert set_up(link) == Installed("board", {"numpy": "2.2.6", "onnxruntime": "1.22.1"})
    assert set_up(link, version="1.21.0").versions["onnxruntime"] == "1.21.0"
    assert not list(board.root.glob("part-*"))


def test_where_the_boards_pip_fails_wheels_are_sent(link: Link, board: FakeBoard, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")
    without_pip(link, board)
    with pytest.raises(DeviceError, match="pip on rpi failed") as refused:
        set_up(link, "board")
    assert refused.value.hint == "mostool devices setup rpi --from host"
    done = set_up(link)
    assert (done.origin, done.versions["onnxruntime"]) == ("host", "1.22.1")
    assert "No matching distribution" in done.pip_failed


def test_the_hosts_own_version_is_preferred(link: Link, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.21.0", "1.22.1"):
        write_wheel(folder, "onnxruntime", version)
    monkeypatch.setattr(wheels, "host_version", lambda: "1.21.0")
    assert set_up(link, "host").versions["onnxruntime"] == "1.21.0"


def test_a_lost_connection_is_found_again(link: Link, board: FakeBoard, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")
    when = ["sending onnxruntime", "unpacking onnxruntime", "trying onnxruntime"]

    def lose(progress: Progress) -> None:
        if when and progress.note.startswith(when[0]):
            when.pop(0)
            board.kill_connections()

    assert set_up(link, folder=folder, listener=lose).versions["onnxruntime"] == "1.22.1"
    assert link.lost == 3
    assert blobs(board) == []


def test_an_answer_that_was_lost_is_given_again(link: Link, board: FakeBoard, folder: Path) -> None:
    wheel = write_wheel(folder, "onnxruntime", "1.22.1")
    set_up(link, folder=folder)
    wheels_of_it = [{"name": wheel.name, "sha256": sha256_file(wheel)}]
    environment = (board.root / "runtime").resolve().name.removeprefix("runtime-")
    again = link.ask("unpack", environment=environment, wheels=wheels_of_it, modules=["onnxruntime"])
    assert again["active"]
    assert again["versions"] == {"numpy": "2.2.6", "onnxruntime": "1.22.1"}


# -- what does not run there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["board", "host"])
def test_what_dies_of_an_instruction_is_followed_by_its_predecessors(
    link: Link, board: FakeBoard, folder: Path, way: setup.Way
) -> None:
    for version in ("1.20.1", "1.22.0", "1.22.1", "1.23.2"):
        write_wheel(folder, "onnxruntime", version, DIES if version > "1.21" else None)
    done = set_up(link, way)
    assert done.versions["onnxruntime"] == "1.20.1"
    assert done.died == ("onnxruntime 1.23.2", "onnxruntime 1.22.1")
    assert blobs(board) == []


def test_a_numpy_that_dies_is_followed_too(link: Link, folder: Path) -> None:
    write_wheel(folder, "numpy", "2.4.6", DIES)
    write_wheel(folder, "onnxruntime", "1.22.1")
    assert set_up(link, folder=folder) == Installed(
        "folder", {"numpy": "2.2.6", "onnxruntime": "1.22.1"}, ("numpy 2.4.6",)
    )


def test_where_all_die_what_was_there_stays(link: Link, folder: Path, tmp_path: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")
    set_up(link, folder=folder)
    bad = tmp_path / "bad"
    write_wheel(bad, "numpy", "2.2.6")
    for minor in range(20, 26):
        write_wheel(bad, "onnxruntime", f"1.{minor}.0", DIES)
    with pytest.raises(DeviceError, match="no version that was tried works on rpi") as refused:
        set_up(link, folder=bad)
    assert refused.value.why.endswith("onnxruntime 1.25.0, onnxruntime 1.24.0, onnxruntime 1.23.0, onnxruntime 1.22.0")
    assert set_up(link).origin == "there"


def test_where_nothing_older_is_left_it_says_so(link: Link, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1", DIES)
    with pytest.raises(DeviceError, match="nothing older to try") as refused:
        set_up(link, folder=folder)
    assert "onnxruntime 1.22 on" in refused.value.why


def test_a_version_that_was_asked_for_is_not_replaced(link: Link, folder: Path) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1", DIES)
    write_wheel(folder, "onnxruntime", "1.21.0")
    with pytest.raises(DeviceError, match="no version that was tried works"):
        set_up(link, folder=folder, version="1.22.1")
    assert facts_there(link, ["onnxruntime"])[0].runtime == ""


def test_what_cannot_be_imported_does_not_take_the_place_of_what_can(
    link: Link, board: FakeBoard, folder: Path
) -> None:
    write_wheel(folder, "onnxruntime", "1.21.0")
    set_up(link, folder=folder)
    write_wheel(folder, "onnxruntime", "1.22.1", BREAKS)
    with pytest.raises(DeviceError, match=r"onnxruntime 1\.22\.1 does not work on rpi") as refused:
        set_up(link, folder=folder)
    assert "something_nobody_has" in refused.value.why
    assert set_up(link).versions["onnxruntime"] == "1.21.0"
    assert not list(board.root.glob("part-*"))


# -- what is refused before anything is sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why", "hint"),
    [
        ({"bits": 32, "machine": "aarch64"}, "its programs are 32-bit", "64-bit Raspberry Pi OS"),
        ({"libc": "glibc 2.12"}, "glibc 2.12", "2.17 at least"),
        ({"libc": ""}, "not glibc", "musl"),
        ({"machine": "riscv64"}, "riscv64", "aarch64"),
        ({"memory_available_bytes": 90 << 20}, "90 MiB", "desktop"),
        ({"disk_free_bytes": 90 << 20}, "disk: 90 MiB are free", "300 MiB"),
    ],
    ids=str,
)
def test_a_board_that_cannot_run_it_is_told_why(
    link: Link,
    board: FakeBoard,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    why: str,
    hint: str,
) -> None:
    write_wheel(folder, "onnxruntime", "1.22.1")

    def unfit(*asked: Any) -> Any:
        facts, offset_s = facts_there(*asked)
        return msgspec.structs.replace(facts, **changed), offset_s

    monkeypatch.setattr(setup, "facts_there", unfit)
    with pytest.raises(DeviceError, match="rpi cannot run onnxruntime as it is") as refused:
        set_up(link, folder=folder)
    assert why in refused.value.why
    assert hint in refused.value.hint
    assert blobs(board) == []


def test_a_board_that_measures_is_left_alone(
    link: Link, board: FakeBoard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = link.ask

    def at_work(operation: str, **fields: Any) -> dict[str, Any]:
        if operation == "jobs":
            return {"type": "jobs", "jobs": [{"job": "a1", "ended": True}, {"job": "b2", "ended": False}]}
        return asked(operation, **fields)

    monkeypatch.setattr(link, "ask", at_work)
    with pytest.raises(DeviceError, match="rpi is busy"):
        set_up(link, folder=folder)
    assert blobs(board) == []


def test_a_python_without_wheels_is_told_which_has_some(
    link: Link, board: FakeBoard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pip(link, board)
    later = "cp3{0}-cp3{0}-manylinux_2_17_{1}"
    machine = facts_there(link, [])[0].machine
    for number in (sys.version_info[1] + 1, sys.version_info[1] + 2):
        write_wheel(folder, "onnxruntime", "1.30.0", tags=later.format(number, machine))
    monkeypatch.setattr(wheels, "host_version", lambda: "1.30.0")
    monkeypatch.setattr(wheels, "_NEWEST_MINOR", number + 1)
    with pytest.raises(DeviceError, match="there is no onnxruntime for rpi") as refused:
        set_up(link)
    assert f"is for Python 3.{number - 1} to 3.{number}" in refused.value.why
    assert "connection.python" in refused.value.hint
    write_wheel(folder, "onnxruntime", "1.19.2")
    with pytest.raises(DeviceError, match=r"onnxruntime 1\.30\.0 is not for rpi") as refused:
        set_up(link, version="1.30.0")
    assert refused.value.hint == "--version 1.19.2 is the newest that fits"


def test_a_folder_without_wheels_for_the_board_is_told_how_to_fill_it(link: Link, folder: Path) -> None:
    with pytest.raises(UsageError, match="no onnxruntime wheel") as refused:
        set_up(link, folder=folder)
    assert "pip download" in refused.value.hint


# -- on the board ------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def stored(root: Path, *paths: Path) -> tuple[list[dict[str, str]], Store]:
    store = Store(str(root))
    for path in paths:
        store.put(sha256_file(path), path.stat().st_size, iter([path.read_bytes()]).__next__)
    return [{"name": path.name, "sha256": sha256_file(path)} for path in paths], store


def fails(fault: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise fault

    return fail


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, store = stored(root, *folder.iterdir())
    monkeypatch.setattr(install, "_extract", fails(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StoreError, match="it became full") as refused:
        install.unpack(str(root), ENVIRONMENT, listed, ["numpy"], store, silent_tell)
    assert refused.value.kind == "disk"
    assert [path.name for path in root.iterdir()] == ["blobs"]
    monkeypatch.setattr(install, "free_bytes", lambda _: 1 << 20)
    with pytest.raises(StoreError, match="1 MiB are free"):
        install.unpack(str(root), ENVIRONMENT, listed, ["numpy"], store, silent_tell)


def test_a_wheel_leads_nowhere_else(root: Path, tmp_path: Path) -> None:
    bad = write_wheel(tmp_path / "bad", "../../outside", "1.0")
    listed, store = stored(root, bad)
    with pytest.raises(ValueError, match="leads out of its folder"):
        install.unpack(str(root), ENVIRONMENT, listed, [], store, silent_tell)
    torn = tmp_path / "torn-1.0-py3-none-any.whl"
    torn.write_bytes(b"torn")
    listed, store = stored(root, torn)
    with pytest.raises(StoreError) as refused:
        install.unpack(str(root), ENVIRONMENT, listed, [], store, silent_tell)
    assert refused.value.kind == "wheel"
    with pytest.raises(StoreError, match="is not here"):
        install.unpack(str(root), ENVIRONMENT, [{"name": "x", "sha256": "0" * 64}], [], store, silent_tell)
    assert [path.name for path in root.iterdir()] == ["blobs"]


@pytest.mark.parametrize("name", ["../x", "", "0123456789ABCDEF", "a" * 65])
def test_an_environment_has_a_plain_name(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of an environment"):
        install.unpack(str(root), name, [], [], Store(str(root)), silent_tell)


@pytest.mark.parametrize("requirement", ["--index-url=x", "numpy @ file:///x", "numpy; x", "./numpy", ""])
def test_pip_is_given_nothing_but_names_and_versions(root: Path, requirement: str) -> None:
    with pytest.raises(ValueError, match="is no requirement"):
        install.pip(str(root), ENVIRONMENT, [requirement], [], silent_tell)


def test_what_a_killed_agent_left_is_removed(root: Path, folder: Path) -> None:
    for name in ("part-999999999", "part-999999999.before"):
        (root / name).mkdir()
    (root / f"part-{os.getppid()}").mkdir()
    listed, store = stored(root, *folder.iterdir())
    install.unpack(str(root), ENVIRONMENT, listed, ["numpy"], store, silent_tell)
    assert [path.name for path in root.glob("part-*")] == [f"part-{os.getppid()}"]
    assert install.active(str(root)) == ENVIRONMENT


def test_a_pip_that_nobody_waits_for_is_ended(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = root.parent / "python"
    slow.write_text(f"#!/bin/sh\necho $$ > {root.parent}/pid\necho Collecting\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(install.sys, "executable", str(slow))
    with pytest.raises(EOFError):
        install.pip(str(root), ENVIRONMENT, ["numpy"], ["numpy"], fails(EOFError()))
    with pytest.raises(ProcessLookupError):
        os.kill(int((root.parent / "pid").read_text()), signal.SIGCONT)
    assert list(root.iterdir()) == []
