"""Latency as a sum of what the work costs: one coefficient per kind of work, fitted on relative errors.

The features are a family's (how many multiply-adds of each kind a pass takes, how many layers it has), so a
coefficient is a cost: seconds per million multiply-adds, seconds per layer. Ridge keeps near-copies among the features
in check; its strength is chosen by cross-validation, and the stated error comes from folds that choice has not seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold

from toolchain.errors import UsageError
from toolchain.records import Environment, HeldOutError, PredictorInfo, Workload
from toolchain.space import SearchSpace

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MINIMUM_ROWS = 9
COVERAGE = 0.9
_RIDGES = tuple(float(ridge) for ridge in np.logspace(-6, 1, 15))
_FOLDS = 10


class Row(NamedTuple):
    """One measured subnet: its id, its features by name, its latency in seconds."""

    id: str
    features: dict[str, float]
    latency_s: float


def fit_predictor(
    rows: Sequence[Row],
    *,
    target: str,
    workload: Workload,
    space: SearchSpace,
    table_sha256: str,
    environment: Environment,
) -> PredictorInfo:
    """Fit on all rows; the held-out error and the interval come from cross-validation.

    `interval` is relative to the prediction: `COVERAGE` of held-out rows lay within predicted * (1 ± interval) (split
    conformal, on the cross-validated residuals; Vovk et al. 2005, Barber et al. 2021).

    Raises:
        UsageError: fewer than MINIMUM_ROWS rows, or they do not differ in latency.
    """
    if len(rows) < MINIMUM_ROWS:
        raise UsageError(
            f"{len(rows)} measured subnets are too few to fit a predictor",
            why=f"it takes {MINIMUM_ROWS}",
            hint="measure more: mostool profile --n 40",
        )
    names = tuple(rows[0].features)
    matrix = np.array([[row.features[name] for name in names] for row in rows])
    latency = np.array([row.latency_s for row in rows])
    if float(np.ptp(latency)) == 0:
        raise UsageError(
            "all measured subnets took exactly the same time", hint="the table cannot be right: profile --fresh"
        )
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1.0
    scaled = matrix / scale
    ridge = _best_ridge(scaled, latency)
    held_out = _held_out(scaled, latency)
    return PredictorInfo(
        kind="linear",
        target=target,
        workload=workload,
        space=space,
        table_sha256=table_sha256,
        environment=environment,
        features=names,
        coefficients=tuple(map(float, _fit(scaled, latency, ridge))),
        scale=tuple(map(float, scale)),
        ridge=ridge,
        error=_error(latency, held_out),
        interval=_conformal(np.abs(latency - held_out) / held_out),
        coverage=COVERAGE,
        points=tuple((row.id, float(row.latency_s), float(guess)) for row, guess in zip(rows, held_out, strict=True)),
    )


def predict_s(info: PredictorInfo, features: Sequence[dict[str, float]]) -> Floats:
    """Predicted seconds [n] of subnets by their features; never below a tenth of the fastest row it was fitted on."""
    matrix = np.array([[one[name] for name in info.features] for one in features])
    fastest_s = min(measured for _, measured, _ in info.points)
    return _floored(matrix / np.array(info.scale) @ np.array(info.coefficients), fastest_s)


def _floored(predicted: Floats, fastest_s: float) -> Floats:
    """Far outside its data a sum of costs may reach zero and below, which no latency does."""
    floored: Floats = np.maximum(predicted, 0.1 * fastest_s)
    return floored


def _fit(scaled: Floats, latency: Floats, ridge: float) -> Floats:
    """Coefficients that minimise squared relative error plus the ridge."""
    model = Ridge(alpha=ridge, fit_intercept=False)
    coefficients: Floats = model.fit(scaled / latency[:, None], np.ones_like(latency)).coef_
    return coefficients


def _folds(rows: int) -> KFold:
    return KFold(min(_FOLDS, rows), shuffle=True, random_state=0)


def _best_ridge(scaled: Floats, latency: Floats) -> float:
    """The ridge with the smallest leave-one-out error, in closed form."""
    # In units of the data: the rows are divided by their latency, so the Gram matrix grows with 1 / latency squared.
    relative = scaled / latency[:, None]
    unit = float(np.mean(np.sum(relative**2, axis=1)))
    chosen = RidgeCV(alphas=[unit * ridge for ridge in _RIDGES], fit_intercept=False)
    return float(chosen.fit(relative, np.ones_like(latency)).alpha_)


def _held_out(scaled: Floats, latency: Floats) -> Floats:
    """Nested: each fold is predicted by a fit whose ridge was chosen without it."""
    guesses = np.empty_like(latency)
    for fit, check in _folds(len(latency)).split(scaled):
        ridge = _best_ridge(scaled[fit], latency[fit])
        guesses[check] = _floored(scaled[check] @ _fit(scaled[fit], latency[fit], ridge), latency[fit].min())
    return guesses


def _error(latency: Floats, guesses: Floats) -> HeldOutError:
    relative = np.abs(guesses - latency) / latency
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # constant guesses have no rank
        tau = float(kendalltau(latency, guesses).statistic)
    return HeldOutError(
        n=len(latency),
        mape=float(relative.mean()),
        within_10pct=float((relative <= 0.1).mean()),
        kendall_tau=tau if np.isfinite(tau) else 0.0,
        worst=float(relative.max()),
    )


def _conformal(relative: Floats) -> float:
    """The half-width that covers COVERAGE of new rows: the ceil((n+1) * COVERAGE)-th smallest held-out error."""
    rank = min(len(relative), int(np.ceil((len(relative) + 1) * COVERAGE)))
    return float(np.sort(relative)[rank - 1])
