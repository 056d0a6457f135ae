"""What the example run's devices have measured: tables, one measurement whole, and the story with them."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np
from example_run import ENVIRONMENT, SPACE, WHEN, WORKLOAD, digest, latency_of, make_predictor, make_story, of_search

from toolchain import records
from toolchain.report import Agreement, Block, Breakdown, DeviceTable, Row, Samples, Story
from toolchain.space import Architecture


def make_rows(number: int = 40, *, sensors: bool = True, factor: float = 1.0) -> list[Row]:
    """Rows of distinct subnets, every tenth in doubt, the last one failed; the board warms up and slows down once."""
    rng, rows = np.random.default_rng(3), list[Row]()
    for at in range(number):
        architecture = SPACE.sample(rng)
        seconds = factor * latency_of(architecture)
        warm = 45 + 15 * at / max(1, number)
        conditions = records.Conditions(
            temperature_highest_c=warm,
            frequency_lowest_hz=1.5e9 if at == number // 2 else 1.8e9,
            throttled_start=0,
            throttled_end=4 if at == number // 2 else 0,
            rounds_discarded=3 if at == number // 2 else 0,
        )
        rows.append(
            Row(
                subnet=architecture.id,
                median_s=seconds,
                raw_median_s=1.02 * seconds,
                n=100 + at,
                status=("unstable",) if at % 10 == 9 else (),
                started_at=WHEN + dt.timedelta(minutes=at),
                conditions=conditions if sensors else records.Conditions(),
            )
        )
    failed = Row(SPACE.largest().id, None, failure="memory: it does not fit", started_at=WHEN)
    return [*rows, failed] if rows else []


def make_header(target: str = "rpi", **changes: object) -> records.TableInfo:
    header = records.TableInfo(
        target=target,
        environment=ENVIRONMENT,
        workload=WORKLOAD,
        space=SPACE,
        recipe="bert-1",
        precision="fp32",
        threads=4,
        options={},
        reference_sha256=digest("reference"),
        created_at=WHEN,
        noise_floor=records.NoiseFloor(value=0.004, copies=4),
    )
    return msgspec.structs.replace(header, **changes)


def break_down(role: str, architecture: Architecture) -> Breakdown:
    """The example's latency is a constant and a term for each layer: so are its blocks."""
    hidden = architecture.number("hidden")
    layers = [1e-7 * hidden * (hidden + ffn) / 8 for ffn in architecture.layers("ffn")]
    blocks = [
        Block("embedding", 0, 1.5e-3),
        *(Block("layers", at, seconds) for at, seconds in enumerate(layers, start=1)),
        Block("head", 0, 5e-4),
    ]
    return Breakdown(role, architecture.id, blocks)


def make_table(story: Story, rows: list[Row] | None = None, target: str = "rpi") -> DeviceTable:
    winner = of_search(story).winner
    seconds = latency_of(winner.architecture)
    return DeviceTable(
        target=target,
        workload=WORKLOAD,
        source="measured",
        info=make_header(target),
        rows=make_rows() if rows is None else rows,
        predictor=msgspec.structs.replace(make_predictor(30), target=target),
        winner=records.Cost(value=seconds, upper=1.1 * seconds, source="predicted"),
        breakdowns=[
            break_down("winner", winner.architecture),
            break_down("largest", SPACE.largest()),
            break_down("smallest", SPACE.smallest()),
        ],
        additive_error=records.HeldOutError(n=40, mape=0.05, within_10pct=0.9, kendall_tau=0.95, worst=0.2),
    )


def make_samples(story: Story, role: str = "winner", rounds: int = 30, calls: int = 30) -> Samples:
    """The winner's measurement: the machine slows down in it, and pairing takes that out."""
    rng, winner = np.random.default_rng(8), of_search(story).winner.architecture
    seconds = latency_of(winner)
    pace = np.linspace(1.0, 1.1, rounds)
    fastest = seconds * (1 + 0.002 * rng.standard_normal(rounds))
    walls = np.sort(seconds * (1 + 0.03 * rng.exponential(size=rounds * calls)))
    walls *= seconds / np.median(walls)
    latency = records.Latency(
        median_s=seconds,
        half_width_s=0.002 * seconds,
        raw_median_s=1.05 * seconds,
        cpu_median_s=3.8 * seconds,
        mean_s=float(walls.mean()),
        minimum_s=float(walls.min()),
        p90_s=float(np.quantile(walls, 0.9)),
        p99_s=float(np.quantile(walls, 0.99)) if len(walls) >= 662 else None,
        n=len(walls),
        rounds=rounds,
        drift=1.09,
        share_kept=0.98,
        status=(),
    )
    return Samples(
        role=role,
        subnet=winner.id if role == "winner" else make_rows()[0].subnet,
        target="rpi",
        source="measured",
        latency=latency,
        walls_s=[float(one) for one in rng.permutation(walls)],
        raw_s=[float(one) for one in fastest * pace],
        paired_s=[float(one) for one in fastest],
        started_at=WHEN,
    )


def measured_story(**changes: object) -> Story:
    """The run that went well, with a table of its board and one of a laptop, and the winner's samples."""
    story = make_story()
    laptop = make_table(story, make_rows(sensors=False, factor=0.1), "laptop")
    told = story._replace(
        tables=[make_table(story), laptop],
        agreements=[Agreement("rpi", "laptop", 40, 0.93)],
        samples=make_samples(story),
    )
    return told._replace(**changes)  # type: ignore[arg-type]
