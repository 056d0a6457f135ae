"""What an export hands back: the bundle, each budget beside what the file takes, and what the user should know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import IntegrityError, UsageError
from toolchain.export import read_manifest
from toolchain.pipeline.measured import Measured
from toolchain.pipeline.subjects import Foreseen
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
    """The bundle that was built, and what the user should know about it.

    Attributes:
        replaced: what the bundle that stood in `folder` was made of; None where nothing stood there.
        foreseen: what was known of the subnet's latency before; None of what is no subnet, or without a table.
    """

    folder: Path
    manifest: AnyManifest
    warnings: list[str]
    replaced: str | None = None
    foreseen: Foreseen | None = None


def bundle_in(folder: Path) -> str | None:
    """What stands where a bundle is to go, in words; None: nothing.

    Raises:
        UsageError: something that is no bundle.
    """
    if not folder.exists():
        return None
    if not (folder / "manifest.json").is_file():
        raise UsageError(f"{folder} is there and is not a bundle", hint="choose another place with --out")
    try:
        manifest = read_manifest(folder)
    except IntegrityError:  # an export writes its own in that place, whatever this one says
        return "a bundle that cannot be read"
    made = f"{manifest.artifact.precision} of {manifest.created_at:%Y-%m-%d %H:%M}"
    if manifest.latency is not None and manifest.environment is not None:
        made += f", {1e3 * manifest.latency.median_s:.3f} ms {manifest.environment.source} on {manifest.target}"
    judged = ", ".join(spelled(one.budget.key, one.budget.limit) for one in manifest.budgets)
    return f"{made}, judged by a budget of {judged}" if judged else made


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
    upper_s = manifest.latency.median_s + manifest.latency.half_width_s
    warnings += [
        f"the latency's interval reaches over its budget: {1e3 * upper_s:.3f} ms, limit {1e3 * one.budget.limit:.3f} ms"
        for one in manifest.budgets
        if one.budget.metric == "latency_s" and one.budget.percentile == 50 and one.met and upper_s > one.budget.limit
    ]
    if manifest.latency.status:
        warnings.append(f"the latency is in doubt: {', '.join(manifest.latency.status)}")
    return warnings


def doubts_of_foresight(manifest: AnyManifest, foreseen: Foreseen | None) -> list[str]:
    """Where the file takes far less or more than was known before: than the table holds, else than was predicted.

    A prediction stands in the manifest only where the file is of the precision and format that the table has.
    """
    if manifest.latency is None or not manifest.predicted_s or foreseen is None:
        return []
    latency_s = manifest.latency.median_s
    known_s = manifest.predicted_s if foreseen.table_s is None else foreseen.table_s
    if 1 / _FAR_OFF < known_s / latency_s < _FAR_OFF:
        return []
    takes = f"it takes {1e3 * latency_s:.3f} ms"
    if foreseen.table_s is not None:
        took = f"{takes} and took {1e3 * known_s:.3f} ms, {foreseen.source}, when the table was filled"
        return [f"{took}: the device was busier, or slower, at one of the two; export again, or profile with --fresh"]
    error = f" (its held-out error is {100 * foreseen.mape:.1f} %)" if foreseen.mape is not None else ""
    return [
        f"{takes} and was predicted to take {1e3 * known_s:.3f} ms: the predictor is that wrong for this subnet{error}"
    ]


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
