"""A board that answers with garbage: exit code 4, nothing of it becomes a row, and little memory is spent on it."""

from __future__ import annotations

import sys

import pytest
from made_project import Called, refused

from faults.faulty_board import BEGUN, SAYS, Boarded, boarded, made, one_thread
from toolchain.onboard.machine import peak_bytes, reset_peak

__all__ = ["boarded", "made", "one_thread"]

MEMORY_BYTES = 200 << 20
LONG = 50_000_000


def profile_in_little_memory(boarded: Boarded) -> Called:
    reset_peak()
    start = peak_bytes()
    called = boarded.profile()
    assert peak_bytes() - start < MEMORY_BYTES
    return called


def tries(fault: str, *values: str) -> list[object]:
    return [
        pytest.param(value, marks=pytest.mark.fault(f"answer-{fault}"), id=f"{fault}-{n}")
        for n, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    "changed",
    [
        *tries("cut", "line[:len(line) // 2]", "line[:-1]"),
        *tries("banner", "line[:9] + 'Welcome!' + line[9:]", "'Welcome!\\n' + line"),
        *tries("nan", "line.replace('\"wall_s\":[', '\"wall_s\":[NaN,', 1)"),
        *tries("negative", "line.replace('\"wall_s\":[', '\"wall_s\":[-', 1)"),
        *tries("long", f"'x' * {LONG}"),
    ],
)
def test_a_latency_that_is_garbage_is_no_row(boarded: Boarded, changed: str) -> None:
    before = boarded.lines()
    assert len(before) == BEGUN
    boarded.program(SAYS.format(changed=changed))
    refused(profile_in_little_memory(boarded), 4, "sent garbage")
    assert len(boarded.keeps(before)) == BEGUN + 1, "what came before it was acknowledged"
    boarded.heal()
    boarded.mends(before)


AGENT = """\
#!{python}
import struct, sys
def say(content):
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
def frame(content):
    say(struct.pack("!I", len(content)) + content)
def answer(content):
    frame(hello)
    sys.stdin.buffer.read(1)
    frame(content)
begin = b"\\nmostool-agent have\\n"
hello = b'{{"type":"hello","protocol":1,"python":"3.11.7","machine":"x86_64"}}'
{says}
sys.stdin.buffer.read()
"""

SAID_NAN = """\
say(begin)
answer(b'{"id":1}')
frame(b'{"id":2}')
frame(b'{"type":"said","offset":NaN,"text":""}')
sys.exit()
"""


@pytest.mark.parametrize(
    "says",
    [
        *tries("cut", "say(begin); frame(hello[:30])", "say(begin); answer(b'{\"id\":1,')"),
        *tries("nan", "say(begin); frame(hello.replace(b'1,', b'NaN,'))", SAID_NAN),
        *tries("negative", "say(begin); say(struct.pack('!i', -7))"),
        *tries(
            "banner", "say(b'Welcome!\\n' * 1000 + begin); frame(hello)", "say(begin + b'Welcome!\\n'); frame(hello)"
        ),
        *tries(
            "long",
            f"say(b'x' * {LONG} + begin); frame(hello)",
            f"say(begin + b'x' * {LONG} + b'\\n'); frame(hello)",
            f"say(begin); answer(b'x' * {LONG})",
            "say(begin); frame(b'[' * 5_000_000)",
        ),
    ],
)
def test_an_agent_that_speaks_garbage_measures_nothing(boarded: Boarded, says: str) -> None:
    before = boarded.lines()
    python = boarded.board.folder.parent / "python"
    python.write_text(AGENT.format(python=sys.executable, says=says))
    python.chmod(0o755)
    boarded.aim(python=python, reconnect_s=0.2)
    told = refused(profile_in_little_memory(boarded), 4, "rpi")
    assert "garbage" in told.err
    assert boarded.keeps(before) == before


@pytest.mark.fault("answer-banner")
def test_a_banner_before_the_agent_is_passed_over(boarded: Boarded) -> None:
    boarded.board.set(banner="Welcome to your board!\nYou have mail.")
    boarded.mends(boarded.lines())
