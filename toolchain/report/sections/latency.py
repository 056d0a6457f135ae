"""The latency of the shipped file: the figures of its samples, and whether they settled."""

from __future__ import annotations

from toolchain.records import Latency, Manifest
from toolchain.report.blocks import Paragraph, Section, Table
from toolchain.report.evidence import doubts, latency_source
from toolchain.report.story import Story
from toolchain.report.units import count, measured_ms, milliseconds, percent, significant, workload_words


def latency(story: Story) -> Section:
    """A table of the figures, and one sentence on how they were had."""
    title, manifest = "Latency of the shipped file", story.manifest
    if manifest is None:
        return Section("latency", title, [Paragraph("Nothing was exported, so no file was measured.")])
    found = doubts(manifest.latency)
    verdict = (
        Paragraph(f"Read these figures with care: {'; '.join(found)}.", "warning")
        if found
        else Paragraph("The measurement settled.", "good")
    )
    return Section("latency", title, [Paragraph(_summary(manifest)), verdict, _table(manifest)])


def _summary(manifest: Manifest) -> str:
    machine, options = manifest.environment, manifest.options
    with_options = f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""
    return (
        f"{latency_source(manifest).capitalize()} on {manifest.target}: {machine.cpu}, {count(machine.cores)} cores, "
        f"governor {machine.governor or 'unknown'}; {machine.engine} {machine.engine_version}, {machine.provider}, "
        f"{manifest.artifact.precision}, {manifest.threads} thread{'s' if manifest.threads != 1 else ''}"
        f"{with_options}; {workload_words(manifest.workload)}."
    )


def _table(manifest: Manifest) -> Table:
    figures: Latency = manifest.latency
    source = latency_source(manifest)
    rows = [
        ("p50, paired with the reference model", measured_ms(figures.median_s, figures.half_width_s), source),
        ("p50, as the clock said", milliseconds(figures.raw_median_s), source),
        ("p90", milliseconds(figures.p90_s), source if figures.p90_s is not None else ""),
        ("p99", milliseconds(figures.p99_s), source if figures.p99_s is not None else ""),
        ("Mean", milliseconds(figures.mean_s), source),
        ("Minimum", milliseconds(figures.minimum_s), source),
        ("p50 of processor time", milliseconds(figures.cpu_median_s), source),
        ("Samples, n", count(figures.n), "counted"),
        ("Rounds", count(figures.rounds), "counted"),
        ("Share of the samples kept", percent(figures.share_kept), "counted"),
        ("Drift of the reference model (1 = none)", significant(figures.drift), source),
        ("Status", ", ".join(figures.status) or "settled", ""),
    ]
    if manifest.predicted_s is not None:
        rows.insert(1, ("p50, before the file was built", milliseconds(manifest.predicted_s), "predicted"))
    return Table("Figures of the samples", ("Figure", "Value", "Source"), rows, frozenset({1}))
