"""The translation part of compile.py: every contestant translates the same source into as many words, timed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compile_peers import OURS, OURS_INT8
from compile_report import kinds
from compile_timing import race
from compile_translation import SIZES, Contestant, Model, build_model, contestants, truth

from toolchain.targets import Target


def translations(arguments: argparse.Namespace, scratch: Path, target: Target) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    missing: dict[str, None] = {}
    for seed, size in enumerate(SIZES[-1:] if arguments.quick else SIZES):
        model = build_model(size, seed)
        chosen = (OURS, OURS_INT8, *arguments.contestants)
        found, left_out = contestants(
            model,
            scratch / size.name.replace(" ", "-"),
            target,
            lambda name, chosen=chosen: len(chosen) == 2 or name in chosen,
        )
        missing |= dict.fromkeys(f"{name} was left out: {reason}" for name, reason in left_out.items())
        mine = measured(model, found, arguments)
        rows += mine
        print(table(model, found, mine), flush=True)
    for told in missing:
        print(told)
    return rows


def measured(model: Model, found: list[Contestant], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contestant and number of threads."""
    rows = []
    wanted, ahead = truth(model)
    for threads in arguments.threads:
        calls = {one.name: one.open(threads) for one in found}
        same = {name: alike(call(), wanted) for name, call in calls.items()}
        times = race(calls, arguments.seconds, arguments.rounds, threads)
        rows += [
            {
                "model": model.size.name,
                "contestant": one.name,
                "low": one.low,
                "length": model.size.source,
                "words": model.size.steps,
                "threads": threads,
                **times[one.name].told(times[ours_of(one, calls)]),
                "bytes": one.bytes,
                "words_alike": same[one.name],
                "least_lead": ahead,
            }
            for one in found
        ]
    return rows


def ours_of(one: Contestant, calls: dict[str, Any]) -> str:
    """Who a contestant is compared with: our file of its kind, where we have one."""
    return OURS_INT8 if one.low and OURS_INT8 in calls else OURS


def alike(words: list[int], wanted: list[int]) -> int:
    """How many words come before the first that differs from the module's; another length is none."""
    if len(words) != len(wanted):
        return 0
    return next((place for place, pair in enumerate(zip(words, wanted, strict=True)) if pair[0] != pair[1]), len(words))


def table(model: Model, found: list[Contestant], rows: list[dict[str, Any]]) -> str:
    size = model.size
    names = [one.name for one in found]
    lines = [
        f"{size.name}, {1e-6 * model.parameters:.1f} M parameters, {size.steps} words of {size.source} tokens, greedy",
        f"  {'':30}" + "".join(f"{name:>18}" for name in names),
    ]
    for threads in sorted({one["threads"] for one in rows}):
        here = {one["contestant"]: one for one in rows if one["threads"] == threads}
        for time_of, ratio, said in kinds(threads):
            label = f"{threads} thread{'s' * (threads > 1)}{said}: words a second"
            speeds = "".join(f"{1e3 * size.steps / here[name][time_of]:18.1f}" for name in names)
            ratios = "".join(f"{here[name][ratio]:18.2f}" for name in names)
            lines += [f"  {label:30}{speeds}", f"  {'  times as long as ours':30}{ratios}"]
    by_name = {one["contestant"]: one for one in rows}
    same = "".join(f"{by_name[name]['words_alike']:18d}" for name in names)
    sizes = "".join(f"{1e-6 * by_name[name]['bytes']:18.1f}" for name in names)
    lines += [f"  {'first words as the module':30}{same}", f"  {'MB':30}{sizes}"]
    return "\n".join(lines) + "\n"
