from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from toolchain.errors import UsageError
from toolchain.export import open_session
from toolchain.export.fuse import fuse, fused_count
from toolchain.export.isa import Int8Form, int8_form
from toolchain.export.static import Range, observe, quantise_static, recipe_of_form, scale_and_zero

from .made_precisions import calibration, constants, distance, kinds, modules_with, traced

CPU, ARM = int8_form("x86_64", ()), int8_form("aarch64", ())
GPU = int8_form("x86_64", (), engine="tensorrt")
FORMS = {"x86": CPU, "arm64": ARM, "tensorrt": GPU, "standard": Int8Form(standard=True)}


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_file_is_near_the_module_and_the_same_bytes_again(labels: int, form: Int8Form) -> None:
    fp32, checks, modules = traced(labels)
    model = quantise_static(fp32, modules, calibration(), form)
    assert 1e-4 < distance(model, checks) < 0.06
    assert model == quantise_static(fp32, sorted(modules), calibration(), form)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=form.standard)


@pytest.mark.parametrize("labels", [0, 3])
def test_every_product_of_the_modules_runs_as_integers(labels: int, tmp_path: object) -> None:
    """As ONNX Runtime says after loading: where a kernel is missing it falls back to fp32, and says nothing."""
    fp32, _, modules = traced(labels)
    model = quantise_static(fp32, modules, calibration(), CPU)
    found = modules_with(model, "MatMulIntegerToFloat")
    assert set(found.values()) == {1}
    assert found.keys() == modules - ({"word"} if labels == 0 else {"word", "head"}) - _absent(fp32, modules)
    loaded = _as_loaded(model, f"{tmp_path}/loaded.onnx")
    assert loaded["MatMulIntegerToFloat"] == sum(found.values())
    standard = _as_loaded(quantise_static(fp32, modules, calibration(), FORMS["standard"]), f"{tmp_path}/qdq.onnx")
    assert standard["MatMulIntegerToFloat"] + standard["Gemm"] + standard["FusedGemm"] == sum(found.values())


def _absent(model: bytes, modules: frozenset[str]) -> set[str]:
    products = modules_with(model, "MatMul").keys() | modules_with(model, "Gemm").keys()
    return {one for one in modules if one not in products}


def _as_loaded(model: bytes, path: str) -> dict[str, int]:
    import onnxruntime  # noqa: PLC0415

    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath, settings.log_severity_level = path, 3
    onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return kinds(onnx.load(path))


@pytest.mark.parametrize("name", FORMS)
def test_the_operators_are_those_of_the_form(name: str) -> None:
    fp32, _, modules = traced(0)
    model = quantise_static(fp32, modules, calibration(), FORMS[name])
    proto, stored = onnx.load_from_string(model), constants(model)
    domains = {one.domain for one in proto.opset_import}
    zeros = {stored[node.input[2]].dtype.name for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    assert ("com.microsoft" in domains) == (not FORMS[name].standard)
    assert zeros == {"int8" if FORMS[name].signed else "uint8"}
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & kinds(model).keys()
    assert ("word.weight.int8" in stored) == FORMS[name].tables
    if name == "tensorrt":
        assert all(not one.any() for key, one in stored.items() if key.endswith(".zero"))
        folded = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
        assert len([key for key in folded if key in stored]) == sum(modules_with(model, "MatMul")[m] for m in modules)


def test_a_row_s_answer_does_not_depend_on_what_it_is_batched_with() -> None:
    """Unlike that of a file that quantises as it comes."""
    fp32, checks, modules = traced(3)
    session = open_session(quantise_static(fp32, modules, calibration(), CPU), {}, threads=1)
    together = session.run(None, dict(checks.inputs[2]))[0]
    alone = [session.run(None, {key: value[[row]] for key, value in checks.inputs[2].items()})[0] for row in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


# -- ranges ------------------------------------------------------------------------------------------------------------


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rest = iter(calibration())

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rest, None)


def test_the_ranges_are_those_of_onnx_runtimes_own_calibrator(tmp_path: object) -> None:
    fp32, _, modules = traced(3)
    path = f"{tmp_path}/model.onnx"
    onnx.save(onnx.load_from_string(fp32), path)
    theirs = create_calibrator(path, ["MatMul"], f"{tmp_path}/augmented.onnx", CalibrationMethod.MinMax)
    theirs.set_execution_providers(["CPUExecutionProvider"])
    theirs.collect_data(_Reader())
    expected = theirs.compute_data()
    ours = observe(fp32, modules, calibration())
    shared = [name for name in ours if name in expected.keys()]  # noqa: SIM118 - it is no dict
    assert len(shared) > 10
    for name in shared:
        least, most = (float(np.ravel(one)[0]) for one in expected[name].range_value)
        assert ours[name] == pytest.approx((min(least, 0), max(most, 0)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("found", [Range(-1.0, 3.0), Range(0.0, 2.0), Range(-5.0, 0.0), Range(0.0, 0.0)])
def test_zero_is_a_whole_number_and_the_ends_are_reached(form: Int8Form, found: Range) -> None:
    scale, zero = scale_and_zero(found, form)
    lowest, highest = (-128, 127) if form.signed else (0, 255)
    assert scale > 0
    assert zero.dtype == (np.int8 if form.signed else np.uint8)
    reached = [scale * (one - int(zero)) for one in (lowest, highest)]
    assert reached[0] - scale <= found.least <= found.most <= reached[1] + scale
    if form.symmetric:
        assert int(zero) == (0 if form.signed else 128)


def test_without_inputs_to_observe_nothing_is_made() -> None:
    fp32, _, modules = traced(3)
    with pytest.raises(UsageError, match="calibration") as refusal:
        quantise_static(fp32, modules, [], CPU)
    assert refusal.value.hint


def test_no_modules_is_the_model_as_it_was() -> None:
    fp32, checks, _ = traced(3)
    model = quantise_static(fp32, [], calibration(), CPU)
    assert kinds(model) == kinds(fp32)
    assert distance(model, checks) < 1e-5


# -- with others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [0, 3])
def test_it_can_be_fused_after(labels: int) -> None:
    fp32, checks, modules = traced(labels)
    model = quantise_static(fp32, modules, calibration(), CPU)
    fused = fuse(model)
    assert fused_count(fused).attention == 3
    assert distance(fused, checks) == pytest.approx(distance(model, checks), abs=0.02)


def test_nothing_is_printed_or_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    fp32, _, modules = traced(3)
    before = list(logging.getLogger().handlers)
    with caplog.at_level(logging.DEBUG):
        quantise_static(fp32, modules, calibration(), CPU)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger().handlers == before


def test_two_forms_have_two_recipes() -> None:
    assert len({recipe_of_form(form) for form in FORMS.values()}) == len(FORMS)


def test_a_bias_that_others_read_stays() -> None:
    """A product whose sum is read twice: once with a bias, once without."""
    wide = 4
    names = {"weight": np.eye(wide, dtype=np.float32), "bias": np.ones(wide, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["sum"], "/dense/MatMul"),
        helper.make_node("Add", ["sum", "bias"], ["with"], "/dense/Add"),
        helper.make_node("Relu", ["sum"], ["without"], "/Relu"),
    ]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", wide]) for n in ("x", "with", "without")]
    stored = [numpy_helper.from_array(value, name) for name, value in names.items()]
    graph = helper.make_graph(nodes, "made", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.float32([[0.5, -0.5, 1.0, -1.0]])
    made = quantise_static(model, ["dense"], [{"x": x}], CPU)
    found = open_session(made, {}).run(None, {"x": x})
    np.testing.assert_allclose(found[0], x + 1, atol=0.02)
    np.testing.assert_allclose(found[1], np.maximum(x, 0), atol=0.02)
