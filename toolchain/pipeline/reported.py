"""What a report is told of the devices' tables: their rows in brief, their predictors, and one measurement whole."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from toolchain import predict as prediction
from toolchain import profiling, tables
from toolchain import report as reporting
from toolchain.arrays import to_arrays
from toolchain.errors import MostoolError
from toolchain.pipeline.breakdown import additive, break_down
from toolchain.pipeline.latencies import read_header
from toolchain.pipeline.predict import latency_costs, predictor_of
from toolchain.pipeline.project import Project
from toolchain.pipeline.run_records import RunRecords
from toolchain.records import Cost, Measurement, PredictorInfo, SearchResult, TableInfo, Timed, Workload
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

FEWEST_IN_COMMON = 5


class Told(NamedTuple):
    """What there is to tell, and what could not be read, a sentence each."""

    tables: list[reporting.DeviceTable]
    agreements: list[reporting.Agreement]
    samples: reporting.Samples | None
    remarks: list[str]


def tell_tables(project: Project, run: RunRecords, result: SearchResult | None) -> Told:
    """All that the project's tables say of the run's space, the searched device's first.

    A table that is damaged, or whose target has changed, is a remark: the report is of the others.
    """
    told = Told([], [], None, [])
    subnets = _subnets(run, result)
    for folder in _folders(project, run, result, told.remarks):
        try:
            table, samples = _tell(project, folder, subnets, told.remarks)
        except MostoolError as error:
            told.remarks.append(f"The table {_short(project, folder)} is left out: {error}.")
            continue
        told.tables.append(table)
        if told.samples is None:
            told = told._replace(samples=samples)
    return told._replace(agreements=list(_agreements(told.tables)))


def _short(project: Project, folder: Path) -> str:
    """A folder as it is called within the project: a report names no machine's own folders."""
    return str(folder.relative_to(project.root))


def _subnets(run: RunRecords, result: SearchResult | None) -> dict[str, Architecture]:
    """The subnets that are broken down, by their roles: without a search there is no winner."""
    if result is None:
        return {"largest": run.info.space.largest(), "smallest": run.info.space.smallest()}
    return {
        "winner": result.winner.architecture,
        "largest": result.largest.architecture,
        "smallest": result.smallest.architecture,
    }


def _folders(project: Project, run: RunRecords, result: SearchResult | None, remarks: list[str]) -> list[Path]:
    """One table for each device that has any of this run: of the search's work where there is one, else the newest."""
    spaces = _spaces(run, result)
    first = result.target if result and result.target else _profiled_last(project, spaces)
    names = {path.name for path in (project.root / "profiles").glob("[!.]*") if path.is_dir()}
    found: list[Path] = []
    for name in sorted(names, key=lambda name: (name != first, name)):
        works = [_work(result, name), None] if _work(result, name) else [None]
        for space, workload in itertools.product(spaces, works):
            try:
                folder = project.find_table(name, space, workload)
            except MostoolError as error:
                sentence = f"A table of {name} is left out: {error}."
                if sentence not in remarks:
                    remarks.append(sentence)
                continue
            if folder is not None:
                found.append(folder)
                break
    return found


def _profiled_last(project: Project, spaces: Sequence[SearchSpace]) -> str | None:
    """The device of the table that was asked for last."""
    for space in spaces:
        with contextlib.suppress(MostoolError):  # it is read again, and told of, below
            folder = project.find_table(None, space)
            if folder is not None:
                return read_header(folder).target
    return None


def _work(result: SearchResult | None, device: str) -> Workload | None:
    """What was searched for on a device; of another, what was on the first."""
    if result is None:
        return None
    return next((one.workload for one in result.devices if one.target == device), result.workload)


def _spaces(run: RunRecords, result: SearchResult | None) -> list[SearchSpace]:
    """The run's space, with and without bits where it may have them, the searched one first."""
    spaces = [run.info.space, run.bits_space] if run.mixes else [run.info.space]
    if result is not None and result.space in spaces:
        spaces.sort(key=lambda space: space != result.space)
    return spaces


def _tell(
    project: Project, folder: Path, subnets: Mapping[str, Architecture], remarks: list[str]
) -> tuple[reporting.DeviceTable, reporting.Samples | None]:
    if (folder / tables.HEADER).is_file():
        return _tell_imported(project, folder, subnets, remarks), None
    info, measurements = profiling.read_table(folder)
    timed = [row.outcome for row in measurements if isinstance(row.outcome, Timed)]
    anchor_s = profiling.anchor_s(timed) if timed else 0.0
    rows = [_row(one, anchor_s) for one in measurements]
    known = [
        (row.architecture, told.median_s)
        for row, told in zip(measurements, rows, strict=True)
        if told.median_s is not None
    ]
    sha256 = read_header(folder).sha256
    table = reporting.DeviceTable(info.target, info.workload, info.environment.source, info, rows, sha256)
    table = _with_predictor(project, folder, table, subnets, remarks)
    table = _with_breakdowns(table, info, known, subnets)
    return table, _samples(table, measurements, anchor_s, subnets.get("winner"))


def _row(measurement: Measurement, anchor_s: float) -> reporting.Row:
    subnet, at, outcome = measurement.architecture.id, measurement.started_at, measurement.outcome
    if not isinstance(outcome, Timed):
        return reporting.Row(subnet, None, failure=f"{outcome.stage}: {outcome.error}", started_at=at)
    found = profiling.medians(outcome, anchor_s)
    return reporting.Row(subnet, found.median_s, found.raw_median_s, found.n, found.status, "", at, outcome.conditions)


def _tell_imported(
    project: Project, folder: Path, subnets: Mapping[str, Architecture], remarks: list[str]
) -> reporting.DeviceTable:
    info, read = tables.read_imported(folder)
    rows = [reporting.Row(tables.row_id(info.space, row), row.latency_s) for row in read]
    table = reporting.DeviceTable(info.target, info.workload, "imported", None, rows, read_header(folder).sha256)
    return _with_predictor(project, folder, table, subnets, remarks)


def _with_predictor(
    project: Project,
    folder: Path,
    table: reporting.DeviceTable,
    subnets: Mapping[str, Architecture],
    remarks: list[str],
) -> reporting.DeviceTable:
    """The table with its predictor, where it has one, and with what that says of the winner."""
    if sum(row.median_s is not None for row in table.rows) < prediction.MINIMUM_ROWS_TRANSFERRED:
        return table
    try:
        fitted = predictor_of(project, folder)
    except MostoolError as error:
        remarks.append(f"There is no predictor of {table.target}: {error}.")
        return table
    return table._replace(predictor=fitted, winner=_winner(fitted, subnets.get("winner")))


def _winner(fitted: PredictorInfo, winner: Architecture | None) -> Cost | None:
    if winner is None or not _is_of(fitted.space, winner):
        return None
    return latency_costs(fitted, [winner])[0]


def _is_of(space: SearchSpace, architecture: Architecture) -> bool:
    try:
        space.check(architecture)
    except MostoolError:
        return False
    return True


def _with_breakdowns(
    table: reporting.DeviceTable,
    info: TableInfo,
    known: Sequence[tuple[Architecture, float]],
    subnets: Mapping[str, Architecture],
) -> reporting.DeviceTable:
    """The table with what the blocks of these subnets take, where an additive model can be fitted on its rows."""
    if len(known) < prediction.MINIMUM_ROWS:
        return table
    arrays = to_arrays(info.space, [architecture for architecture, _ in known])
    features = declaration(info.space.family).features(info.space, arrays, info.workload)
    ids = tuple(architecture.id for architecture, _ in known)
    rows = prediction.Rows.of(ids, features, np.array([seconds for _, seconds in known]))
    about = prediction.About(info.target, info.workload, info.space, table.sha256, table.source, info.environment)
    try:
        fitted = additive(rows, about)
    except MostoolError:
        return table  # all alike: the predictor has said so
    wanted = {role: one for role, one in subnets.items() if _is_of(info.space, one)}
    return table._replace(breakdowns=break_down(fitted, wanted), additive_error=fitted.error)


def _samples(
    table: reporting.DeviceTable, measurements: Sequence[Measurement], anchor_s: float, winner: Architecture | None
) -> reporting.Samples | None:
    """The measurement of the winner, or of the subnet whose latency is nearest to what is predicted of it."""
    timed = {row.architecture.id: row for row in measurements if isinstance(row.outcome, Timed)}
    medians = {row.subnet: row.median_s for row in table.rows if row.median_s is not None}
    if winner is None or not timed:
        return None
    role, subnet = "winner", winner.id
    if subnet not in timed:
        if table.winner is None:
            return None
        aim = table.winner.value
        role, subnet = "nearest", min(medians, key=lambda name: abs(medians[name] - aim))
    row = timed[subnet]
    outcome = row.outcome
    assert isinstance(outcome, Timed)  # noqa: S101 - chosen from those
    latency = profiling.latency(outcome, anchor_s)
    scale = latency.median_s / latency.raw_median_s
    return reporting.Samples(
        role=role,
        subnet=subnet,
        target=table.target,
        source=table.source,
        latency=latency,
        walls_s=[float(scale * wall) for wall in profiling.undisturbed_s(outcome)],
        raw_s=[min(turn.wall_s) for turn in outcome.rounds],
        paired_s=[float(anchor_s * ratio) for ratio in profiling.ratios(outcome)],
        conditions=outcome.conditions,
        started_at=row.started_at,
    )


def _agreements(told: Sequence[reporting.DeviceTable]) -> Iterator[reporting.Agreement]:
    """How alike each two devices rank what both have measured, where that is enough and not all the same."""
    medians = [{row.subnet: row.median_s for row in one.rows if row.median_s is not None} for one in told]
    for (first, one), (second, other) in itertools.combinations(zip(told, medians, strict=True), 2):
        common = sorted(one.keys() & other.keys())
        if len(common) < FEWEST_IN_COMMON:
            continue
        left, right = [one[name] for name in common], [other[name] for name in common]
        if len(set(left)) > 1 and len(set(right)) > 1:
            tau = float(kendalltau(left, right).statistic)
            yield reporting.Agreement(first.target, second.target, len(common), tau)
