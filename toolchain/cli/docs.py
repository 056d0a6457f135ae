"""The subcommand that shows the documentation that came with this installation: docs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from toolchain.cli.app import app, common
from toolchain.cli.output import print_result, table

FOLDER = Path(__file__).resolve().parent.parent / "docs"

_COMMENT = re.compile(r"^<!--.*-->$")
_NOT_TRIED = re.compile(r"^(```\w+) not-run: (.+)$")
_LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:]+\.md)(?:#[^)]*)?\)")


@app.command(short_help="the documentation, which travels with mostool")
@click.argument("page", required=False)
@common
def docs(page: str | None, json: bool, quiet: bool, **_: Any) -> None:
    """The documentation, which travels with mostool: its pages, or one of them.

    \b
    mostool docs                       # what pages there are
    mostool docs tutorial              # one of them
    mostool docs add-a-pi | less       # page by page
    """
    from toolchain.errors import UsageError, unknown_name

    pages = find_pages()
    if page is None:
        rows = [[name, title_of(path)] for name, path in pages.items()]
        data = [{"page": name, "title": title, "file": str(pages[name])} for name, title in rows]
        print_result(data, [], table(["page", "title"], rows), as_json=json, quiet=quiet)
        return
    if page not in pages:
        holding = [name for name in pages if page in name]
        if page and holding:
            raise UsageError(f"unknown page: {page!r}", hint=f"did you mean {' or '.join(holding)}?")
        raise unknown_name("page", page, pages)
    text = pages[page].read_text(encoding="utf-8")
    data_of_page = {"page": page, "title": title_of(pages[page]), "file": str(pages[page]), "text": text}
    print_result(data_of_page, [], readable(text, pages[page].parent), as_json=json, quiet=quiet, verbatim=True)


def readable(text: str, folder: Path) -> list[str]:
    """The lines of a page of `folder` for a terminal: without what only the tests read, and links as what is typed."""
    names = {str(path): name for name, path in find_pages().items()}

    def as_typed(link: re.Match[str]) -> str:
        name = names.get(os.path.normpath(folder / link[2]))
        if name is None:
            return link[0]
        return f"`mostool docs {name}`" if link[1].endswith(".md") else f"{link[1]} (`mostool docs {name}`)"

    lines: list[str] = []
    inside = False
    for line in text.strip().splitlines():
        if not inside and _COMMENT.match(line):
            continue
        if not inside and (untried := _NOT_TRIED.match(line)):
            lines += [f"(No test runs this: {untried[2]}.)", ""]
        if line.startswith("```"):
            inside = not inside
            line = line.partition(" ")[0]  # noqa: PLW2901
        elif not inside:
            line = _LINK.sub(as_typed, line)  # noqa: PLW2901
        lines.append(line)
    while lines and not lines[0]:
        del lines[0]
    return lines


def find_pages() -> dict[str, Path]:
    """The pages by name: the tutorial, what to do, what there is, and why, each in the order of the alphabet."""
    kinds = ("tutorial.md", "howto/*.md", "reference/*.md", "explanation/*.md")
    return {path.stem: path for kind in kinds for path in sorted(FOLDER.glob(kind))}


def title_of(path: Path) -> str:
    """A page's first heading."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), path.stem)
