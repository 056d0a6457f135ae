"""What profile would do, told before anything is started: --dry-run. Of search and export: choices.py."""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import median
from typing import NamedTuple

from toolchain import profiling
from toolchain.pipeline.growing import Goal, wanted
from toolchain.pipeline.profile import Request
from toolchain.pipeline.project import Project
from toolchain.pipeline.run_records import RunRecords
from toolchain.pipeline.supply import Supply
from toolchain.pipeline.workloads import check_workload
from toolchain.records import Measurement, Timed, Workload
from toolchain.space import Architecture
from toolchain.targets import Target

_NOISE_COPIES = 4
"""Copies of the reference that are measured where a table knows no noise floor yet: see profiling.noise_floor."""


class ProfilePlan(NamedTuple):
    """What profiling a target would do.

    Attributes:
        holds: subnets the table has, `failed` of them without a latency.
        to_measure: those it would get; with a goal, at most so many, chosen as it goes.
        noise_test: whether the noise floor is measured first.
        least_s, most_s: seconds that the target's protocol spends in inferences on them, by its own settings; files are
            built beside that. Where a single inference is slow, its fewest calls take longer.
        pace_s: seconds for each subnet as this table was filled so far, building included; None before it is known.
    """

    target: str
    table: Path
    workload: Workload
    precision: str
    planned: int
    holds: int
    failed: int
    to_measure: int
    architectures: tuple[str, ...]
    noise_test: bool
    least_s: float
    most_s: float
    pace_s: float | None
    goal: Goal | None
    moved_aside: bool


def plan_profile(project: Project, supply: Supply, target: Target, request: Request) -> ProfilePlan:
    """What profiling `request` on `target` would do; the device is not asked anything, and nothing is written.

    Raises:
        UsageError: the workload does not fit the model.
        IntegrityError: the table is damaged.
    """
    space = supply.table_space(mixed=request.mixed)
    check_workload(space, request.workload)
    table, planned = project.table_folder(target.id, space, request.workload), _planned(supply, request)
    there = (table / profiling.TABLE).is_file()
    rows: list[Measurement] = []
    noise_known = False
    if there and not request.fresh:
        info, rows = profiling.read_table(table)
        noise_known = info.noise_floor is not None
    timed = {row.architecture.id for row in rows if isinstance(row.outcome, Timed)}
    done = timed if request.retry_failed else {row.architecture.id for row in rows}
    missing = [one.id for one in planned if one.id not in done]
    count = len(missing) if request.goal is None else max(0, request.goal.most - len(rows))
    noise_test = request.self_test or (count > 0 and not noise_known)
    least_s, most_s = _spent_s(target, count + _NOISE_COPIES * noise_test)
    if request.goal is not None and request.goal.budget_s is not None:
        most_s = min(most_s, request.goal.budget_s)
        least_s = min(least_s, most_s)
    return ProfilePlan(
        target=target.id,
        table=table,
        workload=request.workload,
        precision="mixed" if request.mixed else "fp32",
        planned=len(planned) if request.goal is None else request.goal.most,
        holds=len(rows),
        failed=len(rows) - len(timed),
        to_measure=count,
        architectures=tuple(missing) if request.goal is None else (),
        noise_test=noise_test,
        least_s=least_s,
        most_s=most_s,
        pace_s=_pace_s(rows),
        goal=request.goal,
        moved_aside=there and request.fresh,
    )


def _planned(supply: Supply, request: Request) -> list[Architecture]:
    if isinstance(supply, RunRecords):  # which would keep what it is asked for
        return wanted(supply, request.architectures, request.n, mixed=request.mixed)
    return supply.planned(request.architectures, request.n, mixed=request.mixed)


def _spent_s(target: Target, models: int) -> tuple[float, float]:
    """Seconds inside inferences, least and most: each model's own, the reference's beside it, and warming up."""
    measure = target.measure
    groups = -(-models // measure.group)
    heating = measure.sustained_s if measure.thermal == "sustained" else 0.0
    still = models * (measure.warmup_s + measure.energy_s) + groups * max(measure.warmup_s, heating)
    beside = 1 + 1 / measure.reference_every
    return still + models * measure.minimum_s * beside, still + models * measure.maximum_s * beside


def _pace_s(rows: list[Measurement]) -> float | None:
    """Seconds from the start of one group to the next, for each subnet of it, in the median; pauses stand out."""
    groups = [(start, len(list(group))) for start, group in itertools.groupby(rows, lambda row: row.started_at)]
    paces = [(later - start).total_seconds() / count for (start, count), (later, _) in itertools.pairwise(groups)]
    paces = [pace for pace in paces if pace > 0]
    return median(paces) if paces else None
