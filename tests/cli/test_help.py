"""--help: examples first, every option with its unit and default, and lines that fit the screen."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from made_project import call, command, environment, require

from cli.test_options import COMMANDS, LEAVES
from toolchain.cli.help import about, examples_of, wrapped_command

FEWER = {("config",): 1, ("demo",): 1, ("report",): 1}
"""Commands that have little to show."""

UNITS = {
    "accumulate": "micro-batches",
    "at_once": "subnets",
    "batch": "sequences",
    "batch_size": "items",
    "batch_tokens": "tokens",
    "beam": "beginnings",
    "budget": "10min",
    "energy": "mJ",
    "evaluate_every": "updates",
    "evaluations": "subnets",
    "experts": "weights",
    "latency": "ms",
    "length": "tokens",
    "limit": "items",
    "max_drop": "share",
    "memory": "MiB",
    "params": "1.5M",
    "port": "port",
    "remeasure": "subnets",
    "router_width": "units",
    "sequence_length": "tokens",
    "size": "MiB",
    "target_error": "3%",
    "threads": "threads",
    "updates": "steps",
    "vocabulary_size": "tokens",
    "warmup_updates": "updates",
    "workers": "processes",
}
"""What a number is of, and a word of its help that says so; `n` is told by each command itself."""

BARE = {"seed", "learning_rate", "weight_decay", "dropout", "label_smoothing", "distill", "router_spread", "percentile"}
"""Numbers without a unit."""


def sections(told: str) -> dict[str, list[str]]:
    """The lines of a help under its headings, those before the first under an empty one."""
    found: dict[str, list[str]] = {"": []}
    for line in told.splitlines():
        if re.fullmatch(r"[A-Z].*:", line):
            found[line.removesuffix(":")] = []
        else:
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_a_sentence_then_examples_then_options(path: tuple[str, ...], tmp_path: Path) -> None:
    told = require(call(tmp_path, *path, "--help")).out
    found = sections(told)
    headings = [name for name in found if not name.startswith("Usage")]
    assert headings[:2] == ["", "Examples"]
    assert headings[-1] == "In every command"
    assert " ".join(about(COMMANDS[path]).split()) in " ".join(told.split())
    assert "Every option can stand in mostool.toml" in " ".join(told.split())
    assert told.count("-h, --help") == 1


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_say_what_they_do(path: tuple[str, ...]) -> None:
    examples = examples_of(COMMANDS[path])
    assert len(examples) >= FEWER.get(path, 2)
    for one in examples:
        assert one.does, one
        assert "mostool" in one.line or "toolchain" in one.line
        if path and one.line.startswith("mostool"):
            assert shlex.split(one.line)[1 : 1 + len(path)] == list(path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_told_with_its_unit_and_its_default(path: tuple[str, ...]) -> None:
    for option in LEAVES[path].params:
        if not isinstance(option, click.Option):
            continue
        assert option.name is not None
        assert option.help, option.name
        if option.is_flag or not isinstance(option.type, (click.IntRange, click.FloatRange)) or option.name in BARE:
            continue
        assert UNITS.get(option.name, "subnets|architectures") in option.help.lower() or option.name == "n", option.name
        said = option.show_default or re.search(r"\[[^\[\]]+\]$", option.help) or "Or:" in option.help
        assert said, f"{path} --{option.name} has no default"


def test_a_number_is_of_something() -> None:
    for path, leaf in LEAVES.items():
        for option in leaf.params:
            if option.name in UNITS and isinstance(option, click.Option):
                assert UNITS[option.name].lower() in (option.help or "").lower(), (path, option.name)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_help_fits_the_screen(tmp_path: Path, columns: int) -> None:
    for path in COMMANDS:
        told = require(call(tmp_path, *path, "--help", variables={"COLUMNS": str(columns)})).out
        for line in told.splitlines():
            assert len(line) <= columns or " " not in line.strip(), (path, line)
        assert "..." not in " ".join(sections(told).get("Commands", []))
        pieces = [line for line in sections(told)["Examples"] if not line.lstrip().startswith("#")]
        joined = re.sub(r" \\\n\s+", " ", "\n".join(pieces))
        assert [line.strip() for line in joined.splitlines() if line.strip()] == [
            one.line for one in examples_of(COMMANDS[path])
        ]


def test_a_command_is_broken_between_its_words() -> None:
    line = "mostool search --latency 5ms --objective 'a b' c"
    assert wrapped_command(line, 80) == [line]
    assert wrapped_command(line, 30) == ["mostool search --latency 5ms \\", "    --objective 'a b' c"]
    assert wrapped_command("mostool evaluate --arch '{", 12)[0].startswith("mostool")


def test_each_command_has_a_line_of_its_own_in_the_list(tmp_path: Path) -> None:
    for path in [(), ("devices",)]:
        group = COMMANDS[path]
        assert isinstance(group, click.Group)
        lines = sections(require(call(tmp_path, *path, "--help")).out)["Commands"]
        named = [line.split()[0] for line in lines if line.strip()]
        assert named == list(group.commands)
        assert all(one.short_help for one in group.commands.values())


def test_help_is_asked_without_heavy_imports(tmp_path: Path) -> None:
    code = "import sys, toolchain.cli; toolchain.cli.main(['--help']); print(sorted(sys.modules))"
    line = [command()[0], "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    for heavy in ("torch", "numpy", "onnx", "onnxruntime", "rich"):
        assert f"'{heavy}'" not in done.stdout
