from __future__ import annotations

import functools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper
from onnxruntime.quantization import quantize_dynamic

import toolchain.export.onnx as onnx_module
from toolchain.arrays import to_arrays
from toolchain.errors import ParityError
from toolchain.export import (
    INT8_RECIPE,
    RECIPE,
    TOLERANCE,
    Checks,
    check_parity,
    export_int8,
    open_session,
    quantise,
    read_manifest,
    tolerance,
    verify_files,
    write_bundle,
)
from toolchain.export.quantise import module_of
from toolchain.files import sha256_file
from toolchain.records import Artifact
from toolchain.space import Architecture
from toolchain.supernet.families import declaration

from .made_bundle import Ingredients, export, make_checks, make_subnet

BERT = declaration("bert")
PER_LAYER = {
    "attention_bits": ("links.{}", "blocks.{}.query", "blocks.{}.key", "blocks.{}.value", "blocks.{}.output"),
    "ffn_bits": ("blocks.{}.fc1", "blocks.{}.fc2"),
}
"""Products with a weight in each layer."""


def largest(labels: int, **bits: Any) -> Architecture:
    """The largest architecture, all fp32 but for these bits."""
    return Architecture("bert", BERT.at_bits(tiny.resolved(labels).largest(), 32).axes | bits)


POLICIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "embedding": {"embedding_bits": 8},
    "head": {"head_bits": 8},
    "table and decoder": {"embedding_bits": 8, "head_bits": 8},
    "attention of the second layer": {"attention_bits": (32, 8, 32)},
    "feed-forward of all": {"ffn_bits": (8, 8, 8)},
    "all": {"embedding_bits": 8, "head_bits": 8, "attention_bits": (8, 8, 8), "ffn_bits": (8, 8, 8)},
}
CASES = [(labels, name) for labels in (0, 3) for name in POLICIES]


class Exported(NamedTuple):
    """The largest subnet as an fp32 file, with the checks of its module."""

    model: bytes
    artifact: Artifact
    checks: Checks


@functools.cache
def exported(labels: int) -> Exported:
    subnet = make_subnet(labels, architecture=tiny.resolved(labels).largest())
    checks = make_checks(subnet)
    with tempfile.TemporaryDirectory() as scratch:
        artifact = export(subnet, Path(scratch) / "model.onnx", checks)
        return Exported((Path(scratch) / "model.onnx").read_bytes(), artifact, checks)


def quantised(folder: Path, architecture: Architecture, labels: int) -> tuple[Artifact, Checks, Checks]:
    """The quantised file `model.onnx`: its artifact, the module's checks and its own."""
    model, artifact, checks = exported(labels)
    (folder / "model.onnx").write_bytes(model)
    artifact, own = export_int8(
        folder / "model.onnx",
        artifact,
        architecture,
        checks,
        modules=BERT.int8_modules(architecture),
        precision=BERT.precision(architecture),
        options={},
    )
    return artifact, checks, own


def products(model: onnx.ModelProto) -> Counter[str]:
    """How many products of integers there are in each module."""
    return Counter(module_of(node) for node in model.graph.node if node.op_type == "MatMulInteger")


@pytest.mark.parametrize(("labels", "name"), CASES)
def test_the_file_is_quantised_where_the_policy_says_and_nowhere_else(tmp_path: Path, labels: int, name: str) -> None:
    architecture = largest(labels, **POLICIES[name])
    artifact, checks, own = quantised(tmp_path, architecture, labels)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    found = products(model)
    assert found.keys() <= BERT.int8_modules(architecture)
    assert set(found.values()) <= {1}
    for axis, parts in PER_LAYER.items():
        for layer, bits in enumerate(architecture.layers(axis)):
            modules = {part.format(layer) for part in parts}
            assert len(modules & found.keys()) == (len(modules) if bits == 8 else 0)
    in_head = {"head", "head.dense"} if labels == 0 else {"head.dense", "head.labels"}
    assert in_head & found.keys() == (in_head if architecture.number("head_bits") == 8 else set())
    kinds = {one.name: one.data_type for one in model.graph.initializer}
    table_is_int8 = architecture.number("embedding_bits") == 8
    assert ("word.weight" in kinds) == (not table_is_int8)
    assert artifact.quantised_max_abs_error is not None
    assert (artifact.quantised_max_abs_error > 1e-4) == (name != "nothing")
    fp32, int8 = (np.concatenate([one.ravel() for one in found.expected]) for found in (checks, own))
    assert np.sqrt(np.mean((int8 - fp32) ** 2)) < 0.1 * np.sqrt(np.mean(fp32**2))
    assert check_parity(open_session(tmp_path / "model.onnx", {}), own, TOLERANCE) == 0


@pytest.mark.parametrize(("labels", "name"), CASES)
def test_the_file_takes_the_bytes_that_were_counted(tmp_path: Path, labels: int, name: str) -> None:
    architecture = largest(labels, **POLICIES[name])
    quantised(tmp_path, architecture, labels)
    space = BERT.with_bits(tiny.resolved(labels))
    (counted,) = BERT.counts(space, to_arrays(space, [architecture]))["weight_bytes"]
    stored = [numpy_helper.to_array(one) for one in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert sum(one.nbytes for one in stored if one.dtype != np.int64) == counted


@pytest.mark.parametrize("labels", [0, 3])
def test_numbers_and_operators_are_those_of_onnx_runtimes_own_quantiser(tmp_path: Path, labels: int) -> None:
    architecture = largest(labels, attention_bits=(8, 32, 8), ffn_bits=(8, 8, 32))
    modules = BERT.int8_modules(architecture)
    fp32, _, checks = exported(labels)
    ours, plain = quantise(fp32, modules), onnx.load_from_string(fp32)
    weights = {one.name: numpy_helper.to_array(one) for one in plain.graph.initializer}
    for node in [one for one in plain.graph.node if one.op_type == "Transpose" and one.input[0] in weights]:
        plain.graph.node.remove(node)  # it quantises no weight that it finds behind a transposition
        plain.graph.initializer.append(numpy_helper.from_array(weights[node.input[0]].T.copy(), node.output[0]))
    chosen = [one.name for one in plain.graph.node if one.op_type == "MatMul" and module_of(one) in modules]
    theirs = tmp_path / "theirs.onnx"
    quantize_dynamic(
        plain, theirs, nodes_to_quantize=chosen, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True
    )
    mine, other = onnx.load_from_string(ours), onnx.load(theirs)
    kinds = ("DynamicQuantizeLinear", "MatMulInteger")
    counts = [Counter(one.op_type for one in model.graph.node if one.op_type in kinds) for model in (mine, other)]
    assert counts[0] == counts[1]
    session, reference = open_session(ours, {}), open_session(theirs, {})
    for one in checks.inputs:
        np.testing.assert_allclose(session.run(None, one)[0], reference.run(None, one)[0], atol=1e-5)


def test_the_same_module_gives_the_same_bytes() -> None:
    modules = BERT.int8_modules(largest(0, **POLICIES["all"]))
    model = exported(0).model
    assert quantise(model, sorted(modules)) == quantise(model, sorted(modules, reverse=True))


def test_products_stay_within_what_every_processor_adds_exactly(tmp_path: Path) -> None:
    """Seven bits, for AVX2's sums of 16 bits; a table that is only looked up has eight."""
    for name, most in {"table and decoder": 64, "embedding": 127, "all": 64}.items():
        quantised(tmp_path, largest(0, **POLICIES[name]), 0)
        stored = onnx.load(tmp_path / "model.onnx").graph.initializer
        values = [numpy_helper.to_array(one) for one in stored if one.data_type == onnx.TensorProto.INT8]
        assert {int(np.abs(one).max()) for one in values} == {most}


def test_the_artifact_says_what_was_done_to_the_file(tmp_path: Path) -> None:
    architecture = largest(3, **POLICIES["all"])
    artifact, _, _ = quantised(tmp_path, architecture, 3)
    path = tmp_path / "model.onnx"
    assert (artifact.sha256, artifact.size_bytes) == (sha256_file(path), path.stat().st_size)
    assert (artifact.precision, artifact.recipe) == ("int8", f"{RECIPE}+{INT8_RECIPE}")
    assert artifact.architecture == architecture
    assert artifact.parameters == BERT.parameters(tiny.resolved(3), architecture)


def test_a_row_of_zeros_stays_zeros(tmp_path: Path) -> None:
    architecture = largest(3, ffn_bits=(8, 8, 8))
    subnet = make_subnet(3, architecture=BERT.without_bits(architecture))
    subnet.get_parameter("blocks.0.fc1.weight").data[2:5] = 0
    checks = make_checks(subnet)
    export(subnet, tmp_path / "model.onnx", checks)
    model = quantise((tmp_path / "model.onnx").read_bytes(), BERT.int8_modules(architecture))
    scales = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}
    assert np.isfinite(scales["blocks.0.fc1.weight.scale"]).all()
    check_parity(open_session(model, {}), checks, tolerance("mixed", checks))


def test_a_quantised_file_may_differ_more_between_machines_by_a_share_of_its_logits() -> None:
    checks = Checks([], [np.full((2, 3), 4.0, np.float32), np.full((1, 3), -4.0, np.float32)])
    assert tolerance("fp32", checks) == TOLERANCE
    assert tolerance("int8", checks) == tolerance("mixed", checks) == pytest.approx(0.4)
    assert tolerance("int8", Checks([], [np.zeros((2, 3), np.float32)])) == TOLERANCE


def test_no_file_is_left_where_its_answers_are_not_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: bytes, modules: frozenset[str]) -> bytes:
        proto = onnx.load_from_string(quantise(model, modules))
        for one in proto.graph.initializer:
            if one.name.endswith("fc1.weight.scale"):
                one.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(one), np.inf), one.name))
        return proto.SerializeToString()

    monkeypatch.setattr(onnx_module, "quantise", broken)
    with pytest.raises(ParityError, match="not finite"):
        quantised(tmp_path, largest(3, ffn_bits=(8, 8, 8)), 3)
    assert not list(tmp_path.iterdir())


def test_a_bundle_says_what_quantising_changed(tmp_path: Path) -> None:
    made = Ingredients(tmp_path)
    architecture = BERT.at_bits(made.artifact.architecture, 8)
    artifact, own = export_int8(
        made.model,
        made.artifact,
        architecture,
        made.checks,
        modules=BERT.int8_modules(architecture),
        precision="int8",
        options={},
    )
    manifest = msgspec.structs.replace(
        made.manifest, artifact=artifact, parity_tolerance=tolerance(artifact.precision, own)
    )
    folder = tmp_path / "bundle"
    write_bundle(folder, manifest, made.model, made.tokenizer, own, made.examples)
    verify_files(folder, read_manifest(folder))
    card = (folder / "README.md").read_text()
    assert f"{artifact.quantised_max_abs_error:.1e}" in card
    assert "ffn_bits" in card
