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


def _refused(
    path: Path,
    *words: str,
    text: str | None = None,
    label: str | None = None,
    second: str | None = None,
    numeric: bool = False,
) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_labelled([path], text, label, second, numeric=numeric)
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


@pytest.mark.parametrize(
    "names",
    ["sentence1\tsentence2", "premise\thypothesis", "question\tsentence", "TEXT1\t text2 ", "text_a\ttext_b"],
)
def test_pairs_are_found_by_name(tmp_path: Path, names: str) -> None:
    rows = [(f"{text}\tno {text}", label) for text, label in ROWS]
    path = _write(tmp_path, "a.tsv", _tsv(rows, f"{names}\tlabel"))
    corpus = read_labelled([path])
    assert _pairs(corpus) == ROWS
    assert corpus.seconds == tuple(f"no {text}" for text, _ in ROWS)
    assert len(corpus.sha256) == 64
    first, second = names.split("\t")
    assert read_labelled([path], second_column=second) == corpus
    assert read_labelled([path], text_column=first, second_column=second) == corpus
    swapped = read_labelled([path], text_column=second, second_column=first)
    assert (swapped.texts, swapped.seconds) == (corpus.seconds, corpus.texts)
    single = read_labelled([path], text_column=first)
    assert _pairs(single) == ROWS
    assert single.seconds is None
    assert single.sha256 != corpus.sha256 != swapped.sha256


def test_a_second_text_can_be_named(tmp_path: Path) -> None:
    rows = [(f"{text}\tno {text}", label) for text, label in ROWS]
    path = _write(tmp_path, "a.tsv", _tsv(rows, "text\tcontext\tlabel"))
    assert read_labelled([path]).seconds is None
    corpus = read_labelled([path], second_column="Context")
    assert (corpus.texts[0], (corpus.seconds or ())[0]) == (ROWS[0][0], f"no {ROWS[0][0]}")
    for second, words in {
        "sentence2": ("no column 'sentence2'", "'text', 'context', 'label'", "--second-column"),
        "label": ("second and label are both column 'label'", "--second-column"),
        "text": ("no column is known to be the text",),
    }.items():
        _refused(path, *words, second=second)
    _refused(path, "text and second are both column", text="text", second="text")


def test_a_pair_is_not_guessed_at(tmp_path: Path) -> None:
    wide = [(f"{text}\t{text}\t{text}", label) for text, label in ROWS]
    path = _write(tmp_path, "a.tsv", _tsv(wide, "text1\ttext2\ttext\tlabel"))
    _refused(path, "more than one column could be a text of a pair", "--second-column")
    assert read_labelled([path], text_column="text").seconds is None
    half = _write(tmp_path, "b.tsv", _tsv(ROWS, "sentence1\tlabel"))
    _refused(half, "no column is known to be the text", "'sentence1'")
    pairs = _write(tmp_path, "c.tsv", _tsv([(f"{a}\t{a}", b) for a, b in ROWS], "text1\ttext2\tlabel"))
    with pytest.raises(UsageError, match="some hold pairs"):
        read_labelled([pairs, _write(tmp_path, "d.tsv", _tsv(ROWS))])


def test_pairs_that_lack_a_text_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [(f"{text}\tb", label) for text, label in ROWS]
    blank = [("a\t ", "good"), (" \tb", "good"), ("a\tb", "")]
    path = _write(tmp_path, "a.tsv", _tsv(rows + blank, "text1\ttext2\tlabel"))
    corpus = read_labelled([path])
    assert len(corpus.texts) == len(corpus.seconds or ()) == len(ROWS)
    assert corpus.notes == ("a.tsv: 3 rows without both texts or label left out",)
    _refused(_write(tmp_path, "b.tsv", _tsv([*rows, ("alone", "bad")], "text1\ttext2\tlabel")), "line 62", "2 columns")
    same = [(text, "same") for text, _ in rows]
    _refused(_write(tmp_path, "c.tsv", _tsv(same, "text1\ttext2\tlabel")), "only one label")


def test_values_are_read_as_numbers(tmp_path: Path) -> None:
    figures = ["3", "-2.5", "1e-3", " 4.0 ", "+1", "0"]
    rows = [(text, figures[i % 6]) for i, (text, _) in enumerate(ROWS)]
    corpus = read_labelled([_write(tmp_path, "a.tsv", _tsv([*rows, ("a", "")], "sentence\tscore"))], numeric=True)
    assert corpus.values == (3.0, -2.5, 0.001, 4.0, 1.0, 0.0) * 10
    assert (corpus.labels, corpus.label_names) == (None, ())
    assert corpus.notes == ("a.tsv: 1 row without text or label left out",)
    lines = [json.dumps({"text1": text, "text2": "b", "label": i / 7}) for i, (text, _) in enumerate(ROWS)]
    corpus = read_labelled([_write(tmp_path, "a.jsonl", "\n".join(lines))], numeric=True)
    assert corpus.values == tuple(i / 7 for i in range(60))
    assert corpus.seconds == ("b",) * 60


@pytest.mark.parametrize("value", ["good", "nan", "NaN", "inf", "-Infinity", "1e39", "1_000", "1,5", "0x10", "3 4"])
def test_values_that_are_no_finite_numbers_are_named(tmp_path: Path, value: str) -> None:
    rows = [(text, str(i)) for i, (text, _) in enumerate(ROWS)]
    path = _write(tmp_path, "a.tsv", _tsv([*rows, ("a text", value)]))
    _refused(path, "line 62", "'label'", f"{value!r}", "a finite number is wanted", numeric=True)
    lines = "".join(json.dumps({"Review": text, "TARGET": number}) + "\n" for text, number in rows)
    path = _write(tmp_path, "a.jsonl", lines + json.dumps({"Review": "a", "TARGET": value}))
    _refused(path, "line 61", "'TARGET'", numeric=True)


@pytest.mark.parametrize("value", ["true", "9" * 400, "[1]", '"one"'])
def test_json_values_that_are_no_finite_numbers_are_named(tmp_path: Path, value: str) -> None:
    lines = "".join(json.dumps({"Review": text, "TARGET": i}) + "\n" for i, (text, _) in enumerate(ROWS))
    path = _write(tmp_path, "a.jsonl", lines + f'{{"Review": "a", "TARGET": {value}}}')
    _refused(path, "line 61", numeric=True)


def test_one_value_and_few_values(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.tsv", _tsv([(text, "2.5") for text, _ in ROWS]))
    _refused(path, "only one value", "2.5", numeric=True)
    path = _write(tmp_path, "b.tsv", _tsv([(text, str(i)) for i, (text, _) in enumerate(ROWS[:20])]))
    _refused(path, "too little text", "20 rows", numeric=True)


def test_a_file_without_header(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.tsv", _tsv(ROWS[1:], "\t".join(ROWS[0])))
    _refused(path, "header")
    _refused(path, "header", numeric=True)
    pairs = [(f"{text}\t{text}", label) for text, label in ROWS]
    _refused(_write(tmp_path, "b.tsv", _tsv(pairs[1:], "\t".join(pairs[0]))), "header")


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
@pytest.mark.parametrize(("name", "count", "ones"), [("train", 3_668, 2_474), ("dev", 408, 279)])
def test_real_pairs(shared: Path, name: str, count: int, ones: int) -> None:
    corpus = read_labelled([shared / "mrpc" / f"{name}.tsv.gz"])
    assert len(corpus.texts) == len(corpus.seconds or ()) == count
    assert sum(corpus.labels or ()) == ones
    assert corpus.label_names == ("0", "1")
    assert corpus.notes == ()
    assert corpus.texts != corpus.seconds
