"""ONNX Runtime on this machine, for parity and quality. Latency is the profiling room's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
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


_LARGEST_LOGITS_BYTES = 64 << 20
"""Of a vocabulary for each token; a batch of 64 rows would take gigabytes."""


class TokenBatch(Protocol):
    """What the predictor reads of a batch: see text/batches.py."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def attention_mask(self) -> npt.NDArray[np.int64]: ...
    @property
    def positions(self) -> npt.NDArray[np.int64] | None: ...


def open_session(model: bytes | Path, options: Mapping[str, str], *, threads: int = 0) -> Any:
    """A CPU session with the given session settings; `threads` = 0 is one for each core.

    Raises:
        IntegrityError: ONNX Runtime cannot load the model.
    """
    try:
        return open_unchecked(model, options, threads=threads)
    except RUNTIME_ERRORS as error:
        raise IntegrityError("ONNX Runtime cannot load the model", why=str(error).splitlines()[0]) from error


def open_unchecked(model: bytes | Path, options: Mapping[str, str] = MappingProxyType({}), *, threads: int = 0) -> Any:
    """The same, raising ONNX Runtime's own errors."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised
    settings.intra_op_num_threads = threads
    for key, value in options.items():
        settings.add_session_config_entry(key, value)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def predictor(
    model: bytes | Path, options: Mapping[str, str], *, threads: int = 0
) -> Callable[[TokenBatch], npt.NDArray[np.float32]]:
    """Logits [n, classes] of a batch from the model file: one row per target, as `text.evaluate` wants them.

    Where there are targets within the rows, only as many rows are computed at once as `_LARGEST_LOGITS_BYTES` allow.
    """
    session = open_session(model, options, threads=threads)

    def run(batch: TokenBatch, start: int, stop: int) -> npt.NDArray[np.float32]:
        part = {"input_ids": batch.ids[start:stop], "attention_mask": batch.attention_mask[start:stop]}
        logits: npt.NDArray[np.float32] = session.run(None, part)[0]
        return logits

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        count = len(batch.ids)
        if batch.positions is None:
            return run(batch, 0, count)
        rows, columns = batch.positions[:, 0], batch.positions[:, 1]
        logits = run(batch, 0, 1)  # of one row, which tells how large the others are
        at_once = max(1, _LARGEST_LOGITS_BYTES // max(1, logits.nbytes))
        found = np.empty((len(rows), logits.shape[-1]), logits.dtype)
        start = 0
        while True:
            here = (rows >= start) & (rows < start + len(logits))
            found[here] = logits[rows[here] - start, columns[here]]
            start += len(logits)
            if start >= count:
                return found
            logits = run(batch, start, start + at_once)

    return predict
