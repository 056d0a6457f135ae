"""The reference is written from the code, and says all of it."""

import json
import re
from pathlib import Path

import click
import pytest

from toolchain import records
from toolchain.cli import main
from toolchain.cli.app import app
from toolchain.cli.docs import FOLDER as DOCS
from toolchain.cli.docs import find_pages, readable
from toolchain.cli.reference import FILES, FOLDER, commands, options_of, pages
from toolchain.records import Stored


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == pages()[name], "write it anew: python -m toolchain.cli.reference"


def test_there_is_no_page_that_nothing_writes() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(pages())


def test_every_command_and_option_is_there() -> None:
    text = pages()["commands.md"]
    for words, command, _ in commands():
        assert f"## mostool {' '.join(words)}\n" in text
        for option in options_of(command):
            assert option.opts[-1] in text, words
    assert {words[0] for words, _, _ in commands()} == set(app.commands)


def test_every_key_of_a_settings_file_is_there() -> None:
    text = pages()["settings.md"]
    for name, command in app.commands.items():
        if not isinstance(command, click.Group):
            assert all(f"`MOSTOOL_{name}_{one.name}`".upper() in text.upper() for one in options_of(command))


def test_every_record_with_a_file_of_its_own_is_there() -> None:
    named = {kind for kinds in FILES.values() for kind in kinds}
    stored = {one for one in vars(records).values() if isinstance(one, type) and issubclass(one, Stored)}
    assert stored - named <= {Stored, records.Manifest}  # a Manifest is an AnyManifest with less left out


def test_docs_lists_its_pages_and_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["data"]
    assert [one["page"] for one in listed] == list(find_pages())
    page = (FOLDER / "exit-codes.md").read_text(encoding="utf-8")
    assert main(["docs", "exit-codes"]) == 0
    assert capsys.readouterr().out == page.partition("-->\n")[2].lstrip()
    assert main(["docs", "exit-codes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["text"] == page
    for near, name in {"exit-code": "exit-codes", "search": "search-under-budgets", "add-a-pie": "add-a-pi"}.items():
        assert main(["docs", near]) == 2
        assert f"did you mean {name}?" in capsys.readouterr().err


def test_a_page_is_shown_without_what_only_tests_read(capsys: pytest.CaptureFixture[str]) -> None:
    for name in find_pages():
        assert main(["docs", name]) == 0
        shown = capsys.readouterr().out
        assert not re.search(r"^<!--|^```\w* ", shown, re.MULTILINE), name
        assert "mostool docs README" not in shown
        linked = re.findall(r"\]\(([\w./-]+)\.md\)", shown)
        assert all(link.endswith("README") for link in linked), (name, linked)


def test_a_link_is_shown_as_what_is_typed() -> None:
    text = (
        "\n<!-- test: board -->\n\n[Pi](add-a-pi.md), [measured.md](../explanation/measured.md), [R](../README.md)\n\n"
    )
    block = "```sh not-run: it is typed there\necho '[a](add-a-pi.md)' # <!-- x -->\n<!-- y -->\n```\n"
    assert readable(text + block, DOCS / "howto") == [
        "Pi (`mostool docs add-a-pi`), `mostool docs measured`, [R](../README.md)",
        "",
        "(No test runs this: it is typed there.)",
        "",
        "```sh",
        "echo '[a](add-a-pi.md)' # <!-- x -->",
        "<!-- y -->",
        "```",
    ]


def test_pages_have_names_of_their_own() -> None:
    found = [path for path in DOCS.rglob("*.md") if path.name != "README.md"]
    assert len({path.stem for path in found}) == len(found)
    assert set(find_pages().values()) == set(found)


def test_links_between_pages_lead_somewhere() -> None:
    for path in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / Path(link)).exists(), f"{path}: {link}"
