from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import numpy_helper

import toolchain.export.compiling as compiling_module
import toolchain.export.session as session_module
from toolchain.errors import IntegrityError, ParityError
from toolchain.export import check_parity, open_session, predictor
from toolchain.export.onnx import OPSET, RECIPE
from toolchain.files import sha256_file
from toolchain.supernet.families import declaration
from toolchain.supernet.module import Subnet

from .made_bundle import export, make_checks, make_subnet, perturbed

SHAPES = [(1, 1), (1, 2), (1, 12), (2, 5), (3, 1), (7, 9)]
PADDINGS = ("none", "right", "left", "holes")


def answers(session: Any, rows: int, length: int, padding: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    batch = tiny.batch(rows, length, seed=rows * length, padding=padding)
    inputs = {"input_ids": batch.ids.numpy(), "attention_mask": batch.attention_mask.numpy()}
    return session.run(None, inputs)[0], inputs


def expected(subnet: Subnet, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return subnet(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))).numpy()


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("head_width", [0, 4])
def test_the_file_answers_as_the_module_at_every_shape(tmp_path: Path, labels: int, head_width: int) -> None:
    supernet = tiny.supernet(tiny.resolved(labels, head_width))
    for architecture in tiny.samples(supernet.space, 4):
        subnet = supernet.materialize(architecture)
        artifact = export(subnet, tmp_path / "model.onnx")
        session = open_session(tmp_path / "model.onnx", {})
        for number, (rows, length) in enumerate(SHAPES):
            found, inputs = answers(session, rows, length, PADDINGS[number % 4])
            assert found.shape == ((rows, labels) if labels else (rows, length, tiny.VOCABULARY))
            np.testing.assert_allclose(found, expected(subnet, inputs), atol=1e-4)
        assert artifact.parity_max_abs_error is not None
        assert artifact.parity_max_abs_error < 1e-4
        assert artifact.parameters == declaration("bert").parameters(supernet.space, architecture)


def test_the_artifact_says_what_the_file_is(tmp_path: Path) -> None:
    subnet = make_subnet()
    artifact = export(subnet, tmp_path / "model.onnx")
    path = tmp_path / artifact.file
    assert (artifact.sha256, artifact.size_bytes) == (sha256_file(path), path.stat().st_size)
    assert (artifact.architecture, artifact.checkpoint_sha256) == (subnet.architecture, "c" * 64)
    assert (artifact.recipe, artifact.opset) == (RECIPE, OPSET)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    stored = sum(int(np.prod(one.dims)) for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    assert stored == pytest.approx(artifact.parameters, abs=20)  # each weight once, and a few scalars
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize("labels", [0, 3])
def test_batch_and_length_are_open(tmp_path: Path, labels: int) -> None:
    export(make_subnet(labels), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert shapes["input_ids"] == shapes["attention_mask"] == ["batch", "sequence"]
    assert shapes["logits"][0] == "batch"
    assert len(shapes["logits"]) == (2 if labels else 3)
    assert labels or shapes["logits"][1] == "sequence"


@pytest.mark.parametrize("labels", [0, 3])
def test_the_same_subnet_is_the_same_bytes(tmp_path: Path, labels: int) -> None:
    first = export(make_subnet(labels), tmp_path / "first.onnx")
    export(make_subnet(labels, seed=1), tmp_path / "between.onnx")
    again = export(make_subnet(labels), tmp_path / "again.onnx")
    assert first.sha256 == again.sha256
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert first.sha256 != sha256_file(tmp_path / "between.onnx")


def test_nothing_in_the_file_tells_of_this_machine(tmp_path: Path) -> None:
    export(make_subnet(), tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    home, here = str(Path.home()), str(Path(__file__).resolve().parents[2])
    for trace in (here, home, str(tmp_path), "/work", "/root", "site-packages", "stack_trace", ".py"):
        assert trace.encode() not in data, trace
    model = onnx.load(tmp_path / "model.onnx")
    words = " ".join((*_texts(model), *(node.name for node in model.graph.node)))
    assert getpass.getuser() not in words
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def _texts(model: onnx.ModelProto) -> list[str]:
    return [model.producer_name, model.producer_version, model.domain, model.doc_string, model.graph.doc_string]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_makes_no_file(tmp_path: Path, bad: float) -> None:
    subnet = make_subnet()
    checks = make_checks(subnet)
    with torch.no_grad():
        dict(subnet.named_parameters())["blocks.0.fc2.weight"][1, 2] = bad
    with pytest.raises(ParityError, match=r"blocks\.0\.fc2\.weight") as refusal:
        export(subnet, tmp_path / "model.onnx", checks)
    assert refusal.value.hint
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    """The checks were made on the module as it was; what is exported is slightly another."""
    subnet = make_subnet()
    checks = make_checks(subnet)
    with pytest.raises(ParityError, match="disagree") as refusal:
        export(perturbed(subnet, 1e-2), tmp_path / "model.onnx", checks)
    assert "allowed" in refusal.value.why
    assert not list(tmp_path.iterdir())


def test_an_exporter_that_freezes_the_length_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = compiling_module.trace

    def frozen(subnet: torch.nn.Module, checks: Any) -> bytes:
        model = onnx.load_from_string(trace(subnet, checks))
        for one in model.graph.input:
            one.type.tensor_type.shape.dim[1].Clear()
            one.type.tensor_type.shape.dim[1].dim_value = checks.inputs[0]["input_ids"].shape[1]
        return model.SerializeToString()  # type: ignore[no-any-return]

    monkeypatch.setattr(compiling_module, "trace", frozen)
    with pytest.raises(ParityError, match="does not run"):
        export(make_subnet(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def _change(change: Callable[[np.ndarray], np.ndarray], path: Path) -> bytes:
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if one.data_type == 1 and len(one.dims) == 2)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return model.SerializeToString()  # type: ignore[no-any-return]


def test_weights_changed_in_the_file_are_noticed(tmp_path: Path) -> None:
    subnet = make_subnet()
    checks = make_checks(subnet)
    export(subnet, tmp_path / "model.onnx", checks)
    changed = _change(lambda weight: weight * 1.01, tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=r"check \d"):
        check_parity(open_session(changed, {}), checks)
    broken = _change(lambda weight: weight * np.float32("nan"), tmp_path / "model.onnx")
    with pytest.raises(ParityError, match="not finite"):
        check_parity(open_session(broken, {}), checks)
    assert check_parity(open_session(_change(lambda weight: weight, tmp_path / "model.onnx"), {}), checks) < 1e-4


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x07" * 40])
def test_what_is_no_model_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    for model in (data, tmp_path / "model.onnx", tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(IntegrityError, match="cannot load"):
            open_session(model, {})


def test_a_model_cut_short_is_refused(tmp_path: Path) -> None:
    export(make_subnet(), tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(IntegrityError, match="cannot load"):
        open_session(data[: len(data) // 2], {})


@pytest.mark.parametrize("labels", [0, 3])
def test_the_predictor_of_a_file_answers_once_per_target(tmp_path: Path, labels: int) -> None:
    subnet = make_subnet(labels)
    export(subnet, tmp_path / "model.onnx")
    batch = tiny.batch()
    batch_of = type("Arrays", (), {})()
    batch_of.ids, batch_of.attention_mask = batch.ids.numpy(), batch.attention_mask.numpy()
    batch_of.positions = None if labels else np.array([[0, 2], [3, 1], [1, 0]])
    logits = predictor(tmp_path / "model.onnx", {})(batch_of)
    full = expected(subnet, {"input_ids": batch_of.ids, "attention_mask": batch_of.attention_mask})
    np.testing.assert_allclose(logits, full if labels else full[[0, 3, 1], [2, 1, 0]], atol=1e-4)


def test_a_vocabulary_of_logits_for_a_whole_batch_is_never_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subnet = make_subnet(0)
    export(subnet, tmp_path / "model.onnx")
    batch = tiny.batch(rows=7)
    masked = type("Arrays", (), {})()
    masked.ids, masked.attention_mask = batch.ids.numpy(), batch.attention_mask.numpy()
    masked.positions = np.array([[6, 2], [3, 1], [1, 0], [0, 0], [6, 1], [4, 2]])
    full = expected(subnet, {"input_ids": masked.ids, "attention_mask": masked.attention_mask})
    asked: list[int] = []
    opened = session_module.open_session

    class Counting:
        def __init__(self, *given: object, **settings: int) -> None:
            self.session = opened(*given, **settings)

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            asked.append(len(inputs["input_ids"]))
            return self.session.run(names, inputs)

    monkeypatch.setattr(session_module, "open_session", Counting)
    monkeypatch.setattr(session_module, "_LARGEST_LOGITS_BYTES", 2 * full[0].nbytes)
    logits = predictor(tmp_path / "model.onnx", {})(masked)
    np.testing.assert_allclose(logits, full[masked.positions[:, 0], masked.positions[:, 1]], atol=1e-4)
    assert asked == [1, 2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_torch_s_other_exporter_makes_the_same_function(tmp_path: Path, labels: int) -> None:
    subnet = make_subnet(labels)
    export(subnet, tmp_path / "ours.onnx")
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("sequence", max=tiny.LONGEST)
    example = tiny.batch()
    program = torch.onnx.export(
        subnet,
        (example.ids, example.attention_mask),
        dynamo=True,
        dynamic_shapes={name: {0: batch, 1: length} for name in ("input_ids", "attention_mask")},
        input_names=["input_ids", "attention_mask"],
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "theirs.onnx")
    ours, theirs = (open_session(tmp_path / f"{name}.onnx", {}) for name in ("ours", "theirs"))
    for rows, length_of in SHAPES:
        found, inputs = answers(ours, rows, length_of, "right")
        np.testing.assert_allclose(found, theirs.run(None, inputs)[0], atol=1e-4)
