"""Records in words, for a person who reads a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolchain.cli.output import in_units, in_words, mib, ms, percent, spread, table, typed


def counted(count: int, noun: str) -> str:
    """`1 subnet`, `1,200 subnets`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def on_run(run: Path | None) -> str:
    """The option that keeps the next command on the same run, where one was named."""
    return f" --run {typed(run)}" if run is not None else ""


def profiled_in_words(run: Path, done: Any) -> list[str]:
    """What a profiling call did, and what its table is worth."""
    failed = f", {done.failed} could not be measured" if done.failed else ""
    info = done.info
    lines = [
        f"{run} on {info.target}: {done.measured_now} {info.environment.source} now, "
        f"{done.timed} in all{failed}: {done.folder}"
    ]
    if info.noise_floor is not None:
        lines.append(
            f"noise floor: {100 * info.noise_floor.value:.2f} % between {info.noise_floor.copies} copies of one model "
            "(A/A); smaller differences are ties"
        )
    if done.measured_now and done.elapsed_s:
        lines.append(f"{done.elapsed_s:.0f} s, {percent(done.called_s / done.elapsed_s)} of them inside inferences")
    if done.goal is not None and done.goal.target_error is not None and done.standing is not None:
        lines.append(goal_in_words(done.goal, done.standing))
    return lines + (error_in_words(done.predictor) if done.predictor is not None else [])


def goal_in_words(goal: Any, standing: Any) -> str:
    target = percent(goal.target_error)
    if standing.mape is None:
        return f"goal of {target} not reached: {standing.rows} latencies are too few to know an error"
    so_far = f"{percent(standing.mape)} ± {percent(standing.doubt)} with {counted(standing.rows, 'subnet')}"
    if standing.meets(goal):
        return f"goal of {target} reached: {so_far}"
    return f"goal of {target} not reached: {so_far}; give it more: --budget, --n, a quieter device"


def of_emulated(costs: Any) -> str:
    """The word that a cost from an emulated device never goes without."""
    emulated = any(cost.source == "emulated" for cost in costs.values())
    return " from emulated timings, which say nothing about a real device" if emulated else ""


def error_in_words(predictor: Any) -> list[str]:
    """How a predictor was made, how wrong it is, and what was wrong with its table."""
    error = predictor.error
    others = ", ".join(f"{name} {percent(mape)}" for name, mape in predictor.compared.items())
    word = f" ({predictor.source})" if predictor.source != "measured" else ""
    of = "" if predictor.quantity.name == "latency_s" else f" of {predictor.quantity.words}"
    lines = [
        f"predictor{of} on {predictor.target}{word}, {predictor.workload.slug}: "
        f"held-out error {percent(error.mape)} (mean), "
        f"{percent(error.worst)} (worst), {percent(error.within_10pct)} within 10 %, "
        f"Kendall tau {error.kendall_tau:.2f}; n={error.n}{_left_out(predictor.findings)}, cross-validated ({others})"
    ]
    if predictor.transfer is not None:
        lean = predictor.transfer
        lines.append(
            f"leaning on {lean.target}: held-out error {percent(lean.alone)} alone, {percent(lean.together)} with it: "
            + ("used" if lean.used else "refused, it might hurt")
        )
    return lines + findings_in_words(predictor.findings)


def _left_out(findings: Any) -> str:
    rows = sum(one.last - one.first + 1 for one in findings if one.kind == "outlier-block" and one.done == "left out")
    return f" ({counted(rows, 'row')} of outlier blocks left out, here too)" if rows else ""


_MOST_FINDINGS = 8


def findings_in_words(findings: Any) -> list[str]:
    """What is wrong with a table's rows, counted from 0 in the order they were measured."""
    singles = [one for one in findings if one.kind == "outlier"]
    others = [one for one in findings if one.kind != "outlier"]
    lines = [_finding(one) for one in others[:_MOST_FINDINGS]]
    if len(others) > _MOST_FINDINGS:
        lines.append(f"and {len(others) - _MOST_FINDINGS} more stretches of rows")
    if singles:
        worst = max(singles, key=lambda one: abs(one.ratio - 1))
        rows = ", ".join(str(one.first) for one in singles[:_MOST_FINDINGS])
        more = ", ..." if len(singles) > _MOST_FINDINGS else ""
        lines.append(
            f"outliers: {len(singles)} single rows ({rows}{more}), the worst {_off(worst.ratio)}: not fitted, "
            "but counted in the error"
        )
    return lines


def _finding(one: Any) -> str:
    rows = f"rows {one.first} to {one.last}"
    return {
        "outlier-block": f"outlier block: {rows} lie {_off(one.ratio)} from what the others let expect "
        f"(throttled, or other work?): {one.done}",
        "shift": f"shift: {rows} lie {_off(one.ratio)} from the others: {one.done}",
        "drift": f"drift: neighbours err alike (residuals are autocorrelated, about {100 * abs(one.ratio - 1):.1f} %): "
        f"{one.done}",
    }[one.kind]


def _off(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def cost_columns(evaluations: Iterable[Any]) -> dict[str, str]:
    """The costs that any of these subnets has, by their keys, and what a table's head calls them.

    What a device takes comes first, in the order it was asked for; without a device latency is a column of dashes.
    """
    from toolchain.records import metric_of, names_of

    counted = ("size_bytes", "parameters")
    keys = dict.fromkeys(key for one in evaluations for key in one.costs if metric_of(key) not in counted)
    return names_of([*(keys or ("latency_s",)), *counted])


def costs_in_words(costs: Any, columns: Iterable[str] | None = None) -> list[str]:
    """The cells of one subnet: under the keys of `cost_columns`, else its (first) latency, its size and parameters."""
    from toolchain.records import metric_of

    if columns is None:
        latency = next((key for key in costs if metric_of(key) == "latency_s"), "latency_s")
        columns = (latency, "size_bytes", "parameters")
    return [_cell(key, costs[key]) if key in costs else "-" for key in columns]


def _cell(key: str, cost: Any) -> str:
    return in_units(key, cost.value).removesuffix(" parameters") if cost.known else "failed"  # its head says of what


def manifest_in_words(folder: Path, manifest: Any, where: str = "") -> list[str]:
    """What a bundle holds; `where` is the option that names its device, where that is not this machine."""
    from toolchain.records import names_of

    artifact = manifest.artifact
    quality = "not judged: there is no text of its kind" if manifest.quality is None else manifest.quality
    parity = "none to be had" if artifact.parity_max_abs_error is None else f"{artifact.parity_max_abs_error:.1e}"
    if artifact.quantised_max_abs_error is not None:
        parity += f", quantised {artifact.quantised_max_abs_error:.1e}"
    if manifest.device_parity_max_abs_error is not None:
        parity += f", on {manifest.target} {manifest.device_parity_max_abs_error:.1e}"
    lines = [
        f"{folder}",
        f"latency: {_latency_in_words(manifest)}",
        f"quality: {quality}{', of this file run here' if manifest.quality is not None else ''}",
        f"size: {mib(artifact.size_bytes)}, {artifact.parameters:,} parameters; parity: largest difference {parity}",
    ]
    for one in manifest.tried:
        taken = "not measured" if one.latency is None else ms(one.latency.median_s)
        judged = "" if one.quality is None else f", {one.quality}"
        lines.append(f"tried: {one.precision}: {taken}{judged}: {one.why or 'ships'}")
    names = names_of(outcome.budget.key for outcome in manifest.budgets)
    for outcome in manifest.budgets:
        key, verdict = outcome.budget.key, "met" if outcome.met else "MISSED"
        value, limit = in_units(key, outcome.value), in_words(outcome.budget, names)
        lines.append(f"budget: {value} {outcome.source}, limit {limit}: {verdict}")
    return [*lines, f"next: mostool verify {typed(folder)}{where}"]


def _latency_in_words(manifest: Any) -> str:
    latency, environment = manifest.latency, manifest.environment
    if latency is None:
        return "not measured: the machine that built it cannot run it"
    p99 = f"; p99 {ms(latency.p99_s)}" if latency.p99_s is not None else ""
    predicted = f", predicted {ms(manifest.predicted_s)}" if manifest.predicted_s else ""
    return (
        f"{ms(latency.median_s)} {spread(latency.half_width_s, latency.median_s)} "
        f"(p50{p99}; n={latency.n} calls in {latency.rounds} rounds) {environment.source} on {manifest.target}, "
        f"{environment.engine} {environment.engine_version} {manifest.artifact.precision}, "
        f"{counted(manifest.threads, 'thread')}, "
        f"batch {manifest.workload.batch} x {manifest.workload.sequence_length} tokens{predicted}"
    )


def demo_in_words(made: Any, out: Path) -> list[str]:
    from toolchain.pipeline.demo import BUDGET_SHARE

    manifest, result = made.manifest, made.searched.result
    share = f"about {100 * BUDGET_SHARE:.0f} %"
    latency, environment = manifest.latency, manifest.environment
    rows = [
        [name, percent(quality.value), ms(seconds), mib(size_bytes), f"{parameters:,.0f}"]
        for name, quality, seconds, size_bytes, parameters in (
            ("largest", made.largest, made.largest_s, *_size(result.largest)),
            ("winner", manifest.quality, latency.median_s, manifest.artifact.size_bytes, manifest.artifact.parameters),
            ("smallest", made.smallest, made.smallest_s, *_size(result.smallest)),
        )
    ]
    rows.append(["always the same answer", percent(manifest.trivial_quality or 0.0), "-", "-", "-"])
    return [
        "",
        f"Which library does this docstring sentence come from? {len(manifest.labels)} libraries, "
        f"{manifest.quality.n} test sentences that nobody trained or searched on.",
        f"Latency {environment.source} on {manifest.target}: {environment.cpu}, "
        f"{environment.engine} {environment.engine_version}, {counted(manifest.threads, 'thread')}, "
        f"1 x {manifest.workload.sequence_length} tokens, median.",
        "",
        *table(["subnet", "quality", "latency", "size", "parameters"], rows),
        "",
        *(
            f"budget  {in_units(one.budget.key, one.budget.limit)}, {share} of what the largest takes: "
            f"{in_units(one.budget.key, one.value)} {one.source}, {'kept' if one.met else 'MISSED'}"
            for one in manifest.budgets
        ),
        f"winner  predicted {ms(manifest.predicted_s)}, {environment.source} {ms(latency.median_s)} "
        f"{spread(latency.half_width_s, latency.median_s)} (n={latency.n}): {100 * made.prediction_error:.1f} % apart",
        *(f"{'yes' if held else 'NO'}  {name}" for name, held in made.verdicts.items()),
        f"bundle  {made.exported.folder}",
        f"report  {made.report}",
        "go on:",
        *(f"  {line}" for line in (f"cd {typed(out)}", *(f"{program(out)} {name}" for name in _AFTER_DEMO))),
        "PASS" if all(made.verdicts.values()) else "FAIL",
    ]


_AFTER_DEMO = ("profile", "search", "export")


def program(folder: Path) -> str:
    """mostool as it is typed in `folder`: where the shell would not find it, the program that runs now."""
    running = Path(sys.argv[0])
    if shutil.which("mostool"):
        return "mostool"
    if running.name != "mostool":
        return f"{typed(Path(sys.executable))} -m toolchain"
    return typed(running if running.is_absolute() else Path(os.path.relpath(running, folder)))


def _size(evaluation: Any) -> tuple[float, float]:
    return evaluation.costs["size_bytes"].value, evaluation.costs["parameters"].value
