"""What a section of the page is made of. Sections build these; page.html.j2 alone turns them into HTML.

All text is plain text, escaped when the page is rendered; only a chart's drawing is markup, and charts.py makes it from
an element tree that escapes by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup

Tone = Literal["plain", "good", "bad", "warning"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure worth a tile: what it is, its value, and where it comes from."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or some; one that `leads` somewhere is a link to the section of that anchor."""

    text: str
    tone: Tone = "plain"
    leads: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True, slots=True)
class Facts:
    facts: Sequence[Fact]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True, slots=True)
class Points:
    """A bulleted list of sentences."""

    texts: Sequence[str]
    tone: Tone = "plain"
    kind: ClassVar[str] = "points"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head. The first column names its row; the columns in `numbers` are set flush right, those
    in `codes` in a fixed-width face; a last one that is `long` has room before it breaks into lines. A `folded` table
    opens when its caption is chosen; in print it stays closed unless it is to be `printed`. In a table of `subnets` the
    first column has their ids, which lead to their cards."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    codes: frozenset[int] = frozenset()
    folded: bool = False
    printed: bool = False
    subnets: bool = False
    long: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class LegendEntry:
    swatch: Markup
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its legend; `caption` says what to see in it."""

    drawing: Markup
    caption: str
    legend: Sequence[LegendEntry] = ()
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True, slots=True)
class Command:
    """A line for a shell, and what it is good for."""

    purpose: str
    line: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of one subnet, by label and value, and what can be done with it.

    `others` are the cards of all subnets as the page's script reads them (templates/page.js): that of the subnet that
    is chosen in a chart or a table takes this one's place.
    """

    subnet: str
    title: str
    facts: Sequence[tuple[str, str]]
    commands: Sequence[Command]
    others: Markup
    kind: ClassVar[str] = "card"


Block = Paragraph | Facts | Points | Table | Figure | Command | Card


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; `anchor` is its name within the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]
