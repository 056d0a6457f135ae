"""From a latency table to a predictor that knows how wrong it is. See README.md beside this file."""

from toolchain.predict.active import most_telling
from toolchain.predict.apply import Predicted, apply
from toolchain.predict.blocks import explain, fit_blocks
from toolchain.predict.fit import KINDS, About, fit_predictor
from toolchain.predict.hygiene import FEWEST_ROWS, Inspection, inspect
from toolchain.predict.rows import MINIMUM_ROWS, MINIMUM_ROWS_TRANSFERRED, Rows, check_rows
from toolchain.predict.transfer import Known, fit_with

__all__ = [
    "FEWEST_ROWS",
    "KINDS",
    "MINIMUM_ROWS",
    "MINIMUM_ROWS_TRANSFERRED",
    "About",
    "Inspection",
    "Known",
    "Predicted",
    "Rows",
    "apply",
    "check_rows",
    "explain",
    "fit_blocks",
    "fit_predictor",
    "fit_with",
    "inspect",
    "most_telling",
]
