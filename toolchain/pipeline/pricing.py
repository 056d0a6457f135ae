"""What a run's subnets cost: counted, predicted from the devices' tables, or measured there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain import profiling
from toolchain import search as searching
from toolchain.arrays import AxisArrays, Floats, count, present_layers, to_arrays
from toolchain.errors import MostoolError, UsageError
from toolchain.files import sha256_file
from toolchain.pipeline.latencies import value_of
from toolchain.pipeline.predict import (
    costs_of_arrays,
    find_predictor,
    predict,
    predictor_file,
    read_predictor,
    source_of,
)
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.records import (
    NEVER,
    Cost,
    Failed,
    PredictorInfo,
    Quantity,
    SearchDevice,
    Source,
    Timed,
    Workload,
    cost_key,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

_VARYING_BYTES = 16
"""By how much one layer's entry takes more than another's: lengths and shapes are numbers of one to three bytes."""


class Asked(NamedTuple):
    """A cost that a device is asked for: its quantity on `target` (None: the device that was profiled last)."""

    target: str | None
    quantity: Quantity


class _Priced(NamedTuple):
    """One cost of a device: its predictor, and where its table lies.

    `widened`: it is a table of the space with bits, and what is searched has none: it is seen as all fp32.
    """

    key: str
    predictor: PredictorInfo
    sha256: str
    folder: Path
    widened: bool


class Prices:
    """What architectures of `space` cost. `read_anew` after something was measured.

    Attributes:
        devices: whose predictors are used, each once, in the order they were asked for.
    """

    def __init__(
        self, project: Project, run: Run, space: SearchSpace, asked: Sequence[Asked], workload: Workload | None
    ) -> None:
        """
        Raises:
            UsageError: a device has no table of the run's space, or too few rows with the quantity.
            DeviceError: a table was measured with other settings than its device has now.
        """
        self._run, self.space = run, space
        self._priced = [price_on(project, run, space, one, workload) for one in dict.fromkeys(asked)]
        self._overhead = _file_overhead_bytes(run, space)
        self._measured: dict[str, dict[str, Cost]] = {}
        self._read_measured()

    @property
    def devices(self) -> tuple[SearchDevice, ...]:
        found = {
            one.predictor.target: SearchDevice(
                target=one.predictor.target,
                workload=one.predictor.workload,
                predictor_sha256=one.sha256,
                source=one.predictor.source,
            )
            for one in self._priced[::-1]
        }
        return tuple(found[name] for name in dict.fromkeys(one.predictor.target for one in self._priced))

    @property
    def predictors(self) -> list[PredictorInfo]:
        return [one.predictor for one in self._priced]

    @property
    def grounds(self) -> list[tuple[PredictorInfo, Path]]:
        """Each predictor with the table it was fitted to."""
        return [(one.predictor, one.folder) for one in self._priced]

    @property
    def folders(self) -> list[Path]:
        """The devices' tables, each once."""
        return list(dict.fromkeys(one.folder for one in self._priced))

    def extrapolated(self, architecture: Architecture) -> list[str]:
        """The devices for which an architecture is far from all that was measured, and was not measured itself."""
        return [
            one.predictor.target
            for one in self._priced
            if self._row(one, architecture).id not in self._measured[one.key]
            and predict(one.predictor, [self._row(one, architecture)])[0].extrapolated
        ]

    def mixed_on(self, target: str) -> bool:
        """Whether a device's table is of the space with bits, so that what is measured goes into such."""
        widened = any(one.widened for one in self._priced if one.predictor.target == target)
        return widened or self.space.axes != self._run.info.space.axes

    def _row(self, one: _Priced, architecture: Architecture) -> Architecture:
        """How a table calls an architecture."""
        return self._run.declared.at_bits(architecture, 32) if one.widened else architecture

    def price(self, arrays: AxisArrays) -> searching.Priced:
        """Of many at once, by the predictors alone."""
        counts = declaration(self.space.family).counts(self.space, arrays)
        size = counts["weight_bytes"] + self._overhead * _layers(self.space, arrays)
        values: dict[str, Floats] = {"parameters": counts["parameters"], "size_bytes": size}
        uppers = dict(values)
        for one in self._priced:
            seen = _widened(one.predictor.space, arrays) if one.widened else arrays
            values[one.key], uppers[one.key] = costs_of_arrays(one.predictor, seen)
        return searching.Priced(values, uppers)

    def costs(self, architectures: Sequence[Architecture]) -> list[dict[str, Cost]]:
        """Of each: what was measured where it was, else what is predicted; devices' costs first."""
        if not architectures:
            return []
        priced = self.price(to_arrays(self.space, architectures))
        sources: dict[str, Source] = {one.key: source_of(one.predictor) for one in self._priced}
        sources |= {"size_bytes": "predicted", "parameters": "counted"}
        found = []
        for at, architecture in enumerate(architectures):
            costs = {
                key: Cost(value=float(priced.values[key][at]), upper=float(priced.uppers[key][at]), source=source)
                for key, source in sources.items()
            }
            for one in self._priced:
                row = self._row(one, architecture).id
                costs[one.key] = self._measured[one.key].get(row, costs[one.key])
            found.append(costs)
        return found

    def read_anew(self) -> None:
        """Take in what the tables hold now."""
        self._priced = [_anew(one) for one in self._priced]
        self._read_measured()

    def known(self) -> list[Architecture]:
        """The architectures of this space that some device's table holds."""
        found: dict[str, Architecture] = {}
        for one in self._priced:
            if not (one.folder / profiling.TABLE).is_file():
                continue
            for row in profiling.read_table(one.folder)[1]:
                plain = self._run.declared.without_bits(row.architecture) if one.widened else row.architecture
                with contextlib.suppress(MostoolError):  # of the whole space, of which this one is a part
                    self.space.check(plain)
                    if self._row(one, plain).id == row.architecture.id:
                        found[plain.id] = plain
        return list(found.values())

    def _read_measured(self) -> None:
        self._measured = {one.key: _measured_costs(one) for one in self._priced}


def _anew(one: _Priced) -> _Priced:
    """With the predictor of what the table holds now; with the one before where too few rows of it tell by now."""
    try:
        predictor = read_predictor(one.folder, one.predictor.quantity)
    except UsageError:
        return one
    return one._replace(predictor=predictor, sha256=sha256_file(predictor_file(one.folder, predictor.quantity)))


def price_on(project: Project, run: Run, space: SearchSpace, asked: Asked, workload: Workload | None) -> _Priced:
    """The predictor of a device's table: of the space that is searched, or of the whole it is a part of."""
    bits = space.axes != run.info.space.axes
    for whole in [run.bits_space] if bits else _wholes(run):
        found = find_predictor(project, whole, asked.target, workload, asked.quantity)
        folder = project.find_table(asked.target, whole, workload)
        if found is not None and folder is not None:
            predictor, sha256 = found
            key = cost_key(asked.quantity.metric, predictor.target, asked.quantity.percentile)
            return _Priced(key, predictor, sha256, folder, widened=not bits and whole is not run.info.space)
    mixed = " --precision mixed" if bits else ""
    on = f"{asked.target or 'any device'}{f', {workload.slug}' if workload else ''}"
    raise UsageError(
        f"there is no latency table of this run's space{' with int8 weights' if bits else ''} on {on}",
        hint=f"measure some subnets first: mostool profile --device {asked.target or 'cpu'}{mixed}",
    )


def _wholes(run: Run) -> list[SearchSpace]:
    """The run's space first: a table of its own tells more of it."""
    return [run.info.space, run.bits_space] if run.mixes else [run.info.space]


def _widened(space: SearchSpace, arrays: AxisArrays) -> AxisArrays:
    """All-fp32 architectures as points of the space with bits."""
    wide = dict(arrays)
    for axis in space.axes:
        if axis.name not in wide:
            if axis.per is None:
                wide[axis.name] = np.full(count(arrays), 32.0)
            else:
                present = present_layers(arrays[axis.per], space.axis(axis.per).choices[-1])
                wide[axis.name] = np.where(present, 32.0, 0.0)
    return wide


def _measured_costs(priced: _Priced) -> dict[str, Cost]:
    """What the device's table holds, by architecture id; what could not run there can keep no budget."""
    if not (priced.folder / profiling.TABLE).is_file():
        return {}
    info, rows = profiling.read_table(priced.folder)
    timed = [row.outcome for row in rows if isinstance(row.outcome, Timed)]
    anchor = profiling.anchor_s(timed) if timed else 0.0
    costs: dict[str, Cost] = {}
    for row in rows:
        if isinstance(row.outcome, Failed):
            never = Cost(value=NEVER, upper=NEVER, source=info.environment.source)
            costs[row.architecture.id] = never
            continue
        latency = profiling.latency(row.outcome, anchor)
        value = value_of(priced.predictor.quantity, latency, row.outcome)
        if value is not None:
            doubt = latency.half_width_s if priced.predictor.quantity == Quantity() else 0.0
            costs[row.architecture.id] = Cost(value=value, upper=value + doubt, source=info.environment.source)
    return costs


def _layers(space: SearchSpace, arrays: AxisArrays) -> Floats:
    """How many entries the axes with a value for each layer have together: [n]."""
    entries = [(arrays[axis.name] > 0).sum(axis=1) for axis in space.axes if axis.per is not None]
    return np.maximum(1.0, np.sum(entries, axis=0)) if entries else np.ones(len(next(iter(arrays.values()))))


def _file_overhead_bytes(run: Run, space: SearchSpace) -> float:
    """What a model file holds beside its weights, for each entry of a layer: the most seen, on the extremes."""
    extremes = [space.smallest(), space.largest()]
    arrays = to_arrays(space, extremes)
    weights = declaration(space.family).counts(space, arrays)["weight_bytes"]
    entries = _layers(space, arrays)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = [run.build(one, Path(scratch) / "model.onnx").artifact.size_bytes for one in extremes]
    return float(max(0.0, *((np.array(sizes) - weights) / entries))) + _VARYING_BYTES
