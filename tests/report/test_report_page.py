"""The page as a whole: sound HTML, self-contained, deaf to hostile names, small and repeatable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import XML

import msgspec
import pytest
from example_run import make_predictor, make_story
from hostile import MARKUP, hostile_twin
from markupsafe import escape
from partial_runs import PARTIAL
from report_reader import Page, tables

from toolchain import report
from toolchain.cli.reference import commands, options_of
from toolchain.report import Story, render_report
from toolchain.report.blocks import Figure
from toolchain.report.sections.front import front
from toolchain.report.sections.words import words

SECTIONS = 13


def test_the_page_is_sound_html_with_one_heading(story: Story) -> None:
    html = render_report(story)
    page = Page(html)
    assert page.faults == []
    assert html.startswith("<!DOCTYPE html>")
    assert page.tags()["h1"] == 1
    anchors = [held["id"] for _, held in page.elements if "id" in held]
    assert len(anchors) == len(set(anchors)) == SECTIONS
    links = [held["href"] for tag, held in page.elements if tag == "a"]
    assert links == [f"#{anchor}" for anchor in anchors]


def test_of_many_warnings_some_stand_at_the_top_with_a_way_to_the_rest(story: Story) -> None:
    told = Page(render_report(story._replace(remarks=tuple(f"remark number {number}" for number in range(3)))))
    assert "3 warnings to read first: remark number 0" in told.text
    assert "more in Provenance" not in told.text
    page = Page(render_report(story._replace(remarks=tuple(f"remark number {number}" for number in range(5)))))
    assert "remark number 2 and 2 more in Provenance" in page.text
    assert [held["href"] for tag, held in page.elements if tag == "a"].count("#provenance") == 2
    assert page.faults == []


def test_the_words_are_few_and_each_stands_once(story: Story) -> None:
    html = render_report(story)
    section = html[html.index('<section id="words">') : html.index("</main>")]
    assert len(section.encode()) < 2000
    (table,) = tables(words(story))
    for word in ("Front", "Hypervolume", "Kendall's tau", "Given up early", "Noise floor", "A/A"):
        assert [row[0] for row in table.rows].count(word) == 1
        assert section.count(f"<th>{escape(word)}</th>") == 1


def test_nothing_on_the_page_comes_from_outside(story: Story) -> None:
    html = render_report(story)
    markup, _, script = html.rpartition("<script>")
    for reference in ("https://", "src=", "@import", "url(", "<link", "javascript:"):
        assert reference not in html
    assert "http://" not in markup
    assert [*re.findall(r"http://[^\"]*", script)] == ["http://www.w3.org/2000/svg"]  # the name of a namespace
    page = Page(html)
    assert [held.get("type") for tag, held in page.elements if tag == "script"] == ["application/json", None]
    assert not [name for _, held in page.elements for name in held if name.startswith("on") or name == "style"]
    (policy,) = (held["content"] for _, held in page.elements if held.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_story_gives_the_same_bytes() -> None:
    assert render_report(make_story()) == render_report(make_story())


def test_the_search_of_two_thousand_evaluations_weighs_half_a_megabyte() -> None:
    story = make_story(2000, predictor=None)
    html = render_report(story)
    assert len(html.encode()) < 550_000
    (figure,) = [block for block in front(story).blocks if isinstance(block, Figure)]
    groups = [group for group in XML(str(figure.drawing)).iter("g") if group.get("data-chart") == "front"]
    assert sum(map(len, groups)) == 2000


def test_hostile_names_are_text_wherever_they_stand() -> None:
    clean = make_story(6, predictor=make_predictor(4))
    noted = msgspec.structs.replace(clean.checkpoint.data, notes=("2 rows were empty",))
    assert clean.manifest is not None
    latency = msgspec.structs.replace(clean.manifest.latency, status=("unstable",))
    emulated = msgspec.structs.replace(clean.manifest.environment, emulator="qemu-aarch64")
    clean = clean._replace(
        checkpoint=msgspec.structs.replace(clean.checkpoint, data=noted),
        manifest=msgspec.structs.replace(clean.manifest, data=noted, latency=latency, environment=emulated),
    )
    hostile = hostile_twin(clean, MARKUP)
    before, after = Page(render_report(clean)), Page(render_report(hostile))
    assert after.faults == []
    assert after.tags() == before.tags()
    assert [sorted(held) for _, held in after.elements] == [sorted(held) for _, held in before.elements]
    for text in (
        hostile.title,
        hostile.checkpoint.data.title,
        hostile.checkpoint.data.notes[0],
        hostile.checkpoint.space.name,
        hostile.search.searcher if hostile.search else "",
        hostile.manifest.environment.cpu if hostile.manifest else "",
        hostile.manifest.latency.status[0] if hostile.manifest else "",
        hostile.predictor.points[0][0] if hostile.predictor else "",
        *hostile.checkpoint.versions,
        *hostile.versions.values(),
    ):
        assert MARKUP in text
        assert text in after.text


def test_what_is_no_text_is_shown_as_such() -> None:
    html = render_report(make_story(title="a\x00b\ud800c\u202ed"))
    assert "a\ufffdb\ufffdc\ufffdd" in html
    html.encode("utf-8")


@pytest.mark.parametrize("case", PARTIAL)
def test_a_story_that_is_not_whole_is_still_a_sound_page(case: Callable[[], Story]) -> None:
    html = render_report(case())
    page = Page(html)
    assert page.faults == []
    assert page.tags()["section"] == SECTIONS
    assert "nan" not in {value for _, held in page.elements for value in held.values()}
    assert "None" not in page.text
    assert page.tags()["svg"] == page.tags()["figure"] + len(page.of_class("swatch-box"))


def test_every_option_that_the_page_speaks_of_exists() -> None:
    known = {name for _, command, _ in commands() for option in options_of(command) for name in option.opts}
    folder = Path(report.__file__).parent
    said = {flag for file in folder.rglob("*.py") for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", file.read_text())}
    assert {"--run", "--arch", "--latency"} <= said <= known
