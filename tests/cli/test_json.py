"""--json: one object on success and on failure, of every command and subcommand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_board import FakeBoard, board
from made_project import Made, call, require

from cli.test_options import LEAVES

__all__ = ["board"]

SUCCEEDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("train",): ("--task", "mlm", "--dry-run", "--space", "tiny"),
    ("finetune",): ("--updates", "2", "--dry-run"),
    ("profile",): ("--device", "quick", "--dry-run"),
    ("search",): ("--evaluations", "20"),
    ("export",): ("--dry-run",),
    ("predict",): ("--n", "2"),
    ("evaluate",): ("--arch", "smallest"),
    ("sample",): ("--n", "2"),
    ("verify",): ("BUNDLE", "--no-speed"),
    ("report",): ("-o", "page.html"),
    ("devices", "list"): (),
    ("devices", "show"): ("cpu",),
    ("doctor",): (),
    ("completion",): ("bash",),
    ("config",): ("--origin",),
    ("docs",): (),
}
"""What lets a command succeed in a finished project, in seconds."""

ELSEWHERE = {("demo",), ("devices", "add"), ("devices", "setup"), ("devices", "test")}
"""Commands whose success takes a device or minutes: test_devices.py and tests/test_demo.py ask them for JSON."""

FAILS: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {
    ("train",): (("--data", "no.tsv"), 2),
    ("finetune",): (("--arch", "nobody"), 2),
    ("profile",): (("--device", "nowhere"), 2),
    ("search",): (("--latency", "0.000001ms"), 3),
    ("export",): (("--arch", "nobody"), 2),
    ("predict",): ((), 2),
    ("evaluate",): (("--arch", "nobody"), 2),
    ("sample",): (("--run", "none"), 2),
    ("verify",): (("nothing",), 2),
    ("report",): (("--run", "none"), 2),
    ("demo",): (("--device", "nowhere", "--out", "tried"), 2),
    ("devices", "list"): (("stray",), 2),
    ("devices", "show"): (("nowhere",), 2),
    ("devices", "add"): (("rpi", "--host", "-bad"), 2),
    ("devices", "setup"): (("cpu",), 2),
    ("devices", "test"): (("rpi",), 2),
    ("doctor",): (("--device", "nowhere"), 2),
    ("completion",): (("tcsh",), 2),
    ("config",): (("serach",), 2),
    ("docs",): (("nowhere",), 2),
}


def test_every_command_is_asked() -> None:
    assert SUCCEEDS.keys() | ELSEWHERE == LEAVES.keys()
    assert FAILS.keys() == LEAVES.keys()


@pytest.mark.parametrize("path", SUCCEEDS, ids=" ".join)
def test_success_is_one_object(made: Made, project: Path, path: tuple[str, ...]) -> None:
    given = [str(made.bundle) if one == "BUNDLE" else one for one in SUCCEEDS[path]]
    told = call(project, *path, *given, "--json")
    assert told.data is not None
    quiet = call(project, *path, *given, "--json", "--quiet")
    assert quiet.envelope["ok"] is True
    assert quiet.err == ""


@pytest.mark.parametrize("path", FAILS, ids=" ".join)
def test_failure_is_one_object(project: Path, board: FakeBoard, path: tuple[str, ...]) -> None:
    given, code = FAILS[path]
    for order in ((*path, *given, "--json"), (*path, "--json", *given), (*path, *given, "--json", "-q")):
        told = call(project, *order)
        assert told.code == code, told
        error = told.envelope["error"]
        assert told.envelope["ok"] is False
        assert (error["code"], error.keys()) == (code, {"code", "kind", "message", "hint"})
        assert error["message"]
        assert error["hint"]
        assert not told.err.startswith("error")


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_what_cannot_be_parsed_is_one_object(tmp_path: Path, path: tuple[str, ...]) -> None:
    for given in (("--nonesuch",), ("--json", "--nonesuch", "x")):
        told = call(tmp_path, *path, *given, "--json")
        assert told.error["code"] == 2
        assert told.error["kind"] == "usage"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nonesuch", "--json"], "known: "),
        (["serach", "--json"], "did you mean search?"),
        (["devices", "nonesuch", "--json"], "known: "),
        (["devices", "--json"], "mostool devices COMMAND --json"),
        (["--json", "search"], "mostool COMMAND --json"),
        (["verify", "--json"], "mostool export"),
        (["devices", "show", "--json"], "mostool devices show --help"),
        (["train", "--json", "--data"], "--help"),
        (["train", "--data", "--json"], "--help"),
        (["train", "--data", "--valid", "v.tsv", "--json"], "--help"),
        (["train", "--data", "a.tsv", "--valid", "--json"], "--help"),
        (["search", "--run", "--json"], "runs here: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_is_none_is_one_object(tmp_path: Path, arguments: list[str], hint: str) -> None:
    told = call(tmp_path, *arguments)
    assert told.error["code"] == 2
    assert hint in told.error["hint"]


def test_help_and_version_are_for_people(tmp_path: Path) -> None:
    assert require(call(tmp_path, "search", "--help", "--json")).out.startswith("Usage: ")
    assert require(call(tmp_path, "--version")).out.startswith("mostool")
