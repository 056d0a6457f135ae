"""Results to stdout, for a person or as one JSON object; progress and remarks to stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from toolchain.cli.help import wrapped_command
from toolchain.errors import InfeasibleError, MostoolError
from toolchain.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LOG = logging.getLogger(__name__)
SCHEMA = 1
_PLAIN_EVERY_S = 5.0
_WIDE, _MIDDLING = 90, 60
"""Columns from which a line of progress has room for all of its parts, and for a bar at all."""
_FEW = 12
"""A stage of at most so many units is told step by step by --verbose."""
_HINTS = {
    "usage": "mostool --help, and --help after a command, say what is wanted",
    "device": "run the same command again: it goes on where it stopped",
    "integrity": "the file was changed or cut short: get it again",
}
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|MiB|mJ)(?:[\s,;:.)]|$))")
_LAST_HINT = "run it with --debug to see the place"
"""What to do about an error that does not say so itself."""


def print_result(
    data: object,
    warnings: Sequence[str],
    lines: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
    verbatim: bool = False,
) -> None:
    """One JSON object, or the lines for a person; warnings go to stderr, in JSON into the object.

    `verbatim` lines are a program's to read: they are not wrapped on a terminal.
    """
    if as_json:
        envelope = {"schema": SCHEMA, "ok": True, "data": msgspec.to_builtins(data), "warnings": list(warnings)}
        sys.stdout.write(json.dumps(envelope, allow_nan=False) + "\n")
        return
    for warning in warnings:
        _complain(f"warning: {printable(warning)}")
    if not quiet:
        width = None if verbatim else screen_width()
        fitted = lines if width is None else [part for line in lines for part in _fitted(line, width)]
        sys.stdout.write("".join(f"{line}\n" for line in fitted))


def print_note(note: str, *, quiet: bool) -> None:
    """What a person should know before long work begins, on stderr as its progress is."""
    if not quiet:
        _complain(f"note: {note}")


def print_failure(error: MostoolError, *, as_json: bool) -> None:
    """What, why and what to do: on stderr, or as the JSON object on stdout."""
    hint = error.hint or _HINTS.get(error.kind, _LAST_HINT)
    if as_json:
        body = {"code": error.exit_code, "kind": error.kind, "message": str(error), "hint": hint}
        found = {} if error.data is None else {"data": plain(error.data)}
        envelope = {"schema": SCHEMA, "ok": False, "error": body, **found, "warnings": []}
        sys.stdout.write(json.dumps(envelope) + "\n")
        return
    prefix = "no answer" if isinstance(error, InfeasibleError) else "error"
    why = [f"why: {printable(error.why)}"] if error.why else []
    for line in (f"{prefix}: {printable(error.what)}", *why, f"hint: {printable(hint)}"):
        _complain(line)


def _complain(line: str) -> None:
    """On stderr; where that is a terminal, wrapped at words."""
    lines = _fitted(line, shutil.get_terminal_size().columns) if sys.stderr.isatty() else [line]
    sys.stderr.write("".join(f"{part}\n" for part in lines))


def printable(text: str) -> str:
    """Words that a device or a file may have chosen, as one line that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def typed(path: Path) -> str:
    """A path as it stands in a command that is to be copied."""
    return shlex.quote(str(path))


# -- on a screen of some width ---------------------------------------------------------------------------------------


def screen_width() -> int | None:
    """Columns that results may take; None, without limit, where nobody looks at a screen."""
    if os.environ.get("COLUMNS") or sys.stdout.isatty():
        return max(20, shutil.get_terminal_size().columns)
    return None


def _fitted(line: str, width: int) -> list[str]:
    """A line in lines of `width`, broken at words; a command that is to be copied stays one."""
    if len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    start, command, rest = line.partition("mostool ")
    if command and (start.strip() in ("->", "") or (start.startswith("next:") and start.endswith(": "))):
        broken = wrapped_command(f"{command}{rest}", width - len(indent) - 2)
        return [*_wrapped(start, width, "  "), *(f"{indent}  {part}" for part in broken)]
    return _wrapped(line, width, f"{indent}  ")


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """In lines of `width`, broken at words, but not between a number and its unit; all but the first are indented."""
    whole = _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under a header, columns aligned, words left and figures right.

    Where that is wider than the screen each row is a block of its own, with a line for each column.
    """
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    screen = screen_width()
    if screen is not None and sum(widths) + 2 * (len(widths) - 1) > screen:
        return [line for row in rows for line in (*_record(header, row), "")]
    return [_aligned(line, widths) for line in (header, ["-" * width for width in widths], *rows)]


def _record(header: Sequence[str], row: Sequence[str]) -> list[str]:
    named = [(f"{name}: {cell}" if name else cell) for name, cell in zip(header, row, strict=True) if cell.strip()]
    return [line if not number else f"  {line}" for number, line in enumerate(named)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if cell[:1].isdigit() and column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


# -- progress --------------------------------------------------------------------------------------------------------


class ProgressPrinter:
    """A listener that draws a bar on a terminal, and prints a line every few seconds elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._width = 80
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._steps: dict[str, Step] = {}

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
            self._width = shutil.get_terminal_size().columns
            self._bar = _bar(self._width)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        for stage in [*self._steps]:
            self._log(stage, None)

    def __call__(self, progress: Progress) -> None:
        if LOG.isEnabledFor(logging.INFO):
            self._log(progress.stage, progress)
        if self._quiet:
            return
        note = printable(progress.note)
        if self._bar is not None:
            total = progress.total or None  # None: it is not known, and the bar only moves
            if progress.stage not in self._tasks:
                self._tasks[progress.stage] = self._bar.add_task(progress.stage, total=total, note="")
            room = _room(self._width, progress)
            shown = note if len(note) <= room else f"{note[: max(0, room - 1)]}…"
            self._bar.update(self._tasks[progress.stage], completed=progress.done, total=total, note=shown)
            return
        now = time.monotonic()
        started, resumed_at = self._started.setdefault(progress.stage, (now, progress.done))
        finished = progress.done >= progress.total > 0
        if finished or now - self._printed.get(progress.stage, -_PLAIN_EVERY_S) >= _PLAIN_EVERY_S:
            self._printed[progress.stage] = now
            elapsed, done_here = now - started, progress.done - resumed_at
            left = elapsed / done_here * (progress.total - progress.done) if done_here > 0 else None
            eta = "" if finished or left is None else f", {left:.0f} s left"
            sys.stderr.write(
                f"{progress.stage}: {progress.done}/{progress.total}, {elapsed:.0f} s{eta} {note}".rstrip() + "\n"
            )

    def _log(self, stage: str, progress: Progress | None) -> None:
        """Say each step of a stage with the seconds it took; of one with many units, the stage as a whole."""
        before = self._steps.get(stage)
        if progress is not None and before is not None:
            few = progress.total <= _FEW
            if not few or (before.progress.note, before.progress.done) == (progress.note, progress.done):
                self._steps[stage] = before._replace(progress=progress)
                return
        if before is not None:
            done, total, note = before.progress[1:]
            took = time.monotonic() - before.began
            LOG.info("%s %d/%d, %.2f s: %s", stage, done, total, took, note or "done")
        if progress is None:
            del self._steps[stage]
        else:
            self._steps[stage] = Step(time.monotonic(), progress)


class Step(NamedTuple):
    """What a stage is at, since when (time.monotonic)."""

    began: float
    progress: Progress


def _room(width: int, progress: Progress) -> int:
    """Columns that are left for the note, beside what `_bar` puts on the line."""
    parts = [len(progress.stage), 2 * len(str(progress.total)) + 1, 5]
    parts += [20, 7] if width >= _WIDE else [8] if width >= _MIDDLING else []
    return width - sum(parts) - len(parts) - 1


def _bar(width: int) -> Bar:
    """What a line of `width` columns has room for, the note cut where it is too long."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    columns = [
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *([BarColumn(bar_width=20 if width >= _WIDE else 8)] if width >= _MIDDLING else []),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *([TimeElapsedColumn(table_column=Column(no_wrap=True))] if width >= _WIDE else []),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
    ]
    return Bar(*columns, console=Console(stderr=True))


def plain(value: object) -> Any:
    """Records, paths and the like as JSON values."""
    return msgspec.to_builtins(value, enc_hook=str)


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"


def spread(half_width_s: float, median_s: float) -> str:
    """A half-width beside its latency, as a share of that."""
    return f"± {100 * half_width_s / median_s:.2f} %" if median_s > 0 else ""


def mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.2f} MiB"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def in_units(key: str, value: float) -> str:
    """A cost as a person reads it, by its key or metric: `80.000 ms`, `2.00 MiB`, `1.500 mJ`, `1,234 parameters`."""
    from toolchain.records import spelled

    return spelled(key, value)


def in_words(budget: Any, names: Mapping[str, str]) -> str:
    """A budget as a person reads it: `80.000 ms`; with its name where the unit alone would not tell which it is."""
    name, limit = names[budget.key], in_units(budget.key, budget.limit)
    return limit if name in ("latency", "size", "parameters") else f"{name} {limit}"


def axes_in_words(axes: Mapping[str, int | tuple[int, ...]]) -> str:
    return "; ".join(
        f"{name} {value if isinstance(value, int) else '/'.join(map(str, value))}" for name, value in axes.items()
    )
