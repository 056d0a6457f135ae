"""Budgets, searches, and what ships."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from toolchain.records.measuring import Artifact, Environment, Latency, Workload
from toolchain.records.storing import Record, Source, Stored
from toolchain.records.training import Data, Origin, Quality, Task, Training
from toolchain.space import Architecture, SearchSpace


class Budget(Record, frozen=True):
    """A limit a subnet must keep: bytes on disk, parameters, or seconds at the median (`workload` on `target`)."""

    metric: Literal["latency_s", "size_bytes", "parameters"]
    limit: float
    target: str | None = None
    workload: Workload | None = None


class Cost(Record, frozen=True):
    """What a subnet costs in one metric; `upper` is what a budget is compared with."""

    value: float
    upper: float
    source: Source


class Evaluation(Record, frozen=True):
    """One architecture as a search saw it."""

    architecture: Architecture
    quality: Quality
    costs: dict[str, Cost]
    feasible: bool


class SearchResult(Stored, frozen=True):
    """What a search found. `front` holds indices into `evaluations`: not dominated in quality and first cost."""

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


class BudgetOutcome(Record, frozen=True):
    """A budget beside what the shipped file really takes."""

    budget: Budget
    value: float
    source: Source
    met: bool


class Manifest(Stored, frozen=True):
    """What a bundle is, and the evidence for it.

    `pairs`: it reads two texts at a time. `alone`: it was trained as the one architecture of its run, not inside a
    supernet. `origin` and `teacher` are the run's: see CheckpointInfo.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    artifact: Artifact
    target: str
    workload: Workload
    environment: Environment
    threads: int
    options: dict[str, str]
    maximum_length: int
    vocabulary_size: int
    predicted_s: float | None
    latency: Latency
    peak_memory_bytes: int | None
    quality: Quality
    trivial_quality: float | None
    budgets: tuple[BudgetOutcome, ...]
    data: Data
    training: Training
    checkpoint_sha256: str
    parity_tolerance: float
    created_at: dt.datetime
    files: dict[str, str]
    versions: dict[str, str]
    device_parity_max_abs_error: float | None = None
    provider_options: dict[str, str] = {}
    cores: tuple[int, ...] = ()
    thermal: str = "guard"
    pairs: bool = False
    alone: bool = False
    origin: Origin | None = None
    teacher: Origin | None = None


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
