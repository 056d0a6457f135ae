"""Token arrays in batches, for training by update number and for evaluation with fixed masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toolchain.records import Quality, Task, Training
from toolchain.text.dataset import Split
from toolchain.text.masking import mask_tokens
from toolchain.text.tokenizing import PAD

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

_POOL_BATCHES = 16
"""Batches are cut from pools of this many, sorted by length, so that little of a batch is padding."""

_VALIDATION_ITEMS = {"classify": 1000, "mlm": 256}
"""Held-out items a search looks at for each subnet: enough to rank, few enough to be quick. Tests use all."""


class TokenBatch(NamedTuple):
    """ids and attention_mask [b, t], targets [n]; `positions` [n, 2] says which tokens masked-word targets are for."""

    ids: Ints
    attention_mask: Ints
    targets: Ints
    positions: Ints | None


class TrainingBatches:
    """The micro-batches of an update, by its number: the same ones whenever they are asked for."""

    def __init__(self, split: Split, training: Training, vocabulary_size: int) -> None:
        self._split = split
        self._training = training
        self._vocabulary_size = vocabulary_size
        self._lengths = (split.ids != PAD).sum(axis=1)
        self._epoch = -1
        self._order: list[Ints] = []

    def __call__(self, update: int) -> list[TokenBatch]:
        first = update * self._training.accumulate
        return [self._batch(number) for number in range(first, first + self._training.accumulate)]

    def _batch(self, number: int) -> TokenBatch:
        per_epoch = max(1, len(self._split.ids) // self._training.batch_size)
        epoch, place = divmod(number, per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch, per_epoch)
        rng = np.random.default_rng((self._training.seed, 1, number))
        return _token_batch(self._split, self._order[place], self._training.task, rng, self._vocabulary_size)

    def _shuffled(self, epoch: int, batches: int) -> list[Ints]:
        rng = np.random.default_rng((self._training.seed, 0, epoch))
        size = self._training.batch_size
        # What does not fill a batch is left out here, at random: after the sorting it would always be the longest.
        rows = rng.permutation(len(self._split.ids))[: batches * size]
        pool = size * _POOL_BATCHES
        pooled = [
            part[np.argsort(self._lengths[part], kind="stable")]
            for part in (rows[start : start + pool] for start in range(0, len(rows), pool))
        ]
        ordered = np.concatenate(pooled)
        cut = [ordered[start : start + size] for start in range(0, batches * size, size)]
        return [cut[index] for index in rng.permutation(len(cut))]


def evaluation_batches(split: Split, task: Task, vocabulary_size: int, *, whole: bool) -> list[TokenBatch]:
    """Held-out items in a fixed order with fixed masks; all of them, or (not `whole`) the first few hundred."""
    items = len(split.ids) if whole else min(len(split.ids), _VALIDATION_ITEMS[task])
    lengths = (split.ids[:items] != PAD).sum(axis=1)
    rows = np.argsort(lengths, kind="stable")
    rng = np.random.default_rng(0)
    return [_token_batch(split, rows[start : start + 64], task, rng, vocabulary_size) for start in range(0, items, 64)]


def evaluate(
    predict: Callable[[TokenBatch], npt.NDArray[np.float32]],
    batches: Sequence[TokenBatch],
    task: Task,
    split_name: str,
) -> Quality:
    """Share of right answers and mean cross-entropy over all targets; `predict` gives logits [n, classes]."""
    right, loss, items = 0, 0.0, 0
    for batch in batches:
        logits = predict(batch).astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(batch.targets)), batch.targets]
        loss += float((np.log(np.exp(shifted).sum(axis=1)) - chosen).sum())
        right += int((logits.argmax(axis=1) == batch.targets).sum())
        items += len(batch.targets)
    return Quality(
        metric="accuracy" if task == "classify" else "masked_accuracy",
        value=right / items,
        loss=loss / items,
        n=items,
        split="test" if split_name == "test" else "validation",
    )


def _token_batch(split: Split, rows: Ints, task: Task, rng: np.random.Generator, vocabulary_size: int) -> TokenBatch:
    ids = split.ids[rows].astype(np.int64)
    ids = ids[:, : max(2, int((ids != PAD).sum(axis=1).max()))]
    attention_mask = (ids != PAD).astype(np.int64)
    if task == "classify":
        if split.labels is None:
            raise ValueError("a classifier needs labelled items")
        return TokenBatch(ids, attention_mask, split.labels[rows].astype(np.int64), None)
    masked, targets = mask_tokens(ids, rng, vocabulary_size)
    positions = np.argwhere(targets >= 0)
    return TokenBatch(masked.astype(np.int64), attention_mask, targets[targets >= 0].astype(np.int64), positions)
