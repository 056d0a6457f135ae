from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import pytest

from toolchain.errors import UsageError
from toolchain.export.fuse import fuse
from toolchain.export.half import to_half
from toolchain.export.precisions import candidates, recipe_of, runnable, to_precision

from .made_precisions import calibration, constants, distance, kinds, one_product, traced

CPU = {"machine": "x86_64", "isa": ("avx2",), "engine": "onnxruntime", "provider": "CPUExecutionProvider"}
CUDA = CPU | {"provider": "CUDAExecutionProvider"}
TENSORRT = CPU | {"engine": "tensorrt", "provider": ""}


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("kept", [(), ("LayerNormalization",)])
def test_the_file_is_near_the_module_and_the_same_bytes_again(labels: int, kept: tuple[str, ...]) -> None:
    fp32, checks, _ = traced(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = to_half(fp32, kept=kept)
    assert 0 < distance(model, checks) < 5e-3
    assert model == to_half(fp32, kept=kept)
    onnx.checker.check_model(onnx.load_from_string(model))
    assert len(model) < len(fp32)


def test_weights_are_fp16_and_what_goes_in_and_out_is_as_it_was() -> None:
    fp32, _, _ = traced(3)
    before, after = (onnx.load_from_string(one).graph for one in (fp32, to_half(fp32)))
    for name in ("input", "output"):
        assert [(one.name, one.type.tensor_type.elem_type) for one in getattr(before, name)] == [
            (one.name, one.type.tensor_type.elem_type) for one in getattr(after, name)
        ]
    wide = {name for name, one in constants(to_half(fp32)).items() if one.dtype == np.float32}
    assert all(".norm" in name or name.startswith("norm.") or "_norm." in name for name in wide), wide
    assert {one.dtype.name for one in constants(to_half(fp32, kept=())).values()} <= {"float16", "int64"}


def test_a_number_that_fp16_does_not_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"dense\.weight") as refusal:
        to_half(one_product(np.full((4, 4), 1e5)))
    assert "65504" in refusal.value.why
    with pytest.raises(UsageError, match=r"dense\.weight"):
        to_half(one_product(np.full((4, 4), np.nan)))


def test_a_fused_file_is_refused() -> None:
    with pytest.raises(UsageError, match="portable") as refusal:
        to_half(fuse(traced(3).model))
    assert "com.microsoft" in refusal.value.why


def test_the_root_logger_is_left_alone() -> None:
    before = list(logging.getLogger().handlers)
    to_half(traced(3).model)
    assert logging.getLogger().handlers == before


# -- one door ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "first"), [(CPU, "MatMulInteger"), (CUDA, "MatMul"), (TENSORRT, "MatMul")])
def test_a_device_gets_each_of_its_precisions(device: dict[str, str], first: str) -> None:
    fp32, checks, modules = traced(3)
    known = runnable(device["engine"], device["provider"])
    recipes = set()
    for precision in known:
        model = to_precision(fp32, precision, modules=modules, calibration=calibration(), **device)
        assert (model == fp32) == (precision == "fp32")
        assert distance(model, checks) < 0.3
        recipe = recipe_of(precision, **device)
        assert bool(recipe) == (precision != "fp32")
        recipes.add(recipe)
        if precision == "int8":
            assert first in kinds(model)
    assert len(recipes) == len(known)
    assert set(candidates(*device.values())) <= set(known)
    assert candidates(*device.values())[0] == "fp32"


@pytest.mark.parametrize(("device", "precision"), [(CPU, "fp16"), (CUDA, "int8"), (TENSORRT, "int4"), (CPU, "fp8")])
def test_what_a_device_has_no_kernels_for_is_refused(device: dict[str, str], precision: str) -> None:
    fp32, _, modules = traced(3)
    with pytest.raises(UsageError, match=precision) as refusal:
        to_precision(fp32, precision, modules=modules, **device)
    assert "fp32" in refusal.value.hint
    with pytest.raises(UsageError, match=precision):
        recipe_of(precision, **device)


def test_an_engine_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="abacus"):
        runnable("abacus", "")


def test_tensorrt_keeps_its_norms_in_fp32_and_cuda_does_not() -> None:
    fp32, _, modules = traced(3)
    norms = {name: to_precision(fp32, "fp16", modules=modules, **one) for name, one in (("a", TENSORRT), ("b", CUDA))}
    kept = {name: [one.dtype for one in constants(model).values()] for name, model in norms.items()}
    assert np.float32 in kept["a"]
    assert np.float32 not in kept["b"]
