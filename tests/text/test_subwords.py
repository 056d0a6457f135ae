from __future__ import annotations

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text.corpus import collapse
from toolchain.text.subwords import SMALLEST_VOCABULARY, decode_tokens, encode_sentences, train_subwords
from toolchain.text.tokenizing import CLS, MASK, PAD, SEP, SPECIALS, parse_tokenizer

from .conftest import sentences

TEXTS = [
    *sentences(300),
    *(f"Der {noun} mag die „alten“ Häuser Nr. {number} ß." for number in range(40) for noun in ("Fuchs", "Vogel")),
    "🎉 [MASK] [SEP]",
]
ODD = [
    "Ünïcödé Straße — „so“ »nicht«, d’accord?",
    "👩‍👩‍👧 🎉 日本語",
    " leading, trailing ",
    "a  b\tc\nd",
    "the [CLS] fox [SEP] [PAD] [UNK] [MASK]",
    "\u200b\x00\x7f",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_subwords(TEXTS, 500)


@pytest.mark.parametrize("size", [SMALLEST_VOCABULARY, 300, 8000])
def test_training_twice_gives_the_same_bytes(size: int) -> None:
    assert len({train_subwords(TEXTS, size).to_str() for _ in range(4)}) == 1


@pytest.mark.parametrize(("seed", "parallel"), [("1", "true"), ("2", "false"), ("3", "true")])
def test_training_in_another_process_gives_the_same_bytes(tokenizer: Tokenizer, seed: str, parallel: str) -> None:
    code = (
        f"from toolchain.text.subwords import train_subwords; t = train_subwords({TEXTS!r}, 500)\n"
        "from toolchain.files import sha256_bytes; print(sha256_bytes(t.to_str().encode()))"
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == sha256_bytes(tokenizer.to_str().encode())


def test_ties_between_pairs_are_broken_the_same_way_every_time() -> None:
    """Every pair of letters is as frequent as every other: what decides must not be the order of a hash map."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{one}{other}" for one in letters for other in letters] * 2
    assert len({train_subwords(texts, 400).to_str() for _ in range(4)}) == 1


@pytest.mark.parametrize("size", [SMALLEST_VOCABULARY, 400, 8000])
def test_the_vocabulary_keeps_its_size_and_its_special_tokens(size: int) -> None:
    tokenizer = train_subwords(TEXTS, size)
    vocabulary = tokenizer.get_vocab()
    assert SMALLEST_VOCABULARY <= len(vocabulary) <= size
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert tuple(tokenizer.id_to_token(number) for number in range(5)) == SPECIALS
    added = tokenizer.get_added_tokens_decoder()
    assert tuple(added[number].content for number in sorted(added)) == SPECIALS


def test_a_vocabulary_without_room_for_the_bytes() -> None:
    with pytest.raises(UsageError, match="260 is too small") as caught:
        train_subwords(TEXTS, SMALLEST_VOCABULARY - 1)
    assert caught.value.hint


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_come_back(tokenizer: Tokenizer, text: str) -> None:
    again = parse_tokenizer(tokenizer.to_str(pretty=True), "here")
    for one in (tokenizer, again):
        (ids,) = encode_sentences(one, [text])
        assert all(token >= len(SPECIALS) for token in ids)
        assert one.decode(ids) == text
    assert encode_sentences(again, [text]) == encode_sentences(tokenizer, [text])
    assert decode_tokens(tokenizer, encode_sentences(tokenizer, [text])) == [collapse(text)]


@given(text=st.text(max_size=60))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = encode_sentences(tokenizer, [text])
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert all(len(SPECIALS) <= token < tokenizer.get_vocab_size() for token in ids)
    assert bool(ids) == bool(text)


def test_case_is_kept_and_words_are_learned(tokenizer: Tokenizer) -> None:
    fox, noun = encode_sentences(tokenizer, ["the fox", "der Fuchs"])
    assert len(fox) <= 3
    assert len(noun) <= 4
    assert encode_sentences(tokenizer, ["Fox"]) != encode_sentences(tokenizer, ["fox"])


def test_it_adds_no_special_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.encode(text).ids for text in ODD] == encode_sentences(tokenizer, ODD)


def test_decoding_stops_at_the_end_of_a_sentence(tokenizer: Tokenizer) -> None:
    (ids,) = encode_sentences(tokenizer, ["Der Fuchs mag Häuser"])
    rows = [[CLS, *ids, SEP, *ids, PAD], [SEP, *ids], [PAD, *ids, MASK], [], ids]
    text = "Der Fuchs mag Häuser"
    assert decode_tokens(tokenizer, rows) == [text, "", text, "", text]
    assert decode_tokens(tokenizer, []) == []


@given(rows=st.lists(st.lists(st.integers(0, 600), max_size=20), max_size=4))
def test_any_tokens_decode_to_a_line(tokenizer: Tokenizer, rows: list[list[int]]) -> None:
    texts = decode_tokens(tokenizer, rows)
    assert len(texts) == len(rows)
    assert all(text == collapse(text) for text in texts)
