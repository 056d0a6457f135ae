"""What a person or a program reads: JSON for any reader, and how long a resumed stage still takes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from made_project import Made

from toolchain.cli import output
from toolchain.cli.words import cost_columns, costs_in_words, counted, demo_in_words, of_emulated, on_run, program
from toolchain.errors import MostoolError
from toolchain.progress import Progress
from toolchain.records import (
    NEVER,
    Budget,
    BudgetOutcome,
    Cost,
    Evaluation,
    Manifest,
    Quality,
    Source,
    names_of,
    read_record,
)
from toolchain.space import Architecture


def test_json_is_ascii_for_readers_of_any_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_result({"word": "m\u00e5ne \udcff"}, [], [], as_json=True, quiet=False)
    output.print_failure(MostoolError("n\u00f8"), as_json=True)
    assert capsys.readouterr().out.isascii()


def test_what_was_done_before_says_nothing_about_the_pace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 110.0))
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.ProgressPrinter(quiet=False) as listener:
        listener(Progress("train", 900, 1000, ""))
        listener(Progress("train", 920, 1000, ""))
    first, second = capsys.readouterr().err.splitlines()
    assert "left" not in first
    assert second == "train: 920/1000, 10 s, 40 s left"


def test_a_spread_is_a_share_of_its_latency() -> None:
    assert output.spread(1.36e-7, 1.36e-4) == "± 0.10 %"
    assert output.spread(1e-3, 8e-3) == "± 12.50 %"
    assert output.spread(0.0, 0.0) == ""


def test_words_from_elsewhere_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b[2J\x07one\ntwo\x9b \udcff"
    output.print_failure(MostoolError(wild, why=wild, hint=wild), as_json=False)
    output.print_result(None, [wild], [], as_json=False, quiet=False)
    with output.ProgressPrinter(quiet=False) as listener:
        listener(Progress("profile", 1, 2, wild))
    told = "?[2J?one two? ?"
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [f"error: {told}", f"why: {told}", f"hint: {told}", f"warning: {told}"]
    assert lines[4].endswith(f" {told}")
    assert len(lines) == 5


def test_one_is_no_plural() -> None:
    assert [counted(count, "subnet") for count in (0, 1, 1200)] == ["0 subnets", "1 subnet", "1,200 subnets"]


def test_the_next_command_is_one_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for running, typed in {
        ".venv/bin/mostool": "../.venv/bin/mostool",
        "/opt/my own/mostool": "'/opt/my own/mostool'",
        "/there/toolchain/__main__.py": f"{shlex.quote(sys.executable)} -m toolchain",
    }.items():
        monkeypatch.setattr(sys, "argv", [running, "demo"])
        assert program(Path("mostool-demo")) == typed
    (tmp_path / "mostool").touch(0o755)
    assert program(Path("mostool-demo")) == "mostool"


def test_the_demo_says_what_its_budgets_are_and_how_to_go_on(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", [".venv/bin/mostool", "demo"])
    manifest = read_record(made.bundle / "manifest.json", Manifest)
    budget = Budget(metric="latency_s", limit=0.005, target="cpu")
    outcome = BudgetOutcome(budget=budget, value=0.004, source="measured", met=True)
    cost = Cost(value=2**20, upper=2**20, source="counted")
    extreme = SimpleNamespace(costs={"size_bytes": cost, "parameters": cost})
    shown = SimpleNamespace(
        manifest=msgspec.structs.replace(manifest, budgets=(outcome,), predicted_s=0.004),
        searched=SimpleNamespace(result=SimpleNamespace(largest=extreme, smallest=extreme)),
        exported=SimpleNamespace(folder=made.bundle),
        **dict.fromkeys(("largest", "smallest"), manifest.quality),
        **dict.fromkeys(("largest_s", "smallest_s"), 0.01),
        prediction_error=0.01,
        verdicts={"it holds": True},
        report=Path("report.html"),
    )
    lines = demo_in_words(shown, Path("mostool-demo"))
    assert "budget  5.000 ms, about 50 % of what the largest takes: 4.000 ms measured, kept" in lines
    typed = [f"  ../.venv/bin/mostool {name}" for name in ("profile", "search", "export")]
    assert lines[-6:] == ["go on:", "  cd mostool-demo", *typed, "PASS"]


def subnet(source: Source = "predicted", **costs: float) -> Evaluation:
    return Evaluation(
        architecture=Architecture("bert", {"depth": 2}),
        quality=Quality(metric="accuracy", value=0.9, loss=0.1, n=10, split="validation"),
        costs={key: Cost(value=value, upper=value, source=source) for key, value in costs.items()},
        feasible=True,
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("latency_s", 0.08, "80.000 ms"),
        ("latency_s.p90@rpi", 0.08, "80.000 ms"),
        ("size_bytes", 2.0**21, "2.00 MiB"),
        ("peak_memory_bytes@rpi", 2.0**21, "2.00 MiB"),
        ("energy_j@rpi", 0.0015, "1.500 mJ"),
        ("energy_j", 2.5, "2.500 J"),
        ("parameters", 1234.0, "1,234 parameters"),
    ],
)
def test_every_cost_has_its_unit(key: str, value: float, words: str) -> None:
    assert output.in_units(key, value) == words


def test_costs_stand_under_heads_that_tell_them_apart() -> None:
    plain = subnet(**{"parameters": 1234, "size_bytes": 2**20, "latency_s@cpu": 0.001})
    assert list(cost_columns([plain]).values()) == ["latency", "size", "parameters"]
    assert costs_in_words(plain.costs) == ["1.000 ms", "1.00 MiB", "1,234"]
    rich = subnet(
        **{
            "parameters": 1234,
            "size_bytes": 2**20,
            "latency_s@rpi": 0.002,
            "latency_s.p90@rpi": 0.003,
            "latency_s@cpu": 0.001,
            "energy_j@rpi": 0.25,
        }
    )
    columns = cost_columns([plain, rich])
    assert columns == {
        "latency_s@cpu": "latency (p50) on cpu",
        "latency_s@rpi": "latency (p50) on rpi",
        "latency_s.p90@rpi": "latency (p90) on rpi",
        "energy_j@rpi": "energy on rpi",
        "size_bytes": "size",
        "parameters": "parameters",
    }
    assert costs_in_words(rich.costs, columns) == [
        *("1.000 ms", "2.000 ms", "3.000 ms", "250.000 mJ", "1.00 MiB", "1,234")
    ]
    assert costs_in_words(plain.costs, columns)[1:4] == ["-", "-", "-"]
    bare = subnet(size_bytes=2**20, parameters=9)
    assert list(cost_columns([bare])) == ["latency_s", "size_bytes", "parameters"]
    assert costs_in_words(bare.costs) == ["-", "1.00 MiB", "9"]
    failed = subnet(**{"parameters": 9, "size_bytes": 2**20, "latency_s@cpu": NEVER})
    assert costs_in_words(failed.costs) == ["failed", "1.00 MiB", "9"]


def test_the_next_command_can_be_pasted_whatever_the_runs_name() -> None:
    for name in ("runs/made", "runs/a b", "it's"):
        assert shlex.split(f"mostool search{on_run(Path(name))}")[2:] == ["--run", name]
    assert on_run(None) == ""


def test_a_budget_is_named_where_its_unit_does_not_tell_it() -> None:
    budgets = [
        Budget(metric="latency_s", limit=0.08, target="rpi", percentile=90),
        Budget(metric="peak_memory_bytes", limit=2.0**20, target="rpi"),
        Budget(metric="size_bytes", limit=2.0**20),
    ]
    names = names_of(budget.key for budget in budgets)
    assert [output.in_words(budget, names) for budget in budgets] == [
        *("latency (p90) 80.000 ms", "peak memory 1.00 MiB", "1.00 MiB")
    ]


def test_emulated_costs_are_called_that() -> None:
    assert "emulated" in of_emulated(subnet("emulated", **{"latency_s.p90@qemu": 1.0}).costs)
    assert of_emulated(subnet(**{"latency_s@cpu": 1.0}).costs) == ""
