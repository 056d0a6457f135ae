"""predict: a table becomes a predictor, and a predictor answers for architectures nobody measured.

Of each quantity that a table's rows hold (latency at a percentile, peak memory, energy) there is a predictor of its
own, of the same features and made in the same way: see predict/README.md for what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import predict as prediction
from toolchain import profiling
from toolchain.arrays import AxisArrays, Floats, count, part, to_arrays
from toolchain.errors import DeviceError, MostoolError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline.latencies import Latencies, read_header, read_latencies, refuse_few
from toolchain.pipeline.project import Project
from toolchain.records import (
    MEDIAN,
    Cost,
    PredictorInfo,
    Quantity,
    Source,
    TableInfo,
    Workload,
    cost_key,
    read_record,
    write_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.targets import find_targets, read_target

PREDICTOR_FILE = "predictor.json"
_AT_ONCE = 1 << 15
"""Architectures whose features are held in memory together."""


class Prediction(NamedTuple):
    """What one pass of a subnet is expected to take; 9 in 10 subnets lie between low_s and high_s.

    Where it is `extrapolated`, far from all that was measured, the interval is no promise.
    """

    architecture: Architecture
    latency_s: float
    low_s: float
    high_s: float
    extrapolated: bool


def predictor_file(folder: Path, quantity: Quantity = MEDIAN) -> Path:
    """Where a table's predictor of a quantity is kept: predictor.json, predictor-latency_s.p90.json."""
    return folder / (PREDICTOR_FILE if quantity == MEDIAN else f"predictor-{quantity.name}.json")


def fit_table(folder: Path, known: Path | None = None, quantity: Quantity = MEDIAN) -> PredictorInfo:
    """Fit the predictor of a table's quantity on all rows that have it, and keep it beside the table.

    With the folder of a `known` device's table it leans on that one, where that helps and its own rows are few.

    Raises:
        UsageError: too few rows have it, and how it can be had; or the known device's table is of another space.
        IntegrityError: the table is damaged.
    """
    table = read_latencies(folder, quantity)
    refuse_few(table, prediction.MINIMUM_ROWS if known is None else prediction.MINIMUM_ROWS_TRANSFERRED)
    rows, about = as_rows(table), _about(table)
    if known is None:
        fitted = prediction.fit_predictor(rows, about)
    else:
        fitted = prediction.fit_with(rows, about, _known(known, table))
    write_record(predictor_file(folder, quantity), fitted)
    return fitted


def fit_kind(folder: Path, kind: str, quantity: Quantity = MEDIAN) -> PredictorInfo:
    """A predictor of one kind of model, whether or not it is the best; it is not kept.

    Raises:
        UsageError: too few rows.
    """
    table = read_latencies(folder, quantity)
    refuse_few(table, prediction.MINIMUM_ROWS)
    fitter = {**prediction.KINDS, "blocks": prediction.fit_blocks}[kind]
    return prediction.fit_predictor(as_rows(table), _about(table), {kind: fitter})


def _about(table: Latencies) -> prediction.About:
    return prediction.About(
        target=table.target,
        workload=table.workload,
        space=table.space,
        table_sha256=table.sha256,
        source=table.source,
        environment=table.environment,
        quantity=table.quantity,
    )


def as_rows(table: Latencies) -> prediction.Rows:
    return prediction.Rows.of(table.ids, table.features, table.values, table.quantity.name)


def _known(folder: Path, table: Latencies) -> prediction.Known:
    known = read_latencies(folder, table.quantity)
    refuse_few(known, prediction.MINIMUM_ROWS)
    if known.space != table.space:
        raise UsageError(
            f"the table of {known.target} is of another space: {known.space.name}, not {table.space.name}",
            hint="transfer takes the same space measured on another device",
        )
    if known.folder.resolve() == table.folder.resolve():
        raise UsageError(f"{known.target} cannot lean on itself", hint="--transfer takes another device")
    # Work is counted as the new table's workload has it: what is carried over is how networks compare.
    features = declaration(known.space.family).features(known.space, known.arrays, table.workload)
    rows = prediction.Rows.of(known.ids, features, known.values, known.quantity.name)
    inspection = prediction.inspect(rows)
    if len(rows.ids) < prediction.MINIMUM_ROWS:
        raise UsageError(
            f"{known.target} has {len(rows.ids)} latencies, too few to lean on",
            hint=f"measure more there: mostool profile --device {known.target}",
        )
    corrected = rows._replace(latency_s=rows.latency_s / inspection.factors)
    return prediction.Known(known.target, known.sha256, corrected.part(inspection.fitted))


def read_predictor(folder: Path, quantity: Quantity = MEDIAN) -> PredictorInfo:
    """The predictor of a table's quantity; fitted anew where the table, or one it leans on, has changed since.

    Raises:
        UsageError: too few rows have it.
        IntegrityError: the table is damaged.
    """
    fitted = _kept(folder, quantity)
    if fitted is None:
        return fit_table(folder, quantity=quantity)
    lean, project = fitted.transfer, Project(folder.parent.parent.parent)
    known = project.find_known(lean.target, fitted.space, fitted.workload) if lean else None
    if _is_of(fitted, folder) and (known is None or lean is None or read_header(known).sha256 == lean.table_sha256):
        return fitted
    try:
        return fit_table(folder, known, quantity)
    except UsageError:
        if known is None:
            raise
        return fit_table(folder, quantity=quantity)  # what it leaned on has become too small, or of another space


def _kept(folder: Path, quantity: Quantity) -> PredictorInfo | None:
    """The predictor beside a table; None where there is none that this mostool reads: the table is what counts."""
    try:
        kept = read_record(predictor_file(folder, quantity), PredictorInfo)
    except MostoolError:
        return None
    return kept if kept.quantity == quantity else None


def _is_of(fitted: PredictorInfo, folder: Path) -> bool:
    """Whether a predictor was fitted on this table as it is, with the features its family counts now."""
    header = read_header(folder)
    features = tuple(_features(fitted, to_arrays(fitted.space, [fitted.space.smallest()])))
    names = ("target", "environment", "space", "workload")
    same = all(getattr(fitted, name) == getattr(header, name) for name in names)
    return same and (fitted.table_sha256, fitted.features) == (header.sha256, features)


def check_settings(project: Project, folder: Path) -> None:
    """Refuse a measured table whose target has other settings now than it was measured with.

    Raises:
        DeviceError: it has.
    """
    if (folder / profiling.TABLE).is_file():
        _check_settings(project, read_record(folder / profiling.TABLE, TableInfo), folder)


def find_predictor(
    project: Project,
    space: SearchSpace,
    device: str | None,
    workload: Workload | None = None,
    quantity: Quantity = MEDIAN,
    *,
    needed: bool = True,
) -> tuple[PredictorInfo, str] | None:
    """The predictor of a quantity, from the space's table (the one profiled last, unless told), and its file's sha256.

    None where there is no table.

    Raises:
        UsageError: nobody knows the device; or too few rows have the quantity, where a predictor is `needed`.
        DeviceError: the table was measured with other settings than the target has now.
    """
    folder = project.find_table(device, space, workload)
    if folder is None:
        if device is not None:
            read_target(device, project.root)
        return None
    try:
        fitted = predictor_of(project, folder, quantity)
    except UsageError:
        if needed:
            raise
        return None
    return fitted, sha256_file(predictor_file(folder, quantity))


def predictor_of(project: Project, folder: Path, quantity: Quantity = MEDIAN) -> PredictorInfo:
    """The predictor of a table of the project, whose target must still have the settings it was measured with.

    Raises:
        UsageError: too few rows have the quantity.
        DeviceError: the table was measured with other settings than the target has now.
    """
    fitted = read_predictor(folder, quantity)
    check_settings(project, folder)
    return fitted


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


def explain(info: PredictorInfo, architectures: Sequence[Architecture]) -> dict[str, Floats]:
    """Seconds [n] that each block takes, by a predictor of the kind `blocks`."""
    features = _features(info, to_arrays(info.space, architectures))
    return prediction.explain(info, features, declaration(info.space.family).BLOCKS)


def predict(info: PredictorInfo, architectures: Sequence[Architecture]) -> list[Prediction]:
    """Latency of each architecture with its interval.

    Raises:
        UsageError: an architecture is not of the predictor's space.
    """
    if not architectures:
        raise UsageError("there is no architecture to predict", hint="give --arch, --file, or --n to sample some")
    for architecture in architectures:
        info.space.check(architecture)
    found = predict_arrays(info, to_arrays(info.space, architectures))
    return [
        Prediction(one, float(latency_s), float(low_s), float(high_s), bool(extrapolated))
        for one, latency_s, low_s, high_s, extrapolated in zip(architectures, *found, strict=True)
    ]


def predict_arrays(info: PredictorInfo, arrays: AxisArrays) -> prediction.Predicted:
    """Latencies (or what else it predicts) of many architectures, given as arrays: [n] each."""
    parts = [
        prediction.apply(info, _features(info, part(arrays, slice(start, start + _AT_ONCE))))
        for start in range(0, max(1, count(arrays)), _AT_ONCE)
    ]
    return prediction.Predicted(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def costs_of_arrays(info: PredictorInfo, arrays: AxisArrays) -> tuple[Floats, Floats]:
    """What many architectures, given as arrays, are expected to cost, and the upper ends of the intervals: [n] each.

    In the unit of the predictor's quantity; a budget is compared with the upper end.
    """
    found = predict_arrays(info, arrays)
    return found.latency_s, found.high_s


def key_of(info: PredictorInfo) -> str:
    """The name of the cost that it predicts: `latency_s.p90@rpi`."""
    return cost_key(info.quantity.metric, info.target, info.quantity.percentile)


def source_of(info: PredictorInfo) -> Source:
    """What a predicted cost is called: what is predicted from an emulated device's rows keeps that word."""
    return "emulated" if info.source == "emulated" else "predicted"


def latency_costs(info: PredictorInfo, architectures: Sequence[Architecture]) -> list[Cost]:
    """Predicted latencies (or what else it predicts) as costs: a budget is compared with the interval's upper end."""
    if not architectures:
        return []
    values, uppers = costs_of_arrays(info, to_arrays(info.space, architectures))
    source = source_of(info)
    return [
        Cost(value=float(value), upper=float(upper), source=source) for value, upper in zip(values, uppers, strict=True)
    ]


def _features(info: PredictorInfo, arrays: AxisArrays) -> dict[str, Floats]:
    return declaration(info.space.family).features(info.space, arrays, info.workload)
