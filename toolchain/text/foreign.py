"""The tokenizer of somebody else's pretrained model, renumbered so that every room can read it.

Here the special tokens are SPECIALS, tokens 0 to 4; elsewhere they are spelled otherwise and lie anywhere. So the five
are renamed and moved to the front, everything else keeps its order, and `rows` says which row of the model's embedding
belongs to which token. Cutting text into tokens stays the library's work, with that model's own settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from toolchain.errors import IntegrityError, UsageError
from toolchain.text.opening import shown
from toolchain.text.tokenizing import CLS, SEP, SPECIALS, TOKENIZER_FILE, UNK, parse_tokenizer

T = TypeVar("T")

_ROLES = ("pad", "unk", "cls", "sep", "mask")
_SPELLINGS = (SPECIALS, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"))
_LARGEST_SETTINGS_BYTES = 16 << 20
_LARGEST_VOCABULARY_BYTES = 128 << 20
_MOST_TOKENS = 1 << 20
_GET_AGAIN = "get the checkpoint's folder again"
_KINDS = ("WordPiece", "BPE", "Unigram")
_PLAIN_CLASSES = frozenset(("Bert", "DistilBert", "Electra", "Roberta", "PreTrained"))
"""Whose vocab.txt, or vocab.json and merges.txt, say all there is to say."""
_SPELLED_SPECIAL = r"\[(?=(?:PAD|UNK|CLS|SEP|MASK)\])"
"""The bracket that begins a text which spells out one of SPECIALS."""


class Foreign(NamedTuple):
    """A tokenizer whose tokens 0 to 4 are SPECIALS; `rows[i]` is the checkpoint's own number of token i, int64 [n]."""

    tokenizer: Tokenizer
    rows: npt.NDArray[np.int64]
    title: str


class _Spelled(msgspec.Struct):
    content: str


class _Settings(msgspec.Struct):
    """What is read of tokenizer_config.json and of special_tokens_map.json. None: not said."""

    pad_token: str | _Spelled | None = None
    unk_token: str | _Spelled | None = None
    cls_token: str | _Spelled | None = None
    sep_token: str | _Spelled | None = None
    mask_token: str | _Spelled | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    tokenizer_class: str | None = None


def import_tokenizer(folder: Path) -> Foreign:
    """The tokenizer of a Hugging Face checkpoint: its tokenizer.json, else vocab.txt, else vocab.json and merges.txt.

    It gives the tokens that checkpoint's own tokenizer gives, under new numbers. Text that spells out one of the five
    special tokens is text to it; the checkpoint's other added tokens are found in text as they were.

    Raises:
        UsageError: a file is missing or cannot be read, or the tokenizer is of a kind that is not known here.
        IntegrityError: a file is not what its name says, a special token is missing, or numbers are left out.
    """
    settings = _read_settings(folder / "tokenizer_config.json") or _Settings()
    special = _read_settings(folder / "special_tokens_map.json") or _Settings()
    original, source = _read_original(folder, settings)
    numbers = original.get_vocab(with_added_tokens=True)
    specials = _find_specials(numbers, (special, settings), source)
    _check_numbers(numbers, source)
    document: dict[str, Any] = msgspec.json.decode(original.to_str())
    _apply(settings, document)
    order = _order(numbers, specials, source)
    renamed = dict(zip(specials, SPECIALS, strict=True))
    names = [renamed.get(token, token) for token in order]
    _renumber(document, names, renamed, source)
    tokenizer = parse_tokenizer(msgspec.json.encode(document).decode(), source)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[CLS]} $A {SPECIALS[SEP]}",
        pair=f"{SPECIALS[CLS]} $A {SPECIALS[SEP]} $B:1 {SPECIALS[SEP]}:1",
        special_tokens=[(SPECIALS[CLS], CLS), (SPECIALS[SEP], SEP)],
    )
    if tokenizer.get_vocab(with_added_tokens=True) != {name: number for number, name in enumerate(names)}:
        raise IntegrityError(
            f"the tokens of {source} cannot be renumbered",
            why="an added token lies among the ordinary ones",
            hint="save the tokenizer again with a current transformers: AutoTokenizer.from_pretrained, save_pretrained",
        )
    rows = np.array([numbers[token] for token in order], dtype=np.int64)
    return Foreign(tokenizer, rows, f"{document['model']['type']}, {len(names):,} tokens")


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_original(folder: Path, settings: _Settings) -> tuple[Tokenizer, str]:
    """The checkpoint's tokenizer as the library reads it, and the file it came from."""
    path = folder / TOKENIZER_FILE
    data = _read(path, _LARGEST_VOCABULARY_BYTES)
    if data is not None:
        return _parse(_text(data, path), shown(path)), shown(path)
    pieces, words = folder / "vocab.txt", folder / "vocab.json"
    made: Tokenizer | None = None
    if (data := _read(pieces, _LARGEST_VOCABULARY_BYTES)) is not None:
        path, made = pieces, _wordpiece(_text(data, pieces), pieces, settings)
    elif (data := _read(words, _LARGEST_VOCABULARY_BYTES)) is not None:
        path, made = words, _bytelevel(data, words)
    if made is None:
        raise UsageError(
            f"there is no tokenizer in {shown(folder)}",
            why=f"neither {TOKENIZER_FILE} nor vocab.txt nor vocab.json",
            hint="give the folder of a checkpoint with its tokenizer; save_pretrained of transformers writes one",
        )
    stem = (settings.tokenizer_class or "PreTrained").removesuffix("Fast").removesuffix("Tokenizer")
    if stem not in _PLAIN_CLASSES:
        raise UsageError(
            f"{shown(folder)} needs the tokenizer {settings.tokenizer_class}",
            why=f"{path.name} alone does not say how it cuts text",
            hint=f"save it as {TOKENIZER_FILE} with transformers, if it can be",
        )
    extra = _read(folder / "added_tokens.json", _LARGEST_SETTINGS_BYTES)
    if extra is not None:
        added = _decode(extra, dict[str, int], folder / "added_tokens.json")
        made.add_tokens(sorted(added, key=lambda token: (added[token], token)))
    return made, shown(path)


def _wordpiece(text: str, path: Path, settings: _Settings) -> Tokenizer:
    """BERT's, from vocab.txt: a token a line (and only "\\n" ends one)."""
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {token: number for number, token in enumerate(lines)}
    if len(vocabulary) < len(lines):
        raise IntegrityError(f"{shown(path)} names a token twice", hint=_GET_AGAIN)
    unknown = _spelling(settings, "unk") or SPECIALS[UNK]
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.do_lower_case is not False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _bytelevel(data: bytes, path: Path) -> Tokenizer:
    """RoBERTa's, from vocab.json and the merges.txt beside it."""
    vocabulary = _decode(data, dict[str, int], path)
    beside = path.with_name("merges.txt")
    merges = _read(beside, _LARGEST_VOCABULARY_BYTES)
    if merges is None:
        raise UsageError(f"there is no {shown(beside)}", why=f"{path.name} needs it", hint=_GET_AGAIN)
    lines = _text(merges, beside).replace("\r\n", "\n").split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs) or any(not 0 <= number < _MOST_TOKENS for number in vocabulary.values()):
        raise IntegrityError(f"{shown(path)} and {beside.name} are no byte-level vocabulary", hint=_GET_AGAIN)
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the library raises bare Exception for a merge it cannot make
        if type(error) is not Exception:
            raise
        raise IntegrityError(f"{shown(beside)} does not fit {path.name}", why=str(error), hint=_GET_AGAIN) from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _parse(text: str, where: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:  # bare Exception for whatever does not parse, and where the library panics its own
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise IntegrityError(f"{where} is not a tokenizer", why=str(error), hint=_GET_AGAIN) from error


def _read_settings(path: Path) -> _Settings | None:
    data = _read(path, _LARGEST_SETTINGS_BYTES)
    return None if data is None else _decode(data, _Settings, path)


def _decode(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{shown(path)} cannot be read", why=str(error), hint=_GET_AGAIN) from error


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{shown(path)} is not UTF-8", why=error.reason, hint=_GET_AGAIN) from error


def _read(path: Path, most: int) -> bytes | None:
    """The bytes of a file, None where there is none. Links are followed: the hub's cache is made of them."""
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise UsageError(f"{shown(path)} is not a plain file", hint=_GET_AGAIN)
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {shown(path)}", why=error.strerror or str(error), hint="check the path and its permissions"
        ) from error
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"cannot read {shown(path)!r}", why=str(error), hint="check the path") from error
    if len(data) > most:
        raise IntegrityError(f"{shown(path)} is too large", why=f"more than {most >> 20} MiB", hint=_GET_AGAIN)
    return data


# -- renumbering -------------------------------------------------------------------------------------------------------


def _apply(settings: _Settings, document: dict[str, Any]) -> None:
    """What tokenizer_config.json says counts for more than tokenizer.json, as it does in transformers."""
    normalizer, splitter = document["normalizer"] or {}, document["pre_tokenizer"] or {}
    if normalizer.get("type") == "BertNormalizer":
        said = {
            "lowercase": settings.do_lower_case,
            "strip_accents": settings.strip_accents,
            "handle_chinese_chars": settings.tokenize_chinese_chars,
        }
        normalizer.update((name, value) for name, value in said.items() if value is not None)
    if splitter.get("type") == "ByteLevel" and settings.add_prefix_space is not None:
        splitter["add_prefix_space"] = settings.add_prefix_space


def _spelling(settings: _Settings, role: str) -> str | None:
    said: str | _Spelled | None = getattr(settings, f"{role}_token")
    return said.content if isinstance(said, _Spelled) else said


def _find_specials(numbers: dict[str, int], said: Iterable[_Settings], source: str) -> list[str]:
    """How the checkpoint spells padding, unknown, start, end and mask, in the order of SPECIALS."""
    found = []
    for place, role in enumerate(_ROLES):
        named = [one for one in (_spelling(settings, role) for settings in said) if one is not None]
        usual = [spellings[place] for spellings in _SPELLINGS]
        spelled = next((one for one in named[:1] or usual if one in numbers), None)
        if spelled is None:
            raise IntegrityError(
                f"{source} lacks the {role} token {(named or usual)[0]!r}",
                hint="mostool starts from BERT- and RoBERTa-style checkpoints, whose tokenizers have "
                f"{', '.join(_ROLES)}; is it one, and are special_tokens_map.json and tokenizer_config.json its own?",
            )
        found.append(spelled)
    if len(set(found)) < len(found):
        raise IntegrityError(
            f"{source} uses one token for two purposes",
            why=", ".join(f"{role} {one}" for role, one in zip(_ROLES, found, strict=True)),
            hint="mostool needs five different special tokens",
        )
    return found


def _check_numbers(numbers: dict[str, int], source: str) -> None:
    """They must run from 0 without a gap. (`to_str` prints every number that is left out, be it 2**32 of them.)"""
    if len(numbers) > _MOST_TOKENS:
        raise IntegrityError(
            f"{source} has too many tokens", why=f"{len(numbers):,} of at most {_MOST_TOKENS:,}", hint=_GET_AGAIN
        )
    tokens = sorted(numbers, key=lambda token: (numbers[token], token))
    wrong = next((place for place, token in enumerate(tokens) if numbers[token] != place), None)
    if wrong is not None:
        raise IntegrityError(
            f"the tokens of {source} are not numbered without a gap",
            why=f"at {wrong}: token {tokens[wrong]!r} has the number {numbers[tokens[wrong]]}",
            hint=f"{_GET_AGAIN}, or save its tokenizer again with transformers",
        )


def _order(numbers: dict[str, int], specials: list[str], source: str) -> list[str]:
    """All tokens: the specials, then the others as the checkpoint numbers them."""
    taken = next((name for name in SPECIALS if name in numbers and name not in specials), None)
    if taken is not None:
        raise IntegrityError(
            f"{source} has a token {taken!r} that is none of its special tokens",
            why="mostool needs that name",
            hint="does special_tokens_map.json belong to this tokenizer?",
        )
    rest = set(numbers) - set(specials)
    return [*specials, *sorted(rest, key=lambda token: numbers[token])]


def _renumber(document: dict[str, Any], names: list[str], renamed: dict[str, str], source: str) -> None:
    """Give the tokens of a tokenizer.json their new `names` and numbers (their places there), and drop padding."""
    model = document["model"]
    if model["type"] not in _KINDS:
        raise UsageError(f"{source} is a tokenizer of kind {model['type']}", hint=f"known: {', '.join(_KINDS)}")
    unigram = model["type"] == "Unigram"
    scores = dict(model["vocab"]) if unigram else dict.fromkeys(model["vocab"], 0.0)
    own = {renamed.get(token, token): score for token, score in scores.items()}
    kept = [*SPECIALS, *(name for name in names[len(SPECIALS) :] if name in own)]
    if unigram:
        unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
        model["vocab"] = [[name, own.get(name, 0.0)] for name in kept]
        model["unk_id"] = None if unknown is None else UNK
    else:
        unknown = model["unk_token"]
        model["vocab"] = {name: number for number, name in enumerate(kept)}
        model["unk_token"] = None if unknown is None else SPECIALS[UNK]
    if unknown is not None and renamed.get(unknown) != SPECIALS[UNK]:
        raise IntegrityError(
            f"{source} answers {unknown!r} for what it does not know",
            why="special_tokens_map.json or tokenizer_config.json name another token for that",
            hint=_GET_AGAIN,
        )
    if model["type"] == "BPE":
        model["dropout"] = None  # it would cut the same text differently each time
    places = {name: number for number, name in enumerate(names)}
    others = [
        one | {"id": places[one["content"]], "special": False}
        for one in document["added_tokens"]
        if one["content"] not in renamed
    ]
    document["added_tokens"] = [
        *(_added(number, name) for number, name in enumerate(SPECIALS)),
        *sorted(others, key=lambda one: one["id"]),
    ]
    document |= {"truncation": None, "padding": None, "post_processor": None}
    _part_spelled_specials(document)


def _added(number: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, **flags, "special": True}


def _part_spelled_specials(document: dict[str, Any]) -> None:
    """Keep a model that may see `[MASK]` in one piece from taking it for the token of that name.

    BERT's and RoBERTa's own ways of splitting part brackets from words by themselves.
    """
    splitter = document["pre_tokenizer"]
    kind = (splitter or {}).get("type")
    if kind == "BertPreTokenizer" or (kind == "ByteLevel" and splitter["use_regex"]):
        return
    part = {"type": "Split", "pattern": {"Regex": _SPELLED_SPECIAL}, "behavior": "Isolated", "invert": False}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*([splitter] if splitter else []), part]}
