from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.text import Corpus, read_labelled
from toolchain.text.corpus import MAXIMUM_LABELS, MINIMUM_ITEMS

from .conftest import result_or_refusal, sentences

ROWS = [(text, ("bad", "good")[i % 2]) for i, text in enumerate(sentences(60))]


def _tsv(rows: list[tuple[str, str]], header: str = "sentence\tlabel") -> str:
    return "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"


def _csv(rows: list[tuple[str, str]], header: tuple[str, ...] = ("text", "class")) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    return stream.getvalue()


def _jsonl(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"Review": text, "TARGET": label}) + "\n" for text, label in rows)


def _pairs(corpus: Corpus) -> list[tuple[str, str]]:
    assert corpus.labels is not None
    return [(text, corpus.label_names[label]) for text, label in zip(corpus.texts, corpus.labels, strict=True)]


def _write(folder: Path, name: str, text: str) -> Path:
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def _refused(path: Path, *words: str, text: str | None = None, label: str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_labelled([path], text, label)
    error = caught.value
    assert error.hint
    assert path.name in f"{error} {error.why}"
    for word in words:
        assert word in f"{error.what} {error.why} {error.hint}"
    return error


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", _tsv(ROWS)),
        ("a.tsv.gz", _tsv(ROWS)),
        ("a.csv", _csv(ROWS)),
        ("a.CSV", _csv(ROWS)),
        ("a.csv.gz", "\ufeff" + _csv(ROWS)),
        ("a.jsonl", _jsonl(ROWS)),
        ("a.jsonl.gz", _jsonl(ROWS)),
        ("a.tsv", _tsv(ROWS).replace("\n", "\r\n")),
        ("a.tsv", _tsv(ROWS).rstrip("\n")),
        ("a.tsv", _tsv([(label, text) for text, label in ROWS], "LABEL\t Sentence ")),
    ],
)
def test_every_format_gives_the_same_corpus(tmp_path: Path, name: str, text: str) -> None:
    corpus = read_labelled([_write(tmp_path, name, text)])
    assert _pairs(corpus) == ROWS
    assert corpus.label_names == ("bad", "good")
    assert list(corpus.files) == [name]
    assert corpus.notes == ()
    assert corpus.groups is None


def test_quotes_are_text_in_tsv_and_quotes_in_csv(tmp_path: Path) -> None:
    rows = [*ROWS, ('she said " go', "bad"), ('"quoted"', "good")]
    assert _pairs(read_labelled([_write(tmp_path, "a.tsv", _tsv(rows))]))[-2:] == rows[-2:]
    rows = [*ROWS, ('two, with "quotes"', "bad")]
    assert _pairs(read_labelled([_write(tmp_path, "a.csv", _csv(rows))]))[-1] == rows[-1]


def test_line_ends_inside_csv_quotes_become_spaces(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.csv", _csv([*ROWS, ("first line\nsecond\r\nthird", "bad")]))
    assert read_labelled([path]).texts[-1] == "first line second third"


def test_unusual_separators_do_not_end_a_line(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.tsv", _tsv([*ROWS, ("form\x0cfeed and\u2028line separator", "bad")]))
    assert read_labelled([path]).texts[-1] == "form feed and line separator"


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.csv", _csv(ROWS, ("Phrase", "stars")))
    _refused(path, "'Phrase', 'stars'", "--text-column")
    assert _pairs(read_labelled([path], "phrase", "stars")) == ROWS
    _refused(path, "no column 'phrases'", "'Phrase', 'stars'", text="phrases", label="stars")
    _refused(path, "both column", text="Phrase", label="Phrase")


def test_ambiguous_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sentence,text,label\n" + "".join(f"{text},{text},{label}\n" for text, label in ROWS))
    _refused(path, "more than one column could be the text", "'sentence', 'text', 'label'", "--text-column")
    assert _pairs(read_labelled([path], text_column="text")) == ROWS
    path.write_text("text,label,label\n" + "".join(f"{text},{label},{label}\n" for text, label in ROWS))
    _refused(path, "more than one column could be the label")
    _refused(path, "more than one column 'label'", label="label")


@pytest.mark.parametrize("names", ["sentence1\tsentence2", "premise\thypothesis", "question\tsentence", "text1\ttext2"])
def test_pairs_are_refused(tmp_path: Path, names: str) -> None:
    rows = [(f"{text}\t{text}", label) for text, label in ROWS]
    path = _write(tmp_path, "a.tsv", _tsv(rows, f"{names}\tlabel"))
    _refused(path, "pairs", "--text-column")
    assert _pairs(read_labelled([path], text_column=names.split("\t", maxsplit=1)[0])) == ROWS


def test_a_file_without_header(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "a.tsv", _tsv(ROWS[1:], "\t".join(ROWS[0]))), "header")


def test_blank_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    blank = [("", ""), ("  ", "bad"), ("a text", " ")]
    path = _write(tmp_path, "a.tsv", _tsv(ROWS + blank) + "\n\n")
    corpus = read_labelled([path])
    assert _pairs(corpus) == ROWS
    assert corpus.notes == ("a.tsv: 2 rows without text or label left out",)
    lines = _jsonl(ROWS) + '\n{"Review": null, "TARGET": "bad"}\n'
    corpus = read_labelled([_write(tmp_path, "a.jsonl", lines)])
    assert _pairs(corpus) == ROWS
    assert corpus.notes == ("a.jsonl: 1 row without text or label left out",)


def test_labels_sort_by_value_or_by_spelling(tmp_path: Path) -> None:
    rows = [(text, str(i % 12 - 1)) for i, (text, _) in enumerate(ROWS)]
    assert read_labelled([_write(tmp_path, "a.tsv", _tsv(rows))]).label_names == tuple(str(n) for n in range(-1, 11))
    rows = [(text, ("10", "9", "x")[i % 3]) for i, (text, _) in enumerate(ROWS)]
    assert read_labelled([_write(tmp_path, "b.tsv", _tsv(rows))]).label_names == ("10", "9", "x")


@pytest.mark.parametrize(("value", "name"), [(1, "1"), (2.5, "2.5"), (True, "true")])
def test_json_labels_need_not_be_text(tmp_path: Path, value: object, name: str) -> None:
    lines = [json.dumps({"text": text, "label": value if i % 2 else "other"}) for i, (text, _) in enumerate(ROWS)]
    assert name in read_labelled([_write(tmp_path, "a.jsonl", "\n".join(lines))]).label_names


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "17",
        '{"Review": 3, "TARGET": "bad"}',
        '{"Review": "a", "TARGET": ["bad"]}',
        '{"Review": "\\ud800", "TARGET": "bad"}',
        '{"Review": "a", "TARGET": NaN}',
        '{"Review": "a", "TARGET": ' + "9" * 5000 + "}",
        '{"Review": "a", "TARGET": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_faulty_json_lines_are_named(tmp_path: Path, line: str) -> None:
    _refused(_write(tmp_path, "a.jsonl", _jsonl(ROWS) + line + "\n"), "line 61")


def test_rows_of_the_wrong_width_are_named(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "a.tsv", _tsv([*ROWS, ("a\tb", "bad")])), "line 62", "3 columns", "2")
    _refused(_write(tmp_path, "b.tsv", _tsv(ROWS) + "alone\n"), "line 62", "1 columns")


def test_csv_that_does_not_parse_is_named(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "a.csv", _csv(ROWS) + '"open,bad\n'), "line 62")
    _refused(_write(tmp_path, "b.csv", _csv(ROWS) + '"a"b,bad\n'), "line 62")
    _refused(_write(tmp_path, "c.csv", _csv(ROWS) + "a" * 200_000 + ",bad\n"), "line 62")


def test_labels_out_of_bounds(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "one.tsv", _tsv([(text, "same") for text, _ in ROWS])), "only one label", "'same'")
    many = [(f"text number {i}", f"label {i}") for i in range(MAXIMUM_LABELS + 1)]
    _refused(_write(tmp_path, "many.tsv", _tsv(many)), "1001 different labels")
    assert len(read_labelled([_write(tmp_path, "most.tsv", _tsv(many[:-1]))]).label_names) == MAXIMUM_LABELS


def test_too_few_rows(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "few.tsv", _tsv(ROWS[: MINIMUM_ITEMS - 1])), "too little text", "49 rows")
    assert len(read_labelled([_write(tmp_path, "just.tsv", _tsv(ROWS[:MINIMUM_ITEMS]))]).texts) == MINIMUM_ITEMS
    _refused(_write(tmp_path, "header.tsv", "sentence\tlabel\n"), "too little text")


def test_other_names_and_places(tmp_path: Path) -> None:
    _refused(_write(tmp_path, "a.txt", _tsv(ROWS)), ".tsv", "mlm")
    _refused(_write(tmp_path, "a.gz", _tsv(ROWS)), ".tsv")
    _refused(tmp_path / "missing.tsv", "there is no")
    _refused(tmp_path, "folder")
    with pytest.raises(UsageError, match="no labelled text"):
        read_labelled([])


def test_several_files_are_one_corpus(tmp_path: Path) -> None:
    first = _write(tmp_path, "a.tsv", _tsv(ROWS[:30]))
    second = _write(tmp_path, "b.csv.gz", _csv(ROWS[30:]))
    corpus = read_labelled([first, second])
    assert _pairs(corpus) == ROWS
    assert list(corpus.files) == ["a.tsv", "b.csv.gz"]
    assert corpus.title == "a.tsv and 1 more"
    with pytest.raises(UsageError, match="twice"):
        read_labelled([first, first])


_FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(_FIELD, st.sampled_from(["a", "b", '"', ""])), min_size=45, max_size=60),
    kind=st.sampled_from([".tsv", ".csv", ".jsonl"]),
)
def test_any_table_is_a_corpus_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], kind: str
) -> None:
    text = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}[kind](rows)
    path = _write(tmp_path_factory.getbasetemp(), f"any{kind}", text)
    corpus = result_or_refusal(read_labelled, [path])
    if corpus is not None:
        assert len(corpus.texts) >= MINIMUM_ITEMS
        assert all(text == " ".join(text.split()) != "" for text in corpus.texts)
        assert set(corpus.labels or ()) == set(range(len(corpus.label_names)))


@settings(deadline=None)
@given(data=st.binary(max_size=200), kind=st.sampled_from([".tsv", ".csv", ".jsonl", ".csv.gz"]))
def test_any_bytes_are_a_usage_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{kind}"
    path.write_bytes(b'text,label\ttext\tlabel\n{"text":"a","label":1}\n'[len(data) % 40 :] + data)
    _refused(path)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count", "ones"), [("sst2/train.tsv.gz", 60_614, 33_828), ("cola/train.tsv.gz", 8_551, 6_023)]
)
def test_real_corpora(shared: Path, name: str, count: int, ones: int) -> None:
    corpus = read_labelled([shared / name])
    assert len(corpus.texts) == count  # the figures of the README beside each file
    assert corpus.label_names == ("0", "1")
    assert corpus.labels is not None
    assert sum(corpus.labels) == ones


@pytest.mark.shared
def test_real_pairs_are_refused(shared: Path) -> None:
    _refused(shared / "mrpc" / "train.tsv.gz", "pairs", "'sentence1', 'sentence2'")
