"""The wheel and the sdist hold what they should, and an installed copy needs nothing of the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import toolchain

CHECKOUT = Path(__file__).parent.parent
SHOW = (
    "import sys, toolchain\n"
    "from pathlib import Path\n"
    "from toolchain.targets import find_targets, read_target, shipped_folder\n"
    "print(toolchain.__file__)\n"
    "print(find_targets(Path.cwd())['cpu'])\n"
    "print(read_target('cpu', Path.cwd()).title)\n"
    "print((shipped_folder('profiles') / 'README.md').is_file())\n"
)

_CAREFUL: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11.2, as Debian 12 has it, knows no filters yet."""


def python(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, folder: Path, kind: str) -> Path:
    python("-m", "hatchling", "build", "--target", kind, "--directory", folder, cwd=source)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(CHECKOUT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(CHECKOUT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def unpacked_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **_CAREFUL)  # noqa: S202 - made here
    (inner,) = folder.iterdir()
    return inner


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sources(folder: str, *suffixes: str) -> set[str]:
    """The files of a folder of the checkout with these suffixes, by their path in the checkout."""
    found = (path for path in (CHECKOUT / folder).rglob("*") if path.suffix in suffixes)
    return {path.relative_to(CHECKOUT).as_posix() for path in found}


def test_the_wheel_holds_the_package_with_its_targets_and_profiles_and_nothing_else(wheel: Path) -> None:
    names = names_in(wheel)
    assert sources("toolchain", ".py", ".typed") <= names
    assert {f"toolchain/shipped/{name}" for name in sources("targets", ".toml", ".md")} <= names
    assert {f"toolchain/shipped/{name}" for name in sources("profiles", ".json", ".jsonl", ".md")} <= names
    assert {name.split("/")[0] for name in names} == {"toolchain", f"mostool-{toolchain.__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_has_the_command_the_licence_and_the_version(wheel: Path) -> None:
    information = f"mostool-{toolchain.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        commands = archive.read(f"{information}/entry_points.txt").decode()
        about = archive.read(f"{information}/METADATA").decode()
    assert "mostool = toolchain.cli:main" in commands
    assert f"Version: {toolchain.__version__}\n" in about
    assert "Requires-Python: >=3.11\n" in about
    assert f"{information}/licenses/LICENSE" in names_in(wheel)


def test_the_sdist_holds_what_building_and_testing_needs(unpacked_sdist: Path) -> None:
    names = {path.relative_to(unpacked_sdist).as_posix() for path in unpacked_sdist.rglob("*") if path.is_file()}
    assert sources("toolchain", ".py") | sources("tests", ".py") | sources("targets", ".toml", ".md") <= names
    assert {"pyproject.toml", "Makefile", ".ci/pins.txt", "README.md", "CHANGELOG.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith((".git/", ".venv/", "shared/"))]


def test_the_sdist_builds_the_same_wheel_as_the_checkout(unpacked_sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert names_in(build(unpacked_sdist, tmp_path, "wheel")) == names_in(wheel)


def test_an_installed_wheel_finds_its_own_targets(wheel: Path, tmp_path: Path) -> None:
    installed, project = tmp_path / "installed", tmp_path / "project"
    project.mkdir()
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    python(*pip, "--target", installed, wheel, cwd=tmp_path)
    package, target, title, profiles = python("-c", SHOW, cwd=project, path=installed).splitlines()
    assert Path(package) == installed / "toolchain" / "__init__.py"
    assert Path(target) == installed / "toolchain" / "shipped" / "targets" / "cpu.toml"
    assert title
    assert profiles == "True"


def test_the_editable_install_finds_the_targets_of_the_checkout(tmp_path: Path) -> None:
    package, target, title, profiles = python("-c", SHOW, cwd=tmp_path).splitlines()
    assert Path(package) == CHECKOUT / "toolchain" / "__init__.py"
    assert Path(target) == CHECKOUT / "targets" / "cpu.toml"
    assert title
    assert profiles == "True"


def test_make_knows_the_versions_it_installs() -> None:
    pins = dict(
        line.split("==") for line in (CHECKOUT / ".ci" / "pins.txt").read_text().splitlines() if line and line[0] != "#"
    )
    assert f"torch=={pins['torch']}\n" in (CHECKOUT / "Makefile").read_text()
    assert all(version and "+" not in version and "/" not in version for version in pins.values())
    assert {"numpy", "onnxruntime", "hatchling", "pytest", "mypy", "ruff"} <= set(pins)
