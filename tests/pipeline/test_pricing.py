"""What subnets cost a search: counted, predicted, and measured where it was; never less than the truth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_project import Made, call

from toolchain.arrays import to_arrays
from toolchain.errors import UsageError
from toolchain.journal import Journal
from toolchain.pipeline.growing import plan
from toolchain.pipeline.pricing import Asked, Prices
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.profiling import anchor_s, latency, read_table
from toolchain.records import MEDIAN, Budget, Failed, Measurement, Quantity, Timed
from toolchain.search import violation
from toolchain.space import Architecture

LATENCY = "latency_s@quick"
ON_QUICK = [Asked("quick", MEDIAN)]


@pytest.fixture
def run(project: Path, made: Made) -> Run:
    return Run(project / made.classify.relative_to(made.root))


@pytest.fixture
def table(project: Path, made: Made) -> Path:
    return project / made.table.relative_to(made.root)


def unmeasured(run: Run, table: Path, count: int) -> list[Architecture]:
    known = {row.architecture for row in read_table(table)[1]}
    return [one for one in plan(run.info.space, 60) if one not in known][:count]


def test_what_was_measured_costs_what_it_took(project: Path, run: Run, table: Path) -> None:
    rows = [row for row in read_table(table)[1] if isinstance(row.outcome, Timed)]
    outcomes = [row.outcome for row in rows if isinstance(row.outcome, Timed)]
    anchor = anchor_s(outcomes)
    prices = Prices(Project(project), run, run.info.space, ON_QUICK, None)
    for costs, outcome in zip(prices.costs([row.architecture for row in rows]), outcomes, strict=True):
        found = latency(outcome, anchor)
        cost = costs[LATENCY]
        assert (cost.value, cost.source) == (found.median_s, "measured")
        assert cost.upper == found.median_s + found.half_width_s


def test_others_are_predicted_one_by_one_as_all_at_once(project: Path, run: Run, table: Path) -> None:
    others = unmeasured(run, table, 20)
    prices = Prices(Project(project), run, run.info.space, ON_QUICK, None)
    priced = prices.price(to_arrays(run.info.space, others))
    for number, costs in enumerate(prices.costs(others)):
        assert list(costs) == [LATENCY, "size_bytes", "parameters"]
        assert [cost.source for cost in costs.values()] == ["predicted", "predicted", "counted"]
        for name, cost in costs.items():
            assert (cost.value, cost.upper) == (priced.values[name][number], priced.uppers[name][number])
        assert costs[LATENCY].value < costs[LATENCY].upper


def test_parameters_and_sizes_are_those_of_the_file(project: Path, run: Run, table: Path, tmp_path: Path) -> None:
    """Parameters exactly; a size never less than it is, and not much more."""
    some = [run.info.space.smallest(), run.info.space.middle(), run.info.space.largest(), *unmeasured(run, table, 4)]
    for space, those in ((run.info.space, some), (run.bits_space, [*plan(run.bits_space, 12)])):
        prices = Prices(Project(project), run, space, [], None)
        for one, costs in zip(those, prices.costs(those), strict=True):
            artifact = run.build(one, tmp_path / "model.onnx").artifact
            assert costs["parameters"].value == artifact.parameters
            assert artifact.size_bytes <= costs["size_bytes"].upper
            assert costs["size_bytes"].upper < 1.35 * artifact.size_bytes + 20_000


def test_what_could_not_run_there_keeps_no_budget(project: Path, run: Run, table: Path) -> None:
    _, rows = read_table(table)
    (broken,) = unmeasured(run, table, 1)
    prices = Prices(Project(project), run, run.info.space, ON_QUICK, None)
    (before,) = prices.costs([broken])
    failed = msgspec.structs.replace(
        rows[0], architecture=broken, outcome=Failed(stage="memory", error="it does not fit")
    )
    with Journal(table / "journal.jsonl", Measurement) as journal:
        journal.append(failed)
    assert prices.costs([broken]) == [before], "it is read when it is said to"
    prices.read_anew()
    (after,) = prices.costs([broken])
    assert after[LATENCY].source == "measured"
    found = call(project, "search", "--latency", "1000s", "--evaluations", "2", "--remeasure", "0", "--json").data
    (budget,) = (msgspec.convert(one, type=Budget) for one in found["budgets"])
    assert violation(before, [budget]) == 0
    assert violation(after, [budget]) > 0
    assert np.isfinite(after[LATENCY].upper)


def test_a_quantity_of_a_device_has_a_name_of_its_own(project: Path, run: Run) -> None:
    memory = Quantity(metric="peak_memory_bytes")
    prices = Prices(Project(project), run, run.info.space, [*ON_QUICK, Asked("quick", memory), *ON_QUICK], None)
    assert list(prices.costs([run.info.space.middle()])[0])[:2] == [LATENCY, "peak_memory_bytes@quick"]
    assert [one.target for one in prices.devices] == ["quick"]
    assert len(prices.folders) == 1
    assert len(prices.predictors) == 2


def test_far_from_all_that_was_measured_is_said_unless_it_was_measured(project: Path, run: Run, table: Path) -> None:
    prices = Prices(Project(project), run, run.info.space, ON_QUICK, None)
    for row in read_table(table)[1]:
        assert prices.extrapolated(row.architecture) == []


def test_a_device_without_a_table_of_the_space_is_refused(project: Path, run: Run) -> None:
    with pytest.raises(UsageError, match="no latency table of this run's space on cpu") as caught:
        Prices(Project(project), run, run.info.space, [Asked("cpu", MEDIAN)], None)
    assert caught.value.hint == "measure some subnets first: mostool profile --device cpu"
    with pytest.raises(UsageError, match="on quick") as caught:
        Prices(Project(project), run, run.bits_space, ON_QUICK, None)
    assert caught.value.hint == "measure some subnets first: mostool profile --device quick --precision mixed"


def test_nothing_costs_nothing(project: Path, run: Run) -> None:
    assert Prices(Project(project), run, run.info.space, ON_QUICK, None).costs([]) == []
