"""Every page of the documentation, carried out: what it says to type works, and prints what it says it prints."""

from __future__ import annotations

import contextlib
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_project import Made, made, one_thread
from made_runs import runs

from docs.blocks import DOCS, LANGUAGES, ROOT, Block, pages, read_blocks
from docs.session import Session, missing
from docs.typed import complaints
from toolchain.cli.app import app
from toolchain.cli.settings import read_options, read_settings
from toolchain.pipeline.spaces import read_space
from toolchain.targets import read_target

__all__ = ["made", "one_thread", "runs"]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def carried_out() -> list[object]:
    """The pages with something to run; those that start from a trained project, or train, take more than seconds."""
    found: list[object] = []
    for page in pages():
        blocks = [block for block in read_blocks(page) if block.runs or block.file]
        if blocks:
            long = any("mostool" in block.text for block in blocks if block.runs)
            found.append(pytest.param(page, id=page_id(page), marks=[pytest.mark.slow] if long else []))
    return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with contextlib.closing(Session(tmp_path / "page", tmp_path / "aside")) as opened:
        yield opened


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: a block is one of {sorted(LANGUAGES)}: {block.language!r}"
        assert block.words in {"", "run"} or block.reason is not None, f"{block.where}: {block.words!r}"
        assert block.reason != "", f"{block.where}: why is it not run?"


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_every_command_could_be_typed(page: Path) -> None:
    told = [
        f"{block.where}: {one}"
        for block in read_blocks(page)
        if block.language == "sh"
        for one in complaints(block.text)
    ]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_toml_json_and_python_can_be_read(page: Path, tmp_path: Path) -> None:
    for block in read_blocks(page):
        match block.language:
            case "toml":
                place(block, tmp_path)
            case "json":
                json.loads(block.text)
            case "python":
                compile(block.text, block.where, "exec")


def place(block: Block, folder: Path) -> None:
    """Write a block of TOML as the file that it says it is, and read it as mostool would."""
    values = tomllib.loads(block.text)
    if block.file is None:
        return
    path = folder / block.file
    assert path.resolve().is_relative_to(folder.resolve()), block.where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text)
    if path.name == "mostool.toml":
        with contextlib.chdir(folder):
            read_settings(app)
    elif "axes" in values:
        read_space(values["family"], str(path))
    elif path.parent == folder / "targets":
        assert path.stem == values["id"], f"{block.where}: a target is called as its file is"
        read_target(path.stem, folder)
    else:
        read_options(path, app.commands["train"])


@pytest.mark.parametrize("page", carried_out())
def test_a_page_can_be_followed(page: Path, session: Session, request: pytest.FixtureRequest) -> None:
    before: Block | None = None
    for block in read_blocks(page):
        if "project" in block.marks:
            start_from(request.getfixturevalue("made"), session.folder)
        session.mark(block.marks)
        if block.runs:
            session.run(block)
        elif block.file and block.reason is None:
            place(block, session.folder)
        elif block.language == "text" and before is not None and before.runs:
            lost = missing(block.text, session.printed)
            assert not lost, f"{block.where}: not printed: {lost}\n{session.printed}"
        before = block


def start_from(made: Made, folder: Path) -> None:
    """A copy of the made project: a trained classifier that is profiled on `quick`, searched and exported."""
    shutil.copytree(made.root, folder, dirs_exist_ok=True)


def test_the_tutorial_and_the_howtos_are_there() -> None:
    assert (DOCS / "README.md").exists()
    assert (DOCS / "tutorial.md").exists()
    assert len(list((DOCS / "howto").glob("*.md"))) >= 10
