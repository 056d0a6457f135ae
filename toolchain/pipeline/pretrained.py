"""A user's pretrained encoder as the start of a supernet: its tokenizer, its weights, and the space it spans."""

from __future__ import annotations

import msgspec

from toolchain import text
from toolchain.errors import UsageError
from toolchain.pipeline.train import Start, read_space
from toolchain.records import Origin, Training
from toolchain.space import SearchSpace
from toolchain.supernet.families.bert.pretrained import check_fits, find_checkpoint, read_pretrained, space_of
from toolchain.supernet.module import Supernet


def read_start(given: str, space_given: str | None, training: Training) -> tuple[SearchSpace, Start]:
    """The checkpoint in a folder, or of a name on the Hugging Face hub, and the space to train.

    The space is the checkpoint's own, at narrower widths too, unless the user names one whose largest subnet it is.

    Raises:
        UsageError: it is no BERT or RoBERTa checkpoint, or does not fit the space or the task.
        IntegrityError: a file of it is damaged.
    """
    if training.task == "translate":
        raise UsageError("a pretrained encoder does not translate", hint="--init goes with mlm, classify and regress")
    folder = find_checkpoint(given)
    foreign = text.import_tokenizer(folder)
    pretrained = read_pretrained(folder, foreign.rows, maximum_length=training.sequence_length)
    sizes = pretrained.sizes
    space = space_of(sizes, head_width=0) if space_given is None else read_space("bert", space_given)
    space = msgspec.structs.replace(
        space, fixed=space.fixed | {"norm_epsilon_exponent": sizes["norm_epsilon_exponent"]}
    )
    check_fits(space, sizes)

    def fill(supernet: Supernet) -> None:
        supernet.start_from(pretrained.weights)

    return space, Start(Origin(title=pretrained.title, sha256=pretrained.sha256), fill, foreign.tokenizer)
