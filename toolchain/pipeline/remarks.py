"""What a user is told beside the latencies of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from toolchain import profiling
from toolchain.records import Failed, Measurement, TableInfo, Timed

_BUSY = 0.5
"""Of a core, on average: more than so many waiting processes before anything is measured are worth a word."""
_LONGEST_ERROR = 200


def doubts_of(measurements: Sequence[Measurement]) -> list[str]:
    """One sentence where figures of the table are in doubt: how many of how many, and why."""
    timed = [row.outcome for row in measurements if isinstance(row.outcome, Timed)]
    if not timed:
        return []
    anchor = profiling.anchor_s(timed)
    reasons = Counter(reason for outcome in timed for reason in profiling.latency(outcome, anchor).status)
    if not reasons:
        return []
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    advice = "the machine was busy; a quiet one and --fresh give firmer figures"
    return [f"latencies are in doubt, of {len(timed)}: {listed}; {advice}"]


def remarks_on(info: TableInfo, measurements: Sequence[Measurement]) -> list[str]:
    """What a reader of the table should know, though it puts no single figure in doubt."""
    remarks = []
    failed = [row.outcome for row in measurements if isinstance(row.outcome, Failed)]
    if failed:
        last = failed[-1]
        remarks.append(
            f"{len(failed)} of {len(measurements)} subnets could not be measured on {info.target}, the last one for "
            f"{last.stage}: {last.error[:_LONGEST_ERROR]}; --retry-failed tries again"
        )
    if info.environment.emulator:
        remarks.append(
            f"{info.target} is emulated ({info.environment.emulator}): its latencies say nothing about a real device"
        )
    if info.threads > info.environment.cores:
        remarks.append(
            f"{info.target} runs {info.threads} threads on {info.environment.cores} cores: they wait for each other; "
            "change runtime.threads in its file"
        )
    if info.thermal == "sustained":
        remarks.append(f"{info.target} was measured under sustained load, throttled where its heat makes it so")
    conditions = [row.outcome.conditions for row in measurements if isinstance(row.outcome, Timed)]
    discarded = max((one.rounds_discarded for one in conditions), default=0)
    if discarded:
        waited = max(one.cooled_s for one in conditions)
        remarks.append(
            f"{info.target} was throttled or hot: up to {discarded} rounds of a group were discarded and made again, "
            f"after {waited:.0f} s of waiting"
        )
    if any((one.throttled_start or 0) >> 16 for one in conditions):
        remarks.append(f"{info.target} had been throttled or short of voltage before, since it was started")
    busiest = max((one.load_per_core for one in conditions), default=0.0)
    if busiest > _BUSY:
        remarks.append(
            f"{info.target} had other work: up to {busiest:.1f} processes for each core before a group began"
        )
    return remarks
