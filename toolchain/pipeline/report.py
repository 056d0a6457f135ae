"""report: what a run holds, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from toolchain import report as reporting
from toolchain.errors import IntegrityError
from toolchain.files import write_text
from toolchain.pipeline.project import Project, versions
from toolchain.pipeline.reported import Told, tell_tables
from toolchain.pipeline.run_records import RunRecords
from toolchain.records import Manifest, PredictorInfo, SearchResult, read_record
from toolchain.supernet.training_state import STATE_FILE, TrainingState


class Reported(NamedTuple):
    """The page that was written, how much it weighs, the warnings that stand in it, and what could not be read."""

    path: Path
    size_bytes: int
    warnings: list[str]
    remarks: list[str]


def report(project: Project, run: RunRecords, out: Path | None = None) -> Reported:
    """Write the run's page: one HTML file that needs nothing else. Missing stages are said to be missing."""
    result = run.find_result()
    told = tell_tables(project, run, result)
    story = reporting.Story(
        title=run.folder.resolve().name,  # of `--run .` too
        checkpoint=run.info,
        curve=read_record(run.folder / STATE_FILE, TrainingState).curve,
        predictor=_predictor(told, result),
        search=result,
        manifest=_newest_manifest(project, run),
        versions=versions(),
        tables=told.tables,
        agreements=told.agreements,
        samples=told.samples,
        remarks=told.remarks,
        run=project.name_of(run.folder),
    )
    path = out or run.folder / "report.html"
    html = reporting.render_report(story)
    write_text(path, html)
    return Reported(path, len(html.encode()), reporting.warnings(story), told.remarks)


def _predictor(told: Told, result: SearchResult | None) -> PredictorInfo | None:
    """That of the searched device; before a search, of the one that was profiled last."""
    wanted = result.target if result else None
    if not told.tables or (result is not None and told.tables[0].target != wanted):
        return None
    return told.tables[0].predictor


def _newest_manifest(project: Project, run: RunRecords) -> Manifest | None:
    """The newest bundle made from this run's checkpoint, the winner's before any other."""
    checkpoint, result = run.checkpoint_sha256, run.find_result()
    manifests = [manifest for path in sorted(project.bundles.glob("[!.]*/manifest.json")) if (manifest := _read(path))]
    own = [manifest for manifest in manifests if manifest.checkpoint_sha256 == checkpoint]
    if result is not None:
        winners = [one for one in own if one.artifact.architecture == result.winner.architecture]
        own = winners or own
    return max(own, key=lambda manifest: manifest.created_at, default=None)


def _read(path: Path) -> Manifest | None:
    """A bundle that cannot be read is `verify`'s business; the report is of the others."""
    try:
        return read_record(path, Manifest)
    except IntegrityError:
        return None
