from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer

from toolchain.errors import IntegrityError, UsageError
from toolchain.progress import Progress, silent
from toolchain.records import Data
from toolchain.text import (
    Corpus,
    data_digest,
    encode_texts,
    find_prepared,
    prepare,
    read_documents,
    read_examples,
    read_labelled,
    read_split,
    read_tokenizer,
    split_corpus,
    train_tokenizer,
)
from toolchain.text.dataset import DATA_FILE, EXAMPLES_FILE, PREPARED_FILE
from toolchain.text.tokenizing import CLS, SEP, TOKENIZER_FILE

from .conftest import corpus

FILES = {TOKENIZER_FILE, DATA_FILE, EXAMPLES_FILE, PREPARED_FILE}
SETTINGS = {"sequence_length": 16, "vocabulary_size": 300, "seed": 0}


def _prepare(folder: Path, whole: Corpus, task: str = "classify", **changes: object) -> Data:
    return prepare(whole, **{"task": task, **SETTINGS, "folder": folder, "listener": silent, **changes})  # type: ignore[arg-type]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_classification(tmp_path: Path) -> None:
    whole = corpus(500, labels=3)
    data = _prepare(tmp_path / "data", whole)
    parts = split_corpus(whole, seed=0)
    tokenizer = read_tokenizer(tmp_path / "data")
    assert set(_contents(tmp_path / "data")) == FILES
    for name, part in parts.named():
        split = read_split(tmp_path / "data", name)
        assert split.ids.dtype == np.int32
        assert split.labels is not None
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.ids, encode_texts(tokenizer, part.texts, 16))
        np.testing.assert_array_equal(split.labels, part.labels)
        assert len(split.ids) == getattr(data, name)
    assert data.labels == whole.label_names
    assert data.files == whole.files
    assert data.title == whole.title


def test_majority_share_is_of_the_label_that_training_sees_most(tmp_path: Path) -> None:
    whole = corpus(100)._replace(labels=(0,) * 60 + (1,) * 40)
    other = corpus(60)._replace(texts=tuple(f"other text {i}" for i in range(60)), labels=(1,) * 45 + (0,) * 15)
    data = _prepare(tmp_path, whole, held_out=other)
    test = read_split(tmp_path, "test").labels
    assert test is not None
    assert data.majority_share == np.mean(test == 0) < 0.5
    assert data.files == {"made.txt": "0" * 64, "made.txt (held out)": "0" * 64}
    assert (data.train, data.validation, data.test) == (100, 30, 30)


def test_masked_words(tmp_path: Path) -> None:
    whole = corpus(500, labels=0)._replace(texts=tuple(" ".join([text] * 4) for text in corpus(500).texts))
    data = _prepare(tmp_path, whole, "mlm")
    split = read_split(tmp_path, "train")
    assert split.labels is None
    assert data.labels == ()
    assert data.majority_share is None
    assert data.train == len(split.ids) > 400
    assert (split.ids[:, 0] == CLS).all()
    assert ((split.ids == SEP).sum(axis=1) == 1).all()


def test_labelled_text_can_train_masked_words(tmp_path: Path) -> None:
    assert _prepare(tmp_path, corpus(), "mlm").labels == ()
    assert read_split(tmp_path, "test").labels is None


def test_the_tokenizer_knows_nothing_of_held_out_text(tmp_path: Path) -> None:
    whole = corpus(200)
    marked = whole._replace(texts=(*whole.texts[:-1], "the only text with ж ж ж"))
    known = 0
    for seed in range(12):
        _prepare(tmp_path, marked, seed=seed)
        in_train = any("ж" in text for text in split_corpus(marked, seed=seed).train.texts)
        assert ("ж" in read_tokenizer(tmp_path).get_vocab()) == in_train
        known += in_train
    assert 0 < known < 12


def test_examples_show_every_label_in_turn(tmp_path: Path) -> None:
    whole = corpus(500, labels=3)
    _prepare(tmp_path, whole)
    examples = read_examples(tmp_path)
    test = split_corpus(whole, seed=0).test
    named = {(text, whole.label_names[label]) for text, label in zip(test.texts, test.labels or (), strict=True)}
    assert len(set(examples)) == 8
    assert {(example.text, example.label) for example in examples} <= named
    assert {example.label for example in examples[:3]} == set(whole.label_names)


def test_examples_of_running_text_are_sentences(tmp_path: Path) -> None:
    line = "= Heading = A short one. This sentence number {} is of a good length. " + "X " * 50
    texts = tuple(line.format(i) for i in range(100))
    _prepare(tmp_path, corpus(100, labels=0)._replace(texts=texts), "mlm")
    examples = read_examples(tmp_path)
    assert len(examples) == 8
    for example in examples:
        assert example.text.startswith("This sentence number")
        assert example.text.endswith("length.")
        assert example.label is None


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, prose: Corpus) -> None:
    first = _prepare(tmp_path / "a", prose, vocabulary_size=4000, sequence_length=64)
    again = _prepare(tmp_path / "b", prose, vocabulary_size=4000, sequence_length=64)
    assert first == again
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")
    assert first.majority_share is not None
    assert 0.1 < first.majority_share < 0.4


def test_a_complete_folder_is_left_as_it_is(tmp_path: Path) -> None:
    steps: list[Progress] = []
    data = _prepare(tmp_path, corpus(), listener=steps.append)
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert _prepare(tmp_path, corpus(), listener=steps.append) == data
    assert len(steps) == 4
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert data.sha256 == data_digest(corpus(), task="classify", sequence_length=16, vocabulary_size=300, seed=0)
    assert find_prepared(tmp_path, data.sha256) == data
    assert find_prepared(tmp_path, "0" * 64) is None
    assert find_prepared(tmp_path / "nowhere", data.sha256) is None


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_folder_is_made_anew(tmp_path: Path, name: str, damage: str) -> None:
    data = _prepare(tmp_path, corpus())
    before = _contents(tmp_path)
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(before[name][:-2])
    assert find_prepared(tmp_path, data.sha256) is None
    assert _prepare(tmp_path, corpus()) == data
    assert _contents(tmp_path) == before


def test_every_input_counts_in_the_digest() -> None:
    whole = corpus(100, grouped=True)
    settings: dict[str, object] = {"task": "classify", **SETTINGS}
    variants: list[tuple[Corpus, dict[str, object]]] = [
        (whole, {}),
        (whole, {"task": "mlm"}),
        (whole, {"sequence_length": 17}),
        (whole, {"vocabulary_size": 301}),
        (whole, {"seed": 1}),
        (whole, {"by_group": False}),
        (whole, {"held_out": corpus(60)}),
        (whole, {"held_out": corpus(61)}),
        (whole._replace(texts=(*whole.texts[:-1], "other")), {}),
        (whole._replace(texts=(*whole.texts[:-2], whole.texts[-2] + whole.texts[-1], "")), {}),
        (whole._replace(labels=(1,) * 100), {}),
        (whole._replace(labels=None), {}),
        (whole._replace(groups=None), {}),
        (whole._replace(label_names=("a", "b")), {}),
        (whole._replace(files={"made.txt": "1" * 64}), {}),
        (whole._replace(held_out_share=0.2), {}),
        (whole._replace(held_out_limit=None), {}),
        (whole._replace(seconds=whole.texts), {}),
        (whole._replace(seconds=("b",) * 100), {}),
        (whole._replace(labels=None, values=(0.5,) * 100), {}),
        (whole._replace(labels=None, values=(0.25,) * 100), {}),
        (whole, {"tokenizer": train_tokenizer(whole.texts, 300)}),
        (whole, {"tokenizer": train_tokenizer(whole.texts, 100)}),
    ]
    digests = [data_digest(variant, **{**settings, **changes}) for variant, changes in variants]  # type: ignore[arg-type]
    assert all(one != other for one, other in itertools.combinations(digests, 2))


def _paired(count: int = 200) -> Corpus:
    return corpus(count)._replace(seconds=tuple(f"{text} zebra" for text in corpus(count).texts))


def _valued(whole: Corpus) -> Corpus:
    return whole._replace(labels=None, label_names=(), values=tuple(i / 8 for i in range(len(whole.texts))))


def test_pairs(tmp_path: Path) -> None:
    whole = _paired()
    data = _prepare(tmp_path, whole, sequence_length=40)
    tokenizer = read_tokenizer(tmp_path)
    assert "zebra" in tokenizer.get_vocab()  # of the second texts alone
    for name, part in split_corpus(whole, seed=0).named():
        split = read_split(tmp_path, name)
        np.testing.assert_array_equal(split.ids, encode_texts(tokenizer, part.texts, 40, part.seconds))
        np.testing.assert_array_equal(split.labels, part.labels)
        assert ((split.ids == SEP).sum(axis=1) == 2).all()
    assert data.labels == whole.label_names
    pairs = dict(zip(whole.texts, whole.seconds or (), strict=True))
    for example in read_examples(tmp_path):
        assert example.second == pairs[example.text]


@pytest.mark.parametrize("pairs", [False, True])
def test_values(tmp_path: Path, pairs: bool) -> None:
    whole = _valued(_paired() if pairs else corpus())
    data = _prepare(tmp_path, whole, "regress")
    assert (data.labels, data.majority_share) == ((), None)
    for name, part in split_corpus(whole, seed=0).named():
        split = read_split(tmp_path, name)
        assert split.labels is None
        assert split.values is not None
        assert split.values.dtype == np.float32
        np.testing.assert_array_equal(split.values, np.array(part.values, np.float32))
        assert len(split.ids) == getattr(data, name)
    values = dict(zip(whole.texts, whole.values or (), strict=True))
    examples = read_examples(tmp_path)
    assert len(examples) == 8
    for example in examples:
        assert (example.second is None) == (not pairs)
        assert example.label is not None
        assert float(example.label) == values[example.text]
    assert find_prepared(tmp_path, data.sha256) == data


def test_running_text_of_pairs_is_both_texts(tmp_path: Path) -> None:
    whole = _paired()
    data = _prepare(tmp_path, whole, "mlm", sequence_length=64)
    assert data.train == 2 * len(split_corpus(whole, seed=0).train.texts)
    assert "zebra" in read_tokenizer(tmp_path).get_vocab()


@pytest.mark.parametrize("task", ["classify", "regress", "mlm"])
def test_a_tokenizer_can_be_given(tmp_path: Path, task: str) -> None:
    whole = _valued(_paired()) if task == "regress" else _paired()
    other = train_tokenizer(["quite other words", "of another language"] * 3, 100)
    data = _prepare(tmp_path, whole, task, tokenizer=other)
    assert read_tokenizer(tmp_path).to_str() == other.to_str()
    assert (read_split(tmp_path, "train").ids < other.get_vocab_size()).all()
    settings = {"task": task, **SETTINGS, "tokenizer": other}
    assert data.sha256 == data_digest(whole, **settings)  # type: ignore[arg-type]
    assert data.sha256 == data_digest(whole, **{**settings, "vocabulary_size": 17})  # type: ignore[arg-type]
    assert data.sha256 == data_digest(whole, **{**settings, "tokenizer": read_tokenizer(tmp_path)})  # type: ignore[arg-type]
    assert _prepare(tmp_path, whole, task, tokenizer=read_tokenizer(tmp_path)) == data


def test_a_tokenizer_trained_on_the_same_texts_gives_the_same_arrays(tmp_path: Path) -> None:
    _prepare(tmp_path / "a", corpus())
    _prepare(tmp_path / "b", corpus(), tokenizer=read_tokenizer(tmp_path / "a"))
    one, two = _contents(tmp_path / "a"), _contents(tmp_path / "b")
    assert {name for name in FILES if one[name] != two[name]} == {PREPARED_FILE}  # it holds the digest


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    other = train_tokenizer(corpus().texts, 100)
    foreign = Tokenizer.from_str(other.to_str().replace("[MASK]", "<mask>"))
    with pytest.raises(IntegrityError, match="the tokenizer given"):
        _prepare(tmp_path, corpus(), tokenizer=foreign)
    assert not (tmp_path / TOKENIZER_FILE).exists()


def test_impossible_requests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no labels"):
        _prepare(tmp_path / "a", corpus(labels=0))
    with pytest.raises(UsageError, match="no labels"):
        _prepare(tmp_path / "a", corpus(), held_out=corpus(labels=0))
    with pytest.raises(UsageError, match="no labels"):
        _prepare(tmp_path / "a", _valued(corpus()))
    with pytest.raises(UsageError, match="no values"):
        _prepare(tmp_path / "a", corpus(), "regress")
    with pytest.raises(UsageError, match="no values"):
        _prepare(tmp_path / "a", _valued(corpus()), "regress", held_out=corpus())
    with pytest.raises(ValueError, match="elsewhere"):
        _prepare(tmp_path / "a", corpus(), "translate")
    with pytest.raises(UsageError, match="7 tokens is too short"):
        _prepare(tmp_path / "a", corpus(), sequence_length=7)
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        _prepare(tmp_path / "file", corpus())


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        read_split(tmp_path, "train")


def test_damaged_data(tmp_path: Path) -> None:
    _prepare(tmp_path, corpus())
    whole = (tmp_path / DATA_FILE).read_bytes()
    foreign = safetensors.numpy.save({"train.ids": np.zeros((2, 3), dtype=np.float32)})
    negative = safetensors.numpy.save({"train.ids": np.full((2, 3), -1, dtype=np.int32)})
    ids = {"train.ids": np.zeros((2, 3), dtype=np.int32)}
    short, double, endless = (
        safetensors.numpy.save(ids | {"train.values": np.array(values, dtype=kind)})
        for values, kind in (([1], np.float32), ([1, 2], np.float64), ([1, np.inf], np.float32))
    )
    damaged = (b"", whole[:-1], whole[:100], b"\xff" * 64, foreign, negative, safetensors.numpy.save({}))
    for data in (*damaged, short, double, endless):
        (tmp_path / DATA_FILE).write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            read_split(tmp_path, "train")
        assert caught.value.hint


@pytest.mark.shared
def test_real_labelled_data(shared: Path, tmp_path: Path) -> None:
    whole = read_labelled([shared / "cola" / "train.tsv.gz"])
    held_out = read_labelled([shared / "cola" / "dev.tsv.gz"])
    data = _prepare(tmp_path, whole, vocabulary_size=4000, sequence_length=32, held_out=held_out)
    assert data.validation + data.test == 1043
    assert data.majority_share == pytest.approx(0.691, abs=0.03)  # shared/data/cola/README.md
    ids = read_split(tmp_path, "train").ids
    assert (ids[:, -1] != 0).mean() < 0.02


@pytest.mark.shared
def test_real_pairs(shared: Path, tmp_path: Path) -> None:
    whole = read_labelled([shared / "mrpc" / "train.tsv.gz"])
    held_out = read_labelled([shared / "mrpc" / "dev.tsv.gz"])
    data = _prepare(tmp_path, whole, vocabulary_size=4000, sequence_length=96, held_out=held_out)
    assert data.validation + data.test == 408
    assert data.train <= 3668
    assert data.majority_share == pytest.approx(0.684, abs=0.05)  # shared/data/mrpc/README.md
    ids = read_split(tmp_path, "train").ids
    assert ((ids == SEP).sum(axis=1) == 2).all()
    assert (ids[:, -1] != 0).mean() < 0.05


@pytest.mark.shared
def test_real_running_text(shared: Path, tmp_path: Path) -> None:
    whole = read_documents([shared / "wikitext2" / "valid.txt.gz"])
    data = _prepare(tmp_path, whole, "mlm", vocabulary_size=2000, sequence_length=64)
    ids = read_split(tmp_path, "train").ids
    assert data.train > 3000
    assert (ids == 0).mean() < 0.15
    assert (ids == 1).mean() < 0.01
