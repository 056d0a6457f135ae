"""What a report is told of the tables in a project: measured here, made of made-up rounds, damaged, of two devices."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_project import Made, call, refused, require

from toolchain import profiling
from toolchain.pipeline.breakdown import additive, break_down
from toolchain.pipeline.latencies import read_header, read_latencies
from toolchain.pipeline.predict import _about, as_rows
from toolchain.pipeline.project import Project
from toolchain.pipeline.reported import tell_tables
from toolchain.pipeline.runs import Run
from toolchain.profiling.statistics import anchor_s, latency, medians
from toolchain.records import Failed, Timed


def copy_table(table: Path, target: str, factor: float = 2.0) -> Path:
    """The table as another device would have it: slower by a factor, and it reports its heat."""
    info, rows = profiling.read_table(table)
    folder = table.parent.parent / target / table.name
    header = msgspec.structs.replace(info, target=target)
    with profiling.open_table(folder, header, table / profiling.REFERENCE) as opened:
        for row in rows:
            outcome = row.outcome
            if isinstance(outcome, Timed):
                rounds = tuple(
                    msgspec.structs.replace(
                        turn,
                        wall_s=tuple(factor * wall for wall in turn.wall_s),
                        reference_wall_s=factor * turn.reference_wall_s,
                        reference_fastest_s=factor * turn.reference_fastest_s,
                    )
                    for turn in outcome.rounds
                )
                conditions = msgspec.structs.replace(outcome.conditions, temperature_highest_c=61.0)
                outcome = msgspec.structs.replace(outcome, rounds=rounds, conditions=conditions)
            opened.append(msgspec.structs.replace(row, target=target, outcome=outcome))
    return folder


def test_the_medians_are_those_of_the_latency(made: Made) -> None:
    _, rows = profiling.read_table(made.table)
    timed = [row.outcome for row in rows if isinstance(row.outcome, Timed)]
    anchor = anchor_s(timed)
    for one in timed:
        whole, brief = latency(one, anchor), medians(one, anchor)
        assert brief == (whole.median_s, whole.raw_median_s, whole.n, whole.status)


def test_a_table_is_told_in_the_order_it_was_measured(made: Made) -> None:
    run = Run(made.classify)
    told = tell_tables(Project(made.root), run, run.find_result())
    (table,) = told.tables
    _, rows = profiling.read_table(made.table)
    assert [row.subnet for row in table.rows] == [row.architecture.id for row in rows]
    assert table.target == "quick"
    assert table.source == "measured"
    values = dict(zip(read_latencies(made.table).ids, read_latencies(made.table).values, strict=True))
    assert {row.subnet: row.median_s for row in table.rows if row.median_s is not None} == values
    assert told.remarks == []
    assert told.samples is not None
    assert len(told.samples.walls_s) == told.samples.latency.n
    assert np.median(told.samples.walls_s) == pytest.approx(told.samples.latency.median_s)
    assert np.median(told.samples.paired_s) == pytest.approx(told.samples.latency.median_s)


def test_blocks_add_up_to_what_the_additive_model_predicts(made: Made) -> None:
    table = read_latencies(made.table)
    fitted = additive(as_rows(table), _about(table))
    space = read_header(made.table).space
    subnets = {"winner": space.middle(), "largest": space.largest(), "smallest": space.smallest()}
    for one in break_down(fitted, subnets):
        architecture = subnets[one.role]
        layers = [block.layer for block in one.blocks if block.layer]
        assert layers == list(range(1, architecture.number("depth") + 1))
        assert all(block.seconds >= 0 for block in one.blocks)
        from toolchain.pipeline.predict import explain  # noqa: PLC0415 - the sum that it is compared with

        whole = sum(float(seconds[0]) for seconds in explain(fitted, [architecture]).values())
        assert sum(block.seconds for block in one.blocks) == pytest.approx(whole)


def test_two_devices_are_told_the_searched_one_first_and_compared(project: Path) -> None:
    (table,) = (project / "profiles" / "quick").iterdir()
    copy_table(table, "another")
    run = Run(next(path for path in (project / "runs").iterdir() if path.name != "words"))
    told = tell_tables(Project(project), run, run.find_result())
    assert [one.target for one in told.tables] == ["quick", "another"]
    (agreement,) = told.agreements
    assert (agreement.first, agreement.second) == ("quick", "another")
    assert agreement.kendall_tau == pytest.approx(1)
    assert agreement.common == sum(row.median_s is not None for row in told.tables[0].rows)
    assert told.tables[1].rows[0].conditions.temperature_highest_c == 61.0
    called = call(project, "report", run.folder.name, "-o", "page.html", "--json")
    page = (project / "page.html").read_text()
    assert called.data == {"report": "page.html", "size_bytes": len(page.encode()), "warnings": called.data["warnings"]}
    for name in ("rows", "rows-1", "rounds", "distribution", "devices", "breakdown", "predictor-1"):
        assert f'data-chart="{name}"' in page


def test_a_damaged_table_is_a_warning_and_the_report_is_of_the_others(project: Path) -> None:
    (table,) = (project / "profiles" / "quick").iterdir()
    other = copy_table(table, "another") / profiling.JOURNAL
    lines = other.read_text().splitlines(keepends=True)
    other.write_text("".join([*lines[:1], lines[1].replace("wall_s", "wall_z"), *lines[2:]]))
    called = require(call(project, "report", "--json"))
    (warning,) = called.envelope["warnings"]
    assert "another" in warning
    assert str(project) not in json.dumps(called.envelope["warnings"])


def test_a_table_of_failures_alone_is_told(project: Path) -> None:
    (table,) = (project / "profiles" / "quick").iterdir()
    info, rows = profiling.read_table(table)
    header = msgspec.structs.replace(info, target="broken")
    folder = project / "profiles" / "broken" / table.name
    with profiling.open_table(folder, header, table / profiling.REFERENCE) as opened:
        for row in rows:
            failed = Failed(stage="load", error="no such operator")
            opened.append(msgspec.structs.replace(row, target="broken", outcome=failed))
    run = Run(next(path for path in (project / "runs").iterdir() if path.name != "words"))
    told = tell_tables(Project(project), run, run.find_result())
    assert [one.target for one in told.tables] == ["quick", "broken"]
    assert {row.failure for row in told.tables[1].rows} == {"load: no such operator"}
    require(call(project, "report"))


def test_a_run_is_named_once_and_must_be_one(made: Made, tmp_path: Path) -> None:
    refused(call(made.root, "report", "words", "--run", made.classify.name), 2, "two runs are named")
    refused(call(made.root, "report", "nobody"), 2, "there is no run nobody", "runs here:")
    refused(call(made.root, "report", str(made.bundle)), 2, "is a bundle")
    refused(call(tmp_path, "report"), 2, "there is no trained run", "mostool train")


def test_a_run_without_a_table_is_still_told(made: Made, tmp_path: Path) -> None:
    called = call(made.root, "report", "words", "--out", str(tmp_path / "words.html"), "--json")
    assert called.data["size_bytes"] == (tmp_path / "words.html").stat().st_size
    assert called.data["warnings"] >= 0
