"""What others' searchers evaluate, in order: `python benchmarks/search_peers.py PEER PROBLEM --seed 0 --out TRACE.csv`.

Runs in an environment of its own, with PYTHONPATH naming mostool's checkout; search_quality.py calls it. The peers:

- `linas` and `dynast-evolution` are DyNAS-T's own `LINAS.search` and `Evolutionary.search` (dynast 1.6.0, through its
  `DyNAS` door, as `bert_base_sst2`, population 50): its encoding, predictors, inner NSGA-II of 20,000 predictions and
  evaluation interface. What asks a network is replaced: the runner (`FunctionRunner`) answers from the problem's
  functions. The choices of its genes are the problem's (on `synthetic-N` they are its own), and LINAS ends with its
  last evaluation. Modules that it imports and a search does not need (torch, transformers, ...) are empty here.
- `pymoo-nsga2-50` and `pymoo-nsga2-20`: NSGA-II of pymoo with integer genes, population 50 and 20.

Every evaluation counts, also when a genome is evaluated again: that is what these searchers spend.
"""
# ruff: noqa: PLC0415  # a peer's modules are there in its own environment alone

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import importlib.abc
import importlib.machinery
import logging
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import search_problems

from toolchain.space import Architecture, SearchSpace, Value

ABSENT = ("PIL", "fairseq", "ofa", "requests", "sacremoses", "torch", "torchprofile", "torchvision", "transformers")
"""What DyNAS-T imports for its own networks and data."""
SUPERNET = "bert_base_sst2"
POPULATION = 50


# -- genes ----------------------------------------------------------------------------------------------------------


def to_architecture(space: SearchSpace, chosen: Mapping[str, Sequence[int]]) -> Architecture:
    """Genes by axis, as many for each layer of the deepest, as an architecture: those of missing layers say nothing."""

    def value(entries: Sequence[int], per: str | None) -> Value:
        return entries[0] if per is None else tuple(entries[: chosen[per][0]])

    return Architecture(space.family, {axis.name: value(chosen[axis.name], axis.per) for axis in space.axes})


def gene_counts(space: SearchSpace) -> dict[str, int]:
    return {axis.name: space.axis(axis.per).choices[-1] if axis.per else 1 for axis in space.axes}


# -- DyNAS-T --------------------------------------------------------------------------------------------------------


class _Empty(type):
    """A class that stands for whatever is looked up in an absent module: to inherit from, call, or decorate with."""

    __file__ = None

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


def _empty(name: str) -> Any:
    def call(self: object, *_arguments: object, **_named: object) -> object:
        return self

    return _Empty(name, (), {"__init__": lambda *_arguments, **_named: None, "__call__": call})


class _EmptyModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


class _EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets `import torch.nn.functional` succeed where there is no torch."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in ABSENT:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def dynast(tactic: str) -> Callable[[search_problems.Benched, int, int], list[Architecture]]:
    def search(problem: search_problems.Benched, evaluations: int, seed: int) -> list[Architecture]:
        """The architectures that DyNAS-T evaluates, in order: the rows of the results that it writes itself."""
        sys.meta_path.append(_EmptyModules())
        import sklearn
        from dynast import DyNAS
        from dynast.search import search_tactic
        from dynast.supernetwork.supernetwork_registry import SUPERNET_PARAMETERS

        genes, architecture_of = _as_bert(problem.space)
        SUPERNET_PARAMETERS[SUPERNET] = genes

        class FunctionRunner(search_tactic.BertSST2Runner):  # type: ignore[misc]
            """Answers from the problem's functions; predictions stay DyNAS-T's."""

            def __init__(self, acc_predictor: Any = None, latency_predictor: Any = None, **_: object) -> None:
                self.acc_predictor, self.latency_predictor = acc_predictor, latency_predictor

            def measure_latency(self, subnet_cfg: dict[str, Any], *_: object) -> tuple[float, float]:
                (latency_s,), _quality = problem.judge([architecture_of(subnet_cfg)])
                return 1e3 * float(latency_s), 0.0

            def validate_accuracy_sst2(self, subnet_cfg: dict[str, Any]) -> float:
                _latency_s, (quality,) = problem.judge([architecture_of(subnet_cfg)])
                return float(quality)

        search_tactic.BertSST2Runner = FunctionRunner
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)  # the same answers, sooner
        metrics = ["latency", "accuracy_sst2"]
        with tempfile.TemporaryDirectory() as scratch:
            results = Path(scratch, "results.csv")
            searcher = DyNAS(
                supernet=SUPERNET,
                search_tactic=tactic,
                optimization_metrics=metrics,
                measurements=metrics,
                num_evals=-(-evaluations // POPULATION) * POPULATION,
                population=POPULATION,
                seed=seed,
                results_path=str(results),
            )
            logging.getLogger().setLevel(logging.WARNING)

            def evaluated() -> list[dict[str, list[int]]]:
                with results.open() as lines:
                    return [ast.literal_eval(row["Sub-network"]) for row in csv.DictReader(lines)]

            if tactic == "linas":
                train = searcher.train_predictors

                def train_unless_done() -> None:
                    """LINAS would search once more after its last evaluations, and return what it predicts."""
                    if len(evaluated()) >= evaluations:
                        raise StopIteration
                    train()

                searcher.train_predictors = train_unless_done
            with contextlib.suppress(StopIteration):
                searcher.search()
            rows = evaluated()
        return [architecture_of({**row, "num_layers": row["num_layers"][0]}) for row in rows[:evaluations]]

    return search


def _as_bert(space: SearchSpace) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Architecture]]:
    """A space with a depth and one or two per-layer axes, under the names that DyNAS-T's BERT encoding knows."""
    counts = gene_counts(space)
    fixed = {axis.name: [axis.choices[0]] * counts[axis.name] for axis in space.axes if len(axis.choices) == 1}
    free = [axis for axis in space.axes if axis.name not in fixed]
    depth_axes = [axis for axis in free if axis.per is None]
    layered = [axis for axis in free if axis.per is not None]
    if len(depth_axes) != 1 or len(layered) != 2:
        raise SystemExit(f"{space.name}: DyNAS-T's BERT encoding holds a depth and two per-layer axes")
    names = dict(zip(("num_layers", "num_attention_heads", "intermediate_size"), depth_axes + layered, strict=True))
    genes = {name: {"count": counts[axis.name], "vars": list(axis.choices)} for name, axis in names.items()}

    def architecture_of(subnet: Mapping[str, Any]) -> Architecture:
        chosen = {axis.name: subnet[name] for name, axis in names.items() if name != "num_layers"}
        return to_architecture(space, {**fixed, **chosen, depth_axes[0].name: [subnet["num_layers"]]})

    return genes, architecture_of


# -- pymoo ----------------------------------------------------------------------------------------------------------


def pymoo(population: int) -> Callable[[search_problems.Benched, int, int], list[Architecture]]:
    def search(problem: search_problems.Benched, evaluations: int, seed: int) -> list[Architecture]:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

        counts = gene_counts(problem.space)
        bounds = np.concatenate([[len(axis.choices) - 1] * counts[axis.name] for axis in problem.space.axes])
        seen: list[Architecture] = []

        class Genes(ElementwiseProblem):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(n_var=len(bounds), n_obj=2, xl=0, xu=bounds, vtype=int)

            def _evaluate(self, x: Any, out: dict[str, Any], *_arguments: object, **_named: object) -> None:
                genes = iter(x)
                chosen = {
                    axis.name: [axis.choices[int(next(genes))] for _ in range(counts[axis.name])]
                    for axis in problem.space.axes
                }
                seen.append(to_architecture(problem.space, chosen))
                (latency_s,), (quality,) = problem.judge(seen[-1:])
                out["F"] = [latency_s, -quality]

        algorithm = NSGA2(
            pop_size=population,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, prob_var=1 / len(bounds), eta=20, vtype=float, repair=RoundingRepair()),
        )
        minimize(Genes(), algorithm, ("n_eval", evaluations), seed=seed)
        return seen[:evaluations]

    return search


PEERS = {
    "linas": dynast("linas"),
    "dynast-evolution": dynast("evolutionary"),
    "pymoo-nsga2-50": pymoo(50),
    "pymoo-nsga2-20": pymoo(20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    problem = search_problems.load_problem(arguments.problem)
    architectures = PEERS[arguments.peer](problem, arguments.evaluations, arguments.seed)
    latency_s, quality = problem.judge(architectures)
    part = arguments.out.with_suffix(".part")
    with part.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("architecture", "latency_s", "quality"))
        rows.writerows(zip((one.id for one in architectures), latency_s.tolist(), quality.tolist(), strict=True))
    part.replace(arguments.out)


if __name__ == "__main__":
    main()
