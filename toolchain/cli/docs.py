"""The subcommand that shows the documentation that came with this installation: docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolchain.cli.app import app, common
from toolchain.cli.output import print_result, table

FOLDER = Path(__file__).resolve().parent.parent / "docs"


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
    from toolchain.errors import unknown_name

    pages = find_pages()
    if page is None:
        rows = [[name, title_of(path)] for name, path in pages.items()]
        data = [{"page": name, "title": title, "file": str(pages[name])} for name, title in rows]
        print_result(data, [], table(["page", "title"], rows), as_json=json, quiet=quiet)
        return
    if page not in pages:
        raise unknown_name("page", page, pages)
    text = pages[page].read_text(encoding="utf-8")
    data_of_page = {"page": page, "title": title_of(pages[page]), "file": str(pages[page]), "text": text}
    print_result(data_of_page, [], text.rstrip().splitlines(), as_json=json, quiet=quiet, verbatim=True)


def find_pages() -> dict[str, Path]:
    """The pages by name: the tutorial, what to do, what there is, and why, each in the order of the alphabet."""
    kinds = ("tutorial.md", "howto/*.md", "reference/*.md", "explanation/*.md")
    return {path.stem: path for kind in kinds for path in sorted(FOLDER.glob(kind))}


def title_of(path: Path) -> str:
    """A page's first heading."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), path.stem)
