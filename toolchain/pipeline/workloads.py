"""The shape of one inference: which is usual, which is possible, and what a model reads for it."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain import profiling
from toolchain.errors import UsageError
from toolchain.records import ModelInput, Workload
from toolchain.space import SearchSpace

_SPECIAL_TOKENS = 5
"""The first tokens of a vocabulary mean no word."""


def usual_workload(space: SearchSpace) -> Workload:
    """One sequence as long as the space's models take, at most 128 tokens."""
    return Workload(batch=1, sequence_length=min(space.fixed["maximum_length"], 128))


def check_workload(space: SearchSpace, workload: Workload) -> None:
    """Raise UsageError where the models of a space do not take so many tokens."""
    longest = space.fixed["maximum_length"]
    if not 1 <= workload.sequence_length <= longest or workload.batch < 1:
        raise UsageError(
            f"batch {workload.batch} of {workload.sequence_length} tokens is no workload of this run",
            hint=f"the length may be 1 to {longest}, the batch 1 or more",
        )


def input_shapes(
    inputs: Sequence[ModelInput], workload: Workload, vocabulary_size: int
) -> dict[str, profiling.InputShape]:
    """The model's inputs for timing: random words (no special tokens), nothing masked; a translation as long as its
    source."""
    whole, words = (workload.batch, workload.sequence_length), workload.sequence_length
    first = min(_SPECIAL_TOKENS, vocabulary_size - 1)
    bounds = {
        "ids": (whole, first, vocabulary_size),
        "mask": (whole, 1, 2),
        "types": (whole, 0, 1),
        "least": ((1,), words, words + 1),
        "most": ((1,), words, words + 1),
    }
    found = {}
    for one in inputs:
        shape, low, high = bounds[one.role]
        found[one.name] = profiling.InputShape(dtype=one.dtype, shape=shape, low=low, high=high)
    return found
