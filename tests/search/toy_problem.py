"""A search problem whose answers are known: every entry of an architecture has a worth and a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from toolchain.arrays import AxisArrays, count, to_arrays
from toolchain.progress import ProgressListener, silent
from toolchain.records import Budget, Cost, Evaluation, Quality
from toolchain.search import (
    Found,
    Measuring,
    Priced,
    Problem,
    Scale,
    Search,
    Searcher,
    Step,
    Wanted,
    build_searcher,
    fitting,
)
from toolchain.space import Architecture, Axis, SearchSpace

SPACE = SearchSpace(
    "made",
    "bert",
    (Axis("depth", (4, 5, 6)), Axis("hidden", (1, 2, 3, 4, 5, 6), per="depth"), Axis("ffn", (1, 2, 3, 4), per="depth")),
)
SMALL = SearchSpace("small", "bert", (Axis("depth", (1, 2)), Axis("hidden", (1, 2, 3), per="depth")))
MEDIUM = SearchSpace("medium", "bert", (Axis("depth", (2, 4)), Axis("hidden", (1, 2, 3, 4), per="depth")))
LATENCY = "latency_s@made"


class Judged(NamedTuple):
    quality: Quality
    stopped: bool = False


class ToyProblem:
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
        self.priced = 0
        self.measured: dict[str, float] = {}
        self.known: list[Architecture] = []

    def _entries(self, one: Architecture) -> list[tuple[str, int, int]]:
        return [
            (name, layer, choice)
            for name, value in one.axes.items()
            for layer, choice in enumerate(value if isinstance(value, tuple) else (value,))
        ]

    def cost(self, one: Architecture) -> dict[str, Cost]:
        priced = self._price(to_arrays(self.space, [one]))
        costs = {
            name: Cost(value=float(value[0]), upper=float(priced.uppers[name][0]), source="predicted")
            for name, value in priced.values.items()
        }
        if one.id in self.measured:
            costs[LATENCY] = Cost(value=self.measured[one.id], upper=self.measured[one.id], source="measured")
        return costs

    def costs(self, architectures: Sequence[Architecture]) -> list[dict[str, Cost]]:
        return [self.cost(one) for one in architectures]

    def price(self, arrays: AxisArrays) -> Priced:
        self.priced += count(arrays)
        return self._price(arrays)

    def _price(self, arrays: AxisArrays) -> Priced:
        latency = 1e-3 * sum(
            self.rate[axis.name] * (arrays[axis.name].sum(axis=1) if axis.per else arrays[axis.name])
            for axis in self.space.axes
        )
        parameters = sum(
            np.square(arrays[axis.name]).sum(axis=1) if axis.per else np.square(arrays[axis.name])
            for axis in self.space.axes
        )
        values = {LATENCY: np.asarray(latency), "parameters": np.asarray(parameters)}
        return Priced(values, values | {LATENCY: values[LATENCY] * (1 + self.doubt)})

    def figure(self, one: Architecture) -> float:
        worth = float(np.mean([self.worth[entry] for entry in self._entries(one)]))
        return round(worth * self.levels) / self.levels if self.levels else worth

    def quality(self, one: Architecture) -> Quality:
        self.looked_at[one.id] += 1
        loss = float(np.random.default_rng(int(one.id, 16)).random())
        return Quality(metric="accuracy", value=self.figure(one), loss=loss, n=100, split="validation")

    def judge(
        self, architectures: Sequence[Architecture], rivals: Sequence[Sequence[Architecture]]
    ) -> Sequence[Judged]:
        assert len(architectures) == len(rivals)
        return [Judged(self.quality(one)) for one in architectures]

    def searcher(self, budgets: Sequence[Budget], searcher: str, seed: int = 0) -> Searcher:
        return build_searcher(searcher, Problem(self.space, self.price, tuple(budgets), (LATENCY,)), seed)

    def begin(
        self,
        *budget_sets: Sequence[Budget],
        evaluations: int = 40,
        seed: int = 0,
        searcher: str = "evolution",
        measuring: Measuring | None = None,
        before: Sequence[Evaluation] = (),
        keep: Callable[[Step], None] = lambda _: None,
        listener: ProgressListener = silent,
    ) -> Search:
        """A search that has not run yet. Raises InfeasibleError where nothing keeps the first set of budgets."""
        small, large = (self.cost(one)[LATENCY].value for one in (self.space.smallest(), self.space.largest()))
        return Search(
            Wanted(
                objectives=(LATENCY,),
                budget_sets=tuple(tuple(budgets) for budgets in budget_sets),
                evaluations=evaluations,
                scale=Scale(np.array([small]), np.array([large]), 0.0, 1.0),
            ),
            self.searcher(budget_sets[0], searcher, seed),
            self.costs,
            self.judge,
            measuring=measuring,
            first=[
                fitting(self.space, budgets, self.price, seed, costs=self.costs, known=self.known)
                for budgets in budget_sets
            ],
            before=before,
            keep=keep,
            listener=listener,
        )

    def search(
        self, budgets: Sequence[Budget], *, evaluations: int = 40, seed: int = 0, searcher: str = "evolution"
    ) -> Found:
        search = self.begin(budgets, evaluations=evaluations, seed=seed, searcher=searcher)
        search.run()
        return search.found

    def budget(self, share: float, metric: str = "latency_s") -> Budget:
        """The limit that lies at this share of the way from the cheapest subnet's upper bound to the dearest's."""
        key = LATENCY if metric == "latency_s" else metric
        least, most = (self.cost(one)[key].upper for one in (self.space.smallest(), self.space.largest()))
        return limit(least + share * (most - least), metric)


def limit(value: float, metric: str = "latency_s") -> Budget:
    return Budget(metric=metric, limit=value, target="made")  # type: ignore[arg-type]
