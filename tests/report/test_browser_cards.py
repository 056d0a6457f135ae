"""The cards of the subnets, in a real browser: what is chosen is shown, as Python would tell it, and can be copied."""

from __future__ import annotations

import shlex
from typing import TypedDict

import pytest
from browser import Visit
from conftest import Opener
from example_run import LATENCY, make_story, of_search
from hostile import DIRECTIONS, MARKUP, QUOTES, hostile_twin
from large_run import large_story

from toolchain.report import Story
from toolchain.report.islands import legible
from toolchain.report.sections.cards import Deck, commands, facts

MARKS = """() => [...document.querySelectorAll("g.marks[data-chart=front][data-rows]")].flatMap(group => {
  const rows = group.dataset.rows.split(" ");
  return [...group.children].map((mark, at) => {
    const box = mark.getBoundingClientRect();
    return {row: Number(rows[at]), x: box.x + box.width / 2, y: box.y + box.height / 2};
  });
})"""
CARD = """() => {
  const card = document.querySelector(".card"), all = name => [...card.querySelectorAll(name)];
  return {
    title: card.querySelector("h3").textContent,
    facts: all("dl > div").map(pair => [pair.querySelector("dt").textContent, pair.querySelector("dd").textContent]),
    commands: all(".command code").map(each => each.textContent),
  };
}"""


class Mark(TypedDict):
    row: int
    x: float
    y: float


class Shown(TypedDict):
    title: str
    facts: list[list[str]]
    commands: list[str]


def shown(seen: Visit) -> Shown:
    card: Shown = seen.ask(CARD)
    return card


def expected(story: Story, row: int) -> Shown:
    """The card of a row as Python writes it, for readers without JavaScript."""
    deck = Deck.of(of_search(story), story.run or story.title)
    subnet = deck.subnets[row]
    return {
        "title": f"Subnet {subnet.architecture.id}",
        "facts": [[legible(name), legible(value)] for name, value in facts(deck, subnet)],
        "commands": [legible(command.line) for command in commands(deck, subnet)],
    }


def marks_of(seen: Visit) -> list[Mark]:
    """The marks of the front, in the window."""
    seen.page.locator("svg[data-chart=front]").scroll_into_view_if_needed()
    marks: list[Mark] = seen.ask(MARKS)
    return marks


def loneliest(marks: list[Mark], number: int) -> list[Mark]:
    """Those that are farthest from any other, so that a click there can mean nothing else."""

    def room(mark: Mark) -> float:
        return min((mark["x"] - each["x"]) ** 2 + (mark["y"] - each["y"]) ** 2 for each in marks if each is not mark)

    return sorted(marks, key=room)[-number:]


@pytest.fixture(params=[1280, 390])
def width(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def test_every_mark_stands_where_its_row_belongs(opened: Opener, story: Story) -> None:
    marks = marks_of(opened(story))
    evaluations = of_search(story).evaluations
    assert sorted(mark["row"] for mark in marks) == list(range(len(evaluations)))
    for one in marks:
        for other in marks:
            mine, yours = evaluations[one["row"]], evaluations[other["row"]]
            if mine.costs[LATENCY].value < yours.costs[LATENCY].value:
                assert one["x"] < other["x"] + 0.2
            if mine.quality.value > yours.quality.value:
                assert one["y"] < other["y"] + 0.2


def test_a_click_on_a_mark_shows_its_card(opened: Opener, story: Story, width: int) -> None:
    seen = opened(story, width=width)
    assert shown(seen)["title"] == f"Subnet {of_search(story).winner.architecture.id}"
    for mark in loneliest(marks_of(seen), 3):
        place = next(each for each in marks_of(seen) if each["row"] == mark["row"])
        seen.page.mouse.click(place["x"], place["y"])
        assert shown(seen) == expected(story, mark["row"])
        assert seen.page.locator(".card h3").is_visible()
    assert seen.complaints == []


def test_a_tap_does_what_a_click_does(opened: Opener, story: Story) -> None:
    seen = opened(story, width=390)
    (mark,) = loneliest(marks_of(seen), 1)
    seen.page.touchscreen.tap(mark["x"], mark["y"])
    assert shown(seen) == expected(story, mark["row"])


def test_the_keyboard_reaches_every_card(opened: Opener, story: Story) -> None:
    seen = opened(story)
    by_place = sorted(marks_of(seen), key=lambda mark: mark["x"])
    seen.page.locator("svg[data-chart=front]").focus()
    seen.page.keyboard.press("Home")
    titles = [shown(seen)["title"]]
    for _ in by_place[1:]:
        seen.page.keyboard.press("ArrowRight")
        titles.append(shown(seen)["title"])
    everyone = {f"Subnet {each.architecture.id}": row for row, each in enumerate(of_search(story).evaluations)}
    assert sorted(titles) == sorted(everyone)
    assert titles[0] == expected(story, by_place[0]["row"])["title"]
    assert titles[-1] == expected(story, by_place[-1]["row"])["title"]
    seen.page.keyboard.press("ArrowRight")  # past the end there is nothing
    assert shown(seen) == expected(story, by_place[-1]["row"])
    seen.page.keyboard.press("End")
    assert shown(seen) == expected(story, by_place[-1]["row"])
    for _ in range(5):
        seen.page.keyboard.press("PageDown")
    assert shown(seen) == expected(story, by_place[0]["row"])
    assert seen.complaints == []


def test_every_id_in_a_table_opens_its_card(opened: Opener, story: Story) -> None:
    seen = opened(story)
    seen.ask("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")
    rows = {each.architecture.id: row for row, each in enumerate(of_search(story).evaluations)}
    buttons = seen.page.locator("table.subnets tbody th button").all()
    assert {button.inner_text() for button in buttons} == set(rows)
    for button in buttons[:: max(1, len(buttons) // 8)]:
        button.focus()
        seen.page.keyboard.press("Enter")
        assert shown(seen) == expected(story, rows[button.inner_text()])
    assert seen.complaints == []


def test_the_cards_of_a_large_run_say_what_python_says(opened: Opener) -> None:
    story = large_story()
    seen = opened(story)
    rows = {f"Subnet {each.architecture.id}": row for row, each in enumerate(of_search(story).evaluations)}
    met = set()
    seen.page.locator("svg[data-chart=front]").focus()
    seen.page.keyboard.press("Home")
    for _ in range(60):
        for _ in range(3):
            seen.page.keyboard.press("PageUp")
        card = shown(seen)
        row = rows[card["title"]]
        met.add(row)
        assert card == expected(story, row)
    assert len(met) == 60
    assert {of_search(story).evaluations[row].feasible for row in met} == {True, False}
    assert {of_search(story).evaluations[row].stopped for row in met} == {True, False}


# -- the commands -----------------------------------------------------------------------------------------------------


def test_a_command_is_copied_as_it_is_shown(opened: Opener, story: Story) -> None:
    seen = opened(story)
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    (mark,) = loneliest(marks_of(seen), 1)
    seen.page.mouse.click(mark["x"], mark["y"])
    lines = shown(seen)["commands"]
    assert any(line.startswith("mostool export ") for line in lines)
    buttons = seen.page.locator(".card .command button").all()
    assert len(buttons) == len(lines) >= 2
    for button, line in zip(buttons, lines, strict=True):
        button.click()
        seen.page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
        assert seen.ask("() => navigator.clipboard.readText()") == line
    assert seen.complaints == []


def test_where_the_clipboard_is_closed_the_command_is_selected(opened: Opener, story: Story) -> None:
    seen = opened(story)
    seen.ask(
        """() => {
             navigator.clipboard.writeText = () => Promise.reject(new Error("closed"));
             document.execCommand = () => false;
           }"""
    )
    button = seen.page.locator(".card .command button").first
    button.click()
    seen.page.wait_for_function("button => button.textContent !== 'Copy'", arg=button.element_handle())
    assert "Ctrl+C" in button.inner_text()
    assert seen.ask("() => getSelection().toString().trim()") == shown(seen)["commands"][0]
    assert seen.complaints == []


@pytest.mark.parametrize("text", [MARKUP, QUOTES, DIRECTIONS], ids=["markup", "quotes", "directions"])
def test_a_command_with_a_hostile_name_is_still_one_command(opened: Opener, text: str) -> None:
    story = hostile_twin(make_story(6), text)
    seen = opened(story)
    for mark in loneliest(marks_of(seen), 2):
        place = next(each for each in marks_of(seen) if each["row"] == mark["row"])
        seen.page.mouse.click(place["x"], place["y"])
        card = shown(seen)
        assert card == expected(story, mark["row"])
        for line in card["commands"]:
            words = shlex.split(line)
            assert words[0] == "mostool"
            assert words[words.index("--run") + 1] == legible(story.run or story.title)
            assert "\n" not in line
    assert seen.complaints == []
    assert seen.violations() == []
