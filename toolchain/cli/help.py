"""--help: a sentence, examples, then the options under headings, in words that fit a screen of 40 columns.

A command's docstring is its sentence and, after a line `\\b`, its examples: `mostool ...  # what it does`.
"""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from toolchain.errors import unknown_name

_WIDEST = 100
_NARROW = 70
"""Columns below which an option and what it is stand below each other."""
_BESIDE = 0.42
"""Names that take at most this share of a narrow line have what they are beside them."""
_COMMON = "In every command"
_COMMON_OPTIONS = ("--json", "--quiet", "--verbose", "--debug", "--help")
_RANGE_ALONE = re.compile(r"(?<=\])\s+\[[^\[\]]*\bx\b[^\[\]]*\]$")
_RANGE_OF_SEEDS = re.compile(r"; [^;\[\]]*\d{12,}[^;\[\]]*")


class Example(NamedTuple):
    """A command line as it is typed, and what it does in a few words."""

    line: str
    does: str


def about(command: click.Command) -> str:
    """What a command does: its docstring without the examples."""
    return inspect.cleandoc(command.help or "").partition("\b")[0].strip()


def examples_of(command: click.Command) -> list[Example]:
    """The examples of a command's docstring, in order."""
    lines = inspect.cleandoc(command.help or "").partition("\b")[2].strip().splitlines()
    split = (line.strip().partition(" # ") for line in lines)
    return [Example(line.strip(), does.strip()) for line, _, does in split]


def settings_of(path: str) -> str:
    """Where the options of the command `path` (`search`, `devices add`) can stand beside its flags."""
    table, variable = path.replace(" ", "."), path.replace(" ", "_").upper()
    return (
        f"Every option can stand in mostool.toml under [{table}], or in a variable MOSTOOL_{variable}_OPTION: "
        f"`mostool config --origin {path}` shows what holds, and why."
    )


def wrapped_command(line: str, width: int) -> list[str]:
    """A command line in lines of at most `width`, to be copied whole: each but the last ends with a backslash."""
    if len(line) <= width:
        return [line]
    lines = [""]
    for word in _parts(line):
        if lines[-1].strip() and len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _parts(line: str) -> list[str]:
    """What a command line may be broken between: an option with its value is one."""
    parts: list[str] = []
    for word in _words(line):
        if parts and parts[-1].startswith("-") and " " not in parts[-1] and not word.startswith("-"):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts


def _words(line: str) -> list[str]:
    """The words of a command line as they are written, quoted ones whole."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # an open quote
        return line.split(" ")


class Command(click.Command):
    """A command whose help has examples first, and its options under headings.

    `headings` names the option each heading stands before, in the order of the options: `{"--data": "The text"}`.
    """

    def __init__(self, *args: Any, headings: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings = dict(headings or {})

    def get_help(self, ctx: click.Context) -> str:
        width = max(20, min(ctx.terminal_width or shutil.get_terminal_size().columns, _WIDEST) - 1)
        formatter = click.HelpFormatter(width=width)
        self.format_help(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        line = " ".join(("Usage:", ctx.command_path, *self.collect_usage_pieces(ctx)))
        formatter.write("".join(f"{part}\n" for part in textwrap.wrap(line, formatter.width, subsequent_indent="    ")))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        _write_paragraphs(formatter, about(self), indent=2)
        examples = examples_of(self)
        if examples:
            formatter.write("\nExamples:\n")
            for line in _examples_in_words(examples, formatter.width - 2):
                formatter.write(f"  {line}\n")
        self.format_options(ctx, formatter)
        _write_paragraphs(formatter, self._closing(ctx), indent=0)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, rows in self.option_groups(ctx).items():
            formatter.write(f"\n{heading}:\n")
            _write_list(formatter, rows)

    def option_groups(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Options with their help, under their headings, those of every command last."""
        found: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is None:
                continue
            heading = next((self._headings[name] for name in parameter.opts if name in self._headings), heading)
            common = any(name in _COMMON_OPTIONS for name in parameter.opts)
            found.setdefault(_COMMON if common else heading, []).append((record[0], _tidied(record[1])))
        if _COMMON in found:
            found[_COMMON] = found.pop(_COMMON)
        return found

    def _closing(self, ctx: click.Context) -> str:
        return settings_of(ctx.command_path.partition(" ")[2])


class Group(Command, click.Group):
    """Subcommands in the order of the work, and the nearest name for one that does not exist."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click names it
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\nCommands:\n")
        _write_list(formatter, [(name, one.short_help or about(one)) for name, one in self.commands.items()])
        super().format_options(ctx, formatter)

    def _closing(self, ctx: click.Context) -> str:
        more = f"Each command says more with --help, as {ctx.command_path} {next(iter(self.commands))} --help. "
        where = "Every option can stand in mostool.toml or in a MOSTOOL_* variable"
        return f"{more}{where}: `mostool config --origin` shows what holds, and why."


Group.group_class = Group


def _examples_in_words(examples: Sequence[Example], width: int) -> Iterator[str]:
    for one in examples:
        if one.does:
            yield from textwrap.wrap(f"# {one.does}", width, subsequent_indent="# ")
        yield from wrapped_command(one.line, width)


def _write_paragraphs(formatter: click.HelpFormatter, text: str, *, indent: int) -> None:
    for paragraph in text.split("\n\n"):
        formatter.write("\n")
        for line in _wrapped(" ".join(paragraph.split()), formatter.width - indent):
            formatter.write(f"{'':{indent}}{line}\n")


def _write_list(formatter: click.HelpFormatter, rows: Sequence[tuple[str, str]]) -> None:
    """Names beside what they are; on a narrow screen, long names above it."""
    if formatter.width >= _NARROW:
        with formatter.indentation():
            formatter.write_dl(rows)
        return
    column = max(len(name) for name, _ in rows) + 4
    beside = column <= formatter.width * _BESIDE
    for name, told in rows:
        lines = _wrapped(told, formatter.width - (column if beside else 6))
        if beside:
            formatter.write(f"  {name:<{column - 2}}{lines[0] if lines else ''}\n")
            formatter.write("".join(f"{'':{column}}{line}\n" for line in lines[1:]))
        else:
            formatter.write("".join(f"  {line}\n" for line in _wrapped_name(name, formatter.width - 2)))
            formatter.write("".join(f"      {line}\n" for line in lines))


def _tidied(told: str) -> str:
    """Without the range of a number whose default is said in words, and without that of all seeds."""
    return " ".join(_RANGE_OF_SEEDS.sub("", _RANGE_ALONE.sub("", told)).split())


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _wrapped_name(name: str, width: int) -> list[str]:
    """`--precision [auto|fp32|...]`, broken between the choices where it is too long."""
    lines = textwrap.wrap(name.replace("|", "| "), width, subsequent_indent="    ", break_on_hyphens=False)
    return [line.replace("| ", "|") for line in lines]
