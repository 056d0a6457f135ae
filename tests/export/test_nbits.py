from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from toolchain.errors import UsageError
from toolchain.export import open_session
from toolchain.export.fuse import fuse, fused_count
from toolchain.export.nbits import BLOCKS, Bits, quantise_blocks, to_blocks

from .made_precisions import constants, distance, kinds, modules_with, one_product, traced

FARTHEST = {4: 0.5, 8: 0.07}


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_file_is_near_the_module_and_the_same_bytes_again(labels: int, bits: Bits, symmetric: bool) -> None:
    fp32, checks, modules = traced(labels)
    model = quantise_blocks(fp32, modules, bits=bits, block=16, symmetric=symmetric)
    assert 1e-4 < distance(model, checks) < FARTHEST[bits]
    assert model == quantise_blocks(fp32, sorted(modules), bits=bits, block=16, symmetric=symmetric)
    found = modules_with(model, "MatMulNBits")
    products = modules_with(fp32, "MatMul") + modules_with(fp32, "Gemm")
    assert found == {one: count for one, count in products.items() if one in modules}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("wide", [16, 20, 32, 40, 100])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_say_what_the_rows_were(bits: Bits, wide: int, symmetric: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((6, wide)).astype(np.float32)
    values, scales, zeros = to_blocks(rows, bits, 16, symmetric=symmetric)
    count = -(-wide // 16)
    assert values.shape == (6, count, 16 * bits // 8)
    assert scales.shape == (6, count)
    assert (zeros is None) == symmetric
    whole = _unpacked(values.reshape(6, -1), bits).reshape(6, count, 16)
    middle = _unpacked(zeros, bits)[:, :count] if zeros is not None else np.full((6, count), 1 << (bits - 1))
    again = ((whole - middle[..., None]) * scales[..., None]).reshape(6, -1)[:, :wide]
    step = np.abs(scales).max()
    assert np.abs(again - rows).max() <= step * 1.01  # the farthest of a symmetric block may be clipped by one


def _unpacked(packed: np.ndarray, bits: Bits) -> np.ndarray:
    if bits == 8:
        return packed.astype(np.int64)
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1).astype(np.int64)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
@pytest.mark.parametrize("by_rows", [True, False])
def test_a_weight_may_lie_either_way(kind: str, by_rows: bool) -> None:
    rng = np.random.default_rng(0)
    x, columns = rng.standard_normal((5, 40)).astype(np.float32), rng.standard_normal((40, 3)).astype(np.float32)
    attributes: dict[str, Any] = {"transB": 1} if kind == "Gemm" and by_rows else {}
    fp32 = one_product(columns.T if by_rows else columns, by_rows=by_rows, kind=kind, **attributes)
    model = quantise_blocks(fp32, ["dense"], bits=8)
    assert kinds(model) == {"MatMulNBits": 1}
    np.testing.assert_allclose(open_session(model, {}).run(None, {"x": x})[0], x @ columns, atol=0.15)


@pytest.mark.parametrize(("wide", "stored_once"), [(16, True), (32, True), (20, False), (24, False)])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_table_that_is_looked_up_and_multiplied_is_stored_once_if_it_can(
    wide: int, stored_once: bool, bits: Bits
) -> None:
    fp32, ids = _table(wide), np.array([[3, 0, 7]])
    model = quantise_blocks(fp32, ["word", "head"], bits=bits, block=16)
    names = {name.removeprefix(f"word.weight.int{bits}") for name in constants(model)}
    shared, apart = {".rows", ".rows.blocks.shape", ".scale", ".zero"}, {".rows", "", ".scale", ".zero"}
    assert names == (shared if stored_once else apart)
    assert kinds(model) == Counter(GatherBlockQuantized=1, MatMulNBits=1, Reshape=int(stored_once))
    table = constants(fp32)["word.weight"]
    expected = table[ids] @ table.T
    found = open_session(model, {}).run(None, {"ids": ids})[0]
    assert np.abs(found - expected).max() < FARTHEST[bits] * np.abs(expected).max()


def test_a_table_that_another_module_reads_stays_as_it_is() -> None:
    model = quantise_blocks(_table(16), ["word"], bits=4, block=16)
    assert kinds(model) == kinds(_table(16))


def _table(wide: int) -> bytes:
    """Words looked up in a table, and multiplied with it."""
    values = np.random.default_rng(0).standard_normal((9, wide)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Gather", ["word.weight", "ids"], ["x"], "/word/Gather"),
        onnx.helper.make_node("Transpose", ["word.weight"], ["turned"], "/head/Transpose", perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["x", "turned"], ["y"], "/head/MatMul"),
    ]
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "words"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "words", 9])
    graph = onnx.helper.make_graph(nodes, "made", [ids], [y], [onnx.numpy_helper.from_array(values, "word.weight")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()  # type: ignore[no-any-return]


def test_a_block_that_no_kernel_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="24") as refusal:
        quantise_blocks(traced(3).model, traced(3).modules, block=24)
    assert all(str(block) in refusal.value.why for block in BLOCKS)


def test_what_is_no_product_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"dense\.weight"):
        quantise_blocks(one_product(np.ones((4, 4)), by_rows=False, kind="Add"), ["dense"])


def test_it_can_be_fused_after() -> None:
    fp32, checks, modules = traced(3)
    model = quantise_blocks(fp32, modules, bits=8, block=16)
    fused = fuse(model)
    assert fused_count(fused).attention == 3
    assert distance(fused, checks) < FARTHEST[8]


def test_the_root_logger_is_left_alone() -> None:
    """onnxruntime.quantization.matmul_nbits_quantizer configures it when it is imported."""
    before = list(logging.getLogger().handlers)
    quantise_blocks(traced(3).model, traced(3).modules)
    assert logging.getLogger().handlers == before
