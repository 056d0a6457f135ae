"""The tokenizer of a translation: byte-level BPE, one for both languages, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from toolchain.errors import UsageError
from toolchain.text.corpus import collapse
from toolchain.text.tokenizing import SEP, SPECIALS

SMALLEST_VOCABULARY = 256 + len(SPECIALS)
"""Every byte is a token, so that any text can be spelled: there is no unknown word."""
_BATCH = 4096


def train_subwords(texts: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocabulary_size` tokens (fewer where the texts hold no more).

    Cased, NFC-normalised; `decode(encode(text))` is the text in NFC. SPECIALS are tokens 0 to 4: [CLS] begins a
    sentence for a decoder, [SEP] ends it. The tokenizer adds neither: whoever makes rows of tokens does.
    The same texts give the same tokenizer: all 256 bytes are in the alphabet, numbered before any word is looked at, so
    that the library's order of words, which is random, cannot number them; equally frequent pairs go by number.

    Raises:
        UsageError: the vocabulary has no room for the bytes.
    """
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise UsageError(
            f"a vocabulary of {vocabulary_size} is too small for subwords",
            why=f"the 256 bytes and {len(SPECIALS)} special tokens are part of it",
            hint=f"use {SMALLEST_VOCABULARY} or more; thousands are usual",
        )
    trained = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(_batched(texts), trainer, length=len(texts))
    trained.encode_special_tokens = True
    return trained


def encode_sentences(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without [CLS] or [SEP]."""
    return [
        encoding.ids
        for batch in _batched(texts)
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    ]


def decode_tokens(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row on one line: up to its first [SEP], other special tokens left out.

    Bytes that are no UTF-8, which a model may well produce, become U+FFFD.
    """
    cut = [_until_end([int(token) for token in row]) for row in rows]
    return [collapse(text) for text in tokenizer.decode_batch(cut, skip_special_tokens=True)]


def _until_end(row: list[int]) -> list[int]:
    return row[: row.index(SEP)] if SEP in row else row


def _batched(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _BATCH):
        yield texts[start : start + _BATCH]


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
