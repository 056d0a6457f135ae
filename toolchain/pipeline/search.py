"""search: the best subnets of a run under budgets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from toolchain import search as searching
from toolchain.errors import UsageError
from toolchain.journal import Journal
from toolchain.pipeline.predict import find_predictor, latency_costs, predict
from toolchain.pipeline.project import Project, write_run_info
from toolchain.pipeline.runs import Run
from toolchain.progress import ProgressListener, silent
from toolchain.records import (
    Budget,
    Cost,
    Evaluation,
    PredictorInfo,
    Quality,
    Record,
    SearchResult,
    Workload,
    now,
    write_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import declaration

_BYTES_PER_PARAMETER = 4


_USABLE_MAPE = 0.15
_USABLE_TAU = 0.8
"""A predictor that is worse than either on rows it has not seen is no ground for a choice."""


class Searched(NamedTuple):
    """A search's result, and what the user should know about it."""

    result: SearchResult
    warnings: list[str]


class KnownQuality(Record, frozen=True):
    """A quality evaluation that was paid for: never paid twice for one checkpoint."""

    checkpoint_sha256: str
    architecture: Architecture
    quality: Quality


def search(
    project: Project,
    run: Run,
    device: str | None,
    budgets: Sequence[Budget],
    *,
    searcher: str,
    evaluations: int,
    seed: int,
    workload: Workload | None = None,
    listener: ProgressListener = silent,
) -> Searched:
    """Search the run's space; the result is kept in the run's folder and is what export builds next.

    Quality comes from the supernet on validation data, latency from the predictor of the device's table, at the upper
    end of its interval. Without budgets the limit is half-way between the fastest and the slowest subnet.

    Raises:
        InfeasibleError: no subnet keeps the budgets.
        UsageError: a latency budget without a latency table.
    """
    started_at, space = now(), run.info.space
    if space.point is not None:
        raise UsageError(
            f"{run.folder} holds one subnet, there is nothing to search",
            hint="ship it with mostool export, or name a supernet's run with --run",
        )
    predictor, predictor_sha256 = _predictor(project, space, device, workload, budgets)
    target = predictor.target if predictor else None
    costs = _costs(run, predictor)
    budgets = [
        msgspec.structs.replace(budget, target=target, workload=predictor.workload)
        if predictor and budget.metric == "latency_s"
        else budget
        for budget in budgets
    ]
    warnings = _doubts(predictor) if predictor else []
    front_metric = "latency_s" if predictor else (budgets[0].metric if budgets else "parameters")
    if not budgets:
        budgets = [_halfway(space, costs, front_metric, predictor)]
        limit = searching.spell(front_metric, budgets[0].limit)
        warnings.append(
            f"no budget given: searched under {limit}, half-way between the smallest and the largest subnet"
        )
    rng = np.random.default_rng(seed)
    with Journal(run.search_folder / "quality.jsonl", KnownQuality) as journal:
        quality = _remembered_quality(run, journal)
        found = searching.search(
            space,
            searching.build_searcher(searcher, space, rng),
            budgets,
            costs,
            quality,
            front_metric=front_metric,
            evaluations=evaluations,
            rng=rng,
            listener=listener,
        )
        extremes = [_evaluation(one, quality, costs, budgets) for one in (space.smallest(), space.largest())]
        warnings.extend(journal.repairs)
    if len(found.evaluations) < evaluations:
        warnings.append(f"the search ended after {len(found.evaluations)} subnets: nothing new that fits was found")
    if predictor and predict(predictor, [found.winner.architecture])[0].extrapolated:
        warnings.append(
            f"the winner's latency is extrapolated: it is far from all that was measured on {predictor.target}; "
            "profile it with --arch, then search again"
        )
    result = SearchResult(
        space=space,
        searcher=searcher,
        seed=seed,
        budgets=tuple(budgets),
        winner=found.winner,
        smallest=extremes[0],
        largest=extremes[1],
        evaluations=tuple(found.evaluations),
        front=tuple(found.front),
        checkpoint_sha256=run.checkpoint_sha256,
        target=target,
        workload=predictor.workload if predictor else None,
        predictor_sha256=predictor_sha256,
        created_at=now(),
    )
    write_record(run.search_folder / "result.json", result)
    arguments = {"searcher": searcher, "evaluations": evaluations, "seed": seed, "device": target, "budgets": budgets}
    outputs = (run.search_folder / "result.json",)
    write_run_info(run.search_folder / "run.json", "search", arguments, started_at, outputs=outputs)
    return Searched(result, warnings)


def _predictor(
    project: Project, space: SearchSpace, device: str | None, workload: Workload | None, budgets: Sequence[Budget]
) -> tuple[PredictorInfo | None, str | None]:
    """The predictor to search with; none where there is no table yet and nothing asks for one."""
    needed = device is not None or workload is not None or any(budget.metric == "latency_s" for budget in budgets)
    found = find_predictor(project, space, device, workload, needed=needed)
    if found is None and needed:
        on = f"{device or 'any device'}{f', {workload.slug}' if workload else ''}"
        raise UsageError(
            f"there is no latency table of this run's space on {on}",
            hint=f"measure some subnets first: mostool profile --device {device or 'cpu'}",
        )
    return found or (None, None)


def _costs(run: Run, predictor: PredictorInfo | None) -> searching.Costs:
    """What architectures cost in every metric there is an answer for."""
    space, family = run.info.space, declaration(run.info.space.family)
    overhead = _file_overhead_bytes(run)

    def costs(architectures: Sequence[Architecture]) -> list[dict[str, Cost]]:
        latencies = latency_costs(predictor, architectures) if predictor else []
        priced = []
        for number, architecture in enumerate(architectures):
            parameters = family.parameters(space, architecture)
            size = _BYTES_PER_PARAMETER * parameters + overhead(architecture)
            cost = {
                "parameters": Cost(value=parameters, upper=parameters, source="counted"),
                "size_bytes": Cost(value=size, upper=size, source="predicted"),
            }
            priced.append(cost | ({"latency_s": latencies[number]} if predictor else {}))
        return priced

    return costs


def _file_overhead_bytes(run: Run) -> Callable[[Architecture], float]:
    """What a model file holds beside its weights: the most seen per layer, on the smallest and the largest subnet."""
    space = run.info.space
    per_layer = 0.0
    if not run.exports:
        return lambda _: 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for architecture in (space.smallest(), space.largest()):
            artifact = run.build(architecture, Path(scratch) / "model.onnx", {}).artifact
            extra = artifact.size_bytes - _BYTES_PER_PARAMETER * artifact.parameters
            per_layer = max(per_layer, extra / _layers(architecture))
    return lambda architecture: per_layer * _layers(architecture)


def _layers(architecture: Architecture) -> int:
    return sum(len(value) for value in architecture.axes.values() if isinstance(value, tuple)) or 1


def _halfway(space: SearchSpace, costs: searching.Costs, metric: str, predictor: PredictorInfo | None) -> Budget:
    small, large = costs([space.smallest(), space.largest()])
    limit = (small[metric].upper + large[metric].upper) / 2
    if predictor is None:
        return Budget(metric="parameters", limit=limit)
    return Budget(metric="latency_s", limit=limit, target=predictor.target, workload=predictor.workload)


def _evaluation(
    architecture: Architecture, quality: searching.QualityOf, costs: searching.Costs, budgets: Sequence[Budget]
) -> Evaluation:
    cost = costs([architecture])[0]
    feasible = searching.violation(cost, budgets) == 0
    return Evaluation(architecture=architecture, quality=quality(architecture), costs=cost, feasible=feasible)


def _remembered_quality(run: Run, journal: Journal[KnownQuality]) -> searching.QualityOf:
    """Quality from the supernet on validation data; each answer is journalled, so a killed search loses none."""
    checkpoint = run.checkpoint_sha256
    known = {one.architecture.id: one.quality for one in journal.records if one.checkpoint_sha256 == checkpoint}
    batches = run.batches("validation", whole=False)

    def quality(architecture: Architecture) -> Quality:
        if architecture.id not in known:
            measured = run.quality_on(run.supernet_predict(architecture), batches, "validation")
            journal.append(KnownQuality(checkpoint_sha256=checkpoint, architecture=architecture, quality=measured))
            known[architecture.id] = measured
        return known[architecture.id]

    return quality


def _doubts(predictor: PredictorInfo) -> list[str]:
    """What a predictor's own error says against searching with it."""
    error, doubts = predictor.error, []
    if predictor.source == "imported":
        doubts.append(f"the latencies of {predictor.target} are imported: nobody here has measured them")
    if error.mape <= _USABLE_MAPE and error.kendall_tau >= _USABLE_TAU:
        return doubts
    doubts.append(
        f"the predictor of {predictor.target} is {100 * error.mape:.0f} % wrong in the mean and ranks subnets with "
        f"Kendall tau {error.kendall_tau:.2f}: its latencies are guesses; profile more subnets, on a quieter device"
    )
    return doubts
