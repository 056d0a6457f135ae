"""What a page's script may read: data as JSON that no HTML parser can mistake for markup, and text that is text."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from markupsafe import Markup

# Characters that are not text: they break parsers (controls, lone surrogates) or show a name as another one
# (direction overrides). Shown as the replacement character.
_NOT_TEXT = dict.fromkeys(
    [
        *(*range(9), *range(11, 32), *range(127, 160)),
        *(*range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        *(*range(0xD800, 0xE000), 0xFFFE, 0xFFFF),
    ],
    "\N{REPLACEMENT CHARACTER}",
)
_NOT_IN_SCRIPT = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def legible(text: str) -> str:
    """The text with a replacement character for all that is none."""
    return text.translate(_NOT_TEXT)


def island(data: Any) -> Markup:
    """`data` as compact JSON for a `<script type="application/json">`.

    Of the markup characters none is left as itself, so no text in it can close the element or open a comment; texts
    are made legible first, since an escaped direction override would come back to life in the script.
    """
    text = json.dumps(_legible_all(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_NOT_IN_SCRIPT))  # noqa: S704 # no markup character is left in it


def script_digest(script: str) -> str:
    """The word by which a content security policy allows exactly this inline script (CSP Level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _legible_all(data: Any) -> Any:
    if isinstance(data, str):
        return legible(data)
    if isinstance(data, dict):
        return {legible(str(name)): _legible_all(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_legible_all(value) for value in data]
    return data
