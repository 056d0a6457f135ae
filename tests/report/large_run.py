"""A run as large as the report must bear, 2,000 evaluations and 2,000 measured rows, and a small one that is as wide.

The space is that of BERT base, twelve layers with three axes each, so an architecture is long to write down. The
search goes as a real one does: batches of children of the best so far, two devices, several budgets.
"""

from __future__ import annotations

import datetime as dt
import functools
import math

import example_run
import msgspec
import numpy as np
from example_run import make_manifest, make_story, quality

from toolchain import records
from toolchain.report import Story
from toolchain.report.story import Agreement, Block, Breakdown, DeviceTable, Row, Samples
from toolchain.space import Architecture, Axis, SearchSpace

EVALUATIONS, ROWS, BATCH = 2000, 2000, 25
SPACE = SearchSpace(
    name="base",
    family="bert",
    axes=(
        Axis("depth", (6, 8, 10, 12)),
        Axis("hidden", (120, 240, 360, 480, 540, 600, 768), per="depth"),
        Axis("heads", (6, 12), per="depth"),
        Axis("ffn", (256, 512, 1024, 2048, 3072), per="depth"),
    ),
)
RPI, LAPTOP = records.cost_key("latency_s", "rpi"), records.cost_key("latency_s", "laptop")
LIMITS_S = (0.12, 0.15, 0.2, 0.25, 0.3)
SIZE_LIMIT = 200.0 * (1 << 20)


def parameters_of(architecture: Architecture) -> int:
    hidden, ffn = architecture.layers("hidden"), architecture.layers("ffn")
    return 8000 * 768 + sum(
        2 * 768 * width + 4 * width * width + 2 * width * inner for width, inner in zip(hidden, ffn, strict=True)
    )


def seconds_of(architecture: Architecture, rng: np.random.Generator) -> tuple[float, float]:
    """Of a small board and of a laptop: work and a constant for each layer; they do not rank subnets quite alike."""
    work, depth = parameters_of(architecture) - 8000 * 768, architecture.number("depth")
    board = 8e-3 + 2.5e-3 * depth + 6.2e-9 * work
    laptop = 1e-3 + 0.3e-3 * depth + 0.34e-9 * work
    return board * float(rng.normal(1, 0.02)), laptop * float(rng.normal(1, 0.02))


def _evaluate(architecture: Architecture, batch: int, rng: np.random.Generator) -> records.Evaluation:
    board, laptop = seconds_of(architecture, rng)
    parameters = float(parameters_of(architecture))
    size = 4 * parameters + 200_000
    worth = 0.9 - 2.2e6 / (parameters + 4e6) + float(rng.normal(0, 0.004))
    return records.Evaluation(
        architecture=architecture,
        quality=quality(round(worth, 4), n=1000),
        costs={
            RPI: records.Cost(value=board, upper=1.06 * board, source="predicted"),
            LAPTOP: records.Cost(value=laptop, upper=1.04 * laptop, source="predicted"),
            "size_bytes": records.Cost(value=size, upper=size, source="predicted"),
            "parameters": records.Cost(value=parameters, upper=parameters, source="counted"),
        },
        feasible=1.06 * board <= LIMITS_S[-1] and size <= SIZE_LIMIT,
        stopped=batch > 0 and bool(rng.random() < 0.1),
        batch=batch,
    )


def _front(evaluations: list[records.Evaluation]) -> tuple[int, ...]:
    best, front = -1.0, []
    for index in sorted(range(len(evaluations)), key=lambda number: evaluations[number].costs[RPI].value):
        each = evaluations[index]
        if each.feasible and not each.stopped and each.quality.value > best:
            best = each.quality.value
            front.append(index)
    return tuple(front)


def _search(number: int) -> records.SearchResult:
    rng = np.random.default_rng(2000)
    seen: dict[str, records.Evaluation] = {}
    trace: list[records.TracePoint] = []
    for batch in range(number // BATCH):
        parents = sorted(seen.values(), key=lambda each: (each.feasible, each.quality.value))[-40:]
        while len(seen) < BATCH * (batch + 1):
            parent = parents[int(rng.integers(len(parents)))].architecture if batch > 3 else None
            child = SPACE.mutate(parent, rng, 0.15) if parent else SPACE.sample(rng)
            seen.setdefault(child.id, _evaluate(child, batch, rng))
        best = max((each.quality.value for each in seen.values() if each.feasible), default=0.0)
        trace.append(records.TracePoint(evaluations=len(seen), hypervolume=0.4 * best, best=best))
    evaluations = list(seen.values())
    picks = tuple(_pick(evaluations, limit) for limit in LIMITS_S)
    assert picks[-1].index is not None
    return records.SearchResult(
        space=SPACE,
        searcher="nsga2",
        seed=11,
        budgets=picks[-1].budgets,
        winner=evaluations[picks[-1].index],
        smallest=_evaluate(SPACE.smallest(), 0, rng),
        largest=_evaluate(SPACE.largest(), 0, rng),
        evaluations=tuple(evaluations),
        front=_front(evaluations),
        checkpoint_sha256=example_run.digest("checkpoint"),
        target="rpi",
        workload=example_run.WORKLOAD,
        predictor_sha256=example_run.digest("predictor"),
        created_at=example_run.WHEN + dt.timedelta(hours=3),
        objectives=(RPI, LAPTOP),
        devices=tuple(
            records.SearchDevice(
                target=target,
                workload=example_run.WORKLOAD,
                predictor_sha256=example_run.digest(f"predictor of {target}"),
                source="measured",
            )
            for target in ("rpi", "laptop")
        ),
        picks=picks,
        trace=tuple(trace),
    )


def _pick(evaluations: list[records.Evaluation], limit: float) -> records.Pick:
    budgets = (
        records.Budget(metric="latency_s", limit=limit, target="rpi"),
        records.Budget(metric="size_bytes", limit=SIZE_LIMIT),
    )
    kept = [
        index
        for index, each in enumerate(evaluations)
        if each.costs[RPI].upper <= limit and each.costs["size_bytes"].upper <= SIZE_LIMIT and not each.stopped
    ]
    return records.Pick(budgets=budgets, index=max(kept, key=lambda index: evaluations[index].quality.value))


def _predictor(number: int) -> records.PredictorInfo:
    """Held-out rows as a table of 2,000 measurements gives them: a few percent off, one in a hundred far off."""
    rng = np.random.default_rng(4)
    points: dict[str, tuple[str, float, float]] = {}
    while len(points) < number:
        architecture = SPACE.sample(rng)
        seconds = seconds_of(architecture, rng)[0]
        spread = 0.15 if rng.random() < 0.01 else 0.03
        guess = seconds * float(rng.normal(1, spread))
        points[architecture.id] = (architecture.id, seconds, guess)
    off = np.array([abs(guess / seen - 1) for _, seen, guess in points.values()])
    error = records.HeldOutError(
        n=number,
        mape=float(off.mean()),
        within_10pct=float((off <= 0.1).mean()),
        kendall_tau=0.93,
        worst=float(off.max()),
    )
    return msgspec.structs.replace(
        example_run.make_predictor(2), space=SPACE, error=error, points=tuple(points.values())
    )


def _table(target: str, number: int, predictor: records.PredictorInfo | None) -> DeviceTable:
    """A table as measuring through a night fills it: the board warms up, a few subnets fail, a few are in doubt."""
    rng = np.random.default_rng(len(target))
    rows, when = [], example_run.WHEN
    names = [name for name, _, _ in predictor.points] if predictor else []
    for at in range(number):
        architecture = SPACE.sample(rng)
        seconds = seconds_of(architecture, rng)[0 if target == "rpi" else 1]
        warm = 45 + 20 * (1 - math.exp(-at / 200)) + float(rng.normal(0, 0.7))
        when += dt.timedelta(seconds=float(rng.uniform(8, 14)))
        failed = rng.random() < 0.004
        rows.append(
            Row(
                subnet=names[at] if at < len(names) else architecture.id,
                median_s=None if failed else seconds,
                raw_median_s=None if failed else seconds * float(rng.normal(1.01, 0.01)),
                n=0 if failed else int(rng.integers(60, 400)),
                status=("unstable",) if rng.random() < 0.01 else (),
                failure="memory: the model does not fit" if failed else "",
                started_at=when,
                conditions=records.Conditions(
                    temperature_start_c=warm - 1,
                    temperature_end_c=warm,
                    temperature_highest_c=warm + 0.5,
                    frequency_lowest_hz=1.8e9 if warm < 65 else 1.5e9,
                    load_per_core=0.05,
                ),
            )
        )
    return DeviceTable(
        target=target,
        workload=example_run.WORKLOAD,
        source="measured",
        info=records.TableInfo(
            target=target,
            environment=example_run.ENVIRONMENT,
            workload=example_run.WORKLOAD,
            space=SPACE,
            recipe="bert-1",
            precision="fp32",
            threads=4,
            options={},
            reference_sha256=example_run.digest("reference"),
            created_at=example_run.WHEN,
        ),
        rows=tuple(rows),
        sha256=predictor.table_sha256 if predictor else example_run.digest(target),
        predictor=predictor,
    )


def _breakdown(role: str, architecture: Architecture) -> Breakdown:
    blocks = [Block("embedding", 0, 2e-3)]
    for layer, (width, inner) in enumerate(
        zip(architecture.layers("hidden"), architecture.layers("ffn"), strict=True), start=1
    ):
        blocks += [
            Block("attention", layer, 8e-4 + 6.2e-9 * (2 * 768 * width + 4 * width * width)),
            Block("feed-forward", layer, 5e-4 + 6.2e-9 * 2 * width * inner),
        ]
    return Breakdown(role, architecture.id, (*blocks, Block("head", 0, 1e-3)))


def _samples(winner: records.Evaluation, latency: records.Latency) -> Samples:
    """Thirty rounds of a hundred calls each."""
    rng = np.random.default_rng(1)
    walls = latency.median_s * (1 + 0.01 * rng.standard_exponential(3000) + 0.003 * rng.standard_normal(3000))
    raw = latency.median_s * (1 + np.linspace(0, 0.02, 30) + 0.002 * rng.standard_normal(30))
    return Samples(
        role="winner",
        subnet=winner.architecture.id,
        target="rpi",
        source="measured",
        latency=latency,
        walls_s=tuple(map(float, walls)),
        raw_s=tuple(map(float, raw)),
        paired_s=tuple(map(float, raw / (1 + np.linspace(0, 0.02, 30)))),
        started_at=example_run.WHEN,
    )


def large_story() -> Story:
    return wide_story(EVALUATIONS, ROWS)


@functools.cache
def wide_story(evaluations: int = 100, rows: int = 80) -> Story:
    """A run with everything in it: two devices, a sweep of budgets, tables, samples. `evaluations` go by 25."""
    search, predictor = _search(evaluations), _predictor(rows)
    checkpoint = msgspec.structs.replace(example_run.make_checkpoint(), space=SPACE, parameters=66_000_000)
    manifest = make_manifest(search.winner, limit=LIMITS_S[-1])
    subnets = (("winner", search.winner), ("largest", search.largest), ("smallest", search.smallest))
    board = _table("rpi", rows, predictor)._replace(
        winner=search.winner.costs[RPI],
        breakdowns=tuple(_breakdown(role, each.architecture) for role, each in subnets),
        additive_error=predictor.error,
    )
    return make_story(
        4,
        search=search,
        predictor=predictor,
        manifest=manifest,
        checkpoint=checkpoint,
        tables=(board, _table("laptop", rows // 5, None)._replace(winner=search.winner.costs[LAPTOP])),
        agreements=(Agreement("rpi", "laptop", rows // 5, 0.91),),
        samples=_samples(search.winner, manifest.latency),
    )
