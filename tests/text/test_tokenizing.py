from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_bytes
from toolchain.text import Corpus, encode_texts, parse_tokenizer, read_tokenizer, train_tokenizer
from toolchain.text.tokenizing import CLS, PAD, SEP, SPECIALS, TOKENIZER_FILE, encode_blocks

from .conftest import sentences

TEXTS = [*sentences(300), "Ünïcödé wörds, naïve café!", "日本 語", "x = y + 1"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize("size", [64, 1000, 8000])
def test_training_twice_gives_the_same_bytes(prose: Corpus, size: int) -> None:
    texts = prose.texts[:800]
    assert len({train_tokenizer(texts, size).to_str() for _ in range(4)}) == 1


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_training_in_another_process_gives_the_same_bytes(tokenizer: Tokenizer, parallel: str) -> None:
    code = (
        f"from toolchain.text import train_tokenizer; t = train_tokenizer({TEXTS!r}, 400)\n"
        "from toolchain.files import sha256_bytes; print(sha256_bytes(t.to_str().encode()))"
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel, "PYTHONHASHSEED": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == sha256_bytes(tokenizer.to_str().encode())


@pytest.mark.parametrize("size", [64, 100, 400, 8000])
def test_the_vocabulary_keeps_its_size_and_its_special_tokens(size: int) -> None:
    tokenizer = train_tokenizer(TEXTS, size)
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) <= size
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert tuple(tokenizer.id_to_token(number) for number in range(5)) == SPECIALS
    added = tokenizer.get_added_tokens_decoder()
    assert tuple(added[number].content for number in sorted(added)) == SPECIALS


def test_a_vocabulary_is_not_all_alphabet() -> None:
    texts = [chr(0x3B1 + i % 24) + chr(0x430 + i % 32) + " common words" for i in range(400)]
    vocabulary = train_tokenizer(texts, 80).get_vocab()
    assert sum(len(token.removeprefix("##")) > 1 for token in vocabulary) > len(SPECIALS) + 10


def test_texts_keep_their_words(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode("The FOX likes\tthe old  dög number 7 .")
    assert encoded.tokens[0] == "[CLS]"
    assert encoded.tokens[-1] == "[SEP]"
    assert tokenizer.decode(encoded.ids) == "the fox likes the old dog number 7."


def test_rows_are_what_the_tokenizer_file_says(tokenizer: Tokenizer) -> None:
    """The arrays a model is trained on equal what anyone gets from tokenizer.json with the library alone."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    for length in (8, 12, 40):
        plain.enable_truncation(length)
        plain.enable_padding(pad_id=PAD, pad_token="[PAD]", length=length)  # noqa: S106
        expected = np.array([encoding.ids for encoding in plain.encode_batch(TEXTS)], dtype=np.int32)
        rows = encode_texts(tokenizer, TEXTS, length)
        assert rows.dtype == np.int32
        np.testing.assert_array_equal(rows, expected)


def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    rows = encode_texts(parse_tokenizer(tokenizer.to_str(), "here"), ["the [MASK] fox [SEP] [PAD] [CLS]"], 40)
    assert (rows == CLS).sum() == (rows == SEP).sum() == 1
    assert 4 not in rows
    assert rows[0, 0] == CLS


def test_blocks_hold_every_token_once(tokenizer: Tokenizer) -> None:
    texts = [" ".join(TEXTS), "the fox .", "\u200b"]
    rows = encode_blocks(tokenizer, texts, 16)
    assert rows.shape[1] == 16
    assert (rows[:, 0] == CLS).all()
    assert ((rows == SEP).sum(axis=1) == 1).all()
    assert rows[rows > SEP].size + (rows == 1).sum() == sum(
        len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts
    )
    assert (rows[:-2, -1] == SEP).all()  # only the last row of a text is padded


def test_no_texts_give_no_rows(tokenizer: Tokenizer) -> None:
    assert encode_texts(tokenizer, [], 16).shape == (0, 16)
    assert encode_blocks(tokenizer, [], 16).shape == (0, 16)


@settings(deadline=None)
@given(text=st.text(max_size=80), length=st.integers(8, 24))
def test_any_text_gives_a_row(tokenizer: Tokenizer, text: str, length: int) -> None:
    row = encode_texts(tokenizer, [text], length)[0]
    last = int(np.flatnonzero(row)[-1])
    assert row[0] == CLS
    assert row[last] == SEP
    assert (row[last + 1 :] == PAD).all()
    assert (row[1:last] != SEP).all()
    assert row.max() < tokenizer.get_vocab_size()


def test_reading_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True))
    again = read_tokenizer(tmp_path)
    np.testing.assert_array_equal(encode_texts(again, TEXTS, 20), encode_texts(tokenizer, TEXTS, 20))


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff", b"null", b'{"model": {"type": "WordPiece"}}', Tokenizer.from_str.__doc__.encode()]
)
def test_damaged_tokenizers(tmp_path: Path, data: bytes) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        read_tokenizer(tmp_path)
    assert caught.value.hint


def test_a_foreign_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(tokenizer.to_str().replace("[PAD]", "<pad>"))
    with pytest.raises(IntegrityError, match="not mostool's"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("length", range(8, 30))
def test_pairs_are_cut_as_the_library_cuts_them(tokenizer: Tokenizer, length: int) -> None:
    """Longest first, and the odd token as `tokenizers` gives it: what a bundle's example does with tokenizer.json."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.enable_truncation(length)
    plain.enable_padding(pad_id=PAD, pad_token="[PAD]", length=length)  # noqa: S106
    words = " ".join(TEXTS[:4]).split()
    pairs = [(" ".join(words[:first]), " ".join(words[second:])) for first in range(1, 30, 3) for second in range(30)]
    expected = np.array([encoding.ids for encoding in plain.encode_batch(pairs)], dtype=np.int32)
    rows = encode_texts(tokenizer, [one for one, _ in pairs], length, [two for _, two in pairs])
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, expected)


@settings(deadline=None)
@given(first=st.text(max_size=60), second=st.text(max_size=60), length=st.integers(8, 24))
def test_any_pair_gives_a_row(tokenizer: Tokenizer, first: str, second: str, length: int) -> None:
    (row,) = encode_texts(tokenizer, [first], length, [second])
    last = int(np.flatnonzero(row)[-1])
    assert (row[0], row[last]) == (CLS, SEP)
    assert (row == SEP).sum() == 2
    assert (row[last + 1 :] == PAD).all()


def test_a_tokenizer_that_cuts_and_pads_is_read_without(tokenizer: Tokenizer) -> None:
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.enable_truncation(4)
    plain.enable_padding(length=9)
    again = parse_tokenizer(plain.to_str(), "here")
    assert again.to_str() == tokenizer.to_str()
    np.testing.assert_array_equal(encode_texts(again, TEXTS, 20), encode_texts(tokenizer, TEXTS, 20))
