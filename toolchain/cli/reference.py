"""The reference pages of toolchain/docs, written from the code: `python -m toolchain.cli.reference` writes them anew.

A test holds the pages to what this module says, so they cannot lag behind.
"""

from __future__ import annotations

import builtins
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from toolchain import errors, records, targets
from toolchain.cli.app import app
from toolchain.cli.output import SCHEMA

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WRITTEN = "<!-- Written by `python -m toolchain.cli.reference` from the code: change the code, not this page. -->\n\n"
_HELP_COLUMNS = 100

FILES: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "runs/NAME/checkpoint.json": (records.CheckpointInfo,),
    "runs/NAME/run.json and runs/NAME/search/run.json, what was asked of a command": (records.RunInfo,),
    "runs/NAME/search/result.json": (records.SearchResult,),
    "profiles/DEVICE/TABLE/table.json, the header of a latency table": (records.TableInfo,),
    "profiles/DEVICE/TABLE/journal.jsonl, one record a line, each with its checksum": (records.Measurement,),
    "profiles/DEVICE/TABLE/predictor.json": (records.PredictorInfo,),
    "profiles/DEVICE/TABLE/imported.json and rows.jsonl, a table that others have measured": (
        records.ImportedInfo,
        records.ImportedRow,
    ),
    "FOLDER/artifacts.json, of mostool profile --build-only FOLDER": (records.ArtifactsInfo,),
    "bundles/NAME/manifest.json": (records.AnyManifest,),
    "targets/NAME.toml": (targets.Target,),
}
"""What is stored, and the record that says what stands in it."""


def pages() -> dict[str, str]:
    """The pages by their file names."""
    return {
        "commands.md": _commands(),
        "settings.md": _settings(),
        "exit-codes.md": _exit_codes(),
        "json.md": _json(),
        "files.md": _files(),
    }


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(
    group: click.Group = app, words: tuple[str, ...] = (), parent: click.Context | None = None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Every command and subcommand with the words it is called by, in the order of the help."""
    within = parent or click.Context(group, info_name="mostool", terminal_width=_HELP_COLUMNS, **app.context_settings)
    for name, command in group.commands.items():
        context = click.Context(command, info_name=name, parent=within, terminal_width=_HELP_COLUMNS)
        yield (*words, name), command, context
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name), context)


def _commands() -> str:
    parts = [_WRITTEN, "# Commands\n\nWhat each says of itself (`--help`).\n"]
    for words, command, context in commands():
        parts.append(f"\n## mostool {' '.join(words)}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "".join(parts)


def options_of(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and one.name and not one.hidden]


def _settings() -> str:
    parts = [
        _WRITTEN,
        "# Settings\n\nA flag beats a variable, a variable beats `mostool.toml` of the folder, that beats "
        "`~/.config/mostool/config.toml` (or of `$XDG_CONFIG_HOME`), and that beats the default. "
        "`mostool config --origin` says what holds and why. A settings file has a table for each command:\n\n"
        '```toml\n# mostool.toml\n[search]\nlatency = "5ms"\nsize = "4MiB"\n```\n\n'
        "Values are written as they would be typed after the flag; a flag without a value is `true` or `false`; "
        "an option that may be repeated takes a list.\n",
    ]
    for words, command, _ in commands():
        found = [one for one in options_of(command) if one.name != "help"]
        if isinstance(command, click.Group) or not found:
            continue
        parts.append(f"\n## [{'.'.join(words)}]\n\n| key | variable | value | default |\n|---|---|---|---|\n")
        for one in found:
            variable = f"MOSTOOL_{'_'.join(words)}_{one.name}".upper()
            parts.append(f"| `{one.name}` | `{variable}` | {_value(one)} | {_default(one)} |\n")
    return "".join(parts)


def _value(option: click.Option) -> str:
    if option.is_flag:
        return "true, false"
    kind = option.type
    words = kind.name.removesuffix(" range").replace("_", " ")
    if isinstance(kind, click.Choice):
        words = ", ".join(str(one) for one in kind.choices)
    elif isinstance(kind, click.IntRange | click.FloatRange) and kind.min is not None:
        words += f", {kind.min} at least" if kind.max is None else f", {kind.min} to {kind.max}"
    return _cell(f"{words}{'; repeatable' if option.multiple else ''}")


def _default(option: click.Option) -> str:
    if option.is_flag:
        return "false"
    if isinstance(option.default, str | int | float) and not isinstance(option.default, bool):
        return _cell(str(option.default))
    computed = re.search(r"\[(?:default: )?([^\[\]]+)\]\s*$", option.help or "")
    return _cell(computed.group(1)) if computed else ""


# -- answers -----------------------------------------------------------------------------------------------------------


def _exit_codes() -> str:
    rows = ["| 0 | | ok |\n"]
    rows += [
        f"| {one.exit_code} | `{one.kind}` | {_MEANT[one.__name__]} |\n"
        for one in sorted(_error_classes(), key=lambda one: (one.exit_code, one.kind))
    ]
    rows.append("| 130 | `interrupted` | Ctrl-C or SIGTERM; the same command goes on |\n")
    return (
        _WRITTEN + "# Exit codes\n\nA failure is told in three lines on stderr: `error:`, `why:` (where there is one), "
        "`hint:`; `--debug` adds the traceback.\n\n| code | kind in JSON | when |\n|---|---|---|\n" + "".join(rows)
    )


_MEANT = dict(
    re.findall(r"(\w+Error) +\d  (.+)", inspect.getdoc(errors) or "")  # the tree at the top of errors.py
)


def _error_classes() -> list[type[errors.MostoolError]]:
    found = [errors.MostoolError]
    for one in found:
        found += one.__subclasses__()
    return [one for one in found if one.__module__ == errors.__name__]


def _json() -> str:
    good = {"schema": SCHEMA, "ok": True, "data": {}, "warnings": []}
    bad: dict[str, object] = {
        "schema": SCHEMA,
        "ok": False,
        "error": {"code": 3, "kind": "infeasible", "message": "...", "hint": "..."},
        "warnings": [],
    }
    return (
        _WRITTEN + "# JSON\n\nWith `--json` every command prints one object on one line of stdout, whether it went "
        "well or not; progress and warnings stay on stderr (the warnings stand in the object too). There is never NaN: "
        "what is not known is `null`.\n\n"
        f"```json\n{json.dumps(good, indent=2)}\n```\n\n```json\n{json.dumps(bad, indent=2)}\n```\n\n"
        "`schema` is raised when a field changes its meaning or goes; fields are added without. `error.code` is the "
        "[exit code](exit-codes.md), `error.kind` its name; a failure that had found something out already has it in "
        "`data`. Fields end in their unit: `_s` seconds, `_bytes` bytes, `_hz`, `_c`, `_j`, `_w`. Records inside "
        "(`environment`, `latency`, `quality`, `error` of a predictor) are those of [the files](files.md).\n"
    )


_TREE = """\
mostool.toml                    settings of this folder: defaults of options, by command
targets/NAME.toml               devices of this folder; targets/known_hosts holds their ssh keys
runs/NAME/checkpoint.json       a trained supernet; its weights beside it as safetensors
runs/NAME/training.json         how far training has come: its state, and the curve
runs/NAME/data/                 the prepared text, its splits and the tokenizer
runs/NAME/architectures.jsonl   the architectures seen so far, so that an id is enough to name one
runs/NAME/search/               the last search's result; answers.jsonl: what was evaluated; steps in a folder each
profiles/DEVICE/TABLE/          a latency table: header, journal, predictor
bundles/NAME/                   what ships
"""


# -- files -------------------------------------------------------------------------------------------------------------


def _files() -> str:
    parts = [
        _WRITTEN,
        "# Files\n\nStrict JSON (a target is TOML): an unknown field is refused, so is a newer `schema`, and NaN "
        "cannot be stored. Seconds end in `_s`, bytes in `_bytes`, shares are fractions. Weights are safetensors.\n\n"
        f"```text\n{_TREE}```\n",
    ]
    seen: list[type[msgspec.Struct]] = []
    for where, kinds in FILES.items():
        parts.append(f"\n## {where}\n")
        for kind in kinds:
            parts += _record(kind, seen)
    parts.append("\n## Records within those\n")
    for kind in seen:  # grows while it is walked: records within records
        parts += _record(kind, seen, heading=True)
    return "".join(parts)


def _record(kind: type[msgspec.Struct], seen: list[type[msgspec.Struct]], *, heading: bool = False) -> Iterator[str]:
    yield f"\n### {kind.__name__}\n\n" if heading else f"\n**{kind.__name__}.** "
    yield " ".join((inspect.getdoc(kind) or "").split()) + "\n"
    yield "\n| field | type | default |\n|---|---|---|\n"
    if kind.__struct_config__.tag is not None:
        yield f"| `{kind.__struct_config__.tag_field}` | `{kind.__struct_config__.tag}` | |\n"
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        yield f"| `{field.encode_name}` | {_cell(_typed(hints[field.name], seen))} | {_given(field)} |\n"


def _given(field: Any) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return "none" if not field.default_factory() else "…"
    if isinstance(field.default, msgspec.Struct):
        return f"a {type(field.default).__name__} of its defaults"
    if field.default in ((), None, "", {}):
        return "none"
    return _cell("; ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default))


_PLAIN = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "NoneType": "null",
    "datetime": "time, ISO 8601",
}


def _typed(hint: Any, seen: list[type[msgspec.Struct]]) -> str:
    """A type as a reader of JSON calls it; records in it are added to `seen`."""
    inner = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Annotated:
            words = _typed(inner[0], seen)
        case typing.Literal:
            words = ", ".join(f"`{one}`" for one in inner)
        case typing.Union | types.UnionType:
            words = " or ".join(_typed(one, seen) for one in inner)
        case builtins.tuple if inner[-1] is Ellipsis:
            words = f"list of {_typed(inner[0], seen)}"
        case builtins.tuple:
            words = f"[{', '.join(_typed(one, seen) for one in inner)}]"
        case builtins.dict:
            words = f"{{text: {_typed(inner[1], seen)}}}"
        case _:
            words = _PLAIN.get(hint.__name__, hint.__name__)
            if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in (*seen, *_named()):
                seen.append(hint)
    return words


def _named() -> set[type[msgspec.Struct]]:
    """The records that have a heading of their own."""
    return {one for kinds in FILES.values() for one in kinds}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
