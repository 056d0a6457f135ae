"""What quality to expect of subnets nobody evaluated: a Gaussian process that knows how Transformers are built.

Its covariance is a sum of four parts, each with a weight of its own, plus noise:

- *size*: a smooth function of a few sums (of each axis, the mean over all layers there may be). Quality follows the
  size of a network first of all, and saturates: a few evaluations show that much.
- *layers*: every gene for itself (a line and a bend each), for the layers that matter more than others.
- *choices*: every choice of every gene for itself, where quality follows no order.
- *together*: a smooth function of all genes, for how they interact.

Weights and length scales maximise the marginal likelihood of what was told (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, chapters 2 and 5). That a surrogate must be able to bend was measured on DyNAS-T's LINAS
(arXiv 2205.10358), which picks between ridge and RBF-SVR on one-hot genes; the first two parts are what few data can
tell, and LINAS's models have no place for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from toolchain.arrays import Floats
from toolchain.search.genes import ABSENT, Genes, Rows

_Single = npt.NDArray[np.float32]


class _Settings(NamedTuple):
    """Variances of the four parts and of the noise, length scales of the two smooth parts. Tuned as logarithms."""

    size: float
    together: float
    layers: float
    choices: float
    noise: float
    size_scale: float
    together_scale: float

    @classmethod
    def of(cls, logs: Floats) -> _Settings:
        return cls(*np.exp(logs).tolist())


_START = np.log(_Settings(1.0, 0.3, 0.3, 0.05, 0.01, 1.0, 2.0))
_LOWER = np.log(_Settings(1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 0.25, 0.7))
_UPPER = np.log(_Settings(1e2, 1e1, 1e1, 1e1, 0.5, 8.0, 16.0))
_JITTER = 1e-6
_MOST_TUNED = 160
"""Settings are tuned on at most so many of the rows that were told: more would say the same, later."""
_GROWTH = 1.4
"""They are tuned anew when there are so many times the rows."""
_STEPS = 25


class Expected(NamedTuple):
    """The mean [n] and the standard deviation [n] of the quality of each."""

    mean: Floats
    deviation: Floats


class _Views(NamedTuple):
    """Rows as each part sees them: [n, ...]."""

    sums: _Single
    places: _Single
    lines: _Single
    choices: _Single

    def part(self, numbers: npt.NDArray[np.intp]) -> _Views:
        return _Views(*(view[numbers] for view in self))


class Surrogate:
    """Learns with `fit`, answers with `predict`.

    The same rows and qualities in the same order give the same answers, whatever was learned before.
    """

    def __init__(self, genes: Genes) -> None:
        self._genes = genes
        self._settings, self._tuned_on = _Settings.of(_START), b""
        self._known: _Views | None = None

    def fit(self, rows: Rows, quality: Floats) -> None:
        """Learn from rows [n, genes] and their quality [n]; n is at least 2."""
        self._centre, self._scale = float(quality.mean()), float(quality.std()) or 1.0
        told = (quality - self._centre) / self._scale
        known = self._views(rows)
        tuned = _tuned(len(rows))
        on = rows[tuned].tobytes() + quality[tuned].tobytes()
        if on != self._tuned_on:
            self._settings, self._tuned_on = _tune(known.part(tuned), _standard(quality[tuned])), on
        factor = _factor(known, self._settings)
        self._alpha = cho_solve((factor, True), told).astype(np.float32)
        self._inverse = solve_triangular(factor, np.eye(len(rows)), lower=True).astype(np.float32)
        self._known = known

    def predict(self, rows: Rows, *, at_once: int = 4096) -> Expected:
        """What to expect of rows [n, genes]; call `fit` first."""
        if self._known is None:
            raise ValueError("nothing was learned yet")
        means, deviations = [np.empty(0)], [np.empty(0)]
        for start in range(0, len(rows), at_once):
            views = self._views(rows[start : start + at_once])
            shared = _covariance(views, self._known, self._settings)
            explained = np.square(shared @ self._inverse.T).sum(axis=1)
            means.append((shared @ self._alpha).astype(np.float64))
            deviations.append(np.sqrt(np.maximum(_own(views, self._settings) - explained, 1e-8)))
        mean, deviation = np.concatenate(means), np.concatenate(deviations)
        return Expected(self._centre + self._scale * mean, self._scale * deviation)

    def _views(self, rows: Rows) -> _Views:
        genes = self._genes
        present = rows != ABSENT
        place = np.where(present, (rows + 1) / genes.choices, 0.0)
        sums = np.stack([place[:, axis].mean(axis=1) for axis in genes.axes.values()], axis=1)
        line = np.where(present, 2 * place - 1 - 1 / genes.choices, -1.0)
        lines = np.concatenate([line, line**2 - 1 / 3], axis=1) / np.sqrt(len(genes))
        starts = np.concatenate([[0], np.cumsum(genes.choices + 1)[:-1]])
        choices = np.zeros((len(rows), int((genes.choices + 1).sum())), dtype=np.float32)
        np.put_along_axis(choices, starts + rows + 1, np.float32(1 / np.sqrt(len(genes))), axis=1)
        return _Views(*(view.astype(np.float32) for view in (3 * sums, 2 * place, lines, choices)))


def _factor(known: _Views, settings: _Settings) -> Floats:
    """The lower Cholesky factor of the rows' covariance [n, n], in double precision, with what jitter it takes."""
    exact = _Views(*(view.astype(np.float64) for view in known))  # type: ignore[arg-type]  # in double precision
    covariance = _covariance(exact, exact, settings)
    for jitter in (_JITTER, 1e-4, 1e-2):
        try:
            factor, _ = cho_factor(covariance + (settings.noise + jitter) * np.eye(len(covariance)), lower=True)
        except np.linalg.LinAlgError:
            continue
        return np.asarray(factor)
    raise ValueError("the covariance of what was told is no covariance")


def _standard(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / (values.std() or 1.0))


def _tuned(n: int) -> npt.NDArray[np.intp]:
    """Which of n rows settings are tuned on: the first so many, as they were when last there were so many more."""
    size = 2.0
    while size * _GROWTH <= n:
        size *= _GROWTH
    return np.unique(np.linspace(0, int(size) - 1, min(int(size), _MOST_TUNED)).round().astype(np.intp))


def _squares(first: _Single, second: _Single) -> _Single:
    """Squared distances [n, m]."""
    with np.errstate(all="ignore"):  # BLAS kernels may raise flags for lanes that are not part of the product
        inner: _Single = first @ second.T
    inner *= -2
    inner += np.square(first).sum(axis=1)[:, None]
    inner += np.square(second).sum(axis=1)
    np.maximum(inner, 0, out=inner)
    return inner


def _covariance(first: _Views, second: _Views, settings: _Settings) -> _Single:
    """Of n rows with m others: [n, m], in the views' precision."""
    total: _Single = first.lines @ second.lines.T
    total *= settings.layers
    total += settings.choices * (first.choices @ second.choices.T)
    for one, other, variance, scale in (
        (first.sums, second.sums, settings.size, settings.size_scale),
        (first.places, second.places, settings.together, settings.together_scale),
    ):
        smooth = _squares(one, other)
        smooth *= -0.5 / scale**2
        np.exp(smooth, out=smooth)
        smooth *= variance
        total += smooth
    return total


def _own(views: _Views, settings: _Settings) -> _Single:
    """Of each row with itself: [n]."""
    own: _Single = (
        settings.size + settings.together + settings.choices + settings.layers * np.square(views.lines).sum(axis=1)
    )
    return own


def _tune(known: _Views, told: Floats) -> _Settings:
    """Settings that make what was told most likely."""
    lines, choices = ((view @ view.T).astype(np.float64) for view in (known.lines, known.choices))
    sums, places = (_squares(view, view).astype(np.float64) for view in (known.sums, known.places))
    noise = np.eye(len(told))

    def unlikely(logs: Floats) -> tuple[float, Floats]:
        settings = _Settings.of(logs)
        size = settings.size * np.exp(-0.5 * sums / settings.size_scale**2)
        together = settings.together * np.exp(-0.5 * places / settings.together_scale**2)
        parts = [size, together, settings.layers * lines, settings.choices * choices, settings.noise * noise]
        try:
            factor = cho_factor(np.sum(parts, axis=0) + _JITTER * noise, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(len(logs))
        alpha = cho_solve(factor, told)
        towards = cho_solve(factor, noise) - np.outer(alpha, alpha)
        stretched = [size * sums / settings.size_scale**2, together * places / settings.together_scale**2]
        gradient = np.array([0.5 * (towards * slope).sum() for slope in (*parts, *stretched)])
        value = 0.5 * float(told @ alpha) + float(np.log(np.diag(factor[0])).sum())
        away = logs - _START  # a broad prior: with few rows anything is likely
        return value + 0.05 * float(away @ away), gradient + 0.1 * away

    bounds = list(zip(_LOWER, _UPPER, strict=True))
    found = minimize(unlikely, _START, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return _Settings.of(np.asarray(found.x))
