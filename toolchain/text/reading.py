"""Plain text for masked words: files and folders, cut into passages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text.corpus import Corpus, check_size
from toolchain.text.opening import Opened, file_digests, open_text, shown

FEWEST_WORDS = 32
MOST_WORDS = 400
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_SUFFIXES = (".txt", ".txt.gz")


def read_documents(paths: Sequence[Path]) -> Corpus:
    """Plain text as a corpus without labels. An item is a passage: whole lines, in order, blank ones dropped.

    A passage ends at the first blank line after FEWEST_WORDS words (a heading stays with what follows it), or at the
    first line end after MOST_WORDS words where there are no blank lines; a longer line is cut between words. Folders
    are read through: every .txt and .txt.gz below, in order of name, with one entry in `files` for the folder.

    Raises:
        UsageError: a file cannot be read (see `open_text`), a folder holds no text files, or there are fewer than
            MINIMUM_ITEMS passages in all.
    """
    if not paths:
        raise UsageError("no text was given", hint="give files or folders with --data")
    single: list[Opened] = []
    passages: list[str] = []
    folders: dict[str, str] = {}
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            opened = _open_folder(path)
            name = f"{shown(Path(path.resolve().name))}/"
            if name in folders:
                raise UsageError(f"two folders named {name} were given", hint="give the folder that holds both")
            folders[name] = _folder_digest(path, opened)
            notes.append(f"{name}: {len(opened)} files")
        else:
            if path.name.removesuffix(".gz").endswith((".tsv", ".csv", ".jsonl")):
                raise UsageError(
                    f"{shown(path)} is a table, running text is wanted",
                    hint="--task classify reads tables; for masked words give its text as a .txt file",
                )
            opened = [open_text(path)]
            single += opened
        for one in opened:
            passages.extend(_passages(one.text))
    where = shown(paths[0]) if len(paths) == 1 else f"the text of {len(paths)} paths"
    check_size(
        len(passages), where, "passages", f"give more text: {MOST_WORDS} words or a few paragraphs are a passage"
    )
    files = file_digests(single) | folders
    return Corpus(
        texts=tuple(passages),
        labels=None,
        label_names=(),
        groups=None,
        title=title_of(files),
        files=files,
        notes=(*notes, f"{len(passages)} passages of running text"),
    )


def title_of(files: dict[str, str]) -> str:
    """A title for a corpus made of these files."""
    names = list(files)
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _open_folder(folder: Path) -> list[Opened]:
    try:
        paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(_SUFFIXES) and path.is_file())
    except OSError as error:
        raise UsageError(
            f"cannot read {shown(folder)}", why=error.strerror or str(error), hint="check its permissions"
        ) from error
    if not paths:
        raise UsageError(f"{shown(folder)} holds no text", why="no .txt or .txt.gz file", hint="give files by name")
    return [open_text(path) for path in paths]


def _folder_digest(folder: Path, opened: list[Opened]) -> str:
    lines = [f"{shown(one.path.relative_to(folder))} {one.sha256}\n" for one in opened]
    return sha256_bytes("".join(lines).encode())


def _passages(text: str) -> Iterator[str]:
    words: list[str] = []
    for match in _LINE.finditer(text):
        line = match.group().split()
        words += line
        while len(words) >= 2 * MOST_WORDS:
            yield " ".join(words[:MOST_WORDS])
            del words[:MOST_WORDS]
        if len(words) >= (MOST_WORDS if line else FEWEST_WORDS):
            yield " ".join(words)
            words = []
    if words:
        yield " ".join(words)
