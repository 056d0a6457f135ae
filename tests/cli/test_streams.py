"""Odd places to print to: a closed or a full stdout, no terminal, other locales, narrow screens."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from made_project import Called, Made, call, command, environment, read_terminal, refused, require


def shell(folder: Path, line: str, *arguments: str, **variables: str) -> Called:
    """Run `line`, in which "$@" is the mostool command, in a shell that fails with its first failing part."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *command(*arguments)],  # noqa: S607 - the user's own shell
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return Called(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.fault("stdout-closed")
def test_a_reader_who_leaves_ends_the_command_quietly(made: Made) -> None:
    told = shell(made.root, '"$@" | head -0', "sample", "--n", "2000")
    assert told.err == ""
    assert told.code == 0
    told = shell(made.root, '"$@" | true', "sample", "--run", "nothing", "--json")
    assert told.err == ""


@pytest.mark.fault("stdout-closed")
def test_a_closed_stdout_is_nobodys_file(made: Made) -> None:
    """What is opened next must not become standard output."""
    lines = (made.classify / "architectures.jsonl").read_text()
    told = shell(made.root, '"$@" >&-', "sample", "--n", "3", "--seed", "77")
    assert (told.code, told.out, told.err) == (0, "", "")
    grown = (made.classify / "architectures.jsonl").read_text()
    assert grown.startswith(lines)
    assert all("check" in json.loads(line) for line in grown.splitlines())
    assert shell(made.root, '"$@" >&- 2>&-', "sample", "--run", "nothing").code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_stdout_is_said_once(made: Made) -> None:
    told = shell(made.root, '"$@" > /dev/full', "sample")
    assert told.code == 1
    assert told.err.splitlines()[0] == "error: No space left on device"
    assert told.err.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in told.err
    assert "Exception ignored" not in told.err


@pytest.mark.fault("lang-c")
@pytest.mark.parametrize(
    "variables",
    [
        {"LANG": "C", "LC_ALL": "C", "COLUMNS": "40", "NO_COLOR": "1", "TERM": "dumb"},
        {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["plain", "ascii"],
)
def test_other_locales_and_narrow_screens(made: Made, variables: dict[str, str]) -> None:
    told = shell(made.root, '"$@"', "evaluate", "--arch", "w\u00f6rter", **variables)
    assert told.code == 2
    assert told.err.splitlines()[0].startswith("error: no architecture is known as 'w")
    assert "\x1b" not in told.out + told.err
    told = shell(made.root, '"$@"', "predict", "--arch", "largest", **variables)
    assert told.code == 0, told
    assert "\x1b" not in told.out + told.err


def test_a_terminal_gets_a_bar_and_no_color_when_asked(made: Made) -> None:
    """Progress goes to stderr; here that is a terminal (a pty), with NO_COLOR."""
    leader, follower = os.openpty()
    variables = environment(made.root, NO_COLOR="1", COLUMNS="40", TERM="xterm")
    with subprocess.Popen(
        command("verify", made.bundle, "--no-speed"),
        cwd=made.root,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=follower,
    ) as process:
        os.close(follower)
        shown = read_terminal(leader)
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(leader)
    assert process.returncode == 0
    assert "verified" in out
    assert "\x1b" not in out
    assert b"verify" in shown
    assert b"\x1b[3" not in shown, "a color"


def test_names_that_are_no_text_can_be_printed(made: Made) -> None:
    told = shell(made.root, '"$@" --run "$(printf \'a\\xffb\')"', "sample")
    assert told.code == 2
    assert told.err.startswith("error: there is no run a")
    failed = shell(made.root, '"$@" --run "$(printf \'a\\xffb\')"', "sample", "--json")
    assert failed.error["code"] == 2


def test_json_is_one_line_whatever_happens(made: Made) -> None:
    told = call(made.root, "evaluate", "--arch", "line\nbreak", "--json")
    assert told.error["code"] == 2
    refused(call(made.root, "evaluate", "--arch", "line\nbreak"), 2)
    require(call(made.root, "devices", "list"))
