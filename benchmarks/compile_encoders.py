"""The encoders' part of compile.py: every contestant timed, its answers compared, and the table."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compile_models import SIZES, Model, build_model, feed_of, rows_of
from compile_peers import OURS, OURS_INT8, Call, Contestant, Ids, contestants
from compile_report import kinds
from compile_timing import Times, race

from toolchain.targets import Target

PEAK_OF = "mid 4x512 every"
QUALITY_ROWS = 16
LEFT = 8
"""Tokens of padding on the left, which some tools' fused attention does not expect."""


def encoders(arguments: argparse.Namespace, scratch: Path, target: Target, peak: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    missing: dict[str, list[str]] = {}
    for seed, size in enumerate(SIZES):
        if size.name not in arguments.models:
            continue
        model = build_model(size, seed)
        folder = scratch / size.name.replace(" ", "-")
        folder.mkdir()
        found, left_out = contestants(
            model,
            folder,
            target,
            lambda name: name in (OURS, OURS_INT8, *(arguments.contestants or (name,))),
        )
        for name, reason in left_out.items():
            missing.setdefault(f"{name} was left out: {reason}", []).append(size.name)
        mine = measured(model, found, arguments)
        rows += mine
        print(encoder_table(model, found, mine, peak if size.name == PEAK_OF else None), flush=True)
    for told, names in missing.items():
        print(f"{told} ({', '.join(names)})")
    return rows


def measured(model: Model, found: list[Contestant], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contestant, length and number of threads."""
    rows = []
    errors: dict[str, tuple[float, float | None]] = {}
    for threads in arguments.threads:
        opened, seconds = {}, {}
        for one in found:
            begun = time.perf_counter()
            opened[one.name] = one.open(threads)
            seconds[one.name] = time.perf_counter() - begun
        errors = errors or {one.name: quality(model, opened[one.name], one.any_mask) for one in found}
        for length in arguments.lengths:
            feed = feed_of(rows_of(model.size, length, 1, seed=length))
            calls = {name: bind(feed) for name, bind in opened.items()}
            times = race(calls, arguments.seconds, arguments.rounds, threads, seed=length)
            rows += [
                row_of(model, one, length, threads, times, errors) | {"open_s": seconds[one.name]} for one in found
            ]
    return rows


def row_of(
    model: Model,
    one: Contestant,
    length: int,
    threads: int,
    times: dict[str, Times],
    errors: dict[str, tuple[float, float | None]],
) -> dict[str, Any]:
    mine = times[one.name]
    return {
        "model": model.size.name,
        "contestant": one.name,
        "low": one.low,
        "length": length,
        "threads": threads,
        **mine.told(times[OURS_INT8 if one.low else OURS]),
        "gflop": 1e-9 * model.dense_flop(length),
        "bytes": one.bytes,
        "error": errors[one.name][0],
        "error_left": errors[one.name][1],
    }


def quality(model: Model, bind: Any, any_mask: bool) -> tuple[float, float | None]:
    """The root mean square of what a contestant's logits differ from the module's by, as a share of theirs.

    Of rows run one by one and, where there may be any mask, of the same rows with padding on the left.
    """
    rows = rows_of(model.size, 32, QUALITY_ROWS, seed=3)
    errors: list[float | None] = []
    for left in (0, LEFT):
        if left and not any_mask:
            errors.append(None)
            continue
        feeds = [feed_of(row[None], left) for row in rows]
        with torch.no_grad():
            truth = [model.subnet(*map(torch.from_numpy, feed.values())).numpy() for feed in feeds]
        errors.append(relative([answer(bind, feed) for feed in feeds], truth))
    assert errors[0] is not None
    return errors[0], errors[1]


def answer(bind: Any, feed: dict[str, Ids]) -> Any:
    call: Call = bind(feed)
    return np.array(call())  # OpenVINO's next answer would lie in the same place


def relative(answers: list[Any], truth: list[Any]) -> float:
    got, wanted = np.concatenate(answers).astype(np.float64), np.concatenate(truth).astype(np.float64)
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))


def encoder_table(model: Model, found: list[Contestant], rows: list[dict[str, Any]], peak: float | None) -> str:
    kind = f"{'plain' if model.size.plain else 'linked'}, answers {'for every token' if model.size.every else 'once'}"
    lines = [f"{model.size.name}: {kind}, {1e-6 * model.parameters:.1f} M parameters, batch 1"]
    for low, ours in ((False, OURS), (True, OURS_INT8)):
        names = [one.name for one in found if one.low is low]
        others = [name for name in names if name != ours]
        lines.append(f"  {ours + ': ms':34}{'median':>9}" + "".join(f"{name:>18}" for name in others))
        for length, threads in sorted({(one["length"], one["threads"]) for one in rows}):
            here = {one["contestant"]: one for one in rows if one["length"] == length and one["threads"] == threads}
            for time_of, ratio, said in kinds(threads):
                label = f"{length} tokens, {threads} thread{'s' * (threads > 1)}{said}"
                cells = "".join(f"{here[name][ratio]:18.2f}" for name in others)
                lines.append(f"    {label:32}{here[ours][time_of]:9.2f}{cells}")
        by_name = {one["contestant"]: one for one in rows}
        for key, label in (("error", "relative error"), ("error_left", f"  {LEFT} padded left")):
            told = [by_name[name][key] for name in (ours, *others)]
            cells = [f"{value:.0e}" if value is not None else "-" for value in told]
            lines.append(f"    {label:32}{cells[0]:>9}" + "".join(f"{cell:>18}" for cell in cells[1:]))
        sizes = "".join(f"{1e-6 * by_name[name]['bytes']:18.1f}" for name in others)
        lines.append(f"    {'MB':32}{1e-6 * by_name[ours]['bytes']:9.1f}{sizes}")
        if peak and not low:
            lines += shares(rows, others, peak)
    return "\n".join(lines) + "\n"


def shares(rows: list[dict[str, Any]], others: list[str], peak: float) -> list[str]:
    """How much of what the processor multiplies at best the dense layers alone account for."""
    lines = []
    for length in sorted({one["length"] for one in rows}):
        share = {
            one["contestant"]: 1e3 * one["gflop"] / one["least_cpu_ms"] / peak
            for one in rows
            if one["length"] == length and one["threads"] == 1
        }
        if share:
            cells = "".join(f"{share[name]:17.0%} " for name in others)
            lines.append(f"    {f'{length} tokens, of the peak':32}{share[OURS]:8.0%} {cells}")
    return lines
