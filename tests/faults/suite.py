"""A plugin of pytest: which faults were tried, and how that went."""

from __future__ import annotations

from collections import defaultdict

import pytest

from faults.rows import FAULTS

MARK = "fault(name): tries a row of tests/faults/rows.py, through the command line"


class FaultSuite:
    """Counts rows, not tests: a row has passed when all tests of it that ran have."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._rows_of: dict[str, tuple[str, ...]] = {}
        self._outcomes: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            rows = tuple(name for mark in item.iter_markers("fault") for name in mark.args)
            for name in rows:
                if name not in FAULTS:
                    raise pytest.UsageError(f"{item.nodeid}: no fault is called {name!r}; see tests/faults/rows.py")
            if rows:
                self._rows_of[item.nodeid] = rows

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":  # what fails or is skipped before it is called, too
            for name in self._rows_of.get(report.nodeid, ()):
                self._outcomes[name].append(report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._alone and session.exitstatus == pytest.ExitCode.OK and self._failed():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._outcomes:
            return
        terminalreporter.section("faults")
        for name in self._failed():
            why = "failed" if "failed" in self._outcomes.get(name, ()) else "no test tried it"
            terminalreporter.write_line(f"{name}: {FAULTS[name]}: {why}")
        if not self._alone:
            terminalreporter.write_line(self._last_line())

    def pytest_unconfigure(self) -> None:
        if self._alone and self._outcomes:
            print(self._last_line())  # noqa: T201  # after pytest's own summary: the suite's last line

    def _failed(self) -> list[str]:
        """The rows that failed; of a run of the whole suite also those that nothing tried."""
        return [
            name
            for name in FAULTS
            if "failed" in self._outcomes.get(name, ())
            or (self._alone and "passed" not in self._outcomes.get(name, ()))
        ]

    def _last_line(self) -> str:
        failed = self._failed()
        passed = [name for name in FAULTS if name not in failed and "passed" in self._outcomes.get(name, ())]
        return f"faults: {len(passed)} passed, {len(failed)} failed"
