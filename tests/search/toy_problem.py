"""A search problem whose answers are known: every entry of an architecture has a worth and a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from toolchain.progress import silent
from toolchain.records import Budget, Cost, Quality
from toolchain.search import Found, build_searcher, search
from toolchain.space import Architecture, Axis, SearchSpace

SPACE = SearchSpace(
    "made",
    "bert",
    (Axis("depth", (4, 5, 6)), Axis("hidden", (1, 2, 3, 4, 5, 6), per="depth"), Axis("ffn", (1, 2, 3, 4), per="depth")),
)
SMALL = SearchSpace("small", "bert", (Axis("depth", (1, 2)), Axis("hidden", (1, 2, 3), per="depth")))
MEDIUM = SearchSpace("medium", "bert", (Axis("depth", (2, 4)), Axis("hidden", (1, 2, 3, 4), per="depth")))


class Problem:
    """Prices rise with every entry; worth is drawn for each entry, so what is dear need not be good."""

    def __init__(self, space: SearchSpace = SPACE, seed: int = 0, doubt: float = 0.1, levels: int = 0) -> None:
        self.space, self.doubt, self.levels = space, doubt, levels
        rng = np.random.default_rng(seed)
        entries = [
            (axis.name, layer, choice)
            for axis in space.axes
            for layer in range(space.axis("depth").choices[-1])
            for choice in axis.choices
        ]
        self.worth = {entry: float(rng.random()) for entry in entries}
        self.rate = {axis.name: float(rng.uniform(0.5, 2)) for axis in space.axes}
        self.looked_at: Counter[str] = Counter()
        self.priced: Counter[str] = Counter()

    def _entries(self, one: Architecture) -> list[tuple[str, int, int]]:
        return [
            (name, layer, choice)
            for name, value in one.axes.items()
            for layer, choice in enumerate(value if isinstance(value, tuple) else (value,))
        ]

    def cost(self, one: Architecture) -> dict[str, Cost]:
        value = 1e-3 * sum(self.rate[name] * choice for name, _, choice in self._entries(one))
        parameters = float(sum(choice**2 for _, _, choice in self._entries(one)))
        return {
            "latency_s": Cost(value=value, upper=value * (1 + self.doubt), source="predicted"),
            "parameters": Cost(value=parameters, upper=parameters, source="counted"),
        }

    def costs(self, architectures: Sequence[Architecture]) -> list[dict[str, Cost]]:
        self.priced.update(one.id for one in architectures)
        return [self.cost(one) for one in architectures]

    def figure(self, one: Architecture) -> float:
        worth = float(np.mean([self.worth[entry] for entry in self._entries(one)]))
        return round(worth * self.levels) / self.levels if self.levels else worth

    def quality(self, one: Architecture) -> Quality:
        self.looked_at[one.id] += 1
        loss = float(np.random.default_rng(int(one.id, 16)).random())
        return Quality(metric="accuracy", value=self.figure(one), loss=loss, n=100, split="validation")

    def search(
        self, budgets: Sequence[Budget], *, evaluations: int = 40, seed: int = 0, searcher: str = "evolution"
    ) -> Found:
        rng = np.random.default_rng(seed)
        return search(
            self.space,
            build_searcher(searcher, self.space, rng),
            budgets,
            self.costs,
            self.quality,
            front_metric="latency_s",
            evaluations=evaluations,
            rng=rng,
            listener=silent,
        )

    def budget(self, share: float, metric: str = "latency_s") -> Budget:
        """The limit that lies at this share of the way from the cheapest subnet's upper bound to the dearest's."""
        least, most = (self.cost(one)[metric].upper for one in (self.space.smallest(), self.space.largest()))
        return Budget(metric=metric, limit=least + share * (most - least), target="made")  # type: ignore[arg-type]
