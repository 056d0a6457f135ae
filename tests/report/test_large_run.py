"""A run of 2,000 evaluations and 2,000 measured rows: light enough to send by mail."""

from __future__ import annotations

import pytest
from large_run import EVALUATIONS, ROWS, large_story

from toolchain.report import Story, render_report

HEAVIEST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def large() -> Story:
    return large_story()


def test_it_is_as_large_as_it_says(large: Story) -> None:
    assert large.search is not None
    assert large.predictor is not None
    assert len({each.architecture.id for each in large.search.evaluations}) == EVALUATIONS == 2000
    assert len(large.predictor.points) == len(large.tables[0].rows) == ROWS == 2000
    assert len(large.search.winner.architecture.axes) == 4
    feasible = sum(each.feasible for each in large.search.evaluations)
    assert 0.2 * EVALUATIONS < feasible < 0.95 * EVALUATIONS
    assert len(large.search.front) > 10


def test_its_page_stays_under_a_megabyte(large: Story) -> None:
    assert len(render_report(large).encode()) < HEAVIEST_BYTES
