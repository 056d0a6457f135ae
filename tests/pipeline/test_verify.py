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


def measuring(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, *found_s: float, others: dict[str, float] | None = None
) -> list[float]:
    """Let the device be the manifest's and the next measurements give these; returns those not yet made."""
    left = list(found_s)
    monkeypatch.setattr(profiling, "read_environment", lambda _: manifest.environment)
    monkeypatch.setattr(verify_module, "_taken", lambda *_: {"latency_s": left.pop(0)} | (others or {}))
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


def test_each_budget_on_what_a_device_takes_is_judged_unless_nobody_can_tell(
    ingredients: Ingredients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = [
        (Budget(metric="latency_s", limit=2e-3, target="made", percentile=90), 1.6e-3),
        (Budget(metric="latency_s", limit=3e-3, target="made", percentile=99), 2.5e-3),
        (Budget(metric="peak_memory_bytes", limit=2**20, target="made"), 2.0**19),
        (Budget(metric="size_bytes", limit=2**30), 1e6),
    ]
    outcomes = tuple(BudgetOutcome(budget=one, value=value, source="measured", met=True) for one, value in met)
    folder = bundle(ingredients, tmp_path, budgets=outcomes)
    names = ("speed", "budget on latency (p90)", "budget on latency (p99)", "budget on peak memory")
    found = {"latency_s.p90": 1.9e-3, "latency_s.p99": 2.9e-3, "peak_memory_bytes": 2.0**19}
    measuring(monkeypatch, ingredients.manifest, 1.2e-3, others=found)
    assert judged(folder) == dict.fromkeys(names, True)
    over = {"latency_s.p90": 2.1e-3, "peak_memory_bytes": 2.0**21}  # and too few calls for a p99
    measuring(monkeypatch, ingredients.manifest, *[1.2e-3] * 3, others=over)
    checks = verify(folder).checks[2:]
    assert [check.passed for check in checks] == [True, False, True, False]
    assert [check.name for check in checks] == list(names)
    assert "not judged" in checks[2].detail
    assert "2.00 MiB measured, at most 1.00 MiB allowed" in checks[3].detail


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
