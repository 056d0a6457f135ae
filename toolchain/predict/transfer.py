"""A known device's latencies help with a new one: what costs much on one mostly does on the other.

Two ways lean on the known device's model, and both must beat the new device's own rows on rows left out: `scaled` (its
predictions, stretched and shifted: the two rank networks alike) and `corrected` (each of its costs stretched besides,
as far as the rows insist: ridge regression towards the source, in units of what each cost contributes there).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from sklearn.linear_model import RidgeCV

from toolchain.arrays import Floats
from toolchain.predict.apply import seconds
from toolchain.predict.fit import About, Fitter, HeldOut, describe, hold_out
from toolchain.predict.regression import fit_linear, robust_lasso
from toolchain.predict.rows import MINIMUM_ROWS_TRANSFERRED, Rows, check_rows
from toolchain.records import Model, PredictorInfo, Transfer

_STIFFNESS = tuple(float(one) for one in np.logspace(-4, 2, 19))
_FOLDS = 20


class Known(NamedTuple):
    """A device that has been measured well: its rows, cleaned, with the same features in the same order."""

    target: str
    table_sha256: str
    rows: Rows


def fit_with(rows: Rows, about: About, known: Known) -> tuple[PredictorInfo, bool]:
    """The predictor of a few rows that leans on a known device where that helps; whether it does.

    Where none of the ways beats the rows' own fit on held-out rows, that is what is returned: transfer that hurts is
    refused. The fit's `transfer` holds both errors.

    Raises:
        UsageError: fewer rows than MINIMUM_ROWS_TRANSFERRED, or what else `check_rows` refuses.
    """
    check_rows(rows, MINIMUM_ROWS_TRANSFERRED)
    source = fit_linear(known.rows.features, known.rows.latency_s)

    def scaled(features: Floats, latency_s: Floats) -> Model:
        return _scaled(source, features, latency_s)

    def corrected(features: Floats, latency_s: Floats) -> Model:
        return _corrected(source, features, latency_s)

    ways: Mapping[str, Fitter] = {"alone": fit_linear, "scaled": scaled, "corrected": corrected}
    tried: dict[str, HeldOut] = {name: hold_out(rows, fitter, folds=_FOLDS) for name, fitter in ways.items()}
    errors = {name: one.mape for name, one in tried.items()}
    chosen = min(errors, key=lambda name: errors[name])
    together = min(errors["scaled"], errors["corrected"])
    transfer = Transfer(target=known.target, table_sha256=known.table_sha256, alone=errors["alone"], together=together)
    info = describe(rows, about, ways[chosen], tried[chosen])
    return msgspec.structs.replace(info, transfer=transfer, compared=errors), chosen != "alone"


def _scaled(source: Model, features: Floats, latency_s: Floats) -> Model:
    """The source's predictions, stretched and shifted to these latencies by relative errors."""
    intercept, (stretch,) = robust_lasso(seconds(source, features)[:, None], latency_s, 1 / latency_s)
    return msgspec.structs.replace(
        source,
        intercept=float(intercept + stretch * source.intercept),
        coefficients=tuple(float(stretch * one) for one in source.coefficients),
        fastest_s=float(latency_s.min()),
    )


def _corrected(source: Model, features: Floats, latency_s: Floats) -> Model:
    """Stretched and shifted, and then each cost by as much as leave-one-out error lets it."""
    said_s, weights = seconds(source, features), 1 / latency_s
    level = np.stack([said_s, np.ones_like(said_s)], axis=1)
    (stretch, shift), *_ = np.linalg.lstsq(level * weights[:, None], np.ones_like(latency_s), rcond=None)
    coefficients = np.array(source.coefficients)
    parts = (features - np.array(source.mean)) / np.array(source.scale) * coefficients
    middle = parts.mean(axis=0)
    design = (parts - middle) * weights[:, None]
    unit = float((design**2).sum(axis=1).mean())
    changes = np.zeros(len(coefficients))
    if unit > 0:
        left = (latency_s - stretch * said_s - shift) * weights
        ridge = RidgeCV(alphas=[unit * one for one in _STIFFNESS], fit_intercept=False)
        changes = ridge.fit(design, left).coef_
    return msgspec.structs.replace(
        source,
        intercept=float(stretch * source.intercept + shift - middle @ changes),
        coefficients=tuple(map(float, coefficients * (stretch + changes))),
        fastest_s=float(latency_s.min()),
    )
