"""Predictors, what they were fitted on, and tables that others have measured."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import msgspec

from toolchain.records.measuring import Elapsed, Environment, Workload
from toolchain.records.naming import Quantity
from toolchain.records.storing import Record, Source, Stored
from toolchain.space import SearchSpace

Unit = Literal["s", "ms", "us"]


class HeldOutError(Record, frozen=True):
    """How wrong a predictor is on rows it has not seen (cross-validated). Relative errors are fractions."""

    n: int
    mape: float
    within_10pct: float
    kendall_tau: float
    worst: float


class Model(Record, frozen=True):
    """What turns features into seconds (or what else it was fitted on); z = (features - mean) / scale.

    `linear` and `blocks`: intercept + coefficients . z. `log`: exp(intercept + coefficients . (z, z²)). `process`: the
    linear sum times exp(weights . k(z, support)), k the squared-exponential kernel of `length_scale`. `fastest_s` is
    the least it was fitted on.
    """

    kind: Literal["linear", "log", "process", "blocks"]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    intercept: float
    coefficients: tuple[float, ...]
    fastest_s: float
    support: tuple[tuple[float, ...], ...] = ()
    weights: tuple[float, ...] = ()
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        features = len(self.mean)
        wanted = 2 * features if self.kind == "log" else features
        if (len(self.scale), len(self.coefficients)) != (features, wanted):
            raise ValueError("mean, scale and coefficients must be of the same features")
        if len(self.weights) != len(self.support) or any(len(row) != features for row in self.support):
            raise ValueError("support must have a row of features for each of the weights")
        if self.kind == "process" and not self.weights:
            raise ValueError("a process must have support")
        if not all(self.scale) or not self.length_scale:
            raise ValueError("scale and length_scale must not be 0")


class Nearness(Record, frozen=True):
    """What is near the rows a model was fitted on: where the leverage z' inverse z is at most `limit`."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]
    limit: float

    def __post_init__(self) -> None:
        features = len(self.mean)
        if len(self.scale) != features or [len(row) for row in self.inverse] != [features] * features:
            raise ValueError("mean, scale and inverse must be of the same features")
        if not all(self.scale):
            raise ValueError("scale must not be 0")


class Finding(Record, frozen=True):
    """Something wrong with rows `first` to `last` of a table, counted from 0 in the order they were measured.

    `ratio` is what they took over what the other rows let expect. `outlier-block`: rows side by side, far off; `shift`:
    a whole session a little off; `outlier`: a single row; `drift`: rows that follow each other err alike.
    """

    kind: Literal["outlier-block", "shift", "outlier", "drift"]
    first: int
    last: int
    ratio: float
    done: Literal["left out", "corrected", "told"]


class Transfer(Record, frozen=True):
    """The other device's table a predictor may lean on, the held-out error without and with it, and whether it does."""

    target: str
    table_sha256: str
    alone: float
    together: float
    used: bool


class PredictorInfo(Stored, frozen=True):
    """A fitted predictor of a `quantity`, the median latency unless told. `source` is that of what it was fitted on.

    `interval` is the relative half-width for a row like those it was fitted on; for another it is
    `margin` * sqrt(1 + leverage). `compared` holds the held-out error of each kind of model that was tried.
    """

    target: str
    workload: Workload
    space: SearchSpace
    table_sha256: str
    source: Source
    environment: Environment | None
    features: tuple[str, ...]
    model: Model
    nearness: Nearness
    error: HeldOutError
    margin: float
    interval: float
    coverage: float
    points: tuple[tuple[str, float, float], ...]
    """Per held-out row: architecture id, what was measured (in s, bytes or J), and predicted without having seen it."""
    compared: dict[str, float] = {}
    findings: tuple[Finding, ...] = ()
    transfer: Transfer | None = None
    quantity: Quantity = Quantity()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.features) == len(self.model.mean) == len(self.nearness.mean):
            raise ValueError("model and nearness must be of the predictor's features")


class ImportedInfo(Stored, frozen=True):
    """The header of a latency table that others have measured: all its rows share this.

    `columns` maps an axis of the space to the file's column it was read from. A field the file did not tell is empty.
    """

    target: str
    workload: Workload
    space: SearchSpace
    precision: str
    threads: int | None
    runtime: str
    unit: Unit
    columns: dict[str, str]
    origins: dict[str, str]
    """The files the rows came from: name and sha256."""
    created_at: dt.datetime


class ImportedRow(Stored, frozen=True):
    """One row of an imported table. Axes with a value for each layer hold as many as there are layers.

    Published tables may hold averages over the layers: then all of them are the average, which need not be a choice.
    """

    axes: dict[str, float | tuple[float, ...]]
    latency_s: Elapsed
    spread_s: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
