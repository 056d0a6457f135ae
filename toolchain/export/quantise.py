"""Weight matrices of an ONNX file become int8, module by module; what multiplies them is quantised as it comes.

The operators are those of ONNX Runtime's own `quantize_dynamic` (per channel), which takes seconds where this takes
hundredths of one, and knows nothing of a table that serves as the decoder too, nor of what keeps sums exact: README.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto

from toolchain.export.rewriting import Product, Rewriting

if TYPE_CHECKING:
    import numpy.typing as npt

INT8_RECIPE = "int8-dynamic-paired-v1"
"""Names how weights are quantised; added to the recipe of the file they come from."""

_LARGEST = 127
_LAST_AXIS = "int8.last_axis"


def quantise(model: bytes, modules: Collection[str], *, paired: bool = True) -> bytes:
    """The model with the weights of these modules as int8, one scale for each row [out, in]; the same for the same.

    A MatMul or Gemm of a module named here multiplies integers: its input is quantised on the way, one scale for the
    whole tensor. A table that is looked up is stored as int8 alone, and whatever else reads it reads that.

    Args:
        model: portable: nodes are named by the path of their module, weights are constants.
        modules: paths like `blocks.0.fc1`.
        paired: products are exact on every processor, see `integers`. Without, x86 needs VNNI or AMX.

    Raises:
        UsageError: an operator of these modules is neither a product nor a look-up.
    """
    return Quantising(Rewriting(model, modules), paired=paired).rewrite()


def recipe_of_pairs(*, paired: bool) -> str:
    """As INT8_RECIPE, which is that of paired weights."""
    return INT8_RECIPE if paired else INT8_RECIPE.replace("paired", "8bit")


def integers(rows: npt.NDArray[np.float32], *, paired: bool) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Whole numbers up to 127 for [out, in], and the scale of each row: [out]. A row of zeros has scale 1.

    x86 without VNNI adds the products of two neighbours (0 and 1, 2 and 3, ...) in 16 bits, which saturate: 255 times
    their sum must stay within 32767. `paired` chooses the scale so that no such sum exceeds 128. Seven bits for every
    weight, the usual answer, ask more than that.
    """
    largest = np.abs(rows).max(axis=1)
    if paired:
        last = rows.shape[1] // 2 * 2
        sums = np.abs(rows[:, 0:last:2] + rows[:, 1:last:2]).max(axis=1, initial=0)
        largest = np.maximum(largest, sums)  # rounding adds one at most
    scales = largest / np.float32(_LARGEST)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    values = np.clip(np.rint(rows / scales[:, None]), -_LARGEST, _LARGEST).astype(np.int8)
    return values, scales


class Quantising:
    """One graph whose products become products of integers; `multiply` writes one of them.

    Args:
        tables: what is looked up becomes int8 too.
    """

    def __init__(self, on: Rewriting, *, paired: bool, tables: bool = True) -> None:
        self.on, self.paired = on, paired
        self.tables = {node.input[0] for node in on.graph.node if on.looks_up(node) and tables}
        self.multiplied = {found.weight: found.by_rows for found in on.products()}

    def rewrite(self) -> bytes:
        for weight in sorted(self.tables | self.multiplied.keys()):
            self._store(weight)
        for node in self.on.graph.node:
            product = self.on.product(node)
            if node.op_type == "Gather" and node.input[0] in self.tables:
                self._look_up(node)
            elif product is not None:
                self.multiply(product)
            else:
                self.keep(node)
        return self.on.finish()

    def _store(self, weight: str) -> None:
        """The weight as int8, laid as it was, and the scales of its outputs: [out]."""
        by_rows = self.multiplied.get(weight, True)
        paired = self.paired and weight in self.multiplied
        values, scales = integers(self.on.rows(weight, by_rows=by_rows), paired=paired)
        self.on.constant(f"{weight}.int8", values if by_rows else np.ascontiguousarray(values.T))
        self.on.constant(f"{weight}.scale", scales)

    def _look_up(self, node: NodeProto) -> None:
        """Rows of a table, each times its scale."""
        table, ids, (out,) = node.input[0], node.input[1], node.output
        self.on.constant(_LAST_AXIS, np.array([-1], np.int64))
        self.on.add("Gather", [f"{table}.int8", ids], f"{out}.int8", node.name)
        self.on.add("Cast", [f"{out}.int8"], f"{out}.cast", f"{node.name}.cast", to=TensorProto.FLOAT)
        self.on.add("Gather", [f"{table}.scale", ids], f"{out}.flat", f"{node.name}.flat")
        self.on.add("Unsqueeze", [f"{out}.flat", _LAST_AXIS], f"{out}.row_scale", f"{node.name}.scale")
        self.on.add("Mul", [f"{out}.cast", f"{out}.row_scale"], out, f"{node.name}.scaled")

    def multiply(self, product: Product) -> None:
        """What ONNX Runtime fuses into one kernel: quantise, multiply integers, scale."""
        on, x, weight, name = self.on, product.x, product.weight, product.node.name
        (out,) = product.node.output
        if f"{x}.int8" not in on.made:  # query, key and value read the same
            on.add_all("DynamicQuantizeLinear", [x], [f"{x}.int8", f"{x}.scale", f"{x}.zero"], f"{name}.quantise")
        values = self.columns(product)
        scaled = f"{out}.product" if product.bias is not None else out
        on.add("MatMulInteger", [f"{x}.int8", values, f"{x}.zero"], f"{out}.sum", name)
        on.add("Cast", [f"{out}.sum"], f"{out}.cast", f"{name}.cast", to=TensorProto.FLOAT)
        on.add("Mul", [f"{x}.scale", f"{weight}.scale"], f"{out}.sum.scale", f"{name}.scale")
        on.add("Mul", [f"{out}.cast", f"{out}.sum.scale"], scaled, f"{name}.scaled")
        if product.bias is not None:
            on.add("Add", [scaled, product.bias], out, f"{name}.bias")

    def keep(self, node: NodeProto) -> None:
        """A node as it was; where it reads a table that is int8 now, it gets that as floats, made on loading."""
        for place, name in enumerate(node.input):
            if name in self.tables:
                node.input[place] = self._floats(name)
        self.on.nodes.append(node)

    def _floats(self, table: str) -> str:
        floats = f"{table}.floats"
        if floats not in self.on.made:
            self.on.constant(_LAST_AXIS, np.array([-1], np.int64))
            self.on.add("Cast", [f"{table}.int8"], f"{table}.cast", f"{table}.cast", to=TensorProto.FLOAT)
            self.on.add("Unsqueeze", [f"{table}.scale", _LAST_AXIS], f"{table}.column", f"{table}.column")
            self.on.add("Mul", [f"{table}.cast", f"{table}.column"], floats, floats)
        return floats

    def columns(self, product: Product) -> str:
        """The integers of a product's weight as [in, out]; ONNX Runtime transposes once, on loading."""
        values = f"{product.weight}.int8"
        if not product.by_rows:
            return values
        if f"{values}.T" not in self.on.made:
            self.on.add("Transpose", [values], f"{values}.T", f"{values}.T", perm=[1, 0])
        return f"{values}.T"
