"""The command line: argv -> one pipeline call -> a table or one JSON object.

Nothing heavy is imported before a command runs: `--help` and `--version` know neither torch nor numpy.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from toolchain.cli.app import app
from toolchain.cli.output import print_failure
from toolchain.errors import MostoolError, UsageError, unknown_name

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see toolchain/errors.py, and 130 for Ctrl-C)."""
    # Threads that wait by spinning make training several times slower on a machine that is also busy otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        app.main(arguments, prog_name="mostool", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on: end quietly, and keep Python from writing to the closed pipe on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted; the same command goes on where this one stopped\n")
        return INTERRUPTED
    except (MostoolError, click.ClickException, OSError, MemoryError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        failure = _in_our_words(error)
        print_failure(failure, as_json="--json" in arguments)
        return failure.exit_code
    return 0


def _in_our_words(error: Exception) -> MostoolError:
    if isinstance(error, MostoolError):
        return error
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError):
        return _system(error)
    return MostoolError("out of memory", hint="use a smaller space or batch")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage(error: click.ClickException) -> UsageError:
    """click's complaint in our words, with the nearest name where one was misspelled."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        return unknown_name("option", error.option_name, known)
    command = f"{context.command_path} --help" if context else "mostool --help"
    return UsageError(error.format_message().rstrip("."), hint=f"see {command}")


def _system(error: OSError) -> MostoolError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "free some disk space and run the same command again" if full else "run with --debug for the place"
    return MostoolError(os.strerror(error.errno or 0), why=str(error.filename or ""), hint=hint)
