"""--verbose: what is done, on stderr, with the seconds since the command began."""

from __future__ import annotations

import logging
import os
import sys
import time

from toolchain.cli.output import printable

LOG = logging.getLogger("toolchain")
"""The parent of every room's logger; it says nothing unless it is told to."""


class _OnStderr(logging.Handler):
    """A line for each record, on whatever stderr is now: a bar that is drawn there stays below it."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._began:7.2f} s] {printable(record.getMessage())}\n")


def tell_more(command: str) -> None:
    """From now on, until `tell_no_more`."""
    if any(isinstance(one, _OnStderr) for one in LOG.handlers):
        return
    LOG.addHandler(_OnStderr())
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    LOG.info("%s in %s, process %d", command, os.getcwd(), os.getpid())  # noqa: PTH109  # it may have gone


def tell_no_more(code: int) -> None:
    """The command ended with this exit code."""
    LOG.info("ended with exit code %d", code)
    for handler in LOG.handlers[:]:
        if isinstance(handler, _OnStderr):
            LOG.removeHandler(handler)
            LOG.setLevel(logging.NOTSET)
            LOG.propagate = True
