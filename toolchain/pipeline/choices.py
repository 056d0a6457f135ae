"""What search and export would do, told before anything is started: --dry-run. Of profile: plans.py."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from toolchain.errors import UsageError
from toolchain.pipeline.course import Course
from toolchain.pipeline.pricing import Prices
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.shipped import bundle_in
from toolchain.pipeline.shipping import Wanted
from toolchain.pipeline.subjects import SubnetOfRun
from toolchain.pipeline.wishes import (
    Wish,
    budget_sets_of,
    costs_asked_for,
    digested,
    first_subnets,
    halfway,
    objectives_of,
    resolved_space,
)
from toolchain.pipeline.workloads import check_workload
from toolchain.records import Budget, FileFormat, HeldOutError, Source, Workload
from toolchain.space import Architecture
from toolchain.targets import Target


class Ground(NamedTuple):
    """A device's table that a search would stand on, and how wrong its predictor has been."""

    target: str
    workload: Workload
    table: Path
    source: Source
    error: HeldOutError
    quantity: str


class SearchPlan(NamedTuple):
    """What a search would do.

    Attributes:
        subnets: in the space.
        budget_sets: the budgets; `chosen` where none was given and half-way is taken.
        fits: ids of subnets known or predicted to keep the budgets; their absence is an InfeasibleError.
        evaluated: subnets that the same search has evaluated already.
        finished: whether it was done before, so that nothing would be evaluated.
    """

    space: str
    subnets: int
    budget_sets: tuple[tuple[Budget, ...], ...]
    chosen: bool
    objectives: tuple[str, ...]
    searcher: str
    evaluations: int
    at_once: int
    remeasure: int
    grounds: tuple[Ground, ...]
    fits: tuple[str, ...]
    evaluated: int
    finished: bool
    folder: Path


def plan_search(project: Project, run: Run, wish: Wish) -> SearchPlan:
    """What a search would do, by the tables as they are.

    Raises:
        InfeasibleError: no subnet keeps the budgets, as the search would say at once.
        UsageError: a budget on a device without a table; a run of one subnet.
    """
    if run.info.space.point is not None:
        raise UsageError(
            f"{run.folder} holds one subnet, there is nothing to search",
            hint="ship it with mostool export, or name a supernet's run with --run",
        )
    space = resolved_space(project, run, wish)
    prices = Prices(project, run, space, costs_asked_for(project, run, space, wish), wish.workload)
    budget_sets = budget_sets_of(wish, prices)
    objectives = objectives_of(wish, prices, budget_sets)
    course = Course(run.search_folder, digested(run, space, wish, budget_sets, objectives, prices), prices.folders)
    chosen = not budget_sets[0]
    if chosen:
        known = course.find_budget() if not wish.fresh else None
        budget_sets = [(known or halfway(prices, objectives[0]),)]
    evaluated, finished = course.standing() if not wish.fresh else (0, False)
    fits = [] if evaluated or finished else first_subnets(prices, budget_sets, wish.seed)
    grounds = [
        Ground(one.target, one.workload, folder, one.source, one.error, one.quantity.words)
        for one, folder in prices.grounds
    ]
    return SearchPlan(
        space=space.name,
        subnets=space.size(),
        budget_sets=tuple(budget_sets),
        chosen=chosen,
        objectives=objectives,
        searcher=wish.searcher,
        evaluations=wish.evaluations,
        at_once=wish.batch,
        remeasure=wish.remeasure,
        grounds=tuple(grounds),
        fits=tuple(dict.fromkeys(one.id for one in fits)),
        evaluated=evaluated,
        finished=finished,
        folder=course.folder,
    )


# -- export ------------------------------------------------------------------------------------------------------------


class ExportPlan(NamedTuple):
    """What an export would write.

    Attributes:
        what: the subnet's id, or the model that was brought.
        precision: of the file; `auto` measures those the device can run.
        predicted_s: by the device's predictor, without having seen the subnet; None where there is none.
        replaced: what the bundle that stands in `folder` was made of; None where nothing stands there.
    """

    what: str
    architecture: Architecture | None
    precision: str
    format: FileFormat
    target: str
    workload: Workload | None
    parameters: int | None
    predicted_s: float | None
    folder: Path
    replaced: str | None


def plan_export(
    project: Project,
    run: Run,
    architecture: Architecture,
    target: Target,
    workload: Workload,
    wanted: Wanted,
    *,
    out: Path | None = None,
) -> ExportPlan:
    """What exporting a subnet would do; nothing is built, and the device is not asked anything.

    Raises:
        UsageError: the workload does not fit the run, or `out` holds something that is no bundle.
    """
    check_workload(run.info.space, workload)
    subject = SubnetOfRun(project, run, architecture, target, workload)
    folder = out or project.bundle_folder(run.folder, architecture)
    return ExportPlan(
        what=architecture.id,
        architecture=architecture,
        precision=wanted.precision or subject.own_precision,
        format=wanted.format,
        target=target.id,
        workload=workload,
        parameters=run.declared.parameters(run.info.space, run.declared.without_bits(architecture)),
        predicted_s=subject.predicted_s,
        folder=folder,
        replaced=bundle_in(folder),
    )


def plan_brought(
    project: Project, given: Path, target: Target, wanted: Wanted, *, out: Path | None = None
) -> ExportPlan:
    """What exporting a model that was brought would do; the model is not read.

    Raises:
        UsageError: there is none, or `out` holds something that is no bundle.
    """
    if not given.exists():
        raise UsageError(f"there is no {given}", hint="check the path")
    name = given.stem if given.is_file() and given.stem != "model" else ""
    name = name or (given if given.is_dir() else given.parent).resolve().name
    folder = out or project.bundles / name
    return ExportPlan(
        what=str(given),
        architecture=None,
        precision=wanted.precision or "fp32",
        format=wanted.format,
        target=target.id,
        workload=None,
        parameters=None,
        predicted_s=None,
        folder=folder,
        replaced=bundle_in(folder),
    )
