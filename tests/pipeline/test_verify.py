"""What verify makes of a bundle; the speeds here are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from export.made_bundle import Ingredients

from toolchain import export, profiling
from toolchain.errors import IntegrityError, ParityError
from toolchain.pipeline import verify as verify_module
from toolchain.pipeline.verify import verify
from toolchain.records import Budget, BudgetOutcome, Manifest


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory: pytest.TempPathFactory) -> Ingredients:
    return Ingredients(tmp_path_factory.mktemp("ingredients"))


def bundle(ingredients: Ingredients, folder: Path, **changes: Any) -> Path:
    manifest = msgspec.structs.replace(ingredients.manifest, **changes)
    export.write_bundle(
        folder / "b", manifest, ingredients.model, ingredients.tokenizer, ingredients.checks, ingredients.examples
    )
    return folder / "b"


def measuring(monkeypatch: pytest.MonkeyPatch, manifest: Manifest, *found_s: float) -> list[float]:
    """Let the device be the manifest's and the next measurements give these; returns those not yet made."""
    left = list(found_s)
    monkeypatch.setattr(profiling, "read_environment", lambda _: manifest.environment)
    monkeypatch.setattr(verify_module, "_median_s", lambda *_: left.pop(0))
    monkeypatch.setattr(verify_module, "_ATTEMPTS", 3)
    return left


def judged(folder: Path) -> dict[str, bool]:
    return {check.name: check.passed for check in verify(folder).checks if check.name not in {"integrity", "parity"}}


def test_speed_and_budget_are_judged_each_for_itself(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.234 ms stated, 2 ms allowed."""
    folder = bundle(ingredients, tmp_path)
    measuring(monkeypatch, ingredients.manifest, 1.5e-3)
    assert judged(folder) == {"speed": True, "budget": True}
    left = measuring(monkeypatch, ingredients.manifest, 1.9e-3, 1.8e-3, 1.7e-3)
    assert judged(folder) == {"speed": False, "budget": True}
    assert left == []
    left = measuring(monkeypatch, ingredients.manifest, 9e-3, 1.5e-3, 1.4e-3)
    assert judged(folder) == {"speed": True, "budget": True}
    assert left == [1.4e-3], "it goes on only until it passes"
    tight = BudgetOutcome(budget=Budget(metric="latency_s", limit=1.3e-3), value=1.234e-3, source="measured", met=True)
    folder = bundle(ingredients, tmp_path, budgets=(tight,))
    measuring(monkeypatch, ingredients.manifest, 1.5e-3, 1.5e-3, 1.5e-3)
    assert judged(folder) == {"speed": True, "budget": False}


def test_a_budget_that_was_missed_and_said_to_be_is_not_judged(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = BudgetOutcome(budget=Budget(metric="latency_s", limit=1e-3), value=1.234e-3, source="measured", met=False)
    folder = bundle(ingredients, tmp_path, budgets=(missed,))
    measuring(monkeypatch, ingredients.manifest, 1.5e-3)
    assert judged(folder) == {"speed": True}


def test_on_another_device_nothing_is_judged(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle(ingredients, tmp_path)
    measuring(monkeypatch, ingredients.manifest, 1.0)
    other = msgspec.structs.replace(ingredients.manifest.environment, cpu="Another")
    monkeypatch.setattr(profiling, "read_environment", lambda _: other)
    assert judged(folder) == {"speed": True}


def test_a_manifest_cannot_allow_itself_more_than_mostool_does(ingredients: Ingredients, tmp_path: Path) -> None:
    wrong = ingredients.checks._replace(expected=[one + 0.5 for one in ingredients.checks.expected])
    manifest = msgspec.structs.replace(ingredients.manifest, parity_tolerance=1.0)
    export.write_bundle(tmp_path / "b", manifest, ingredients.model, ingredients.tokenizer, wrong, ingredients.examples)
    with pytest.raises(ParityError):
        verify(tmp_path / "b", speed=False)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_manifest_that_cannot_be_measured_by_is_refused(
    ingredients: Ingredients, tmp_path: Path, threads: int
) -> None:
    with pytest.raises(IntegrityError, match="describes no measurement"):
        verify(bundle(ingredients, tmp_path, threads=threads))
