"""--help, and the promise that no option is dead: each is shown, and each is read by the command that has it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from made_project import Made, call, require

import toolchain.cli.demo
import toolchain.cli.look
import toolchain.cli.make
from toolchain.cli.app import app

README = Path(__file__).resolve().parents[2] / "README.md"
EVERYWHERE = {"json", "quiet", "debug"}


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))


COMMANDS = dict(walk(app))
LEAVES = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_every_option_and_says_what_the_command_does(path: tuple[str, ...], tmp_path: Path) -> None:
    told = require(call(tmp_path, *path, "--help"))
    assert told.err == ""
    assert told.out.startswith(f"Usage: {' '.join(('mostool', *path))}")
    assert COMMANDS[path].help
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in told.out
    assert require(call(tmp_path, *path, "-h")).out == told.out


def read_names(function: ast.FunctionDef) -> set[str]:
    """The options a command's code mentions: options["x"], options.pop("x"), or a parameter of its own it uses."""
    found: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name("options"), slice=ast.Constant(str(name))):
                found.add(name)
            case ast.Call(func=ast.Attribute(ast.Name("options"), "pop"), args=[ast.Constant(str(name))]):
                found.add(name)
            case ast.Name(name, ast.Load()):
                found.add(name)
            case _:
                pass
    return found


def test_every_option_is_read_by_its_command() -> None:
    functions = {
        node.name: node
        for module in (toolchain.cli.demo, toolchain.cli.look, toolchain.cli.make)
        for node in ast.parse(Path(module.__file__).read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    for command in LEAVES.values():
        assert command.callback is not None
        function = functions[command.callback.__name__]
        names = {parameter.name for parameter in command.params} - EVERYWHERE
        if command.name == "train":  # what is left of the options is the training's settings, by name
            from toolchain.records import Training  # noqa: PLC0415 - heavy

            names -= set(Training.__struct_fields__)
        if command.name == "export":
            names -= {"format"}  # one so far; a choice that refuses all others
        assert names <= read_names(function), f"{command.name} has an option nobody reads"


def test_every_option_has_the_three_all_commands_have() -> None:
    for path, command in LEAVES.items():
        assert {parameter.name for parameter in command.params} >= EVERYWHERE, path


def examples() -> list[str]:
    """The command lines of every --help and of the README's code blocks, without prompts and remarks."""
    texts = [command.help or "" for command in COMMANDS.values()] + [app.epilog or ""]
    texts += re.findall(r"^```[a-z]*\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("../.venv/bin/") for text in texts for line in text.splitlines()]
    typed = [re.sub(r"\s+# .*", "", line) for line in lines]
    return list(dict.fromkeys(line for line in typed if re.match(r"mostool [a-z]", line)))


@pytest.mark.parametrize("line", examples())
def test_every_example_parses(line: str) -> None:
    """Of --help and of the README: the command exists, and takes these options with these values."""
    words = shlex.split(line)[1:]
    command: click.Command = app
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    parent = click.Context(app, info_name="mostool", **app.context_settings)
    with command.make_context(command.name, words, parent=parent) as context:
        assert context.args == []


def test_there_are_examples() -> None:
    assert len(examples()) >= 15
    shown = {shlex.split(line)[1] for line in examples()}
    assert shown >= {"train", "profile", "search", "export", "verify", "evaluate", "sample", "predict", "report"}


def test_quiet_prints_problems_only(made: Made) -> None:
    told = require(call(made.root, "verify", made.bundle, "--no-speed", "-q"))
    assert told.out == told.err == ""
    told = call(made.root, "evaluate", "--arch", "nothing", "-q")
    assert told.code == 2
    assert told.err.startswith("error: ")


def test_a_traceback_only_with_debug(made: Made) -> None:
    told = call(made.root, "evaluate", "--arch", "nothing", "--debug")
    assert told.code == 2
    assert told.err.startswith("Traceback")
    assert told.err.splitlines()[-1].startswith("hint: ")


def test_devices_are_listed_and_shown(made: Made) -> None:
    listed = call(made.root, "devices", "list", "--json").data
    assert {one["id"] for one in listed} >= {"cpu", "quick"}
    assert "targets/quick.toml" in require(call(made.root, "devices", "list")).out
    assert call(made.root, "devices", "show", "quick", "--json").data["measure"]["group"] == 4
    assert '"group": 4' in require(call(made.root, "devices", "show", "quick")).out


def test_predictions_say_what_they_are(made: Made) -> None:
    told = call(made.root, "predict", "--n", "3", "--seed", "2", "--json").data
    assert told["device"] == "quick"
    for one in told["predictions"]:
        assert one["source"] == "predicted"
        assert one["low_s"] < one["latency_s"] < one["high_s"]
    text = require(call(made.root, "predict", "--arch", "largest", "--arch", "winner")).out
    assert "predicted (p50)" in text
    assert "n=10, cross-validated" in text
