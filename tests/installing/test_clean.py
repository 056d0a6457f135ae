"""The wheel and the sdist, installed by pip into an environment of their own, without torch, and put to work there.

It downloads what the base depends on, some 100 MB, so it runs where MOSTOOL_PACKAGING=1 says that there is an index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_project import Made, call, require, write_inputs

from installing.versions import build, install, make_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.packaging,
    pytest.mark.skipif(os.environ.get("MOSTOOL_PACKAGING") != "1", reason="it installs packages: MOSTOOL_PACKAGING=1"),
]


def said(program: Path, folder: Path, *arguments: str, code: int = 0) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MOSTOOL_"))}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_clean_install_without_torch_measures_ready_files(kind: str, made: Made, tmp_path: Path) -> None:
    files = tmp_path / "files"
    given = ("--run", made.classify, "--device", "quick", "--n", "10")
    require(call(made.root, "profile", *given, "--build-only", files))
    write_inputs(tmp_path / "project")
    shutil.move(files, tmp_path / "project" / "files")
    python = make_environment(tmp_path / "environment", sys.executable)
    install(python, [build(tmp_path / "built", kind)])
    mostool, project = python.parent / "mostool", tmp_path / "project"
    assert "torch" not in said(python, project, "-m", "pip", "list").split()
    said(python, project, "-m", "pip", "check")
    told = said(mostool, project, "profile", "--artifacts", "files", "--device", "quick")
    assert ": 10 measured now, 10 in all" in told
    assert "held-out error" in told
    assert "held-out error" in said(mostool, project, "predict", "--n", "3")
    assert "hint: pip install 'mostool[train]'" in said(mostool, project, "train", code=2)
