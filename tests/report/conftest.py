"""The example run, whole, and a browser to open its page in."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from browser import Scheme, Visit, chromium, visit, what_is_missing
from example_run import make_story

from toolchain.report import Story, render_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Opener(Protocol):
    def __call__(
        self, story: Story, *, width: int = 1280, scheme: Scheme = "light", javascript: bool = True
    ) -> Visit: ...


@pytest.fixture
def story() -> Story:
    return make_story()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module. Where it is missing they are skipped; in CI they fail."""
    if missing := what_is_missing():
        why = f"opening the report in a browser needs {missing}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Renders a story into a file and opens that."""
    numbers = itertools.count()
    with contextlib.ExitStack() as open_pages:

        def open_story(story: Story, *, width: int = 1280, scheme: Scheme = "light", javascript: bool = True) -> Visit:
            path = tmp_path / f"report-{next(numbers)}.html"
            path.write_text(render_report(story), encoding="utf-8")
            return open_pages.enter_context(visit(browser, path, width=width, scheme=scheme, javascript=javascript))

        yield open_story
