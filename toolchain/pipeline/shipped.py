"""What an export hands back: the bundle, each budget beside what the file takes, and what the user should know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain.pipeline.measured import Measured
from toolchain.records import (
    DEVICE_METRICS,
    AnyManifest,
    Budget,
    BudgetOutcome,
    Environment,
    ModelFile,
    Source,
    Workload,
    names_of,
    spelled,
)
from toolchain.targets import Target

_FAR_OFF = 1.25
"""A prediction off by such a factor is told."""


class Exported(NamedTuple):
    """The bundle that was built, and what the user should know about it."""

    folder: Path
    manifest: AnyManifest
    warnings: list[str]


def outcome_of(
    budget: Budget, artifact: ModelFile, measured: Measured | None, environment: Environment
) -> BudgetOutcome | None:
    """A budget beside what the file takes; None where that was not measured."""
    known: dict[str, float | None] = {"size_bytes": artifact.size_bytes, "parameters": artifact.parameters}
    if measured is not None:
        latency = measured.latency
        known["latency_s"] = {50: latency.median_s, 90: latency.p90_s, 99: latency.p99_s}[budget.percentile]
        known |= {"peak_memory_bytes": measured.peak_memory_bytes, "energy_j": measured.energy_j}
    value = known.get(budget.metric)
    if value is None or (budget.metric == "energy_j" and value <= 0):  # less than the sensor can tell
        return None
    source: Source = environment.source if budget.metric in DEVICE_METRICS else "counted"
    return BudgetOutcome(budget=budget, value=float(value), source=source, met=value <= budget.limit)


def warnings_of(manifest: AnyManifest, budgets: Sequence[Budget], target: Target, workload: Workload) -> list[str]:
    """What is missed, in doubt, or could not be judged."""
    judged = [outcome.budget for outcome in manifest.budgets]
    unjudged = [budget for budget in budgets if budget not in judged]
    return [*_warnings(manifest), *_not_judged(unjudged, target, workload)]


def _warnings(manifest: AnyManifest) -> list[str]:
    names = names_of(one.budget.key for one in manifest.budgets)
    warnings = [
        f"the budget on {names[key]} is missed: {spelled(key, one.value)}, limit {spelled(key, one.budget.limit)}"
        for one in manifest.budgets
        for key in [one.budget.key]
        if not one.met
    ]
    trivial = manifest.trivial_quality
    if trivial is not None and manifest.quality is not None and manifest.quality.value <= trivial:
        warnings.append(
            f"it is no better than always giving the most frequent answer ({100 * trivial:.1f} %): "
            "train longer, or on more data"
        )
    if manifest.quality is None and manifest.artifact.quantised_max_abs_error is not None:
        warnings.append("nobody has judged its quality, and its weights were rounded: compare it on your own text")
    if manifest.latency is None:
        return [*warnings, "it was not measured: the machine that built it cannot run it"]
    latency_s = manifest.latency.median_s
    if manifest.predicted_s and not 1 / _FAR_OFF < manifest.predicted_s / latency_s < _FAR_OFF:
        warnings.append(
            f"it was predicted to take {1e3 * manifest.predicted_s:.3f} ms and takes {1e3 * latency_s:.3f} ms: "
            "the predictor does not know this device; profile more subnets"
        )
    upper_s = latency_s + manifest.latency.half_width_s
    warnings += [
        f"the latency's interval reaches over its budget: {1e3 * upper_s:.3f} ms, limit {1e3 * one.budget.limit:.3f} ms"
        for one in manifest.budgets
        if one.budget.metric == "latency_s" and one.budget.percentile == 50 and one.met and upper_s > one.budget.limit
    ]
    if manifest.latency.status:
        warnings.append(f"the latency is in doubt: {', '.join(manifest.latency.status)}")
    return warnings


_UNMEASURED = {
    "latency_s": "the measurement has too few undisturbed calls",
    "peak_memory_bytes": "nothing tells what a process takes",
    "energy_j": "nothing was metered (no sensor, or its measure.energy_s is 0)",
}


def _not_judged(budgets: Sequence[Budget], target: Target, workload: Workload) -> list[str]:
    """A limit for one device and shape of work says nothing about another; what was not measured is not judged."""
    names = {budget: names_of([budget.key])[budget.key] for budget in budgets}
    return [
        f"the {names[budget]} budget for {budget.target} is not judged: this is {target.id}, {workload.slug}"
        if budget.target not in (None, target.id) or budget.workload not in (None, workload)
        else f"the {names[budget]} budget is not judged: on {target.id} {_UNMEASURED[budget.metric]}"
        for budget in budgets
    ]
