"""How compile.py times: all contestants in turns within each round, and ratios of what one round saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_TURN_S = 0.02
_MOST_CALLS = 20
_QUIET_SHARE = 0.2
_LONGEST_WAIT_S = 0.4
"""Worker threads of a runtime go on spinning after its call (those of OpenMP for 0.2 s), at the next one's expense."""


class Times(NamedTuple):
    """Seconds a call, one figure a round: by the wall clock and of this process's CPU time."""

    wall: npt.NDArray[np.float64]
    cpu: npt.NDArray[np.float64]

    @property
    def wall_ms(self) -> float:
        return 1e3 * float(np.median(self.wall))

    @property
    def cpu_ms(self) -> float:
        return 1e3 * float(np.median(self.cpu))

    @property
    def least_wall_ms(self) -> float:
        return 1e3 * float(self.wall.min())

    @property
    def least_cpu_ms(self) -> float:
        return 1e3 * float(self.cpu.min())

    def told(self, ours: Times) -> dict[str, float]:
        """All of it, with the ratios to `ours`."""
        return {
            "wall_ms": self.wall_ms,
            "cpu_ms": self.cpu_ms,
            "least_wall_ms": self.least_wall_ms,
            "least_cpu_ms": self.least_cpu_ms,
            **self.ratios(ours),
            "rounds": len(self.wall),
        }

    def ratios(self, other: Times) -> dict[str, float]:
        """How many times another's: medians of what rounds saw, and that of the least times of both."""
        return {
            "ratio": float(np.median(self.wall / other.wall)),
            "cpu_ratio": float(np.median(self.cpu / other.cpu)),
            "least_ratio": float(self.wall.min() / other.wall.min()),
            "least_cpu_ratio": float(self.cpu.min() / other.cpu.min()),
        }


def race(
    contestants: Mapping[str, Callable[[], object]], seconds: float, least_rounds: int, threads: int, seed: int = 0
) -> dict[str, Times]:
    """Every contestant once a round, in an order drawn anew, until `seconds` are over; `threads` each of them has.

    A turn is one call to warm up and as many as fit 20 ms, and its figure their median; a call that takes longer stands
    alone.
    """
    rng = np.random.default_rng(seed)
    calls = {name: _calls(run) for name, run in contestants.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    end, rounds, names = time.monotonic() + seconds, 0, list(contestants)
    while rounds < least_rounds or time.monotonic() < end:
        for place in rng.permutation(len(names)):
            name = names[place]
            if threads > 1:
                _wait_for_quiet()
            found[name].append(_turn(contestants[name], calls[name]))
        rounds += 1
    return {name: Times(*np.array(turns).T) for name, turns in found.items()}


def _calls(run: Callable[[], object]) -> int:
    for _ in range(2):
        run()
    start = time.perf_counter()
    run()
    return max(1, min(_MOST_CALLS, int(_TURN_S / (time.perf_counter() - start))))


def _turn(run: Callable[[], object], calls: int) -> tuple[float, float]:
    if calls > 1:
        run()
    walls, cpus = [], []
    for _ in range(calls):
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        run()
        walls.append(time.perf_counter_ns() - wall)
        cpus.append(time.process_time_ns() - cpu)
    return 1e-9 * float(np.median(walls)), 1e-9 * float(np.median(cpus))


def _wait_for_quiet() -> None:
    """Until this process's threads are asleep."""
    end = time.monotonic() + _LONGEST_WAIT_S
    while time.monotonic() < end:
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(0.004)
        if time.process_time() - cpu < _QUIET_SHARE * (time.perf_counter() - wall):
            return
