"""Whether a search goes on, is told again, or begins anew: what its folder and its tables say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_project import Made

from toolchain.errors import IntegrityError, MostoolError
from toolchain.pipeline.course import Course, earlier_results
from toolchain.records import Budget, Evaluation, SearchResult, read_record
from toolchain.search import Step

ASKED = {"budgets": [("latency_s@rpi", 0.005)], "seed": 0}


@pytest.fixture(scope="module")
def result(made: Made) -> SearchResult:
    return read_record(made.classify / "search" / "result.json", SearchResult)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of four rows; what is in them is nobody's business here."""
    folder = tmp_path / "profiles" / "rpi" / "table"
    folder.mkdir(parents=True)
    write_rows(folder, "abcd")
    return folder


def write_rows(table: Path, rows: str) -> None:
    (table / "journal.jsonl").write_text("".join(f"{row}\n" for row in rows))


def opened(tmp_path: Path, *tables: Path, fresh: bool = False, before: Any = (), **changed: Any) -> Course:
    course = Course(tmp_path / "search", ASKED | changed, tables)
    course.open(before, fresh=fresh)
    course.close()
    return course


def begun(tmp_path: Path, *tables: Path, result: SearchResult, steps: int = 2, end: bool = False) -> list[Step]:
    """A search that made some steps, and was stopped or came to its end."""
    course = Course(tmp_path / "search", ASKED, tables)
    course.open((), fresh=False)
    made = [Step(evaluations=result.evaluations[number : number + 1]) for number in range(steps)]
    for step in made:
        course.keep(step)
    if end:
        course.end(result)
    course.close()
    return made


def old(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "search").glob("*.old"))


def test_one_that_was_stopped_goes_on_with_its_steps(tmp_path: Path, table: Path, result: SearchResult) -> None:
    steps = begun(tmp_path, table, result=result)
    again = opened(tmp_path, table)
    assert again.steps == steps
    assert again.result is None
    assert old(tmp_path) == []


def test_rows_that_were_added_since_are_its_own(tmp_path: Path, table: Path, result: SearchResult) -> None:
    steps = begun(tmp_path, table, result=result)
    write_rows(table, "abcdef")
    assert opened(tmp_path, table).steps == steps
    write_rows(table, "abcdefg")
    assert opened(tmp_path, table).steps == steps, "where it began is what counts, not where it was last"


@pytest.mark.parametrize("rows", ["abc", "abxd", "xabcd", "", "bacd"])
def test_a_table_that_shrank_or_changed_makes_it_begin_anew(
    tmp_path: Path, table: Path, result: SearchResult, rows: str
) -> None:
    steps = begun(tmp_path, table, result=result)
    write_rows(table, rows)
    again = opened(tmp_path, table)
    assert again.steps == []
    (aside,) = old(tmp_path)
    assert len((aside / "steps.jsonl").read_text().splitlines()) == len(steps)
    assert opened(tmp_path, table).steps == []
    assert len(old(tmp_path)) == 1, "the new one goes on with the table as it is now"


def test_a_table_that_is_gone_or_another_one_makes_it_begin_anew(
    tmp_path: Path, table: Path, result: SearchResult
) -> None:
    begun(tmp_path, table, result=result)
    other = table.with_name("other")
    table.rename(other)
    assert opened(tmp_path, other).steps == []
    assert len(old(tmp_path)) == 1


def test_an_imported_table_counts_as_one(tmp_path: Path, table: Path, result: SearchResult) -> None:
    (table / "journal.jsonl").rename(table / "rows.jsonl")
    steps = begun(tmp_path, table, result=result)
    assert opened(tmp_path, table).steps == steps
    (table / "rows.jsonl").write_text("another\n")
    assert opened(tmp_path, table).steps == []


def test_one_that_is_done_is_told_while_its_tables_stay_as_it_left_them(
    tmp_path: Path, table: Path, result: SearchResult
) -> None:
    write_rows(table, "abcdef")  # it measured two
    begun(tmp_path, table, result=result, end=True)
    assert opened(tmp_path, table).result == result
    assert opened(tmp_path, table).result == result
    write_rows(table, "abcdefg")  # somebody profiled: a better predictor may find another winner
    again = opened(tmp_path, table)
    assert again.result is None
    assert again.steps == []
    assert len(old(tmp_path)) == 1


def test_what_it_measured_before_it_was_done_is_not_somebody_elses(
    tmp_path: Path, table: Path, result: SearchResult
) -> None:
    course = Course(tmp_path / "search", ASKED, [table])
    course.open((), fresh=False)
    write_rows(table, "abcdef")
    course.end(result)
    course.close()
    assert opened(tmp_path, table).result == result


def test_fresh_moves_aside_what_is_done_or_under_way(tmp_path: Path, table: Path, result: SearchResult) -> None:
    begun(tmp_path, table, result=result, end=True)
    assert opened(tmp_path, table, fresh=True).result is None
    assert len(old(tmp_path)) == 1
    begun(tmp_path, table, result=result)
    assert opened(tmp_path, table, fresh=True).steps == []
    assert len(old(tmp_path)) == 2


def test_another_question_is_another_search(tmp_path: Path, table: Path, result: SearchResult) -> None:
    begun(tmp_path, table, result=result, end=True)
    other = opened(tmp_path, table, seed=1)
    assert other.result is None
    assert other.steps == []
    assert old(tmp_path) == []
    assert opened(tmp_path, table).result == result


def test_it_keeps_what_it_began_with(tmp_path: Path, table: Path, result: SearchResult) -> None:
    """Earlier searches' evaluations, as they were when it began: others that came since would lead it elsewhere."""
    known: tuple[Evaluation, ...] = result.evaluations[:3]
    assert opened(tmp_path, table, before=known).before == known
    assert opened(tmp_path, table, before=result.evaluations[:5]).before == known
    assert opened(tmp_path, table, before=result.evaluations[:5], fresh=True).before == result.evaluations[:5]


def test_the_budget_it_chose_is_known_as_long_as_it_can_go_on(tmp_path: Path, table: Path) -> None:
    course = Course(tmp_path / "search", ASKED, [table])
    assert course.find_budget() is None
    budget = Budget(metric="latency_s", limit=0.004, target="rpi")
    course.open((), fresh=False, budget=budget)
    course.close()
    write_rows(table, "abcde")
    again = Course(tmp_path / "search", ASKED, [table])
    assert again.find_budget() == budget
    write_rows(table, "xbcde")
    assert again.find_budget() is None


def test_a_torn_step_is_dropped_and_told(tmp_path: Path, table: Path, result: SearchResult) -> None:
    steps = begun(tmp_path, table, result=result)
    (path,) = (tmp_path / "search").glob("*/steps.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    again = opened(tmp_path, table)
    assert again.steps == steps[:-1]
    assert "cut short" in again.repairs[0]


def test_a_damaged_course_is_named(tmp_path: Path, table: Path, result: SearchResult) -> None:
    begun(tmp_path, table, result=result)
    (path,) = (tmp_path / "search").glob("*/course.json")
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(IntegrityError, match=r"course\.json") as caught:
        opened(tmp_path, table)
    assert caught.value.hint
    opened(tmp_path, table, fresh=True)
    assert len(old(tmp_path)) == 1


def test_results_that_cannot_be_read_teach_nothing(tmp_path: Path, table: Path, result: SearchResult) -> None:
    begun(tmp_path, table, result=result, end=True)
    (path,) = (tmp_path / "search").glob("*/result.json")
    (tmp_path / "search" / "result.json").write_bytes(path.read_bytes())
    assert earlier_results(tmp_path / "search") == [result, result]
    path.write_text("{}")
    assert earlier_results(tmp_path / "search") == [result]
    with pytest.raises(MostoolError, match=r"result\.json"):
        opened(tmp_path, table)
