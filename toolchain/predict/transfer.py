"""A known device's latencies help with a new one: what costs much on one mostly does on the other.

Two ways lean on the known device's model: `scaled` (its predictions, stretched and shifted: the two rank networks
alike) and `corrected` (each of its costs stretched besides, as far as the rows insist: ridge regression towards the
source, in units of what each cost contributes there). A handful of rows cannot tell which is best: what is used is the
mean of both and of the rows' own fit, weighted by how well each foretold rows left out; and only where that beats the
rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from sklearn.linear_model import RidgeCV

from toolchain.arrays import Floats
from toolchain.predict.apply import seconds
from toolchain.predict.fit import About, Fitter, describe, fit_predictor, hold_out, wins
from toolchain.predict.hygiene import FEWEST_ROWS
from toolchain.predict.regression import fit_linear, robust_lasso
from toolchain.predict.rows import MINIMUM_ROWS_TRANSFERRED, Rows, check_rows
from toolchain.records import Model, PredictorInfo, Transfer

_STIFFNESS = tuple(float(one) for one in np.logspace(-4, 2, 19))
_FOLDS = 20
_SHARPNESS = 4
"""The power of a way's held-out error that its share falls with."""
_TINY = 1e-6


class Known(NamedTuple):
    """A device that has been measured well: its rows, cleaned, with the same features in the same order."""

    target: str
    table_sha256: str
    rows: Rows


def fit_with(rows: Rows, about: About, known: Known) -> PredictorInfo:
    """The predictor of a few rows that leans on a known device where that helps.

    Where it does not beat the rows' own fit on held-out rows by a standard error, that fit is returned: transfer
    that hurts is refused. The fit's `transfer` holds both errors; the shares were chosen on the same rows, so the error
    with transfer flatters a little. From FEWEST_ROWS rows on a device stands alone.

    Raises:
        UsageError: fewer rows than MINIMUM_ROWS_TRANSFERRED, or what else `check_rows` refuses.
    """
    check_rows(rows, MINIMUM_ROWS_TRANSFERRED)
    if len(rows.ids) >= FEWEST_ROWS:
        return fit_predictor(rows, about)  # enough to stand alone, and to be looked through
    source = fit_linear(known.rows.features, known.rows.latency_s)

    def scaled(features: Floats, latency_s: Floats) -> Model:
        return _scaled(source, features, latency_s)

    def corrected(features: Floats, latency_s: Floats) -> Model:
        return _corrected(source, features, latency_s)

    ways: dict[str, Fitter] = {"alone": fit_linear, "scaled": scaled, "corrected": corrected}
    tried = {name: hold_out(rows, fitter, folds=_FOLDS) for name, fitter in ways.items()}
    shares = {name: (one.mape + _TINY) ** -_SHARPNESS for name, one in tried.items()}

    def together(features: Floats, latency_s: Floats) -> Model:
        return _mixed({name: ways[name](features, latency_s) for name in ways}, shares, latency_s)

    tried["together"] = hold_out(rows, together, folds=_FOLDS)
    helps = wins(tried["together"], tried["alone"], 1)
    alone = describe(rows, about, fit_linear, tried["alone"])
    mixed = describe(rows, about, together, tried["together"])
    chosen = mixed if helps else alone
    # The choice was made on these few rows: the wider of both intervals is the honest one.
    wider = max(alone.margin, mixed.margin) / chosen.margin if helps and chosen.margin > 0 else 1.0
    return msgspec.structs.replace(
        chosen,
        margin=chosen.margin * wider,
        interval=chosen.interval * wider,
        transfer=Transfer(
            target=known.target,
            table_sha256=known.table_sha256,
            alone=tried["alone"].mape,
            together=tried["together"].mape,
            used=helps,
        ),
        compared={name: one.mape for name, one in tried.items()},
    )


def _mixed(models: Mapping[str, Model], shares: Mapping[str, float], latency_s: Floats) -> Model:
    """The mean of linear models, weighted: a linear model again."""
    total = sum(shares.values())
    size = len(next(iter(models.values())).coefficients)
    costs, base = np.zeros(size), 0.0
    for name, one in models.items():
        own = np.array(one.coefficients) / np.array(one.scale)
        costs += shares[name] / total * own
        base += shares[name] / total * (one.intercept - float(np.array(one.mean) @ own))
    return Model(
        kind="linear",
        mean=(0.0,) * size,
        scale=(1.0,) * size,
        intercept=base,
        coefficients=tuple(map(float, costs)),
        fastest_s=float(latency_s.min()),
    )


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
