"""Records in words, for a person who reads a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolchain.cli.output import in_units, mib, ms, percent, spread, table


def on_run(run: Path | None) -> str:
    """The option that keeps the next command on the same run, where one was named."""
    return f" --run {run}" if run is not None else ""


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
    return lines + (error_in_words(done.predictor) if done.predictor is not None else [])


def of_emulated(costs: Any) -> str:
    """The word that a latency from an emulated device never goes without."""
    latency = costs.get("latency_s")
    return (
        " from emulated timings, which say nothing about a real device"
        if latency and latency.source == "emulated"
        else ""
    )


def error_in_words(predictor: Any) -> list[str]:
    error = predictor.error
    emulated = " (emulated)" if predictor.environment.emulator else ""
    return [
        f"predictor on {predictor.target}{emulated}, {predictor.workload.slug}: "
        f"held-out error {percent(error.mape)} (mean), "
        f"{percent(error.worst)} (worst), {percent(error.within_10pct)} within 10 %, "
        f"Kendall tau {error.kendall_tau:.2f}; n={error.n}, cross-validated"
    ]


def costs_in_words(costs: Any) -> list[str]:
    latency = costs.get("latency_s")
    return [ms(latency.value) if latency else "-", mib(costs["size_bytes"].value), f"{costs['parameters'].value:,.0f}"]


def manifest_in_words(folder: Path, manifest: Any, where: str = "") -> list[str]:
    """What a bundle holds; `where` is the option that names its device, where that is not this machine."""
    latency, environment = manifest.latency, manifest.environment
    p99 = f"; p99 {ms(latency.p99_s)}" if latency.p99_s is not None else ""
    predicted = f", predicted {ms(manifest.predicted_s)}" if manifest.predicted_s else ""
    lines = [
        f"{folder}",
        f"latency: {ms(latency.median_s)} {spread(latency.half_width_s, latency.median_s)} "
        f"(p50{p99}; n={latency.n} calls in {latency.rounds} rounds) {environment.source} on {manifest.target}, "
        f"{environment.engine} {environment.engine_version} {manifest.artifact.precision}, "
        f"{manifest.threads} thread(s), batch {manifest.workload.batch} x {manifest.workload.sequence_length} tokens"
        f"{predicted}",
        f"quality: {manifest.quality}, of this file run here",
        f"size: {mib(manifest.artifact.size_bytes)}, {manifest.artifact.parameters:,} parameters; "
        f"parity: largest difference {manifest.artifact.parity_max_abs_error:.1e}"
        + (
            f", on {manifest.target} {manifest.device_parity_max_abs_error:.1e}"
            if manifest.device_parity_max_abs_error is not None
            else ""
        ),
    ]
    for outcome in manifest.budgets:
        metric, verdict = outcome.budget.metric, "met" if outcome.met else "MISSED"
        value, limit = in_units(metric, outcome.value), in_units(metric, outcome.budget.limit)
        lines.append(f"budget: {value} {outcome.source}, limit {limit}: {verdict}")
    return [*lines, f"next: mostool verify {folder}{where}"]


def demo_in_words(made: Any, out: Path) -> list[str]:
    manifest, result = made.exported.manifest, made.searched.result
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
        f"Latency measured on {manifest.target}: {environment.cpu}, {environment.engine} {environment.engine_version}, "
        f"{manifest.threads} thread, 1 x {manifest.workload.sequence_length} tokens, median.",
        "",
        *table(["subnet", "quality", "latency", "size", "parameters"], rows),
        "",
        *(
            f"budget  {in_units(one.budget.metric, one.budget.limit)}: "
            f"{in_units(one.budget.metric, one.value)} {one.source}, {'kept' if one.met else 'MISSED'}"
            for one in manifest.budgets
        ),
        f"winner  predicted {ms(manifest.predicted_s)}, measured {ms(latency.median_s)} "
        f"{spread(latency.half_width_s, latency.median_s)} (n={latency.n}): {100 * made.prediction_error:.1f} % apart",
        *(f"{'yes' if held else 'NO'}  {name}" for name, held in made.verdicts.items()),
        f"bundle  {made.exported.folder}",
        f"report  {made.report}",
        f"go on in {out}: mostool profile, mostool search, mostool export",
        "PASS" if all(made.verdicts.values()) else "FAIL",
    ]


def _size(evaluation: Any) -> tuple[float, float]:
    return evaluation.costs["size_bytes"].value, evaluation.costs["parameters"].value
