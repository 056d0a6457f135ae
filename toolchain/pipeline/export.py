"""export: a subnet becomes a bundle, and the file that ships is measured on the device before it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolchain import profiling
from toolchain.pipeline.course import earlier_results
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.shipped import Exported, doubts_of_foresight
from toolchain.pipeline.shipping import Wanted, ship
from toolchain.pipeline.subjects import SubnetOfRun
from toolchain.pipeline.workloads import check_workload, usual_workload
from toolchain.progress import ProgressListener, silent
from toolchain.records import Budget, SearchResult, Workload
from toolchain.space import Architecture
from toolchain.targets import Target

_AS_IT_IS = Wanted()


def export(
    project: Project,
    run: Run,
    architecture: Architecture,
    target: Target,
    workload: Workload,
    wanted: Wanted = _AS_IT_IS,
    *,
    out: Path | None = None,
    listener: ProgressListener = silent,
) -> Exported:
    """Materialize a subnet, export it, prove the file equal to it, measure the file, and write the bundle.

    Raises:
        UsageError: the workload does not fit the run, or there is no file of the precision asked for.
        ParityError: the file and the module disagree; nothing is written.
        DeviceError: the device is not the one its table was measured on, or the file does not run there.
        UnstableError: with `wanted.strict`, the measurement did not settle; nothing is written.
    """
    check_workload(run.info.space, workload)
    folder = out or project.bundle_folder(run.folder, architecture)
    run.remember([architecture])
    subject = SubnetOfRun(project, run, architecture, target, workload)
    foreseen = subject.foreseen  # before anything is measured here
    exported = ship(project.root, subject, target, workload, folder, wanted, listener)
    doubts = doubts_of_foresight(exported.manifest, foreseen)
    return exported._replace(foreseen=foreseen, warnings=[*exported.warnings, *doubts])


def budgets_of(run: Run, architecture: Architecture) -> tuple[Budget, ...]:
    """The budgets under which a search of this run picked an architecture: the last search that did; none: no search.

    Of a sweep the winner keeps the loosest set, as the search does, another pick the tightest it was picked under.
    """
    for result in _results(run):
        if result.winner.architecture == architecture:
            return result.budgets
        picked = [
            pick.budgets
            for pick in result.picks
            if pick.index is not None and result.evaluations[pick.index].architecture == architecture
        ]
        if picked:
            return picked[-1]
    return ()


def _results(run: Run) -> Iterator[SearchResult]:
    """Of the searches of this run as it is trained now: the last first."""
    last = run.find_result()
    if last is not None:
        yield last
    earlier = [one for one in earlier_results(run.search_folder) if one.checkpoint_sha256 == run.checkpoint_sha256]
    yield from sorted(earlier, key=lambda one: one.created_at, reverse=True)


def usual_device(project: Project, run: Run, architecture: Architecture | None = None) -> tuple[str, Workload]:
    """The device and the work a subnet is built for unless told: of the last search, else profiled last, else cpu.

    Profiled last is in a table of the architecture's space, with bits or without, where there is one.
    """
    result = run.find_result()
    if result is not None and result.target is not None and result.workload is not None:
        return result.target, result.workload
    own = run.info.space if architecture is None else run.space_of(architecture)
    folder = project.find_table(None, own) or project.find_table(None, run.info.space)
    if folder is not None:
        info, _ = profiling.read_table(folder)
        return info.target, info.workload
    return "cpu", usual_workload(run.info.space)
