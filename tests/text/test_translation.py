from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from toolchain.errors import IntegrityError, UsageError
from toolchain.progress import Progress
from toolchain.records import Data, Training
from toolchain.text.bleu import bleu
from toolchain.text.dataset import DATA_FILE, EXAMPLES_FILE, PREPARED_FILE, read_examples, verify_prepared
from toolchain.text.pairs import split_pairs
from toolchain.text.parallel import ParallelCorpus, read_parallel
from toolchain.text.parallel_batches import (
    TranslationBatches,
)
from toolchain.text.subwords import decode_tokens, encode_sentences
from toolchain.text.tokenizing import SEP, TOKENIZER_FILE, read_tokenizer
from toolchain.text.translation import (
    REFERENCES_FILE,
    find_prepared_translation,
    prepare_translation,
    read_parallel_split,
    read_references,
    translation_digest,
)

from .made_pairs import corpus, rows_of

FILES = {TOKENIZER_FILE, DATA_FILE, REFERENCES_FILE, EXAMPLES_FILE, PREPARED_FILE}
SETTINGS: dict[str, Any] = {"sequence_length": 24, "vocabulary_size": 400, "seed": 0}


def _prepare(folder: Path, whole: ParallelCorpus, **changes: Any) -> Data:
    return prepare_translation(whole, **{**SETTINGS, "folder": folder, **changes})


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_holds_what_the_corpus_says(tmp_path: Path) -> None:
    whole = corpus(500)
    data = _prepare(tmp_path, whole)
    assert set(_contents(tmp_path)) == FILES
    pairs = split_pairs(whole, seed=0)
    tokenizer = read_tokenizer(tmp_path)
    for name, part in pairs.named():
        split = read_parallel_split(tmp_path, name)
        assert split.pairs == len(part) == getattr(data, name)
        assert [array.dtype for array in split] == [np.int32, np.int64] * 2
        assert rows_of(split.source, split.source_starts) == encode_sentences(tokenizer, [one for one, _ in part])
        assert rows_of(split.target, split.target_starts) == encode_sentences(tokenizer, [two for _, two in part])
        if name != "train":
            assert tuple(read_references(tmp_path, name)) == part
    assert (data.languages, data.labels, data.title, data.files) == (("en", "de"), (), whole.title, whole.files)
    assert (data.train, data.validation, data.test, data.notes) == (400, 50, 50, ())
    examples = read_examples(tmp_path)
    assert len(set(examples)) == 8
    assert {example.text for example in examples} <= {source for source, _ in pairs.test}
    assert {example.label for example in examples} == {None}
    verify_prepared(tmp_path)


def test_the_tokenizer_knows_nothing_of_held_out_text(tmp_path: Path) -> None:
    other = corpus(60, start=300)
    other = other._replace(targets=tuple(f"Wunderliches{i} Wunderliches{i}" for i in range(60)))
    _prepare(tmp_path, corpus(), held_out=other)
    assert not any("Wund" in token for token in read_tokenizer(tmp_path).get_vocab())


def test_long_pairs_are_left_out_of_training_and_cut_where_held_out(tmp_path: Path) -> None:
    def lengthened(whole: ParallelCorpus, which: Sequence[int]) -> ParallelCorpus:
        sources = [f"{text} {'and on ' * 30}" if i in which else text for i, text in enumerate(whole.sources)]
        return whole._replace(sources=tuple(sources))

    whole, other = lengthened(corpus(200), (0, 7)), lengthened(corpus(60, start=300), range(60))
    data = _prepare(tmp_path, whole, held_out=other, sequence_length=40)
    assert data.notes == (
        "2 pairs of train longer than 40 tokens left out",
        "30 pairs of validation longer than 40 tokens cut",
        "30 pairs of test longer than 40 tokens cut",
    )
    assert (data.train, data.validation, data.test) == (198, 30, 30)
    assert set(data.files) == {"made.en", "made.de", "made.en (held out)", "made.de (held out)"}
    train, test = read_parallel_split(tmp_path, "train"), read_parallel_split(tmp_path, "test")
    for split in (train, test):
        assert max(np.diff(split.source_starts).max(), np.diff(split.target_starts).max()) <= 39
    whole_rows = encode_sentences(read_tokenizer(tmp_path), [source for source, _ in read_references(tmp_path, "test")])
    assert rows_of(test.source, test.source_starts) == [row[:39] for row in whole_rows]
    assert any("and on" in source for source, _ in read_references(tmp_path, "test"))
    assert all(len(example.text.split()) <= 30 for example in read_examples(tmp_path))


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    assert _prepare(tmp_path / "a", corpus(500)) == _prepare(tmp_path / "b", corpus(500))
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_a_complete_folder_is_left_as_it_is(tmp_path: Path) -> None:
    steps: list[Progress] = []
    data = _prepare(tmp_path, corpus(), listener=steps.append)
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert _prepare(tmp_path, corpus(), listener=steps.append) == data
    assert len(steps) == 4
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert data.sha256 == translation_digest(corpus(), **SETTINGS)
    assert find_prepared_translation(tmp_path, data.sha256) == data
    assert find_prepared_translation(tmp_path, "0" * 64) is None
    assert find_prepared_translation(tmp_path / "nowhere", data.sha256) is None


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_folder_is_made_anew(tmp_path: Path, name: str, damage: str) -> None:
    data = _prepare(tmp_path, corpus())
    before = _contents(tmp_path)
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(before[name][:-2])
    assert find_prepared_translation(tmp_path, data.sha256) is None
    with pytest.raises((IntegrityError, UsageError)):
        verify_prepared(tmp_path)
    assert _prepare(tmp_path, corpus()) == data
    assert _contents(tmp_path) == before


def test_every_input_counts_in_the_digest() -> None:
    whole = corpus(100)
    variants: list[tuple[ParallelCorpus, dict[str, Any]]] = [
        (whole, {}),
        (whole, {"sequence_length": 25}),
        (whole, {"vocabulary_size": 401}),
        (whole, {"seed": 1}),
        (whole, {"held_out": corpus(60)}),
        (whole, {"held_out": corpus(61)}),
        (whole._replace(targets=whole.sources), {}),
        (whole._replace(languages=("en", "fr")), {}),
    ]
    digests = [translation_digest(variant, **{**SETTINGS, **changes}) for variant, changes in variants]
    assert len(set(digests)) == len(variants)


def test_impossible_requests(tmp_path: Path) -> None:
    for changes, words in (
        ({"sequence_length": 7}, "7 tokens is too short"),
        ({"vocabulary_size": 200}, "vocabulary of 200 is too small"),
        ({"sequence_length": 8, "vocabulary_size": 261}, "short enough to train on"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            _prepare(tmp_path / "a", corpus(), **changes)
        assert caught.value.hint
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        _prepare(tmp_path / "file", corpus())


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        read_parallel_split(tmp_path, "train")
    with pytest.raises(UsageError, match="there is no"):
        read_references(tmp_path, "test")


def test_damaged_data(tmp_path: Path) -> None:
    _prepare(tmp_path, corpus())
    whole = (tmp_path / DATA_FILE).read_bytes()
    arrays = {name: array for name, array in safetensors.numpy.load(whole).items() if name.startswith("train.")}
    source, starts = arrays["train.source"], arrays["train.source_starts"]
    changes: list[dict[str, np.ndarray]] = [
        {"train.source": source.astype(np.int64)},
        {"train.source": source[:-1]},
        {"train.source": source.reshape(1, -1)},
        {"train.source": np.where(np.arange(len(source)) == 5, SEP, source).astype(np.int32)},
        {"train.source_starts": starts.astype(np.int32)},
        {"train.source_starts": starts[1:]},
        {"train.source_starts": np.delete(starts, 5)},
        {"train.source_starts": starts[:0]},
        {"train.source_starts": np.concatenate([starts[:3], starts[4:2:-1], starts[5:]])},
        {"train.target": -arrays["train.target"]},
    ]
    damaged = [safetensors.numpy.save({**arrays, **change}) for change in changes]
    for data in (b"", whole[:-1], whole[:100], b"\xff" * 64, safetensors.numpy.save({}), *damaged):
        (tmp_path / DATA_FILE).write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            read_parallel_split(tmp_path, "train")
        assert caught.value.hint


@pytest.mark.parametrize(
    "data", [b"{", b"\xff\n", b'{"split": "train"}\n', b'{"split": "x", "source": "", "target": ""}\n']
)
def test_damaged_references(tmp_path: Path, data: bytes) -> None:
    (tmp_path / REFERENCES_FILE).write_bytes(data)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_references(tmp_path, "test")


def test_references_are_lines_of_json(tmp_path: Path) -> None:
    _prepare(tmp_path, corpus())
    lines = (tmp_path / REFERENCES_FILE).read_text().splitlines()
    assert len(lines) == 40
    assert {json.loads(line)["split"] for line in lines} == {"validation", "test"}


# -- real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_multi30k(shared: Path, tmp_path: Path) -> None:
    folder = shared / "multi30k"
    whole = read_parallel([folder / "train.en.gz", folder / "train.de.gz"])
    held_out = read_parallel([folder / "val.en.gz", folder / "val.de.gz"])
    started = time.process_time()
    data = _prepare(tmp_path, whole, sequence_length=48, vocabulary_size=8000, held_out=held_out)
    assert time.process_time() - started < 60
    assert data.train > 28_900
    assert (data.validation, data.test) == (507, 507)
    assert data.languages == ("en", "de")
    split, references = read_parallel_split(tmp_path, "test"), read_references(tmp_path, "test")
    texts = decode_tokens(read_tokenizer(tmp_path), rows_of(split.target, split.target_starts))
    assert bleu(texts, [target for _, target in references]).score > 0.99  # but for what was cut
    batches = TranslationBatches(read_parallel_split(tmp_path, "train"), Training(task="translate", batch_tokens=4096))
    looked_at = [batches(update)[0] for update in range(50)]
    assert sum(len(batch.targets) for batch in looked_at) > 0.9 * sum(batch.decoder_ids.size for batch in looked_at)
