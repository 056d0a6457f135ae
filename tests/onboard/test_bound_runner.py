"""onnxruntime's runner for GPUs, on the real onnxruntime and the processor's memory in place of a GPU's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolchain.onboard import onnxruntime_engine
from toolchain.onboard.onnxruntime_engine import _BoundRunner, _work_elsewhere

from .asked import refusal_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def model() -> bytes:
    """Outputs of a size that only a run tells, of no size, and of another type."""
    floats, truths = TensorProto.FLOAT, TensorProto.BOOL
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["double"]),
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("NonZero", ["x"], ["where"]),
            helper.make_node("Greater", ["x", "two"], ["large"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", floats, ["a", "b"])],
        [
            helper.make_tensor_value_info("double", floats, ["a", "b"]),
            helper.make_tensor_value_info("sum", floats, []),
            helper.make_tensor_value_info("where", TensorProto.INT64, [2, "many"]),
            helper.make_tensor_value_info("large", truths, ["a", "b"]),
        ],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


class Session:
    """The real session, which writes down what each run was told about graphs, and where its outputs went."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self.real = onnxruntime.InferenceSession(model(), options, providers=["CPUExecutionProvider"])
        self.graphs: list[str | None] = []
        self.addresses: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.graphs.append(options and options.get_run_config_entry("gpu_graph_id"))
        self.real.run_with_iobinding(binding, options)
        self.addresses.append([value.data_ptr() for value in binding.get_outputs()])


@pytest.fixture
def session() -> Session:
    return Session()


def bound(session: Session, x: Any = X) -> _BoundRunner:
    return _BoundRunner(onnxruntime, session, {"x": x}, ("cpu", 0))


def test_outputs_of_unknown_size_are_those_of_an_ordinary_run(session: Session) -> None:
    runner = bound(session)
    expected = session.real.run(None, {"x": X})
    for _ in range(3):
        runner.run()
        for found, wanted in zip(runner.outputs(), expected, strict=True):
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            assert (found == wanted).all()
    assert runner.names == ["double", "sum", "where", "large"]


def test_no_more_runs_than_asked_for_and_the_first_is_no_part_of_a_graph(session: Session) -> None:
    runner = bound(session)
    assert session.graphs == []
    for _ in range(3):
        runner.run()
    assert session.graphs == ["-1", None, None]


def test_from_the_first_run_on_the_outputs_stay_where_they_are(session: Session) -> None:
    runner = bound(session)
    for _ in range(4):
        runner.run()
    assert all(addresses == session.addresses[0] for addresses in session.addresses)


def test_inputs_that_are_views_are_laid_out_anew(session: Session) -> None:
    runner = bound(session, np.asfortranarray(X))
    runner.run()
    assert (runner.outputs()[0] == 2 * X).all()


# -- whose work it is ------------------------------------------------------------------------------------------------


def placed(**work: list[str]) -> Any:
    parts = [
        SimpleNamespace(ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=kind) for kind in kinds])
        for name, kinds in work.items()
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_a_model_that_was_left_to_the_processor_has_no_gpus_number(session: Session) -> None:
    with refusal_of("provider", "CUDAExecutionProvider was asked for, .*whole model to CPUExecutionProvider"):
        _work_elsewhere(session, "CUDAExecutionProvider")
    assert _work_elsewhere(session, "CPUExecutionProvider") == []


@pytest.mark.parametrize(
    ("left", "flags"), [(["Shape", "Gather", "Concat"], []), (["Shape", "MatMul"], ["partly-on-cpu"]), ([], [])]
)
def test_work_that_was_left_to_the_processor_is_flagged(left: list[str], flags: list[str]) -> None:
    assert _work_elsewhere(placed(CUDA=["MatMul"], CPU=left), "CUDA") == flags


def test_an_onnxruntime_that_does_not_tell_is_believed() -> None:
    assert _work_elsewhere(SimpleNamespace(), "CUDAExecutionProvider") == []


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has the CUDA provider"
)
def test_without_the_provider_nothing_is_run_by_another() -> None:
    asked = {"provider": "CUDAExecutionProvider", "provider_options": {}, "options": {}, "threads": 1}
    with refusal_of("provider", r"CUDAExecutionProvider is not available; onnxruntime .* here has .*CPU"):
        onnxruntime_engine.describe(asked)
