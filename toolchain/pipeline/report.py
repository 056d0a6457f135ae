"""report: what a run holds, as one page."""

from __future__ import annotations

from pathlib import Path

from toolchain import report as reporting
from toolchain.errors import IntegrityError
from toolchain.files import write_text
from toolchain.pipeline.predict import find_predictor
from toolchain.pipeline.project import Project, versions
from toolchain.pipeline.runs import Run
from toolchain.records import Manifest, read_record
from toolchain.supernet.state import STATE_FILE, TrainingState


def report(project: Project, run: Run, out: Path | None = None) -> Path:
    """Write the run's page: one HTML file that needs nothing else. Missing stages are said to be missing."""
    result = run.find_result()
    device, workload = (result.target, result.workload) if result else (None, None)
    found = find_predictor(project, run.info.space, device, workload, needed=False)
    story = reporting.Story(
        title=run.folder.name,
        checkpoint=run.info,
        curve=read_record(run.folder / STATE_FILE, TrainingState).curve,
        predictor=found[0] if found else None,
        search=result,
        manifest=_newest_manifest(project, run),
        versions=versions(),
    )
    path = out or run.folder / "report.html"
    write_text(path, reporting.render_report(story))
    return path


def _newest_manifest(project: Project, run: Run) -> Manifest | None:
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
