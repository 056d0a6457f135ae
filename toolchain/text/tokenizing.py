"""The tokenizer: WordPiece, trained on the training texts alone, the same bytes every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from toolchain.errors import IntegrityError, UsageError

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER_FILE = "tokenizer.json"
_CONTINUED = "##"
_MOST_CHARACTERS = 2000
_CHARACTER_SHARE = 0.75
_BATCH = 4096

Ids = npt.NDArray[np.int32]


def train_tokenizer(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """A WordPiece tokenizer of at most `vocabulary_size` tokens (fewer where the texts hold no more).

    BERT's normaliser (lower case, no accents) and pre-tokeniser; `[CLS] text [SEP]`; SPECIALS are tokens 0 to 4.
    The same texts in the same order give the same tokenizer, which the library alone does not promise: see README.md.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIALS[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet, continued = _characters(tokenizer, texts, vocabulary_size)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[*SPECIALS, *(_CONTINUED + character for character in continued)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUED,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _assemble(tokenizer.get_vocab(with_added_tokens=False), tokenizer)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that `prepare` filled. Text that spells out a special token is text to it.

    Raises:
        UsageError: there is none.
        IntegrityError: the file is not a tokenizer of this kind.
    """
    path = folder / TOKENIZER_FILE
    try:
        data = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no {path}", hint="train first: `mostool train` writes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{path} cannot be read", why=str(error), hint="train again, or get the file anew"
        ) from error
    return parse_tokenizer(data, str(path))


def parse_tokenizer(data: str, where: str) -> Tokenizer:
    """The tokenizer in the text of a tokenizer.json; it neither cuts nor pads.

    Raises:
        IntegrityError: it is none, or its special tokens are not where SPECIALS puts them.
    """
    hint = "train again, or get the file anew"
    try:
        tokenizer = Tokenizer.from_str(data)
    except Exception as error:  # the library raises bare Exception for whatever does not parse
        if type(error) is not Exception:
            raise
        raise IntegrityError(f"{where} is not a tokenizer", why=str(error), hint=hint) from error
    if tuple(tokenizer.id_to_token(number) for number in range(len(SPECIALS))) != SPECIALS:
        raise IntegrityError(f"{where} is not mostool's tokenizer", why="its first tokens are others", hint=hint)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], sequence_length: int, seconds: Sequence[str] | None = None
) -> Ids:
    """One row per text, cut to `sequence_length`, padded with 0. int32 [n, sequence_length].

    `[CLS] tokens [SEP]`, and with second texts `[CLS] first [SEP] second [SEP]`, of which the longer is cut first.
    """
    rows = np.full((len(texts), sequence_length), PAD, dtype=np.int32)
    if seconds is None:
        for row, tokens in zip(rows, _token_lists(tokenizer, texts), strict=True):
            _fill(row, tokens[: sequence_length - 2])
        return rows
    both = zip(rows, _token_lists(tokenizer, texts), _token_lists(tokenizer, seconds), strict=True)
    for row, first, second in both:
        kept, kept_second = _cut_longest_first(len(first), len(second), sequence_length - 3)
        _fill(row, [*first[:kept], SEP, *second[:kept_second]])
    return rows


def encode_blocks(tokenizer: Tokenizer, texts: Sequence[str], sequence_length: int) -> Ids:
    """Every text whole, as rows of `[CLS] tokens [SEP]`; its last row is padded with 0. int32 [n, sequence_length]."""
    size = sequence_length - 2
    blocks = [
        tokens[start : start + size]
        for tokens in _token_lists(tokenizer, texts)
        for start in range(0, len(tokens), size)
    ]
    rows = np.full((len(blocks), sequence_length), PAD, dtype=np.int32)
    for row, block in zip(rows, blocks, strict=True):
        _fill(row, block)
    return rows


def _cut_longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept: as many as `tokenizers` would keep, so the second has an odd one over."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (room - shorter, shorter) if first > second else (shorter, room - shorter)


def _fill(row: Ids, tokens: list[int]) -> None:
    row[0] = CLS
    row[1 : len(tokens) + 1] = tokens
    row[len(tokens) + 1] = SEP


def _token_lists(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [
        encoding.ids
        for start in range(0, len(texts), _BATCH)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
    ]


def _characters(tokenizer: Tokenizer, texts: Sequence[str], vocabulary_size: int) -> tuple[list[str], list[str]]:
    """The characters to know, most frequent first until they fill their share, and those that occur inside words."""
    words: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for character in word:
            counts[character] += count
    room = min(_MOST_CHARACTERS, int((vocabulary_size - len(SPECIALS)) * _CHARACTER_SHARE))
    alphabet: list[str] = []
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        room -= 2 if character in inside else 1
        if room < 0:
            break
        alphabet.append(character)
    return sorted(alphabet), sorted(inside.intersection(alphabet))


def _assemble(vocabulary: dict[str, int], trained: Tokenizer) -> Tokenizer:
    """A tokenizer with that vocabulary whose only special tokens are SPECIALS."""
    tokenizer = Tokenizer(
        models.WordPiece(vocab=vocabulary, unk_token=SPECIALS[UNK], continuing_subword_prefix=_CONTINUED)
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUED)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[CLS]} $A {SPECIALS[SEP]}",
        pair=f"{SPECIALS[CLS]} $A {SPECIALS[SEP]} $B:1 {SPECIALS[SEP]}:1",
        special_tokens=[(SPECIALS[CLS], CLS), (SPECIALS[SEP], SEP)],
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.encode_special_tokens = True
    return tokenizer
