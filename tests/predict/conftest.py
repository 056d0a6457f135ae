from __future__ import annotations

import pytest

from toolchain.predict import Rows
from toolchain.records import PredictorInfo

from .made_device import fit, make_rows


@pytest.fixture(scope="session")
def rows() -> Rows:
    return make_rows(60, noise=0.03)


@pytest.fixture(scope="session")
def noisy(rows: Rows) -> PredictorInfo:
    """The predictor of `rows`."""
    return fit(rows)
