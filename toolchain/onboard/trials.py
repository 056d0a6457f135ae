"""A model tried in a process forked for it: what it takes of memory, and whether it would take a worker with it."""

from __future__ import annotations

import gc
import os
from typing import Any

from . import machine
from .channel import LONGEST_ERROR, Channel, RefusalError, Request
from .model import Model

_OF_ONE_MODEL = ("load", "run", "memory")


def fail(number: int, refusal: RefusalError, channel: Channel) -> None:
    """Report one model's failure; one that would fail every model alike is raised."""
    if refusal.kind not in _OF_ONE_MODEL:
        raise refusal
    channel.send("failed", candidate=number, stage=refusal.kind, error=str(refusal)[:LONGEST_ERROR])


def trials(request: Request, inputs: dict[str, Any], channel: Channel) -> dict[int, int | RefusalError]:
    """Each candidate's peak memory, found in a process forked for it before any model is loaded here.

    Of one that dies there it is the refusal: it would have taken this worker with it. Reported it is once the reference
    is known to run, for where that fails too it is not the candidate's fault.

    Raises:
        RefusalError: of a kind that would fail every model alike.
    """
    found: dict[int, int | RefusalError] = {}
    if not hasattr(os, "fork"):
        return found
    for number, path in enumerate(request["candidates"]):
        channel.step("try", number)
        try:
            found[number] = in_a_fork(path, request, inputs)
        except RefusalError as refusal:
            if refusal.kind not in _OF_ONE_MODEL:
                raise
            found[number] = refusal
    return found


def in_a_fork(path: str, request: Request, inputs: dict[str, Any]) -> int:
    """How far loading and running a model lifts the peak memory of a process of its own.

    Raises:
        RefusalError: `memory` where the system killed it, `load` where it crashed; or what the model was refused for.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            with os.fdopen(writing, "w", encoding="utf-8", errors="replace") as answer:
                try:
                    answer.write(str(_growth_bytes(path, request, inputs)))
                except RefusalError as refusal:
                    answer.write(f"{refusal.kind} {refusal}")
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        answer_text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        signal = os.WTERMSIG(status)
        if signal == 9:
            raise RefusalError("memory", "killed by signal 9 (out of memory?)")
        raise RefusalError("load", f"it crashes the engine: killed by signal {signal}")
    if answer_text.isdigit():
        return int(answer_text)
    kind, _, message = answer_text.partition(" ")
    if kind in ("load", "run", "memory", "provider"):
        raise RefusalError(kind, message)
    raise RefusalError("load", f"its process ended with status {os.WEXITSTATUS(status)}")


def _growth_bytes(path: str, request: Request, inputs: dict[str, Any]) -> int:
    """The growth of this process's peak; it speaks to nobody meanwhile."""
    with open(os.devnull, "w", encoding="ascii") as nowhere:
        gc.collect()
        machine.reset_peak()
        before = machine.peak_bytes()
        model = Model(0, path, request, inputs, Channel(nowhere))
        for _ in range(3):
            model.call()
        return max(machine.peak_bytes() - before, 0)
