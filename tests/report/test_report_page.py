"""The page as a whole: sound HTML, self-contained, deaf to hostile names, small and repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from example_run import make_manifest, make_predictor, make_search, make_story
from report_reader import Page

from toolchain import records
from toolchain.report import Story, render_report

HOSTILE = "\"'></title></svg></style><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}&amp;"
KEYED_BY_NAME = {"files", "versions", "options", "losses", "mixture", "quality", "metrics", "axes", "costs"}


def test_the_page_is_sound_html_with_one_heading(story: Story) -> None:
    html = render_report(story)
    page = Page(html)
    assert page.faults == []
    assert html.startswith("<!DOCTYPE html>")
    assert page.tags()["h1"] == 1
    assert page.tags()["title"] > 1  # the page's own and those of the points
    anchors = [held["id"] for _, held in page.elements if "id" in held]
    assert len(anchors) == len(set(anchors)) == 6
    links = [held["href"] for tag, held in page.elements if tag == "a"]
    assert links == [f"#{anchor}" for anchor in anchors]


def test_nothing_on_the_page_comes_from_outside(story: Story) -> None:
    html = render_report(story)
    for reference in ("http://", "https://", "src=", "@import", "url(", "<script", "<link", "javascript:"):
        assert reference not in html
    page = Page(html)
    assert not [name for _, held in page.elements for name in held if name.startswith("on") or name == "style"]
    (policy,) = (held["content"] for _, held in page.elements if held.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_story_gives_the_same_bytes() -> None:
    assert render_report(make_story()) == render_report(make_story())


def test_a_page_of_two_thousand_evaluations_stays_under_a_megabyte() -> None:
    html = render_report(make_story(2000, predictor=make_predictor(2000)))
    assert len(html.encode()) < 1_000_000
    assert len(Page(html).of_class("point")) == 4000


def poisoned(record: Any, kind: type) -> Any:
    """`record` with HOSTILE before every text, and every key that is a name, which its type lets it stand in."""
    plain = msgspec.to_builtins(record)

    def holds() -> bool:
        try:
            msgspec.convert(plain, kind)
        except msgspec.ValidationError:
            return False
        return True

    for place, key in list(_texts(plain)):
        before = place[key]
        place[key] = HOSTILE + before
        if not holds():
            place[key] = before
    for place in list(_named(plain)):
        before = dict(place)
        place.clear()
        place.update({hostile_name(key): value for key, value in before.items()})
        if not holds():
            place.clear()
            place.update(before)
    return msgspec.convert(plain, kind)


def hostile_name(key: str) -> str:
    """A cost has one of a few names; what follows in it is the name of a device."""
    metric, at, device = key.partition("@")
    return f"{metric}@{HOSTILE}{device}" if at else key if key in ("size_bytes", "parameters") else HOSTILE + key


def _texts(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Where the texts stand, tuples turned to lists on the way so that they can be changed."""
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(value, str):
            yield plain, key
        elif isinstance(value, (dict, list, tuple)):
            if isinstance(value, tuple):
                plain[key] = list(value)
            yield from _texts(plain[key])


def _named(plain: Any) -> Iterator[dict[str, Any]]:
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if key in KEYED_BY_NAME and isinstance(value, dict) and "metric" not in value:
            yield value
        elif isinstance(value, (dict, list)):
            yield from _named(value)


def hostile_twin(story: Story) -> Story:
    assert story.predictor is not None
    assert story.search is not None
    assert story.manifest is not None
    return Story(
        title=HOSTILE + story.title,
        checkpoint=poisoned(story.checkpoint, records.CheckpointInfo),
        curve=[poisoned(look, records.TrainingPoint) for look in story.curve],
        predictor=poisoned(story.predictor, records.PredictorInfo),
        search=poisoned(story.search, records.SearchResult),
        manifest=poisoned(story.manifest, records.Manifest),
        versions={HOSTILE + name: HOSTILE + version for name, version in story.versions.items()},
    )


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
    hostile = hostile_twin(clean)
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
        assert HOSTILE in text
        assert text in after.text


def test_what_is_no_text_is_shown_as_such() -> None:
    html = render_report(make_story(title="a\x00b\ud800c\u202ed"))
    assert "a\ufffdb\ufffdc\ufffdd" in html
    html.encode("utf-8")


def without_search() -> Story:
    return make_story(search=None, manifest=None, predictor=None)


def checkpoint_alone() -> Story:
    return make_story(search=None, manifest=None, predictor=None, curve=(), versions={})


def without_export() -> Story:
    return make_story(manifest=None)


def bundle_alone() -> Story:
    return make_story(search=None, predictor=None)


def one_evaluation() -> Story:
    search = make_search(1)
    return make_story(
        search=search, manifest=make_manifest(search.winner), predictor=make_predictor(1), curve=make_story().curve[:1]
    )


def no_evaluation() -> Story:
    search = msgspec.structs.replace(make_search(1), evaluations=(), front=())
    return make_story(search=search, manifest=None, predictor=msgspec.structs.replace(make_predictor(2), points=()))


def nothing_feasible() -> Story:
    search = make_search(9, limit=1e-4)
    return make_story(search=search, manifest=make_manifest(search.winner, limit=1e-4))


@pytest.mark.parametrize(
    "case",
    [
        without_search,
        checkpoint_alone,
        without_export,
        bundle_alone,
        one_evaluation,
        no_evaluation,
        nothing_feasible,
    ],
)
def test_a_story_that_is_not_whole_is_still_a_sound_page(case: Callable[[], Story]) -> None:
    html = render_report(case())
    page = Page(html)
    assert page.faults == []
    assert page.tags()["section"] == 6
    assert "nan" not in {value for _, held in page.elements for value in held.values()}
    assert "None" not in page.text
    assert page.tags()["svg"] == page.tags()["figure"] + len(page.of_class("swatch-box"))
