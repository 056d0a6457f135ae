"""How compile.py tells what it found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from compile_peers import OURS

TOLERATED = 0.98
"""Ratios below it are listed as lost; nearer to 1 nobody is faster."""


def kinds(threads: int) -> Iterable[tuple[str, str, str]]:
    """What is told of a number of threads: the keys of a time and of its ratio, and how that is named."""
    yield "wall_ms", "ratio", ""
    if threads == 1:
        yield "cpu_ms", "cpu_ratio", ", CPU"
        yield "least_cpu_ms", "least_cpu_ratio", ", least CPU"
    else:
        yield "least_wall_ms", "least_ratio", ", least"


def summary(rows: list[dict[str, Any]]) -> str:
    """The geometric mean for each peer, and where ours is slower."""
    lines = ["geometric means over models and lengths (CPU time at one thread, wall clock at more)"]
    for threads in sorted({one["threads"] for one in rows}):
        key = "cpu_ratio" if threads == 1 else "ratio"
        mine = [one for one in rows if one["threads"] == threads and not one["contestant"].startswith(OURS)]
        told = []
        for name in dict.fromkeys(one["contestant"] for one in mine):
            ratios = [one[key] for one in mine if one["contestant"] == name]
            told.append(f"{name} {np.exp(np.mean(np.log(ratios))):.2f} (least {min(ratios):.2f})")
        lines.append(f"  {threads} thread{'s' * (threads > 1)}: {', '.join(told)}")
    lost = [
        f"  {one['contestant']}: {one['model']}, {one['length']} tokens, {one['threads']} thread(s): {ratio:.2f}"
        for one in rows
        if not one["contestant"].startswith(OURS)
        and (ratio := one["cpu_ratio" if one["threads"] == 1 else "ratio"]) < TOLERATED
    ]
    compared = sum(not one["contestant"].startswith(OURS) for one in rows)
    lines.append(f"ours is slower (below {TOLERATED}) in {len(lost)} of {compared}:")
    return "\n".join(lines + lost) + "\n"
