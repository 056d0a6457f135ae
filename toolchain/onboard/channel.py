"""How a worker answers: one JSON object per line, and a refusal for what cannot be had."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

PROTOCOL = 2
REFERENCE = -1
"""The number of the reference model where candidates are numbered from 0."""
LONGEST_ERROR = 500

_HEARTBEAT_S = 1.0

Request = dict[str, Any]


class RefusalError(Exception):
    """What was asked cannot be had; it becomes an `error` answer.

    `kind`: request, engine, provider, reference, load, run, memory, throttled.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """The answering side of the pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.spoke_at = 0.0
        self.speaking = threading.Lock()

    def send(self, kind: str, /, **fields: Any) -> None:
        line = json.dumps({"type": kind, **fields}, allow_nan=False, separators=(",", ":")) + "\n"
        with self.speaking:
            self.stream.write(line)
            self.stream.flush()
            self.spoke_at = time.monotonic()

    @contextlib.contextmanager
    def busy(self, most_s: float) -> Iterator[None]:
        """Beat from another thread during work that is long and silent by its nature, for `most_s` at most."""
        over = threading.Event()

        def beat() -> None:
            end = time.monotonic() + most_s
            while not over.wait(_HEARTBEAT_S) and time.monotonic() < end:
                with contextlib.suppress(OSError, ValueError):  # nobody listens: the work itself will find out
                    self.beat()

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()

    def step(
        self, step: str, candidate: int = REFERENCE, rounds: int = 0, half_width: float = 0.0, note: str = ""
    ) -> None:
        """Say what is about to happen, so that the host knows what it was when nothing more is heard."""
        self.send("step", step=step, candidate=candidate, rounds=rounds, half_width=round(half_width, 6), note=note)

    def beat(self) -> None:
        """Break a long silence: the host takes one longer than a call may last for a hang."""
        if time.monotonic() - self.spoke_at > _HEARTBEAT_S:
            self.send("beat")
