"""An ONNX file that was brought: how long its texts may be, what it is asked, and what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolchain import export
from toolchain.errors import ParityError, UsageError
from toolchain.export.foreign_tuning import Fused, fuse_given
from toolchain.export.inspecting import GivenFile
from toolchain.export.preparing import rewritten
from toolchain.pipeline.brought_text import SENTENCES, Asked, Words
from toolchain.records import ModelInput, ModelTask

USUAL_LENGTH = 128
ROWS = 4
_SHORT = 24
"""A vocabulary of logits for each token is large: one row is as long as may be, several are of so many tokens."""


class Given(NamedTuple):
    """A model as it was brought.

    Attributes:
        plain: its fp32 file, portable; of a translation model the one that translates in one call.
        checks: what that answers, or what the model in transformers does.
        calibration: inputs made of real text; none where its tokenizer is not known.
        fused: the same in fewer operators, for ONNX Runtime on a processor; None: it is that already.
        graphs: of a translation model, the three that ship beside it.
        files: what else ships, by name.
        batch, length: the one shape it takes; None: any.
        notes: what there is to know of it.
    """

    name: str
    task: ModelTask
    plain: bytes
    checks: export.Checks
    inputs: tuple[ModelInput, ...]
    maximum_length: int
    vocabulary_size: int
    parameters: int
    error: float | None
    sha256: str
    calibration: Sequence[Asked] = ()
    fused: Callable[[], Fused] | None = None
    graphs: export.Parts | None = None
    marks: export.Marks | None = None
    labels: tuple[str, ...] = ()
    tokenizer: Path | None = None
    files: Mapping[str, Path] = {}
    batch: int | None = None
    length: int | None = None
    notes: tuple[str, ...] = ()


def file_given(path: Path, tokenizer: Path | None, length: int | None) -> Given:
    """The encoder in an ONNX file, asked random words and, where its tokenizer is known, text.

    Args:
        tokenizer: its tokenizer.json; None: the one beside it, if there is one.
        length: how many tokens its texts are to have; None: what is usual, or as many as it takes.

    Raises:
        UsageError: it is none, does not run on so many tokens, or the tokenizer is not its own.
        IntegrityError: it is damaged, or the tokenizer is.
        ParityError: it answers with numbers that are not finite.
    """
    if tokenizer is not None and not tokenizer.is_file():
        raise UsageError(f"there is no file {tokenizer}", hint="--tokenizer takes the path of a tokenizer.json")
    found = export.read_brought(path)
    beside = path.parent / "tokenizer.json"
    words = tokenizer or (beside if beside.is_file() else None)
    session = export.open_session(found.model, {})
    longest = found.length or _longest(found, session, length)
    batch = found.batch or (None if _answers(found, session, ROWS, min(longest, _SHORT)) else 1)
    asked = questions(found.inputs, batch, longest, found.vocabulary_size, fixed=found.length is not None)
    checks = export.Checks(asked, answered(session, asked, path))
    calibration: list[Asked] = []
    if words is not None:
        checks, calibration = with_text(
            checks, session, words, found.inputs, longest, batch=batch, fixed=found.length is not None
        )
    done = rewritten(found.model)
    return Given(
        name=path.stem if path.stem != "model" else path.resolve().parent.name,
        task="encode",
        plain=found.model,
        checks=checks,
        inputs=found.inputs,
        maximum_length=longest,
        vocabulary_size=found.vocabulary_size,
        parameters=found.parameters,
        error=None,
        sha256=found.sha256,
        calibration=calibration,
        fused=lambda: fuse_given(found.model, checks, {}),
        tokenizer=words,
        batch=batch,
        length=found.length,
        notes=(f"it was fused or quantised before it was brought: {done}",) if done else (),
    )


def questions(
    inputs: Sequence[ModelInput], batch: int | None, longest: int, vocabulary_size: int, *, fixed: bool
) -> list[Asked]:
    """Random words: one row of all that fit, and several of few, one and two; whole, padded and with holes.

    Args:
        batch: how many rows it takes; None: any number.
        fixed: it takes rows of `longest` tokens alone.
    """
    rng = np.random.default_rng(0)
    shapes = [(batch or 1, longest)]
    shapes += [(batch or 2, longest)] if fixed else [(batch or ROWS, min(one, longest)) for one in (_SHORT, 1, 2)]
    asked = []
    for number, (rows, tokens) in enumerate(dict.fromkeys(shapes)):
        ids = rng.integers(min(5, vocabulary_size - 1), vocabulary_size, size=(rows, tokens))
        for mask in _masks(rows, tokens, whole=fixed and number > 0):
            known = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
            asked.append({one.name: known[one.role].astype(one.dtype) for one in inputs})
            if "mask" not in {one.role for one in inputs}:
                break
    return asked


def _masks(rows: int, tokens: int, *, whole: bool) -> Iterator[Any]:
    """Of which tokens are read: all, not the first third, not the last, not every third; `whole`: all alone."""
    every = np.ones((rows, tokens), np.int64)
    yield every
    third = tokens // 3
    places = (slice(0, third), slice(tokens - third, tokens), slice(1, None, 3))
    for hidden in () if whole else places:
        mask = every.copy()
        mask[:, hidden] = 0
        if (mask == 0).any():
            yield mask


def answered(session: Any, asked: Sequence[Asked], what: Path) -> list[Any]:
    """What a model answers.

    Raises:
        ParityError: with numbers that are not finite.
    """
    found = [session.run(None, dict(one))[0] for one in asked]
    if not all(np.isfinite(one).all() for one in found):
        raise ParityError(f"{what} answers with numbers that are not finite", hint="export the model again")
    return found


def with_text(
    checks: export.Checks,
    session: Any,
    tokenizer: Path,
    inputs: Sequence[ModelInput],
    longest: int,
    *,
    batch: int | None = None,
    fixed: bool = False,
) -> tuple[export.Checks, list[Asked]]:
    """The checks with some text and what the session answers to it; and inputs of more text.

    Raises:
        UsageError: the model does not run on what the tokenizer makes of it.
        IntegrityError: the tokenizer is none.
    """
    words = Words(tokenizer)
    some = words.ask(SENTENCES[:ROWS], inputs, longest=longest, rows=batch or ROWS, fixed=fixed)[:1]
    more = words.ask(SENTENCES, inputs, longest=longest, rows=batch or 1, fixed=fixed)
    ids = next(one.name for one in inputs if one.role == "ids")
    rarest = max(more, key=lambda one: int(one[ids].max()))  # a word that the model's table may not have
    try:
        *found, _ = answered(session, [*some, rarest], tokenizer)
    except export.RUNTIME_ERRORS as error:
        raise UsageError(
            f"the model does not run on the tokens of {tokenizer}",
            why=str(error).splitlines()[0][-200:],
            hint="is it the tokenizer of this model?",
        ) from error
    return export.Checks([*checks.inputs, *some], [*checks.expected, *found]), more


def _answers(found: GivenFile, session: Any, rows: int, tokens: int) -> bool:
    """Whether it runs on so many rows of so many tokens."""
    one = questions(found.inputs, rows, tokens, found.vocabulary_size, fixed=True)[0]
    with contextlib.suppress(*export.RUNTIME_ERRORS):
        session.run(None, one)
        return True
    return False


def _longest(found: GivenFile, session: Any, asked: int | None) -> int:
    """How long its texts may be: as long as was asked, else the longest of usual length that it answers to.

    Raises:
        UsageError: it does not answer to any, or not to the length asked for.
    """

    def answers(tokens: int) -> bool:
        return _answers(found, session, found.batch or 1, tokens)

    if asked is not None and not answers(asked):
        raise UsageError(f"the model does not run on {asked} tokens", hint="give a smaller --length")
    if asked is not None or answers(USUAL_LENGTH):
        return asked or USUAL_LENGTH
    runs, fails = 0, USUAL_LENGTH
    while fails - runs > 1:
        middle = (runs + fails) // 2
        runs, fails = (middle, fails) if answers(middle) else (runs, middle)
    if runs == 0:
        raise UsageError("the model does not run on any number of tokens", hint="does it need other inputs?")
    return runs
