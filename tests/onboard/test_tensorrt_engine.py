"""The TensorRT engines on a fake GPU; test_tensorrt.py has the real builds."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolchain.onboard import cuda, tensorrt_engine, tensorrt_plan

from .asked import refusal_of, request
from .fake_cuda import FakeCuda
from .fake_tensorrt import FakeTensorrt


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOSTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    return install("10", monkeypatch)


def install(kind: str, monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    library = FakeCuda()
    trt = FakeTensorrt(kind, library)
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    monkeypatch.setattr(tensorrt_engine, "Device", lambda number: cuda.Device(number, library))
    return trt


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    return str(path)


MODEL = b"\x08a model"
"""As every ONNX file begins, so that it is taken for none of TensorRT's own."""
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def opened(model: str, engine: str = "tensorrt", **options: str) -> tensorrt_engine.Runner:
    return tensorrt_engine.open_model(model, request(engine, **options), {"x": X})


def names(trt: FakeTensorrt) -> list[str]:
    return [entry[0] for entry in trt.log]


def test_a_model_runs_on_buffers_that_stay(fake: FakeTensorrt, model: str) -> None:
    runner = opened(model)
    fake.cuda.calls.clear()
    for _ in range(3):
        runner.run()
    assert fake.cuda.calls == ["cuStreamSynchronize"] * 3
    assert runner.names == ["y"]
    first = runner.outputs()[0]
    runner.run()
    assert (first == 2 * X).all()
    assert runner.outputs()[0] is not first


def test_what_a_model_held_is_given_back(fake: FakeTensorrt, model: str) -> None:
    runner = opened(model, cuda_graph="1")
    assert len(fake.cuda.memory) == 2
    fake.cuda.calls.clear()
    del runner
    assert not fake.cuda.memory
    assert fake.cuda.calls == ["cuGraphExecDestroy", "cuMemFree_v2", "cuMemFree_v2", "cuStreamDestroy_v2"]


def test_what_a_refused_model_held_is_given_back_too(fake: FakeTensorrt, model: str) -> None:
    fake.cuda.failing["cuCtxSynchronize"] = 700
    with refusal_of("run", "illegal memory access"):
        opened(model)
    assert not fake.cuda.memory


def test_a_graph_is_captured_after_two_runs_and_then_replayed(fake: FakeTensorrt, model: str) -> None:
    runner = opened(model, cuda_graph="1")
    context = fake.context
    assert context is not None
    assert (context.enqueued, context.runs) == (3, 2)
    fake.cuda.calls.clear()
    runner.run()
    assert fake.cuda.calls == ["cuGraphLaunch", "cuStreamSynchronize"]
    assert (context.enqueued, context.runs) == (3, 3)
    assert (runner.outputs()[0] == 2 * X).all()


def test_a_model_that_cannot_be_captured_is_refused(fake: FakeTensorrt, model: str) -> None:
    fake.captures = False
    with refusal_of("load", "cannot be captured as a CUDA graph"):
        opened(model, cuda_graph="1")


def test_a_model_that_does_not_run_raises_one_of_the_engines_errors(fake: FakeTensorrt, model: str) -> None:
    runner = opened(model)
    fake.works = False
    with pytest.raises(tensorrt_engine.errors(), match="it does not run"):
        runner.run()


@pytest.mark.parametrize(("enqueue_s", "whole_s", "flags"), [(9, 10, ["enqueue-bound"]), (2, 10, [])])
def test_a_model_that_waits_for_the_processor_is_flagged(
    fake: FakeTensorrt, model: str, monkeypatch: pytest.MonkeyPatch, enqueue_s: int, whole_s: int, flags: list[str]
) -> None:
    runner = opened(model)
    now = iter(at for start in range(0, 1000 * whole_s, whole_s) for at in (start, start + enqueue_s, start + whole_s))
    monkeypatch.setattr("toolchain.onboard.tensorrt_engine.time.perf_counter", lambda: float(next(now)))
    for _ in range(40):
        runner.run()
    assert runner.flags == flags
    assert next(now) == 32 * whole_s  # later runs are not watched


def test_a_plan_is_built_once(fake: FakeTensorrt, model: str, cache: Path) -> None:
    opened(model)
    opened(model, cuda_graph="1")  # runs the same plan in another way
    assert names(fake).count("build") == 1
    assert len(list(cache.glob("*.plan"))) == 1
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", ["model", "shape", "option", "version"])
def test_another_plan_is_built_for_what_makes_a_difference(fake: FakeTensorrt, model: str, change: str) -> None:
    opened(model)
    x, options = X, {}
    if change == "model":
        Path(model).write_bytes(b"\x08another model")
    elif change == "shape":
        x = X[:1]
    elif change == "option":
        options = {"tf32": "1"}
    else:
        fake.__version__ = "10.4.0"
    tensorrt_engine.open_model(model, request("tensorrt", **options), {"x": x})
    assert names(fake).count("build") == 2


def test_a_damaged_plan_is_built_again(fake: FakeTensorrt, model: str, cache: Path) -> None:
    opened(model)
    next(cache.glob("*.plan")).write_bytes(b"pla")
    opened(model).run()
    assert names(fake).count("build") == 2
    assert next(cache.glob("*.plan")).read_bytes() == b"plan"


def test_what_it_has_built_and_cannot_load_is_refused(fake: FakeTensorrt, model: str) -> None:
    fake.plan = b"what no runtime loads"
    with refusal_of("load", "cannot load what it has built"):
        opened(model)


def test_timings_are_kept_from_build_to_build(fake: FakeTensorrt, model: str, cache: Path) -> None:
    opened(model)
    (file,) = cache.glob("*.timings")
    size = file.stat().st_size
    Path(model).write_bytes(b"\x08another model")
    opened(model)
    builds = [entry for entry in fake.log if entry[0] == "build"]
    assert builds == [("build", b""), ("build", b" kernel")]
    assert file.stat().st_size > size


def test_timings_of_another_gpu_are_put_aside(fake: FakeTensorrt, model: str, cache: Path) -> None:
    opened(model)
    (file,) = cache.glob("*.timings")
    file.write_bytes(b"another GPU's")
    Path(model).write_bytes(b"\x08another model")
    opened(model)
    assert file.read_bytes() == b" kernel"


def test_a_cache_that_cannot_be_written_is_no_matter(fake: FakeTensorrt, model: str, cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    opened(model).run()
    assert names(fake).count("build") == 1


def test_the_longest_unused_plans_are_dropped(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_plan, "_LARGEST_CACHE_BYTES", 25)
    for number in range(4):
        tensorrt_plan.keep(str(cache / f"{number}.plan"), bytes(10))
        os.utime(cache / f"{number}.plan", (number, number))
    tensorrt_plan.keep(str(cache / "a.timings"), bytes(100))
    assert sorted(path.name for path in cache.iterdir()) == ["2.plan", "3.plan", "a.timings"]


FULL = ("clear_flag", "TF32")


@pytest.mark.parametrize(
    ("kind", "options", "layers", "flags", "done"),
    [
        ("10", {}, [], 1 << 1, [FULL]),
        ("11", {}, [], 1 << 1, [FULL]),
        ("10", {"fp16": "1"}, [], 0, [FULL, ("set_flag", "FP16")]),
        ("10", {"fp16": "1"}, ["quantize"], 0, [FULL, ("set_flag", "FP16"), ("set_flag", "INT8")]),
        ("10", {"tf32": "1"}, ["quantize"], 1 << 1, []),
        ("rtx", {}, [], 1 << 0, [FULL, ("set_compute_capability", "current", 0)]),
    ],
)
def test_precision_is_left_to_the_model_or_to_the_builder(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    options: dict[str, str],
    layers: list[str],
    flags: int,
    done: list[tuple[Any, ...]],
) -> None:
    trt = install(kind, monkeypatch)
    trt.layers = layers
    opened(model, trt.__name__, **options)
    assert ("create_network", flags) in trt.log
    assert [entry for entry in trt.log if entry[0] in ("set_flag", "clear_flag", "set_compute_capability")] == done
    assert ("set_shape", "x", (2, 4), (2, 4), (2, 4)) in trt.log


def test_tensorrt_11_has_no_flag_for_fp16(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install("11", monkeypatch)
    with refusal_of("request", r"tensorrt 11\.4\.0 takes the precision from the model"):
        opened(model, fp16="1")


def test_rtx_compiles_for_these_shapes_before_it_runs(model: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """By default it would begin with slower kernels, and change them while they are measured."""
    trt = install("rtx", monkeypatch)
    opened(model, "tensorrt_rtx").run()
    assert ("create_execution_context", "eager") in trt.log
    assert [path.read_bytes() for path in cache.glob("*.kernels")] == [b"compiled kernels"]
    opened(model, "tensorrt_rtx")
    assert ("kernels", b"compiled kernels") in trt.log
    assert not list(cache.glob("*.timings"))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"z": X}, "its inputs are x, not z|no input z"),
        ({"x": X.astype(np.float64)}, "'x' is float32 in the engine, not float64"),
        ({"x": X[:, :3]}, r"'x' is \(-1, 4\) in the model"),
    ],
)
@pytest.mark.usefixtures("fake")
def test_inputs_that_do_not_fit_are_refused(model: str, inputs: dict[str, Any], said: str) -> None:
    with refusal_of("load", said):
        tensorrt_engine.open_model(model, request("tensorrt"), inputs)


def test_a_driver_is_never_used_by_a_fork() -> None:
    assert not tensorrt_engine.forks(request())


@pytest.mark.parametrize(
    "wrong", [{"provider": "CPUExecutionProvider"}, {"provider_options": {"enable_cuda_graph": "1"}}]
)
@pytest.mark.usefixtures("fake")
def test_these_engines_have_no_providers(wrong: dict[str, Any]) -> None:
    with refusal_of("provider", "tensorrt has no provider"):
        tensorrt_engine.describe({**request("tensorrt"), **wrong})


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Cuda Runtime (In x (cudaError 35: CUDA driver version is insufficient))", "provider"),
        ("Cuda Runtime (In x (cudaError 100: no CUDA-capable device is detected))", "provider"),
        ("Error Code 2: OutOfMemory (Requested size was 1 bytes.)", "memory"),
        ("Cuda Runtime (out of memory)", "memory"),
        ("Cuda Runtime (In x (cudaError 350: something else))", "load"),
        ("API Usage Error", "load"),
    ],
)
def test_a_driver_that_is_too_old_is_not_the_models_fault(reason: str, kind: str) -> None:
    assert tensorrt_plan.kind_of(reason) == kind
