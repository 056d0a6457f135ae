"""Engines that ship: by TensorRT-RTX for real, which needs no GPU to build for one; and who cannot build, refused."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import onnx
import pytest
from export.made_bundle import export, make_checks, make_subnet
from onnx import TensorProto, helper

from toolchain import profiling
from toolchain.devices.local import LocalDevice
from toolchain.errors import DeviceError, UsageError
from toolchain.export.precisions import to_precision
from toolchain.files import sha256_file
from toolchain.pipeline import engines
from toolchain.records import Environment
from toolchain.supernet.families import declaration
from toolchain.targets import Runtime, Target, read_target

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

SHAPES = {
    name: profiling.InputShape(dtype="int64", shape=(2, 8), low=1, high=2) for name in ("input_ids", "attention_mask")
}


def device(engine: str, **options: str) -> LocalDevice:
    runtime = msgspec.convert({"engine": engine, "options": options}, Runtime)
    return LocalDevice(Target(id="made", title="made", runtime=runtime))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The portable file of a tiny subnet, for any batch and length."""
    export(make_subnet(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The options that builders are given; none of them builds."""
    seen: list[dict[str, str]] = []

    def build(_path: object, _inputs: object, _device: object, options: dict[str, str]) -> profiling.Plan:
        seen.append(options)
        return profiling.Plan(b"plan", "tensorrt", "10.3.0", "8.7")

    monkeypatch.setattr(profiling, "build_plan", build)
    return seen


# -- for real --------------------------------------------------------------------------------------------------------


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-static"])
def test_a_subnet_becomes_an_engine_for_a_gpu_that_is_not_here(tmp_path: Path, precision: str) -> None:
    subnet, path = make_subnet(), tmp_path / "model.onnx"
    checks = make_checks(subnet)
    export(subnet, path, checks)
    made = to_precision(
        path.read_bytes(),
        precision,
        modules=declaration("bert").matrices(subnet.architecture),
        calibration=checks.inputs,
        machine="x86_64",
        isa=(),
        engine="tensorrt_rtx",
        provider="",
    )
    path.write_bytes(made)
    builder = LocalDevice(read_target("gpu-rtx", tmp_path))
    content, engine = engines.build_engine(path, SHAPES, builder, maximum_length=12)
    assert len(content) > 10_000
    assert (engine.builder, engine.compute_capability) == ("tensorrt_rtx", "8.6,8.9,12.0")
    assert engine.builder_version
    assert engine.built_from_sha256 == sha256_file(path)


@rtx
def test_a_machine_without_a_gpu_builds_and_says_that_it_cannot_run(tmp_path: Path) -> None:
    builder = LocalDevice(read_target("gpu-rtx", tmp_path))
    environment = engines.environment_without_gpu(builder)
    assert (environment.engine, environment.provider) == ("tensorrt_rtx", "")
    assert environment.source == "measured"
    if not environment.accelerator:
        assert not engines.can_run(builder)


@rtx
def test_a_model_that_the_engine_cannot_have_is_refused_with_its_words(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Odd", ["x"], ["y"], name="node")], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "odd.onnx")
    shapes = {"x": profiling.InputShape(dtype="float32", shape=(4,))}
    with pytest.raises(DeviceError, match=r"cannot build an engine of the model .*Odd \(node 'node'\)") as caught:
        engines.build_engine(
            tmp_path / "odd.onnx", shapes, device("tensorrt_rtx", compute_capability="8.9"), maximum_length=4
        )
    assert "--format onnx" in caught.value.hint


# -- for which shapes ------------------------------------------------------------------------------------------------


def test_it_takes_all_texts_the_model_takes(model: Path, asked: list[dict[str, str]]) -> None:
    content, engine = engines.build_engine(model, SHAPES, device("tensorrt"), maximum_length=12)
    assert asked == [
        {
            "profile.min": "input_ids:1x1,attention_mask:1x1",
            "profile.max": "input_ids:8x12,attention_mask:8x12",
        }
    ]
    assert content == b"plan"
    assert (engine.builder, engine.builder_version, engine.compute_capability) == ("tensorrt", "10.3.0", "8.7")


def test_it_takes_what_it_is_measured_with(model: Path, asked: list[dict[str, str]]) -> None:
    shapes = {name: msgspec.structs.replace(one, shape=(32, 16)) for name, one in SHAPES.items()}
    engines.build_engine(model, shapes, device("tensorrt"), maximum_length=12, maximum_batch=4)
    assert asked[0]["profile.max"] == "input_ids:32x16,attention_mask:32x16"


def test_a_target_may_say_otherwise(model: Path, asked: list[dict[str, str]]) -> None:
    named = {"profile.min": "input_ids:2x8,attention_mask:2x8"}
    engines.build_engine(model, SHAPES, device("tensorrt", **named), maximum_length=12)
    assert asked == [{**named, "profile.max": "input_ids:8x12,attention_mask:8x12"}]


def test_what_a_file_leaves_no_choice_in_stays(tmp_path: Path, asked: list[dict[str, str]]) -> None:
    kinds = {"ids": [1, "length"], "fixed": [2, 8], "words": [1], "image": ["n", 3, 4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, kind) for name, kind in kinds.items()]
    onnx.save(helper.make_model(helper.make_graph([], "g", inputs, [])), tmp_path / "model.onnx")
    sizes = {"ids": (1, 8), "fixed": (2, 8), "words": (1,), "image": (2, 3, 4)}
    shapes = {name: profiling.InputShape(dtype="int64", shape=shape) for name, shape in sizes.items()}
    engines.build_engine(tmp_path / "model.onnx", shapes, device("tensorrt"), maximum_length=12)
    assert asked == [
        {
            "profile.min": "ids:1x1,fixed:2x8,words:1,image:2x3x4",
            "profile.max": "ids:1x12,fixed:2x8,words:1,image:2x3x4",
        }
    ]


# -- who cannot ------------------------------------------------------------------------------------------------------


def of_all(builder: LocalDevice, model: Path) -> list[Callable[[], object]]:
    return [
        lambda: engines.environment_without_gpu(builder),
        lambda: engines.build_engine(model, SHAPES, builder, maximum_length=12),
    ]


def test_a_processor_builds_no_engines(model: Path) -> None:
    cpu = device("onnxruntime")
    for ask in (*of_all(cpu, model), lambda: engines.can_run(cpu)):
        with pytest.raises(DeviceError, match=r"made builds no engines \(it runs models with onnxruntime\)") as caught:
            ask()
        assert "gpu-tensorrt" in caught.value.hint
        assert caught.value.exit_code == 4


@rtx
def test_without_a_gpu_one_has_to_be_named(model: Path) -> None:
    builder = device("tensorrt_rtx")
    if engines.can_run(builder):
        pytest.skip("this machine has a GPU")
    for ask in of_all(builder, model):
        with pytest.raises(DeviceError, match=r"made cannot build an engine .*has to be named") as caught:
            ask()
        assert "gpu-rtx" in caught.value.hint


def test_a_precision_that_the_builder_chooses_does_not_ship(model: Path) -> None:
    for ask in of_all(device("tensorrt", fp16="1"), model):
        with pytest.raises(UsageError, match="leaves the precision to the builder") as caught:
            ask()
        assert "--precision fp16" in caught.value.hint


@pytest.mark.parametrize(
    ("accelerator", "options", "runs"),
    [
        ("NVIDIA RTX, 8188 MiB, sm_89", {}, True),
        ("NVIDIA RTX, 8188 MiB, sm_89", {"compute_capability": "current"}, True),
        ("NVIDIA RTX, 8188 MiB, sm_89", {"compute_capability": "8.6, 8.9"}, True),
        ("NVIDIA RTX, 8188 MiB, sm_89", {"compute_capability": "8.6"}, False),
        ("NVIDIA RTX, 8188 MiB, sm_120", {"compute_capability": "8.6,12.0"}, True),
        ("", {"compute_capability": "8.6"}, False),
    ],
)
def test_it_runs_where_the_gpu_is_one_it_was_built_for(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, options: dict[str, str], runs: bool
) -> None:
    environment = Environment(
        machine="x86_64",
        cpu="A Processor",
        cores=2,
        memory_bytes=1,
        os="Linux",
        kernel="6",
        governor="",
        python="3.11",
        engine="tensorrt_rtx",
        engine_version="1.7",
        provider="",
        accelerator=accelerator,
    )
    monkeypatch.setattr(profiling, "read_environment", lambda _device: environment)
    assert engines.can_run(device("tensorrt_rtx", **options)) is runs
