"""The page: its sections in order, and the one place where they become HTML."""

from __future__ import annotations

import functools
from importlib import resources

import jinja2
from markupsafe import Markup

from toolchain.report.islands import legible, script_digest
from toolchain.report.sections.breakdown import breakdown
from toolchain.report.sections.course import course
from toolchain.report.sections.devices import devices
from toolchain.report.sections.distribution import distribution
from toolchain.report.sections.front import front
from toolchain.report.sections.headline import headline
from toolchain.report.sections.latency import latency
from toolchain.report.sections.predictor import predictor
from toolchain.report.sections.provenance import provenance
from toolchain.report.sections.samples import samples
from toolchain.report.sections.sweep import sweep
from toolchain.report.sections.training import training
from toolchain.report.sections.words import words
from toolchain.report.story import Story

# In the order of the page. A section is a function of the story; one that has nothing to show says so in a sentence.
_SECTIONS = (
    *(headline, front, sweep, devices, breakdown, samples, distribution, latency),
    *(predictor, course, training, provenance, words),
)

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("toolchain.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_report(story: Story) -> str:
    """The story as one HTML page that needs nothing but itself: no network, no other file, and no script to be read.

    Its one script (page.js) shows the card of what is chosen in a chart; the page's own policy allows that script by
    its digest, and nothing else. The same story gives the same text. All names in the records are text, whatever they
    hold. Encode it as UTF-8.
    """
    sections = [section(story) for section in _SECTIONS]
    script = _script()
    html = _TEMPLATES.get_template("page.html.j2").render(
        title=story.title,
        sections=sections,
        script=Markup(script),  # noqa: S704 # our own file
        script_digest=script_digest(script),
    )
    return legible(html)


@functools.cache
def _script() -> str:
    """Our own page.js, as it stands in the page."""
    text = resources.files("toolchain.report").joinpath("templates", "page.js").read_text("utf-8")
    if "</" in text or "<!" in text or legible(text) != text:
        raise ValueError("page.js has what would end it, or change it, in the page")
    return text
