from pathlib import Path

import pytest

from toolchain.profiling.session import InputShape
from toolchain.targets import Measure, Target

from .models import SHAPE, write_logarithm, write_mlp

QUICK = Measure(group=4, warmup_s=0.0, calls_per_turn=2, minimum_rounds=5, minimum_s=0.0, maximum_s=0.02)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reference.onnx, good.onnx, other.onnx, killer.onnx; broken.onnx does not load, log.onnx is not finite."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("reference", "good", "other", "killer")):
        write_mlp(folder / f"{name}.onnx", seed)
    write_logarithm(folder / "log.onnx")
    (folder / "broken.onnx").write_bytes(b"not a model")
    return folder


@pytest.fixture
def target() -> Target:
    return Target(id="cpu", title="this machine", measure=QUICK)


@pytest.fixture
def inputs() -> dict[str, InputShape]:
    return {"x": InputShape(dtype="float32", shape=tuple(SHAPE), low=-1.0, high=1.0)}
