"""What a training update of a mixture costs beside one of plain sharing. One command, one table:

    python benchmarks/mixture_overhead.py [--family bert] [--space small] [--rounds 12] [--threads 1]

A sandwich update (largest, smallest and a random subnet, backward, clip, AdamW) on one batch of 64 sequences of 64
tokens: masked words, or translations of that length. The kinds take turns within every round on the same subnets; the
ratio is the median over rounds of the paired ratio to plain sharing, on process CPU time (one thread) and on wall-clock
time. Peak memory is that of a process of its own which makes three such updates, the interpreter and torch included.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from toolchain.records import Mixture, Training
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.train import build_optimizer, draw_architectures

BATCH, LENGTH, VOCABULARY = 64, 64, 8000
KINDS = {
    "plain sharing": Mixture(kind="plain", experts=1),
    "layer-wise, m=2": Mixture(kind="layer"),
    "neuron-wise, m=2": Mixture(kind="neuron"),
    "neuron-wise, m=2, attention too": Mixture(kind="neuron", attention=True),
    "neuron-wise, m=4": Mixture(kind="neuron", experts=4),
}


def update(supernet: Supernet, optimizer: torch.optim.Optimizer, training: Training, number: int) -> None:
    rng = np.random.default_rng(number)
    ids = torch.from_numpy(rng.integers(5, VOCABULARY, (BATCH, LENGTH)))
    translates = supernet.space.family == "translation"
    asked = np.ones((BATCH, LENGTH), bool) if translates else rng.random((BATCH, LENGTH)) < 0.15
    positions = torch.from_numpy(np.argwhere(asked))
    targets = torch.from_numpy(rng.integers(5, VOCABULARY, len(positions)))
    batch = Batch(ids, torch.ones_like(ids), positions, ids.flip(1) if translates else None)
    optimizer.zero_grad(set_to_none=True)
    for architecture in draw_architectures(supernet.space, training, number).values():
        torch.nn.functional.cross_entropy(supernet(batch, architecture), targets).backward()
    torch.nn.utils.clip_grad_norm_(supernet.parameters(), 1.0)
    optimizer.step()


def build(options: argparse.Namespace, name: str) -> tuple[Supernet, torch.optim.Optimizer, Training]:
    declared = declaration(options.family)
    space = declared.resolve(
        declared.SPACES[options.space], vocabulary_size=VOCABULARY, labels=0, maximum_length=LENGTH
    )
    training = Training(task="mlm" if options.family == "bert" else "translate")
    torch.manual_seed(0)
    supernet = build_supernet(space, KINDS[name], 0.1).train()
    return supernet, build_optimizer(supernet, training), training


def high_water_bytes() -> int:
    """The largest this process has been: VmHWM, for ru_maxrss remembers the parent's size across a fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def peak_bytes(name: str) -> int:
    """The peak memory of a process that makes three updates of this kind."""
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--peak", name], capture_output=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["bert", "translation"], default="bert")
    parser.add_argument("--space", default="small")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        made = build(options, options.peak)
        for number in range(3):
            update(*made, number)
        print(high_water_bytes())
        return
    contenders = {name: build(options, name) for name in KINDS}
    walls: dict[str, list[float]] = {name: [] for name in KINDS}
    cpus: dict[str, list[float]] = {name: [] for name in KINDS}
    order = np.random.default_rng(0)
    for number in range(options.rounds + 2):
        for name in order.permutation(list(KINDS)):
            wall, cpu = time.perf_counter(), time.process_time()
            update(*contenders[name], number)
            if number >= 2:
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    print(f"{options.family}, space {options.space}, batch {BATCH} x {LENGTH} tokens, {options.threads} thread(s)")
    print(f"medians of {options.rounds} rounds, measured on {platform.processor() or platform.machine()}")
    print(f"{'kind':32} {'parameters':>11} {'ms/update':>10} {'CPU ratio':>10} {'wall ratio':>11} {'peak memory':>12}")
    base_wall, base_cpu = np.array(walls["plain sharing"]), np.array(cpus["plain sharing"])
    for name, (supernet, _, _) in contenders.items():
        wall, cpu = np.array(walls[name]), np.array(cpus[name])
        parameters = sum(parameter.numel() for parameter in supernet.parameters())
        print(
            f"{name:32} {parameters:11,} {1e3 * np.median(wall):10.0f} {np.median(cpu / base_cpu):10.3f} "
            f"{np.median(wall / base_wall):11.3f} {peak_bytes(name) / 2**20:8.0f} MiB"
        )


if __name__ == "__main__":
    main()
