"""What the documentation tells people to type: each `mostool` command is parsed by the real options."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator

import click

from toolchain.cli.app import app
from toolchain.errors import MostoolError

_ASKED = {"--help", "-h", "--version"}
_ENDS = {"|", "||", "&", "&&", ";", "(", ")", "`"}
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_SET = re.compile(r"\w+=.*")
_TO = re.compile(r"\d*(?:>>?|<|>&|<<<)&?\d*")


def complaints(text: str) -> list[str]:
    """What the command line would refuse of a block of shell, each with the line it is about."""
    found = []
    for line, words in _commands(text):
        arguments = _arguments(words)
        told = None if arguments is None else _refused(arguments)
        if told:
            found.append(f"{line}: {told}")
    return found


def shown(text: str) -> list[str]:
    """The subcommands of mostool that a block of shell calls."""
    found = [_arguments(words) for _, words in _commands(text)]
    return [arguments[0] for arguments in found if arguments]


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each simple command with the line it stands on; what a here-document holds is none."""
    ends = ""
    for line in text.replace("\\\n", " ").splitlines():
        if ends:
            ends = "" if line.strip() == ends else ends
            continue
        document = _HERE.search(line)
        ends = document[2] if document else ""
        words: list[str] = []
        for word in _words(line):
            if word in _ENDS:
                yield line.strip(), words
                words = []
            else:
                words.append(word)
        yield line.strip(), words


def _words(line: str) -> list[str]:
    """The words of a line, with the shell's own operators apart and without remarks."""
    lexer = shlex.shlex(line.replace("$(", "( "), posix=True, punctuation_chars=True)
    lexer.wordchars += "@,$%+^!{}[]:"
    return list(lexer)


def _arguments(words: list[str]) -> list[str] | None:
    """What `mostool`, or `-m toolchain` behind any launcher, is given by a command; None where it is another."""
    kept = []
    rest = iter(words)
    for word in rest:
        if _TO.fullmatch(word):
            next(rest, None)
        else:
            kept.append(word)
    if kept and kept[-1].isdecimal() and len(kept) < len(words):  # the 2 of 2> is a word of its own
        kept.pop()
    while kept and _SET.fullmatch(kept[0]):
        kept.pop(0)
    if kept and kept[0].rpartition("/")[2] == "mostool":
        return kept[1:]
    for at in range(len(kept) - 1):
        if kept[at : at + 2] == ["-m", "toolchain"]:
            return kept[at + 2 :]
    return None


def _refused(arguments: list[str]) -> str | None:
    """What click says of the words behind `mostool`; None where it would take them."""
    command: click.Command = app
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and rest[0] not in _ASKED:
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name!r}{_nearest(name, command.commands)}"
        command = command.commands[name]
    if isinstance(command, click.Group) or _ASKED & set(rest):
        return None
    try:
        parent = click.Context(app, info_name="mostool", **app.context_settings)
        with command.make_context(command.name, rest, parent=parent, default_map={}) as context:
            return f"too many words: {context.args}" if context.args else None
    except click.NoSuchOption as error:
        known = [name for parameter in command.params for name in parameter.opts]
        return f"there is no option {error.option_name}{_nearest(error.option_name, known)}"
    except click.ClickException as error:
        return error.format_message()
    except MostoolError as error:
        return str(error)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; is it {near[0]!r}?" if near else ""
