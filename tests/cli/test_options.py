"""--help, and the promise that no option is dead: each is shown, and each is read by the command that has it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from made_project import Made, call, journal_lines, require

import toolchain.cli.completion
import toolchain.cli.config
import toolchain.cli.demo
import toolchain.cli.devices
import toolchain.cli.docs
import toolchain.cli.export
import toolchain.cli.look
import toolchain.cli.make
import toolchain.cli.predict
import toolchain.cli.search
import toolchain.cli.train
from toolchain.cli.app import app
from toolchain.records import Training

README = Path(__file__).resolve().parents[2] / "README.md"
EVERYWHERE = {"json", "quiet", "verbose", "debug"}


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


def functions_of(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def read_names(function: ast.FunctionDef, functions: Mapping[str, ast.FunctionDef]) -> set[str]:
    """The options a command's code reads: options["x"], options.pop("x"), or a parameter of its own; also in those of
    `functions` that it hands `options` to. Training's fields are read all at once, by name."""
    found, parameters = set[str](), {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        match node:
            case ast.Subscript(ast.Name("options"), ast.Constant(str(name)), ast.Load()):
                found.add(name)
            case ast.Call(func=ast.Attribute(ast.Name("options"), "pop"), args=[ast.Constant(str(name))]):
                found.add(name)
            case ast.Attribute(ast.Name("Training"), "__struct_fields__"):
                found |= set(Training.__struct_fields__) - {"mixture"}
            case ast.Name(name, ast.Load()) if name in parameters:
                found.add(name)
            case ast.Call(ast.Name(name), args) if name in functions and any(map(_is_options, args)):
                found |= read_names(functions[name], functions)
            case ast.comprehension(ast.Name(name), ast.Tuple(entries)) if _indexes_options(function, name):
                found |= {entry.value for entry in entries if isinstance(entry, ast.Constant)}
            case _:
                pass
    return found


def _is_options(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "options"


def _indexes_options(function: ast.FunctionDef, name: str) -> bool:
    """Whether options[name] is read somewhere, `name` being a variable."""
    return any(
        isinstance(node, ast.Subscript) and _is_options(node.value) and ast.unparse(node.slice) == name
        for node in ast.walk(function)
    )


MODULES = (
    toolchain.cli.completion,
    toolchain.cli.config,
    toolchain.cli.demo,
    toolchain.cli.devices,
    toolchain.cli.docs,
    toolchain.cli.export,
    toolchain.cli.look,
    toolchain.cli.make,
    toolchain.cli.predict,
    toolchain.cli.search,
    toolchain.cli.train,
)
SOURCES = {module.__name__: Path(module.__file__).read_text() for module in MODULES}


def unread(command: click.Command, source: str) -> set[str | None]:
    """The options of a command that its code, in `source`, does not read."""
    assert command.callback is not None
    functions = functions_of(source)
    names = {parameter.name for parameter in command.params} - EVERYWHERE
    names -= {"config"} if command.name == "train" else set()  # read before the command runs: see test_recipes
    return names - read_names(functions[command.callback.__name__], functions)


def source_of(command: click.Command) -> str:
    assert command.callback is not None
    return SOURCES[command.callback.__module__]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_read_by_its_command(path: tuple[str, ...]) -> None:
    assert unread(LEAVES[path], source_of(LEAVES[path])) == set()


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_an_option_that_nobody_reads_would_be_seen(command: str) -> None:
    """Each read that is taken out of the code leaves its option unread; of Training's fields, the one that has them."""
    found, source = LEAVES[command,], source_of(LEAVES[command,])
    names = {parameter.name for parameter in found.params} - EVERYWHERE - {"config"}
    for name in names - set(Training.__struct_fields__):
        without = source.replace(f'options["{name}"]', "None").replace(f'"{name}"', '"another"')
        assert unread(found, without) == {name}
    settings = unread(found, source.replace("Training.__struct_fields__", "()"))
    assert settings & {"updates", "batch_size", "dropout", "seed"} == {"updates", "batch_size", "dropout", "seed"}
    apart = unread(found, source.replace("_source(options)", "Source()"))
    assert apart >= {"valid", "text_column", "second_column", "label_column"}
    written = source.replace('options["out"],', "given(),") + '\ndef given():\n    options["out"] = 1\n'
    assert unread(found, written) == {"out"}


def test_every_command_has_the_options_all_have() -> None:
    for path, command in LEAVES.items():
        assert {parameter.name for parameter in command.params} >= EVERYWHERE, path


def examples() -> list[str]:
    """The command lines of every --help and of the README's code blocks, without prompts and remarks."""
    texts = [command.help or "" for command in COMMANDS.values()]
    texts += re.findall(r"^```[a-z]*\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("../.venv/bin/") for text in texts for line in text.splitlines()]
    typed = [re.sub(r"\s+(# |> |\| ).*", "", line) for line in lines]
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
    assert f"n={len(journal_lines(made.table))}, cross-validated" in text
