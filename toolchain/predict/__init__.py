"""From a latency table to a predictor that knows how wrong it is."""

from toolchain.predict.linear import Row, fit_predictor, predict_s

__all__ = ["Row", "fit_predictor", "predict_s"]
