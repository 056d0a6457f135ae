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
            logits = supernet(to_batch(batch, supernet.device), architecture)
        return _as_array(logits)

    return predict


def subnet_predictor(subnet: Subnet) -> Predict:
    """Of a materialized subnet."""

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits = subnet(*to_batch(batch).inputs)
        return _as_array(logits)

    return predict


def _as_array(logits: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = logits.float().cpu().numpy()
    return array
