"""--dry-run in words: what profile, search, export and finetune would do."""

from __future__ import annotations

from typing import Any

from toolchain.cli.output import axes_in_words, in_words, mib, ms, percent
from toolchain.cli.words import counted

NOTHING = "nothing was started"
_SECONDS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """`3.2 min`, in the largest unit of which there is at least one."""
    for unit_s, unit in _SECONDS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"


def estimate_in_words(found: Any, training: Any) -> list[str]:
    """What a training would take."""
    return [
        f"parameters: {found.shared_parameters:,} shared; largest subnet {found.largest_parameters:,}, smallest "
        f"{found.smallest_parameters:,} (counted, vocabulary of {training.vocabulary_size:,})",
        f"subnets: {found.subnets:,}",
        f"memory: {mib(found.state_bytes)} for weights, gradients and moments (counted), "
        f"{mib(found.activation_bytes)} for what a micro-batch of the largest subnet keeps (estimated)",
        f"tokens: at most {found.tokens_per_update:,} an update, {found.tokens_per_update * training.updates:,} in all",
        f"time: {duration(found.update_s)} an update, {duration(found.update_s * training.updates)} in all on one "
        f"{found.device} (estimated: {_gflop(found.flops_per_update)} an update, a multiplication timed now)",
        NOTHING,
    ]


def _gflop(flops: float) -> str:
    return f"{flops / 1e9:,.0f} GFLOP" if flops >= 1e10 else f"{flops / 1e9:.2g} GFLOP"


def profile_in_words(plan: Any) -> list[str]:
    work = f"batch {plan.workload.batch} x {plan.workload.sequence_length} tokens, {plan.precision}"
    failed = f", {plan.failed} of them without a latency" if plan.failed else ""
    held = f"holds {counted(plan.holds, 'subnet')}{failed}" if plan.holds else "holds nothing yet"
    if plan.moved_aside:
        held = "would be moved aside, and begun anew"
    most = "at most " if plan.goal else ""
    lines = [
        f"device: {plan.target}, {work}",
        f"table: {plan.table} {held}",
        f"to measure: {most}{plan.to_measure} of {counted(plan.planned, 'subnet')}"
        + (", and the noise floor" if plan.noise_test else ""),
    ]
    if plan.to_measure or plan.noise_test:
        lines.append(_time_in_words(plan))
    return lines


def _time_in_words(plan: Any) -> str:
    bounds = (
        f"{duration(plan.least_s)} to {duration(plan.most_s)} inside inferences, by the target's protocol; "
        "building the files comes on top"
    )
    if plan.pace_s is None:
        return f"time: {bounds}"
    taken, pace = duration(plan.pace_s * plan.to_measure), duration(plan.pace_s)
    return f"time: about {taken} once it has started, at {pace} a subnet as this table was filled so far; {bounds}"


def search_in_words(plan: Any) -> list[str]:
    from toolchain.records import names_of

    names = names_of([budget.key for budgets in plan.budget_sets for budget in budgets])
    under = "; or ".join(", ".join(in_words(one, names) for one in budgets) for budgets in plan.budget_sets)
    chosen = " (none was given: half-way between the smallest and the largest subnet)" if plan.chosen else ""
    lines = [
        f"space: {plan.space}, {counted(plan.subnets, 'subnet')}",
        f"budgets: {under}{chosen}",
        f"quality against: {', '.join(names_of(plan.objectives).values())}",
    ]
    lines += [_ground_in_words(one) for one in plan.grounds] or ["latency: unknown, no device was profiled"]
    if plan.finished:
        return [
            *lines,
            f"this search was done before: {counted(plan.evaluated, 'subnet')} evaluated; --fresh searches anew",
        ]
    if plan.evaluated:
        lines.append(f"goes on: {plan.evaluated} of {counted(plan.evaluations, 'subnet')} are evaluated")
    else:
        keep = "keeps" if len(plan.fits) == 1 else "keep"
        lines.append(f"feasible: {', '.join(plan.fits)} {keep} the budgets, predicted or measured")
    measured = f"{plan.remeasure} of the best measured on the device, three times and at the end"
    if not plan.remeasure or not any(one.source != "imported" for one in plan.grounds):
        measured = "nothing measured on a device"
    lines.append(f"evaluations: {plan.evaluations}, {plan.at_once} at a time, by {plan.searcher}; {measured}")
    return lines


def _ground_in_words(one: Any) -> str:
    error = one.error
    return (
        f"predictor of {one.quantity} on {one.target} ({one.source}), {one.workload.slug}: held-out error "
        f"{percent(error.mape)} (mean), {percent(error.worst)} (worst), Kendall tau {error.kendall_tau:.2f}, "
        f"n={error.n}: {one.table}"
    )


def export_in_words(plan: Any) -> list[str]:
    lines = [f"model: {plan.what}, {plan.parameters:,} parameters" if plan.parameters else f"model: {plan.what}"]
    if plan.architecture is not None:
        lines.append(f"architecture: {axes_in_words(plan.architecture.axes)}")
    precision = "the fastest of those the device can run" if plan.precision == "auto" else plan.precision
    work = f", batch {plan.workload.batch} x {plan.workload.sequence_length} tokens" if plan.workload else ""
    lines += [f"file: {plan.format}, {precision}", f"device: {plan.target}{work}"]
    if plan.predicted_s is not None:
        lines.append(f"latency: {ms(plan.predicted_s)} predicted on {plan.target} in the precision it was searched in")
    there = f", in place of {plan.replaced}" if plan.replaced else ", which is not there yet"
    return [*lines, f"bundle: {plan.folder}{there}"]
