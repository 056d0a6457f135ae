"""mostool as a process that starts at once, to be killed often: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from made_project import environment

_NURSERY = """\
import json, os, sys
from toolchain.cli import main
assert main(json.loads(sys.argv[1])) == 0
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forked:
    """One command at work."""

    def __init__(self, pid: int, said: IO[str]) -> None:
        self.pid, self._said = pid, said
        self._status: int | None = None

    def kill(self) -> None:
        """Nobody else takes its number: its parent has not waited for it, or is about to tell that it has."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; of one that was killed, the signal's number below zero."""
        if self._status is None:
            self._status = int(self._said.readline())
        return self._status


class Nursery:
    """Starts commands in a project."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._asked, self._said = process.stdin, process.stdout

    def ready(self) -> bool:
        """Whether the first command has ended well."""
        return "ready\n" in iter(self._said.readline, "")

    def start(self, *arguments: str) -> Forked:
        self._asked.write(json.dumps(arguments) + "\n")
        self._asked.flush()
        return Forked(int(self._said.readline()), self._said)


@contextmanager
def nursery(folder: Path, *first: str) -> Iterator[Nursery]:
    """Commands of the project in `folder`; the `first` one is run to its end, so that all it imports is there."""
    variables = environment(folder, OPENBLAS_NUM_THREADS="1")
    with subprocess.Popen(
        [sys.executable, "-c", _NURSERY, json.dumps(first)],
        cwd=folder,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            found = Nursery(process)
            assert found.ready()
            yield found
        finally:
            process.kill()
