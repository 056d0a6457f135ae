"""How far subnets inside a supernet are from the same subnets trained alone. One command, one table:

    python benchmarks/supernet_gap.py --task translate --data train.en train.de --valid val.en val.de
    python benchmarks/supernet_gap.py --task mlm --data wikitext.txt

For each seed it trains every method's supernet (single-path, sandwich and progressive with plain sharing, layer-wise
and neuron-wise mixtures) and each of N architectures from scratch, all on the same data with the same number of
updates, and compares the quality of those architectures. Everything is kept under --out: killed and run again it goes
on, and --minutes makes it stop by itself, so that it can run in pieces; `--table` prints what there is.

gap: loss inside the supernet minus loss from scratch, on held-out items (mean over architectures of its absolute value,
then mean and spread over seeds); short: the same of what is lost only, max(gap, 0), for a subnet may also be better
inside the supernet than alone. tau: Kendall's rank correlation of the two losses, over all architectures and (mean)
among those of one depth. Translations are also compared by BLEU, greedy, on the first --bleu-items of the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import msgspec
import numpy as np
import torch
from scipy.stats import kendalltau

from toolchain.pipeline.data import Source
from toolchain.pipeline.project import Project
from toolchain.pipeline.runs import Run
from toolchain.pipeline.spaces import read_space
from toolchain.pipeline.train import train_supernet
from toolchain.pipeline.translate import translate
from toolchain.progress import Progress
from toolchain.records import Mixture, Training, read_record
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.supernet.state import STATE_FILE, TrainingState

PLAIN = Mixture(kind="plain", experts=1)
METHODS: dict[str, dict[str, Any]] = {
    "single-path": {"recipe": "single-path", "mixture": PLAIN},
    "sandwich": {"mixture": PLAIN},
    "layer-wise": {"mixture": Mixture(kind="layer")},
    "neuron-wise": {"mixture": Mixture(kind="neuron")},
    "progressive": {"recipe": "progressive", "mixture": PLAIN},
    "neuron-progressive": {"recipe": "progressive", "mixture": Mixture(kind="neuron")},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "neuron-spread2": {"mixture": Mixture(kind="neuron", router_spread=2.0)},
    "neuron-spread2-attention": {"mixture": Mixture(kind="neuron", router_spread=2.0, attention=True)},
    "neuron-m4": {"mixture": Mixture(kind="neuron", experts=4)},
    "neuron-averages": {"mixture": Mixture(kind="neuron", router_sees="averages")},
    "sandwich-distill": {"mixture": PLAIN, "distill": 0.5},
}
"""Measured on request: --methods sandwich,neuron-spread2."""

SPACES = {
    "translate": SearchSpace(
        "gap",
        "translation",
        (
            Axis("encoder_embedding", (24, 36, 48)),
            Axis("decoder_embedding", (24, 36, 48)),
            Axis("encoder_depth", (2,)),
            Axis("decoder_depth", (1, 2)),
            Axis("encoder_ffn", (24, 48, 96, 192), per="encoder_depth"),
            Axis("encoder_heads", (2, 4), per="encoder_depth"),
            Axis("decoder_ffn", (24, 48, 96, 192), per="decoder_depth"),
            Axis("decoder_heads", (2, 4), per="decoder_depth"),
            Axis("cross_heads", (2, 4), per="decoder_depth"),
            Axis("cross_layers", (1, 2), per="decoder_depth"),
        ),
        {"width": 48, "attention": 48},
    ),
    "mlm": SearchSpace(
        "gap",
        "bert",
        (
            Axis("embedding", (32, 64)),
            Axis("depth", (1, 2)),
            Axis("hidden", (32, 48, 64), per="depth"),
            Axis("heads", (2, 3, 4), per="depth"),
            Axis("ffn", (64, 128, 256), per="depth"),
        ),
        {"width": 64, "head_width": 16},
    ),
}
DEPTH = {"translate": "decoder_depth", "mlm": "depth"}
USUAL = {
    "translate": {"updates": 3000, "sequence_length": 40, "learning_rate": 3e-3},
    "mlm": {"updates": 4800, "sequence_length": 32, "learning_rate": 2.5e-3},
}
"""Fewer updates would say little: masked words are learned in two steps, and before the second all models are alike."""


class Settings(NamedTuple):
    """One run of the benchmark."""

    project: Project
    source: Source
    space: SearchSpace
    training: Training
    architectures: list[Architecture]
    bleu_items: int
    deadline: float


def main() -> None:
    options = _parse()
    training = Training(
        task=options.task,
        updates=options.updates,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens if options.task == "translate" else 0,
        sequence_length=options.sequence_length,
        vocabulary_size=options.vocabulary_size,
        learning_rate=options.learning_rate,
        warmup_updates=options.updates // 10,
        label_smoothing=0.1 if options.task == "translate" else 0.0,
        dropout=0.0,
        evaluate_every=options.updates,
    )
    space = SPACES[options.task] if options.space is None else read_space(_family(options.task), options.space)
    torch.set_num_threads(options.threads)
    settings = Settings(
        Project(options.out),
        Source(tuple(options.data), tuple(options.valid)),
        space,
        training,
        draw(space, DEPTH[options.task], options.architectures),
        options.bleu_items,
        time.monotonic() + 60 * options.minutes,
    )
    methods = options.methods.split(",")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    try:
        for seed in () if options.table else seeds:
            for method in methods if "supernets" in options.parts else ():
                measure_supernet(settings, method, seed)
            for architecture in settings.architectures if "alone" in options.parts else ():
                measure_alone(settings, architecture, seed)
    except TimeoutError:
        print(f"stopped after {options.minutes} minutes: run the same command again to go on\n")
    print_table(settings, methods, list(seeds), options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(SPACES), default="mlm")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="as mostool train takes it")
    parser.add_argument("--valid", type=Path, nargs="+", default=[])
    parser.add_argument("--space", help="a shipped space or a TOML file; the benchmark's own small one unless given")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS | VARIANTS)}")
    parser.add_argument("--parts", default="supernets,alone", help="train only these: two machines can share the work")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--architectures", type=int, default=8)
    parser.add_argument("--updates", type=int, help="by task: see USUAL")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, default=768)
    parser.add_argument("--sequence-length", type=int, help="by task: see USUAL")
    parser.add_argument("--vocabulary-size", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, help="by task: see USUAL")
    parser.add_argument("--bleu-items", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, to go on another time")
    parser.add_argument("--out", type=Path, default=Path("supernet-gap"))
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args()
    for name, value in USUAL[options.task].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _family(task: str) -> str:
    return "translation" if task == "translate" else "bert"


def draw(space: SearchSpace, depth: str, count: int) -> list[Architecture]:
    """The extremes, then random architectures, as many of one depth as of another."""
    rng = np.random.default_rng(2023)
    drawn = {one.id: one for one in (space.smallest(), space.largest())}
    depths = space.axis(depth).choices
    while len(drawn) < count:
        counts = {choice: sum(one.number(depth) == choice for one in drawn.values()) for choice in depths}
        one = space.sample(rng)
        if counts[one.number(depth)] == min(counts.values()):
            drawn.setdefault(one.id, one)
    return list(drawn.values())


# -- what is measured, and kept ----------------------------------------------------------------------------------------


def measure_supernet(settings: Settings, method: str, seed: int) -> None:
    name = f"{settings.training.task}-{method}-{seed}"
    training = msgspec.structs.replace(settings.training, seed=seed, **(METHODS | VARIANTS)[method])
    _measure(settings, name, settings.space, training, settings.architectures)


def measure_alone(settings: Settings, architecture: Architecture, seed: int) -> None:
    name = f"{settings.training.task}-alone-{architecture.id}-{seed}"
    training = msgspec.structs.replace(settings.training, seed=seed, mixture=PLAIN)
    _measure(settings, name, settings.space.narrowed(architecture), training, [architecture])


def _measure(
    settings: Settings, name: str, space: SearchSpace, training: Training, architectures: list[Architecture]
) -> None:
    path = settings.project.root / "results" / f"{name}.json"
    if path.exists():
        return
    # The seed decides the split of the data, the model and its batches, in one way for all methods.
    folder = settings.project.runs / name

    def within_time(progress: Progress) -> None:
        if time.monotonic() > settings.deadline:
            raise TimeoutError(progress.stage)

    run = train_supernet(settings.project, settings.source, space, training, out=folder, listener=within_time)
    state = read_record(folder / STATE_FILE, TrainingState)
    result: dict[str, Any] = {"seconds_per_update": state.seconds / state.update, "mixture": state.curve[-1].mixture}
    result |= {"parameters": run.info.parameters, "loss": {}, "bleu": {}}
    for architecture in architectures:
        quality = run.quality(run.supernet_predict(architecture), "test")
        result["loss"][architecture.id] = quality.loss
        if training.task == "translate":
            result["bleu"][architecture.id] = _bleu(run, architecture, settings.bleu_items)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.replace(path)
    print(f"{name}: mean loss {statistics.mean(result['loss'].values()):.4f}", flush=True)


def _bleu(run: Run, architecture: Architecture, items: int) -> float:
    return 100 * translate(run, architecture, "subnet", "test", limit=items).quality.value


# -- the table ---------------------------------------------------------------------------------------------------------


def print_table(settings: Settings, methods: list[str], seeds: list[int], options: argparse.Namespace) -> None:
    training = settings.training
    print(
        f"{training.task}: {training.updates} updates of {training.batch_tokens or training.batch_size} "
        f"{'tokens' if training.batch_tokens else 'sequences'}, {training.sequence_length} tokens at most, vocabulary "
        f"{training.vocabulary_size}, {len(settings.architectures)} architectures, {options.threads} thread(s) on "
        f"{platform.machine()}; measured, shared machine"
    )
    translates = training.task == "translate"
    bleu = f" {'BLEU gap':>12}" if translates else ""
    print(
        f"{'method':24} {'seeds':>5} {'gap (loss)':>15} {'short':>15} {'largest':>8} {'smallest':>8}{bleu} {'tau':>6} "
        f"{'in depth':>8} {'s/update':>9} {'parameters':>11}"
    )
    for method in methods:
        rows = [row for seed in seeds if (row := _compared(settings, method, seed)) is not None]
        if not rows:
            print(f"{method:24} {0:5}")
            continue
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        spread, short_spread = (statistics.pstdev(row[key] for row in rows) for key in ("gap", "short"))
        bleu = f" {mean['bleu']:12.2f}" if translates else ""
        print(
            f"{method:24} {len(rows):5} {mean['gap']:8.4f} ±{spread:.4f} {mean['short']:8.4f} ±{short_spread:.4f} "
            f"{mean['largest']:8.4f} {mean['smallest']:8.4f}{bleu} {mean['tau']:6.2f} {mean['in_depth']:8.2f} "
            f"{mean['seconds']:9.3f} {mean['parameters']:11,.0f}"
        )
    alone = [found for seed in seeds if (found := _alone(settings, seed)) is not None]
    if alone:
        loss = statistics.mean(statistics.mean(one["loss"].values()) for one in alone)
        print(f"{'from scratch':24} {len(alone):5}  mean loss {loss:.4f}")


def _read(settings: Settings, name: str) -> dict[str, Any] | None:
    path = settings.project.root / "results" / f"{settings.training.task}-{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _alone(settings: Settings, seed: int) -> dict[str, Any] | None:
    """Every architecture from scratch; None until all are there."""
    found = [_read(settings, f"alone-{one.id}-{seed}") for one in settings.architectures]
    if any(one is None for one in found):
        return None
    merged: dict[str, Any] = {"loss": {}, "bleu": {}}
    for one in found:
        merged["loss"] |= one["loss"]  # type: ignore[index]
        merged["bleu"] |= one["bleu"]  # type: ignore[index]
    return merged


def _compared(settings: Settings, method: str, seed: int) -> dict[str, float] | None:
    inside, alone = _read(settings, f"{method}-{seed}"), _alone(settings, seed)
    if inside is None or alone is None:
        return None
    ids = [one.id for one in settings.architectures]
    gaps = [inside["loss"][name] - alone["loss"][name] for name in ids]
    depths: dict[int, list[str]] = {}
    for one in settings.architectures:
        depths.setdefault(one.number(DEPTH[settings.training.task]), []).append(one.id)
    in_depth = [_tau(inside["loss"], alone["loss"], group) for group in depths.values() if len(group) > 2]
    row = {
        "gap": statistics.mean(map(abs, gaps)),
        "short": statistics.mean(max(gap, 0.0) for gap in gaps),
        "smallest": gaps[0],
        "largest": gaps[1],
        "tau": _tau(inside["loss"], alone["loss"], ids),
        "in_depth": statistics.mean(in_depth) if in_depth else float("nan"),
        "seconds": inside["seconds_per_update"],
        "parameters": inside["parameters"],
    }
    if settings.training.task == "translate":
        row["bleu"] = statistics.mean(abs(inside["bleu"][name] - alone["bleu"][name]) for name in ids)
    return row


def _tau(first: dict[str, float], second: dict[str, float], ids: list[str]) -> float:
    return float(kendalltau([first[name] for name in ids], [second[name] for name in ids]).statistic)


if __name__ == "__main__":
    main()
