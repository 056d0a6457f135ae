"""From rows to a predictor: clean them, let the kinds of model compete, and say how wrong the winner is.

Every figure a user sees comes from folds that the model of that fold has not seen, its strength included. What has been
chosen on all rows is which of them are clean, and which kind wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from toolchain.arrays import Floats
from toolchain.predict.apply import leverage, nearness, seconds
from toolchain.predict.hygiene import Inspection, all_clean, inspect
from toolchain.predict.process import fit_process
from toolchain.predict.regression import fit_linear, fit_log
from toolchain.predict.regression import folds as split_folds
from toolchain.predict.rows import Rows, check_rows
from toolchain.records import MEDIAN, Environment, HeldOutError, Model, PredictorInfo, Quantity, Source, Workload
from toolchain.space import SearchSpace

Fitter = Callable[[Floats, Floats], Model]
"""Features [n, f] and latencies [n] in seconds to a model of them."""

KINDS: Mapping[str, Fitter] = {"linear": fit_linear, "log": fit_log, "process": fit_process}
"""The first is used unless another wins by more than chance."""
COVERAGE = 0.9
_FOLDS = 10


class HeldOut(NamedTuple):
    """Rows beside what a model that has not seen them predicts, in seconds, and their leverage there: [n]."""

    ids: tuple[str, ...]
    measured_s: Floats
    guesses_s: Floats
    leverage: Floats

    @property
    def relative(self) -> Floats:
        """The relative error of each row, [n]."""
        return _relative(self.measured_s, self.guesses_s)

    @property
    def mape(self) -> float:
        """The mean relative error."""
        return float(self.relative.mean())


class About(NamedTuple):
    """Whose latencies (or what else) they are: what a predictor says of itself beside its figures."""

    target: str
    workload: Workload
    space: SearchSpace
    table_sha256: str
    source: Source
    environment: Environment | None
    quantity: Quantity = MEDIAN


def fit_predictor(rows: Rows, about: About, kinds: Mapping[str, Fitter] = KINDS) -> PredictorInfo:
    """The predictor of these rows, given in the order they were measured.

    Raises:
        UsageError: what `check_rows` refuses.
    """
    check_rows(rows)
    inspection = inspect(rows)
    tried = {name: hold_out(rows, fitter, inspection) for name, fitter in kinds.items()}
    chosen = _winner(tried)
    info = describe(rows, about, kinds[chosen], tried[chosen], inspection)
    return msgspec.structs.replace(
        info, compared={name: one.mape for name, one in tried.items()}, findings=inspection.findings
    )


def describe(
    rows: Rows, about: About, fitter: Fitter, held_out: HeldOut, inspection: Inspection | None = None
) -> PredictorInfo:
    """Fit the rows; the error and the interval are those of the held-out predictions.

    The interval is normalised split conformal on the cross-validated residuals (Vovk et al. 2005; Papadopoulos et al.
    2011): `COVERAGE` of held-out rows lay within their own, which widens with leverage.
    """
    clean = inspection or all_clean(len(rows.ids))
    used = _used(rows, clean, clean.fitted)
    measured, guesses = held_out.measured_s, held_out.guesses_s
    ratio = np.maximum(measured / guesses, guesses / measured) - 1
    margin = _conformal(ratio / np.sqrt(1 + held_out.leverage))
    near = nearness(used.features)
    typical = float(np.median(leverage(near, used.features)))
    return PredictorInfo(
        **about._asdict(),
        features=rows.names,
        model=fitter(used.features, used.latency_s),
        nearness=near,
        error=error(measured, guesses),
        margin=margin,
        interval=margin * float(np.sqrt(1 + typical)),
        coverage=min(COVERAGE, len(measured) / (len(measured) + 1)),  # fewer rows than nine cannot promise 90 %
        points=tuple(
            (name, float(one), float(guess)) for name, one, guess in zip(held_out.ids, measured, guesses, strict=True)
        ),
    )


def hold_out(rows: Rows, fitter: Fitter, inspection: Inspection | None = None, folds: int = _FOLDS) -> HeldOut:
    """Predict each row that counts by a fit on the clean rows of the other folds."""
    clean = inspection or all_clean(len(rows.ids))
    judged = rows.part(clean.judged)
    at = np.flatnonzero(clean.judged)
    guesses, far = np.empty_like(judged.latency_s), np.empty_like(judged.latency_s)
    for _, check in split_folds(judged.features, folds):
        others = clean.fitted.copy()
        others[at[check]] = False
        used = _used(rows, clean, others)
        guesses[check] = seconds(fitter(used.features, used.latency_s), judged.features[check])
        far[check] = leverage(nearness(used.features), judged.features[check])
    return HeldOut(judged.ids, judged.latency_s, guesses, far)


def _used(rows: Rows, clean: Inspection, which: npt.NDArray[np.bool_]) -> Rows:
    return rows._replace(latency_s=rows.latency_s / clean.factors).part(which)


def error(latency_s: Floats, guesses_s: Floats) -> HeldOutError:
    """How wrong guesses are, relative to what was measured."""
    relative = _relative(latency_s, guesses_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # constant guesses have no rank
        tau = float(kendalltau(latency_s, guesses_s).statistic)
    return HeldOutError(
        n=len(latency_s),
        mape=float(relative.mean()),
        within_10pct=float((relative <= 0.1).mean()),
        kendall_tau=tau if np.isfinite(tau) else 0.0,
        worst=float(relative.max()),
    )


def _relative(latency_s: Floats, guesses_s: Floats) -> Floats:
    found: Floats = np.abs(guesses_s - latency_s) / latency_s
    return found


def _winner(tried: Mapping[str, HeldOut]) -> str:
    """The first kind, unless another's held-out error is smaller by more than two standard errors of the difference."""
    first = chosen = next(iter(tried))
    for name, found in tried.items():
        if wins(found, tried[first], 2) and found.mape < tried[chosen].mape:
            chosen = name
    return chosen


def wins(challenger: HeldOut, champion: HeldOut, standard_errors: float) -> bool:
    """Whether held-out errors are smaller by more than so many standard errors of the difference."""
    gained = champion.relative - challenger.relative
    return bool(gained.mean() > standard_errors * gained.std() / np.sqrt(len(gained)))


def _conformal(scores: Floats) -> float:
    """The score that covers COVERAGE of new rows: the ceil((n+1) * COVERAGE)-th smallest."""
    rank = min(len(scores), int(np.ceil((len(scores) + 1) * COVERAGE)))
    return float(np.sort(scores)[rank - 1])
