"""A task that takes a second to learn: which of two tokens stands in a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tiny
import torch

from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Quality, Training
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.module import Supernet
from toolchain.supernet.parallel import Ranks
from toolchain.supernet.state import TrainingState
from toolchain.supernet.train import Plan, to_batch, train

MARKS = (50, 51)


class TokenBatch(NamedTuple):
    ids: Any
    attention_mask: Any
    targets: Any
    positions: Any = None
    decoder_ids: Any = None


def toy_batch(seed: int, rows: int = 8) -> TokenBatch:
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 40, size=(rows, 8))
    targets = rng.integers(0, 2, size=rows)
    ids[np.arange(rows), rng.integers(1, 8, size=rows)] = np.array(MARKS)[targets]
    return TokenBatch(ids, np.ones_like(ids), targets)


def halves(batch: TokenBatch) -> list[TokenBatch]:
    middle = len(batch.ids) // 2
    parts = (slice(None, middle), slice(middle, None))
    return [TokenBatch(batch.ids[part], batch.attention_mask[part], batch.targets[part]) for part in parts]


def toy_space() -> SearchSpace:
    return tiny.resolved(labels=2)


def settings(**changes: Any) -> Training:
    given: dict[str, Any] = {
        "mixture": tiny.mixture(experts=2),
        "updates": 8,
        "batch_size": 8,
        "sequence_length": 8,
        "vocabulary_size": 64,
        "learning_rate": 3e-3,
        "warmup_updates": 2,
        "evaluate_every": 2,
    }
    return Training(**(given | changes))


def toy_quality(supernet: Supernet, architecture: Architecture) -> Quality:
    batch = toy_batch(seed=10**6, rows=64)
    with torch.no_grad():
        logits = supernet(to_batch(batch), architecture)
    targets = torch.from_numpy(batch.targets)
    loss = float(torch.nn.functional.cross_entropy(logits, targets))
    right = float((logits.argmax(-1) == targets).float().mean())
    return Quality(metric="accuracy", value=right, loss=loss, n=64, split="validation")


def toy_train(
    folder: Path,
    training: Training,
    *,
    batches: Callable[[int], list[TokenBatch]] = lambda update: [toy_batch(update)],
    ranks: Ranks | None = None,
    validate: Callable[[Supernet, Architecture], Quality] = toy_quality,
    digest: str = "toy",
    listener: ProgressListener = silent,
) -> tuple[Supernet, TrainingState]:
    def shared(update: int, rank: int = 0, ranks: int = 1) -> list[TokenBatch]:
        return batches(update)[rank::ranks]

    return train(toy_space(), training, Plan(shared, validate), folder, digest, listener, ranks)


def stop_at(update: int) -> ProgressListener:
    """Ctrl-C after this many updates."""

    def listener(progress: Progress) -> None:
        if progress.done == update:
            raise KeyboardInterrupt

    return listener
