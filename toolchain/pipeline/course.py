"""How far a search is, kept in a folder of its own, so that the same command takes it up where it was stopped.

What a search does follows from what was asked and from the devices' tables as they were when it began; its own
measurements are added to them. A search whose tables have changed otherwise is begun anew, and one that is done is told
again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from toolchain import profiling, tables
from toolchain.errors import IntegrityError, MostoolError
from toolchain.files import set_aside
from toolchain.journal import Journal, read_journal
from toolchain.records import Budget, Evaluation, Record, SearchResult, Stored, read_record, write_record
from toolchain.search import Step

COURSE, STEPS, RESULT = "course.json", "steps.jsonl", "result.json"


class Mark(Record, frozen=True):
    """A table as it was: how many rows it had, and their sha256."""

    rows: int
    sha256: str


class _Course(Stored, frozen=True):
    """A search under way, or done: then the tables as it left them are known too."""

    asked: dict[str, str]
    begun: dict[str, Mark]
    before: tuple[Evaluation, ...] = ()
    budget: Budget | None = None
    done: dict[str, Mark] | None = None


class Course:
    """The folder of one search. To be used in a `with` block: steps are kept on disk as they are made.

    Attributes:
        result: of the search, where it is done and its tables are as it left them.
        steps: those made so far.
        before: the evaluations of earlier searches that it began with.
    """

    def __init__(self, folder: Path, asked: Mapping[str, object], latency_tables: Sequence[Path]) -> None:
        """`asked` is all that decides what the search does, but the tables."""
        self._asked = {name: str(value) for name, value in asked.items()}
        self.folder = folder / _digest(self._asked)
        self._tables = latency_tables
        self._journal = Journal(self.folder / STEPS, Step)
        self.result: SearchResult | None = None
        self.before: tuple[Evaluation, ...] = ()

    def find_budget(self) -> Budget | None:
        """The budget that a search which goes on has chosen itself: its own measurements would now choose another."""
        known = self._find()
        return known.budget if known is not None else None

    def under_way(self, *, fresh: bool) -> bool:
        """Whether there are steps to go on from, or a result."""
        if fresh or self._find() is None:
            return False
        try:
            return bool(read_journal(self.folder / STEPS, Step))
        except IntegrityError:  # a whole line is damaged: it is set aside when the journal is opened
            return True

    def standing(self) -> tuple[int, bool]:
        """How many subnets were evaluated already, and whether the search is done; nothing is written."""
        known = self._find()
        if known is None:
            return 0, False
        try:
            steps = read_journal(self.folder / STEPS, Step)
        except IntegrityError:  # a damaged line is set aside when the journal is opened
            steps = []
        return sum(len(step.evaluations) for step in steps), known.done is not None

    def open(self, before: Sequence[Evaluation], *, fresh: bool, budget: Budget | None = None) -> None:
        """Find out where the search is; one that cannot go on is moved aside, and begun anew.

        `budget` is kept for `find_budget`: the one that was chosen where none was asked for.
        """
        known = self._find() if not fresh else None
        if known is None:
            set_aside(self.folder)
            known = _Course(asked=self._asked, begun=self._marks(), before=tuple(before), budget=budget)
        elif known.done is not None:
            self.result = read_record(self.folder / RESULT, SearchResult)
        self._course, self.before = known, known.before
        self._journal.__enter__()
        write_record(self.folder / COURSE, known)

    def close(self) -> None:
        self._journal.__exit__(None, None, None)

    @property
    def steps(self) -> list[Step]:
        return self._journal.records

    @property
    def repairs(self) -> list[str]:
        return self._journal.repairs

    def keep(self, step: Step) -> None:
        self._journal.append(step)

    def end(self, result: SearchResult) -> None:
        """The search is done: the same command tells this result from now on."""
        write_record(self.folder / RESULT, result)
        write_record(self.folder / COURSE, msgspec.structs.replace(self._course, done=self._marks()))

    def _find(self) -> _Course | None:
        """The course in the folder, where it may go on (or is done) with the tables as they are."""
        if not (self.folder / COURSE).is_file():
            return None
        course = read_record(self.folder / COURSE, _Course)
        marks = course.begun if course.done is None else course.done
        now = {str(table): _lines(table) for table in self._tables}
        if marks.keys() != now.keys():
            return None
        grown = course.done is None  # what was measured since is the search's own
        for name, mark in marks.items():
            lines = now[name]
            if len(lines) < mark.rows or (len(lines) > mark.rows and not grown) or _mark(lines[: mark.rows]) != mark:
                return None
        return course

    def _marks(self) -> dict[str, Mark]:
        return {str(table): _mark(_lines(table)) for table in self._tables}


def _digest(asked: Mapping[str, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(dict(sorted(asked.items())))).hexdigest()[:12]


def _mark(lines: Sequence[bytes]) -> Mark:
    return Mark(rows=len(lines), sha256=hashlib.sha256(b"\n".join(lines)).hexdigest())


def _lines(table: Path) -> list[bytes]:
    """The rows of a table's journal, measured or imported."""
    for name in (profiling.JOURNAL, tables.ROWS):
        if (table / name).is_file():
            return (table / name).read_bytes().splitlines()
    return []


def earlier_results(folder: Path) -> list[SearchResult]:
    """The results of the searches in a run's search folder, the last one's too; what cannot be read is left out."""
    results = []
    for path in sorted([*folder.glob(f"*/{RESULT}"), *folder.glob(RESULT)]):
        with contextlib.suppress(MostoolError):
            results.append(read_record(path, SearchResult))
    return results
