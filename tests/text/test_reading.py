from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.text import read_documents
from toolchain.text.corpus import MINIMUM_ITEMS
from toolchain.text.reading import MOST_WORDS

from .conftest import result_or_refusal, sentences

PARAGRAPHS = [" ".join(sentences(300)[i * 5 : i * 5 + 5]) for i in range(60)]  # 45 words each


def test_paragraphs_are_passages_in_order(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\n \n".join(PARAGRAPHS))
    corpus = read_documents([path])
    assert corpus.texts == tuple(PARAGRAPHS)
    assert corpus.labels is None
    assert corpus.label_names == ()
    assert corpus.title == "book.txt"


def test_a_heading_stays_with_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "wiki.txt"
    path.write_text("\n".join(f" \n = Title = \n \n {text} " for text in PARAGRAPHS))
    assert read_documents([path]).texts == tuple(f"= Title = {text}" for text in PARAGRAPHS)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " "])
def test_text_without_blank_lines_is_cut_and_no_word_is_lost(tmp_path: Path, end: str) -> None:
    lines = sentences(4000)
    path = tmp_path / "lines.txt"
    path.write_bytes(end.join(lines).encode())
    corpus = read_documents([path])
    assert " ".join(corpus.texts) == " ".join(lines)
    assert max(len(text.split()) for text in corpus.texts) < 2 * MOST_WORDS


def test_folders_are_read_through_in_order_of_name(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "b.txt").write_text("\n\n".join(PARAGRAPHS[:30]))
    (folder / "deep" / "er" / "c.txt.gz").write_bytes(gzip.compress("\n\n".join(PARAGRAPHS[30:]).encode()))
    (folder / "notes.md").write_text("not read")
    corpus = read_documents([folder])
    assert corpus.texts == tuple(PARAGRAPHS)
    assert list(corpus.files) == ["texts/"]
    assert corpus.notes[0] == "texts/: 2 files"
    assert str(tmp_path) not in repr(corpus)
    before = corpus.files
    (folder / "b.txt").rename(folder / "a.txt")
    assert read_documents([folder]).files != before


def test_files_and_folders_together(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("\n\n".join(PARAGRAPHS[:30]))
    (tmp_path / "z.text").write_text("\n\n".join(PARAGRAPHS[30:]))
    corpus = read_documents([tmp_path / "texts", tmp_path / "z.text"])
    assert corpus.texts == tuple(PARAGRAPHS)
    assert set(corpus.files) == {"texts/", "z.text"}


def test_a_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    with pytest.raises(UsageError, match="holds no text"):
        read_documents([tmp_path])


def test_the_faulty_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("\n\n".join(PARAGRAPHS))
    (tmp_path / "worse.txt").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(UsageError, match=r"worse\.txt, line 2"):
        read_documents([tmp_path])


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "texts").mkdir(parents=True)
        (tmp_path / parent / "texts" / "a.txt").write_text("\n\n".join(PARAGRAPHS))
    with pytest.raises(UsageError, match="two folders"):
        read_documents([tmp_path / "a" / "texts", tmp_path / "b" / "texts"])


def test_too_little_text(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(PARAGRAPHS[: MINIMUM_ITEMS - 1]))
    with pytest.raises(UsageError, match="too little text") as caught:
        read_documents([path])
    assert "49 passages" in caught.value.why
    path.write_text("\n\n".join(PARAGRAPHS[:MINIMUM_ITEMS]))
    assert len(read_documents([path]).texts) == MINIMUM_ITEMS


def test_no_paths() -> None:
    with pytest.raises(UsageError, match="no text"):
        read_documents([])


def test_a_name_that_is_not_utf8_can_still_be_stored(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("\n\n".join(PARAGRAPHS))
    corpus = read_documents([path])
    assert next(iter(corpus.files)).encode()
    assert corpus.sha256


@settings(deadline=None)
@given(text=st.lists(st.text(max_size=20), max_size=200).map("\n\n".join))
def test_any_text_is_a_corpus_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-document.txt"
    path.write_bytes(text.encode(errors="replace"))
    corpus = result_or_refusal(read_documents, [path])
    if corpus is not None:
        assert len(corpus.texts) >= MINIMUM_ITEMS
        assert all(item == " ".join(item.split()) != "" for item in corpus.texts)


@pytest.mark.shared
def test_wikitext(shared: Path) -> None:
    corpus = read_documents([shared / "wikitext2" / "train.txt.gz"])
    words = sum(len(text.split()) for text in corpus.texts)
    assert words == 2_051_910  # shared/data/wikitext2/README.md
    assert len(corpus.texts) > 5000
