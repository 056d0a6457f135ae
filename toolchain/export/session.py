"""ONNX Runtime on this machine, for parity and quality. Latency is the profiling room's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from toolchain.errors import IntegrityError

if TYPE_CHECKING:
    import numpy.typing as npt


RUNTIME_ERRORS = (
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoModel,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
)
"""What ONNX Runtime raises for a model it cannot load or run; they share no base class but Exception."""


class TokenBatch(Protocol):
    """What the predictor reads of a batch: see text/batches.py."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def attention_mask(self) -> npt.NDArray[np.int64]: ...
    @property
    def positions(self) -> npt.NDArray[np.int64] | None: ...


def open_session(model: bytes | Path, options: Mapping[str, str]) -> Any:
    """A CPU session with the given session settings.

    Raises:
        IntegrityError: ONNX Runtime cannot load the model.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    for key, value in options.items():
        settings.add_session_config_entry(key, value)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise IntegrityError("ONNX Runtime cannot load the model", why=str(error).splitlines()[0]) from error


def predictor(model: Path, options: Mapping[str, str]) -> Callable[[TokenBatch], npt.NDArray[np.float32]]:
    """Logits [n, classes] of a batch from the model file: one row per target, as `text.evaluate` wants them."""
    session = open_session(model, options)

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(
            None, {"input_ids": batch.ids, "attention_mask": batch.attention_mask}
        )[0]
        return logits if batch.positions is None else logits[batch.positions[:, 0], batch.positions[:, 1]]

    return predict
