"""The page in a real browser, without a network: what it asks for, what it shows, and what can be done with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from browser import Visit, what_is_missing
from conftest import Opener
from example_run import make_predictor, of_manifest, of_search
from hostile import DIRECTIONS, EMOJI, LONG, MARKUP, NO_TEXT, QUOTES, hostile_twin
from large_run import EVALUATIONS, ROWS, wide_story
from partial_runs import PARTIAL

from toolchain.report import Story
from toolchain.report.story import DeviceTable

MARKS = """() => {
  const found = {};
  for (const group of document.querySelectorAll("g.marks")) {
    const {chart, series} = group.dataset;
    (found[chart] ??= []).push([series, group.children.length]);
  }
  return found;
}"""
SHOWN_TEXT = "() => document.body.innerText"
HELD_TEXT = "() => document.body.textContent"
ELEMENTS = """() => {
  const found = {};
  for (const each of document.querySelectorAll("*")) found[each.tagName] = (found[each.tagName] ?? 0) + 1;
  return found;
}"""
ISLANDS = """() => [...document.querySelectorAll("script[type='application/json']")].map(each => each.textContent)"""
HANDLERS = """() => [...document.querySelectorAll("*")].filter(each => each.getAttributeNames().some(
  name => name.startsWith("on") || name === "style" || name === "src" || name === "srcdoc")).length"""


def counts(seen: Visit) -> dict[str, int]:
    """How many marks each chart has."""
    groups: dict[str, list[tuple[str, int]]] = seen.ask(MARKS)
    return {chart: sum(number for _, number in series) for chart, series in groups.items()}


def front_counts(seen: Visit) -> dict[str, int]:
    """How many marks the front has of each device."""
    groups: list[tuple[str, int]] = seen.ask(MARKS)["front"]
    found: Counter[str] = Counter()
    for series, number in groups:
        found[series.partition(",")[0]] += number
    return dict(found)


def measured(table: DeviceTable) -> int:
    return sum(row.median_s is not None for row in table.rows)


def all_is_well(seen: Visit) -> None:
    """It asked for itself alone, said nothing, and its policy had nothing to forbid."""
    assert seen.requests == [seen.page.url]
    assert seen.complaints == []
    assert seen.violations() == []


def test_who_lacks_a_browser_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "apt-get install chromium" in what_is_missing()
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert what_is_missing() == "playwright (pip install 'mostool[test]')"


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no-script"])
def test_it_asks_for_nothing_but_itself(opened: Opener, story: Story, javascript: bool) -> None:
    seen = opened(story, javascript=javascript)
    seen.page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    for summary in seen.page.locator("summary").all():
        summary.click()
    seen.page.wait_for_timeout(100)
    all_is_well(seen)


def test_whatever_is_pressed_it_stays_quiet(opened: Opener, story: Story) -> None:
    seen = opened(story)
    for summary in seen.page.locator("summary").all():
        summary.click()
    for button in seen.page.get_by_role("button").all()[::4]:
        if button.is_visible():
            button.click()
    for link in seen.page.locator("nav a").all():
        link.click()
    for key in ("Tab", "Enter", "ArrowRight", "ArrowLeft", "Home", "End", "Escape", " "):
        for _ in range(3):
            seen.page.keyboard.press(key)
    seen.page.set_viewport_size({"width": 390, "height": 700})
    seen.page.emulate_media(media="print", color_scheme="dark")
    address, _, _ = seen.page.url.partition("#")
    assert set(seen.requests) == {address}
    assert seen.complaints == []
    assert seen.violations() == []


# -- as many points as rows -------------------------------------------------------------------------------------------


def test_each_row_is_a_point(opened: Opener, story: Story) -> None:
    seen = opened(story)
    assert story.predictor is not None
    assert sum(front_counts(seen).values()) == len(of_search(story).evaluations) == 40
    assert counts(seen)["predictor"] == len(story.predictor.points) == 60
    assert seen.look("marksOutside") == []


@pytest.mark.parametrize(("evaluations", "rows"), [(100, 80), (EVALUATIONS, ROWS)])
def test_each_row_of_a_wide_run_is_a_point_on_each_device(opened: Opener, evaluations: int, rows: int) -> None:
    story = wide_story(evaluations, rows)
    seen = opened(story)
    assert front_counts(seen) == {"rpi": evaluations, "laptop": evaluations}
    drawn = counts(seen)
    assert drawn["predictor"] == rows
    assert [drawn["rows"], drawn["rows-1"]] == [measured(table) for table in story.tables]
    assert story.samples is not None
    assert drawn["rounds"] == len(story.samples.raw_s) + len(story.samples.paired_s)
    assert drawn["devices"] == 2
    assert seen.look("marksOutside") == []
    all_is_well(seen)


def test_without_javascript_the_same_figures_and_the_winners_command(opened: Opener, story: Story) -> None:
    live, still = opened(story), opened(story, javascript=False)
    for count in ("figure", "figure svg", "section", "h2", "table", "tr", "figcaption", ".legend li"):
        script = f"() => document.querySelectorAll('{count}').length"
        assert live.ask(script) == still.ask(script), count
    assert counts(live) == counts(still)
    assert live.ask("() => document.querySelectorAll('.mark, .point').length") == still.ask(
        "() => document.querySelectorAll('.mark, .point').length"
    )
    winner = of_search(story).winner.architecture.id
    shown = still.ask(SHOWN_TEXT)
    assert f"--arch {winner}" in shown
    assert "mostool export" in shown
    # Nothing is offered that only a script could do.
    assert [button for button in still.page.get_by_role("button").all() if button.is_visible()] == []


# -- hostile names ----------------------------------------------------------------------------------------------------


def whole() -> Story:
    """A small run with a text in every field that may have one."""
    wide = wide_story(25, 5)
    search = msgspec.structs.replace(
        of_search(wide), evaluations=of_search(wide).evaluations[:6], front=(0, 2), picks=()
    )
    story = wide._replace(search=search, predictor=make_predictor(4), remarks=("a table could not be read",))
    noted = msgspec.structs.replace(story.checkpoint.data, notes=("2 rows were empty",))
    manifest = of_manifest(story)
    return story._replace(
        checkpoint=msgspec.structs.replace(story.checkpoint, data=noted),
        manifest=msgspec.structs.replace(
            manifest,
            data=noted,
            latency=msgspec.structs.replace(manifest.latency, status=("unstable",)),
            environment=msgspec.structs.replace(manifest.environment, emulator="qemu-aarch64"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MARKUP, MARKUP),
        (QUOTES, QUOTES),
        (EMOJI, EMOJI),
        (DIRECTIONS, "\ufffdgnp.exe\ufffd"),
        (NO_TEXT, "a\ufffdb\ufffdc\ufffdd\ufffde"),
        (LONG, LONG),
    ],
    ids=["markup", "quotes", "emoji", "directions", "no-text", "long"],
)
def test_a_hostile_name_is_text_wherever_it_stands(opened: Opener, text: str, told: str) -> None:
    story = whole()
    clean, hostile = opened(story), opened(hostile_twin(story, text))
    assert hostile.ask(ELEMENTS) == clean.ask(ELEMENTS)
    assert hostile.ask(HANDLERS) == clean.ask(HANDLERS) == 0
    all_is_well(hostile)
    assert hostile.page.title().startswith(told[:60])
    assert hostile.ask(HELD_TEXT).count(told.replace("d\ufffde", "d?e").replace("c\ufffdd", "c?d")) > 20
    for island in hostile.ask(ISLANDS):
        assert isinstance(json.loads(island), (dict, list))
    assert hostile.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    narrow = opened(hostile_twin(story, text), width=390)
    assert narrow.look("protruding") == []
    assert narrow.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


# -- stories that are not whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no-script"])
def test_a_story_that_is_not_whole_gives_sentences(opened: Opener, case: Callable[[], Story], javascript: bool) -> None:
    seen = opened(case(), javascript=javascript)
    all_is_well(seen)
    empty = seen.ask(
        """() => [...document.querySelectorAll("main section")].filter(section =>
             section.innerText.replace(section.querySelector("h2").innerText, "").trim().length < 20)
             .map(section => section.id)"""
    )
    assert empty == []
    for broken in ("undefined", "NaN", "None", "[object", "Infinity"):
        assert broken not in seen.ask(SHOWN_TEXT)
    assert (
        seen.ask("() => [...document.querySelectorAll('figure svg')].filter(svg => !svg.children.length).length") == 0
    )
