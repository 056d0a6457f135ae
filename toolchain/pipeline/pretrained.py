"""A user's pretrained encoder as the start of a supernet: its tokenizer, its weights, and the space it spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from torch import Tensor

from toolchain import text
from toolchain.errors import UsageError
from toolchain.pipeline.spaces import read_space
from toolchain.pipeline.train import Start
from toolchain.records import Mixture, Origin, Training
from toolchain.space import SearchSpace
from toolchain.supernet.families import build_supernet
from toolchain.supernet.families.bert.checkpoint_folder import find_checkpoint
from toolchain.supernet.families.bert.pretrained import check_fits, read_pretrained, space_of
from toolchain.supernet.module import Supernet

_FEWEST_TOKENS = 64


class Beginning(NamedTuple):
    """The space to train, the settings with what the checkpoint decides of them, and what fills the supernet."""

    space: SearchSpace
    training: Training
    start: Start


def read_start(
    given: str, space_given: str | None, training: Training, *, allow_pickle_import: bool = False
) -> Beginning:
    """The checkpoint in a folder, or of a name on the Hugging Face hub, and the space to train.

    The space is the checkpoint's own, at narrower widths too, unless the user names one whose largest subnet it is. Its
    tokenizer and its layer norms' epsilon are the checkpoint's.

    Raises:
        UsageError: it is no BERT or RoBERTa checkpoint, or does not fit the space or the task.
        IntegrityError: a file of it is damaged.
    """
    if training.task == "translate":
        raise UsageError("a pretrained encoder does not translate", hint="--init goes with mlm, classify and regress")
    folder = find_checkpoint(given)
    foreign = text.import_tokenizer(folder)
    if len(foreign.rows) < _FEWEST_TOKENS:
        raise UsageError(
            f"the tokenizer in {folder} has {len(foreign.rows)} tokens",
            why=f"mostool trains on {_FEWEST_TOKENS} or more",
            hint="start from another checkpoint, or train without --init",
        )
    declared = None if space_given is None else read_space("bert", space_given)
    longest = max(training.sequence_length, declared.fixed.get("maximum_length", 0) if declared else 0)
    pretrained = read_pretrained(folder, foreign.rows, maximum_length=longest, allow_pickle_import=allow_pickle_import)
    space = declared or space_of(pretrained.sizes)
    exponent = {"norm_epsilon_exponent": pretrained.sizes["norm_epsilon_exponent"]}
    space = msgspec.structs.replace(space, fixed=exponent | space.fixed)
    check_fits(space, pretrained.sizes)

    def fill(supernet: Supernet) -> None:
        supernet.start_from(_cut(pretrained.weights, supernet.space))

    return Beginning(
        space,
        msgspec.structs.replace(training, vocabulary_size=len(foreign.rows)),
        Start(
            Origin(title=pretrained.title, sha256=pretrained.sha256, notes=pretrained.notes), fill, foreign.tokenizer
        ),
    )


def _cut(weights: Mapping[str, Tensor], space: SearchSpace) -> Mapping[str, Tensor]:
    """The weights of the architecture that `space` is narrowed to, where it is: slices of all."""
    if space.point is None:
        return weights
    whole = build_supernet(msgspec.structs.replace(space, point=None), Mixture(kind="plain", experts=1), 0.0)
    whole.start_from(weights)
    return dict(whole.materialize(space.point).named_parameters())
