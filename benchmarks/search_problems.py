"""The problems that searchers are compared on: where latency and quality of every architecture are known without cost.

- `synthetic-N`: DyNAS-T's space for BERT (25 genes, 6e13 genomes; a missing layer's genes say nothing, so 1e13
  architectures) with an invented device and an invented supernet, whose layers matter differently from one N to the
  next. Noise-free. Checks code; proves no claim.
- `enumerable-N`: the same cut down to 7,371 architectures.
- `recorded-NAME`: a supernet that was trained, all of whose subnets were evaluated once (recorded/README.md).

Needs numpy and mostool's spaces alone, so that a peer can read it from an environment of its own.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from toolchain.arrays import AxisArrays, Floats, draw_arrays, present_layers, to_arrays
from toolchain.space import Architecture, Axis, SearchSpace

RECORDED = Path(__file__).parent / "recorded"
INSTANCES = 3

LAYERS = 12
BERT = SearchSpace(
    name="bert-base",
    family="bert",
    axes=(
        Axis("depth", tuple(range(6, LAYERS + 1))),
        Axis("heads", (6, 8, 10, 12), per="depth"),
        Axis("ffn", (1024, 2048, 3072), per="depth"),
    ),
)
"""What DyNAS-T searches under the name `bert_base_sst2`."""

ENUMERABLE = msgspec.structs.replace(
    BERT,
    name="bert-enumerable",
    axes=(
        Axis("depth", (2, 3, 4)),
        Axis("heads", (6, 8, 12), per="depth"),
        Axis("ffn", (1024, 2048, 3072), per="depth"),
    ),
)

EMBEDDING_S, LAYER_S, HEADS_S, FFN_S = 1.2e-3, 0.12e-3, 0.32e-3, 0.56e-3
"""The invented device: seconds for the embedding and the head, and for a layer, all its heads, its whole perceptron."""
LAYER_WORTH, HEADS_WORTH, FFN_WORTH = 0.1, 0.45, 0.45
"""The invented supernet: how much of a layer's worth is its being there, its heads, its perceptron."""
UNEVENNESS, SATURATION = 0.6, 3.0
BEST_ACCURACY, CHANCE = 0.93, 0.5
MOST_FRONT = 20_000


@dataclass(frozen=True)
class Corners:
    """The ideal and the nadir point of the true front: the best and the worst that a point of it has."""

    least_s: float
    most_s: float
    least_quality: float
    most_quality: float


@dataclass(frozen=True)
class Benched:
    """A problem whose answers are known: `latency` in seconds and `quality` (more is better), [n] of n architectures.

    `front` is the hypervolume of the true front, normalised as all are: see `hypervolume`.
    """

    name: str
    space: SearchSpace
    latency: Callable[[AxisArrays], Floats]
    quality: Callable[[AxisArrays], Floats]
    corners: Corners
    front: float

    @property
    def fingerprint(self) -> str:
        """The short name of what a trace of a searcher depends on: the space, and what its architectures are worth."""
        drawn = draw_arrays(self.space, 256, np.random.default_rng(0))
        known = np.round([self.latency(drawn) / self.corners.most_s, self.quality(drawn)], 9)
        return hashlib.sha256(self.space.digest.encode() + known.tobytes()).hexdigest()[:12]

    def judge(self, architectures: list[Architecture]) -> tuple[Floats, Floats]:
        """Latency and quality of each: [n], [n]."""
        arrays = to_arrays(self.space, architectures)
        return self.latency(arrays), self.quality(arrays)

    def hypervolume(self, latency_s: Floats, quality: Floats) -> float:
        """The share of the rectangle between the true front's ideal and nadir that these points dominate."""
        return hypervolume(latency_s, quality, self.corners)


def hypervolume(latency_s: Floats, quality: Floats, corners: Corners) -> float:
    """Of points [n] in (cost, 1 - quality), both scaled by the corners to [0, 1], with the reference point (1, 1)."""
    cost = (latency_s - corners.least_s) / (corners.most_s - corners.least_s)
    loss = (corners.most_quality - quality) / (corners.most_quality - corners.least_quality)
    order = np.argsort(cost)
    cost, loss = cost[order], np.minimum.accumulate(loss[order])
    inside = cost < 1
    cost, loss = cost[inside], loss[inside]
    width = np.diff(np.append(cost, 1.0))
    return float(np.sum(width * np.clip(1 - loss, 0, None)))


def front_of(latency_s: Floats, quality: Floats) -> npt.NDArray[np.intp]:
    """The rows that no other row beats in both, fastest first."""
    order = np.lexsort((-quality, latency_s))
    best_before = np.maximum.accumulate(np.append(-np.inf, quality[order][:-1]))
    rows: npt.NDArray[np.intp] = order[quality[order] > best_before]
    return rows


@functools.cache
def load_problem(name: str) -> Benched:
    """The problem of this name: `synthetic-0`, `recorded-small`."""
    kind, _, which = name.partition("-")
    if kind == "recorded":
        return _recorded(which)
    return _synthetic(name, {"synthetic": BERT, "enumerable": ENUMERABLE}[kind], int(which))


def names_of(kind: str) -> list[str]:
    """All problems of a kind."""
    if kind == "recorded":
        return sorted(f"recorded-{path.stem}" for path in RECORDED.glob("*.npz"))
    return [f"{kind}-{instance}" for instance in range(INSTANCES)]


# -- invented -------------------------------------------------------------------------------------------------------


def _synthetic(name: str, space: SearchSpace, instance: int) -> Benched:
    """Additive latency; accuracy that saturates in the sum of what layers, their heads and perceptrons are worth."""
    layers = space.axis("depth").choices[-1]
    rng = np.random.default_rng(instance)
    drawn = rng.lognormal(0.0, UNEVENNESS, (3, layers))
    layer, heads, ffn = drawn / drawn.mean(1, keepdims=True) * [[LAYER_WORTH], [HEADS_WORTH], [FFN_WORTH]] / layers

    def latency(arrays: AxisArrays) -> Floats:
        layer_s = HEADS_S * arrays["heads"] / 12 + FFN_S * arrays["ffn"] / 3072
        return EMBEDDING_S + LAYER_S * arrays["depth"] + layer_s.sum(1)

    def accuracy(worth: Floats) -> Floats:
        return BEST_ACCURACY - (BEST_ACCURACY - CHANCE) * np.exp(-SATURATION * worth)

    def quality(arrays: AxisArrays) -> Floats:
        present = present_layers(arrays["depth"], layers)
        worth = layer * present + heads * np.sqrt(arrays["heads"] / 12) + ffn * np.sqrt(arrays["ffn"] / 3072)
        return accuracy(worth.sum(1))

    def true_front() -> tuple[Floats, Floats]:
        """Layer by layer: of sums, only what no other sum beats can be part of a front. Thinned where long."""
        choices = np.array([(h / 12, f / 3072) for h in space.axis("heads").choices for f in space.axis("ffn").choices])
        choice_s = LAYER_S + choices @ [HEADS_S, FFN_S]
        total_s, worth = np.full(1, EMBEDDING_S), np.zeros(1)
        ends: list[tuple[Floats, Floats]] = []
        for n in range(layers):
            choice_worth = layer[n] + np.sqrt(choices) @ [heads[n], ffn[n]]
            total_s, worth = np.add.outer(total_s, choice_s).ravel(), np.add.outer(worth, choice_worth).ravel()
            kept = front_of(total_s, worth)
            kept = kept[:: max(1, len(kept) // MOST_FRONT)]
            total_s, worth = total_s[kept], worth[kept]
            if n + 1 >= space.axis("depth").choices[0]:
                ends.append((total_s, worth))
        return np.concatenate([s for s, _ in ends]), accuracy(np.concatenate([worth for _, worth in ends]))

    arrays = to_arrays(space, [space.smallest(), space.largest()])
    # Both are on the front: none is faster than the smallest, none is better than the largest.
    corners = Corners(*latency(arrays).tolist(), *quality(arrays).tolist())
    return Benched(name, space, latency, quality, corners, hypervolume(*true_front(), corners))


# -- recorded -------------------------------------------------------------------------------------------------------


def _recorded(which: str) -> Benched:
    """A supernet's evaluations, looked up; the header of the file says what was evaluated, where and when."""
    with np.load(RECORDED / f"{which}.npz") as stored:
        space = msgspec.json.decode(str(stored["space"]), type=SearchSpace)
        value, latency_s = (stored[name].astype(np.float64) for name in ("value", "latency_s"))
    if not len(value) == len(latency_s) == space.size():
        raise ValueError(f"{which}.npz holds {len(value)} evaluations of a space of {space.size()}")

    def looked_up(values: Floats) -> Callable[[AxisArrays], Floats]:
        return lambda arrays: values[positions(space, arrays)]

    front = front_of(latency_s, value)
    fastest, best = front[0], front[-1]
    corners = Corners(*map(float, (latency_s[fastest], latency_s[best], value[fastest], value[best])))
    whole = hypervolume(latency_s, value, corners)
    return Benched(f"recorded-{which}", space, looked_up(latency_s), looked_up(value), corners, whole)


def positions(space: SearchSpace, arrays: AxisArrays) -> npt.NDArray[np.intp]:
    """[n]: where each architecture comes in `space.enumerate()`, of a space with at most one depth axis."""
    depth_axis = next((space.axis(axis.per) for axis in space.axes if axis.per), None)
    within = np.zeros(len(arrays[space.axes[0].name]), dtype=np.intp)
    for axis in space.axes:
        if axis is depth_axis:
            continue
        values = arrays[axis.name].reshape(len(within), -1)
        for entry in values.T:
            digit = np.searchsorted(axis.choices, entry)
            within = np.where(entry > 0, within * len(axis.choices) + digit, within)
    if depth_axis is None:
        return within
    sizes = [msgspec.structs.replace(space, axes=_at_depth(space, depth_axis, n)).size() for n in depth_axis.choices]
    first = np.append(0, np.cumsum(sizes)[:-1])
    found: npt.NDArray[np.intp] = first[np.searchsorted(depth_axis.choices, arrays[depth_axis.name])] + within
    return found


def _at_depth(space: SearchSpace, depth_axis: Axis, depth: int) -> tuple[Axis, ...]:
    fixed = msgspec.structs.replace(depth_axis, choices=(depth,))
    return tuple(fixed if axis is depth_axis else axis for axis in space.axes)
