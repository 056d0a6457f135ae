"""Pages of the documentation, cut into their fenced blocks. The marks are explained in README.md beside this file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "toolchain" / "docs"
LANGUAGES = {"sh", "python", "toml", "json", "text"}

_FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")
_MARK = re.compile(r"<!-- test: (.+) -->")
_FILE = re.compile(r"# ([\w./-]+\.toml)\b")


class Block(NamedTuple):
    """A fenced block. `line` is that of its opening fence, from 1; `marks` are those of the comments right above it."""

    page: Path
    line: int
    language: str
    words: str
    text: str
    marks: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether the block is carried out: each one is, but for those that say why not and for pages that list."""
        if self.language not in {"sh", "python"} or self.words.startswith("not-run"):
            return False
        return self.words == "run" or not lists(self.page)

    @property
    def reason(self) -> str | None:
        """Why it is not run: what stands behind `not-run:`; empty where nothing does."""
        return self.words.partition(":")[2].strip() if self.words.startswith("not-run") else None

    @property
    def file(self) -> str | None:
        """The file that a block of TOML is: its first line says so in a comment."""
        found = _FILE.match(self.text) if self.language == "toml" else None
        return found[1] if found else None


def pages() -> list[Path]:
    """README.md and every page of toolchain/docs."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def lists(page: Path) -> bool:
    """Whether the page shows commands side by side, rather than steps that follow one another."""
    return page.name == "README.md" or (DOCS / "reference") in page.parents


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order. An unclosed one is an error, since the rest of the page is in it."""
    found: list[Block] = []
    marks: list[str] = []
    lines = enumerate(page.read_text().splitlines(), 1)
    for number, line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None:
            mark = _MARK.fullmatch(line.strip())
            if mark is not None:
                marks.append(mark[1])
            elif line.strip():
                marks.clear()
            continue
        inside = []
        for _, text in lines:
            if text.strip() == opening[1]:
                break
            inside.append(f"{text}\n")
        else:
            raise AssertionError(f"{page}:{number}: this block is not closed")
        language, _, words = opening[2].strip().partition(" ")
        found.append(Block(page, number, language, words.strip(), "".join(inside), tuple(marks)))
        marks.clear()
    return found
