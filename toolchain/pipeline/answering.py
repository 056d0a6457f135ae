"""What an architecture answers to held-out items: asked in this process or in another, kept as a record.

The items are those of `Run.batches("validation", whole=False)`: the same, with the same masks, for every architecture.
They are answered batch by batch as they are there, so that all of them give exactly the figures of `Run.quality_on`, in
whatever order and process: one thread computes a batch, since sums over two may differ in their last bits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import platform
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from toolchain import text
from toolchain.errors import IntegrityError, UsageError
from toolchain.pipeline.racing import Counts, Race
from toolchain.pipeline.runs import Run
from toolchain.records import Quality, Record
from toolchain.space import Architecture
from toolchain.supernet.inference import Predict
from toolchain.supernet.train import TokenBatch

if TYPE_CHECKING:
    import numpy.typing as npt

_RUNS_KEPT = 2
_ONE_AT_A_TIME = threading.Lock()
"""A supernet computes for one caller at a time; a dask worker may have several threads."""


class Answered(Record, frozen=True):
    """What an architecture answered to some of the held-out batches: never asked twice of one checkpoint.

    Attributes:
        items_sha256: of the held-out batches, all of them.
        batches: which of them, by their numbers.
        losses: summed over each batch.
        classes: of a classifier; else 0.
        found: the answers of all the batches, one after the other: of a classifier the classes in as few bytes each as
            hold them; of tokens one bit each, 1 where it is right; of regression float32. Little-endian.
    """

    checkpoint_sha256: str
    items_sha256: str
    architecture: Architecture
    batches: tuple[int, ...]
    losses: tuple[float, ...]
    found: bytes
    classes: int = 0


_NO_LOSS = 1e9
"""Of logits that are no numbers: they are wrong answers, and no reason to end a search."""


class Question(NamedTuple):
    """Some of a run's held-out batches put to one architecture; it can travel to another process.

    `batches` are answered in their order, in a `race` only until it is lost.
    """

    folder: str
    checkpoint_sha256: str
    items_sha256: str
    architecture: Architecture
    batches: tuple[int, ...]
    race: Race | None = None


class HeldOut:
    """A run and the items its architectures are compared on.

    Attributes:
        checkpoint_sha256, items_sha256: what answers are kept under.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.task = run.info.training.task
        self.batches: Sequence[TokenBatch] = run.batches("validation", whole=False)
        self.checkpoint_sha256 = run.checkpoint_sha256
        self.items_sha256 = _digest(self.batches)

    def question(self, architecture: Architecture, batches: tuple[int, ...], race: Race | None = None) -> Question:
        folder = str(self.run.folder.absolute())
        return Question(folder, self.checkpoint_sha256, self.items_sha256, architecture, batches, race)

    def ask(self, question: Question) -> Answered:
        """Put it to the architecture, in this process."""
        with _ONE_AT_A_TIME, _one_thread():
            answers = self._answered(question)
        classes = answers[0].classes
        return Answered(
            checkpoint_sha256=question.checkpoint_sha256,
            items_sha256=question.items_sha256,
            architecture=question.architecture,
            batches=question.batches[: len(answers)],
            losses=tuple(one.loss if math.isfinite(one.loss) else _NO_LOSS for one in answers),
            found=_packed(np.concatenate([one.found for one in answers]), classes),
            classes=classes,
        )

    def _answered(self, question: Question) -> list[text.Answers]:
        predict, race = self._predictor(question.architecture), question.race
        own = dict(race.own) if race else {}
        answers: list[text.Answers] = []
        for number in question.batches:
            answers.append(text.answer(predict, self.batches[number], self.task))
            if race:
                own[number] = self.right(number, answers[-1])
                if race._replace(own=own).lost_after() is not None:
                    break
        return answers

    def answers(self, answered: Answered) -> dict[int, text.Answers]:
        """The answers to each of the batches. Raises IntegrityError where they are not as many as the items."""
        counts = [len(self.batches[number].targets) for number in answered.batches]
        found = self._unpacked(answered, sum(counts))
        if len(found) != sum(counts) or len(answered.losses) != len(counts):
            raise IntegrityError(
                f"what {answered.architecture.id} answered is not of these items",
                hint=f"move the answers in {self.run.search_folder} away; they are asked again",
            )
        parts = np.split(found, np.cumsum(counts)[:-1])
        return {
            number: text.Answers(part, loss, answered.classes)
            for number, part, loss in zip(answered.batches, parts, answered.losses, strict=True)
        }

    def quality(self, answers: Sequence[text.Answers]) -> Quality:
        """Of an architecture that has answered every batch; in their order."""
        return text.quality_of(answers, self.batches, self.task, "validation")

    def right(self, number: int, answers: text.Answers) -> Counts:
        """[texts] How many targets of each text of a batch are answered right; not of regression."""
        batch = self.batches[number]
        right = answers.found == batch.targets if self.task == "classify" else answers.found
        if batch.positions is None:
            return right.astype(np.int64)
        return np.bincount(batch.positions[right, 0], minlength=len(batch.ids)).astype(np.int64)

    def _predictor(self, architecture: Architecture) -> Predict:
        """Of one that says which precision its weights have, the answers are those of the file as it ships."""
        as_it_ships = self.run.declared.has_bits(architecture)
        return self.run.shipped_predict(architecture) if as_it_ships else self.run.supernet_predict(architecture)

    def _unpacked(self, answered: Answered, count: int) -> npt.NDArray[np.generic]:
        if self.task in ("classify", "regress"):
            kind = _kind_of(answered.classes)
            return np.frombuffer(answered.found[: len(answered.found) // kind.itemsize * kind.itemsize], kind)
        return np.unpackbits(np.frombuffer(answered.found, np.uint8))[:count].astype(bool)


def ask(question: Question) -> Answered:
    """Put a question where it has travelled to. Each process opens the run once.

    Raises:
        UsageError: the run's folder is not there.
        IntegrityError: what is there is another checkpoint, or gives other items.
    """
    return _opened(question.folder, question.checkpoint_sha256, question.items_sha256).ask(question)


@functools.lru_cache(_RUNS_KEPT)
def _opened(folder: str, checkpoint_sha256: str, items_sha256: str) -> HeldOut:
    if not Path(folder).is_dir():
        raise UsageError(
            f"a worker on {platform.node()} does not find the run",
            why=f"there is no {folder} there",
            hint="workers need the run's folder under the same path: on a shared disk, or as a copy",
        )
    held_out = HeldOut(Run(Path(folder)))
    if (held_out.checkpoint_sha256, held_out.items_sha256) != (checkpoint_sha256, items_sha256):
        raise IntegrityError(
            f"a worker on {platform.node()} has another run in {folder}",
            why="its checkpoint or its held-out items differ",
            hint="copy the run's folder again, install the same mostool there, and start the workers anew",
        )
    return held_out


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(batches: Sequence[TokenBatch]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        for array in (batch.ids, batch.attention_mask, batch.targets, batch.positions, batch.decoder_ids):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _packed(found: npt.NDArray[np.generic], classes: int) -> bytes:
    if found.dtype == np.bool_:
        return np.packbits(found.astype(np.uint8)).tobytes()
    return found.astype(_kind_of(classes)).tobytes()


def _kind_of(classes: int) -> np.dtype[np.generic]:
    return (np.min_scalar_type(classes) if classes else np.dtype(np.float32)).newbyteorder("<")
