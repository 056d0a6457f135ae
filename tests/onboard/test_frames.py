"""Frames over real pipes: however they are cut up, late, too long, or no frames at all."""

import itertools
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.onboard import frames
from toolchain.onboard.frames import LONGEST_BYTES, Frames


class Wire:
    """A pipe, with Frames to read from it; each end can be closed early."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.open = {self.reading, self.writing}
        self.frames = Frames(self.reading, self.writing)

    def put(self, content: bytes) -> None:
        assert os.write(self.writing, content) == len(content)

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self.open):
            self.open.remove(end)
            os.close(end)

    def hang_up(self) -> None:
        self.close(self.writing)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def frame(content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + content


# -- reading -----------------------------------------------------------------------------------------------------------


@given(contents=st.lists(st.binary(max_size=60), min_size=1, max_size=6), data=st.data())
def test_frames_arrive_whole_wherever_they_were_cut(contents: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, contents))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))) | {0, len(stream)})
    wire, found = Wire(), []
    try:
        for start, end in itertools.pairwise(cuts):
            wire.put(stream[start:end])
            try:
                while True:
                    found.append(wire.frames.read(timeout_s=0))
            except TimeoutError:
                come = len(b"".join(map(frame, found)))
                assert come + len(wire.frames.pending) == end, "what has come is kept, and no more was waited for"
    finally:
        wire.close()
    assert found == contents


def test_an_end_in_the_middle_is_no_frame(wire: Wire) -> None:
    wire.put(frame(b"whole") + frame(b"half")[:-1])
    wire.hang_up()
    assert wire.frames.read() == b"whole"
    with pytest.raises(EOFError):
        wire.frames.read()
    assert wire.frames.ready(0), "an end is something that a reader must be told"


def test_the_time_limit_is_of_the_whole_frame_and_what_came_is_kept(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte every half second does not prolong it."""
    now = [100.0]
    sent = iter(frame(b"abcdefgh"))

    def select(reading: list[int], _: list[int], __: list[int], wait: float) -> tuple[list[int], ...]:
        now[0] += min(wait, 0.5)
        if wait < 0.5:
            return [], [], []
        wire.put(bytes([next(sent)]))
        return reading, [], []

    monkeypatch.setattr(frames, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(frames, "select", SimpleNamespace(select=select))
    with pytest.raises(TimeoutError):
        wire.frames.read(timeout_s=2.2)
    assert now[0] == pytest.approx(102.2)
    assert wire.frames.pending == frame(b"abcdefgh")[:4]
    assert wire.frames.read(timeout_s=10) == b"abcdefgh"


def test_nothing_within_the_time_is_a_timeout(wire: Wire) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.frames.read(timeout_s=0.05)
    with pytest.raises(TimeoutError):
        wire.frames.read_line(timeout_s=0.05)
    assert 0.1 <= time.monotonic() - began < 5
    assert not wire.frames.ready(0)


@pytest.mark.parametrize("length", [LONGEST_BYTES + 1, 0xFFFFFFFF])
def test_a_frame_too_long_is_refused_before_it_has_come(wire: Wire, length: int) -> None:
    wire.put(struct.pack("!I", length))
    with pytest.raises(ValueError, match=f"a frame of {length} bytes"):
        wire.frames.read(timeout_s=5)


def test_what_the_other_end_would_refuse_is_not_sent(wire: Wire) -> None:
    with pytest.raises(ValueError, match=f"a frame of {LONGEST_BYTES + 1} bytes"):
        wire.frames.write(bytes(LONGEST_BYTES + 1))
    assert not wire.frames.ready(0)


def test_the_longest_frame_goes_through(wire: Wire) -> None:
    content = os.urandom(1 << 10) * (LONGEST_BYTES >> 10)
    writer = threading.Thread(target=wire.frames.write, args=(content,))
    writer.start()
    assert wire.frames.read(timeout_s=60) == content
    writer.join()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"1", b'"text"', b"{", b"{}{}", b"\xff\xfe", b"\x80abc", b'{"a":1']
)
def test_garbage_is_a_value_error_and_the_next_frame_is_read(wire: Wire, content: bytes) -> None:
    wire.put(frame(content) + frame(b'{"a":1}'))
    with pytest.raises(ValueError, match=r".+"):
        wire.frames.receive(timeout_s=5)
    assert wire.frames.receive(timeout_s=5) == {"a": 1}


def test_lines_come_before_frames(wire: Wire) -> None:
    wire.put(b"Welcome!\n\nmostool-agent have\n" + frame(b'{"type":"hello"}\n'))
    assert [wire.frames.read_line(5) for _ in range(3)] == [b"Welcome!", b"", b"mostool-agent have"]
    assert wire.frames.receive(5) == {"type": "hello"}


def test_an_endless_line_is_not_kept_for_ever(wire: Wire) -> None:
    def pour() -> None:
        try:
            while True:
                os.write(wire.writing, bytes(1 << 16))
        except BrokenPipeError:
            return

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        with pytest.raises(ValueError, match="without a line's end"):
            wire.frames.read_line(timeout_s=60)
    finally:
        wire.close(wire.reading)
        pouring.join()


def test_a_socket_that_was_closed_with_something_unread_in_it_is_an_end() -> None:
    """OpenSSH can connect a command by sockets, and then an end is not always a polite one."""
    here, there = socket.socketpair()
    with here:
        here.sendall(b"never read")
        there.close()
        with pytest.raises(EOFError):
            Frames(here.fileno(), here.fileno()).read(timeout_s=5)


# -- writing -----------------------------------------------------------------------------------------------------------


@given(message=st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5)))
def test_a_message_arrives_as_it_was_and_in_ascii(message: dict[str, Any]) -> None:
    wire = Wire()
    try:
        wire.frames.send(message)
        content = wire.frames.read(timeout_s=5)
    finally:
        wire.close()
    assert json.loads(content) == message
    assert content.isascii()


def test_what_is_no_json_is_not_begun(wire: Wire) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        wire.frames.send({"time": float("nan")})
    assert not wire.frames.ready(0)


@pytest.mark.parametrize("write", [Frames.write, Frames.write_raw])
def test_a_reader_that_has_gone_is_an_end(wire: Wire, write: Callable[[Frames, bytes], None]) -> None:
    wire.close(wire.reading)
    with pytest.raises(EOFError):
        write(wire.frames, b"to nobody")


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_full_pipe_is_waited_for_without_turning_in_circles(
    wire: Wire, timeout_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.set_blocking(wire.writing, False)
    content = os.urandom(1 << 20)
    refused = threading.Event()
    plain = os.write

    def write(descriptor: int, data: bytes) -> int:
        try:
            return plain(descriptor, data)
        except BlockingIOError:
            refused.set()
            raise

    monkeypatch.setattr(os, "write", write)
    writer = threading.Thread(target=wire.frames.write, args=(content, timeout_s))
    writer.start()
    in_vain = refused.wait(0.2)  # the pipe is long full by then
    assert wire.frames.read(timeout_s=60) == content
    writer.join()
    assert not in_vain
    assert not refused.is_set()


def test_a_reader_that_does_not_read_is_a_timeout(wire: Wire) -> None:
    os.set_blocking(wire.writing, False)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.frames.write(bytes(1 << 20), timeout_s=0.05)
    assert 0.05 <= time.monotonic() - began < 5
