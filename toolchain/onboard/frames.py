"""Frames: four bytes of length, big-endian, and so many bytes. JSON objects, and raw content that one announced."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

LONGEST_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 18


class Frames:
    """Frames over a pair of file descriptors.

    Raises:
        EOFError: the other end has closed.
        TimeoutError: no whole frame came, or none could be written, within the time. After the latter nothing more can
            be: half a frame may have gone.
        ValueError: what came is no frame, or what is to be sent is longer than one may be.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.pending = bytearray()

    def ready(self, timeout_s: float) -> bool:
        """Whether something has come, or does within the time."""
        return bool(self.pending) or bool(select.select([self.reading], [], [], max(0.0, timeout_s))[0])

    def read(self, timeout_s: float | None = None) -> bytes:
        """The next frame's content. Where the time is up, what has come so far is kept for the next call."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if len(self.pending) >= 4:
                (length,) = struct.unpack_from("!I", self.pending)
                if length > LONGEST_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                if len(self.pending) >= 4 + length:
                    content = bytes(self.pending[4 : 4 + length])
                    del self.pending[: 4 + length]
                    return content
            self.fill(deadline)

    def read_line(self, timeout_s: float) -> bytes:
        """A line of text, before the first frame."""
        deadline = time.monotonic() + timeout_s
        while (end := self.pending.find(b"\n")) < 0:
            if len(self.pending) > LONGEST_BYTES:
                raise ValueError(f"{len(self.pending)} bytes without a line's end")
            self.fill(deadline)
        line = bytes(self.pending[:end])
        del self.pending[: end + 1]
        return line

    def fill(self, deadline: float | None) -> None:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([self.reading], [], [], wait)[0]:
            raise TimeoutError
        try:
            chunk = os.read(self.reading, _CHUNK_BYTES)
        except ConnectionResetError:  # sshd may use sockets: one that is closed with something unread in it says this
            chunk = b""
        if not chunk:
            raise EOFError
        self.pending += chunk

    def write(self, content: bytes, timeout_s: float | None = None) -> None:
        if len(content) > LONGEST_BYTES:
            raise ValueError(f"a frame of {len(content)} bytes")
        self.write_raw(struct.pack("!I", len(content)) + content, timeout_s)

    def write_raw(self, content: bytes, timeout_s: float | None = None) -> None:
        """Bytes as they are. With a time limit the descriptor must not block."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left = memoryview(content)
        while left:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([], [self.writing], [], wait)[1]:
                raise TimeoutError
            try:
                left = left[os.write(self.writing, left) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                raise EOFError from None

    def send(self, message: dict[str, Any], timeout_s: float | None = None) -> None:
        self.write(json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii"), timeout_s)

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next frame, which must be a JSON object."""
        message = json.loads(self.read(timeout_s))
        if not isinstance(message, dict):
            raise ValueError("a frame that is no object")
        return message
