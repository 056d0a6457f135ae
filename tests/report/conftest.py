"""The example run, whole."""

from __future__ import annotations

import pytest
from example_run import make_story

from toolchain.report import Story


@pytest.fixture
def story() -> Story:
    return make_story()
