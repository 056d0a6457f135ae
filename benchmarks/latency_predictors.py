"""How good latency predictors are on tables that others have measured. One command, five tables:

    python benchmarks/latency_predictors.py [--data ../shared/data] [--draws 10] [--out FILE.json]

Six published tables (HAT's translators on three devices, SuperShaper's encoders on three), less the rows known to be
contaminated. Each draw takes a random permutation of a table: the first rows, in the order they were measured, are
fitted, and its last 400 judge. All methods get the same rows; mostool's gets a family's features, its peers the
table's own columns. The peers:

- HAT's perceptron as published (arXiv 2005.14187, its `latency_predictor.py`): columns over their maxima, latencies
  over HAT's `lat-norm` (over the mean where HAT has none), an input layer and three more of 400, ReLU, mean squared
  error, 5,000 steps of Adam with 1e-5 on 128 rows or as many as there are. It takes 5 to 30 s, so fewer draws of it;
- quadratic ridge on log latency, its strength by leave-one-out error; gradient boosting on log latency; FLOPs alone.

Then whether intervals hold what they promise; what ten rows are worth beside another device's table; what inspection
finds in HAT's Raspberry Pi table as it was published; and how long a million predictions take on one core.

Transfer counts the work of one item whatever the batch, so that tables of different batch sizes can be told apart from
the devices by a factor. All architectures of `k80` are in `gcp_xeon` too: its latencies are not.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import itertools
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import kendalltau
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from toolchain.arrays import AxisArrays, Floats, draw_arrays, part
from toolchain.predict import KINDS, About, Known, Predicted, Rows, apply, fit_predictor, fit_with, inspect
from toolchain.records import Finding, PredictorInfo, Workload
from toolchain.supernet.families import declaration

Indices = npt.NDArray[np.intp]

HAT, BERT = ("rpi", "xeon", "titanxp"), ("gcp_xeon", "corei7", "k80")
TABLES = {
    "rpi": "hat_latency/wmt14ende_cpu_raspberrypi.csv.gz",
    "xeon": "hat_latency/wmt14ende_cpu_xeon.csv.gz",
    "titanxp": "hat_latency/wmt14ende_gpu_titanxp.csv.gz",
    "gcp_xeon": "mos_bert_latency/gcp_xeon_2core_bs1.csv.gz",
    "corei7": "mos_bert_latency/corei7_9thgen_bs128.csv.gz",
    "k80": "mos_bert_latency/k80_bs128.csv.gz",
}
CONTAMINATED = {"rpi": (range(145),), "titanxp": (range(14), range(1263, 1500))}
"""Rows measured while the device was throttled or busy, counted from 0."""
HAT_COLUMNS_OVER = (640, 6, 2048, 6, 640, 6, 2048, 6, 6, 2)
HAT_LATENCY_OVER_S = {"rpi": 5.0, "xeon": 0.3, "titanxp": 0.2}
MULTIPLY_ADDS = {
    "translation": ("encoder_dense", "encoder_attention", "decoder_dense", "cross_dense", "decoder_attention"),
    "bert": ("dense", "attention", "head"),
}
JUDGED = 400
SIZES = (10, 30, 100)
MOST_ROWS = 1600
SOURCE_ROWS = 1500
MILLION = 1_000_000
AT_ONCE = 1 << 15
OURS, PERCEPTRON, RIDGE, BOOSTING, FLOPS = "mostool", "HAT's perceptron", "quadratic ridge", "boosting", "FLOPs alone"
TRANSFER, CEILING = "transfer", "own rows"
MOST_MAPE = {"rpi": 1.0, "titanxp": 2.8, "xeon": 5.0}
"""In percent, with 100 rows; with 30 at most twice as much."""
MOST_MAPE_BERT = 3.0


class Table(NamedTuple):
    """A published table: its own columns [n, columns], a family's features [n] each, and latencies [n] in seconds."""

    name: str
    family: str
    columns: Floats
    features: dict[str, Floats]
    latency_s: Floats

    def rows(self, at: Indices) -> Rows:
        features = {name: values[at] for name, values in self.features.items()}
        return Rows.of(tuple(map(str, at)), features, self.latency_s[at])

    def about(self) -> About:
        declared = declaration(self.family)
        space = declared.SPACES["hat-wmt" if self.family == "translation" else "supershaper"]
        return About(self.name, Workload(), space, "0", "imported", None)

    @property
    def multiply_adds(self) -> Floats:
        total: Floats = np.sum([self.features[name] for name in MULTIPLY_ADDS[self.family]], axis=0)
        return total


class Score(NamedTuple):
    """How one method, fitted on so many rows of a table, did on the judging rows of one draw. Fractions, not percent.

    `coverage` to `far`: of intervals, where a method has them. `source`, `leant`: of transfer.
    """

    table: str
    method: str
    rows: int
    draw: int
    mape: float
    tau: float
    coverage: float = float("nan")
    width: float = float("nan")
    far: float = float("nan")
    source: str = ""
    leant: bool = False


class Requirement(NamedTuple):
    text: str
    met: bool


# -- the tables --------------------------------------------------------------------------------------------------------


@functools.cache
def read(data: Path, name: str, *, clean: bool = True) -> Table:
    with gzip.open(data / TABLES[name], "rt") as file:
        numbers = np.array(list(csv.reader(file))[1:], dtype=np.float64)
    if clean:
        numbers = np.delete(numbers, [row for rows in CONTAMINATED.get(name, ()) for row in rows], axis=0)
    if name in HAT:
        columns, latency_s = numbers[:, :10], (numbers[:, 10] + numbers[:, 11]) / 1e3
        return Table(name, "translation", columns, translation_features(columns), latency_s)
    return Table(name, "bert", numbers[:, :-1], bert_features(numbers[:, :-1]), numbers[:, -1])


def translation_features(columns: Floats) -> dict[str, Floats]:
    """HAT's columns are averages over the layers; features are sums over them, so it does not matter."""
    declared = declaration("translation")
    space = declared.SPACES["hat-wmt"]
    names = (
        *("encoder_embedding", "encoder_depth", "encoder_ffn", "encoder_heads", "decoder_embedding"),
        *("decoder_depth", "decoder_ffn", "decoder_heads", "cross_heads", "cross_layers"),
    )
    told = dict(zip(names, columns.T, strict=True))

    def layers(name: str, depth: str) -> Floats:
        present = np.arange(space.axis(depth).choices[-1]) < told[depth][:, None]
        return np.where(present, told[name][:, None], 0.0)

    arrays = {axis.name: told[axis.name] if axis.per is None else layers(axis.name, axis.per) for axis in space.axes}
    return declared.features(space, arrays, Workload(batch=1, sequence_length=30))


def bert_features(hidden: Floats) -> dict[str, Floats]:
    """SuperShaper's columns are the hidden widths of twelve layers; the rest is as in BERT."""
    declared = declaration("bert")
    count, depth = hidden.shape
    arrays = {
        "depth": np.full(count, float(depth)),
        "hidden": hidden,
        "heads": np.full((count, depth), 12.0),
        "ffn": np.full((count, depth), 3072.0),
    }
    return declared.features(declared.SPACES["supershaper"], arrays, Workload(batch=1, sequence_length=128))


def draw_rows(table: Table, draw: int, count: int) -> tuple[Indices, Indices]:
    """Rows to fit, in the order they were measured (at most `count`, or as many as there are), and rows to judge by."""
    order = np.random.default_rng(draw).permutation(len(table.latency_s))
    return np.sort(order[:-JUDGED][:count]), order[-JUDGED:]


# -- the methods -------------------------------------------------------------------------------------------------------


def quadratic_ridge(table: Table, fit: Indices, judge: Indices) -> Floats:
    steps = (StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler())
    return _log_fitted(make_pipeline(*steps, RidgeCV(np.logspace(-4, 3, 22))), table, fit, judge)


def boosting(table: Table, fit: Indices, judge: Indices) -> Floats:
    model = HistGradientBoostingRegressor(min_samples_leaf=3, learning_rate=0.05, max_iter=300)
    return _log_fitted(model, table, fit, judge)


def _log_fitted(model: Any, table: Table, fit: Indices, judge: Indices) -> Floats:
    fitted = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp)
    fitted.fit(table.columns[fit], table.latency_s[fit])
    return np.asarray(fitted.predict(table.columns[judge]), dtype=np.float64)


def flops_alone(table: Table, fit: Indices, judge: Indices) -> Floats:
    work = table.multiply_adds[:, None]
    fitted = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-4, 3, 22))).fit(work[fit], table.latency_s[fit])
    return np.asarray(fitted.predict(work[judge]), dtype=np.float64)


def perceptron(table: Table, fit: Indices, judge: Indices, seed: int) -> Floats:
    """HAT's recipe; with fewer rows than its batch of 128, all of them in each step."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    over = np.array(HAT_COLUMNS_OVER) if table.name in HAT else table.columns.max(axis=0)
    unit_s = HAT_LATENCY_OVER_S.get(table.name, float(table.latency_s[fit].mean()))
    columns = torch.tensor(table.columns / over, dtype=torch.float32)
    inputs, targets = columns[fit], torch.tensor(table.latency_s[fit] / unit_s, dtype=torch.float32)
    sizes = (columns.shape[1], 400, 400, 400, 400)
    layers = [(torch.nn.Linear(*pair), torch.nn.ReLU()) for pair in itertools.pairwise(sizes)]
    network = torch.nn.Sequential(*itertools.chain(*layers), torch.nn.Linear(400, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)
    for _ in range(5000):
        at = torch.randperm(len(fit))[:128] if len(fit) > 128 else slice(None)
        loss = torch.nn.functional.mse_loss(network(inputs[at]).squeeze(1), targets[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        guesses_s: Floats = network(columns[judge]).squeeze(1).double().numpy() * unit_s
    return guesses_s


PEERS: dict[str, Callable[[Table, Indices, Indices], Floats]] = {
    RIDGE: quadratic_ridge,
    BOOSTING: boosting,
    FLOPS: flops_alone,
}


# -- jobs for the pool -------------------------------------------------------------------------------------------------


def score_draw(data: Path, name: str, draw: int) -> list[Score]:
    """mostool's predictor and the quick peers on one draw; and what mostool's does with all the rows there are."""
    table = read(data, name)
    scores = []
    for size in SIZES:
        fit, judge = draw_rows(table, draw, size)
        info = fit_predictor(table.rows(fit), table.about())
        scores.append(_score_intervals(table, OURS, len(fit), draw, judge, info))
        for method, guess in PEERS.items():
            scores.append(_score(table, method, len(fit), draw, judge, guess(table, fit, judge)))
    fit, judge = draw_rows(table, draw, SOURCE_ROWS)
    info = fit_predictor(table.rows(fit), table.about(), {"linear": KINDS["linear"]})
    scores.append(_score_intervals(table, CEILING, len(fit), draw, judge, info))
    return scores


def score_perceptron(data: Path, name: str, draw: int, size: int) -> list[Score]:
    table = read(data, name)
    fit, judge = draw_rows(table, draw, size)
    return [_score(table, PERCEPTRON, size, draw, judge, perceptron(table, fit, judge, draw))]


def score_transfer(data: Path, source: str, target: str, draw: int) -> list[Score]:
    table, known = read(data, target), read(data, source)
    fit, judge = draw_rows(table, draw, SIZES[0])
    order = np.random.default_rng(draw).permutation(len(known.latency_s))
    info = fit_with(table.rows(fit), table.about(), Known(source, "0", known.rows(np.sort(order[:SOURCE_ROWS]))))
    score = _score_intervals(table, TRANSFER, len(fit), draw, judge, info)
    return [score._replace(source=source, leant=bool(info.transfer and info.transfer.used))]


def _score(table: Table, method: str, rows: int, draw: int, judge: Indices, guesses_s: Floats) -> Score:
    measured_s = table.latency_s[judge]
    mape = float(np.mean(np.abs(guesses_s / measured_s - 1)))
    with np.errstate(invalid="ignore"):
        tau = float(kendalltau(guesses_s, measured_s).statistic)
    return Score(table.name, method, rows, draw, mape, tau if np.isfinite(tau) else 0.0)


def _score_intervals(table: Table, method: str, rows: int, draw: int, judge: Indices, info: PredictorInfo) -> Score:
    found = apply(info, {name: values[judge] for name, values in table.features.items()})
    measured_s = table.latency_s[judge]
    return _score(table, method, rows, draw, judge, found.latency_s)._replace(
        coverage=float(np.mean((found.low_s <= measured_s) & (measured_s <= found.high_s))),
        width=float(np.mean((found.high_s - found.low_s) / found.latency_s)),
        far=float(found.extrapolated.mean()),
    )


def time_million(family: str, name: str, kind: str) -> tuple[str, float, float, float]:
    """The kind it became; seconds to draw a million architectures and to predict them, on one core; their spread."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    declared, rng, workload = declaration(family), np.random.default_rng(0), Workload()
    space = declared.SPACES[name]
    known = declared.features(space, draw_arrays(space, 100, rng), workload)
    latency_s = np.sum([values / values.mean() for values in known.values()], axis=0) * rng.normal(1, 0.01, 100)
    about = About(name, workload, space, "0", "imported", None)
    info = fit_predictor(Rows.of(tuple(map(str, range(100))), known, latency_s), about, {kind: KINDS[kind]})
    start = time.perf_counter()
    arrays = draw_arrays(space, MILLION, rng)
    drawn_s = time.perf_counter() - start
    took_s = []
    for _ in range(3):
        start = time.perf_counter()
        found = predict_all(info, arrays)
        took_s.append(time.perf_counter() - start)
    assert len(found.latency_s) == MILLION
    return info.model.kind, drawn_s, float(np.median(took_s)), max(took_s) - min(took_s)


def predict_all(info: PredictorInfo, arrays: AxisArrays) -> Predicted:
    """As toolchain.pipeline.predict.predict_arrays does: part by part, so that features need little memory."""
    features = declaration(info.space.family).features
    parts = [
        apply(info, features(info.space, part(arrays, slice(start, start + AT_ONCE)), info.workload))
        for start in range(0, MILLION, AT_ONCE)
    ]
    return Predicted(*(np.concatenate(values) for values in zip(*parts, strict=True)))


# -- what is printed ---------------------------------------------------------------------------------------------------


class Scores:
    """All scores, to be averaged over draws."""

    def __init__(self, scores: Sequence[Score]) -> None:
        self.all = scores

    def of(self, table: str, method: str, rows: int | None = None, source: str = "") -> list[Score]:
        return [
            one
            for one in self.all
            if (one.table, one.method, one.source) == (table, method, source) and rows in {None, one.rows}
        ]

    def mean(self, what: str, table: str, method: str, rows: int | None = None, source: str = "") -> float:
        values = [getattr(one, what) for one in self.of(table, method, rows, source)]
        return float(np.mean(values)) if values else float("nan")

    def ratio(self, table: str, source: str, method: str, rows: int) -> float:
        """Mean error with transfer over that of another method, on the draws that the other has."""
        other = {one.draw: one.mape for one in self.of(table, method, rows)}
        mine = {one.draw: one.mape for one in self.of(table, TRANSFER, rows, source)}
        return sum(mine[draw] for draw in other) / sum(other.values()) if other else float("nan")

    def percent(self, table: str, method: str, rows: int | None = None, source: str = "") -> float:
        return 100 * self.mean("mape", table, method, rows, source)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_targets(requirements: Iterable[Requirement]) -> list[Requirement]:
    told = list(requirements)
    for one in told:
        print(f"targets: {'met   ' if one.met else 'MISSED'} {one.text}")
    print()
    return told


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def report_errors(scores: Scores, draws: int, slow_draws: int) -> list[Requirement]:
    print(f"## 1. MAPE in % on {JUDGED} other rows, mean of {draws} draws (HAT's perceptron: {slow_draws})\n")
    columns = [(method, size) for method in (OURS, RIDGE, BOOSTING, FLOPS) for size in SIZES]
    columns += [(PERCEPTRON, SIZES[-1]), (PERCEPTRON, MOST_ROWS)]
    print_table(
        ("table", *(f"{method}, {size}" for method, size in columns)),
        [(name, *(_number(scores.percent(name, *column), 2) for column in columns)) for name in TABLES],
    )
    print(f"{MOST_ROWS} rows, or all that are clean and do not judge: 1455 of rpi, 1349 of titanxp.\n")
    print(f"Kendall's tau on the same rows, {SIZES[-1]} rows fitted:\n")
    methods = (OURS, RIDGE, BOOSTING, FLOPS, PERCEPTRON)
    print_table(
        ("table", *methods),
        [(name, *(_number(scores.mean("tau", name, method, 100), 3) for method in methods)) for name in TABLES],
    )
    requirements = []
    for name, most in MOST_MAPE.items():
        for size, limit in ((100, most), (30, 2 * most)):
            found = scores.percent(name, OURS, size)
            text = f"{name}, {size} rows: MAPE {found:.2f} %, at most {limit:.1f} %"
            requirements.append(Requirement(text, found <= limit))
    for name in BERT:
        found, peer = scores.percent(name, OURS, 100), scores.percent(name, BOOSTING, 100)
        text = f"{name}, 100 rows: MAPE {found:.2f} %, at most {MOST_MAPE_BERT:.1f} %"
        requirements.append(Requirement(text, found <= MOST_MAPE_BERT))
        requirements.append(Requirement(f"{name}, 100 rows: below boosting's {peer:.2f} %", found < peer))
    return print_targets(requirements)


def report_intervals(scores: Scores, draws: int) -> list[Requirement]:
    print(f"## 2. Intervals that promise 90 %: how many of {JUDGED} other rows lie within, mean of {draws} draws\n")
    rows, requirements = [], []
    for name, size in itertools.product(TABLES, (30, 100)):
        covered = [100 * one.coverage for one in scores.of(name, OURS, size)]
        doubt = float(np.std(covered) / np.sqrt(max(1, len(covered) - 1)))
        mean = float(np.mean(covered))
        rest = (100 * scores.mean(what, name, OURS, size) for what in ("width", "far"))
        rows.append((name, str(size), f"{mean:.1f} ± {doubt:.1f}", *(f"{value:.1f}" for value in rest)))
        requirements.append(Requirement(f"{name}, {size} rows: {mean:.1f} % covered, 87 to 93 %", 87 <= mean <= 93))
    print_table(("table", "rows", "covered, %", "low to high, % of the prediction", "called extrapolated, %"), rows)
    print("± is the standard error over draws.\n")
    return print_targets(requirements)


def report_transfer(scores: Scores, draws: int, slow_draws: int) -> list[Requirement]:
    size = SIZES[0]
    print(
        f"## 3. Transfer: {size} rows of the target, up to {SOURCE_ROWS} of the source, mean of {draws} draws", end=""
    )
    print(f" (HAT's perceptron: {slow_draws}, and its ratio on those)\n")
    others = (OURS, RIDGE, PERCEPTRON)
    rows, requirements = [], []
    for source, target in (*itertools.permutations(HAT, 2), *itertools.permutations(BERT, 2)):
        mape, tau = scores.percent(target, TRANSFER, size, source), scores.mean("tau", target, TRANSFER, size, source)
        alone = [scores.percent(target, method, size) for method in others]
        taus = [scores.mean("tau", target, method, size) for method in others]
        best = scores.mean("tau", target, CEILING)
        used = scores.of(target, TRANSFER, size, source)
        refused = sum(not one.leant for one in used)
        rows.append(
            (
                f"{source} to {target}",
                f"{refused} of {len(used)}",
                *(f"{value:.2f}" for value in (mape, *alone)),
                " / ".join(f"{scores.ratio(target, source, method, size):.2f}" for method in others),
                *(f"{value:.3f}" for value in (tau, *taus, best)),
            )
        )
        bound = f"; with all of {target}'s own rows {best:.3f}{': its noise bounds tau' if best < 0.9 else ''}"
        requirements.append(
            Requirement(f"{source} to {target}: tau {tau:.3f}, at least 0.9{bound if tau < 0.9 else ''}", tau >= 0.9)
        )
        text = f"{source} to {target}: MAPE {mape / alone[0]:.2f} of mostool's on the {size} alone, at most 0.50"
        requirements.append(Requirement(text, mape <= alone[0] / 2))
    print_table(
        (
            *("pair", "refused", "MAPE, %: transfer", f"mostool, {size} alone", f"ridge, {size}"),
            *(f"perceptron, {size}", "transfer / each of them", "tau: transfer", f"mostool, {size} alone"),
            *(f"ridge, {size}", f"perceptron, {size}", "mostool, all its own rows"),
        ),
        rows,
    )
    print(
        f"All its own rows: a linear sum of up to {SOURCE_ROWS} of the target's, about what its noise lets a tau be.\n"
    )
    return print_targets(requirements)


def report_hygiene(data: Path) -> tuple[list[Requirement], dict[str, list[str]]]:
    print("## 4. What inspection finds in HAT's Raspberry Pi table\n")
    table = read(data, "rpi", clean=False)
    told: dict[str, list[str]] = {}
    for first in (0, 200):
        rows = np.arange(first, len(table.latency_s))
        found = inspect(table.rows(rows)).findings
        told[f"rows {first} to {rows[-1]}"] = [_describe(one, first) for one in found]
    print_table(("rpi", "findings"), [(name, "; ".join(found) or "none") for name, found in told.items()])
    published, later = told.values()
    return print_targets(
        [
            Requirement(
                "rpi as published: an outlier-block among the first 145 rows",
                any(one.startswith("outlier-block 0-") for one in published),
            ),
            Requirement("rpi from row 200: no outlier-block", not any("outlier-block" in one for one in later)),
        ]
    ), told


def _describe(finding: Finding, offset: int) -> str:
    first, last = finding.first + offset, finding.last + offset
    where = f"{first}-{last}" if last > first else str(first)
    return f"{finding.kind} {where} ×{finding.ratio:.2f} {finding.done}"


def report_million(context: multiprocessing.context.SpawnContext) -> tuple[list[Requirement], list[dict[str, Any]]]:
    print("## 5. A million predictions, with intervals, from arrays of architectures: one core, one thread, measured\n")
    rows, found, requirements = [], [], []
    for (family, name), kind in itertools.product(
        (("bert", "base"), ("translation", "hat-wmt")), ("linear", "process")
    ):
        with ProcessPoolExecutor(1, context) as alone:
            became, drawn_s, took_s, spread_s = alone.submit(time_million, family, name, kind).result()
        assert became == kind, became
        rows.append((f"{family}, {name}", kind, f"{took_s:.2f} s", f"{spread_s:.2f} s", f"{drawn_s:.2f} s"))
        found.append({"space": name, "kind": kind, "predict_s": took_s, "draw_s": drawn_s})
        if kind == "linear":
            requirements.append(Requirement(f"{name}, linear: {took_s:.2f} s, below 2 s", took_s < 2))
    print_table(
        ("space", "kind of model, of 100 rows", "predicting, median of 3", "slowest less fastest", "drawing them"), rows
    )
    return print_targets(requirements), found


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--perceptron-draws", type=int, default=3, help="the first so many, of HAT's perceptron")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep every score, as JSON")
    options = parser.parse_args()
    missing = [name for name in TABLES.values() if not (options.data / name).is_file()]
    if missing:
        print(f"skipped: {options.data} lacks {', '.join(missing)}; --data names another folder")
        return
    start = time.monotonic()
    slow_draws = min(options.perceptron_draws, options.draws)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context) as pool:
        scores = Scores([score for job in _jobs(pool, options, slow_draws) for score in job.result()])
    print(f"Latencies: published, measured by others. Everything else: measured on {hardware()}.\n")
    requirements = report_errors(scores, options.draws, slow_draws)
    requirements += report_intervals(scores, options.draws)
    requirements += report_transfer(scores, options.draws, slow_draws)
    told, findings = report_hygiene(options.data)
    quick, million = report_million(context)
    requirements += [*told, *quick]
    met = sum(one.met for one in requirements)
    print(f"targets: {met} of {len(requirements)} met; {time.monotonic() - start:.0f} s on {hardware()}, measured")
    if options.out:
        kept = {
            "hardware": hardware(),
            "scores": [one._asdict() for one in scores.all],
            "findings": findings,
            "million": million,
            "requirements": [one._asdict() for one in requirements],
        }
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def _jobs(pool: ProcessPoolExecutor, options: argparse.Namespace, slow_draws: int) -> list[Future[list[Score]]]:
    """The long ones first."""
    data, draws = options.data, range(options.draws)
    slow = [(name, draw, MOST_ROWS) for name in HAT for draw in range(slow_draws)]
    slow += [(name, draw, size) for size in (SIZES[-1], SIZES[0]) for name in TABLES for draw in range(slow_draws)]
    jobs = [pool.submit(score_perceptron, data, *one) for one in slow]
    jobs += [pool.submit(score_draw, data, name, draw) for name in TABLES for draw in draws]
    pairs = (*itertools.permutations(HAT, 2), *itertools.permutations(BERT, 2))
    return jobs + [pool.submit(score_transfer, data, *pair, draw) for pair in pairs for draw in draws]


if __name__ == "__main__":
    main()
