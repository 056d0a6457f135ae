"""demo: the whole path on text every machine carries: which library does this docstring sentence come from?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from toolchain.errors import MostoolError
from toolchain.files import write_text
from toolchain.pipeline.data import Source
from toolchain.pipeline.export import export
from toolchain.pipeline.predict import read_predictor
from toolchain.pipeline.profile import Profiled, Request, profile
from toolchain.pipeline.project import Project
from toolchain.pipeline.report import report
from toolchain.pipeline.runs import Run
from toolchain.pipeline.search import Searched, search
from toolchain.pipeline.shipped import Exported
from toolchain.pipeline.shipping import Wanted
from toolchain.pipeline.spaces import read_space
from toolchain.pipeline.train import train_supernet
from toolchain.pipeline.verify import Verified, verify
from toolchain.pipeline.wishes import Limits, Wish
from toolchain.progress import ProgressListener, silent
from toolchain.records import Budget, Manifest, Mixture, Quality, Training, Workload
from toolchain.supernet.families import declaration
from toolchain.targets import read_target

TRAINING = Training(
    task="classify",
    mixture=Mixture(kind="neuron", experts=2),
    updates=600,
    batch_size=64,
    sequence_length=32,
    learning_rate=2e-3,
    warmup_updates=60,
    evaluate_every=100,
    vocabulary_size=2000,
)
WORKLOAD = Workload(batch=1, sequence_length=32)
SUBNETS_MEASURED = 40
EVALUATIONS = 100
BUDGET_SHARE = 0.5
"""The demo's budgets: this share of the largest subnet's latency on this machine, and of its file."""

PREDICTION_TOLERANCE = 0.10


class Demonstrated(NamedTuple):
    """Everything the demo made; the extremes' quality on the winner's test items, and their measured latency."""

    run: Run
    profiled: Profiled
    searched: Searched
    exported: Exported
    verified: Verified
    report: Path
    largest: Quality
    smallest: Quality
    largest_s: float
    smallest_s: float

    @property
    def manifest(self) -> Manifest:
        found = self.exported.manifest
        assert isinstance(found, Manifest)  # noqa: S101 - it is of a subnet, and was measured
        return found

    @property
    def prediction_error(self) -> float:
        """How far the winner's measured latency lies from what was predicted, as a fraction."""
        manifest = self.manifest
        return abs((manifest.predicted_s or 0.0) / manifest.latency.median_s - 1)

    @property
    def verdicts(self) -> dict[str, bool]:
        manifest = self.manifest
        return {
            "every budget is kept by the exported file": all(outcome.met for outcome in manifest.budgets),
            "the prediction is within 10 % of the measurement": self.prediction_error <= PREDICTION_TOLERANCE,
            "the winner beats the trivial baseline": manifest.quality.value > (manifest.trivial_quality or 0.0),
            "the bundle verifies": self.verified.passed,
        }


def demo(project: Project, device: str, *, fresh: bool = False, listener: ProgressListener = silent) -> Demonstrated:
    """Train, profile, search, export, verify, report. Run again, it trains and profiles only if `fresh`."""
    space = read_space("bert", "tiny")
    run = train_supernet(project, Source(), space, TRAINING, out=project.runs / "demo", fresh=fresh, listener=listener)
    target = read_target(device, project.root)
    asked = Request(WORKLOAD, SUBNETS_MEASURED, fresh=fresh)
    profiled = profile(project, run, target, asked, listener=listener)
    predictor = read_predictor(profiled.folder)
    measured_s = {name: seconds for name, seconds, _ in predictor.points}
    extremes = (run.info.space.largest(), run.info.space.smallest())
    if not {one.id for one in extremes} <= measured_s.keys():
        raise MostoolError("the largest or the smallest subnet could not be measured", hint="demo --fresh starts anew")
    largest_s, smallest_s = (measured_s[one.id] for one in extremes)
    largest_bytes = 4 * declaration(space.family).parameters(run.info.space, run.info.space.largest())
    budgets = [
        Budget(metric="latency_s", limit=_rounded(BUDGET_SHARE * largest_s), target=target.id),
        Budget(metric="size_bytes", limit=_rounded(BUDGET_SHARE * largest_bytes / 2**20) * 2**20),
    ]
    _write_settings(project, device, budgets)
    limits = tuple(Limits(budget.metric, (budget.limit,), budget.target) for budget in budgets)
    wish = Wish(limits=limits, device=device, workload=WORKLOAD, precision="fp32", evaluations=EVALUATIONS)
    searched = search(project, run, wish, listener=listener)
    winner = searched.result.winner.architecture
    exported = export(
        project, run, winner, target, WORKLOAD, Wanted(budgets=searched.result.budgets), listener=listener
    )
    verified = verify(exported.folder, listener=listener)
    return Demonstrated(
        run=run,
        profiled=profiled,
        searched=searched,
        exported=exported,
        verified=verified,
        report=report(project, run, project.root / "report.html").path,
        largest=run.quality(run.supernet_predict(run.info.space.largest()), "test"),
        smallest=run.quality(run.supernet_predict(run.info.space.smallest()), "test"),
        largest_s=largest_s,
        smallest_s=smallest_s,
    )


def _rounded(value: float) -> float:
    """Two figures, as a person would state a budget."""
    return float(f"{value:.2g}")


def _write_settings(project: Project, device: str, budgets: Sequence[Budget]) -> None:
    """Keep the demo's choices as the folder's defaults, so that `mostool search` there means the same search."""
    path = project.root / "mostool.toml"
    latency, size = budgets
    if not path.exists():
        write_text(
            path,
            "# Defaults for mostool commands in this folder; a flag beats them.\n"
            f'[profile]\ndevice = "{device}"\nn = {SUBNETS_MEASURED}\n\n'
            f'[search]\nlatency = "{1e3 * latency.limit:.2g}ms"\nsize = "{size.limit / 2**20:.2g}MiB"\n'
            f"evaluations = {EVALUATIONS}\n",
        )
