"""What a fuzzer feeds to parsers: random bytes, files made by a grammar, and valid files spoiled.

Everything is drawn from a `random.Random`, which hypothesis may drive (and shrink) or a plain seed.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

LARGEST_BYTES = 1 << 20
"""Of an input: what a bomb or a doubling may grow to."""

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 5e-324, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "a", "\0", "\ud800", "\U0010ffff", "\u202e", "\u2028", "1"),
    *(
        "../..",
        "/etc/passwd",
        "a" * 5000,
        "\u0665",
        "1e999",
        "NaN",
        [],
        {},
        [[]],
        [None],
        {"": 1},
        [1, "a"],
        [0] * 2000,
    ),
)
ODD_TOML = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "0",
        "-1",
        "9" * 5000,
        "0x" + "f" * 4000,
        "true",
        '""',
        "''",
        "[]",
        "{}",
        "{a={}}",
    ),
    *("1979-05-27", "9999-99-99", "07:32:00", "[[]]", "[1, 'a']", '"\\u0000"', '"\\ud800"', '"\\U0010ffff"', "'''"),
    *("[" * 3000, "{a=" * 1500, '"\u202e"', "1_000", "+1", "0.5", "1e-320", "18446744073709551616", '"a" # "'),
)
ODD_CELLS = (
    *("", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "1_000", "\u0665", "0x10", "1e-400", "9" * 400, '"', '""'),
    *("a" * 200_000, "\0", "1;2", "True", "1.0", "=1+1", "\u202e", "-0.0", "5e-324", "1e308", "2.5ms"),
)
ODD_BYTES = (
    *(b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"NaN", b"Infinity", b"-Infinity", b"1e999"),
    *(b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b'"', b"\\", b"\\ud800", b"\n", b"\r", b",", b"}", b"]", b"\x1b[2J"),
    *(b"\xe2\x80\xae", b"\xe2\x80\xa8", b"-", b"e", b"0x", b"\x1f\x8b"),
)

Make = Callable[[random.Random, Sequence[bytes]], bytes]


def spoiled(rng: random.Random, seeds: Sequence[bytes], grammar: str) -> bytes:
    """One input for a parser whose valid files are like `seeds`, in the grammar json, lines (of JSON), toml or csv."""
    makes: list[Make] = [_noise, _mutated, _mutated, _mutated, _GRAMMARS[grammar], *[_ONE_PLACE[grammar]] * 4]
    made = rng.choice(makes)(rng, seeds)
    if rng.random() < 0.1:
        made = _mutated(rng, [made or b" "])
    return made[:LARGEST_BYTES]


def spoiled_text(rng: random.Random, seeds: Sequence[str], grammar: str = "json") -> str:
    """An argument as a shell hands it on: no NUL; bytes that are no UTF-8 stand there as Python has them."""
    return (
        spoiled(rng, [seed.encode() for seed in seeds], grammar).replace(b"\0", b"").decode("utf-8", "surrogateescape")
    )


# -- bytes -------------------------------------------------------------------------------------------------------------


def _noise(rng: random.Random, _: Sequence[bytes]) -> bytes:
    return bytes(rng.choices(range(256), k=rng.randint(0, 64)))


def _mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to four places flipped, cut, doubled, spliced with another seed or filled with odd bytes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        start, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(7):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[start:]
            case 2:
                del data[start : start + rng.randint(1, 8)]
            case 3:
                data[start:start] = data[start:end] * rng.choice((1, 2, 50))
            case 4:
                data[start:] = rng.choice(seeds)[start:]
            case 5:
                data[start:end] = rng.choice(ODD_BYTES)
            case _:
                data[start:start] = rng.choice(ODD_BYTES)
        del data[LARGEST_BYTES:]
    return bytes(data)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _json(rng: random.Random, _: Sequence[bytes]) -> bytes:
    return json.dumps(_value(rng, 3)).encode()


def _value(rng: random.Random, depth: int) -> Any:
    if not depth or rng.random() < 0.4:
        return _odd(rng)
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    names = ("schema", "axes", "type", "id", "architecture", "latency_s", "", "a")
    return {rng.choice(names): _value(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def _odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD_VALUES))


def _json_place(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to three of its values, keys or members changed."""
    found = json.loads(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = _changed(rng, found)
    return json.dumps(found).encode()


def _changed(rng: random.Random, found: Any) -> Any:
    places = list(_places(found))
    if not places:
        return _odd(rng)
    holder, key = rng.choice(places)
    match rng.randrange(7):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, rng.choice(holder))
        case 1:
            holder[rng.choice(("schema", "a", "", f"{key}s"))] = holder[key]
        case 2:
            other, place = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[place]))
        case 3 if isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((0, 2, 300))
        case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * rng.choice((-1, 0, 0.5, 10, 1e6, 10**12))
        case _:
            holder[key] = _odd(rng)
    return found


def _places(found: Any) -> list[tuple[Any, Any]]:
    """Each value within, as what holds it and by which key."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    places = []
    for key, value in inner:
        places += [(found, key), *_places(value)]
    return places


def _lines(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    return b"\n".join(_json(rng, seeds) for _ in range(rng.randint(0, 4)))


def _lines_place(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One line changed as `_json_place` does; or a line doubled, dropped or moved."""
    lines = rng.choice(seeds).splitlines()
    place = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines.insert(rng.randint(0, len(lines)), lines[place])
        case 1:
            del lines[place]
        case _:
            lines[place] = _json_place(rng, [lines[place]])
    return b"\n".join(lines) + rng.choice((b"\n", b""))


# -- TOML and CSV ------------------------------------------------------------------------------------------------------


def _toml(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    keys = [*re.findall(rb"[\w-]+(?= =)", b"\n".join(seeds)), b"a", b'""', b'"a b"', b"a.b"]
    heads = [*re.findall(rb"^\[.*\]$", b"\n".join(seeds), re.MULTILINE), b"[a]", b"[[a]]", b""]
    lines = []
    for _ in range(rng.randint(0, 6)):
        value = rng.choice(ODD_TOML).encode()
        lines.append(rng.choice(heads) if rng.random() < 0.3 else rng.choice(keys) + b" = " + value)
    return b"\n".join(lines)


def _toml_place(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    lines = rng.choice(seeds).splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        key, is_set, _ = lines[place].partition(b" = ")
        match rng.randrange(6):
            case 0:
                lines.insert(place, lines[place])
            case 1 if len(lines) > 1:
                del lines[place]
            case _ if is_set:
                lines[place] = key + b" = " + rng.choice(ODD_TOML).encode()
            case _:
                lines[place] = rng.choice((b"[a]", b"[[a]]", b"[" + b"a." * 2000 + b"a]", b"[]", b"a"))
    return b"\n".join(lines)


def _csv(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    names = rng.choice(seeds).split(b"\n")[0]
    width = names.count(b",") + 1
    rows = [b",".join(rng.choice(ODD_CELLS).encode() for _ in range(width)) for _ in range(rng.randint(0, 3))]
    return b"\n".join([names, *rows])


def _csv_place(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    rows = [line.split(b",") for line in rng.choice(seeds).split(b"\n") if line]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0:
                rows.insert(rng.randint(0, len(rows)), list(row))
            case 1:
                row.insert(rng.randint(0, len(row)), rng.choice(row) if row else b"")
            case _ if row:
                row[rng.randrange(len(row))] = rng.choice(ODD_CELLS).encode()
            case _:
                row.append(b"1")
    return b"\n".join(b",".join(row) for row in rows)


_GRAMMARS: dict[str, Make] = {"json": _json, "lines": _lines, "toml": _toml, "csv": _csv}
_ONE_PLACE: dict[str, Make] = {"json": _json_place, "lines": _lines_place, "toml": _toml_place, "csv": _csv_place}
