"""Reading a page back, as a browser would: its tags in balance, its text and its tables."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

from toolchain.report.blocks import Figure, Paragraph, Section, Table

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), its text, and whatever is not in balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text of the page, runs of space as one."""
        return " ".join(" ".join(self.words).split())

    def tags(self) -> Counter[str]:
        return Counter(tag for tag, _ in self.elements)

    def of_class(self, *names: str) -> list[dict[str, str | None]]:
        """The attributes of the elements that have all these classes."""
        return [held for _, held in self.elements if set(names) <= set((held.get("class") or "").split())]


def sentences(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def drawings(section: Section) -> list[Page]:
    return [Page(str(block.drawing)) for block in section.blocks if isinstance(block, Figure)]
