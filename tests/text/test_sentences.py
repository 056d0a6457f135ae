from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.text.sentences import FEWEST_WORDS, MOST_WORDS, read_sentences, split_sentences

DOCSTRING = inspect.cleandoc(
    """
    Open the stream and return a reader

    The reader keeps its place (e.g. after a pause), and can be closed
    twice. See :meth:`Stream.close` for what happens then. It takes ``text`` too.

    Usage is simple and looks like this, as everybody knows:

    >>> stream = open_stream("here")
    >>> stream.read()
    'some words that look like prose to the reader.'

    Arguments:

        place -- where the stream is to be found, a path or an address.
        mode: how it is to be opened by the reader.

    :param place: where the stream is to be found by the reader.
    :returns: a reader that can be closed.

    - a list item with many words that goes on
      over two lines, as list items often do.

    ============  ===========================
    column one    column two has some words.
    ============  ===========================

    if place == "here": return None and some more words.
    https://example.invalid/a/page/with/a/long/address
    Closing the reader closes the stream below it, too.

    Too short this.
    """
)


def test_only_the_english_of_a_docstring_is_kept() -> None:
    assert list(read_sentences(DOCSTRING)) == [
        "Open the stream and return a reader",
        "The reader keeps its place (e.g. after a pause), and can be closed twice.",
        "See Stream.close for what happens then.",
        "It takes text too.",
        "Closing the reader closes the stream below it, too.",
    ]


def test_what_follows_code_without_a_blank_line_is_dropped_with_it() -> None:
    assert list(read_sentences(">>> 1 + 1\nA line of words that is output.\n\nA line of words that is not.")) == [
        "A line of words that is not."
    ]


def test_a_sentence_that_a_list_cuts_short_is_dropped() -> None:
    assert list(read_sentences("This one is whole and ends. The other is cut by\n- a list of things")) == [
        "This one is whole and ends."
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Return the {name} of the given thing.",
        "The value a = b is used here instead.",
        "It calls self when there is time left.",
        "One two three.",
        " ".join(["word"] * (MOST_WORDS + 1)) + ".",
        "It matches \\d and all of its friends.",
        "The \ud800 surrogate is not for printing here.",
        "12 monkeys were seen in the old garden.",
    ],
)
def test_code_and_extremes_are_dropped(line: str) -> None:
    assert list(read_sentences(line)) == []


def test_two_spaces_after_a_full_stop_are_no_table() -> None:
    assert list(read_sentences("Return the first one.  Where there is none, return the last.")) == [
        "Return the first one.",
        "Where there is none, return the last.",
    ]


def test_abbreviations_and_initials_do_not_end_a_sentence() -> None:
    text = "It was written by A. Author, i.e. Someone, in a hurry. Then it was read! Was it? Yes."
    assert list(split_sentences(text)) == [
        "It was written by A. Author, i.e. Someone, in a hurry.",
        "Then it was read!",
        "Was it?",
        "Yes.",
    ]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_splitting_loses_nothing_but_space(text: str) -> None:
    line = " ".join(text.split())
    assert " ".join(" ".join(split_sentences(line)).split()) == line


@settings(deadline=None)
@given(st.text(st.sampled_from("aB .\n-:=>(`*'\t"), max_size=200))
def test_any_docstring_gives_clean_sentences(text: str) -> None:
    for sentence in read_sentences(text):
        assert sentence == " ".join(sentence.split())
        assert FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS
