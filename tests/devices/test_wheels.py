"""Which wheels fit a board: by name, by version, and as a real pip finds them in a folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from devices.made_wheels import write_wheel
from toolchain.devices import wheels
from toolchain.devices.wheels import Board, Folder, Pip, Wanted, fits, newest, platforms, versions_in
from toolchain.errors import DeviceError, UsageError
from toolchain.progress import silent_tell

BOOKWORM = Board((3, 11), "aarch64", (2, 36))
BULLSEYE = Board((3, 9), "aarch64", (2, 31))


def test_a_board_runs_the_wheels_of_every_older_glibc() -> None:
    assert platforms(Board((3, 11), "aarch64", (2, 19))) == [
        *("manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
        "linux_aarch64",
    ]
    old = platforms(Board((3, 11), "x86_64", (2, 12)))
    assert old[0] == "manylinux_2_12_x86_64"
    assert old[-3:] == ["manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


@pytest.mark.parametrize(
    ("name", "board", "good"),
    [
        ("onnxruntime-1.22.1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", BOOKWORM, True),
        ("onnxruntime-1.22.1-cp311-cp311-manylinux_2_37_aarch64.whl", BOOKWORM, False),
        ("onnxruntime-1.22.1-cp311-cp311-manylinux_2_28_x86_64.whl", BOOKWORM, False),
        ("onnxruntime-1.22.1-cp312-cp312-manylinux_2_28_aarch64.whl", BOOKWORM, False),
        ("onnxruntime-1.22.1-cp311-cp311-musllinux_1_2_aarch64.whl", BOOKWORM, False),
        ("onnxruntime_gpu-1.20.0-cp311-cp311-linux_aarch64.whl", BOOKWORM, True),
        ("numpy-1.26.4-cp39-cp39-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", BULLSEYE, True),
        ("numpy-1.26.4-1-cp39-cp39-manylinux2014_aarch64.whl", BULLSEYE, True),
        ("thing-1.0-cp38-abi3-manylinux2014_aarch64.whl", BULLSEYE, True),
        ("thing-1.0-cp310-abi3-manylinux2014_aarch64.whl", BULLSEYE, False),
        ("thing-1.0-py2.py3-none-any.whl", BULLSEYE, True),
        ("thing-1.0-cp39-none-any.whl", BULLSEYE, True),
        ("thing-1.0.tar.gz", BULLSEYE, False),
        ("thing.whl", BULLSEYE, False),
    ],
)
def test_a_wheels_name_says_whether_it_fits(name: str, board: Board, good: bool) -> None:
    assert fits(name, board) is good


def test_the_newest_is_the_newest_release() -> None:
    assert newest(["1.9.0", "1.31.1", "1.32.0rc1", "1.31.0", "2.0.dev3"]) == "1.31.1"
    assert newest(["1.9.0", "1.31.1", "1.30.2.post1"], below=(1, 31)) == "1.30.2.post1"
    assert newest(["1.31.1"], below=(1, 31)) == ""
    assert newest([]) == ""


@pytest.mark.parametrize(
    ("wanted", "numpy", "engine"),
    [
        (Wanted(), "2.4.6", "1.31.1"),
        (Wanted(preferred="1.22.0"), "2.4.6", "1.22.0"),
        (Wanted(preferred="1.99.0"), "2.4.6", "1.31.1"),
        (Wanted(exact="1.22.0", preferred="1.31.1"), "2.4.6", "1.22.0"),
        (Wanted(exact="1.99.0", preferred="1.31.1"), "2.4.6", ""),
        (Wanted(exact="1.18.1"), "1.26.4", "1.18.1"),
        (Wanted(preferred="1.31.1", below={"onnxruntime": (1, 31)}), "2.4.6", "1.22.0"),
        (Wanted(preferred="1.31.1", below={"onnxruntime": (1, 22)}), "1.26.4", "1.18.1"),
        (Wanted(preferred="1.31.1", below={"onnxruntime": (1, 18)}), "2.4.6", ""),
        (Wanted(below={"numpy": (2, 4)}), "2.0.2", "1.31.1"),
        (Wanted(below={"numpy": (1, 26)}), "", "1.31.1"),
    ],
)
def test_versions_are_chosen_from_what_is_offered(wanted: Wanted, numpy: str, engine: str) -> None:
    offered = {"numpy": ["1.26.4", "2.0.2", "2.4.6"], "onnxruntime": ["1.18.1", "1.22.0", "1.31.1", "1.32.0rc1"]}
    assert wanted.choose(offered) == {"numpy": numpy, "onnxruntime": engine}


def test_a_pip_that_chooses_by_itself_is_given_the_same_limits() -> None:
    assert Wanted(preferred="1.31.1").requirements() == ["numpy", "onnxruntime"]
    assert Wanted(exact="1.18.1").requirements() == ["numpy<2", "onnxruntime==1.18.1"]
    assert Wanted(below={"onnxruntime": (1, 31)}).requirements() == ["numpy", "onnxruntime<1.31"]
    assert Wanted(below={"numpy": (2, 4)}).requirements() == ["numpy<2.4", "onnxruntime"]


def test_pip_names_the_versions_there_are() -> None:
    said = (
        "ERROR: Could not find a version that satisfies the requirement numpy==0 (from versions: 1.26.4, 2.0.2)\nERROR"
    )
    assert versions_in(said) == ["1.26.4", "2.0.2"]
    assert versions_in("(from versions: none)") == []
    assert versions_in("Traceback") == []


# -- a folder ----------------------------------------------------------------------------------------------------------


def test_a_folder_offers_what_fits(tmp_path: Path) -> None:
    aarch64 = "cp311-cp311-manylinux_2_28_aarch64"
    write_wheel(tmp_path, "numpy", "2.2.6", tags=aarch64)
    write_wheel(tmp_path, "onnxruntime", "1.22.1", tags=aarch64)
    write_wheel(tmp_path, "onnxruntime", "1.23.0", tags="cp312-cp312-manylinux_2_28_aarch64")
    vendor = write_wheel(tmp_path, "onnxruntime_gpu", "1.20.0", tags="cp311-cp311-linux_aarch64")
    folder = Folder(tmp_path, BOOKWORM)
    assert sorted(folder.offered("onnxruntime")) == ["1.20.0", "1.22.1"]
    fetched = folder.fetch({"numpy": "2.2.6", "onnxruntime": "1.20.0"})
    assert [(wheel.name, wheel.version) for wheel in fetched] == [("numpy", "2.2.6"), ("onnxruntime", "1.20.0")]
    assert fetched[1].path == vendor


def test_a_folder_that_lacks_something_says_how_it_is_filled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        Folder(tmp_path / "none", BOOKWORM)
    write_wheel(tmp_path, "numpy", "2.2.6", tags="cp311-cp311-manylinux_2_28_aarch64")
    write_wheel(tmp_path, "onnxruntime", "1.22.1", tags="cp312-cp312-manylinux_2_28_aarch64")
    with pytest.raises(UsageError, match="no onnxruntime wheel") as refused:
        Folder(tmp_path, BOOKWORM)
    assert "cp312" in refused.value.why
    assert "--python-version 3.11" in refused.value.hint
    assert "manylinux_2_28_aarch64" in refused.value.hint


def test_what_is_no_zip_is_no_wheel(tmp_path: Path) -> None:
    aarch64 = "cp311-cp311-manylinux_2_28_aarch64"
    write_wheel(tmp_path, "numpy", "2.2.6", tags=aarch64)
    write_wheel(tmp_path, "onnxruntime", "1.22.1", tags=aarch64).write_bytes(b"half of it")
    with pytest.raises(UsageError, match="is no wheel"):
        Folder(tmp_path, BOOKWORM).fetch({"onnxruntime": "1.22.1"})


# -- a real pip, that knows nothing but a folder -----------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip finds, and nothing else."""
    folder = tmp_path / "index"
    for number in ("1.21.0", "1.22.1"):
        write_wheel(folder, "onnxruntime", number, tags="cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64")
    write_wheel(folder, "onnxruntime", "1.19.2", tags="cp39-cp39-manylinux_2_27_aarch64")
    write_wheel(folder, "onnxruntime", "1.22.1", tags="cp312-cp312-manylinux_2_28_aarch64")
    write_wheel(folder, "numpy", "2.2.6", tags="cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def test_pip_offers_and_fetches_what_fits_the_board(index: Path, tmp_path: Path) -> None:
    pip = Pip(BOOKWORM, tmp_path / "fetched", silent_tell)
    assert sorted(pip.offered("onnxruntime")) == ["1.21.0", "1.22.1"]
    fetched = pip.fetch({"numpy": "2.2.6", "onnxruntime": "1.21.0"})
    assert [wheel.path.name.partition("-cp")[0] for wheel in fetched] == ["numpy-2.2.6", "onnxruntime-1.21.0"]
    assert Pip(BULLSEYE, tmp_path, silent_tell).offered("onnxruntime") == ["1.19.2"]
    assert Pip(BOOKWORM._replace(libc=(2, 19)), tmp_path, silent_tell).offered("onnxruntime") == []


def test_pip_tells_which_pythons_a_version_is_for(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_NEWEST_MINOR", 14)
    assert Pip(BULLSEYE, tmp_path, silent_tell).pythons_with("1.22.1") == ["3.11", "3.12"]


def test_a_version_that_is_gone_again_is_told(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot fetch") as refused:
        Pip(BOOKWORM, tmp_path, silent_tell).fetch({"numpy": "2.2.7"})
    assert "numpy==2.2.7" in refused.value.why


def test_without_a_connection_another_machine_can_fetch_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "1", "CONFIG_FILE": "/dev/null", "TIMEOUT": "1"}
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(DeviceError, match="no connection") as refused:
        Pip(BOOKWORM, tmp_path, silent_tell).offered("numpy")
    command = refused.value.hint.partition(": ")[2].partition(", then")[0]
    assert shlex.split(command)[:4] == ["python3", "-m", "pip", "download"]
    assert "--wheels wheels" in refused.value.hint


def test_a_python_without_pip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = tmp_path / "python"
    lacking.write_text("#!/bin/sh\necho python: No module named pip\nexit 1\n")
    lacking.chmod(0o755)
    monkeypatch.setattr(wheels.sys, "executable", str(lacking))
    with pytest.raises(DeviceError, match="has no pip") as refused:
        Pip(BOOKWORM, tmp_path, silent_tell).offered("numpy")
    assert "ensurepip" in refused.value.hint
