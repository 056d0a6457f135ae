"""Weight matrices of an ONNX file become 4 or 8 bits in blocks, for ONNX Runtime's MatMulNBits.

Weights alone are stored so; each block of numbers along a row [out, in] has a scale and a zero point of its own. With
accuracy level 4 the kernel quantises the other side to int8 as it comes, block by block, and multiplies integers.
Source of the operators: onnxruntime docs/ContribOperators.md (MatMulNBits, GatherBlockQuantized).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from onnx import NodeProto
from onnxruntime.capi import _pybind_state as _state

from toolchain.errors import UsageError
from toolchain.export.rewriting import Product, Rewriting

if TYPE_CHECKING:
    import numpy.typing as npt

Bits = Literal[4, 8]

NBITS_RECIPE = "int4-blocks32-v1"
"""Names how weights are packed by default; added to the recipe of the file they come from."""

INT8_PRODUCTS = 4
"""MatMulNBits' accuracy level: what multiplies the weights may be rounded to int8."""

BLOCKS = (16, 32, 64, 128, 256)


class Blocks(NamedTuple):
    """A weight [out, in] in blocks: whole numbers [out, blocks, bytes], scales [out, blocks], zero points or None.

    The last block is filled up with zeros where the row does not divide.
    """

    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.uint8] | None


def quantise_blocks(
    model: bytes, modules: Collection[str], *, bits: Bits = 4, block: int = 32, symmetric: bool = False
) -> bytes:
    """The model with the weights of these modules in blocks of few bits; the same for the same.

    A table that is looked up is stored so too where nothing but these modules reads it, and once for a product with it
    too if its rows divide into whole blocks; else the product has blocks of its own.

    Args:
        model: nodes are named by the path of their module, weights are constants.
        modules: paths like `blocks.0.fc1`.
        symmetric: the zero points are the middle and not stored.

    Raises:
        UsageError: no such block; or an operator of these modules is neither a product nor a look-up.
    """
    if block not in BLOCKS:
        raise UsageError(f"no blocks of {block}", why="the kernels know " + ", ".join(map(str, BLOCKS)))
    return _Rewriting(Rewriting(model, modules), bits, block, symmetric).rewrite()


def to_blocks(rows: npt.NDArray[np.float32], bits: Bits, block: int, *, symmetric: bool) -> Blocks:
    """Rows [out, in] in blocks, by ONNX Runtime's own rounding."""
    out, wide = rows.shape
    count, per_byte = -(-wide // block), 8 // bits
    columns = np.zeros((count * block, out), np.float32)
    columns[:wide] = rows.T
    values = np.zeros((out, count, block // per_byte), np.uint8)
    scales = np.zeros((out, count), np.float32)
    zeros = np.zeros((out, -(-count // per_byte)), np.uint8)
    quantise = _state.quantize_matmul_4bits if bits == 4 else _state.quantize_matmul_8bits
    quantise(values, columns, scales, zeros, block, out, count * block, symmetric)
    return Blocks(values, scales, None if symmetric else zeros)


class _Rewriting:
    def __init__(self, rewriting: Rewriting, bits: Bits, block: int, symmetric: bool) -> None:
        self.on, self.bits, self.block, self.symmetric = rewriting, bits, block, symmetric
        looked_up = {node.input[0] for node in rewriting.graph.node if rewriting.looks_up(node)}
        packed = {one for one in looked_up if rewriting.weights[one].dims[1] * bits % 8 == 0}
        self.tables = packed - rewriting.read_elsewhere()

    def rewrite(self) -> bytes:
        for node in self.on.graph.node:
            product = self.on.product(node)
            if product is not None:
                self._multiply(product)
            elif self.on.looks_up(node) and node.input[0] in self.tables:
                self._look_up(node)
            else:
                self.on.nodes.append(node)
        return self.on.finish()

    def _multiply(self, product: Product) -> None:
        weight, dims = product.weight, self.on.weights[product.weight].dims
        out, wide = dims if product.by_rows else reversed(dims)
        table = product.by_rows and weight in self.tables
        if table and wide % self.block == 0:
            flat, *rest = self._store(weight, flat=True)
            inputs = [product.x, self._in_blocks(flat, out, wide), *rest]
        else:
            inputs = [product.x, *self._store(weight, by_rows=product.by_rows)]
        if product.bias is not None:
            inputs += [""] * (5 - len(inputs)) + [product.bias]
        self._add("MatMulNBits", inputs, product.node, K=wide, N=out, accuracy_level=INT8_PRODUCTS)

    def _look_up(self, node: NodeProto) -> None:
        values, *rest = self._store(node.input[0], flat=True)
        inputs = [values, node.input[1], *rest]
        self._add("GatherBlockQuantized", inputs, node, gather_axis=0, quantize_axis=1)

    def _store(self, weight: str, *, by_rows: bool = True, flat: bool = False) -> list[str]:
        """The names of the values, scales and zero points of a weight: made once. `flat` rows are as they are looked
        up, [out, bytes], without what fills the last block."""
        name = f"{weight}.{'' if by_rows else 'T.'}int{self.bits}"
        values_name = f"{name}.rows" if flat else name
        names = [values_name, f"{name}.scale", *([] if self.symmetric else [f"{name}.zero"])]
        if values_name not in self.on.constants:
            rows = self.on.rows(weight, by_rows=by_rows)
            values, scales, zeros = to_blocks(rows, self.bits, self.block, symmetric=self.symmetric)
            if flat:
                values = np.ascontiguousarray(values.reshape(len(values), -1)[:, : rows.shape[1] * self.bits // 8])
            self.on.constant(values_name, values)
            self.on.constant(names[1], scales)
            if zeros is not None:
                self.on.constant(names[2], zeros)
        return names

    def _in_blocks(self, rows: str, out: int, wide: int) -> str:
        """The rows of a table as a product wants them; ONNX Runtime does it once, on loading."""
        name = f"{rows}.blocks"
        if name not in self.on.made:
            shape = np.array([out, wide // self.block, self.block * self.bits // 8], np.int64)
            self.on.constant(f"{name}.shape", shape)
            self.on.add("Reshape", [rows, f"{name}.shape"], name, name)
        return name

    def _add(self, kind: str, inputs: list[str], node: NodeProto, **attributes: Any) -> None:
        attributes |= {"bits": self.bits, "block_size": self.block, "domain": "com.microsoft"}
        self.on.add(kind, inputs, node.output[0], node.name, **attributes)
