"""The runner itself: a block that is wrong is found, and said to be where it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.blocks import read_blocks
from docs.session import Session, missing
from docs.typed import complaints, shown

PAGE = """\
# A page

<!-- test: MOSTOOL_TRAIN_UPDATES=60 -->
```sh
printf 'one\\n'
NAME=kept
```

```text
one
```

Not a mark any more.

```sh not-run: needs a Raspberry Pi
mostool profile --device rpi
```

```toml
# mostool.toml
[search]
latency = "80ms"
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with contextlib.closing(Session(tmp_path / "folder", tmp_path / "aside")) as opened:
        yield opened


def test_a_page_is_cut_into_its_blocks(page: Path) -> None:
    first, expected, board, settings = read_blocks(page)
    assert first.marks == ("MOSTOOL_TRAIN_UPDATES=60",)
    assert first.runs
    assert first.where == "page.md:4"
    assert (expected.language, expected.text, expected.marks) == ("text", "one\n", ())
    assert not board.runs
    assert board.reason == "needs a Raspberry Pi"
    assert settings.file == "mostool.toml"


def test_a_block_that_is_not_closed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("```sh\nls\n")
    with pytest.raises(AssertionError, match="not closed"):
        read_blocks(path)


def test_blocks_share_a_session_and_a_failure_names_its_block(page: Path, session: Session) -> None:
    first, _, board, _ = read_blocks(page)
    session.run(first)
    assert session.printed.split() == ["one"]
    session.run(first._replace(text='echo "$NAME" >&2\n'))
    assert session.printed.split() == ["kept"]
    session.mark(first.marks)
    session.run(first._replace(text='echo "$MOSTOOL_TRAIN_UPDATES"\n'))
    assert session.printed.split() == ["60"]
    with pytest.raises(AssertionError, match=r"page\.md:15: a command failed with exit code 3\n(?s:.*)before"):
        session.run(board._replace(text="echo before\n(exit 3) | cat\necho after\n"))


def test_an_unknown_mark_is_an_error(session: Session) -> None:
    with pytest.raises(AssertionError, match="no such mark"):
        session.mark(("boards rpi",))


def test_a_target_measures_in_haste(session: Session) -> None:
    session.mark(("hasty rpi",))
    text = (session.folder / "targets" / "rpi.toml").read_text()
    assert text.count("[measure]") == 1
    assert 'kind = "ssh"' in text
    assert "maximum_s = 0.3" in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mostool profile --device rpi", None),
        ("mostool search --latency 5", "5"),
        ("mostool search --latency 5ms --sise 2MiB", "is it '--size'"),
        ("mostool serch --latency 5ms", "is it 'search'"),
        ("mostool devices show", "Missing argument"),
        ("mostool report one two", "unexpected extra argument"),
        ("MOSTOOL_TRAIN_UPDATES=5 mostool train --config laptop-mlm --dry-run # short", None),
        ("../.venv/bin/mostool search --latency 2ms,5ms --evaluations 20 --json > found.json", None),
        ("mostool verify bundles/* --json 2> /dev/null | python -m json.tool || echo no", None),
        ("code=$(mostool verify bundles/x --spede)", "--spede"),
        ("cd a && mostool report -o page.html; mostool devices lst", "is it 'list'"),
        ("torchrun --nproc-per-node 2 -m toolchain train --acumulate 2", "is it '--accumulate'"),
        ("mostool search --latency rpi=80ms@p90 \\\n  --latencie cpu=5ms", "is it '--latency'"),
        ("cat > x <<'END'\nmostool nonsense\nEND\nmostool devices lst", "is it 'list'"),
        ("pip install mostool", None),
        ("mostool train --help", None),
        ("mostool evaluate --arch '{\"depth\": 1}' --source subnet", None),
    ],
)
def test_what_could_not_be_typed_is_found(line: str, told: str | None) -> None:
    found = complaints(line)
    assert len(found) == (told is not None), found
    if told is not None:
        assert told in found[0]


def test_the_commands_of_a_block_are_known() -> None:
    assert shown("mostool profile --device cpu\necho mostool\nmostool search --latency 5ms && ls") == [
        "profile",
        "search",
    ]


def test_expected_output_is_compared_by_its_lines_without_figures() -> None:
    printed = "name   state\n-----  -----\ncpu    ok\ntook 3 s\n"
    assert missing("name  state\n----------  ---\ncpu ok\ntook 9 s\nand so on ...\n", printed) == []
    assert missing("cpu  bad\n", printed) == ["cpu bad"]
