"""What the sections on measurements say and draw: devices, rows over time, distribution, breakdown."""

from __future__ import annotations

from typing import Any, cast
from xml.etree import ElementTree as ET

import msgspec
import pytest
from example_run import make_manifest, make_search, make_story, of_manifest, of_search
from hostile import MARKUP, hostile_twin
from measured_run import make_header, make_rows, make_samples, make_table, measured_story
from report_reader import Page, drawings, sentences, tables

from toolchain import records
from toolchain.report import Block, Breakdown, Row, Story, render_report, warnings
from toolchain.report.blocks import Figure, Points, Section
from toolchain.report.sections.breakdown import breakdown
from toolchain.report.sections.devices import Taken, devices, winner_on
from toolchain.report.sections.distribution import distribution
from toolchain.report.sections.predictor import predictor
from toolchain.report.sections.provenance import provenance
from toolchain.report.sections.samples import samples

SECTIONS = (predictor, breakdown, samples, distribution, devices)


@pytest.fixture
def measured() -> Story:
    return measured_story()


def groups(section: Section) -> dict[tuple[str, str], int]:
    """How many children each group of marks has, by chart and series."""
    found = {}
    for block in section.blocks:
        if isinstance(block, Figure):
            for group in ET.fromstring(str(block.drawing)).iter():  # noqa: S314 - our own drawing
                if "marks" in group.get("class", "").split():
                    found[group.get("data-chart", ""), group.get("data-series", "")] = len(group)
    return found


def with_rows(story: Story, rows: list[Row]) -> Story:
    return story._replace(tables=[make_table(story, rows)], agreements=[])


# -- the predictors --------------------------------------------------------------------------------------------------


def test_each_device_has_a_scatter_of_its_own(measured: Story) -> None:
    section = predictor(measured)
    drawn = groups(section)
    assert sum(number for (chart, _), number in drawn.items() if chart == "predictor") == 60
    assert sum(number for (chart, _), number in drawn.items() if chart == "predictor-1") == 30
    assert "on rpi" in sentences(section)
    assert "on laptop" in sentences(section)
    assert section.title == "The latency predictors"


def test_an_emulated_device_never_reads_as_measured(measured: Story) -> None:
    info = msgspec.structs.replace(cast("records.PredictorInfo", measured.predictor), source="emulated")
    section = predictor(measured._replace(predictor=info, tables=[]))
    (chart,) = drawings(section)
    assert "emulated latency (p50), ms" in chart.text
    assert "measured" not in chart.text
    assert "emulated rows it had not seen" in sentences(section)
    assert {table.head[1] for table in tables(section)} == {"Emulated"}
    alone = msgspec.structs.replace(info, points=info.points[:1])
    assert " ms emulated, " in sentences(predictor(measured._replace(predictor=alone, tables=[])))
    assert f"{info.error.n} held-out rows, emulated" in str(
        tables(provenance(measured._replace(predictor=info, tables=[])))[0].rows
    )
    table = make_table(measured)._replace(source="emulated")
    emulated = make_story(tables=[table], samples=make_samples(measured)._replace(source="emulated"), manifest=None)
    for one in (samples(emulated), distribution(emulated)):
        shown = " ".join([sentences(one), *(page.text for page in drawings(one))])
        assert "emulated" in shown
        assert "measured on rpi" not in shown
    taken = winner_on(emulated, table)
    assert taken is not None
    assert taken.source == "predicted from emulated rows"


def test_rows_that_are_all_alike_are_a_sentence(measured: Story) -> None:
    info = cast("records.PredictorInfo", measured.predictor)
    same = msgspec.structs.replace(info, points=(("a", 0.01, 0.01), ("b", 0.01, 0.01)))
    section = predictor(make_story(predictor=same))
    assert not drawings(section)
    assert "All 2 held-out rows are alike" in sentences(section)


def test_the_ten_percent_band_is_there_on_wide_ranges_too(measured: Story) -> None:
    info = cast("records.PredictorInfo", measured.predictor)
    wide = msgspec.structs.replace(info, points=tuple((str(at), 2.0**at * 1e-3, 2.1**at * 1e-3) for at in range(9)))
    section = predictor(make_story(predictor=wide))
    (chart,) = drawings(section)
    assert len(chart.of_class("area", "band")) == 1
    assert groups(section) == {("predictor", "within 10 %"): 2, ("predictor", "further off"): 7}


# -- the breakdown ---------------------------------------------------------------------------------------------------


def test_a_bar_has_a_part_for_each_block_and_layer(measured: Story) -> None:
    section = breakdown(measured)
    winner = of_search(measured).winner.architecture
    drawn = {series.split()[0]: number for (chart, series), number in groups(section).items() if chart == "breakdown"}
    assert drawn == {"winner": 2 + winner.number("layers"), "largest": 6, "smallest": 4}
    (table, _) = tables(section)
    assert [row[0] for row in table.rows] == ["embedding", "layer 1", "layer 2", "layer 3", "layer 4", "head", "All"]
    words = sentences(section)
    assert "Predicted for rpi, nothing here is measured" in words
    assert "5.0 % off in the mean, at worst 20.0 %" in words
    assert all("predicted" in name for name in table.head[1:])


def test_what_is_nothing_is_not_broken_down(measured: Story) -> None:
    nothing = [Breakdown("winner", "a", [Block("layers", 1, 0.0)])]
    empty = make_table(measured)._replace(breakdowns=nothing)
    for tables_ in ([], [empty], [empty._replace(breakdowns=[])]):
        section = breakdown(measured._replace(tables=tables_))
        assert not drawings(section)
        assert "No latency was broken down" in sentences(section)
    one = [*nothing, Breakdown("largest", "b", [Block("layers", 1, 0.01)])]
    assert len(drawings(breakdown(measured._replace(tables=[empty._replace(breakdowns=one)])))) == 1


# -- samples over time -----------------------------------------------------------------------------------------------


def test_every_row_is_a_mark_with_heat_and_clock_below(measured: Story) -> None:
    section = samples(measured._replace(tables=[make_table(measured)]))
    drawn = groups(section)
    assert drawn["rows", "settled"] == 36
    assert drawn["rows", "in doubt"] == 4
    assert drawn["rows", "throttled"] == 1
    assert (drawn["rounds", "raw"], drawn["rounds", "paired"]) == (30, 30)
    chart = drawings(section)[0]
    assert len(chart.of_class("line", "heat")) == len(chart.of_class("line", "clock")) == 1
    words = sentences(section)
    assert "40 rows, 1 more could not be measured, from 2030-02-03 04:05 to 2030-02-03 04:44 UTC" in words
    assert "4 of them in doubt (unstable). 3 rounds that were measured hot or throttled were discarded" in words
    assert "tells neither" not in words


def test_a_device_that_tells_nothing_of_itself_is_said_to(measured: Story) -> None:
    silent = with_rows(measured, make_rows(sensors=False))
    assert "rpi tells neither its temperature nor its clock frequency, nor whether it throttles." in sentences(
        samples(silent)
    )
    assert not drawings(samples(silent))[0].of_class("line", "heat")
    rows = [row._replace(conditions=records.Conditions(temperature_end_c=50.0)) for row in make_rows()]
    assert "rpi does not tell its clock frequency and whether it throttles." in sentences(
        samples(with_rows(measured, rows))
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "The table of rpi holds no latency."),
        ([Row("a", None, failure="load: no")], "holds no latency, 1 more could not be measured."),
        ([Row("abc", 0.012)], "one row. 12.0 ms, subnet abc."),
        ([Row("a", 0.01, status=("unstable",)), Row("b", 0.02, status=("drifted",))], "Every row of rpi is in doubt"),
        ([Row("a", 0.01), Row("b", 0.01)], "All rows took 10.0 ms"),
    ],
)
def test_too_little_or_too_doubtful_is_a_sentence(measured: Story, rows: list[Row], words: str) -> None:
    section = samples(with_rows(measured._replace(samples=None), rows))
    assert not drawings(section)
    assert words in sentences(section)


def test_many_rows_are_as_many_marks_and_lines_that_stay_light(measured: Story) -> None:
    rows = make_rows(2000)
    section = samples(with_rows(measured, rows))
    drawn = groups(section)
    assert drawn["rows", "settled"] + drawn["rows", "in doubt"] == 2000
    (heat,) = drawings(section)[0].of_class("line", "heat")
    assert len(cast("str", heat["points"]).split()) <= 600
    weight = sum(
        len(str(block.drawing)) for one in SECTIONS for block in one(with_rows(measured, rows)).blocks
        if isinstance(block, Figure)
    )  # fmt: skip
    assert weight < 400_000


def test_without_samples_or_with_one_round_it_is_said(measured: Story) -> None:
    assert "no single measurement is shown" in sentences(samples(measured._replace(samples=None)))
    one = make_samples(measured, rounds=1)
    assert "has a single round" in sentences(samples(measured._replace(samples=one)))
    assert "No table of a device was measured" in sentences(samples(make_story()))


# -- the distribution ------------------------------------------------------------------------------------------------


def test_the_histogram_holds_the_calls_and_marks_percentiles_and_budget(measured: Story) -> None:
    one = make_samples(measured)
    section = distribution(measured)
    (chart,) = drawings(section)
    latency = one.latency
    for name, seconds in (("p50", latency.median_s), ("p90", latency.p90_s), ("p99", latency.p99_s)):
        assert f"{name} {1e3 * cast('float', seconds):.1f} ms" in chart.text
    assert "budget (p50) 25.0 ms" in chart.text
    assert len(chart.of_class("line", "percentile")) == 3
    heights = [
        int(title.text.rpartition(": ")[2])  # type: ignore[union-attr]
        for block in section.blocks
        if isinstance(block, Figure)
        for title in ET.fromstring(str(block.drawing)).iter("title")  # noqa: S314 - our own drawing
    ]
    beyond = sum(
        wall > max(sorted(one.walls_s)[int(0.995 * 899)], cast("float", latency.p99_s)) for wall in one.walls_s
    )
    assert sum(heights) + beyond == 900
    (table,) = tables(section)
    assert [row[0] for row in table.rows] == ["p50", "p90", "p99", "Calls, n", "Device", "Source"]
    assert table.rows[2][2] == "not enough samples"
    assert table.head == ("Percentile", "Winner", "Shipped file")
    assert table.rows[-1] == ("Source", "measured", "measured")


def test_another_subnets_calls_never_pass_for_the_winners(measured: Story) -> None:
    section = distribution(measured._replace(samples=make_samples(measured, "nearest")))
    assert "nearest to the winner's" in sentences(section)
    assert "The winner itself is not in the table" in sentences(section)
    (table,) = tables(section)
    assert table.head[1] == make_rows()[0].subnet


def test_a_budget_far_away_is_told_in_words(measured: Story) -> None:
    far = msgspec.structs.replace(of_search(measured).budgets[0], limit=1.0)
    search = msgspec.structs.replace(of_search(measured), budgets=(far,))
    section = distribution(measured._replace(search=search))
    assert "The budget of 1,000 ms (p50) lies far beyond the chart, to the right" in sentences(section)
    assert not drawings(section)[0].of_class("line", "budget")


def test_calls_that_are_none_or_all_alike_are_a_sentence(measured: Story) -> None:
    assert "was kept call by call" in sentences(distribution(measured._replace(samples=None)))
    one = make_samples(measured)
    same = one._replace(walls_s=[0.01] * 50)
    assert "All 50 calls" in sentences(distribution(measured._replace(samples=same)))
    few = make_samples(measured, rounds=3, calls=4)
    (figure,) = [block for block in distribution(measured._replace(samples=few)).blocks if isinstance(block, Figure)]
    assert figure.caption.endswith("Too few calls for p99.")


# -- the devices -----------------------------------------------------------------------------------------------------


def test_the_devices_stand_beside_each_other(measured: Story) -> None:
    section = devices(measured)
    beside, ranked = tables(section)
    assert beside.head == ("What", "rpi", "laptop")
    told = {row[0]: row[1:] for row in beside.rows}
    assert told["Source"] == ("measured", "measured")
    assert told["Winner there (p50)"][0] == "23.2 ms measured, as the file that ships"
    assert "predicted, at most" in told["Winner there (p50)"][1]
    assert told["Rows"] == ("40, and 1 that failed",) * 2
    assert told["Noise floor"] == ("0.40 %",) * 2
    assert told["Predictor's mean error"] == ("4.6 % (n = 30)",) * 2
    assert ranked.rows == [("rpi and laptop", "40", "0.930")]
    (chart,) = drawings(section)
    assert len(chart.of_class("part-entry")) == len(chart.of_class("part-guess")) == 1


def test_only_what_was_clocked_on_the_device_is_a_solid_bar(measured: Story) -> None:
    winner = of_search(measured).winner.architecture
    both = [make_table(measured), make_table(measured, [Row(winner.id, 0.02)], "board")._replace(source="emulated")]
    section = devices(measured._replace(tables=both))
    (figure,) = [block for block in section.blocks if isinstance(block, Figure)]
    assert [entry.text for entry in figure.legend] == ["measured", "emulated"]
    (chart,) = drawings(section)
    assert len(chart.of_class("part-entry")) == len(chart.of_class("part-guess")) == 1
    lent = make_table(measured)._replace(source="imported")
    assert cast("Taken", winner_on(measured._replace(manifest=None), lent)).source == "predicted from imported rows"


def test_every_table_has_its_digest_in_the_provenance(measured: Story) -> None:
    known = cast("records.PredictorInfo", measured.predictor).table_sha256
    tabled = [
        make_table(measured)._replace(sha256=known),
        make_table(measured, [], "bare")._replace(sha256="b" * 64, predictor=None),
        make_table(measured, target="lent")._replace(sha256="c" * 64, info=None, source="imported"),
    ]
    shown = [row for table in tables(provenance(measured._replace(tables=tabled))) for row in table.rows]
    assert ("Latency table of bare", "b" * 64) in shown
    assert ("Latency table of lent", "c" * 64) in shown
    assert [row[0] for row in shown if row[1] == known] == ["Latency table behind the predictor"]


def test_the_winners_row_is_taken_before_a_prediction(measured: Story) -> None:
    winner = of_search(measured).winner.architecture
    table = make_table(measured, [Row(winner.id, 0.02)])
    assert winner_on(measured._replace(manifest=None), table) == (0.02, "measured", "in its table")
    other = make_manifest(of_search(measured).evaluations[0])
    assert winner_on(measured._replace(manifest=other), table) == (0.02, "measured", "in its table")
    assert winner_on(measured._replace(search=None), table) is None
    nobody = table._replace(rows=[], winner=None)
    assert winner_on(measured._replace(manifest=None), nobody) is None


def test_one_device_or_none_is_a_sentence(measured: Story) -> None:
    assert "No device has a latency table" in sentences(devices(make_story()))
    alone = measured._replace(tables=[make_table(measured)], agreements=[])
    assert "nothing to compare it with" in sentences(devices(alone))
    assert not drawings(devices(alone))
    apart = measured._replace(agreements=[])
    assert "their order cannot be compared" in sentences(devices(apart))


def test_an_imported_table_says_what_nobody_told(measured: Story) -> None:
    table = make_table(measured)._replace(info=None, source="imported", winner=None)
    told = {row[0]: row[1] for row in tables(devices(measured._replace(tables=[table], manifest=None)))[0].rows}
    assert (told["Source"], told["Machine"], told["Threads"]) == ("imported", "not told", "not told")
    assert told["Winner there (p50)"] == "not known"
    assert "No table of a device was measured" in sentences(samples(measured._replace(tables=[table])))


def test_what_could_not_be_read_is_a_warning(measured: Story) -> None:
    lost = measured._replace(remarks=["The table profiles/x/y is left out: it is damaged."])
    assert lost.remarks[0] in warnings(lost)
    (listed,) = [block for block in devices(lost).blocks if isinstance(block, Points)]
    assert list(listed.texts) == list(lost.remarks)


def test_an_emulated_device_is_named_so() -> None:
    story = make_story(8, search=make_search(8), manifest=None)
    machine = msgspec.structs.replace(make_header().environment, emulator="qemu-aarch64")
    table = make_table(story)._replace(source="emulated", info=make_header(environment=machine))
    told = {row[0]: row[1] for row in tables(devices(story._replace(tables=[table])))[0].rows}
    assert told["Source"] == "emulated"
    assert told["Emulator"] == "qemu-aarch64"
    assert "predicted from emulated rows" in told["Winner there (p50)"]


# -- all of them -----------------------------------------------------------------------------------------------------


def test_hostile_names_are_text_in_every_section(measured: Story) -> None:
    clean, hostile = Page(render_report(measured)), Page(render_report(hostile_twin(measured, MARKUP)))
    assert hostile.faults == []
    assert hostile.tags().keys() == clean.tags().keys()  # a name where there was none adds a sentence, no more
    assert hostile.tags()["script"] == clean.tags()["script"]
    assert not [name for _, held in hostile.elements for name in held if name.startswith("on")]


def test_charts_of_a_page_go_by_different_names(measured: Story) -> None:
    names = [
        held["data-chart"]
        for tag, held in Page(render_report(measured)).elements
        if tag == "svg" and "data-chart" in held
    ]
    assert len(names) == len(set(names)) >= 8


@pytest.mark.parametrize("section", SECTIONS)
def test_a_story_without_any_of_it_is_a_sentence(section: Any) -> None:
    bare = make_story(search=None, manifest=None, predictor=None)
    assert sentences(section(bare))
    assert not drawings(section(bare))
    assert of_manifest(measured_story()).target == "rpi"
