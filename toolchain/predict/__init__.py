"""From a latency table to a predictor that knows how wrong it is."""

from toolchain.predict.linear import MINIMUM_ROWS, Row, fit_predictor, predict_s

__all__ = ["MINIMUM_ROWS", "Row", "fit_predictor", "predict_s"]
