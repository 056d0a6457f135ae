"""Token arrays in batches, for training by update number and for evaluation with fixed masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from toolchain.records import Quality, Task, Training
from toolchain.text.dataset import Split
from toolchain.text.masking import mask_tokens
from toolchain.text.metrics import classification_figures, correlations
from toolchain.text.tokenizing import PAD

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

_POOL_BATCHES = 16
"""Batches are cut from pools of this many, sorted by length, so that little of a batch is padding."""

_VALIDATION_ITEMS = {"classify": 1000, "regress": 1000, "mlm": 256}
"""Held-out items a search looks at for each subnet: enough to rank, few enough to be quick. Tests use all."""

_METRICS: dict[Task, Literal["accuracy", "masked_accuracy", "token_accuracy", "pearson"]] = {
    "classify": "accuracy",
    "regress": "pearson",
    "mlm": "masked_accuracy",
    "translate": "token_accuracy",
}


class TokenBatch(NamedTuple):
    """ids and attention_mask int64 [b, t], and targets [n]: int64, for regression float32.

    `positions` int64 [n, 2] says which tokens masked-word targets are for. Only a translation has `decoder_ids`.
    """

    ids: Ints
    attention_mask: Ints
    targets: Ints | npt.NDArray[np.float32]
    positions: Ints | None
    decoder_ids: Ints | None = None


class _Asking(Protocol):
    """A batch of whatever task: targets [n] of what it asks."""

    @property
    def targets(self) -> npt.NDArray[Any]: ...


_Batch = TypeVar("_Batch", bound=_Asking)


class TrainingBatches:
    """The micro-batches of an update, by its number: the same ones whenever they are asked for."""

    def __init__(self, split: Split, training: Training, vocabulary_size: int) -> None:
        self._split = split
        self._training = training
        self._vocabulary_size = vocabulary_size
        self._lengths = (split.ids != PAD).sum(axis=1)
        self._epoch = -1
        self._order: list[Ints] = []

    def __call__(self, update: int, rank: int = 0, ranks: int = 1) -> list[TokenBatch]:
        """All of them, or the share that falls to process `rank` of `ranks`: none, where there are too few."""
        accumulate = self._training.accumulate
        return [self._batch(update * accumulate + place) for place in range(rank, accumulate, ranks)]

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


class Answers(NamedTuple):
    """What was answered to one batch of n targets, and the loss summed over them.

    `found` [n] holds, of a classifier of so many `classes`, the class; of tokens, whether the answer is right (bool);
    of regression, the number (float32). The loss is cross-entropy, of regression the squared error.
    """

    found: npt.NDArray[Any]
    loss: float
    classes: int = 0


def answer(predict: Callable[[_Batch], npt.NDArray[np.float32]], batch: _Batch, task: Task) -> Answers:
    """The answers to one batch. `predict` gives logits [n, classes]; for regression one number each, [n] or [n, 1]."""
    if task == "regress":
        found = predict(batch).reshape(len(batch.targets))
        return Answers(found, float(np.square(found.astype(np.float64) - batch.targets).sum()))
    logits = predict(batch).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(batch.targets)), batch.targets]
    loss = float((np.log(np.exp(shifted).sum(axis=1)) - chosen).sum())
    best = logits.argmax(axis=1)
    return Answers(best, loss, logits.shape[1]) if task == "classify" else Answers(best == batch.targets, loss)


def quality_of(answers: Sequence[Answers], batches: Sequence[_Asking], task: Task, split_name: str) -> Quality:
    """The figures of merit of a task over all targets of the batches, from the answers to each of them.

    The value is the share of right answers and the loss the mean cross-entropy; of regression they are Pearson's
    correlation and the mean squared error. `also` holds, of classification, f1 (of the last of two labels, else
    f1_macro) and matthews; of regression, spearman.
    """
    found = np.concatenate([one.found for one in answers])
    targets = np.concatenate([batch.targets for batch in batches])
    also: dict[str, float] = {}
    if task == "regress":
        value, spearman = correlations(targets.astype(np.float64), found.astype(np.float64))
        also = {"spearman": spearman}
    elif task == "classify":
        value = int((found == targets).sum()) / len(targets)
        also = classification_figures(targets, found, answers[0].classes)
    else:
        value = int(found.sum()) / len(targets)
    return Quality(
        metric=_METRICS[task],
        value=value,
        loss=sum(one.loss for one in answers) / len(targets),
        n=len(targets),
        split="test" if split_name == "test" else "validation",
        also=also,
    )


def evaluate(
    predict: Callable[[_Batch], npt.NDArray[np.float32]],
    batches: Sequence[_Batch],
    task: Task,
    split_name: str,
) -> Quality:
    """The figures of merit of a task over all targets of the batches: see `answer` and `quality_of`."""
    return quality_of([answer(predict, batch, task) for batch in batches], batches, task, split_name)


def _token_batch(split: Split, rows: Ints, task: Task, rng: np.random.Generator, vocabulary_size: int) -> TokenBatch:
    ids = split.ids[rows].astype(np.int64)
    ids = ids[:, : max(2, int((ids != PAD).sum(axis=1).max()))]
    attention_mask = (ids != PAD).astype(np.int64)
    if task == "classify":
        if split.labels is None:
            raise ValueError("a classifier needs labelled items")
        return TokenBatch(ids, attention_mask, split.labels[rows].astype(np.int64), None)
    if task == "regress":
        if split.values is None:
            raise ValueError("regression needs items with values")
        return TokenBatch(ids, attention_mask, split.values[rows], None)
    masked, targets = mask_tokens(ids, rng, vocabulary_size)
    positions = np.argwhere(targets >= 0)
    return TokenBatch(masked.astype(np.int64), attention_mask, targets[targets >= 0].astype(np.int64), positions)
