"""What searching the precision of the weights with the architecture is worth, at equal quality:

    python benchmarks/mixed_precision.py runs/sst2 runs/wikitext2 [--subnets 60] [--evaluations 100] [--device cpu]

Of each trained run three searches, alike but for the files they may build: all fp32, all int8, or fp32 and int8 block
by block; the last begins with what the two others have evaluated (--warm-start). All price latency by one table of
mixed subnets, measured here, and judge quality of what would ship (int8: of the file, run by ONNX Runtime). Then, for
some levels of quality that all-fp32 subnets reach, the fastest subnet of each search that reaches it is measured once
more, all in one interleaved session, and its file's quality on test items is told: nobody searched on those. On a quiet
machine.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolchain import export as exporting
from toolchain.pipeline.growing import Goal
from toolchain.pipeline.latencies import read_latencies
from toolchain.pipeline.profile import Request, profile
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.search import search
from toolchain.pipeline.wishes import Limits, Wish
from toolchain.records import Evaluation, FilePrecision, Workload
from toolchain.space import Architecture
from toolchain.targets import Target, read_target

PRECISIONS: tuple[FilePrecision, ...] = ("fp32", "int8", "mixed")
BELOW = (0.0, 0.005, 0.01, 0.02, 0.04)
"""Levels of quality, as shares below that of the best all-fp32 subnet found."""


class Level(NamedTuple):
    """A quality that is to be reached, and the fastest subnet of each precision that reaches it."""

    quality: float
    picks: dict[FilePrecision, Evaluation]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--subnets", type=int, default=60)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for folder in arguments.runs:
        with tempfile.TemporaryDirectory() as scratch:
            project = Project(Path(scratch))
            shutil.copytree(folder, project.runs / folder.name, ignore=shutil.ignore_patterns("search"))
            examine(project, Run(project.runs / folder.name), arguments)


def examine(project: Project, run: Run, arguments: argparse.Namespace) -> None:
    target = read_target(arguments.device, project.root)
    workload = Workload(batch=1, sequence_length=arguments.length)
    goal = Goal(None, None, most=arguments.subnets)
    profiled = profile(project, run, target, Request(workload, arguments.subnets, goal=goal, mixed=True))
    error = profiled.predictor.error if profiled.predictor else None
    print(f"{run.folder.name} on {target.id} ({profiled.info.environment.cpu}), 1 x {arguments.length} tokens")
    print(f"mixed table: {profiled.timed} subnets" + (f", held-out error {100 * error.mape:.1f} %" if error else ""))
    found: dict[FilePrecision, list[Evaluation]] = {}
    for precision in PRECISIONS:
        wish = Wish(
            limits=(Limits("latency_s", (3600.0,)),),  # none: the whole front is wanted
            device=target.id,
            workload=workload,
            precision=precision,
            evaluations=arguments.evaluations,
            seed=arguments.seed,
            warm=precision == "mixed",
        )
        found[precision] = within_bits(run, search(project, run, wish).result.evaluations)
    levels = list(levels_of(found))
    latency_s = measured(project, run, target, workload, levels)
    print("quality at least  precision  measured   fp32 / it  validation    test  subnet")
    for level in levels:
        for precision, one in level.picks.items():
            taken = latency_s[one.architecture.id]
            ratio = latency_s[level.picks["fp32"].architecture.id] / taken
            print(
                f"{100 * level.quality:14.2f} %  {precision:9}  {1e3 * taken:6.3f} ms  {ratio:8.2f}x  "
                f"{100 * one.quality.value:8.2f} %  {100 * test_quality(run, one.architecture):5.2f} %  "
                f"{one.architecture.id}"
            )
    print(flush=True)


def within_bits(run: Run, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Those known in full; all-fp32 ones as points of the space with bits, so that one table tells all latencies."""
    return [
        one
        if run.declared.has_bits(one.architecture)
        else msgspec.structs.replace(one, architecture=run.declared.at_bits(one.architecture, 32))
        for one in evaluations
        if not one.stopped
    ]


def levels_of(found: dict[FilePrecision, list[Evaluation]]) -> Iterable[Level]:
    best = max(one.quality.value for one in found["fp32"])
    for share in BELOW:
        wanted = best * (1 - share)
        picks = {}
        for precision in PRECISIONS:
            reaching = [one for one in found[precision] if one.quality.value >= wanted]
            if reaching:
                picks[precision] = min(reaching, key=lambda one: one.costs[next(iter(one.costs))].value)
        yield Level(wanted, picks)


def measured(
    project: Project, run: Run, target: Target, workload: Workload, levels: Iterable[Level]
) -> dict[str, float]:
    """Seconds (p50) of every pick: by the table, after all of them were measured in one session (anew)."""
    chosen = {one.architecture.id: one.architecture for level in levels for one in level.picks.values()}
    request = Request(workload, len(chosen), list(chosen.values()), mixed=True, fresh=True)
    folder = profile(project, run, target, request).folder
    table = read_latencies(folder)
    return dict(zip(table.ids, table.values.tolist(), strict=True))


def test_quality(run: Run, architecture: Architecture) -> float:
    """Of the file, on items that nobody trained or searched on."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        run.build(architecture, model)
        return run.quality(exporting.predictor(model, {}), "test").value


if __name__ == "__main__":
    main()
