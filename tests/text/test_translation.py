from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import IntegrityError, UsageError
from toolchain.progress import Progress
from toolchain.records import Data, Training
from toolchain.text.bleu import bleu
from toolchain.text.corpus import same_text_key
from toolchain.text.dataset import DATA_FILE, EXAMPLES_FILE, PREPARED_FILE, read_examples, verify_prepared
from toolchain.text.parallel import ParallelCorpus, read_parallel
from toolchain.text.subwords import decode_tokens, encode_sentences
from toolchain.text.tokenizing import CLS, PAD, SEP, SPECIALS, TOKENIZER_FILE, read_tokenizer
from toolchain.text.translation import (
    REFERENCES_FILE,
    ParallelBatch,
    ParallelSplit,
    TranslationBatches,
    find_prepared_translation,
    prepare_translation,
    read_parallel_split,
    read_references,
    source_batches,
    split_pairs,
    translation_digest,
    translation_evaluation_batches,
)

from .conftest import sentences

FILES = {TOKENIZER_FILE, DATA_FILE, REFERENCES_FILE, EXAMPLES_FILE, PREPARED_FILE}
SETTINGS: dict[str, Any] = {"sequence_length": 24, "vocabulary_size": 400, "seed": 0}


def corpus(count: int = 200, start: int = 0) -> ParallelCorpus:
    sources = sentences(start + count)[start:]
    return ParallelCorpus(
        sources=tuple(sources),
        targets=tuple(f"Übersetzt: {' '.join(reversed(source.upper().split()))}" for source in sources),
        languages=("en", "de"),
        title="made for a test",
        files={"made.en": "0" * 64, "made.de": "1" * 64},
    )


def _prepare(folder: Path, whole: ParallelCorpus, **changes: Any) -> Data:
    return prepare_translation(whole, **{**SETTINGS, "folder": folder, **changes})


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _rows(tokens: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [tokens[start:end].tolist() for start, end in itertools.pairwise(starts)]


# -- splitting ---------------------------------------------------------------------------------------------------------


def test_nothing_leaks_through_either_side() -> None:
    """Sources that share a translation, and translations that share a source, are tied; also through one another."""
    whole = corpus(300)
    sources = [*whole.sources, *(f"{text.upper()} " for text in whole.sources[:100]), *(f"new {i}" for i in range(100))]
    targets = [*whole.targets, *(f"neu {i}" for i in range(100)), *(f"Neu  {i}" for i in range(100))]
    tied = whole._replace(sources=tuple(sources), targets=tuple(targets), held_out_share=0.25)
    pairs = split_pairs(tied, seed=3)
    assert sorted(pairs.train + pairs.validation + pairs.test) == sorted(zip(sources, targets, strict=True))
    assert (len(pairs.validation), len(pairs.test)) == (125, 125)
    for side in (0, 1):
        keys = [{same_text_key(pair[side]) for pair in part} for _, part in pairs.named()]
        assert all(one.isdisjoint(other) for one, other in itertools.combinations(keys, 2))


@given(
    words=st.lists(st.tuples(st.sampled_from("abcdefghAB"), st.sampled_from("rstuvwxyzRS")), min_size=4, max_size=40),
    seed=st.integers(0, 5),
)
def test_any_pairs_are_split_without_leaking_or_refused(words: list[tuple[str, str]], seed: int) -> None:
    whole = corpus()._replace(sources=tuple(one for one, _ in words), targets=tuple(two for _, two in words))
    try:
        pairs = split_pairs(whole, seed=seed)
    except UsageError as error:
        assert "nothing is left" in str(error)  # noqa: PT017 -- one of two right outcomes
        return
    assert sorted(pairs.train + pairs.validation + pairs.test) == sorted(words)
    for side in (0, 1):
        keys = [{pair[side].casefold() for pair in part} for _, part in pairs.named()]
        assert all(one.isdisjoint(other) for one, other in itertools.combinations(keys, 2))


def test_the_order_of_lines_changes_nothing() -> None:
    whole = corpus(300)
    order = np.random.default_rng(1).permutation(300)
    mixed = whole._replace(
        sources=tuple(whole.sources[i] for i in order), targets=tuple(whole.targets[i] for i in order)
    )
    assert split_pairs(mixed, seed=0) == split_pairs(whole, seed=0)
    assert split_pairs(whole, seed=1) != split_pairs(whole, seed=0)


def test_held_out_pairs_are_halved_and_leave_training() -> None:
    whole, other = corpus(200), corpus(101, start=300)
    sources = [other.sources[0].upper(), "another source", *whole.sources[2:]]
    targets = ["another target", other.targets[50], *whole.targets[2:]]
    pairs = split_pairs(whole._replace(sources=tuple(sources), targets=tuple(targets)), seed=0, held_out=other)
    assert (len(pairs.train), len(pairs.validation), len(pairs.test)) == (198, 51, 50)
    assert sorted(pairs.validation + pairs.test) == sorted(zip(other.sources, other.targets, strict=True))
    assert pairs.notes == ("2 pairs whose source or target is also held out left out of training",)
    assert split_pairs(whole, seed=0, held_out=other).notes == ()


def test_what_cannot_be_split() -> None:
    whole = corpus(100)
    with pytest.raises(UsageError, match="nothing is left for the train split"):
        split_pairs(whole, seed=0, held_out=whole)
    with pytest.raises(UsageError, match="nothing is left for the validation split"):
        split_pairs(whole._replace(targets=("the same",) * 100), seed=0)
    with pytest.raises(UsageError, match="de to en"):
        split_pairs(whole, seed=0, held_out=corpus(60, start=100)._replace(languages=("de", "en")))
    unnamed = corpus(60, start=100)._replace(languages=("source", "target"))
    assert len(split_pairs(whole, seed=0, held_out=unnamed).train) == 100


# -- preparing ---------------------------------------------------------------------------------------------------------


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
        assert _rows(split.source, split.source_starts) == encode_sentences(tokenizer, [one for one, _ in part])
        assert _rows(split.target, split.target_starts) == encode_sentences(tokenizer, [two for _, two in part])
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
    assert _rows(test.source, test.source_starts) == [row[:39] for row in whole_rows]
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


# -- batches -----------------------------------------------------------------------------------------------------------


def make_split(pairs: int, *, longest: int = 20, seed: int = 0) -> ParallelSplit:
    """Pairs of 1 to `longest` tokens a side; the first source token of each is 1000 and its number."""
    rng = np.random.default_rng(seed)
    sides: list[np.ndarray] = []
    for side in (0, 1):
        lengths = rng.integers(1, longest + 1, size=pairs)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = rng.integers(len(SPECIALS), 900, size=starts[-1]).astype(np.int32)
        if side == 0:
            tokens[starts[:-1]] = 1000 + np.arange(pairs)
        sides += [tokens, starts]
    return ParallelSplit(*sides)


def settings(**changes: Any) -> Training:
    return Training(**({"task": "translate", "batch_size": 8, "sequence_length": 32} | changes))


def numbers(batch: ParallelBatch) -> list[int]:
    return [int(number) - 1000 for number in batch.ids[:, 0]]


def same(one: ParallelBatch, other: ParallelBatch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def check(batch: ParallelBatch, split: ParallelSplit) -> None:
    """Row by row, by hand, against what the split holds."""
    assert {array.dtype for array in batch} == {np.dtype(np.int64)}
    targets: list[int] = []
    positions: list[tuple[int, int]] = []
    sources, translations = (
        _rows(split.source, split.source_starts),
        _rows(split.target, split.target_starts),
    )
    rows = numbers(batch)
    widths = (max(len(sources[row]) for row in rows) + 1, max(len(translations[row]) for row in rows) + 1)
    assert (batch.ids.shape, batch.decoder_ids.shape) == ((len(rows), widths[0]), (len(rows), widths[1]))
    for place, row in enumerate(rows):
        source, target = sources[row], translations[row]
        assert batch.ids[place].tolist() == [*source, SEP, *[PAD] * (widths[0] - len(source) - 1)]
        assert batch.attention_mask[place].tolist() == [int(i <= len(source)) for i in range(widths[0])]
        assert batch.decoder_ids[place].tolist() == [CLS, *target, *[PAD] * (widths[1] - len(target) - 1)]
        targets += [*target, SEP]
        positions += [(place, i) for i in range(len(target) + 1)]
    assert batch.targets.tolist() == targets
    assert batch.positions.tolist() == [list(position) for position in positions]


@pytest.mark.parametrize("changes", [{}, {"batch_tokens": 100}, {"batch_tokens": 21}])
def test_a_batch_is_what_the_split_holds(changes: dict[str, int]) -> None:
    split = make_split(60)
    batches = TranslationBatches(split, settings(**changes))
    for update in range(12):
        (batch,) = batches(update)
        check(batch, split)


@pytest.mark.parametrize("changes", [{}, {"batch_tokens": 150}])
def test_an_update_has_the_same_batches_whenever_it_is_asked_for(changes: dict[str, int]) -> None:
    split, training = make_split(100), settings(accumulate=2, **changes)
    batches = TranslationBatches(split, training)
    first = {update: batches(update) for update in (0, 1, 7, 40)}
    for update in (40, 0, 7, 1):  # out of order, across epochs, by another instance
        for other in (batches, TranslationBatches(split, training)):
            assert all(same(one, two) for one, two in zip(first[update], other(update), strict=True))
    distinct = [batch for update in first.values() for batch in update]
    assert not any(same(one, two) for n, one in enumerate(distinct) for two in distinct[:n])
    other_seed = TranslationBatches(split, settings(accumulate=2, seed=1, **changes))
    assert not same(first[0][0], other_seed(0)[0])


@pytest.mark.parametrize("changes", [{}, {"batch_tokens": 150}])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_processes_share_the_batches_of_an_update(changes: dict[str, int], ranks: int) -> None:
    split = make_split(100)
    whole = TranslationBatches(split, settings(accumulate=4, **changes))
    single = TranslationBatches(split, settings(**changes))
    shared = [TranslationBatches(split, settings(accumulate=4, **changes)) for _ in range(ranks)]
    for update in range(12):
        parts = [batches(update, rank, ranks) for rank, batches in enumerate(shared)]
        for number, batch in enumerate(whole(update)):
            assert same(batch, parts[number % ranks][number // ranks])
            assert same(batch, single(4 * update + number)[0])
        assert sum(map(len, parts)) == 4


@pytest.mark.parametrize(("rank", "ranks"), [(1, 1), (-1, 2), (0, 0)])
def test_ranks_that_are_none(rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        TranslationBatches(make_split(10), settings())(0, rank, ranks)


@given(
    pairs=st.integers(1, 300), tokens=st.integers(21, 400), seed=st.integers(0, 9), longest=st.sampled_from([1, 5, 20])
)
def test_batches_of_tokens_keep_their_limit_and_show_every_pair_once(
    pairs: int, tokens: int, seed: int, longest: int
) -> None:
    batches = TranslationBatches(
        make_split(pairs, longest=longest, seed=seed), settings(batch_tokens=tokens, seed=seed)
    )
    update, orders = 0, []
    for _ in range(2):
        seen: list[int] = []
        while len(seen) < pairs:
            (batch,) = batches(update)
            assert max(batch.ids.size, batch.decoder_ids.size) <= tokens
            seen += numbers(batch)
            update += 1
        assert sorted(seen) == list(range(pairs))
        orders.append(seen)
    assert pairs < 30 or orders[0] != orders[1]


@pytest.mark.parametrize(("pairs", "batch_size"), [(100, 8), (64, 8), (1000, 8), (100, 33), (5, 64)])
def test_an_epoch_of_batches_shows_a_pair_once_and_leaves_out_less_than_a_batch(pairs: int, batch_size: int) -> None:
    batches = TranslationBatches(make_split(pairs), settings(batch_size=batch_size))
    per_epoch = max(1, pairs // batch_size)
    size = min(pairs, batch_size)
    for epoch in range(3):
        seen = [n for update in range(epoch * per_epoch, (epoch + 1) * per_epoch) for n in numbers(batches(update)[0])]
        assert len(set(seen)) == len(seen) == per_epoch * size > pairs - batch_size


def test_no_pair_is_left_out_of_every_epoch() -> None:
    """Sorting by length must not decide what is left out: the longest pairs of a small corpus would never be seen."""
    batches = TranslationBatches(make_split(60), settings(batch_size=32))
    assert {number for epoch in range(12) for number in numbers(batches(epoch)[0])} == set(range(60))


def test_batches_of_like_lengths_carry_little_padding() -> None:
    split = make_split(4000)
    translated = ParallelSplit(split.source, split.source_starts, split.source, split.source_starts)
    for changes in ({"batch_size": 32}, {"batch_tokens": 400}):
        batches = TranslationBatches(translated, settings(**changes))
        looked_at = [batches(update)[0] for update in range(100)]
        assert sum(len(batch.targets) for batch in looked_at) > 0.93 * sum(b.decoder_ids.size for b in looked_at)
        if "batch_tokens" in changes:
            assert np.mean([batch.decoder_ids.size for batch in looked_at]) > 0.9 * 400


def test_a_pair_longer_than_a_batch() -> None:
    with pytest.raises(UsageError, match="batch of 20 tokens is too small") as caught:
        TranslationBatches(make_split(100), settings(batch_tokens=20))
    assert "21" in caught.value.why


def test_held_out_batches_never_change() -> None:
    split = make_split(700)
    first = translation_evaluation_batches(split, whole=False)
    assert all(map(same, first, translation_evaluation_batches(split, whole=False)))
    assert sorted(n for batch in first for n in numbers(batch)) == list(range(512))
    whole = translation_evaluation_batches(split, whole=True, batch=100)
    assert sorted(n for batch in whole for n in numbers(batch)) == list(range(700))
    assert {len(batch.ids) for batch in whole} == {100}
    few = translation_evaluation_batches(split, whole=False, limit=10, batch=4)
    assert [len(batch.ids) for batch in few] == [4, 4, 2]
    for batch in (*few, *whole[::3]):
        check(batch, split)


def test_sources_to_translate_say_which_pairs_they_are_of() -> None:
    split = make_split(100)
    for limit, wanted in ((None, 100), (30, 30), (1000, 100)):
        batches = source_batches(split, limit=limit, batch=16)
        assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(wanted))
        for batch in batches:
            assert (batch.ids[:, 0] - 1000).tolist() == batch.rows.tolist()
            rows = _rows(split.source, split.source_starts)
            for row, ids, mask in zip(batch.rows, batch.ids, batch.attention_mask, strict=True):
                assert ids[mask == 1].tolist() == [*rows[row], SEP]
                assert (ids[mask == 0] == PAD).all()


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
    texts = decode_tokens(read_tokenizer(tmp_path), _rows(split.target, split.target_starts))
    assert bleu(texts, [target for _, target in references]).score > 0.99  # but for what was cut
    batches = TranslationBatches(read_parallel_split(tmp_path, "train"), settings(batch_tokens=4096))
    looked_at = [batches(update)[0] for update in range(50)]
    assert sum(len(batch.targets) for batch in looked_at) > 0.9 * sum(batch.decoder_ids.size for batch in looked_at)
