"""Budgets, searches, and what ships."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from toolchain.records.measuring import (
    ENCODER_INPUTS,
    Artifact,
    Environment,
    FilePrecision,
    Latency,
    ModelFile,
    ModelInput,
    Workload,
)
from toolchain.records.storing import Record, Source, Stored
from toolchain.records.training import Data, ModelTask, Origin, Quality, Training
from toolchain.space import Architecture, SearchSpace

Metric = Literal["latency_s", "size_bytes", "parameters", "peak_memory_bytes", "energy_j"]
Percentile = Literal[50, 90, 99]

DEVICE_METRICS: tuple[Metric, ...] = ("latency_s", "peak_memory_bytes", "energy_j")
"""What only a device can tell; the others are counted."""


def cost_key(metric: Metric, target: str | None = None, percentile: Percentile = 50) -> str:
    """The name of a cost: `parameters`, `latency_s@rpi`, `latency_s.p90@rpi`."""
    name = metric if percentile == 50 else f"{metric}.p{percentile}"
    return f"{name}@{target}" if target is not None and metric in DEVICE_METRICS else name


def metric_of(key: str) -> str:
    """The metric that a cost's name tells of: `latency_s` of `latency_s.p90@rpi`."""
    return key.partition("@")[0].partition(".")[0]


class Budget(Record, frozen=True):
    """A limit a subnet must keep: bytes on disk, parameters, or what one pass of `workload` takes on `target`.

    A latency is held to its `percentile`: seconds at the median unless told otherwise.
    """

    metric: Metric
    limit: float
    target: str | None = None
    workload: Workload | None = None
    percentile: Percentile = 50

    @property
    def key(self) -> str:
        """The name of the cost it is compared with."""
        return cost_key(self.metric, self.target, self.percentile)


NEVER = 1e12
"""The cost of what a device could not do: so many seconds, bytes or joules nobody allows."""


class Cost(Record, frozen=True):
    """What a subnet costs in one metric; `upper` is what a budget is compared with."""

    value: float
    upper: float
    source: Source

    @property
    def known(self) -> bool:
        """Whether it is a figure, and not what stands for a failure on the device (`NEVER`)."""
        return abs(self.value) < NEVER


class Evaluation(Record, frozen=True):
    """One architecture as a search saw it; its costs by their names (`cost_key`).

    `stopped`: it was given up before all held-out items were seen, since another was better and cheaper; its quality is
    an estimate then. `batch` counts the searcher's proposals from 0.
    """

    architecture: Architecture
    quality: Quality
    costs: dict[str, Cost]
    feasible: bool
    stopped: bool = False
    batch: int = 0

    def cost_of(self, metric: str) -> Cost | None:
        """The cost of a metric: of several devices or percentiles the one that was asked for first."""
        return next((cost for key, cost in self.costs.items() if metric_of(key) == metric), None)


class SearchDevice(Record, frozen=True):
    """A device that was searched for: whose predictor, and of which work."""

    target: str
    workload: Workload
    predictor_sha256: str
    source: Source


class Pick(Record, frozen=True):
    """The best subnet that keeps one set of budgets: an index into the evaluations; None where none was found.

    `nearest` says in words by how much the nearest misses them.
    """

    budgets: tuple[Budget, ...]
    index: int | None
    nearest: str = ""


class TracePoint(Record, frozen=True):
    """How far a search was: evaluations spent, hypervolume of what they found, and the best quality."""

    evaluations: int
    hypervolume: float
    best: float


class SearchResult(Stored, frozen=True):
    """What a search found. `front` holds indices into `evaluations`: not dominated in quality and the `objectives`.

    `target` and `workload` are those of the first of the `devices`: the one that the winner is built for. `picks` has
    the best subnet of each set of budgets that was asked for; the winner is that of `budgets`, the loosest of them.
    """

    space: SearchSpace
    searcher: str
    seed: int
    budgets: tuple[Budget, ...]
    winner: Evaluation
    smallest: Evaluation
    largest: Evaluation
    evaluations: tuple[Evaluation, ...]
    front: tuple[int, ...]
    checkpoint_sha256: str
    target: str | None
    workload: Workload | None
    predictor_sha256: str | None
    created_at: dt.datetime
    objectives: tuple[str, ...] = ()
    devices: tuple[SearchDevice, ...] = ()
    picks: tuple[Pick, ...] = ()
    trace: tuple[TracePoint, ...] = ()


class BudgetOutcome(Record, frozen=True):
    """A budget beside what the shipped file really takes."""

    budget: Budget
    value: float
    source: Source
    met: bool


class Tried(Record, frozen=True):
    """A file that was measured beside the one that ships, and what it was worth on validation items."""

    precision: FilePrecision
    size_bytes: int
    latency: Latency | None
    quality: Quality | None
    why: str = ""
    """Why it is not the one, in words; empty for the one that ships."""


class Engine(Record, frozen=True):
    """What a built engine runs on: the engine and version that built it, and the GPUs it was built for."""

    builder: str
    builder_version: str
    compute_capability: str
    built_from_sha256: str
    """Of the portable ONNX file it was built from, which ships beside it."""


class AnyManifest(Stored, frozen=True):
    """What any bundle is, and the evidence for it.

    A model that mostool did not train has no training, checkpoint or data, and where nobody can tell no quality. An
    engine that was built where it cannot run has no latency.

    `pairs`: it reads two texts at a time. `alone`: it was trained as the one architecture of its run, not inside a
    supernet. `origin` and `teacher` are the run's: see CheckpointInfo. `tried` are the files that `--precision auto`
    chose from, `max_drop` the share of fp32's quality it might give up.
    """

    name: str
    task: ModelTask
    labels: tuple[str, ...]
    artifact: ModelFile
    target: str
    workload: Workload
    environment: Environment
    threads: int
    options: dict[str, str]
    maximum_length: int
    vocabulary_size: int
    predicted_s: float | None
    peak_memory_bytes: int | None
    trivial_quality: float | None
    budgets: tuple[BudgetOutcome, ...]
    parity_tolerance: float
    created_at: dt.datetime
    files: dict[str, str]
    versions: dict[str, str]
    latency: Latency | None = None
    quality: Quality | None = None
    data: Data | None = None
    training: Training | None = None
    checkpoint_sha256: str | None = None
    device_parity_max_abs_error: float | None = None
    provider_options: dict[str, str] = {}
    cores: tuple[int, ...] = ()
    thermal: str = "guard"
    pairs: bool = False
    alone: bool = False
    origin: Origin | None = None
    teacher: Origin | None = None
    inputs: tuple[ModelInput, ...] = ENCODER_INPUTS
    tried: tuple[Tried, ...] = ()
    max_drop: float | None = None
    engine: Engine | None = None
    licence: str = ""


class Manifest(AnyManifest, frozen=True):
    """That of a subnet of a run, measured as it ships."""

    artifact: Artifact
    latency: Latency
    quality: Quality
    data: Data
    training: Training
    checkpoint_sha256: str


class RunInfo(Stored, frozen=True):
    """What was asked of one command, kept in the folder it filled."""

    command: str
    arguments: dict[str, str]
    versions: dict[str, str]
    revision: str
    started_at: dt.datetime
    finished_at: dt.datetime
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
