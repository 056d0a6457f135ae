"""Parsers under limits, in a process of its own: `python -m faults.limits PROJECT COUNT [SEED]`.

Each parser gets COUNT spoiled inputs, and some that are large: all within 200 MB beyond what the process took before,
or MemoryError ends it. Prints one JSON object: of each parser the most CPU seconds that an input took, and the most
MiB that the process had grown by.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .parsers import parsers
from .parsing import REFUSALS, Parser
from .spoiling import LARGEST_BYTES

MOST_S, MOST_BYTES = 2.0, 200 << 20
_SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a disk is not what is measured


def large(parser: Parser) -> list[bytes]:
    """Inputs of a mebibyte: one sign again and again, or a valid example."""
    signs = (b"[", b'{"a":', b"9", b"\n", b" ", b"a,", b'"', b"\0", b"{}\n", b"[a]\n", b"a = 1\n", b'\\"', b"\xff")
    valid = parser.seeds[0].rstrip(b"\n") + b"\n"
    made = [sign * (LARGEST_BYTES // len(sign)) for sign in (*signs, valid)]
    return [*made, parser.seeds[0] + b" " * LARGEST_BYTES, parser.seeds[0] + b"," * LARGEST_BYTES, b"1e" + made[2]]


def worst(name: str, parser: Parser, count: int, seed: int) -> tuple[float, float]:
    """The most CPU seconds of one input, and the most MiB."""
    slowest, bombs = 0.0, large(parser)
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as scratch:
        for number in range(count + len(bombs)):
            rng = random.Random(f"{name} {seed} {number}")  # noqa: S311 - inputs, not secrets
            data = parser.spoiled(rng) if number < count else bombs[number - count]
            for left in Path(scratch).iterdir():
                if left.is_file():
                    left.unlink()
            before = time.process_time()
            with contextlib.suppress(*REFUSALS):
                parser.parse(data, Path(scratch))
            slowest = max(slowest, time.process_time() - before)
    return slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def limited(name: str, parser: Parser, count: int, seed: int) -> dict[str, float]:
    """The worst of a parser, in a process that takes at most so much more than this one has."""
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, taken + MOST_BYTES))
    seconds, mib = worst(name, parser, count, seed)
    return {"seconds": round(seconds, 3), "mib": round(mib - base, 1)}


def main(project: str, count: str, seed: str = "0") -> None:
    told = {}
    for name, parser in parsers(Path(project)).items():
        reading, writing = os.pipe()
        if not (child := os.fork()):  # parsers are functions, which no pool of processes takes
            try:
                os.write(writing, json.dumps(limited(name, parser, int(count), int(seed))).encode())
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            said = stream.read()
        os.waitpid(child, 0)
        if not said:
            sys.exit(f"{name}: see above")
        told[name] = json.loads(said)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
