"""What a training update of a mixture costs beside one of plain sharing. One command, one table:

    python benchmarks/mixture_overhead.py [--space small] [--rounds 12] [--threads 1]

A sandwich update (largest, smallest and a random subnet, backward, clip, AdamW) on one batch of 64 sequences of 64
tokens, masked words. The kinds take turns within every round on the same subnets; the ratio is the median over rounds
of the paired ratio to plain sharing, on process CPU time (one thread) and on wall-clock time.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from toolchain.records import Mixture, Training
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.module import Batch, Supernet
from toolchain.supernet.train import build_optimizer, draw_architectures

BATCH, LENGTH, VOCABULARY = 64, 64, 8000


def update(supernet: Supernet, optimizer: torch.optim.Optimizer, training: Training, number: int) -> None:
    rng = np.random.default_rng(number)
    ids = torch.from_numpy(rng.integers(5, VOCABULARY, (BATCH, LENGTH)))
    positions = torch.from_numpy(np.argwhere(rng.random((BATCH, LENGTH)) < 0.15))
    targets = torch.from_numpy(rng.integers(5, VOCABULARY, len(positions)))
    batch = Batch(ids, torch.ones_like(ids), positions)
    optimizer.zero_grad(set_to_none=True)
    for architecture in draw_architectures(supernet.space, training, number).values():
        torch.nn.functional.cross_entropy(supernet(batch, architecture), targets).backward()
    torch.nn.utils.clip_grad_norm_(supernet.parameters(), 1.0)
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="small")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    declared = declaration("bert")
    space = declared.resolve(
        declared.SPACES[options.space], vocabulary_size=VOCABULARY, labels=0, maximum_length=LENGTH
    )
    kinds = {
        "plain sharing": Mixture(kind="plain"),
        "layer-wise, m=2": Mixture(kind="layer"),
        "neuron-wise, m=2": Mixture(kind="neuron"),
        "neuron-wise, m=4": Mixture(kind="neuron", experts=4),
    }
    training = Training(task="mlm")
    contenders = {}
    for name, mixture in kinds.items():
        torch.manual_seed(0)
        supernet = build_supernet(space, mixture, 0.1).train()
        contenders[name] = supernet, build_optimizer(supernet, training)
    walls = {name: [] for name in kinds}
    cpus = {name: [] for name in kinds}
    order = np.random.default_rng(0)
    for number in range(options.rounds + 2):
        for name in order.permutation(list(kinds)):
            supernet, optimizer = contenders[name]
            wall, cpu = time.perf_counter(), time.process_time()
            update(supernet, optimizer, training, number)
            if number >= 2:
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    print(f"space {options.space}, batch {BATCH} x {LENGTH} tokens, {options.threads} thread(s)")
    print(f"medians of {options.rounds} rounds, measured on {platform.processor() or platform.machine()}")
    print(f"{'kind':18} {'parameters':>11} {'ms/update':>10} {'CPU ratio':>10} {'wall ratio':>11}")
    base_wall, base_cpu = np.array(walls["plain sharing"]), np.array(cpus["plain sharing"])
    for name in kinds:
        wall, cpu = np.array(walls[name]), np.array(cpus[name])
        parameters = sum(parameter.numel() for parameter in contenders[name][0].parameters())
        print(
            f"{name:18} {parameters:11,} {1e3 * np.median(wall):10.0f} "
            f"{np.median(cpu / base_cpu):10.3f} {np.median(wall / base_wall):11.3f}"
        )


if __name__ == "__main__":
    main()
