from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, mean_squared_error

from toolchain.records import Quality, Training, decode_record, encode_compact
from toolchain.text import Split, TokenBatch, TrainingBatches, evaluate, evaluation_batches
from toolchain.text.metrics import classification_figures
from toolchain.text.tokenizing import MASK, PAD, SPECIALS

VOCABULARY, LONGEST = 300, 16


def make_split(items: int, *, labels: bool = True, seed: int = 0) -> Split:
    """Texts of 4 to 16 tokens; the second token of each is its number, the label that number's parity."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(len(SPECIALS), VOCABULARY, size=(items, LONGEST)).astype(np.int32)
    ids[np.arange(LONGEST) >= rng.integers(4, LONGEST + 1, size=items)[:, None]] = PAD
    ids[:, 1] = 1000 + np.arange(items)
    return Split(ids, (np.arange(items) % 2).astype(np.int32) if labels else None)


def settings(**changes: Any) -> Training:
    return Training(**({"task": "classify", "batch_size": 8, "sequence_length": LONGEST} | changes))


def numbers(batch: TokenBatch) -> list[int]:
    return [int(number) - 1000 for number in batch.ids[:, 1]]


def same(one: TokenBatch, other: TokenBatch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("task", ["classify", "mlm"])
def test_an_update_has_the_same_batches_whenever_it_is_asked_for(task: str) -> None:
    split, training = make_split(100), settings(task=task, accumulate=2)
    batches = TrainingBatches(split, training, VOCABULARY)
    first = {update: batches(update) for update in (0, 1, 7, 40)}
    for update in (40, 0, 7, 1):  # out of order, across epochs, by another instance
        for other in (batches, TrainingBatches(split, training, VOCABULARY)):
            assert all(same(one, two) for one, two in zip(first[update], other(update), strict=True))
    assert len(first[0]) == 2
    distinct = [batch for update in first.values() for batch in update]
    assert not any(same(one, two) for n, one in enumerate(distinct) for two in distinct[:n])
    other_seed = TrainingBatches(split, settings(task=task, accumulate=2, seed=1), VOCABULARY)
    assert not same(first[0][0], other_seed(0)[0])


@pytest.mark.parametrize(("items", "batch_size"), [(100, 8), (64, 8), (1000, 8), (100, 33)])
def test_an_epoch_shows_an_item_once_and_leaves_out_less_than_a_batch(items: int, batch_size: int) -> None:
    batches = TrainingBatches(make_split(items), settings(batch_size=batch_size), VOCABULARY)
    per_epoch = items // batch_size
    orders = []
    for epoch in range(3):
        seen = [n for update in range(epoch * per_epoch, (epoch + 1) * per_epoch) for n in numbers(batches(update)[0])]
        assert len(set(seen)) == len(seen) == per_epoch * batch_size > items - batch_size
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]


def test_no_item_is_left_out_of_every_epoch() -> None:
    """Sorting by length must not decide what is left out: the longest texts of a small corpus would never be seen."""
    split = make_split(60)
    batches = TrainingBatches(split, settings(batch_size=32), VOCABULARY)
    seen = {number for epoch in range(12) for number in numbers(batches(epoch)[0])}
    assert seen == set(range(60))


def test_micro_batches_follow_one_another() -> None:
    split = make_split(64)
    joined = TrainingBatches(split, settings(accumulate=2), VOCABULARY)
    single = TrainingBatches(split, settings(), VOCABULARY)
    for update in range(4):
        parts = [single(number)[0] for number in (2 * update, 2 * update + 1)]
        assert all(same(one, two) for one, two in zip(joined(update), parts, strict=True))


def test_fewer_items_than_a_batch_are_one_batch() -> None:
    batches = TrainingBatches(make_split(5), settings(batch_size=64), VOCABULARY)
    for update in range(3):
        assert sorted(numbers(batches(update)[0])) == list(range(5))


def test_batches_of_like_lengths_carry_little_padding() -> None:
    batches = TrainingBatches(make_split(1024), settings(), VOCABULARY)
    shares = [batch.attention_mask.mean() for update in range(128) for batch in batches(update)]
    assert np.mean(shares) > 0.9


@pytest.mark.parametrize("task", ["classify", "mlm"])
def test_a_batch_is_what_the_split_holds(task: str) -> None:
    split = make_split(100)
    for update in range(20):
        (batch,) = TrainingBatches(split, settings(task=task), VOCABULARY)(update)
        assert {array.dtype for array in batch if array is not None} == {np.dtype(np.int64)}
        length = batch.ids.shape[1]
        assert batch.attention_mask.sum(axis=1).max() == length
        np.testing.assert_array_equal(batch.attention_mask, batch.ids != PAD)
        if task == "classify":
            rows = numbers(batch)
            assert batch.positions is None
            np.testing.assert_array_equal(batch.targets, np.array(rows) % 2)
            np.testing.assert_array_equal(batch.ids, split.ids[rows, :length])
        else:
            assert batch.positions is not None
            assert batch.positions.shape == (len(batch.targets), 2)
            assert (batch.targets >= len(SPECIALS)).all()
            shown = batch.ids[batch.positions[:, 0], batch.positions[:, 1]]
            assert 0.5 < (shown == MASK).mean() <= 1


def test_a_classifier_needs_labels() -> None:
    with pytest.raises(ValueError, match="labelled"):
        TrainingBatches(make_split(10, labels=False), settings(), VOCABULARY)(0)


def make_values(items: int) -> Split:
    split = make_split(items, labels=False)
    return split._replace(values=np.arange(items, dtype=np.float32) / 4)


def test_a_batch_of_values() -> None:
    (batch,) = TrainingBatches(make_values(100), settings(task="regress"), VOCABULARY)(3)
    assert batch.targets.dtype == np.float32
    np.testing.assert_array_equal(batch.targets, np.array(numbers(batch)) / 4)
    assert batch.positions is None
    whole = evaluation_batches(make_values(1200), "regress", VOCABULARY, whole=True)
    assert sum(len(batch.targets) for batch in whole) == 1200
    first = evaluation_batches(make_values(1200), "regress", VOCABULARY, whole=False)
    assert sum(len(batch.targets) for batch in first) == 1000
    with pytest.raises(ValueError, match="values"):
        TrainingBatches(make_split(10), settings(task="regress"), VOCABULARY)(0)


@pytest.mark.parametrize(("accumulate", "ranks"), [(4, 2), (5, 3), (1, 1), (2, 4)])
@pytest.mark.parametrize("task", ["classify", "mlm"])
def test_processes_share_the_micro_batches_of_an_update(task: str, accumulate: int, ranks: int) -> None:
    training = settings(task=task, accumulate=accumulate, batch_tokens=50)
    batches = TrainingBatches(make_split(100), training, VOCABULARY)
    for update in (0, 5):
        whole = batches(update)
        shares = [TrainingBatches(make_split(100), training, VOCABULARY)(update, rank, ranks) for rank in range(ranks)]
        assert sum(map(len, shares)) == len(whole) == accumulate
        for rank, share in enumerate(shares):
            assert all(same(one, two) for one, two in zip(share, whole[rank::ranks], strict=True))


@pytest.mark.parametrize("task", ["classify", "mlm"])
def test_held_out_batches_never_change(task: str) -> None:
    split = make_split(1200)
    first = evaluation_batches(split, task, VOCABULARY, whole=False)  # type: ignore[arg-type]
    np.random.default_rng().random()
    again = evaluation_batches(split, task, VOCABULARY, whole=False)  # type: ignore[arg-type]
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    whole = evaluation_batches(split, task, VOCABULARY, whole=True)  # type: ignore[arg-type]
    assert sum(len(batch.ids) for batch in whole) == 1200
    assert sum(len(batch.ids) for batch in first) == {"classify": 1000, "mlm": 256}[task]
    if task == "classify":
        assert sorted(number for batch in first for number in numbers(batch)) == list(range(1000))


def test_a_few_held_out_items_are_all_looked_at() -> None:
    (batch,) = evaluation_batches(make_split(7), "classify", VOCABULARY, whole=False)
    assert sorted(numbers(batch)) == list(range(7))


def test_quality_is_the_share_of_right_answers_and_the_mean_cross_entropy() -> None:
    """By hand: logits (log 3, 0) say 3/4 and 1/4; (1000, 0) says 1, and would overflow if done badly."""
    logits = {0: [np.log(3), 0.0], 1: [0.0, np.log(3)], 2: [np.log(3), 0.0], 3: [1000.0, 0.0]}
    rows = [TokenBatch(*(np.zeros((2, 3), np.int64),) * 2, np.array(targets), None) for targets in ([0, 0], [1, 0])]

    def predict(batch: TokenBatch) -> np.ndarray:
        first = 0 if batch is rows[0] else 2
        return np.array([logits[first], logits[first + 1]], np.float32)

    quality = evaluate(predict, rows, "classify", "test")
    assert quality.value == 2 / 4
    assert quality.loss == pytest.approx((np.log(4 / 3) + np.log(4) + np.log(4) + 0) / 4)
    assert (quality.n, quality.metric, quality.split) == (4, "accuracy", "test")


def test_quality_of_masked_words_counts_targets_not_texts() -> None:
    batches = evaluation_batches(make_split(100), "mlm", VOCABULARY, whole=True)
    targets = sum(len(batch.targets) for batch in batches)

    def predict(batch: TokenBatch) -> np.ndarray:
        return np.zeros((len(batch.targets), 1200), np.float32)

    quality = evaluate(predict, batches, "mlm", "validation")
    assert (quality.n, quality.metric, quality.split) == (targets, "masked_accuracy", "validation")
    assert quality.value == 0
    assert quality.loss == pytest.approx(np.log(1200))


def asking(*targets: Any) -> list[TokenBatch]:
    return [TokenBatch(*(np.zeros((len(one), 3), np.int64),) * 2, np.array(one), None) for one in targets]


@pytest.mark.parametrize(
    ("classes", "names"), [(2, ["f1", "matthews"]), (3, ["f1_macro", "matthews"]), (5, ["f1_macro", "matthews"])]
)
def test_a_classifier_has_further_figures(classes: int, names: list[str]) -> None:
    rng = np.random.default_rng(classes)
    targets, logits = rng.integers(0, classes, 40), rng.normal(size=(40, classes)).astype(np.float32)
    batches = asking(targets[:30], targets[30:])

    def predict(batch: TokenBatch) -> np.ndarray:
        return logits[:30] if batch is batches[0] else logits[30:]

    quality = evaluate(predict, batches, "classify", "validation")
    assert quality.value == accuracy_score(targets, logits.argmax(axis=1))
    assert quality.also == classification_figures(targets, logits.argmax(axis=1), classes)
    assert sorted(quality.also) == names
    decode_record(encode_compact(quality), Quality, "here")


@pytest.mark.parametrize("columns", [(), (1,)])
def test_quality_of_values(columns: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=50).astype(np.float32)
    answers = (targets + rng.normal(size=50)).astype(np.float32)
    batches = asking(targets[:20], targets[20:])

    def predict(batch: TokenBatch) -> np.ndarray:
        found = answers[:20] if batch is batches[0] else answers[20:]
        return found.reshape(-1, *columns)

    quality = evaluate(predict, batches, "regress", "test")
    assert (quality.metric, quality.n, quality.split) == ("pearson", 50, "test")
    assert quality.value == pytest.approx(pearsonr(targets.astype(float), answers.astype(float)).statistic)
    assert quality.also == {"spearman": pytest.approx(spearmanr(targets, answers).statistic)}
    assert quality.loss == pytest.approx(mean_squared_error(targets, answers))
    constant = evaluate(lambda batch: np.ones((len(batch.targets), 1), np.float32), batches, "regress", "test")
    assert (constant.value, constant.also) == (0, {"spearman": 0})
    decode_record(encode_compact(constant), Quality, "here")


def test_quality_of_translation_counts_tokens() -> None:
    batches = asking([1, 0], [1])
    quality = evaluate(
        lambda batch: np.eye(3, dtype=np.float32)[[1] * len(batch.targets)], batches, "translate", "test"
    )
    assert (quality.metric, quality.n, quality.also) == ("token_accuracy", 3, {})
    assert quality.value == 2 / 3
