"""One door to every precision: a portable fp32 file becomes what a device wants, bytes to bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolchain.errors import UsageError
from toolchain.export.half import HALF_RECIPE, SUMMING, to_half
from toolchain.export.isa import Precision, candidates, int8_form, is_tensorrt, runnable
from toolchain.export.nbits import NBITS_RECIPE, quantise_blocks
from toolchain.export.quantise import quantise, recipe_of_pairs
from toolchain.export.static import quantise_static, recipe_of_form

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Precision", "candidates", "recipe_of", "runnable", "to_precision"]


def to_precision(
    model: bytes,
    precision: str,
    *,
    modules: Collection[str],
    calibration: Sequence[Mapping[str, npt.NDArray[Any]]] = (),
    machine: str,
    isa: Collection[str],
    engine: str,
    provider: str,
) -> bytes:
    """The model in a precision, in the form of it that suits the device; the same for the same.

    Args:
        model: portable, in fp32: nodes are named by the path of their module.
        modules: those whose weights are quantised; fp16 narrows all.
        calibration: inputs of the model, for int8-static alone: {"input_ids": ..., "attention_mask": ...}.
        machine: with `isa`, `engine` and `provider` as an Environment says.

    Raises:
        UsageError: the engine does not run this precision, or an operator cannot be converted.
    """
    _check(precision, engine, provider)
    form = int8_form(machine, isa, engine=engine, provider=provider)
    if precision == "int8":
        return quantise(model, modules, paired=form.paired)
    if precision == "int8-static":
        return quantise_static(model, modules, calibration, form)
    if precision == "int4":
        return quantise_blocks(model, modules, bits=4)
    if precision == "fp16":
        return to_half(model, kept=SUMMING if is_tensorrt(engine, provider) else ())
    return model


def recipe_of(precision: str, *, machine: str, isa: Collection[str], engine: str, provider: str) -> str:
    """What is added to the recipe of the file that `to_precision` was given; empty for fp32.

    Raises:
        UsageError: the engine does not run this precision.
    """
    _check(precision, engine, provider)
    form = int8_form(machine, isa, engine=engine, provider=provider)
    names = {
        "int8": recipe_of_pairs(paired=form.paired),
        "int8-static": recipe_of_form(form),
        "int4": NBITS_RECIPE,
        "fp16": HALF_RECIPE + ("" if is_tensorrt(engine, provider) else "-whole"),
    }
    return names.get(precision, "")


def _check(precision: str, engine: str, provider: str) -> None:
    known = runnable(engine, provider)
    if precision not in known:
        raise UsageError(
            f"{engine} with {provider} does not run {precision}" if provider else f"{engine} does not run {precision}",
            why="it has no kernels of its own for it",
            hint="choose one of " + ", ".join(known),
        )
