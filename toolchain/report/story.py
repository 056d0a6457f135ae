"""What a report is told: the records of one run, some of which may not exist yet, and what its devices' tables hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from toolchain.records import (
    CheckpointInfo,
    Conditions,
    Cost,
    HeldOutError,
    Latency,
    Manifest,
    PredictorInfo,
    SearchResult,
    Source,
    TableInfo,
    TrainingPoint,
    Workload,
)


class Row(NamedTuple):
    """One subnet of a device's table, without its samples.

    Attributes:
        subnet: the id of its architecture.
        median_s: paired with the reference model; None where it failed.
        raw_median_s: as the clock said; None where nobody tells.
        status: what puts the figure in doubt.
        failure: why there is no latency.
    """

    subnet: str
    median_s: float | None
    raw_median_s: float | None = None
    n: int = 0
    status: tuple[str, ...] = ()
    failure: str = ""
    started_at: dt.datetime | None = None
    conditions: Conditions = Conditions()


class Block(NamedTuple):
    """A part of a network and the seconds it takes, by an additive model; `layer` counts from 1, 0 is no layer."""

    name: str
    layer: int
    seconds: float


class Breakdown(NamedTuple):
    """What each block of a subnet takes, as predicted: `role` is winner, largest or smallest."""

    role: str
    subnet: str
    blocks: Sequence[Block]


class DeviceTable(NamedTuple):
    """What a device's table says of this run's space.

    Attributes:
        source: of its latencies: measured, emulated, imported.
        info: its header; None of an imported table.
        rows: in the order they were measured.
        sha256: of the file that holds them; empty where nobody tells.
        predictor: fitted on it; None where the rows are too few.
        winner: what its predictor says of the search's winner; None where it cannot tell.
        breakdowns: of the winner and of what it is compared with, by an additive model of the same rows.
        additive_error: of that model, on rows it has not seen.
    """

    target: str
    workload: Workload
    source: Source
    info: TableInfo | None
    rows: Sequence[Row]
    sha256: str = ""
    predictor: PredictorInfo | None = None
    winner: Cost | None = None
    breakdowns: Sequence[Breakdown] = ()
    additive_error: HeldOutError | None = None


class Agreement(NamedTuple):
    """How alike two devices rank the subnets that both have measured: Kendall's tau, 1 is the same order."""

    first: str
    second: str
    common: int
    kendall_tau: float


class Samples(NamedTuple):
    """The samples of one measurement, whole.

    Attributes:
        role: what the subnet is here: winner; or nearest, the measured subnet whose latency is nearest to the winner's.
        walls_s: the undisturbed calls, on the scale of `latency`, in the order they were made.
        raw_s: the fastest call of each round, as the clock said.
        paired_s: the same on the scale of `latency`, by the reference model's time around it.
    """

    role: str
    subnet: str
    target: str
    source: Source
    latency: Latency
    walls_s: Sequence[float]
    raw_s: Sequence[float]
    paired_s: Sequence[float]
    conditions: Conditions = Conditions()
    started_at: dt.datetime | None = None


class Story(NamedTuple):
    """One run from training to the shipped file.

    Attributes:
        title: the page's name, as the reader will see it; free text.
        checkpoint: the trained supernet.
        curve: its training run, oldest look first; empty where it was not kept.
        predictor: the latency predictor the search used; None without a device.
        search: None before the search.
        manifest: the exported and measured winner; None before the export.
        versions: of the software that writes this report, by name.
        tables: of the devices that have one of this run's space, that of the search first.
        agreements: of each two of them that have enough subnets in common.
        samples: of the winner where it was measured, else of the measured subnet nearest to it; None without a table.
        remarks: what could not be read, a sentence each.
        run: what --run is given to mean this run; empty where that is its title.
    """

    title: str
    checkpoint: CheckpointInfo
    curve: Sequence[TrainingPoint] = ()
    predictor: PredictorInfo | None = None
    search: SearchResult | None = None
    manifest: Manifest | None = None
    versions: Mapping[str, str] = MappingProxyType({})
    tables: Sequence[DeviceTable] = ()
    agreements: Sequence[Agreement] = ()
    samples: Samples | None = None
    remarks: Sequence[str] = ()
    run: str = ""
