"""The command line: argv -> one pipeline call -> a table or one JSON object.

Nothing heavy is imported before a command runs: `--help` and `--version` know neither torch nor numpy.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from toolchain.cli.app import app
from toolchain.cli.logs import tell_no_more
from toolchain.cli.output import print_failure
from toolchain.errors import MostoolError, ToldElsewhere, UsageError, unknown_name
from toolchain.extras import extra_of

_GONE = {"--family": "leave it out: the task decides the family (--task translate, or classify, regress, mlm)"}
"""Options of earlier versions, and what to do in their place."""


_AFTER_COMMANDS = ("--json", "-q", "--quiet", "-v", "--verbose", "--debug")


class _InterruptedError(MostoolError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
    kind = "interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see toolchain/errors.py, and 130 for Ctrl-C)."""
    code = 1
    try:
        code = _run(argv)
    finally:
        tell_no_more(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    # Threads that wait by spinning make training several times slower on a machine that is also busy otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    asked = {"json": "--json" in arguments}  # `common` adds what variables and settings files say
    try:
        try:
            app.main(arguments, prog_name="mostool", standalone_mode=False, obj=asked)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except click.exceptions.NoArgsIsHelpError as asked_nothing:
            click.echo(asked_nothing.format_message())
        except (Exception, KeyboardInterrupt) as error:  # the last resort: whatever it is, it is told in one line
            if "--debug" in arguments:
                traceback.print_exc()
            failure = _lacking(error, arguments) or _in_our_words(error)
            _drop_unwritten(error)
            print_failure(failure, as_json=asked["json"])
            sys.stdout.flush()
            return failure.exit_code
    except ToldElsewhere as ended:
        return int(ended.code or 1)
    except (BrokenPipeError, SystemExit):  # click ends with SystemExit where it was writing itself
        # Nobody reads on: end quietly.
        _discard_stdout()
    return 0


def _in_our_words(error: BaseException) -> MostoolError:
    match error:
        case MostoolError():
            return error
        case click.ClickException():
            return _usage(error)
        case OSError():
            return _system(error)
        case click.Abort() | KeyboardInterrupt():
            return _InterruptedError("interrupted", hint="the same command goes on where this one stopped")
        case MemoryError() | RuntimeError() if isinstance(error, MemoryError) or _says_out_of_memory(error):
            return MostoolError("out of memory", hint="use a smaller space or batch")
        case _:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "this is a bug in mostool: run with --debug and report the traceback"
            return MostoolError("internal error", why=why, hint=hint)


def _lacking(error: BaseException, arguments: Sequence[str]) -> UsageError | None:
    """A package that is not installed, and the extra that brings it; None where it is something else that failed."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    command = next((one for one in arguments if not one.startswith("-")), "")
    extra = extra_of(package, command)
    if extra is None:
        return None
    what = f"mostool {command} needs the package {package}, which is not installed"
    files = "; files that are ready need none: --artifacts FOLDER" if command == "profile" else ""
    return UsageError(what, hint=f"pip install 'mostool[{extra}]'{files}")


def _says_out_of_memory(error: BaseException) -> bool:
    """torch has no class of its own for this: it is a RuntimeError with one of these texts."""
    return any(words in str(error) for words in ("not enough memory", "out of memory", "can't allocate memory"))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage(error: click.ClickException) -> UsageError:
    """click's complaint in our words, with the nearest name where one was misspelled."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        if error.option_name in _GONE:
            return UsageError(f"there is no option {error.option_name}", hint=_GONE[error.option_name])
        if isinstance(context.command, click.Group) and error.option_name in _AFTER_COMMANDS:
            where = f"{context.command_path} COMMAND {error.option_name}"
            return UsageError(f"{error.option_name} goes behind a command", hint=f"write {where}")
        known = [name for parameter in context.command.params for name in parameter.opts]
        return unknown_name("option", error.option_name, known)
    command = f"{context.command_path} --help" if context else "mostool --help"
    near = _nearest_choice(error)
    return UsageError(error.format_message().rstrip("."), hint=f"did you mean {near}?" if near else f"see {command}")


def _nearest_choice(error: click.ClickException) -> str:
    """What is nearest to a value that is none of an option's choices; empty where nothing is near."""
    kind = error.param.type if isinstance(error, click.BadParameter) and error.param is not None else None
    given = re.match(r"'([^']+)'", error.message)  # click tells the value in its message alone
    if not isinstance(kind, click.Choice) or given is None:
        return ""
    return next(iter(difflib.get_close_matches(given[1], [str(one) for one in kind.choices], n=1)), "")


def _system(error: OSError) -> MostoolError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "free some disk space and run the same command again" if full else "run with --debug for the place"
    return MostoolError(error.strerror or str(error) or "input or output failed", why=_named(error), hint=hint)


def _named(error: OSError) -> str:
    return "" if error.filename is None else os.fsdecode(error.filename)


# -- standard output and error ---------------------------------------------------------------------------------------


def _prepare_streams() -> None:
    """A closed stream goes nowhere from now on (the next file opened would take its number); no text is refused."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            sink = os.open(os.devnull, os.O_WRONLY)
            if sink != number:
                os.dup2(sink, number)
                os.close(sink)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_unwritten(error: BaseException) -> None:
    """After standard output itself has failed (a full disk), Python must not try again on its way out."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        try:
            sys.stdout.flush()
        except OSError:
            _discard_stdout()


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):  # io.UnsupportedOperation is both
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
