"""The page: its sections in order, and the one place where they become HTML."""

from __future__ import annotations

import jinja2

from toolchain.report.evidence import warnings
from toolchain.report.sections.front import front
from toolchain.report.sections.headline import headline
from toolchain.report.sections.latency import latency
from toolchain.report.sections.predictor import predictor
from toolchain.report.sections.provenance import provenance
from toolchain.report.sections.training import training
from toolchain.report.story import Story

# In the order of the page. A section is a function of the story; one that has nothing to show says so in a sentence.
_SECTIONS = (headline, front, predictor, training, latency, provenance)

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("toolchain.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# Characters that are not text: they break parsers (controls, lone surrogates) or show a name as another one
# (direction overrides). Shown as the replacement character.
_NOT_TEXT = dict.fromkeys(
    [
        *(*range(9), *range(11, 32), *range(127, 160)),
        *(*range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        *(*range(0xD800, 0xE000), 0xFFFE, 0xFFFF),
    ],
    "\N{REPLACEMENT CHARACTER}",
)


def render_report(story: Story) -> str:
    """The story as one HTML page that needs nothing but itself: no network, no script, no other file.

    The same story gives the same text. All names in the records are text, whatever they hold. Encode it as UTF-8.
    """
    sections = [section(story) for section in _SECTIONS]
    html = _TEMPLATES.get_template("page.html.j2").render(
        title=story.title, sections=sections, warnings=len(warnings(story))
    )
    return html.translate(_NOT_TEXT)
