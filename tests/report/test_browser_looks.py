"""How the page looks in a real browser: at both widths, light and dark, printed, and to those who see or press
differently. Figures are computed by page_looks.js from what the browser really drew."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec
import pytest
from browser import Scheme, Visit
from conftest import Opener
from example_run import make_story, of_search
from large_run import wide_story

from toolchain.report import Story
from toolchain.space import Architecture

WIDTHS = (1280, 390)
LEAST_TEXT_PX = 11
LEAST_TARGET_PX = 24
"""WCAG 2.2, 2.5.8 (AA)."""
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11 (AA)."""
LEAST_LIGHTNESS = 1.35
"""Between parts of a bar: the contrast that two fillings have."""
DATA = ".mark, .point, .ring, .line, .bars, .swatch"


@pytest.fixture(params=[make_story, wide_story], ids=["example", "wide"])
def story(request: pytest.FixtureRequest) -> Story:
    made: Story = request.param()
    return made


def unfold(seen: Visit) -> None:
    seen.ask("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")


def below(found: list[tuple[float, str]], limit: float) -> list[tuple[float, str]]:
    """What is under a limit, two decimals; pages come in many shapes, but never empty."""
    assert found
    return [(round(value, 2), name) for value, name in found if value < limit - 1e-6]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(opened: Opener, story: Story, width: int) -> None:
    seen = opened(story, width=width)
    for _ in range(2):
        wide, window = seen.ask("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= window
        assert seen.look("protruding") == []
        assert seen.look("crowded") == []
        assert seen.look("marksOutside") == []
        unfold(seen)


def test_a_translators_long_shapes_break_into_lines(opened: Opener, story: Story) -> None:
    """The front's last column stands in the page beside all figures, whatever the number of axes."""
    axes = {
        f"{side}_{what}": (2048,) * 6 for side in ("encoder", "decoder") for what in ("heads", "ffn", "cross_heads")
    }
    search = of_search(story)
    long = tuple(
        msgspec.structs.replace(each, architecture=Architecture("translator", {**each.architecture.axes, **axes}))
        for each in search.evaluations
    )
    seen = opened(story._replace(search=msgspec.structs.replace(search, evaluations=long)))
    unfold(seen)
    hidden = seen.ask(
        """() => [...document.querySelectorAll('#front td.long')].map(cell => {
             const wide = cell.closest('.wide');
             return [cell.getBoundingClientRect().right - wide.getBoundingClientRect().right,
               wide.scrollWidth - wide.clientWidth];
           })"""
    )
    assert len(hidden) > 1
    assert max(map(max, hidden)) <= 1


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_is_too_small_and_no_control_too_hard_to_hit(opened: Opener, story: Story, width: int) -> None:
    seen = opened(story, width=width)
    unfold(seen)
    assert below(seen.look("smallest"), LEAST_TEXT_PX) == []
    assert below(seen.look("targets"), LEAST_TARGET_PX) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out(opened: Opener, story: Story, scheme: Scheme) -> None:
    seen = opened(story, scheme=scheme)
    unfold(seen)
    assert below(seen.look("textContrasts"), TEXT_CONTRAST) == []
    assert below(seen.look("markContrasts", DATA), MARK_CONTRAST) == []
    ground = seen.ask("() => getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert (brightness > 600) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_differ_by_more_than_colour(opened: Opener, story: Story, scheme: Scheme) -> None:
    """Two entries of a legend that differ in hue alone are one to many eyes.

    Marks and lines differ by outline, filling or dashes; the parts of a bar, which lie side by side, by lightness.
    """
    for legend in opened(story, scheme=scheme).look("legends"):
        for at, one in enumerate(legend["entries"]):
            for number, other in enumerate(legend["entries"][:at]):
                lighter = one["bar"] and one["apart"][number] >= LEAST_LIGHTNESS
                assert one["form"] != other["form"] or lighter, (legend["chart"], one, other)


def test_it_prints_whole(opened: Opener, story: Story) -> None:
    seen = opened(story, scheme="dark")
    headings = seen.ask("() => [...document.querySelectorAll('h1, h2')].map(each => each.innerText)")
    pdf = seen.page.pdf(format="A4", tagged=True, outline=True)
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 40
    assert [title for title in headings if title not in outline_of(pdf)] == []


def outline_of(pdf: bytes) -> str:
    """The titles of a PDF's bookmarks: literal strings, or UTF-16 in hexadecimal."""
    plain = [
        re.sub(rb"\\(.)", rb"\1", text).decode("latin-1") for text in re.findall(rb"/Title \(((?:\\.|[^)\\])*)\)", pdf)
    ]
    coded = [bytes.fromhex(text.decode()).decode("utf-16") for text in re.findall(rb"/Title <([0-9A-Fa-f]+)>", pdf)]
    return "\n".join([*plain, *coded])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_is_ink_on_paper_and_offers_nothing_to_press(opened: Opener, story: Story, scheme: Scheme) -> None:
    seen = opened(story, scheme=scheme)
    seen.page.emulate_media(media="print", color_scheme=scheme)
    seen.page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    assert seen.ask("() => getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    for what in ("h1", "h2", "figure"):
        assert (
            seen.ask(f"() => [...document.querySelectorAll('{what}')].filter(each => !each.checkVisibility()).length")
            == 0
        )
    assert [button for button in seen.page.get_by_role("button").all() if button.is_visible()] == []
    assert below(seen.look("textContrasts"), TEXT_CONTRAST) == []
    assert below(seen.look("markContrasts", DATA), MARK_CONTRAST) == []
    assert seen.look("protruding") == []


# -- for those who hear the page, or have no mouse --------------------------------------------------------------------


def test_headings_step_down_one_at_a_time(opened: Opener, story: Story) -> None:
    levels = opened(story).ask(
        "() => [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(each => +each.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


NAMELESS = """() => {
  const named = each => each.getAttribute("aria-label")?.trim() || each.textContent.trim()
    || document.getElementById(each.getAttribute("aria-labelledby"))?.textContent.trim();
  return [...document.querySelectorAll("svg:not([aria-hidden=true]), button, a, [role], summary, nav, table")]
    .filter(each => each.tagName === "svg" ? !(each.getAttribute("aria-label")
      || each.getAttribute("aria-labelledby") || each.querySelector(":scope > title")) : !named(each))
    .map(each => each.outerHTML.slice(0, 80));
}"""
UNSOUND = """() => {
  const ids = [...document.querySelectorAll("[id]")].map(each => each.id), faults = [];
  faults.push(...ids.filter((id, at) => ids.indexOf(id) !== at).map(id => `two elements are #${id}`));
  for (const link of document.querySelectorAll("a"))
    if (!document.getElementById(decodeURIComponent(link.hash.slice(1)))) faults.push(`${link.hash} leads nowhere`);
  for (const each of document.querySelectorAll("[role=img] [tabindex], [aria-hidden=true] [tabindex], [role=img] a"))
    faults.push(`hidden from a reader, yet it takes the focus: ${each.outerHTML.slice(0, 80)}`);
  for (const each of document.querySelectorAll("[tabindex]"))
    if (each.tabIndex > 0) faults.push(`out of order: ${each.outerHTML.slice(0, 80)}`);
  for (const head of document.querySelectorAll("thead th"))
    if (head.scope !== "col") faults.push(`a head without a scope: ${head.textContent}`);
  return faults;
}"""


def test_everything_that_matters_has_a_name(opened: Opener, story: Story) -> None:
    seen = opened(story)
    assert seen.ask("() => document.documentElement.lang") == "en"
    assert seen.ask(NAMELESS) == []
    assert seen.ask(UNSOUND) == []
    assert seen.ask("() => document.querySelectorAll('main').length") == 1


FOCUSED = """() => {
  const each = document.activeElement, style = getComputedStyle(each), box = each.getBoundingClientRect();
  return {name: each.outerHTML.slice(0, 80), body: each === document.body,
    outlined: (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1) || style.boxShadow !== "none"
      || (each.ownerSVGElement && parseFloat(style.strokeWidth) >= 2),
    inside: box.bottom > 0 && box.top < innerHeight};
}"""


def test_the_keyboard_goes_through_it_and_shows_where_it_is(opened: Opener, story: Story) -> None:
    seen, stops = opened(story), []
    for _ in range(400):
        seen.page.keyboard.press("Tab")
        focused = seen.ask(FOCUSED)
        if focused["body"]:
            break
        stops.append(focused)
    assert 10 < len(stops) < 250  # not one for each of many marks and rows
    assert [stop["name"] for stop in stops if not (stop["outlined"] and stop["inside"])] == []
