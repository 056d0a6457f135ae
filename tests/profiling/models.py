"""Tiny ONNX models, and a connection that replays recorded lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolchain.devices import Connection
from toolchain.devices.device import Claim
from toolchain.devices.local import LocalDevice
from toolchain.records import Round, Timed
from toolchain.targets import Target

SHAPE = [4, 8]


def write_mlp(path: Path, seed: int = 0) -> Path:
    """y = relu(x W) W', x float32 (4, 8)."""
    rng = np.random.default_rng(seed)
    weights = [numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), name) for name in ("a", "b")]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Relu", ["xa"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    return _save(path, nodes, weights)


def write_logarithm(path: Path) -> Path:
    """y = log(x): not a number for the negative inputs of these tests."""
    return _save(path, [helper.make_node("Log", ["x"], ["y"])], [])


def _save(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class Replay:
    """A connection that answers with recorded lines; an exception among them is raised in its place."""

    def __init__(self, lines: Sequence[bytes | Exception]) -> None:
        self.lines = list(lines)
        self.sent: list[bytes] = []
        self.closed = False

    def send(self, line: bytes) -> None:
        self.sent.append(line)

    def receive(self, timeout_s: float) -> bytes:  # noqa: ARG002 - recorded lines do not wait
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return line

    def close(self) -> None:
        self.closed = True


class Started(LocalDevice):
    """A device whose workers are whatever `start` gives."""

    def __init__(self, target: Target, start: Callable[[], Connection]) -> None:
        super().__init__(target)
        self._start = start

    def start_worker(self, claim: Claim | None = None) -> Connection:  # noqa: ARG002
        return self._start()


def timed(wall_s: Sequence[Sequence[float]], reference_s: Sequence[float], **fields: object) -> Timed:
    """A measurement whose rounds took `wall_s`, undisturbed, while the reference took `reference_s`."""
    rounds = tuple(
        Round(
            wall_s=tuple(walls),
            cpu_s=tuple(walls),
            delay_s=(0.0,) * len(walls),
            reference_wall_s=reference,
            reference_cpu_s=reference,
            reference_fastest_s=reference,
        )
        for walls, reference in zip(wall_s, reference_s, strict=True)
    )
    return Timed(**({"rounds": rounds, "session_s": 0.1, "first_run_s": 0.1} | fields))
