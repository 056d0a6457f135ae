import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from toolchain.onboard import cuda, nvidia, tensorrt_engine, tensorrt_plan
from toolchain.onboard.tensorrt_plan import build_plan, cached_plan
from toolchain.targets import Target, shipped_folder

from . import fake_tensorrt
from .asked import refusal_of, request
from .fake_cuda import FakeCuda
from .fake_tensorrt import FakeTensorrt

WIDTH, HEADS, INNER, WORDS = 32, 4, 64, 100

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (pip install tensorrt-rtx)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOSTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cuda, nvidia):
        monkeypatch.setattr(module, "_PLACES", ("libno-such-driver.so.1",))


# -- a transformer layer ---------------------------------------------------------------------------------------------


class Graph:
    """A graph under construction."""

    def __init__(self, dtype: Any, quantized: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)
        self.dtype, self.quantized = dtype, quantized

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, name: str, x: str, rows: int, columns: int) -> str:
        """x times a matrix; quantized, both go through int8, the matrix by its columns."""
        weights = self.rng.standard_normal((rows, columns)).astype(self.dtype) * 0.1
        if not self.quantized:
            return self.node("MatMul", name, x, self.constant(f"{name}_w", weights))
        scales = (np.abs(weights).max(axis=0) / 127).astype(self.dtype)
        integers = np.clip(np.rint(weights / scales), -127, 127).astype(np.int8)
        pair = (
            self.constant(f"{name}_s", np.array(0.05, self.dtype)),
            self.constant(f"{name}_z", np.array(0, np.int8)),
        )
        small = self.node("QuantizeLinear", f"{name}_q", x, *pair)
        x = self.node("DequantizeLinear", f"{name}_x", small, *pair)
        stored = [
            self.constant(f"{name}_w8", integers),
            self.constant(f"{name}_ws", scales),
            self.constant(f"{name}_wz", np.zeros(columns, np.int8)),
        ]
        return self.node("MatMul", name, x, self.node("DequantizeLinear", f"{name}_w", *stored, axis=1))

    def normal(self, name: str, x: str) -> str:
        ones = self.constant(f"{name}_g", np.ones(WIDTH, self.dtype))
        return self.node("LayerNormalization", name, x, ones, self.constant(f"{name}_b", np.zeros(WIDTH, self.dtype)))


def transformer(*, fixed: bool = False, half: bool = False, quantized: bool = False) -> bytes:
    """Embedding, attention and feed-forward, each with its normalization."""
    g = Graph(np.float16 if half else np.float32, quantized)
    table = g.constant("table", g.rng.standard_normal((WORDS, WIDTH)).astype(g.dtype))
    apart = g.constant("apart", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    together = g.constant("together", np.array([0, 0, WIDTH], np.int64))
    x = g.node("Gather", "embedded", table, "ids")
    heads = {}
    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        split = g.node("Reshape", f"{name}_split", g.linear(name, x, WIDTH, WIDTH), apart)
        heads[name] = g.node("Transpose", f"{name}_turned", split, perm=order)
    scores = g.node("MatMul", "scores", heads["query"], heads["key"])
    mixed = g.node("MatMul", "mixed", g.node("Softmax", "weights", scores, axis=-1), heads["value"])
    joined = g.node("Reshape", "joined", g.node("Transpose", "turned", mixed, perm=[0, 2, 1, 3]), together)
    x = g.normal("attended", g.node("Add", "residual", x, g.linear("out", joined, WIDTH, WIDTH)))
    inner = g.node("Relu", "active", g.linear("wide", x, WIDTH, INNER))
    g.normal("y", g.node("Add", "sum", x, g.linear("narrow", inner, INNER, WIDTH)))
    sizes = [1, 8] if fixed else ["batch", "length"]
    return model_of(g, sizes, [*sizes, WIDTH], TensorProto.FLOAT16 if half else TensorProto.FLOAT)


def model_of(g: Graph, sizes: list[Any], result: list[Any], kind: int) -> bytes:
    graph = helper.make_graph(
        g.nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, sizes)],
        [helper.make_tensor_value_info("y", kind, result)],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def made_of(*operators: str) -> bytes:
    """A model of operators that no TensorRT knows."""
    nodes = [helper.make_node(name, ["x"], [f"y{i}"], name=f"node{i}") for i, name in enumerate(operators)]
    float4 = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y0")]
    graph = helper.make_graph(nodes, "g", float4[:1], float4[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


# -- real builds, by TensorRT-RTX ------------------------------------------------------------------------------------


@rtx
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ({"fixed": True}, {}),
        ({}, {}),
        ({}, {"profile__min": "ids:1x1", "profile__max": "ids:4x64"}),
        ({"half": True}, {}),
        ({"quantized": True}, {}),
        ({}, {"tf32": "0", "optimization_level": "1", "compute_capability": "8.6,8.9"}),
    ],
    ids=["fixed", "one shape", "batch and length", "fp16", "int8", "options"],
)
def test_a_transformer_is_built_without_a_gpu(model: dict[str, bool], options: dict[str, str]) -> None:
    plan = build_plan(transformer(**model), request(**options), {"ids": (1, 8)})
    assert len(plan) > 10_000


@rtx
def test_the_precision_is_the_models() -> None:
    full, half = (len(build_plan(transformer(half=half), request(), {"ids": (1, 8)})) for half in (False, True))
    assert half < full


@rtx
def test_what_cannot_be_run_is_named_operator_and_node() -> None:
    with refusal_of("load", r"tensorrt_rtx cannot take Odd \(node 'node0'\): .*Plugin not found"):
        build_plan(made_of("Odd"), request(), {"x": (4,)})


@rtx
def test_every_operator_that_cannot_be_run_is_named_once() -> None:
    with refusal_of("load", r"Odd \(node 'node0'\).*Even \(node 'node2'\)") as refusal:
        build_plan(made_of("Odd", "Odd", "Even"), request(), {"x": (4,)})
    assert str(refusal.value).count("Odd (") == 1


@rtx
@pytest.mark.parametrize("content", [b"", b"no model"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with refusal_of("load", "."):
        build_plan(content, request(), {})


@rtx
def test_a_gpu_that_lacks_an_operation_is_refused_in_tensorrts_words() -> None:
    with refusal_of("load", r"cannot build it: .*Turing \(SM75\): FP32 GEMM is not supported"):
        build_plan(transformer(), request(compute_capability="7.5"), {"ids": (1, 8)})


@rtx
def test_a_gpu_that_is_not_built_for_is_refused_with_those_that_are() -> None:
    with refusal_of("request", r"compute_capability '6\.1': tensorrt_rtx builds for 7\.5, .*8\.6.*, 12\.0"):
        build_plan(transformer(), request(compute_capability="6.1"), {"ids": (1, 8)})


@rtx
def test_the_gpu_of_this_machine_is_none_of_several() -> None:
    with refusal_of("request", r"compute_capability '8\.6,current': `current` stands alone"):
        build_plan(transformer(), request(compute_capability="8.6,current"), {"ids": (1, 8)})


@rtx
def test_a_plan_is_told_from_the_model_it_was_made_of() -> None:
    model = transformer(fixed=True)
    assert tensorrt_plan.is_plan(build_plan(model, request(), {"ids": (1, 8)}))
    assert not tensorrt_plan.is_plan(model)


@pytest.mark.parametrize("content", [onnx.ModelProto(producer_name="p").SerializeToString(), b""])
def test_what_may_be_a_model_is_no_plan(content: bytes) -> None:
    assert not tensorrt_plan.is_plan(content)


def test_every_field_of_a_model_may_come_first() -> None:
    """In whichever order a writer has them: a field's number and kind are its first byte, or the first two."""
    fields = onnx.ModelProto.DESCRIPTOR.fields
    kinds = {field.number: 0 if field.cpp_type == field.CPPTYPE_INT64 else 2 for field in fields}
    begins = {number << 3 | kind for number, kind in kinds.items()}
    assert {one if one < 128 else one & 127 | 128 for one in begins} == tensorrt_plan._MODEL_BEGINS


@rtx
@pytest.mark.skipif(cuda.open_library(("libcuda.so.1",), {}) is not None, reason="this machine has an NVIDIA driver")
def test_on_this_machine_the_plan_is_for_its_own_gpu() -> None:
    """There is none here, and TensorRT says so: nothing is built for another one in its stead."""
    with refusal_of("provider", r"cudaError 35: CUDA driver version is insufficient"):
        cached_plan(transformer(), request(), {"ids": (1, 8)}, "NVIDIA Fake")


@rtx
@pytest.mark.parametrize(
    ("shapes", "options", "kind", "said"),
    [
        ({"ids": (1, 8)}, {"profile__max": "ids:1x4"}, "request", r"\(1, 8\) is not within"),
        ({"ids": (1, 8)}, {"profile__min": "ids:8"}, "load", r"is \(-1, -1\) in the model .*not 8 to 1x8"),
        ({"ids": (1, 8)}, {"profile__min": "mask:1x8"}, "load", "no input mask: the model has ids"),
        ({"ids": (1, 8), "mask": (1, 8)}, {}, "load", "no input mask"),
        ({}, {}, "load", "'ids' was given no shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: dict[str, tuple[int, ...]], options: dict[str, str], kind: str, said: str
) -> None:
    with refusal_of(kind, said):
        build_plan(transformer(), request(**options), shapes)


@rtx
def test_a_model_of_one_shape_takes_no_other() -> None:
    with refusal_of("load", r"'ids' is \(1, 8\) in the model .* not 2x8"):
        build_plan(transformer(fixed=True), request(), {"ids": (2, 8)})


@rtx
def test_rtx_takes_the_precision_from_the_model_and_nothing_else() -> None:
    with refusal_of("request", "takes the precision from the model: export it as fp16"):
        build_plan(transformer(), request(fp16="1"), {"ids": (1, 8)})


@rtx
def test_the_fake_has_the_names_of_the_real_one() -> None:
    import tensorrt_rtx  # noqa: PLC0415

    fake = FakeTensorrt("rtx", FakeCuda())
    for name in ("ILogger", "Builder", "OnnxParser", "Runtime", "nptype", *vars(fake)):
        if name not in ("cuda", "log", "works", "captures", "layers", "plan", "context") and not name.startswith("__"):
            assert hasattr(tensorrt_rtx, name), name
    for kind, real in (
        (fake_tensorrt.Builder, tensorrt_rtx.Builder),
        (fake_tensorrt.OnnxParser, tensorrt_rtx.OnnxParser),
        (fake_tensorrt.Config, tensorrt_rtx.IBuilderConfig),
        (fake_tensorrt.Runtime, tensorrt_rtx.Runtime),
        (fake_tensorrt.Engine, tensorrt_rtx.ICudaEngine),
        (fake_tensorrt.Context, tensorrt_rtx.IExecutionContext),
        (fake_tensorrt.RuntimeConfig, tensorrt_rtx.IRuntimeConfig),
        (fake_tensorrt.RuntimeCache, tensorrt_rtx.IRuntimeCache),
    ):
        assert {name for name in vars(kind) if not name.startswith("_")} <= set(dir(real))


@rtx
@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_it_is_refused_before_anything_is_built(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(transformer())
    inputs = {"ids": np.zeros((1, 8), np.int64)}
    for ask in (
        lambda: tensorrt_engine.describe(request()),
        lambda: tensorrt_engine.open_model(str(tmp_path / "model.onnx"), request(), inputs),
    ):
        with refusal_of("provider", r"no NVIDIA driver here: libcuda\.so\.1"):
            ask()
    assert not cache.exists()


# -- the package -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt_rtx"])
def test_a_package_that_is_not_there_is_named_with_its_cure(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with refusal_of("engine", rf"{engine} cannot be imported: .*; pip install tensorrt"):
        tensorrt_engine.describe(request(engine))


def test_a_package_without_its_libraries_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "libnvonnxparser.so.11: cannot open shared object file: No such file or directory"
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({said!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with refusal_of("engine", "libnvonnxparser.so.11: cannot open shared object file"):
        tensorrt_engine.describe(request("tensorrt"))


def test_a_package_of_another_age_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = FakeTensorrt("10", FakeCuda())
    old.__version__ = "8.5.2"
    del old.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with refusal_of("engine", r"tensorrt 8\.5\.2 is too old"):
        tensorrt_engine.describe(request("tensorrt"))


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fp_16": "1"}, "tensorrt_rtx has no option fp_16; it has profile.min"),
        ({"cuda_graph": "yes"}, "cuda_graph is"),
        ({"optimization_level": "9"}, "optimization_level is 0 to 5"),
        ({"profile__min": "1x8"}, "profile.min is a text such as"),
        ({"profile__min": "ids:1xL"}, "profile.min is a text such as"),
    ],
)
def test_an_option_that_says_nothing_sensible_is_refused(options: dict[str, str], said: str) -> None:
    with refusal_of("request", said):
        tensorrt_plan.settings_of(request(**options))


def test_shapes_are_spelled_as_trtexec_spells_them() -> None:
    settings = tensorrt_plan.settings_of(request(profile__min="ids:1x1, mask:1x1,scope:0:2"))
    assert settings.lowest == {"ids": (1, 1), "mask": (1, 1), "scope:0": (2,)}


@pytest.mark.parametrize("name", ["gpu", "gpu-rtx", "gpu-tensorrt", "jetson"])
def test_the_shipped_targets_are_valid_and_so_are_the_lines_they_show(name: str) -> None:
    text = (shipped_folder("targets") / f"{name}.toml").read_text()
    shown = re.sub(r'^# (?=\[|"?[a-z_.0-9]+"? = )', "", text, flags=re.MULTILINE)
    assert shown.count("\n#") < text.count("\n#")
    for content in (text, shown):
        target = msgspec.toml.decode(content, type=Target)
        assert target.id == name
        assert target.runtime.on_accelerator
        if target.runtime.engine != "onnxruntime":
            settings = tensorrt_plan.settings_of(request(target.runtime.engine, **target.runtime.options))
            assert settings.cuda_graph is (content is shown)
