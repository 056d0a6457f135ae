"""predict: a latency table becomes a predictor, and a predictor answers for architectures nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain import predict as prediction
from toolchain import profiling
from toolchain.errors import DeviceError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline.project import Project
from toolchain.records import Cost, PredictorInfo, Source, TableInfo, Timed, Workload, read_record, write_record
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.targets import find_targets, read_target

PREDICTOR_FILE = "predictor.json"


class Prediction(NamedTuple):
    """What one pass of a subnet is expected to take; 9 in 10 subnets lie between low_s and high_s."""

    architecture: Architecture
    latency_s: float
    low_s: float
    high_s: float


def fit_table(folder: Path) -> PredictorInfo:
    """Fit the predictor of a latency table on all its latencies, and keep it beside the table.

    Raises:
        UsageError: too few latencies.
        IntegrityError: the table is damaged.
    """
    info, rows = profiling.read_table(folder)
    family = declaration(info.space.family)
    timed = [(row.architecture, row.outcome) for row in rows if isinstance(row.outcome, Timed)]
    anchor = profiling.anchor_s(outcome for _, outcome in timed)
    fitted = prediction.fit_predictor(
        [
            prediction.Row(
                architecture.id,
                family.features(info.space, architecture, info.workload),
                profiling.latency(outcome, anchor).median_s,
            )
            for architecture, outcome in timed
        ],
        target=info.target,
        workload=info.workload,
        space=info.space,
        table_sha256=sha256_file(folder / profiling.JOURNAL),
        environment=info.environment,
    )
    write_record(folder / PREDICTOR_FILE, fitted)
    return fitted


def read_predictor(folder: Path) -> PredictorInfo:
    """The predictor of a table; fitted anew where the table has changed, or the family counts other features, since."""
    path = folder / PREDICTOR_FILE
    if path.is_file() and (folder / profiling.JOURNAL).is_file():
        fitted, table = read_record(path, PredictorInfo), read_record(folder / profiling.TABLE, TableInfo)
        same = (fitted.environment, fitted.space, fitted.workload) == (table.environment, table.space, table.workload)
        family = declaration(fitted.space.family)
        features = tuple(family.features(fitted.space, fitted.space.smallest(), fitted.workload))
        known = (fitted.table_sha256, fitted.features) == (sha256_file(folder / profiling.JOURNAL), features)
        if same and known:
            return fitted
    return fit_table(folder)


def find_predictor(
    project: Project,
    space: SearchSpace,
    device: str | None,
    workload: Workload | None = None,
    *,
    needed: bool = True,
) -> tuple[PredictorInfo, str] | None:
    """The predictor of the space's table (of the one profiled last, unless told), and its file's sha256; or None.

    Raises:
        UsageError: nobody knows the device; or the table is too small, where a predictor is `needed`.
        DeviceError: the table was measured with other settings than the target has now.
    """
    folder = project.find_table(device, space, workload)
    if folder is None:
        if device is not None:
            read_target(device, project.root)
        return None
    try:
        fitted = read_predictor(folder)
    except UsageError:
        if needed:
            raise
        return None
    _check_settings(project, read_record(folder / profiling.TABLE, TableInfo), folder)
    return fitted, sha256_file(folder / PREDICTOR_FILE)


def _check_settings(project: Project, info: TableInfo, folder: Path) -> None:
    """A table tells of the threads and options it was measured with, and of no others."""
    if info.target not in find_targets(project.root):
        return
    runtime = read_target(info.target, project.root).runtime
    changed = [
        f"{name} {getattr(info, name)} -> {getattr(runtime, name)}"
        for name in ("threads", "options", "provider_options", "cores")
        if getattr(info, name) != getattr(runtime, name)
    ]
    if changed:
        raise DeviceError(
            f"{folder} was measured with other settings than {info.target} has now",
            why=", ".join(changed),
            hint="give the changed device a name of its own, or start a new table: mostool profile --fresh",
        )


def predict(info: PredictorInfo, architectures: Sequence[Architecture]) -> list[Prediction]:
    """Latency of each architecture with its interval.

    Raises:
        UsageError: an architecture is not of the predictor's space.
    """
    if not architectures:
        raise UsageError("there is no architecture to predict", hint="give --arch, or --n to sample some")
    for architecture in architectures:
        info.space.check(architecture)
    seconds = _seconds(info, architectures)
    return [
        Prediction(one, value, value * max(0.0, 1 - info.interval), value * (1 + info.interval))
        for one, value in zip(architectures, seconds, strict=True)
    ]


def latency_costs(info: PredictorInfo, architectures: Sequence[Architecture]) -> list[Cost]:
    """Predicted latencies as costs: a budget is compared with the upper end of the interval.

    What is predicted from an emulated device's latencies keeps that word.
    """
    source: Source = "emulated" if info.environment.emulator else "predicted"
    return [
        Cost(value=value, upper=value * (1 + info.interval), source=source) for value in _seconds(info, architectures)
    ]


def _seconds(info: PredictorInfo, architectures: Sequence[Architecture]) -> list[float]:
    if not architectures:
        return []
    family = declaration(info.space.family)
    features = [family.features(info.space, one, info.workload) for one in architectures]
    return [float(value) for value in prediction.predict_s(info, features)]
