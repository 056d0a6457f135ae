"""Plans that ship: built by a worker, on a fake GPU or by the real TensorRT-RTX without one, and opened as models."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from toolchain.onboard import channel, cuda, engines, tensorrt_engine, worker

from .asked import refusal_of, request
from .fake_cuda import FakeCuda
from .fake_tensorrt import FakeTensorrt
from .test_tensorrt import no_driver, rtx, transformer
from .test_tensorrt_engine import MODEL, X, cache, install, names

__all__ = ["cache", "no_driver"]

ANY = {"profile__min": "x:1x4", "profile__max": "x:8x4"}


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    return str(path)


def on_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    """That TensorRT on a GPU of compute capability 8.9."""
    trt = install(kind, monkeypatch)

    def device(number: int) -> cuda.Device:
        found = cuda.Device(number, trt.cuda)
        found.capability = (8, 9)
        return found

    monkeypatch.setattr(tensorrt_engine, "Device", device)
    return trt


def without_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    trt = install(kind, monkeypatch)
    monkeypatch.setattr(tensorrt_engine, "Device", lambda number: cuda.Device(number, FakeCuda(cuInit=100)))
    return trt


def built(model: str, trt: FakeTensorrt, **options: str) -> engines.Built:
    return tensorrt_engine.build(model, request(trt.__name__, **options), {"x": (2, 4)})


# -- on the GPU that will run it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "version"), [("10", "10.3.0"), ("11", "11.4.0"), ("rtx", "1.7.1")])
def test_it_is_built_for_this_gpu_and_a_range_of_shapes(
    model: str, monkeypatch: pytest.MonkeyPatch, kind: str, version: str
) -> None:
    trt = on_gpu(kind, monkeypatch)
    assert built(model, trt, **ANY) == engines.Built(b"plan", version, "8.9")
    assert ("set_shape", "x", (1, 4), (2, 4), (8, 4)) in trt.log


def test_it_is_built_once_and_timings_are_shared_with_what_is_measured(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = on_gpu("10", monkeypatch)
    tensorrt_engine.open_model(model, request("tensorrt"), {"x": X})
    for _ in range(2):
        built(model, trt, **ANY)
    assert [entry for entry in trt.log if entry[0] == "build"] == [("build", b""), ("build", b" kernel")]


def test_a_kept_one_that_is_damaged_is_built_again(model: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    trt = on_gpu("10", monkeypatch)
    built(model, trt)
    next(cache.glob("*.plan")).write_bytes(b"pla")
    assert built(model, trt).plan == b"plan"
    assert names(trt).count("build") == 2


def test_what_it_cannot_load_again_does_not_ship(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = on_gpu("10", monkeypatch)
    trt.plan = b"what no runtime loads"
    with refusal_of("load", "cannot load what it has built: magic tag does not match"):
        built(model, trt)


def test_it_may_be_for_another_gpu_than_the_one_here(model: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    trt = on_gpu("rtx", monkeypatch)
    trt.plan = b"what this GPU does not load"
    assert built(model, trt, compute_capability=" 8.6 ") == engines.Built(trt.plan, "1.7.1", "8.6")
    assert not cache.exists()


# -- without one -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_driver")
def test_without_a_gpu_rtx_builds_for_one_that_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = without_gpu("rtx", monkeypatch)
    asked = request("tensorrt_rtx", compute_capability="8.6")
    assert built(model, trt, compute_capability="8.6").capability == "8.6"
    assert tensorrt_engine.describe_builder(asked) == {
        "engine": "tensorrt_rtx",
        "engine_version": "1.7.1",
        "provider": "",
        "accelerator": "",
        "driver": "",
    }
    with refusal_of("provider", "no NVIDIA driver here"):
        tensorrt_engine.describe(asked)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("rtx", {}, r'has to be named: the option compute_capability, such as "8\.9"'),
        ("rtx", {"compute_capability": "current"}, "has to be named"),
        ("10", {}, "tensorrt builds on the GPU it builds for; without one, tensorrt_rtx does"),
        ("11", {"compute_capability": "8.6"}, "tensorrt builds on the GPU it builds for"),
    ],
)
def test_without_a_gpu_nothing_else_is_built(
    model: str, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, str], said: str
) -> None:
    trt = without_gpu(kind, monkeypatch)
    for ask in (
        lambda: built(model, trt, **options),
        lambda: tensorrt_engine.describe_builder(request(trt.__name__, **options)),
    ):
        with refusal_of("provider", said):
            ask()
    assert "build" not in names(trt)


def test_with_a_gpu_its_builder_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.onboard.nvidia.Device", lambda number: cuda.Device(number, FakeCuda()))
    for kind, options in (("10", {}), ("rtx", {"compute_capability": "8.6"})):
        trt = on_gpu(kind, monkeypatch)
        found = tensorrt_engine.describe_builder(request(trt.__name__, **options))
        assert found["accelerator"].startswith("NVIDIA Fake")


def test_onnxruntime_builds_nothing() -> None:
    with refusal_of("request", "onnxruntime builds no engines; tensorrt and tensorrt_rtx do"):
        engines.builder_of({"engine": "onnxruntime"})


# -- opened as a model -----------------------------------------------------------------------------------------------


def test_a_plan_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    trt = install("10", monkeypatch)
    (tmp_path / "model.engine").write_bytes(b"plan")
    runner = tensorrt_engine.open_model(str(tmp_path / "model.engine"), request("tensorrt"), {"x": X})
    runner.run()
    assert (runner.outputs()[0] == 2 * X).all()
    assert "build" not in names(trt)
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"ftrt of another version", b"vtrt of another GPU", b"nothing at all"])
def test_a_plan_that_does_not_load_is_refused_in_tensorrts_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    trt = install("10", monkeypatch)
    (tmp_path / "model.engine").write_bytes(content)
    with refusal_of("load", "^tensorrt cannot load this engine: magic tag does not match$"):
        tensorrt_engine.open_model(str(tmp_path / "model.engine"), request("tensorrt"), {"x": X})
    assert "build" not in names(trt)


# -- the worker's side -----------------------------------------------------------------------------------------------


def said(**fields: Any) -> list[dict[str, Any]]:
    """What a worker answers to a request for a plan."""
    stream = io.StringIO()
    asked = {"op": "plan", **request(), "inputs": {"ids": {"dtype": "int64", "shape": [1, 8], "low": 0, "high": 9}}}
    worker.answer(json.dumps({**asked, **fields}).encode(), channel.Channel(stream))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@rtx
@pytest.mark.usefixtures("no_driver")
def test_a_worker_builds_and_sends_it_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(transformer())
    monkeypatch.setattr(channel, "_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(worker, "_PART_BYTES", 1 << 18)
    options = {"compute_capability": "8.6,8.9,12.0", "profile.min": "ids:1x1", "profile.max": "ids:8x16"}
    answers = said(model=str(tmp_path / "model.onnx"), options=options)
    kinds = [one["type"] for one in answers]
    assert [one["step"] for one in answers if one["type"] == "step"] == ["import", "build"]
    assert "beat" in kinds[: kinds.index("planned")]
    planned = answers[kinds.index("planned")]
    assert (planned["builder"], planned["compute_capability"]) == ("tensorrt_rtx", "8.6,8.9,12.0")
    parts = [base64.b64decode(one["data"]) for one in answers if one["type"] == "part"]
    assert len(parts) > 1
    assert sum(map(len, parts)) == planned["size_bytes"] > 10_000
    assert kinds[-1] == "done"


@pytest.mark.usefixtures("no_driver")
@rtx
def test_a_worker_refuses_before_it_reads_the_model() -> None:
    *_, answer = said(model="nowhere.onnx")
    assert (answer["type"], answer["kind"]) == ("error", "provider")
    assert "has to be named" in answer["message"]
    *_, answer = said(model="nowhere.onnx", options={"compute_capability": "8.9"})
    assert (answer["type"], answer["kind"]) == ("error", "load")


def test_a_worker_with_onnxruntime_builds_nothing() -> None:
    *_, answer = said(engine="onnxruntime", provider="CPUExecutionProvider", model="nowhere.onnx")
    assert (answer["type"], answer["kind"]) == ("error", "request")


@rtx
@pytest.mark.usefixtures("no_driver")
def test_a_worker_says_what_machine_builds() -> None:
    *_, answer = said(op="environment", to_build=True, options={"compute_capability": "8.9"})
    found = answer["environment"]
    assert (found["engine"], found["provider"], found["accelerator"]) == ("tensorrt_rtx", "", "")
    *_, answer = said(op="environment", options={"compute_capability": "8.9"})
    assert answer["kind"] == "provider"
