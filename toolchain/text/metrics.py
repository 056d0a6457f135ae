"""Figures of merit as GLUE asks for them, of arrays of targets and answers. Never NaN, and no warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import NearConstantInputWarning, pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef


class Correlations(NamedTuple):
    pearson: float
    spearman: float


def classification_figures(
    targets: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], classes: int
) -> dict[str, float]:
    """What else there is to say of right answers [n]: f1 of the last of two classes, else f1_macro, and matthews.

    `f1_macro` is the mean over the classes that occur in targets or answers. Where targets or answers are all of one
    class, `matthews` is 0.
    """
    if classes == 2:
        f1 = {"f1": float(f1_score(targets, answers, pos_label=1, zero_division=0))}
    else:
        f1 = {"f1_macro": float(f1_score(targets, answers, average="macro", zero_division=0))}
    return f1 | {"matthews": 0.0 if _all_one(targets, answers) else float(matthews_corrcoef(targets, answers))}


def correlations(targets: npt.NDArray[np.float64], answers: npt.NDArray[np.float64]) -> Correlations:
    """Pearson's and Spearman's correlation of targets and answers [n]; 0 where one is constant or not finite."""
    return Correlations(_correlation(pearsonr, targets, answers), _correlation(spearmanr, targets, answers))


def _correlation(
    measure: Callable[..., Any], targets: npt.NDArray[np.float64], answers: npt.NDArray[np.float64]
) -> float:
    if _all_one(targets, answers) or not (np.isfinite(targets).all() and np.isfinite(answers).all()):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)
        value = float(measure(targets, answers).statistic)
    return value if np.isfinite(value) else 0.0


def _all_one(*arrays: npt.NDArray[Any]) -> bool:
    return any((array == array[0]).all() for array in arrays)
