"""pyproject.toml, toolchain/extras.py and the Makefile agree on what each extra brings."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement

from installing.absent import BASE_LACKS
from installing.versions import CHECKOUT, constraints, declared, lowest
from toolchain.extras import EXTRAS, extra_of

_BRINGS = {"optimum-onnx": "optimum"}
"""Packages whose module is called otherwise than they are."""


def own(extra: str) -> set[str]:
    """The modules that an extra names itself, without those of the extras it builds on."""
    texts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    names = {Requirement(text).name for text in texts} - {"mostool"}
    return {_BRINGS.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_it_is_known_for(extra: str) -> None:
    assert own(extra) == set(EXTRAS[extra])


def test_every_extra_is_known() -> None:
    assert set(declared()) - set(EXTRAS) == {"", "all", "gpu", "report", "test"}


def test_the_base_knows_no_torch_and_all_brings_what_the_base_lacks() -> None:
    base, whole = ({one.name for one in declared()[name]} for name in ("", "all"))
    assert not base & {module for modules in EXTRAS.values() for module in modules}
    assert set(BASE_LACKS) == whole
    assert "onnxruntime" in base


def test_the_makefile_installs_all() -> None:
    assert "--editable '.[all]'" in (CHECKOUT / "Makefile").read_text()
    assert {one.name for one in declared()["test"]} >= {one.name for one in declared()["all"]}


def test_every_package_has_one_lower_bound_that_can_be_tried() -> None:
    for requirements in declared().values():
        for requirement in requirements:
            assert lowest(requirement).startswith(f"{requirement.name}==")
    held = constraints("lowest", [])
    assert "numpy==2.2" in held
    assert len({one.partition("==")[0] for one in held}) == len(held)
    assert "torch==2.13.0" in constraints("highest", ["all"])
    with pytest.raises(ValueError, match="no lower bounds"):
        lowest(Requirement("numpy<3"))


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("torch", "train", "train"),
        ("torch", "profile", "onnx"),
        ("safetensors.numpy", "search", "search"),
        ("onnx", "verify", "onnx"),
        ("onnx", "demo", "all"),
        ("pymoo.indicators", "export", "search"),
        ("pyarrow", "predict", "tables"),
        ("numpy", "predict", None),
        ("toolchain.nothing", "train", None),
    ],
)
def test_the_extra_that_is_named_is_the_one_that_suffices(module: str, command: str, extra: str | None) -> None:
    assert extra_of(module, command) == extra
