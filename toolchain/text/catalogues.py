"""The built-in translations: what the programs on this machine say, in English and in another language.

Read from the message catalogues (gettext's .mo files) that packages install beside their programs: real translations by
people, nothing to download or ship. Catalogues are data of whoever made the package: nothing in one is run, whatever
does not parse is passed over, and what one may cost is bounded.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text.corpus import collapse, same_text_key, shortened
from toolchain.text.opening import shown
from toolchain.text.parallel import ParallelCorpus, comparable

FEWEST_PAIRS = 2000
PREFERRED = "de"
ROOTS = tuple(
    dict.fromkeys(
        Path(prefix) / "share" / folder
        for prefix in ("/usr", "/usr/local", sys.prefix, sys.base_prefix)
        for folder in ("locale", "locale-langpack")
    )
)
"""Where catalogues lie: <root>/<language>/LC_MESSAGES/<package>.mo."""

_LARGEST_CATALOGUE_BYTES = 16 << 20
_MOST_CATALOGUES = 5000
_MOST_MESSAGES = 200_000
_LONGEST_MESSAGE_BYTES = 2000
_LONGEST_TEXT = 500
_MAGIC = 0x950412DE
_NAMED = 4
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:_[A-Z]{2})?(?:@[a-z]+)?", re.ASCII)
_CHARSET = re.compile(rb"charset=([A-Za-z0-9_.:-]{1,40})")

# printf's, Python's, Qt's and the shell's.
_PLACEHOLDER = re.compile(
    r"%%|%(?:\d+\$|\([^)]*\))?[-+ #0']*(?:\*|\d+)?(?:\.(?:\*|\d*))?(?:hh|h|ll|l|L|q|j|z|t)?[A-Za-z]"
    r"|%\d+|\$?\{[^{}]*\}|\$\([^()]*\)|\$\w+"
)
# Tags and entities, addresses, escapes: what is not prose in either language.
_MARKUP = re.compile(r"<[^>]*>|&#?\w+;|https?://|\\[a-zA-Z]\b")
# Paragraphs, indented lines, columns, lists of options, and gnupg's `|context|message`.
_LAYOUT = re.compile(r"\n[ \t]*\n|\n[ \t]|\t|^ *-|\S {3,}\S|\[-|^\|")
# Two letters, or one sign of a script where one can be a word.
_WORD = re.compile(r"[^\W\d_]{2}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_MARK = re.compile(r"[_&](?=\w)")
_MARKED = re.compile(r"[\w&]*[_&]\w[\w&]*")
_MARK_BEHIND = re.compile(r"\s*\([_&]\w\)")
_LEAST_LETTERS = 0.5
_NAMES = re.compile(r"iso_\d+.*")
"""Packages of nothing but names, of languages and places: nobody translates those by rule."""


class _Damaged(Exception):  # noqa: N818 -- never leaves this file
    """A catalogue that is not what its name says."""


class _Catalogue(NamedTuple):
    package: str
    messages: tuple[tuple[str, str], ...]
    sha256: str


class _Read(NamedTuple):
    """The catalogues of one language that could be read, and how many could not."""

    catalogues: tuple[_Catalogue, ...]
    passed_over: int


class _Cleaned(NamedTuple):
    pairs: tuple[tuple[str, str], ...]
    packages: dict[str, int]
    """Pairs by package, the largest first."""


def read_catalogues(language: str | None = None, roots: Sequence[Path] = ROOTS) -> ParallelCorpus:
    """Messages of the packages on this machine, from English to `language` (a folder's name, such as de or pt_BR).

    None means German where there are FEWEST_PAIRS of it, else the language with most pairs. Kept are messages in words
    on both sides that differ, on one line, without markup and keyboard shortcuts; of plurals the plural. A pair that
    several packages share is kept once. The same packages give the same corpus.

    Raises:
        UsageError: fewer than FEWEST_PAIRS pairs; the message says how many, and of which packages.
    """
    folders = _language_folders(roots)
    if language is not None:
        chosen, read = language, _read_language(folders.get(language, []))
        cleaned = _clean(read.catalogues)
    else:
        chosen, read, cleaned = _choose(folders)
    if len(cleaned.pairs) < FEWEST_PAIRS:
        raise _too_few(chosen, cleaned, folders)
    pairs = cleaned.pairs
    digests = {one.package: one.sha256 for one in read.catalogues}
    notes = [f"{len(pairs)} distinct messages of {_named(cleaned)}"]
    if read.passed_over:
        what = "1 catalogue could not be read and was" if read.passed_over == 1 else None
        notes.append(f"{what or f'{read.passed_over} catalogues could not be read and were'} passed over")
    return ParallelCorpus(
        sources=tuple(source for source, _ in pairs),
        targets=tuple(target for _, target in pairs),
        languages=("en", chosen),
        title=f"messages of {len(cleaned.packages)} packages on this machine, en to {chosen}",
        files={package: digests[package] for package in sorted(cleaned.packages)},
        notes=tuple(notes),
    )


def _choose(folders: dict[str, list[Path]]) -> tuple[str, _Read, _Cleaned]:
    """German where there is enough of it, else the language with most pairs (of equals the first by name)."""
    best = (PREFERRED, _Read((), 0), _Cleaned((), {}))
    for language in sorted(folders, key=lambda name: (name != PREFERRED, name)):
        read = _read_language(folders[language])
        cleaned = _clean(read.catalogues)
        if len(cleaned.pairs) > len(best[2].pairs):
            best = (language, read, cleaned)
        if language == PREFERRED and len(cleaned.pairs) >= FEWEST_PAIRS:
            break
    return best


def _named(cleaned: _Cleaned) -> str:
    packages = list(cleaned.packages)
    some = ", ".join(f"{shortened(name)} {cleaned.packages[name]}" for name in packages[:_NAMED])
    rest = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    return f"{len(packages)} {'package' if len(packages) == 1 else 'packages'} ({some}{rest})" if some else "no package"


def _too_few(language: str, cleaned: _Cleaned, folders: dict[str, list[Path]]) -> UsageError:
    known = f"; languages found: {', '.join(sorted(folders)[:20])}" if folders and language not in folders else ""
    return UsageError(
        f"this machine has too few translations from en to {shortened(language)}",
        why=f"{len(cleaned.pairs)} messages of {_named(cleaned)}, at least {FEWEST_PAIRS} are needed{known}",
        hint="install language packs, or give --data train.en train.de",
    )


# -- finding -----------------------------------------------------------------------------------------------------------


def _language_folders(roots: Sequence[Path]) -> dict[str, list[Path]]:
    """For each language but English its LC_MESSAGES folders, in order of `roots`."""
    folders: dict[str, list[Path]] = {}
    for root in roots:
        for path in _listed(root):
            if _LANGUAGE.fullmatch(path.name) and re.split("[_@]", path.name)[0] != "en":
                messages = path / "LC_MESSAGES"
                if _listed(messages):
                    folders.setdefault(path.name, []).append(messages)
    return folders


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read_language(folders: Sequence[Path]) -> _Read:
    """Every catalogue once: by its content and by its package's name, of which the first root's counts."""
    catalogues: dict[str, _Catalogue] = {}
    digests: set[str] = set()
    passed_over = 0
    paths = [
        path
        for folder in folders
        for path in _listed(folder)
        if path.suffix == ".mo" and not _NAMES.fullmatch(path.stem)
    ]
    for path in paths[:_MOST_CATALOGUES]:
        try:
            catalogue = _read_catalogue(path)
        except _Damaged:
            passed_over += 1
            continue
        if catalogue.package not in catalogues and catalogue.sha256 not in digests:
            catalogues[catalogue.package] = catalogue
            digests.add(catalogue.sha256)
    ordered = sorted(catalogues.values(), key=lambda catalogue: catalogue.package)
    return _Read(tuple(ordered), passed_over + max(0, len(paths) - _MOST_CATALOGUES))


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_catalogue(path: Path) -> _Catalogue:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise _Damaged("not a plain file")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_CATALOGUE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _Damaged(str(error)) from error
    if len(data) > _LARGEST_CATALOGUE_BYTES:
        raise _Damaged("too large")
    return _Catalogue(shown(Path(path.stem)), tuple(_messages(data)), sha256_bytes(data))


def _messages(data: bytes) -> Iterator[tuple[str, str]]:
    """The messages of a .mo file and their translations, as they are but for contexts and plurals.

    Raises:
        _Damaged: it is none, it refers to what is not in it, or its text is not of the encoding it names.
    """
    order = "<" if data[:4] == struct.pack("<I", _MAGIC) else ">"
    try:
        magic, revision, count, sources, targets = struct.unpack_from(f"{order}5I", data)
        if magic != _MAGIC or revision >> 16 > 1 or count > _MOST_MESSAGES:
            raise _Damaged("not a message catalogue")
        where = [struct.unpack_from(f"{order}{2 * count}I", data, table) for table in (sources, targets)]
    except struct.error as error:
        raise _Damaged(str(error)) from error
    if sum(min(size, _LONGEST_MESSAGE_BYTES) for table in where for size in table[::2]) > 2 * len(data):
        raise _Damaged("its messages overlap")
    raw: list[tuple[bytes, bytes]] = []
    for place in range(0, 2 * count, 2):
        spans = [(table[place + 1], table[place]) for table in where]
        if any(start + size > len(data) for start, size in spans):
            raise _Damaged("a message is cut off")
        source, target = (
            # No more is needed to see that a message is too long.
            data[start : start + min(size, _LONGEST_MESSAGE_BYTES + 1)]
            for start, size in spans
        )
        raw.append((source, target))
    found = next((_CHARSET.search(target) for source, target in raw if not source), None)
    charset = found.group(1).decode("ascii") if found else "utf-8"
    for source, target in raw:
        if source and target and max(len(source), len(target)) <= _LONGEST_MESSAGE_BYTES:
            yield _decoded(source, charset), _decoded(target, charset, last=True)


def _decoded(message: bytes, charset: str, *, last: bool = False) -> str:
    """The text of a message: without its context, and of its plural forms the last."""
    try:
        text = message.decode(charset)
    except (LookupError, ValueError) as error:
        raise _Damaged(str(error)) from error
    text = text if last else text.rpartition("\4")[2]
    return text.rpartition("\0")[2]


# -- cleaning ----------------------------------------------------------------------------------------------------------


def _clean(catalogues: Sequence[_Catalogue]) -> _Cleaned:
    """Every pair that reads as text, once, in the order of packages and their catalogues."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    packages: dict[str, int] = {}
    for catalogue in catalogues:
        for message in catalogue.messages:
            pair = _cleaned(*message)
            if pair is None:
                continue
            key = (same_text_key(pair[0]), same_text_key(pair[1]))
            if key not in first:
                first[key] = pair
                packages[catalogue.package] = packages.get(catalogue.package, 0) + 1
    ordered = dict(sorted(packages.items(), key=lambda item: (-item[1], item[0])))
    return _Cleaned(tuple(first.values()), ordered)


def _cleaned(source: str, target: str) -> tuple[str, str] | None:
    """The pair on one line each, without shortcuts; None where it is no text or not translated."""
    source, target = source.strip("\n"), target.strip("\n")
    if any(len(text) > _LONGEST_TEXT or _LAYOUT.search(text) or _MARKUP.search(text) for text in (source, target)):
        return None
    source, target = _without_marks(collapse(source), collapse(target))
    reads = source.isprintable() and target.isprintable() and _has_words(source) and _has_words(target)
    translated = same_text_key(source) != same_text_key(target)
    return (source, target) if reads and translated and comparable(source, target) else None


def _has_words(text: str) -> bool:
    """Whether letters are most of it, placeholders aside, and two of them (or one that is a word) stand together."""
    plain = _PLACEHOLDER.sub(" ", text)
    signs = sum(not character.isspace() for character in plain)
    letters = sum(character.isalpha() for character in plain)
    return letters >= _LEAST_LETTERS * signs and bool(_WORD.search(plain))


def _without_marks(source: str, target: str) -> tuple[str, str]:
    """Without the marks of keyboard shortcuts: `_File`, `E_xit`, `&Open`, and `(_F)` behind a name in other scripts.

    A mark inside a word counts only where both sides have one. What stands in both sides as it is (`_start`, `AT&T`) is
    a name and keeps its sign, and so do both sides where one of them has several marks or has its mark inside
    something that is no word (`KP_Enter`, `max_value`).
    """
    source, target = (_MARK_BEHIND.sub("", text) for text in (source, target))
    marked = [_MARKED.findall(text) for text in (source, target)]
    words = [word for found in marked for word in found]
    names = max(map(len, marked)) > 1 or len({word.casefold() for word in words}) < len(words)
    titled = source.lstrip("_&")[:1].isupper() and len(words) == 2
    if names or not all(_is_shortcut(word, inside=titled) for word in words):
        return source, target
    return _MARK.sub("", source), _MARK.sub("", target)


def _is_shortcut(word: str, *, inside: bool) -> bool:
    """Whether the only mark of `word` begins it, or (where that is looked for) stands before a small letter in it."""
    before, *rest = _MARK.split(word)
    return len(rest) == 1 and (not before or (inside and rest[0][0].islower()))
