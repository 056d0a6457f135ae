"""Screens: 40 columns, no colour, no bar where it cannot be drawn; and what --verbose says beside it."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import click
import pytest
from made_project import Called, Made, call, command, environment, read_terminal, require

from cli.test_options import LEAVES
from toolchain.cli import output
from toolchain.cli.logs import LOG
from toolchain.progress import Progress

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SAID = re.compile(r"\[ *\d+\.\d\d s\] (.+)")


def in_terminal(folder: Path, columns: int, *arguments: str | Path, **variables: str) -> Called:
    """Run a command whose output and errors are a terminal; `out` is all that was written to it."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    given = environment(folder, **{"TERM": "xterm", **variables})
    given.pop("COLUMNS", None)
    with subprocess.Popen(
        command(*arguments), cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        shown = read_terminal(leader)
    os.close(leader)
    return Called(process.returncode, shown.decode().replace("\r\n", "\n"), "")


def lines_of(shown: str) -> list[str]:
    """What stood on each line at any time: a bar is drawn again and again over itself."""
    plain = _ESCAPES.sub("", re.sub(r"\x1b\[\d*[AK]", "\n", shown))
    return [line.rstrip() for line in re.split(r"[\r\n]", plain)]


# -- tables and words --------------------------------------------------------------------------------------------------


def test_a_table_that_is_too_wide_becomes_records(monkeypatch: pytest.MonkeyPatch) -> None:
    header, rows = ["name", "latency", ""], [["one", "1.000 ms", "far"], ["another", "-", ""]]
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = output.table(header, rows)
    assert wide[0] == "name     latency"
    monkeypatch.setenv("COLUMNS", "80")
    assert output.table(header, rows) == wide
    monkeypatch.setenv("COLUMNS", "20")
    assert output.table(header, rows) == [
        *("name: one", "  latency: 1.000 ms", "  far", ""),
        *("name: another", "  latency: -", ""),
    ]


def test_long_lines_are_broken_at_words_and_commands_can_be_copied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a line of words that is longer than the screen", f"next: mostool search --run {'x' * 20} --latency TIME"]
    monkeypatch.setenv("COLUMNS", "30")
    output.print_result(None, [], lines, as_json=False, quiet=False)
    assert capsys.readouterr().out.splitlines() == [
        "a line of words that is longer",
        "  than the screen",
        "next:",
        "  mostool search \\",
        f"      --run {'x' * 20} \\",
        "      --latency TIME",
    ]
    output.print_result(
        None, [], ['{"never": "broken, whatever its length is"}'], as_json=False, quiet=False, verbatim=True
    )
    assert len(capsys.readouterr().out.splitlines()) == 1
    copied = ["next: copy it to where it is measured, and there: mostool profile --artifacts 'my files' --device rpi"]
    output.print_result(None, [], copied, as_json=False, quiet=False)
    assert capsys.readouterr().out.splitlines() == [
        *("next: copy it to where it is", "  measured, and there:"),
        *("  mostool profile \\", "      --artifacts 'my files' \\", "      --device rpi"),
    ]
    output.print_result(None, [], ["held-out error, in the mean 2.9 % of it"], as_json=False, quiet=False)
    assert capsys.readouterr().out.splitlines() == ["held-out error, in the mean", "  2.9 % of it"]
    monkeypatch.delenv("COLUMNS")
    output.print_result(None, [], lines, as_json=False, quiet=False)
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.fault("columns")
@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--evaluations", "20"),
        ("predict", "--n", "2"),
        ("devices", "list"),
        ("config", "--origin", "search"),
        ("profile", "--device", "quick", "--n", "10"),
        ("export", "--dry-run"),
        ("evaluate", "--arch", "nobody"),
        ("verify", "BUNDLE", "--no-speed"),
        ("docs",),
    ],
    ids=" ".join,
)
def test_nothing_is_wider_than_40_columns(made: Made, arguments: tuple[str, ...]) -> None:
    given = [str(made.bundle.relative_to(made.root)) if one == "BUNDLE" else one for one in arguments]
    told = in_terminal(made.root, 40, *given)
    for line in lines_of(told.out):
        assert len(line) <= 40 or " " not in line.strip(), told.out


# -- progress ----------------------------------------------------------------------------------------------------------


def test_a_bar_says_how_far_and_how_long_and_what_is_best(project: Path) -> None:
    arguments = ("search", "--evaluations", "10", "--remeasure", "0", "--seed", "9", "--fresh")
    shown = in_terminal(project, 120, *arguments).out
    bars = [line for line in lines_of(shown) if line.startswith("search ")]
    assert any(re.search(r"\b10/10\b.*\d:\d\d.*best \d+\.\d % at \d.* hypervolume", line) for line in bars), bars
    narrow = in_terminal(project, 40, *arguments).out
    bars = [line for line in lines_of(narrow) if line.startswith("search ")]
    assert any(re.search(r"\b10/10\b.*best", line) for line in bars), bars
    assert all(len(line) <= 40 for line in bars)


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_no_colour_and_no_bar_where_that_is_asked_for(made: Made, variables: dict[str, str]) -> None:
    shown = in_terminal(made.root, 80, "verify", made.bundle, "--no-speed", **variables).out
    assert "verified" in shown
    if "TERM" in variables:
        assert "\x1b" not in shown
        assert "verify: 1/3" in shown
    else:
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown), "a colour"


def test_a_note_is_cut_and_never_the_rest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    with output.ProgressPrinter(quiet=False) as listener:
        listener(Progress("a stage with a name", 3, 1000, "a note that is much too long for such a line"))
    drawn = [line for line in lines_of(capsys.readouterr().err) if line]
    assert all(len(line) <= 40 for line in drawn)
    assert re.fullmatch(r"a stage with a name +3/1000 +\S+ a.*…", drawn[-1]), drawn


# -- more, and less ----------------------------------------------------------------------------------------------------


def said(told: Called) -> list[str]:
    """What --verbose has written."""
    return [match[1] for line in told.err.splitlines() if (match := _SAID.fullmatch(line))]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_can_say_more(tmp_path: Path, path: tuple[str, ...]) -> None:
    """How it began and how it ended, whatever comes of it."""
    arguments = [parameter.name or "" for parameter in LEAVES[path].params if isinstance(parameter, click.Argument)]
    if path in {("demo",), ("train",)}:  # what would take minutes is refused
        arguments = {"demo": ["--device", "nowhere"], "train": ["--data", "none.tsv"]}[path[0]]
    told = call(tmp_path, *path, *arguments, "--run", "none", "-v")
    told = told if said(told) else call(tmp_path, *path, *arguments, "-v")
    first, *_, last = said(told)
    assert first.startswith(f"mostool {' '.join(path)} in {tmp_path}")
    assert last == f"ended with exit code {told.code}"
    assert not LOG.handlers
    assert LOG.level == logging.NOTSET


def test_steps_are_told_with_their_seconds_and_files_by_their_names(project: Path) -> None:
    told = require(call(project, "export", "--arch", "smallest", "--verbose"))
    lines = said(told)
    assert any(re.fullmatch(r"export 1/5, \d+\.\d\d s: build, compare the fp32 file", line) for line in lines), lines
    assert any(re.fullmatch(r"export 2/5, \d+\.\d\d s: measure on quick", line) for line in lines)
    assert any(line.startswith("wrote ") and line.endswith("manifest.json") for line in lines)
    assert "next: mostool verify" in told.out
    assert said(require(call(project, "export", "--arch", "smallest"))) == []


def test_quiet_and_verbose_are_of_different_things(made: Made) -> None:
    told = require(call(made.root, "verify", made.bundle, "--no-speed", "-q", "-v"))
    assert told.out == ""
    assert said(told)[-1] == "ended with exit code 0"
    told = call(made.root, "verify", made.bundle, "--no-speed", "-q", "--json")
    assert {check["name"] for check in told.data["checks"]} >= {"integrity", "parity"}
    assert told.err == ""
    told = call(made.root, "verify", made.bundle, "--no-speed", "-v", "--json")
    assert told.data
    assert said(told)


def test_verbose_can_be_set_by_a_variable_or_a_file(tmp_path: Path) -> None:
    assert said(call(tmp_path, "devices", "list", variables={"MOSTOOL_DEVICES_LIST_VERBOSE": "1"}))
    (tmp_path / "mostool.toml").write_text("[devices.list]\nverbose = true\n")
    assert said(call(tmp_path, "devices", "list"))
    (tmp_path / "mostool.toml").write_text("[devices.lst]\nverbose = true\n")
    told = call(tmp_path, "devices", "list")
    assert (told.code, "did you mean list?" in told.err) == (2, True)
