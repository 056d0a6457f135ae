"""Latency as a sum of what the work costs: a robust, sparse regression on relative errors.

The features are a family's (how many multiply-adds of each kind a pass takes, how many layers it has), so a coefficient
is a cost: seconds per million multiply-adds, seconds per layer. Many features say nearly the same, and a table has few
rows: the Lasso (Tibshirani 1996) keeps those that earn their place, its strength chosen by cross-validation. Huber's
weights (1964) keep single rows that were disturbed from bending the rest.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lasso_path
from sklearn.model_selection import KFold

from toolchain.arrays import Floats
from toolchain.records import Model

_STRENGTHS = np.logspace(0, -3.5, 30)
_FOLDS = 5
_HUBER = 1.345
"""Of a standard deviation: beyond, a residual counts linearly; 95 % efficient where errors are normal (Huber 1981)."""
_REWEIGHTINGS = 3
_FLAT = 1e-9
_GUESSES = 6
_DOUBTED = 0.3
"""Of log latency: rows further from the first guess begin with less weight."""


class Standard(NamedTuple):
    """Where features lie and how far they spread: both [features]; a constant feature spreads 1."""

    mean: Floats
    scale: Floats

    def apply(self, features: Floats) -> Floats:
        scaled: Floats = (features - self.mean) / self.scale
        return scaled


def fit_linear(features: Floats, latency_s: Floats) -> Model:
    """latency = intercept + coefficients . z, by relative errors. Features [n, f], latencies [n] in seconds."""
    expected_s, trust = _first_guess(features, latency_s)
    standard = standardise(features, trust / expected_s**2)
    intercept, coefficients = robust_lasso(standard.apply(features), latency_s, 1 / expected_s, trust)
    return _model("linear", standard, intercept, coefficients, latency_s)


def fit_log(features: Floats, latency_s: Floats) -> Model:
    """log latency = intercept + coefficients . (z, z²): costs that multiply rather than add."""
    standard = standardise(features, np.ones_like(latency_s))
    scaled = standard.apply(features)
    design = np.concatenate([scaled, scaled**2], axis=1)
    intercept, coefficients = robust_lasso(design, np.log(latency_s), np.ones_like(latency_s))
    return _model("log", standard, intercept, coefficients, latency_s)


def _first_guess(features: Floats, latency_s: Floats) -> tuple[Floats, Floats]:
    """Roughly what rows should take, in seconds, and how far to trust each: a ridge on log latency, reweighted; [n].

    Relative errors are relative to this: to a row's own latency, one that is too fast would outweigh all others.
    """
    standard = standardise(features, np.ones_like(latency_s))
    design = np.concatenate([np.ones((len(latency_s), 1)), standard.apply(features)], axis=1)
    stiff = np.eye(design.shape[1])
    stiff[0, 0] = 0.0
    target, trust, fitted = np.log(latency_s), np.ones_like(latency_s), np.zeros_like(latency_s)
    for _ in range(_GUESSES):
        weighted = design * trust[:, None]
        fitted = design @ np.linalg.solve(weighted.T @ design + stiff, weighted.T @ target)
        residual = np.abs(target - fitted)
        spread = max(1.4826 * float(np.median(residual)), 1e-12)
        trust = np.minimum(1.0, _HUBER * spread / np.maximum(residual, 1e-300))
    # What is left at this roughness may be the model's fault rather than the row's: only what is far off is doubted.
    expected = np.where(residual > _DOUBTED, fitted, target)
    return np.exp(expected), np.where(residual > _DOUBTED, trust, 1.0)


def folds(design: Floats, most: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Rows to fit and rows to check, [n, f] in at most so many folds; rows of the same network stay together."""
    _, group = np.unique(design, axis=0, return_inverse=True)
    groups = int(group.max()) + 1
    if groups < 2:
        return list(KFold(min(most, len(design)), shuffle=True, random_state=0).split(design))
    order = np.unique(group, return_index=True)[1].argsort().argsort()  # by first appearance
    placed = order[group]
    split = KFold(min(most, groups), shuffle=True, random_state=0).split(np.arange(groups))
    return [(np.flatnonzero(np.isin(placed, fit)), np.flatnonzero(np.isin(placed, check))) for fit, check in split]


def standardise(features: Floats, weights: Floats) -> Standard:
    shares = weights / weights.sum()
    mean = shares @ features
    scale = np.sqrt(shares @ (features - mean) ** 2)
    flat = scale <= _FLAT * np.maximum(np.abs(mean), 1e-300)
    return Standard(mean, np.where(flat, 1.0, scale))


def robust_lasso(
    design: Floats, target: Floats, importance: Floats, trust: Floats | None = None
) -> tuple[float, Floats]:
    """Intercept and coefficients that make `importance` * (fit - target) small: [n, f], [n], [n] -> scalar, [f].

    `trust` [n] is how far each row counts to begin with.
    """
    count = len(target)
    trust = np.ones(count) if trust is None else trust
    intercept, coefficients = 0.0, np.zeros(design.shape[1])
    for _ in range(1 + _REWEIGHTINGS):
        intercept, coefficients = _lasso(design, target, trust * importance**2)
        residual = np.abs(importance * (intercept + design @ coefficients - target))
        freedom = max(1, count - 1 - int(np.count_nonzero(coefficients)))
        spread = 1.4826 * float(np.median(residual)) * np.sqrt(count / freedom)
        trust = np.minimum(1.0, _HUBER * spread / np.maximum(residual, 1e-300)) if spread > 0 else np.ones(count)
    return intercept, coefficients


def _lasso(design: Floats, target: Floats, weights: Floats) -> tuple[float, Floats]:
    """The Lasso of weighted rows, the intercept free, its strength the best in cross-validation."""
    count = len(target)
    shares = weights / weights.sum()
    middle, level = shares @ design, float(shares @ target)
    spread = np.sqrt(shares @ (design - middle) ** 2)
    alive = spread > _FLAT
    coefficients = np.zeros(design.shape[1])
    lifted = np.sqrt(shares * count)
    aim = (target - level) * lifted
    size = float(np.sqrt(np.mean(aim**2)))
    if size == 0 or not alive.any():
        return level, coefficients
    columns = (design[:, alive] - middle[alive]) / spread[alive] * lifted[:, None]
    aim = aim / size
    strengths = float(np.abs(columns.T @ aim).max()) / count * _STRENGTHS
    missed = np.zeros(len(strengths))
    for fit, check in folds(columns, _FOLDS):
        path = _path(columns[fit], aim[fit], strengths)
        missed += ((columns[check] @ path - aim[check, None]) ** 2).sum(axis=0)
    chosen = _path(columns, aim, strengths[: int(np.argmin(missed)) + 1])[:, -1]
    coefficients[alive] = size * chosen / spread[alive]
    return level - float(middle @ coefficients), coefficients


def _path(columns: Floats, aim: Floats, strengths: Floats) -> Floats:
    """Coefficients [f, strengths]; where descent has not settled, cross-validation judges what it got."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        _, path, _ = lasso_path(
            np.asfortranarray(columns),
            aim,
            alphas=strengths,
            precompute=columns.T @ columns,
            Xy=columns.T @ aim,  # unchecked, scikit-learn before 1.9 would take its absence for an array
            tol=1e-6,
            max_iter=5000,
            check_input=False,  # it would be checked anew for each strength, and that takes longer than the descent
        )
    found: Floats = path
    return found


def _model(kind: str, standard: Standard, intercept: float, coefficients: Floats, latency_s: Floats) -> Model:
    return Model(
        kind="log" if kind == "log" else "linear",
        mean=tuple(map(float, standard.mean)),
        scale=tuple(map(float, standard.scale)),
        intercept=float(intercept),
        coefficients=tuple(map(float, coefficients)),
        fastest_s=float(latency_s.min()),
    )
