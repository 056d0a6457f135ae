"""Records whose every free text is an attack: markup, templates, directions, quotes, what is no text at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from toolchain.report import Story

MARKUP = "\"'></title></svg></style></script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}&amp;<!--"
DIRECTIONS = "\u202egnp.exe\u2066\u200f\u061c"
NO_TEXT = "a\x00b\x1bc\ud800d\udfffe\u2028f\ufeffg"
QUOTES = "`'\"\\${7*7}'; $(touch hit) #"
EMOJI = "\U0001f469\U0001f3fd\u200d\U0001f680\U0001f1e9\U0001f1eae\u0301"
LONG = "W" * 10_000

_KEYED_BY_NAME = {"files", "versions", "options", "losses", "mixture", "quality", "metrics", "axes", "costs"}
_WORDS = {"role", "source"}
"""Of a story's own parts: what is one of a few words, so never free text."""


def hostile_twin(story: Story, text: str) -> Story:
    """The story with `text` before every text, and every key that is a name, which the records' types let stand.

    Records are read from UTF-8, so they hold no lone surrogate, which the name of a folder may: `?` stands there.
    """
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return Story(
        **{
            name: _poisoned_part(value, text if name in ("title", "remarks", "run") else encodable)
            for name, value in story._asdict().items()
        }
    )


def poisoned(record: Any, text: str) -> Any:
    """A record with `text` before every text, and every key that is a name, which its type lets it stand in."""
    kind, plain = type(record), msgspec.to_builtins(record)

    def holds() -> bool:
        try:
            msgspec.convert(plain, kind)
        except msgspec.ValidationError:
            return False
        return True

    for place, key in list(_texts(plain)):
        before = place[key]
        place[key] = _hostile_name(before, text) if "@" in before else text + before
        if not holds():
            place[key] = before
    for place in list(_named(plain)):
        before = dict(place)
        place.clear()
        place.update({_hostile_name(key, text): value for key, value in before.items()})
        if not holds():
            place.clear()
            place.update(before)
    return msgspec.convert(plain, kind)


def _poisoned_part(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text + value
    if isinstance(value, msgspec.Struct):
        return poisoned(value, text)
    if isinstance(value, Mapping):
        return {text + key: _poisoned_part(held, text) for key, held in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        held = value._asdict().items()
        return type(value)(**{name: part if name in _WORDS else _poisoned_part(part, text) for name, part in held})
    if isinstance(value, (list, tuple)):
        return tuple(_poisoned_part(held, text) for held in value)
    return value


def _hostile_name(key: str, text: str) -> str:
    """A cost has one of a few names; what follows in it is the name of a device."""
    metric, at, device = key.partition("@")
    return f"{metric}@{text}{device}" if at else key if key in ("size_bytes", "parameters") else text + key


def _texts(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Where the texts stand, tuples turned to lists on the way so that they can be changed."""
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if isinstance(value, str):
            yield plain, key
        elif isinstance(value, (dict, list, tuple)):
            if isinstance(value, tuple):
                plain[key] = list(value)
            yield from _texts(plain[key])


def _named(plain: Any) -> Iterator[dict[str, Any]]:
    for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if key in _KEYED_BY_NAME and isinstance(value, dict) and "metric" not in value:
            yield value
        elif isinstance(value, (dict, list)):
            yield from _named(value)
