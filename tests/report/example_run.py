"""A run told by hand: every record a report is made of, from a seeded generator."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import cast

import msgspec
import numpy as np

from toolchain import records
from toolchain.report import Story
from toolchain.space import Architecture, Axis, SearchSpace

WHEN = dt.datetime(2030, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
SPACE = SearchSpace(
    name="tiny-bert",
    family="bert",
    axes=(
        Axis("hidden", tuple(range(32, 513, 8))),
        Axis("layers", (2, 3, 4)),
        Axis("ffn", tuple(range(64, 1025, 32)), per="layers"),
    ),
)
WORKLOAD = records.Workload(batch=1, sequence_length=64)
ENVIRONMENT = records.Environment(
    machine="aarch64",
    cpu="Cortex-A72",
    cores=4,
    memory_bytes=4 << 30,
    os="Debian GNU/Linux 12",
    kernel="6.6.20",
    governor="performance",
    python="3.11.2",
    engine="onnxruntime",
    engine_version="1.31.1",
    provider="CPUExecutionProvider",
    isa=("asimd", "crc32"),
    board="Raspberry Pi 4",
)
LATENCY = records.cost_key("latency_s", "rpi")
VERSIONS = {"mostool": "0.1", "numpy": "2.4.0"}


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def quality(value: float, split: str = "validation", n: int = 1000) -> records.Quality:
    return msgspec.convert(
        {"metric": "accuracy", "value": value, "loss": 1.2 - value, "n": n, "split": split}, records.Quality
    )


def latency_of(architecture: Architecture) -> float:
    """Seconds, in the manner of a small board: a constant and a term for each layer's work."""
    hidden = architecture.number("hidden")
    return 2e-3 + 1e-7 * sum(hidden * (hidden + ffn) for ffn in architecture.layers("ffn")) / 8


def evaluate(architecture: Architecture, limit: float, source: records.Source = "predicted") -> records.Evaluation:
    seconds = latency_of(architecture)
    parameters = float(sum(architecture.number("hidden") * (300 + ffn) for ffn in architecture.layers("ffn")))
    wobble = (int(architecture.id, 16) % 1000) / 60000
    upper = seconds * (1.06 if source == "predicted" else 1.0)
    return records.Evaluation(
        architecture=architecture,
        quality=quality(0.9 - 0.0009 / (seconds + 1e-3) + wobble),
        costs={
            LATENCY: records.Cost(value=seconds, upper=upper, source=source),
            "size_bytes": records.Cost(value=4 * parameters + 90000, upper=4 * parameters + 90000, source="predicted"),
            "parameters": records.Cost(value=parameters, upper=parameters, source="counted"),
        },
        feasible=upper <= limit,
    )


def front_of(evaluations: tuple[records.Evaluation, ...], metric: str) -> tuple[int, ...]:
    best, front = -1.0, []
    for index in sorted(range(len(evaluations)), key=lambda number: evaluations[number].costs[metric].value):
        if evaluations[index].feasible and evaluations[index].quality.value > best:
            best = evaluations[index].quality.value
            front.append(index)
    return tuple(front)


def make_search(number: int, limit: float = 0.025, target: str | None = "rpi") -> records.SearchResult:
    """A search of `number` distinct subnets, every seventh of them measured."""
    rng = np.random.default_rng(7)
    drawn: dict[str, Architecture] = {}
    while len(drawn) < number:
        architecture = SPACE.sample(rng)
        drawn[architecture.id] = architecture
    evaluations = tuple(
        evaluate(each, limit, "measured" if index % 7 == 0 else "predicted")
        for index, each in enumerate(drawn.values())
    )
    largest, smallest = evaluate(SPACE.largest(), limit), evaluate(SPACE.smallest(), limit)
    kept = [each for each in evaluations if each.feasible]
    winner = max(kept, key=lambda each: each.quality.value) if kept else smallest
    return records.SearchResult(
        space=SPACE,
        searcher="evolution",
        seed=11,
        budgets=(records.Budget(metric="latency_s", limit=limit, target=target),),
        winner=winner,
        smallest=smallest,
        largest=largest,
        evaluations=evaluations,
        front=front_of(evaluations, LATENCY),
        checkpoint_sha256=digest("checkpoint"),
        target=target,
        workload=WORKLOAD if target else None,
        predictor_sha256=digest("predictor"),
        created_at=WHEN,
    )


def make_checkpoint() -> records.CheckpointInfo:
    return records.CheckpointInfo(
        space=SPACE,
        training=records.Training(updates=1000, seed=3),
        data=records.Data(
            title="Film reviews",
            files={"train.tsv": digest("train"), "test.tsv": digest("test")},
            sha256=digest("data"),
            train=8000,
            validation=1000,
            test=872,
            labels=("bad", "good"),
            majority_share=0.509,
        ),
        vocabulary_size=8000,
        updates_done=1000,
        weights="weights.safetensors",
        weights_sha256=digest("weights"),
        tokenizer_sha256=digest("tokenizer"),
        prepared_sha256="0" * 64,
        parameters=4_386_178,
        metrics={"largest": quality(0.884), "smallest": quality(0.79)},
        versions=VERSIONS,
        created_at=WHEN,
    )


def make_curve(looks: int = 12) -> tuple[records.TrainingPoint, ...]:
    return tuple(
        records.TrainingPoint(
            update=100 * look,
            seconds=12.5 * look,
            learning_rate=1e-3 / look,
            losses={"largest": 0.3 + 0.5 / look, "smallest": 0.4 + 0.6 / look, "random": 0.35 + 0.55 / look},
            quality={"largest": quality(0.885 - 0.3 / look), "smallest": quality(0.8 - 0.28 / look)},
            mixture={"router_entropy": 1 - 0.02 * look, "expert_distance": 0.4 + 0.03 * look},
        )
        for look in range(1, looks + 1)
    )


def make_predictor(number: int = 60) -> records.PredictorInfo:
    rng = np.random.default_rng(5)
    points = []
    for _ in range(number):
        architecture = SPACE.sample(rng)
        seconds = latency_of(architecture)
        points.append((architecture.id, seconds, float(seconds * (1 + 0.06 * rng.standard_normal()))))
    return records.PredictorInfo(
        target="rpi",
        workload=WORKLOAD,
        space=SPACE,
        table_sha256=digest("table"),
        source="measured",
        environment=ENVIRONMENT,
        features=("one", "work"),
        model=records.Model(
            kind="linear",
            mean=(1.0, 1e6),
            scale=(1.0, 1e5),
            intercept=2e-3,
            coefficients=(0.0, 1e-3),
            fastest_s=1e-3,
        ),
        nearness=records.Nearness(mean=(1.0, 1e6), scale=(1.0, 1e5), inverse=((1.0, 0.0), (0.0, 1.0)), limit=1.0),
        error=records.HeldOutError(n=number, mape=0.046, within_10pct=0.9, kendall_tau=0.957, worst=0.171),
        margin=0.1,
        interval=0.101,
        coverage=0.9,
        points=tuple(points),
    )


def make_manifest(winner: records.Evaluation, limit: float = 0.025) -> records.Manifest:
    median_s = 1.024 * winner.costs[LATENCY].value
    checkpoint = make_checkpoint()
    return records.Manifest(
        name="film-reviews-rpi",
        task="classify",
        labels=("bad", "good"),
        artifact=records.Artifact(
            file="model.onnx",
            format="onnx",
            precision="fp32",
            recipe="bert-1",
            opset=18,
            sha256=digest("model"),
            size_bytes=2_750_000,
            parameters=684_000,
            architecture=winner.architecture,
            checkpoint_sha256=digest("checkpoint"),
            parity_max_abs_error=3.1e-6,
        ),
        target="rpi",
        workload=WORKLOAD,
        environment=ENVIRONMENT,
        threads=4,
        options={"intra_op_num_threads": "4"},
        maximum_length=128,
        vocabulary_size=8000,
        peak_memory_bytes=9_000_000,
        created_at=WHEN,
        predicted_s=winner.costs[LATENCY].value,
        latency=records.Latency(
            median_s=median_s,
            half_width_s=0.008 * median_s,
            raw_median_s=1.01 * median_s,
            cpu_median_s=3.6 * median_s,
            mean_s=1.03 * median_s,
            minimum_s=0.97 * median_s,
            p90_s=1.1 * median_s,
            p99_s=None,
            n=120,
            rounds=20,
            drift=1.013,
            share_kept=0.975,
            status=(),
        ),
        quality=quality(0.871, "test", 872),
        trivial_quality=0.507,
        budgets=(
            records.BudgetOutcome(
                budget=records.Budget(metric="latency_s", limit=limit, target="rpi"),
                value=median_s,
                source="measured",
                met=median_s <= limit,
            ),
        ),
        data=checkpoint.data,
        training=checkpoint.training,
        checkpoint_sha256=digest("checkpoint"),
        parity_tolerance=1e-4,
        files={"model.onnx": digest("model"), "tokenizer.json": digest("tokenizer")},
        versions=VERSIONS,
    )


def make_story(number: int = 40, **changes: object) -> Story:
    """A run that went well, from `number` evaluations, with some of its records exchanged."""
    search = make_search(number)
    story = Story(
        title="Film reviews on a Raspberry Pi",
        checkpoint=make_checkpoint(),
        curve=make_curve(),
        predictor=make_predictor(),
        search=search,
        manifest=make_manifest(search.winner),
        versions=VERSIONS,
    )
    return story._replace(**changes)  # type: ignore[arg-type]


def of_manifest(story: Story) -> records.Manifest:
    return cast("records.Manifest", story.manifest)


def of_search(story: Story) -> records.SearchResult:
    return cast("records.SearchResult", story.search)
