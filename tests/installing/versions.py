"""Try mostool with the lowest and the highest versions that pyproject.toml allows, in an environment of its own.

    python tests/installing/versions.py lowest                      # the half without torch
    python tests/installing/versions.py highest --python python3.13
    python tests/installing/versions.py lowest --extras all         # the other half too

It builds the wheel of this checkout, installs it with pip from wherever pip is set up to look, and runs the quick tests
with what was installed. Downloads: about 150 MB without torch. torch stays at the version of .ci/pins.txt: others are
gigabytes. The tools of the tests are those of .ci/pins.txt too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = ("pytest", "pytest-randomly", "pytest-timeout", "hypothesis")
TRIED = ("tables", "onnx")
"""Extras that the tests without torch use too: of the second onnx alone, with which they make their models."""
BASE_TESTS = (
    *("tests/predict", "tests/tables", "tests/devices", "tests/onboard", "tests/profiling"),
    *("tests/test_journal.py", "tests/test_records.py", "tests/test_space.py", "tests/test_targets.py"),
    *("tests/test_arrays.py", "tests/test_errors.py"),
)
"""The quick tests that import no torch."""
ALL_TESTS = (*BASE_TESTS, "tests/cli", "tests/report", "tests/search", "tests/text", "tests/pipeline/test_growing.py")
_NOT_QUICK = "not slow and not standin and not shared and not packaging"


def declared() -> dict[str, list[Requirement]]:
    """The requirements of each extra, those of the base under the empty name; extras that name extras are resolved."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: list(_resolved(extras, texts)) for name, texts in extras.items()}


def _resolved(extras: dict[str, list[str]], texts: Iterable[str]) -> Iterable[Requirement]:
    for text in texts:
        requirement = Requirement(text)
        if requirement.name == "mostool":
            for extra in sorted(requirement.extras):
                yield from _resolved(extras, extras[extra])
        else:
            yield requirement


def lowest(requirement: Requirement) -> str:
    """NAME==VERSION of the lowest version a requirement allows: its >= or ==.

    Raises:
        ValueError: it has no lower bound, so nobody knows what it was tried with.
    """
    bounds = [one.version for one in requirement.specifier if one.operator in (">=", "==")]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} has {len(bounds) or 'no'} lower bounds; pyproject.toml should give it one")
    return f"{requirement.name}=={bounds[0]}"


def pins() -> dict[str, str]:
    """The versions of .ci/pins.txt, by canonical name."""
    lines = (CHECKOUT / ".ci" / "pins.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def constraints(end: str, extras: Sequence[str]) -> list[str]:
    """What pip is held to: at the lowest end everything the base and `extras` name; torch and the tools always."""
    pinned, every = pins(), declared()
    held = {name: f"{name}=={pinned[name]}" for name in ("torch", *TOOLS)}
    if end == "lowest":
        named = [one for extra in ("", *TRIED, *extras) for one in every[extra]]
        held = {canonicalize_name(one.name): lowest(one) for one in named} | held
    return sorted(held.values())


def make_environment(folder: Path, python: str) -> Path:
    """A new environment; its Python."""
    run([python, "-m", "venv", "--clear", folder])
    return folder / "bin" / "python"


def build(folder: Path, kind: str = "wheel") -> Path:
    """The wheel or sdist of this checkout."""
    run([sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", folder], cwd=CHECKOUT)
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def install(python: Path, packages: Sequence[str | Path], held: Path | None = None) -> None:
    within = ["--constraint", held] if held is not None else []
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *within, *packages])


def run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("end", choices=["lowest", "highest"])
    parser.add_argument("--extras", default="", help="extras to install, as all or tables,search")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--folder", type=Path, help="keep the environment here; it is made anew")
    parser.add_argument("tests", nargs="*", help="what to run instead of the quick tests")
    given = parser.parse_intermixed_args()
    extras = [one for one in given.extras.split(",") if one]
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "environment"
        python = make_environment(folder, given.python)
        held = Path(scratch) / "constraints.txt"
        held.write_text("\n".join(constraints(given.end, extras)) + "\n")
        wheel = build(Path(scratch) / "built")
        install(python, [f"{wheel}[{','.join(extras or ['tables'])}]", *TOOLS, "onnx"], held)
        run([python, "-m", "pip", "check"])
        run([python, "-m", "pip", "list", "--format", "freeze"])
        tests = given.tests or (ALL_TESTS if "all" in extras else BASE_TESTS)
        # Not `python -m pytest`, which would put the checkout's own package before the installed one.
        command = [folder / "bin" / "pytest", "-q", "-m", _NOT_QUICK, "-p", "no:cacheprovider", *tests]
        try:
            run(command, cwd=CHECKOUT)
        except subprocess.CalledProcessError as failed:
            return failed.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
