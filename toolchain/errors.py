"""The errors a user can meet, each with the exit code of the command line.

MostoolError                  1  the work failed
├── UsageError                2  wrong command, configuration or input data
├── InfeasibleError           3  no subnet meets the budgets
├── DeviceError               4  device unreachable, lost, busy, or lacking what was asked (resumable)
├── IntegrityError            5  a file is not what it says it is
│   └── ParityError           5  two forms of one model disagree
└── UnstableError             6  a measurement did not settle, under --strict
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class MostoolError(Exception):
    """One line what happened, one line why, one line what to do about it.

    `data` is what had been found out until then, for who asked for JSON.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, what: str, *, why: str = "", hint: str = "", data: object = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return f"{self.what} ({self.why})" if self.why else self.what


class UsageError(MostoolError):
    exit_code = 2
    kind = "usage"


class InfeasibleError(MostoolError):
    exit_code = 3
    kind = "infeasible"


class DeviceError(MostoolError):
    exit_code = 4
    kind = "device"


class IntegrityError(MostoolError):
    exit_code = 5
    kind = "integrity"


class ParityError(IntegrityError):
    kind = "parity"


class UnstableError(MostoolError):
    exit_code = 6
    kind = "unstable"


class ToldElsewhere(SystemExit):
    """Ends a process whose failure another one of the same training has told. Its argument is the exit code."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """A UsageError for a name nobody knows, with the nearest known one as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {what}: {name!r}", hint=hint)
