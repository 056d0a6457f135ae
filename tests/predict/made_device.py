"""A made-up family on a made-up device: what each kind of work costs is known, so what is predicted can be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from toolchain.arrays import AxisArrays, Floats, draw_arrays
from toolchain.predict import KINDS, About, Rows, fit_predictor
from toolchain.records import Environment, PredictorInfo, Workload
from toolchain.space import Axis, SearchSpace

SPACE = SearchSpace(
    "made",
    "bert",
    (
        Axis("embedding", (10, 16, 24)),
        Axis("depth", (1, 2, 3, 4)),
        Axis("hidden", (8, 12, 20), per="depth"),
        Axis("heads", (1, 2, 4), per="depth"),
        Axis("ffn", (6, 16, 24), per="depth"),
    ),
)
ENVIRONMENT = Environment(
    machine="x86_64",
    cpu="made",
    cores=2,
    memory_bytes=1 << 30,
    os="Linux",
    kernel="6",
    governor="none",
    python="3.11",
    engine="onnxruntime",
    engine_version="1",
    provider="CPUExecutionProvider",
)
ABOUT = About("made", Workload(batch=2, sequence_length=12), SPACE, "0" * 64, "measured", ENVIRONMENT)
COSTS = {"pass": 2e-4, "layers": 5e-5, "heads": 2e-5, "feed_forward": 1e-6, "links": 5e-7, "idle": 0.0}
"""Seconds that the device takes for one of each kind of work."""
BLOCKS = {"entry": ("pass", "links"), "layers": ("layers", "heads", "feed_forward")}

Law = Callable[[dict[str, Floats]], Floats]
"""Features to the true seconds [n]."""


def features_of(arrays: AxisArrays) -> dict[str, Floats]:
    """What these networks ask of a device, by kind of work: [n] each."""
    depth, hidden, heads, ffn = (arrays[name] for name in ("depth", "hidden", "heads", "ffn"))
    entering = np.concatenate([np.full((len(depth), 1), 24.0), hidden[:, :-1]], axis=1)
    return {
        "pass": np.ones(len(depth)),
        "layers": depth,
        "heads": heads.sum(axis=1),
        "feed_forward": (2 * hidden * ffn).sum(axis=1),
        "links": (entering * hidden).sum(axis=1),
        "idle": arrays["embedding"],
    }


def added(costs: Mapping[str, float] = COSTS) -> Law:
    """The device on which costs add up."""
    return lambda features: np.sum([one * features[name] for name, one in costs.items()], axis=0)


def multiplied(features: dict[str, Floats]) -> Floats:
    """A device on which costs multiply: of each layer's and head's, latency takes a share more."""
    return 2e-4 * np.exp(0.35 * features["layers"] + 0.06 * features["heads"] + 3e-4 * features["feed_forward"])


def bent(features: dict[str, Floats]) -> Floats:
    """A device with a small cache: feed-forward work beyond 900 multiply-adds costs four times as much."""
    spilled = np.maximum(features["feed_forward"] - 900, 0)
    return added()(features) + 3 * COSTS["feed_forward"] * spilled


def draw(count: int, seed: int) -> dict[str, Floats]:
    """The features of random networks of the space."""
    return features_of(draw_arrays(SPACE, count, np.random.default_rng(seed)))


def make_rows(count: int, noise: float = 0.0, seed: int = 0, law: Law | None = None) -> Rows:
    """Measurements on the made-up device, with a relative error of standard deviation `noise`."""
    features = draw(count, seed)
    errors = noise * np.random.default_rng((seed, 1)).standard_normal(count)
    names = tuple(f"network-{seed}-{row}" for row in range(count))
    return Rows.of(names, features, (law or added())(features) * np.exp(errors))


def by_name(rows: Rows) -> dict[str, Floats]:
    """The features of rows, as `apply` takes them."""
    return dict(zip(rows.names, rows.features.T, strict=True))


def matrix(features: Mapping[str, Floats]) -> Floats:
    return np.stack(list(features.values()), axis=1)


def disturbed(rows: Rows, which: slice | Sequence[int], times: float) -> Rows:
    """The rows, some of which took so many times as long."""
    latency_s = rows.latency_s.copy()
    latency_s[which] *= times
    return rows._replace(latency_s=latency_s)


def mape(guesses_s: Floats, truth_s: Floats) -> float:
    return float(np.abs(guesses_s / truth_s - 1).mean())


def fit(rows: Rows) -> PredictorInfo:
    return fit_predictor(rows, ABOUT)


def fit_only(rows: Rows, kind: str = "linear") -> PredictorInfo:
    """The predictor of these rows where no other kind of model competes: faster."""
    return fit_predictor(rows, ABOUT, {kind: KINDS[kind]})
