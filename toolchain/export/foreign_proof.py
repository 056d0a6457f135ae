"""Is what optimum exported the model it was made from? Asked of the model before, and of the files after.

Encoders are asked as ours are (parity.py); of a translation model each of the three files by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from toolchain.errors import MostoolError, ParityError
from toolchain.export.parity import Checks, build_checks, check_parity, tolerance
from toolchain.export.session import open_session

if TYPE_CHECKING:
    import numpy.typing as npt

ENCODER, DECODER, DECODER_WITH_PAST = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"


class _Encoder(nn.Module):
    """The model as `build_checks` asks: forward(input_ids, attention_mask) -> logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class Asked(NamedTuple):
    """What a translation model was asked, and what it answered.

    ids, mask: int64 [batch, source]; words: int64 [batch, target], of which the last is asked after the others.
    read: the encoder's output [batch, source, width]; logits [batch, target, vocabulary].
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    read: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def _words(model: Any, rows: int, length: int, padding: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Random tokens, none of them padding, int64 [rows, length]."""
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size - 1, size=(rows, length))
    return ids + (ids >= padding)


def _padded(ids: npt.NDArray[np.int64], padding: int) -> npt.NDArray[np.int64]:
    """Rows of several lengths, up to two dozen, and the last one whole: a vocabulary of logits for each token is large,
    and checks are made of one long row and of three short ones."""
    for row, length in zip(ids[:-1], itertools.cycle((24, 17, 9, 2)), strict=False):
        row[length:] = padding
    return ids


def ask_encoder(model: Any, longest: int, padding: int) -> Checks:
    """Checks, one of them as long as a text may be."""
    return build_checks(_Encoder(model), _padded(_words(model, 6, longest, padding), padding), padding)


def compare_encoder(path: Path, checks: Checks) -> tuple[float, Checks]:
    """The largest difference, and the checks as the file takes them."""
    session = open_session(path, {})
    if any(one.name == "token_type_ids" for one in session.get_inputs()):
        inputs = [one | {"token_type_ids": np.zeros_like(one["input_ids"])} for one in checks.inputs]
        checks = Checks(inputs, checks.expected)
    return check_parity(session, checks), checks


@torch.no_grad()
def ask_translator(model: Any, begin: int, padding: int) -> Asked:
    ids = _words(model, 2, 7, padding)
    ids[1, 4:] = padding
    mask = (ids != padding).astype(np.int64)
    words = _words(model, 2, 4, padding, seed=1)
    words[:, 0] = begin
    answer = model(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        decoder_input_ids=torch.from_numpy(words),
        use_cache=False,
    )
    return Asked(ids, mask, words, answer.encoder_last_hidden_state.numpy(), answer.logits.numpy())


def compare_translator(made: Path, asked: Asked) -> float:
    """The largest difference over the encoder's output, and the logits of all words but one and of the one after."""
    known: dict[str, npt.NDArray[Any]] = {"encoder_attention_mask": asked.mask, "encoder_hidden_states": asked.read}
    (found,) = _run(made / ENCODER, {"input_ids": asked.ids, "attention_mask": asked.mask}).values()
    seen = asked.mask == 1  # what stands at padding nobody reads
    worst = _apart("encoder", found[seen], asked.read[seen])
    first = _run(made / DECODER, known | {"input_ids": asked.words[:, :-1]})
    worst = max(worst, _apart("decoder", first["logits"], asked.logits[:, :-1]))
    past = {name.replace("present", "past_key_values"): value for name, value in first.items() if name != "logits"}
    place = {"cache_position": np.array([asked.words.shape[1] - 1], dtype=np.int64)}
    second = _run(made / DECODER_WITH_PAST, known | past | place | {"input_ids": asked.words[:, -1:]})
    return max(worst, _apart("decoder with past", second["logits"], asked.logits[:, -1:]))


def _run(path: Path, known: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a file by their names, given what it asks for of what is known."""
    session = open_session(path, {})
    wanted = [one.name for one in session.get_inputs()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise MostoolError(f"{path.name} wants an input that mostool does not know: {unknown[0]}")
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: known[name] for name in wanted}), strict=True))


def _apart(what: str, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    error = float(np.abs(found - wanted).max())
    allowed = tolerance("fp32", Checks([], [wanted]))
    if not error <= allowed:
        raise ParityError(
            f"the exported {what} and the model disagree",
            why=f"largest difference {error:.2e}, allowed {allowed:.0e}",
        )
    return error
