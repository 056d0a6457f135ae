"""From a docstring to the English sentences in it: no doctests, parameter lists, tables or code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolchain.text.corpus import collapse

FEWEST_WORDS = 4
MOST_WORDS = 60
_INDENTED = 4
_LEAST_LETTERS = 0.85

_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]+?)(?:\s*<[^>`]*>)?`")
_QUOTED = re.compile(r"`+([^`]*)`+_*|\*\*?([\w ]+)\*\*?")
_URL = re.compile(r"<?\b(?:https?|ftp)://\S+|\bwww\.\S+")
_LIST_ITEM = re.compile(r"(?:[-*+•o]|\(?\d{1,2}[.)]|\(?[a-z]\)|@\w+|:\w[\w ]*:|\.\.)(?:\s|$)")
_PARAMETER = re.compile(r"[*'\"\w.,=|\[\]() ]{1,40}?(?:\s--?\s|\s:\s|:\s{2,}|(?<![.!?)])\s{2,}|\s=\s|:$)")
_RULE = re.compile(r"[-=~^*#_+|.\s]{3,}$")
_CODE = re.compile(
    r"[{}\\|@~^$<>]|[=!+*/-]=|->|\s=\s|=\w|\w=|\)\.|\]\.|\w\[|\w\.\w+\(|%[srd]|\bself\b|\bRFC-?\d|[\"']{2,}|__"
)
_ENDED = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z])")
_ENDS = (".", "!", "?", '."', ".'", ".)")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|ie|eg|etc|vs|cf|resp|fig|sec|no|Dr|Mr|Ms|St|[A-Z])\.)[\"')\]]*$")


def read_sentences(docstring: str) -> Iterator[str]:
    """The sentences of a docstring that read as English, in order.

    `docstring` is dedented (`ast.get_docstring`, `inspect.cleandoc`). Left out are doctests, paragraphs set in by four
    columns (code, argument lists), list items, tables, headings, addresses, whatever holds operators or brackets of
    code, and sentences of fewer than FEWEST_WORDS or more than MOST_WORDS words.
    """
    for paragraph, complete in _paragraphs(docstring):
        sentences = list(split_sentences(_plain(paragraph)))
        for sentence in sentences:
            whole = sentence.endswith(_ENDS) or (complete and len(sentences) == 1)  # summaries may lack a full stop
            if whole and _reads_as_english(sentence):
                yield sentence


def _paragraphs(docstring: str) -> Iterator[tuple[str, bool]]:
    """Runs of prose lines, each as one line, and whether it ends at a blank line.

    Whatever is no prose (a doctest, a list item, an indented line) takes the lines below it along, up to a blank one.
    """
    lines: list[str] = []
    skipping = False
    for line in [*docstring.expandtabs().splitlines(), ""]:
        words = line.strip()
        indent = len(line) - len(line.lstrip())
        skipping = bool(words) and (skipping or indent >= _INDENTED or _is_layout(words))
        if words and not skipping:
            lines.append(words)
        elif lines:
            yield " ".join(lines), not words
            lines = []


def _is_layout(words: str) -> bool:
    return bool(
        _LIST_ITEM.match(words)
        or _PARAMETER.match(words)
        or _RULE.match(words)
        or words.startswith(("$", "#", "...", "%", ">>>", "usage:"))
    )


def _plain(paragraph: str) -> str:
    """Without markup: roles, back quotes, emphasis and addresses."""
    text = _ROLE.sub(r"\1", paragraph)
    text = _QUOTED.sub(lambda match: match.group(1) or match.group(2) or "", text)
    return collapse(_URL.sub("", text))


def split_sentences(text: str) -> Iterator[str]:
    """A line of text at its sentence ends: a full stop, space, and a capital; not after an abbreviation."""
    start = 0
    for gap in _ENDED.finditer(text):
        if not _ABBREVIATED.search(text, start, gap.end() - len(gap.group()) + len(gap.group().rstrip())):
            yield text[start : gap.end()].strip()
            start = gap.end()
    yield text[start:].strip()


def _reads_as_english(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(character.isalpha() for character in sentence)
    signs = sum(len(word) for word in words)
    return (
        FEWEST_WORDS <= len(words) <= MOST_WORDS
        and sentence.isprintable()
        and sentence[0].isalpha()
        and letters >= _LEAST_LETTERS * signs
        and not _CODE.search(sentence)
        and sum(word.isalpha() for word in words) >= FEWEST_WORDS - 1
        and not sentence.endswith((":", ","))
    )
