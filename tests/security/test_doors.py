"""What explanation/security.md of the docs says is held: the doors that no other test tries, and that each is tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made_project import Made, call, copied, refused, rewritten
from onnx import numpy_helper

from toolchain.cli.docs import FOLDER
from toolchain.export.card import render_card
from toolchain.files import sha256_file
from toolchain.records import AnyManifest, read_record

TESTS = Path(__file__).parent.parent
PAGE = (FOLDER / "explanation" / "security.md").read_text(encoding="utf-8")


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Path:
    return copied(made.bundle, tmp_path / "bundle")


def vouched_for(bundle: Path, *names: str) -> None:
    """What a forger would do: the manifest names the changed files by their new checksums, and the card agrees."""

    def change(found: dict[str, Any]) -> dict[str, Any]:
        files = found["files"] | {name: sha256_file(bundle / name) for name in names}
        artifact = found["artifact"]
        if artifact["file"] in names:
            path = bundle / artifact["file"]
            artifact = artifact | {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
        return found | {"files": files, "artifact": artifact}

    def manifest() -> AnyManifest:
        return read_record(bundle / "manifest.json", AnyManifest)

    rewritten(bundle / "manifest.json", change)
    (bundle / "README.md").write_text(render_card(manifest()))
    names = (*names, "README.md")
    rewritten(bundle / "manifest.json", change)
    assert render_card(manifest()) == (bundle / "README.md").read_text()


def test_no_code_of_a_bundle_is_run(made: Made, bundle: Path) -> None:
    trap = bundle.parent / "executed"
    scripts = sorted(path.name for path in bundle.glob("*.py"))
    assert "run_example.py" in scripts
    for name in scripts:
        (bundle / name).write_text(f"open({str(trap)!r}, 'w')\n")
    vouched_for(bundle, *scripts)
    assert call(bundle.parent, "verify", bundle, "--no-speed").code == 0  # whole, by what it says of itself
    call(made.root, "evaluate", "--source", "bundle", "--bundle", bundle)
    assert not trap.exists()


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "linked"])
def test_a_bundles_model_reads_no_file_outside(bundle: Path, location: str) -> None:
    (bundle.parent / "secret").write_bytes(np.zeros(1 << 16, np.float32).tobytes())
    if location == "linked":
        (bundle / "linked").symlink_to(bundle.parent / "secret")
    model = onnx.load(bundle / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda one: numpy_helper.to_array(one).nbytes)
    size_bytes = numpy_helper.to_array(tensor).nbytes
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size_bytes))):
        tensor.external_data.add(key=key, value=value)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    vouched_for(bundle, "model.onnx")
    refused(call(bundle.parent, "verify", bundle, "--no-speed"), 5, "nobody vouches for")


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"tests/([\w/]+\.py)(?:::(\w+))?", PAGE)
    assert len(named) > 20
    for path, function in named:
        assert (TESTS / path).is_file(), path
        assert not function or f"def {function}(" in (TESTS / path).read_text(encoding="utf-8"), f"{path}::{function}"


def test_each_door_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| door")]
    assert rows
    assert not [row for row in rows if "tests/" not in row]
