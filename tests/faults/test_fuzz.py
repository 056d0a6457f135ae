"""Whatever comes in by any door is read as what it says or refused in our words; bounded in examples, time and memory.

`MOSTOOL_FUZZ=N` multiplies the number of examples: `MOSTOOL_FUZZ=100 pytest tests/faults/test_fuzz.py` looks longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_project import Made, made, one_thread

from .limits import _SCRATCH, MOST_S
from .parsers import NAMES, parsers
from .parsing import REFUSALS, Parser

__all__ = ["made", "one_thread"]

MORE = float(os.environ.get("MOSTOOL_FUZZ", "1"))
EXAMPLES, LIMITED = max(1, round(40 * MORE)), max(1, round(20 * MORE))
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def doors(made: Made) -> dict[str, Parser]:
    return parsers(made.root)


def test_every_door_is_tried(doors: dict[str, Parser]) -> None:
    assert doors.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_valid_is_read(doors: dict[str, Parser], name: str, tmp_path: Path) -> None:
    """Else the fuzzer would try nothing but refusals."""
    for data in doors[name].seeds:
        doors[name].parse(data, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
@given(rng=st.randoms(use_true_random=False))
def test_what_is_spoiled_is_read_or_refused(doors: dict[str, Parser], name: str, rng: random.Random) -> None:
    data = doors[name].spoiled(rng)
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as scratch, contextlib.suppress(*REFUSALS):
        doors[name].parse(data, Path(scratch))


def test_no_input_takes_long_or_much_memory(made: Made) -> None:
    """In a process of its own, in CPU seconds: what else this machine has to do does not count."""
    seed = random.getrandbits(32)
    done = subprocess.run(
        [sys.executable, "-m", "faults.limits", str(made.root), str(LIMITED), str(seed)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (seed, done.stderr)
    told = json.loads(done.stdout)
    assert told.keys() == set(NAMES)
    assert {name: one for name, one in told.items() if one["seconds"] >= MOST_S} == {}
