"""What is trained, on what, and what it is worth."""

from __future__ import annotations

import datetime as dt
import math
from typing import Literal

from toolchain.records.storing import Record, Stored
from toolchain.space import SearchSpace

MixtureKind = Literal["plain", "layer", "neuron"]
RouterSees = Literal["all", "averages"]


class Mixture(Record, frozen=True):
    """How subnets share weights: `plain` slices one weight; `layer` and `neuron` mix the slices of `experts` weights.

    `expert_correlation` is that of two experts' weights at the start of training, `router_spread` the standard
    deviation over the space of what goes into a router's softmax then (0: near-uniform mixing; supernet/README.md).
    Routers see every axis of every layer, or (as in HAT) the averages over the layers. Mixed are the feed-forward
    layers and, with `attention`, the attention projections.
    """

    kind: MixtureKind = "neuron"
    experts: int = 2
    router_width: int = 128
    expert_correlation: float = 0.5
    router_spread: float = 0.0
    router_sees: RouterSees = "all"
    attention: bool = False

    def __post_init__(self) -> None:
        if self.experts < 1 or self.router_width < 1 or not 0 <= self.expert_correlation < 1:
            raise ValueError("a mixture needs experts >= 1, router_width >= 1 and 0 <= expert_correlation < 1")
        if not 0 <= self.router_spread < math.inf:
            raise ValueError("router_spread must be 0 or more")


Task = Literal["mlm", "classify", "regress", "translate"]
ModelTask = Literal["mlm", "classify", "regress", "translate", "encode"]
"""What a shipped model is for; of one that was brought and does not say, encode."""
Recipe = Literal["sandwich", "single-path", "progressive"]
Precision = Literal["fp32", "bf16"]


class Training(Record, frozen=True):
    """Everything that decides what a training run computes, apart from its data, its space and where it starts.

    An update takes `accumulate` micro-batches of `batch_size` items, or (translation, where it is above zero) of at
    most `batch_tokens` tokens on either side; several processes share them, so their number does not change the result.
    `distill` is the weight of a teacher's answers in the loss: in place (the largest subnet teaches the others), or of
    the teacher a fine-tuning is given.
    """

    task: Task = "classify"
    recipe: Recipe = "sandwich"
    mixture: Mixture = Mixture()
    updates: int = 1000
    batch_size: int = 64
    batch_tokens: int = 0
    accumulate: int = 1
    sequence_length: int = 64
    learning_rate: float = 1e-3
    warmup_updates: int = 100
    weight_decay: float = 0.01
    dropout: float = 0.1
    gradient_clip: float = 1.0
    label_smoothing: float = 0.0
    distill: float = 0.0
    precision: Precision = "fp32"
    evaluate_every: int = 200
    vocabulary_size: int = 8000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "accumulate", "sequence_length", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.batch_tokens < 0:
            raise ValueError("batch_tokens must be 0 or more")
        for name in ("label_smoothing", "distill"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1)")
        if self.sequence_length < 8 or self.vocabulary_size < 64:
            raise ValueError("sequence_length must be at least 8 and vocabulary_size at least 64")
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above zero")
        if not 0 <= self.dropout < 1 or not 0 <= self.weight_decay < math.inf or self.warmup_updates < 0:
            raise ValueError("dropout must be in [0, 1), weight_decay and warmup_updates must be 0 or more")


def metric_words(metric: str) -> str:
    """What people call a figure of merit: `token accuracy`, `BLEU`."""
    return "BLEU" if metric == "bleu" else metric.replace("_", " ")


def merit_words(metric: str, value: float, places: int = 1) -> str:
    """A figure of merit, stored as a share, as people write it: `87.1 %`; BLEU is counted in points, `11.3`."""
    return f"{100 * value:.{places}f}" + ("" if metric == "bleu" else " %")


class Quality(Record, frozen=True):
    """One figure of merit on `n` held-out items of a named split.

    `value` is a share: BLEU as sacrebleu prints it, divided by 100. `token_accuracy` is of a translation's next tokens
    given the right ones before. `also` holds further figures of the same answers, by name (GLUE asks for several).
    """

    metric: Literal["accuracy", "masked_accuracy", "token_accuracy", "bleu", "pearson"]
    value: float
    loss: float
    n: int
    split: Literal["validation", "test"]
    also: dict[str, float] = {}

    def __str__(self) -> str:
        held = {self.metric: self.value} | self.also
        figures = ", ".join(f"{metric_words(name)} {merit_words(name, value)}" for name, value in held.items())
        return f"{figures} on {self.n} {self.split} items"


class Data(Record, frozen=True):
    """What a model was trained on: the files read by name and sha256, and what they held."""

    title: str
    files: dict[str, str]
    sha256: str
    train: int
    validation: int
    test: int
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """Of a translation: from, to."""
    majority_share: float | None = None
    notes: tuple[str, ...] = ()


class TrainingPoint(Record, frozen=True):
    """One look at a training run: training losses since the last look, quality on the validation split.

    Keys are the subnets looked at: largest, smallest, random.
    """

    update: int
    seconds: float
    learning_rate: float
    losses: dict[str, float]
    quality: dict[str, Quality] = {}
    mixture: dict[str, float] = {}
    """How the mixture fares, by the names of supernet.mixture.MixtureState; empty for plain sharing."""


class Origin(Record, frozen=True):
    """What a run started from or learned from: in words, and the sha256 of its checkpoint or weights.

    `notes` say what was left out of it, or made anew.
    """

    title: str
    sha256: str
    notes: tuple[str, ...] = ()


class CheckpointInfo(Stored, frozen=True):
    """A trained supernet: what it is made of and which weights file holds it.

    A run of one architecture (trained alone, or cut out of a supernet and trained on) is one whose space is narrowed.
    """

    space: SearchSpace
    training: Training
    data: Data
    vocabulary_size: int
    updates_done: int
    weights: str
    weights_sha256: str
    tokenizer_sha256: str
    prepared_sha256: str
    parameters: int
    metrics: dict[str, Quality]
    versions: dict[str, str]
    created_at: dt.datetime
    origin: Origin | None = None
    teacher: Origin | None = None
