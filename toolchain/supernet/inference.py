"""Logits as arrays, for whoever evaluates: of a subnet inside the supernet, or of a materialized one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from toolchain.space import Architecture
from toolchain.supernet.module import Subnet, Supernet
from toolchain.supernet.train import TokenBatch, to_batch

if TYPE_CHECKING:
    import numpy.typing as npt

Predict = Callable[[TokenBatch], "npt.NDArray[np.float32]"]
"""Logits [n, classes] of a batch: one row per target."""


def supernet_predictor(supernet: Supernet, architecture: Architecture) -> Predict:
    """Of a subnet, computed with the supernet's shared weights."""
    supernet.space.check(architecture)

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = supernet(to_batch(batch), architecture).numpy()
        return logits

    return predict


def subnet_predictor(subnet: Subnet) -> Predict:
    """Of a materialized subnet."""

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        tensors = to_batch(batch)
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = subnet(tensors.ids, tensors.attention_mask, tensors.positions).numpy()
        return logits

    return predict
