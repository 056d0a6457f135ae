"""Predictors of more than the median: of the rows that hold a quantity, kept apart, refused with a way to get it."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_project import DEVICE, call

from toolchain import predict as prediction
from toolchain.arrays import to_arrays
from toolchain.errors import UsageError
from toolchain.journal import Journal, read_journal
from toolchain.pipeline.asked import named_space
from toolchain.pipeline.latencies import read_latencies, refuse_few
from toolchain.pipeline.measured import Measured
from toolchain.pipeline.predict import (
    costs_of_arrays,
    find_predictor,
    fit_kind,
    key_of,
    latency_costs,
    predictor_file,
    read_predictor,
)
from toolchain.pipeline.project import Project
from toolchain.pipeline.shipped import _not_judged, outcome_of
from toolchain.profiling import anchor_s, latency, read_table
from toolchain.records import (
    MEDIAN,
    Artifact,
    Budget,
    Energy,
    Environment,
    Measurement,
    PredictorInfo,
    Quantity,
    Round,
    TableInfo,
    Timed,
    Workload,
    names_of,
    parts_of,
    read_record,
    write_record,
)
from toolchain.space import Architecture
from toolchain.targets import read_target

P90, P99 = Quantity(percentile=90), Quantity(percentile=99)
MEMORY, ENERGY = Quantity(metric="peak_memory_bytes"), Quantity(metric="energy_j")
ROWS = 12
SPACE = named_space("bert/tiny")
WORKLOAD = Workload(sequence_length=16)
WHEN = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
ENVIRONMENT = Environment(
    machine="x86_64",
    cpu="A Processor",
    cores=2,
    memory_bytes=1 << 30,
    os="Linux",
    kernel="6",
    governor="none",
    python="3.11",
    engine="onnxruntime",
    engine_version="1.31",
    provider="CPUExecutionProvider",
)
PREDICT = ("predict", "--space", "bert/tiny", "--device", "quick")


def timed(number: int, architecture: Architecture, rounds: int = 3) -> Timed:
    """A subnet whose layers' widths take time, with a call in five that takes half as long again."""
    took_s = 1e-5 * (10 + sum(architecture.layers("hidden")) * (1 + 0.01 * (number % 3)))
    turn = Round(
        wall_s=tuple(took_s * (1.5 if call in (4, 8) else 1.0) for call in range(10)),
        cpu_s=(took_s,) * 10,
        delay_s=(0.0,) * 10,
        reference_wall_s=1e-3,
        reference_cpu_s=1e-3,
        reference_fastest_s=1e-3,
    )
    return Timed(rounds=(turn,) * rounds, session_s=1.0, first_run_s=0.1, model_memory_bytes=10**6 + int(1e9 * took_s))


def rewrite(table: Path, change: Callable[[int, Timed], Timed]) -> None:
    """Change what was measured, row by row; the journal stays sound."""
    rows = read_journal(table / "journal.jsonl", Measurement)
    (table / "journal.jsonl").unlink()
    with Journal(table / "journal.jsonl", Measurement) as journal:
        for number, row in enumerate(rows):
            assert isinstance(row.outcome, Timed)
            journal.append(msgspec.structs.replace(row, outcome=change(number, row.outcome)))


def with_many_calls(_: int, outcome: Timed) -> Timed:
    return msgspec.structs.replace(outcome, rounds=outcome.rounds[:1] * 70)


def metered(number: int, outcome: Timed) -> Timed:
    """Energy that follows the time a call takes, in the first ten rows."""
    joules = 3 * min(outcome.rounds[0].wall_s)
    energy = Energy(sensor="made", joules_per_call=joules, idle_w=1.0, busy_w=4.0, calls=9, window_s=1.0)
    return msgspec.structs.replace(outcome, energy=energy if number < 10 else None)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of model, the quickest to fit: which fits best is for tests/predict to see."""
    kinds = {"blocks": prediction.fit_blocks}
    monkeypatch.setattr(prediction, "fit_predictor", functools.partial(prediction.fit_predictor, kinds=kinds))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one device and its latency table; no model was trained for it."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "quick.toml").write_text(DEVICE)
    table = Project(tmp_path).table_folder("quick", SPACE, WORKLOAD)
    table.mkdir(parents=True)
    runtime = read_target("quick", tmp_path).runtime
    shared: dict[str, Any] = {"target": "quick", "workload": WORKLOAD, "recipe": "made", "precision": "fp32"}
    info = TableInfo(
        **shared,
        environment=ENVIRONMENT,
        space=SPACE,
        threads=runtime.threads,
        options=runtime.options,
        reference_sha256="0" * 64,
        created_at=WHEN,
    )
    write_record(table / "table.json", info)
    rng = np.random.default_rng(0)
    drawn = {one.id: one for one in (SPACE.sample(rng) for _ in range(ROWS))}
    assert len(drawn) == ROWS
    with Journal(table / "journal.jsonl", Measurement) as journal:
        for number, one in enumerate(drawn.values()):
            row = Measurement(
                **shared,
                architecture=one,
                artifact_sha256="1" * 64,
                size_bytes=1000,
                parameters=250,
                fingerprint=ENVIRONMENT.fingerprint,
                threads=runtime.threads,
                started_at=WHEN,
                outcome=timed(number, one),
            )
            journal.append(row)
    return tmp_path


@pytest.fixture
def table(project: Path) -> Path:
    return Project(project).table_folder("quick", SPACE, WORKLOAD)


def test_each_quantity_has_a_predictor_of_its_own_kept_beside_the_table(table: Path) -> None:
    rewrite(table, lambda number, one: metered(number, with_many_calls(number, one)))
    before = read_predictor(table)
    median = (table / "predictor.json").read_bytes()
    found = {one: read_predictor(table, one) for one in (P90, P99, MEMORY, ENERGY)}
    assert {path.name for path in table.glob("predictor*.json")} == {
        *("predictor.json", "predictor-latency_s.p90.json", "predictor-latency_s.p99.json"),
        *("predictor-peak_memory_bytes.json", "predictor-energy_j.json"),
    }
    assert (table / "predictor.json").read_bytes() == median
    for quantity, info in found.items():
        assert info.quantity == quantity
        assert info.error.n == len(info.points) == (10 if quantity == ENERGY else ROWS)
        assert 0 < info.error.mape <= info.error.worst
        assert key_of(info) == f"{quantity.name}@quick"
    measured = {name: value for name, value, _ in found[ENERGY].points}
    medians = {name: value for name, value, _ in before.points}
    assert measured == pytest.approx({name: 3 * medians[name] for name in measured})
    memory = {name: value for name, value, _ in found[MEMORY].points}
    assert memory == pytest.approx({name: 1e6 + 1e9 * value for name, value in medians.items()}, rel=1e-4)


def test_a_percentile_is_predicted_from_percentiles_not_from_medians(table: Path) -> None:
    rewrite(table, with_many_calls)
    middle, high = (read_latencies(table, one) for one in (MEDIAN, P99))
    assert middle.ids == high.ids
    assert high.values == pytest.approx(1.5 * middle.values)
    outcomes = [row.outcome for row in read_table(table)[1] if isinstance(row.outcome, Timed)]
    anchor = anchor_s(outcomes)
    assert high.values.tolist() == [latency(one, anchor).p99_s for one in outcomes]


def test_a_predictor_is_fitted_anew_when_its_table_has_changed(table: Path) -> None:
    kept = read_predictor(table, MEMORY)
    written = predictor_file(table, MEMORY).read_bytes()
    assert read_predictor(table, MEMORY) == kept
    assert predictor_file(table, MEMORY).read_bytes() == written
    rewrite(table, lambda _, one: msgspec.structs.replace(one, model_memory_bytes=2 * (one.model_memory_bytes or 1)))
    anew = read_predictor(table, MEMORY)
    assert [value for _, value, _ in anew.points] == [2 * value for _, value, _ in kept.points]
    # A file that says it is of something else is not believed.
    read_predictor(table)
    predictor_file(table, MEMORY).write_bytes(predictor_file(table, MEDIAN).read_bytes())
    assert read_predictor(table, MEMORY) == anew


def test_costs_of_arrays_are_those_of_architectures_one_by_one(table: Path) -> None:
    info = read_predictor(table)
    rng = np.random.default_rng(1)
    some = [info.space.sample(rng) for _ in range(50)]
    values, uppers = costs_of_arrays(info, to_arrays(info.space, some))
    costs = latency_costs(info, some)
    assert values.tolist() == [cost.value for cost in costs]
    assert uppers.tolist() == [cost.upper for cost in costs]
    assert (uppers > values).all()


def test_what_no_row_tells_is_refused_with_a_way_to_get_it(table: Path, project: Path) -> None:
    for quantity, what, way in (
        (ENERGY, "no row of quick's table has an energy", "no sensor"),
        (P99, "no row of quick's table has a latency (p99)", "takes 662 undisturbed calls"),
    ):
        with pytest.raises(UsageError, match="table has") as refusal:
            find_predictor(Project(project), SPACE, "quick", None, quantity)
        assert refusal.value.what == what
        assert way in refusal.value.why
        assert "[measure]" in refusal.value.hint
        assert find_predictor(Project(project), SPACE, "quick", None, quantity, needed=False) is None
        with pytest.raises(UsageError, match="table has"):
            fit_kind(table, "linear", quantity)
    rewrite(table, lambda _, one: msgspec.structs.replace(one, model_memory_bytes=0))
    with pytest.raises(UsageError, match="no row of quick's table has a peak memory"):
        read_predictor(table, MEMORY)
    rewrite(table, lambda number, one: msgspec.structs.replace(one, model_memory_bytes=10**6 if number < 3 else None))
    with pytest.raises(UsageError, match="only 3 of the 12 rows of quick's table have a peak memory"):
        read_predictor(table, MEMORY)


def test_a_quantity_that_few_rows_have_is_no_fair_sample_of_the_space(table: Path) -> None:
    """Ten of thirty would do for a fit, were they not the fast ones and the restless ones."""
    some = read_latencies(table, P99)
    assert (len(some.ids), some.rows, some.samples) == (0, 12, (30, 30))
    refuse_few(some._replace(ids=("a",) * 15, rows=30), 9)
    with pytest.raises(UsageError, match=r"only 14 of the 30 rows of quick's table have a latency \(p99\)"):
        refuse_few(some._replace(ids=("a",) * 14, rows=30), 9)
    refuse_few(some._replace(ids=(), rows=8), 9)  # that the table is too small is said by who fits it


def test_an_imported_table_has_the_one_latency_it_holds(project: Path) -> None:
    assert call(project, *PREDICT, "--export", "t.csv", "--json").code == 0
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    brought = call(elsewhere, *PREDICT, "--import", project / "t.csv", "--length", "16", "--json").data
    with pytest.raises(UsageError, match="quick's table is imported") as refusal:
        read_predictor(elsewhere / brought["table"], P90)
    assert "latency (p90)" in refusal.value.what
    assert "mostool profile --device quick" in refusal.value.hint
    assert read_predictor(elsewhere / brought["table"]).quantity == MEDIAN


def test_predictors_of_before_are_of_the_median(table: Path) -> None:
    info = read_predictor(table)
    plain = msgspec.json.decode((table / "predictor.json").read_bytes())
    del plain["quantity"]
    (table / "predictor.json").write_bytes(msgspec.json.encode(plain))
    assert read_record(table / "predictor.json", PredictorInfo) == info


def test_predict_answers_for_a_percentile(project: Path, table: Path) -> None:
    rewrite(table, with_many_calls)
    middle, high = (call(project, *PREDICT, "--n", "3", "--percentile", one, "--json").data for one in ("50", "99"))
    assert (middle["percentile"], high["percentile"]) == (50, 99)
    pairs = zip(high["predictions"], middle["predictions"], strict=True)
    assert all(one["latency_s"] == pytest.approx(1.5 * other["latency_s"], rel=0.05) for one, other in pairs)
    told = call(project, *PREDICT, "--n", "1", "--percentile", "99")
    assert "predicted (p99)" in told.out
    assert "predictor of latency (p99) on quick" in told.out
    assert call(project, "predict", "--check", str(table), "--percentile", "99").code == 2


# -- what a file that ships really takes -----------------------------------------------------------------------------


def test_each_budget_is_held_against_what_was_measured_or_not_judged(project: Path) -> None:
    once = timed(0, SPACE.smallest())
    figures = msgspec.structs.replace(latency(once, anchor_s([once])), median_s=1e-3, p90_s=2e-3, p99_s=None)
    measured = Measured(figures, 2**20, energy_j=0.5)
    artifact = Artifact(
        file="model.onnx",
        format="onnx",
        precision="fp32",
        recipe="made",
        opset=17,
        sha256="0" * 64,
        size_bytes=2**21,
        parameters=9,
        architecture=SPACE.smallest(),
    )

    def outcome(limit: float, found: Measured | None = measured, **changes: Any) -> tuple[float, str, bool] | None:
        one = outcome_of(Budget(limit=limit, target="quick", **changes), artifact, found, ENVIRONMENT)
        return None if one is None else (one.value, one.source, one.met)

    assert outcome(1.5e-3, metric="latency_s") == (1e-3, "measured", True)
    assert outcome(1.5e-3, metric="latency_s", percentile=90) == (2e-3, "measured", False)
    assert outcome(1.5e-3, metric="latency_s", percentile=99) is None
    assert outcome(2.0**20, metric="peak_memory_bytes") == (2.0**20, "measured", True)
    assert outcome(0.4, metric="energy_j") == (0.5, "measured", False)
    assert outcome(1.0, metric="parameters") == (9.0, "counted", False)
    assert outcome(1.5e-3, None, metric="latency_s") is None
    assert outcome(2.0**22, None, metric="size_bytes") == (2.0**21, "counted", True)
    blind = measured._replace(energy_j=None, peak_memory_bytes=None)
    assert outcome(0.4, blind, metric="energy_j") is None
    assert outcome(0.4, measured._replace(energy_j=-1e-3), metric="energy_j") is None
    assert outcome(0.4, blind, metric="peak_memory_bytes") is None
    told = _not_judged(
        [
            Budget(metric="latency_s", limit=1.0, target="quick", percentile=99),
            Budget(metric="energy_j", limit=1.0, target="quick"),
            Budget(metric="latency_s", limit=1.0, target="rpi"),
        ],
        read_target("quick", project),
        WORKLOAD,
    )
    assert told == [
        "the latency (p99) budget is not judged: on quick the measurement has too few undisturbed calls",
        "the energy budget is not judged: on quick nothing was metered (no sensor, or its measure.energy_s is 0)",
        "the latency budget for rpi is not judged: this is quick, b1-t16",
    ]


def test_names_of_costs_tell_only_what_tells_them_apart() -> None:
    assert list(names_of(["latency_s@rpi", "size_bytes"]).values()) == ["latency", "size"]
    assert names_of(["latency_s.p90@rpi"]) == {"latency_s.p90@rpi": "latency (p90)"}
    assert list(names_of(["latency_s@a", "latency_s@b", "peak_memory_bytes@a"]).values()) == [
        *("latency on a", "latency on b", "peak memory on a")
    ]
    for quantity in (MEDIAN, P90, P99, MEMORY, ENERGY):
        key = Budget(metric=quantity.metric, limit=1.0, target="pi", percentile=quantity.percentile).key
        assert parts_of(key) == (quantity.metric, quantity.percentile, "pi")
        assert parts_of(quantity.name) == (quantity.metric, quantity.percentile, None)
