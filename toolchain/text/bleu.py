"""BLEU as everybody reports it: sacrebleu's, with its signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics.bleu import BLEU


class Bleu(NamedTuple):
    """`score` is a share in 0..1, a hundredth of what sacrebleu prints; `signature` says how it was counted."""

    score: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> Bleu:
    """Corpus BLEU of detokenised, cased text against one reference each (13a tokenisation, exponential smoothing).

    Raises:
        ValueError: there are no hypotheses, or not as many as references.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} translations cannot be held against {len(references)} references")
    metric = BLEU(force=True)  # or it would warn, on standard error, about text that looks tokenised
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Bleu(min(1.0, score / 100), str(metric.get_signature()))
