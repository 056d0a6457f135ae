"""What training minimises, by task, with or without a teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from toolchain.records import Training

_TEMPERATURE = 2.0
"""Softens a teacher's answers before they are learned from (Hinton et al., arXiv 1503.02531)."""


def answer_loss(logits: Tensor, targets: Tensor, training: Training, taught: Tensor | None = None) -> Tensor:
    """The mean loss over the targets.

    Args:
        logits: [n, classes]; of a regression [n, 1].
        targets: int64 [n]; of a regression float32 [n].
        taught: a teacher's logits of the same shape; they weigh `training.distill` in the loss.
    """
    logits = logits.float()
    if training.task == "regress":
        loss = F.mse_loss(logits.squeeze(-1), targets)
        learned = None if taught is None else F.mse_loss(logits, taught.float())
    else:
        loss = F.cross_entropy(logits, targets, label_smoothing=training.label_smoothing)
        learned = None if taught is None else _divergence(logits, taught.float())
    if learned is None:
        return loss
    return (1 - training.distill) * loss + training.distill * learned


def _divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """How far the answers are from the teacher's: Kullback-Leibler at a temperature, scaled like a cross-entropy."""
    mine, theirs = (F.log_softmax(one / _TEMPERATURE, dim=-1) for one in (logits, taught))
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * _TEMPERATURE**2
