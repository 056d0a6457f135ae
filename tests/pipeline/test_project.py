"""What a run is called, so that --run finds it again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from toolchain.pipeline.project import CHECKPOINT_FILE, Project
from toolchain.space import Architecture


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("runs/demo", "demo"),
        ("runs/data", "runs/data"),  # a folder of that name lies in the project too
        ("elsewhere/demo", "elsewhere/demo"),
        ("../moved/demo", "../moved/demo"),
    ],
)
def test_a_run_is_found_by_what_it_is_called(tmp_path: Path, given: str, named: str) -> None:
    root = tmp_path / "project"
    for folder in ("runs/demo", "runs/data", "data", "elsewhere/demo", "../moved/demo"):
        (root / folder).mkdir(parents=True)
    (root / given / CHECKPOINT_FILE).write_text("{}")
    project = Project(Path())
    with contextlib.chdir(root):
        assert project.name_of(Path(given)) == named
        assert project.find_run(Path(named)).resolve() == (root / given).resolve()


def test_a_bundle_is_named_after_its_run_from_within_it_too(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    architecture = Architecture("bert", {"hidden": 32})
    with contextlib.chdir(tmp_path / "demo"):
        assert Project(Path()).bundle_folder(Path(), architecture).name == f"demo-{architecture.id}"
