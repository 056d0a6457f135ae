"""Results to stdout, for a person or as one JSON object; progress and remarks to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from toolchain.errors import InfeasibleError, MostoolError
from toolchain.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SCHEMA = 1
_PLAIN_EVERY_S = 5.0
_HINTS = {
    "usage": "mostool --help, and --help after a command, say what is wanted",
    "device": "run the same command again: it goes on where it stopped",
    "integrity": "the file was changed or cut short: get it again",
}
_LAST_HINT = "run it with --debug to see the place"
"""What to do about an error that does not say so itself."""


def print_result(data: object, warnings: Sequence[str], lines: Sequence[str], *, as_json: bool, quiet: bool) -> None:
    """One JSON object, or the lines for a person; warnings go to stderr, in JSON into the object."""
    if as_json:
        envelope = {"schema": SCHEMA, "ok": True, "data": msgspec.to_builtins(data), "warnings": list(warnings)}
        sys.stdout.write(json.dumps(envelope, allow_nan=False) + "\n")
        return
    for warning in warnings:
        sys.stderr.write(f"warning: {printable(warning)}\n")
    if not quiet:
        sys.stdout.write("".join(f"{line}\n" for line in lines))


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
        sys.stderr.write(f"{line}\n")


def printable(text: str) -> str:
    """Words that a device or a file may have chosen, as one line that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under a header, columns aligned, words left and figures right."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    return [_aligned(line, widths) for line in (header, ["-" * width for width in widths], *rows)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if cell[:1].isdigit() and column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


class ProgressPrinter:
    """A listener that draws a bar on a terminal, and prints a line every few seconds elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        if self._quiet:
            return
        note = printable(progress.note)
        if self._bar is not None:
            if progress.stage not in self._tasks:
                self._tasks[progress.stage] = self._bar.add_task(progress.stage, total=progress.total, note="")
            self._bar.update(self._tasks[progress.stage], completed=progress.done, total=progress.total, note=note)
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
