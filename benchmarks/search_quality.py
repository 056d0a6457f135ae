"""How much of the front searchers find, by the number of evaluations. One command, a table for each kind of problem:

    python benchmarks/search_quality.py [--seeds 5] [--budget 500] [--problems synthetic,enumerable,recorded]
        [--searchers assisted,linas,...] [--peer-python ../peers/venv/bin/python] [--plot FILE.png]

Problems are those of search_problems.py: latency is free, quality costs an evaluation. With seed s a searcher gets
instance s (modulo their number) of a kind, the same as all others with that seed; a recorded supernet has one instance.

What is counted: hypervolume of all points evaluated so far, in (latency, 1 - quality) scaled to the true front's ideal
and nadir, reference point (1, 1). Means and standard errors are over seeds; comparisons pair runs of the same seed.

The searchers are mostool's, asked for `--batch` at a time, and others' (search_peers.py). What others evaluate is kept
under `--cache`, by problem, seed and version: a run of DyNAS-T's LINAS takes minutes. Without DyNAS-T it is left out,
and so are the comparisons with it. Its environment:

    python -m venv ../peers/venv
    ../peers/venv/bin/pip install pymoo==0.6.2 pandas scikit-learn==1.5.2 autograd numba msgspec
    ../peers/venv/bin/pip install --no-deps dynast==1.6.0
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from search_peers import PEERS
from search_problems import Benched, load_problem, names_of
from threadpoolctl import threadpool_limits

from toolchain.arrays import AxisArrays, Floats
from toolchain.search import SEARCHERS, Priced, Problem, Told, build_searcher
from toolchain.search.loop import BATCH

HERE = Path(__file__).parent
OURS = "assisted"
COST = "latency_s@cpu"
POINTS = (62, 100, 200, 500)
VERDICTS = ((100, "linas", 200), (200, "linas", 500), (62, "pymoo-nsga2-50", 500), (62, "pymoo-nsga2-20", 500))
"""By so many evaluations ours should reach what the other reaches by so many."""
SHARE = 0.02
WITHIN = 0.01
"""Of a space that was walked through, so much is evaluated, to come so near the true front's hypervolume."""
CANDIDATES = 100_000
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
"""Okabe and Ito's: told apart by colour-blind readers."""


class Run(NamedTuple):
    """What one searcher evaluated on one problem, in order, repeats included.

    Of ours: seconds of each proposal within the budget, and of an inner search at its end.
    """

    searcher: str
    problem: Benched
    seed: int
    names: tuple[str, ...]
    latency_s: Floats
    quality: Floats
    proposal_s: tuple[float, ...] = ()
    inner_s: float | None = None

    def hypervolume(self, n: int) -> float:
        return self.problem.hypervolume(self.latency_s[:n], self.quality[:n])

    @property
    def repeats(self) -> float:
        return 1 - len(set(self.names)) / len(self.names)


# -- running --------------------------------------------------------------------------------------------------------


def run_ours(name: str, problem: Benched, seed: int, budget: int, evaluations: int, batch: int) -> Run:
    """One of mostool's searchers, timed outside evaluations until the budget is spent, and further where asked for."""

    def price(arrays: AxisArrays) -> Priced:
        values = {COST: problem.latency(arrays)}
        return Priced(values, values)

    searcher = build_searcher(name, Problem(problem.space, price, (), (COST,)), seed=seed)
    names: list[str] = []
    latencies, qualities, proposal_s, inner_s = [np.empty(0)], [np.empty(0)], [], None
    while len(names) < evaluations:
        start = time.perf_counter()
        architectures = searcher.ask(min(batch, evaluations - len(names)))
        asked_s = time.perf_counter() - start
        if not architectures:
            break
        latency_s, quality = problem.judge(architectures)
        told = zip(architectures, quality.tolist(), latency_s.tolist(), strict=True)
        start = time.perf_counter()
        searcher.tell([Told(one, worth, (cost,)) for one, worth, cost in told])
        if len(names) < budget:
            proposal_s.append(asked_s + time.perf_counter() - start)
        names += [one.id for one in architectures]
        if inner_s is None and len(names) >= budget:
            inner_s = inner_search_s(searcher)
        latencies.append(latency_s)
        qualities.append(quality)
    known = np.concatenate(latencies), np.concatenate(qualities)
    return Run(name, problem, seed, tuple(names), *known, tuple(proposal_s), inner_s)


def inner_search_s(searcher: Any) -> float | None:
    """Seconds of an inner search over CANDIDATES candidates on one core, fitting its model included."""
    if not hasattr(searcher, "search_inside"):
        return None
    with threadpool_limits(1):
        start = time.perf_counter()
        searcher.search_inside(CANDIDATES, np.random.default_rng(0))
        return time.perf_counter() - start


class Peers(NamedTuple):
    """Others' searchers: in whose Python they run, and where what they evaluated is kept."""

    python: Path
    cache: Path
    jobs: int

    def version(self, peer: str) -> str | None:
        """Of whose search it is; None where that is not installed."""
        if peer.startswith("pymoo"):
            return importlib.metadata.version("pymoo")
        asking = "import importlib.metadata as of; print(of.version('dynast'))"
        if not self.python.exists():
            return None
        done = subprocess.run([self.python, "-c", asking], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None

    def run_all(self, wanted: Iterable[tuple[str, Benched, int]], evaluations: int) -> list[Run]:
        with ThreadPoolExecutor(self.jobs) as at_once:
            return list(at_once.map(lambda one: self.run(one[0], one[1], one[2], evaluations), wanted))

    def run(self, peer: str, problem: Benched, seed: int, evaluations: int) -> Run:
        version = self.version(peer)
        path = self.cache / f"{problem.name}-{problem.fingerprint}" / f"{peer}-{version}-seed{seed}.csv"
        rows = _rows(path)
        if len(rows) < evaluations:  # what is evaluated does not depend on how long the search will be
            path.parent.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            self._search(peer, problem, seed, evaluations, path)
            print(f"{peer} on {problem.name}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            rows = _rows(path)
        rows = rows[:evaluations]
        latency_s, quality = (np.array([float(row[name]) for row in rows]) for name in ("latency_s", "quality"))
        return Run(peer, problem, seed, tuple(row["architecture"] for row in rows), latency_s, quality)

    def _search(self, peer: str, problem: Benched, seed: int, evaluations: int, path: Path) -> None:
        python = sys.executable if peer.startswith("pymoo") else self.python
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1")
        # DyNAS-T's order of objectives follows the hash seed.
        environment = {**os.environ, **threads, "PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE.parent)}
        command = [python, HERE / "search_peers.py", peer, problem.name, "--seed", str(seed), "--out", path]
        command += ["--evaluations", str(evaluations)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{peer} on {problem.name} failed:\n{done.stderr[-2000:]}")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


# -- telling --------------------------------------------------------------------------------------------------------


def table(kind: str, runs: Sequence[Run], budget: int) -> None:
    points = sorted({*(point for point in POINTS if point < budget), budget})
    fronts = {run.problem.name: run.problem.front for run in runs}
    known = ", ".join(f"{front:.4f} ({name})" for name, front in fronts.items())
    print(f"\n{kind}: the true front's hypervolume is {known}")
    print(f"{'searcher':<18}" + "".join(f"{f'after {point}':>18}" for point in points) + f"{'repeats':>9}  s/proposal")
    for name, mine in by_searcher(runs).items():
        cells = (f"{spread([run.hypervolume(point) for run in mine]):>18}" for point in points)
        seconds = [one for run in mine for one in run.proposal_s]
        timed = f"{np.median(seconds):.3f} (worst {max(seconds):.3f})" if seconds else "-"
        print(f"{name:<18}{''.join(cells)}{np.mean([run.repeats for run in mine]):>9.1%}  {timed}")


def verdicts(runs: Sequence[Run], budget: int) -> None:
    """Pairs with the same seed: what ours has by fewer evaluations, less what the other has by more."""
    found = by_searcher(runs)
    for mine_at, other, other_at in VERDICTS:
        if OURS not in found or other not in found or other_at > budget:
            continue
        others = {run.seed: run.hypervolume(other_at) for run in found[other]}
        ahead = [run.hypervolume(mine_at) - others[run.seed] for run in found[OURS]]
        word = "reached" if np.mean(ahead) >= 0 else "NOT reached"
        print(f"{OURS} at {mine_at} vs {other} at {other_at}: {spread(ahead, '+.4f')} ({word})")
    size = min(run.problem.space.size() for run in runs)
    for n in sorted({budget, round(SHARE * size)}):
        shares = [run.hypervolume(n) / run.problem.front for run in found.get(OURS, []) if len(run.names) >= n]
        if shares:
            of = f" ({n / size:.1%} of {size:,})" if n >= size * SHARE / 10 else ""
            word = "" if n < round(SHARE * size) else " (reached)" if min(shares) >= 1 - WITHIN else " (NOT reached)"
            print(f"{OURS} after {n}{of}: {np.mean(shares):.2%} of the true front's, worst {min(shares):.2%}{word}")
    inner = [run.inner_s for run in found.get(OURS, []) if run.inner_s is not None]
    if inner:
        print(f"inner search over {CANDIDATES:,} candidates: {np.median(inner):.2f} s (worst {max(inner):.2f})")


def by_searcher(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {name: [run for run in runs if run.searcher == name] for name in dict.fromkeys(run.searcher for run in runs)}


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """Mean ± standard error; the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


def plot(path: Path, kinds: dict[str, list[Run]], budget: int) -> None:
    figure = Figure(figsize=(6.5 * len(kinds), 4.6), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False)
    at = range(10, budget + 1, 2)
    for axis, (kind, runs) in zip(axes[0], kinds.items(), strict=True):
        for number, (name, mine) in enumerate(by_searcher(runs).items()):
            curves = np.array([[run.hypervolume(n) for n in at] for run in mine])
            middle, error = curves.mean(0), curves.std(0, ddof=min(1, len(curves) - 1)) / len(curves) ** 0.5
            colour, style = COLOURS[number % len(COLOURS)], "-" if name in SEARCHERS else "--"
            axis.plot(at, middle, style, color=colour, label=name, linewidth=2.4 if name == OURS else 1.4)
            axis.fill_between(at, middle - error, middle + error, color=colour, alpha=0.15, linewidth=0)
        axis.axhline(np.mean([run.problem.front for run in runs]), color="black", linewidth=0.8, linestyle=":")
        axis.set(
            title=f"{kind}: mean ± standard error of {len({run.seed for run in runs})} seeds", xlabel="evaluations"
        )
        axis.set_ylabel("share of the rectangle dominated (dotted: true front)")
        axis.set_ylim(bottom=min(run.hypervolume(20) for run in runs))
    axes[0][0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--batch", type=int, default=BATCH, help="how many ours is asked for at a time")
    parser.add_argument("--problems", default="synthetic,enumerable,recorded")
    parser.add_argument("--searchers", default=",".join([*SEARCHERS, *PEERS]))
    parser.add_argument("--peer-python", type=Path, default=HERE.parent.parent / "peers/venv/bin/python")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/mostool-benchmarks")
    parser.add_argument("--jobs", type=int, default=1, help="peers that run at once")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    peers = Peers(arguments.peer_python, arguments.cache, arguments.jobs)
    asked = arguments.searchers.split(",")
    if unknown := {*asked} - {*SEARCHERS, *PEERS}:
        parser.error(f"no such searchers: {', '.join(sorted(unknown))}")
    there = [name for name in asked if name in SEARCHERS or peers.version(name)]
    if missing := [name for name in asked if name not in there]:
        print(f"left out, since {peers.python} has no DyNAS-T: {', '.join(missing)}")
    kinds: dict[str, list[Run]] = {}
    for kind in arguments.problems.split(","):
        names = names_of(kind)
        if not names:
            print(f"left out, since nothing of it is there: {kind}")
            continue
        instances = [[name] for name in names] if kind == "recorded" else [names]
        for group in instances:
            title = group[0] if kind == "recorded" else kind
            problems = [load_problem(group[seed % len(group)]) for seed in range(arguments.seeds)]
            runs = []
            for name in there:
                if name in PEERS:
                    wanted = [(name, problem, seed) for seed, problem in enumerate(problems)]
                    runs += peers.run_all(wanted, arguments.budget)
                    continue
                for seed, problem in enumerate(problems):
                    share = round(SHARE * problem.space.size())
                    walked = share if name == OURS and kind != "synthetic" else 0
                    evaluations = max(arguments.budget, walked)
                    runs.append(run_ours(name, problem, seed, arguments.budget, evaluations, arguments.batch))
            kinds[title] = runs
            table(title, runs, arguments.budget)
            verdicts(runs, arguments.budget)
    if arguments.plot:
        plot(arguments.plot, kinds, arguments.budget)


if __name__ == "__main__":
    main()
