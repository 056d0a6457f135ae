"""Text in two languages: line i of one file translates line i of the other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import UsageError
from toolchain.text.corpus import check_size, collapse
from toolchain.text.opening import Opened, file_digests, open_text, shown

LARGEST_RATIO = 9
"""A side this many times longer than the other is no translation of it..."""
_RATIO_COUNTS_ABOVE = 30
"""...unless it is no longer than so many characters: a word may well take a phrase."""

_ENDINGS = (".gz", ".txt")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?", re.ASCII)
_NO_LANGUAGES = {"src", "tgt", "trg", "ref", "hyp", "tok", "bpe", "raw", "out", "txt", "low"}
_UNKNOWN = ("source", "target")


class ParallelCorpus(NamedTuple):
    """Sentences and their translations.

    Attributes:
        sources: one entry per pair, whitespace collapsed, never blank.
        targets: the translation of each, likewise.
        languages: from, to; ("source", "target") where nobody said which.
        title: what it is, in a few words.
        files: sha256 of each file read, by base name or package.
        notes: sentences on what was left out and why.
        held_out_share: the part of the pairs that validation and test each take.
        held_out_limit: the most pairs that validation and test each take; None for no limit.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    languages: tuple[str, str]
    title: str
    files: dict[str, str]
    notes: tuple[str, ...] = ()
    held_out_share: float = 0.10
    held_out_limit: int | None = 2000

    @property
    def sha256(self) -> str:
        """The digest of everything in it that can change what a model learns: pairs, languages, files."""
        digest = hashlib.sha256()
        fields: tuple[Sequence[object], ...] = (
            self.sources,
            self.targets,
            self.languages,
            sorted(self.files.items()),
            (self.held_out_share, self.held_out_limit),
        )
        for field in fields:
            digest.update(f"{len(field)};".encode())
            for entry in field:
                data = str(entry).encode()
                digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()


def read_parallel(paths: Sequence[Path]) -> ParallelCorpus:
    """Two text files (each also .gz), the source first: line i of one translates line i of the other.

    Lines end at line feeds alone (a carriage return before one goes); other separators are space within a line. Case is
    kept. The languages are those the names end in (`train.en`, `news.en-de.de.gz`). Pairs with an empty side, and those
    where one side is more than LARGEST_RATIO times as long as the other, are dropped and counted in the notes.

    Raises:
        UsageError: not two files, one cannot be read (see `open_text`), they are the same file or differ in their
            number of lines, or fewer than MINIMUM_ITEMS pairs are left.
    """
    if len(paths) != 2:
        raise UsageError(
            f"a translation is read from 2 files, {len(paths)} were given",
            why="line i of one translates line i of the other",
            hint="give the source and then the target: --data train.en train.de",
        )
    opened = [open_text(path) for path in paths]
    files = file_digests(opened)
    source, target = (_lines(one) for one in opened)
    names = " and ".join(shown(path) for path in paths)
    if len(source) != len(target):
        raise UsageError(
            f"{names} are not parallel",
            why=f"{len(source)} lines in the one, {len(target)} in the other",
            hint="line i of one must translate line i of the other; blank lines count",
        )
    pairs = list(zip(source, target, strict=True))
    whole = [(one, other) for one, other in pairs if one and other]
    kept = [pair for pair in whole if comparable(*pair)]
    notes = (
        *_note(len(pairs) - len(whole), "with an empty side"),
        *_note(len(whole) - len(kept), f"where one side is more than {LARGEST_RATIO} times as long as the other"),
    )
    check_size(len(kept), names, "pairs of lines", "give more lines, in the same order in both files")
    return ParallelCorpus(
        sources=tuple(one for one, _ in kept),
        targets=tuple(other for _, other in kept),
        languages=languages_of(*paths),
        title=" and ".join(files),
        files=files,
        notes=notes,
    )


def comparable(source: str, target: str) -> bool:
    """Whether the one is of a length that can translate the other."""
    shorter, longer = sorted((len(source), len(target)))
    return longer <= _RATIO_COUNTS_ABOVE or longer <= LARGEST_RATIO * shorter


def languages_of(source: Path, target: Path) -> tuple[str, str]:
    """The languages two file names end in, else ("source", "target")."""
    languages = (_language(source.name), _language(target.name))
    return languages if all(languages) and languages[0] != languages[1] else _UNKNOWN


def _language(name: str) -> str:
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    stem, _, ending = name.rpartition(".")
    return ending if stem and _LANGUAGE.fullmatch(ending) and ending not in _NO_LANGUAGES else ""


def _lines(opened: Opened) -> list[str]:
    lines = opened.text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [collapse(line) for line in lines]


def _note(count: int, what: str) -> tuple[str, ...]:
    return (f"{count} {'pair' if count == 1 else 'pairs'} {what} left out",) if count else ()
