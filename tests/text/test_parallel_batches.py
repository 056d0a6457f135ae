from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.records import Training
from toolchain.text.parallel_batches import (
    ParallelBatch,
    TranslationBatches,
    source_batches,
    translation_evaluation_batches,
)
from toolchain.text.tokenizing import CLS, PAD, SEP, SPECIALS
from toolchain.text.translation import (
    ParallelSplit,
)

from .made_pairs import rows_of


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
        rows_of(split.source, split.source_starts),
        rows_of(split.target, split.target_starts),
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
            rows = rows_of(split.source, split.source_starts)
            for row, ids, mask in zip(batch.rows, batch.ids, batch.attention_mask, strict=True):
                assert ids[mask == 1].tolist() == [*rows[row], SEP]
                assert (ids[mask == 0] == PAD).all()
