"""Projects to compile from, each made once a session, and a stranger's process to run what came out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_project import call, copied, require
from made_runs import Runs

from toolchain.pipeline import measured

EXPORT = ("export", "--arch", "largest", "--device", "quick")
GRAPHS = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """What ships is measured as shortly as all else, where no figure is judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "_FINAL_SECONDS", 0.0)
        patch.setattr(measured, "_FINAL_ROUNDS", 0)
        yield


@pytest.fixture(scope="session")
def encoders(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained classifier; its exports go elsewhere."""
    return copied(runs.folder("classify").parents[1], tmp_path_factory.mktemp("compile") / "encoders")


class Translator(NamedTuple):
    """A project with a trained translation run, profiled, searched by latency and exported. Look, do not touch."""

    root: Path
    run: Path
    bundle: Path
    said: dict[str, Any]


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    from end_to_end.test_translation import TRAIN, write_parallel  # noqa: PLC0415 - pytest rewrites it first

    root = write_parallel(tmp_path_factory.mktemp("compile") / "translator")
    require(call(root, *TRAIN))
    said = {
        "profile": call(root, "profile", "--device", "quick", "--n", "9", "--json").data,
        "search": call(root, "search", "--latency", "1s", "--evaluations", "6", "--json").data,
        "export": call(root, "export", "--licence", "Apache-2.0", "--json").data,
    }
    (run,) = (root / "runs").iterdir()
    return Translator(root, run, root / said["export"]["bundle"], said)


_ALONE = """
import runpy, sys
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
known = {*sys.stdlib_module_names, "numpy", "onnxruntime", "tokenizers", "_distutils_hack", "sitecustomize", "__main__"}
found = {name.partition(".")[0] for name in sys.modules} - known
assert not found, found
"""


def alone(bundle: Path, *arguments: str, code: int = 0) -> str:
    """What the bundle's example prints, in a process that asserts that it has loaded nothing besides what it names."""
    given = [sys.executable, "-I", "-c", _ALONE, str(bundle / "run_example.py"), *arguments]
    done = subprocess.run(given, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
