"""Products of integers whose activations have ranges that were observed beforehand, on real inputs.

What `quantise` does, but for the activations: their scale and zero point are constants. Only products of the named
modules: with every operator quantised, the mask takes up the whole range of the softmax and a model lost 21.5 points.

ONNX Runtime's own `quantize_static` is not called: it finds no weight behind a Transpose, prints and logs through the
root logger, and has no form with the bias in the product. A test compares the ranges and the answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolchain.errors import UsageError
from toolchain.export.isa import Int8Form
from toolchain.export.quantise import Quantising
from toolchain.export.rewriting import Product, Rewriting
from toolchain.export.session import open_session

if TYPE_CHECKING:
    import numpy.typing as npt


class Range(NamedTuple):
    """Of a tensor's numbers over all calibration inputs; it holds zero, which padding must be."""

    least: float
    most: float


def quantise_static(
    model: bytes, modules: Collection[str], calibration: Sequence[Mapping[str, npt.NDArray[Any]]], form: Int8Form
) -> bytes:
    """The model with the products of these modules in integers, by fixed ranges; the same for the same.

    Args:
        model: portable: nodes are named by the path of their module, weights are constants.
        modules: paths like `blocks.0.fc1`.
        calibration: inputs of the model, as they will be: real text of real lengths.
        form: of the device: `int8_form`.

    Raises:
        UsageError: there are no calibration inputs; or an operator of these modules is neither a product nor a look-up.
    """
    ranges = observe(model, modules, calibration)
    return _Calibrated(Rewriting(model, modules), ranges, form).rewrite()


def recipe_of_form(form: Int8Form) -> str:
    """Names how weights and activations are quantised; added to the recipe of the file they come from."""
    written = "qdq" if form.standard else "operators"
    sides = ("s8" if form.signed else "u8") + ("-symmetric" if form.symmetric else "")
    return f"int8-static-{written}-{sides}-{'paired' if form.paired else '8bit'}-v1"


def observe(
    model: bytes, modules: Collection[str], calibration: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> dict[str, Range]:
    """The range of each tensor that a product of these modules reads.

    Raises:
        UsageError: there are no calibration inputs.
    """
    if not calibration:
        raise UsageError("static int8 needs calibration inputs", hint="give some rows of the training data")
    watched = Rewriting(model, modules)
    graph, given = watched.proto.graph, {one.name for one in watched.graph.input}
    names = list(dict.fromkeys(found.x for found in watched.products()))
    made = [name for name in names if name not in given]
    known = {one.name for one in graph.output}
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name not in known
    )
    session = open_session(watched.proto.SerializeToString(), {}, threads=1)  # one thread: the same bits each time
    found = dict.fromkeys(names, Range(0.0, 0.0))
    for inputs in calibration:
        values = {**inputs, **dict(zip(made, session.run(made, dict(inputs)) if made else [], strict=True))}
        for name in names:
            least, most = found[name]
            found[name] = Range(min(least, float(values[name].min())), max(most, float(values[name].max())))
    return found


def scale_and_zero(found: Range, form: Int8Form) -> tuple[np.float32, npt.NDArray[Any]]:
    """The step between two whole numbers, and the one that stands for zero."""
    kind: type[np.integer[Any]] = np.int8 if form.signed else np.uint8
    lowest, highest = (-128, 127) if form.signed else (0, 255)
    if form.symmetric:
        scale, zero = max(-found.least, found.most) / 127, (lowest + highest + 1) // 2
    else:
        scale = (found.most - found.least) / 255
        zero = lowest if scale == 0 else int(np.clip(np.rint(lowest - found.least / scale), lowest, highest))
    return np.float32(scale if scale > 0 else 1), np.array(zero, kind)


class _Calibrated(Quantising):
    """One graph whose products read integers of fixed scales."""

    def __init__(self, on: Rewriting, ranges: Mapping[str, Range], form: Int8Form) -> None:
        super().__init__(on, paired=form.paired, tables=form.tables)
        self.ranges, self.form = ranges, form
        sums = {} if form.standard else {one.node.name: on.bias_of(one) for one in on.products()}
        self.sums = {name: (bias, last) for name, (bias, last) in sums.items() if bias is not None}
        self.folded = {last.output[0] for _, last in self.sums.values() if last.op_type == "Add"}

    def multiply(self, product: Product) -> None:
        if self.form.standard:
            self._multiply_standard(product)
        else:
            self._multiply_with_bias(product)

    def keep(self, node: NodeProto) -> None:
        if node.output[0] not in self.folded:
            super().keep(node)

    def columns(self, product: Product) -> str:
        """[in, out], transposed here where no look-up shares it: TensorRT wants to read a constant."""
        if product.weight in self.tables or not product.by_rows:
            return super().columns(product)
        name = f"{product.weight}.int8.columns"
        stored = numpy_helper.to_array(self.on.constants[f"{product.weight}.int8"])
        self.on.constant(name, np.ascontiguousarray(stored.T))
        return name

    def _multiply_standard(self, product: Product) -> None:
        """Dequantised again on both sides; an engine that knows integers sees through it."""
        on, x, weight, (out,) = self.on, product.x, product.weight, product.node.output
        values = self._quantised(x)
        if f"{x}.floats" not in on.made:
            on.add("DequantizeLinear", [values, f"{x}.scale", f"{x}.zero"], f"{x}.floats", f"{x}.floats")
        columns = self.columns(product)
        if f"{columns}.floats" not in on.made:
            on.constant(f"{weight}.zero", np.zeros(len(self._scales(weight)), np.int8))
            inputs = [columns, f"{weight}.scale", f"{weight}.zero"]
            on.add("DequantizeLinear", inputs, f"{columns}.floats", f"{columns}.floats", axis=1)
        product_of = out if product.bias is None else f"{out}.product"
        on.add("MatMul", [f"{x}.floats", f"{columns}.floats"], product_of, product.node.name)
        if product.bias is not None:
            on.add("Add", [product_of, product.bias], out, f"{product.node.name}.bias")

    def _multiply_with_bias(self, product: Product) -> None:
        """ONNX Runtime's kernel of integers that scales and adds the bias."""
        values, x, weight = self._quantised(product.x), product.x, product.weight
        bias, last = self.sums.get(product.node.name, (None, product.node))
        inputs = [values, self.columns(product), f"{x}.scale", f"{weight}.scale", f"{x}.zero"]
        inputs += [] if bias is None else ["", bias]
        kind = "MatMulIntegerToFloat"
        self.on.add(kind, inputs, last.output[0], product.node.name, domain="com.microsoft")

    def _quantised(self, x: str) -> str:
        """The integers of an activation: made once for all that multiply it."""
        if f"{x}.int8" not in self.on.made:
            scale, zero = scale_and_zero(self.ranges[x], self.form)
            self.on.constant(f"{x}.scale", np.asarray(scale))
            self.on.constant(f"{x}.zero", zero)
            self.on.add("QuantizeLinear", [x, f"{x}.scale", f"{x}.zero"], f"{x}.int8", f"{x}.quantise")
        return f"{x}.int8"

    def _scales(self, weight: str) -> npt.NDArray[np.float32]:
        return numpy_helper.to_array(self.on.constants[f"{weight}.scale"])
