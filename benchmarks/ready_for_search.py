"""How soon a device is ready for search: `python benchmarks/ready_for_search.py [--space small] [--target-error 3%]`.

A supernet is trained for a few updates on the built-in text (its latencies do not depend on what it has learned), and
its device profiled until the predictor's own held-out error is within the target. Then `--held-out` random subnets that
nobody chose are measured into the same table, and compared with what had been predicted of them. On a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

LENGTH = "64"


def mostool(project: Path, *arguments: str) -> dict[str, Any]:
    """The data of a command's JSON answer."""
    command = [sys.executable, "-P", "-m", "toolchain", *arguments, "--json"]
    done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, check=False)
    answer = json.loads(done.stdout)
    if not answer["ok"]:
        raise SystemExit(f"mostool {arguments[0]}: {answer['error']}")
    found: dict[str, Any] = answer["data"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--space", default="small")
    parser.add_argument("--target-error", default="3%")
    parser.add_argument("--budget", default="10min")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    device = ("--device", arguments.device)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        train = ("train", "--space", arguments.space, "--updates", "5", "--evaluate-every", "5")
        mostool(project, *train, "--sequence-length", LENGTH)
        goal = ("--target-error", arguments.target_error, "--budget", arguments.budget)
        profiled = mostool(project, "profile", *device, *goal)
        drawn = mostool(project, "sample", "--n", str(arguments.held_out), "--seed", str(arguments.seed))
        named = [text for one in drawn for text in ("--arch", json.dumps(one["architecture"]))]
        predicted = mostool(project, "predict", *device, *named)
        mostool(project, "profile", *device, *named)
        out = project / "table.jsonl"
        mostool(project, "predict", *device, "--export", str(out))
        measured_s = {row["id"]: row["latency_s"] for row in map(json.loads, out.read_text().splitlines())}
    guesses = {one["id"]: one for one in predicted["predictions"]}
    truth = np.array([measured_s[name] for name in guesses])
    guess = np.array([one["latency_s"] for one in guesses.values()])
    relative = np.abs(guess / truth - 1)
    inside = [one["low_s"] <= measured_s[name] <= one["high_s"] for name, one in guesses.items()]
    print(f"{profiled['source']} on {arguments.device}: {profiled['environment']['cpu']}, space {arguments.space}")
    print(f"ready after {profiled['elapsed_s']:.0f} s with {profiled['timed']} subnets (goal {arguments.target_error})")
    print(f"its own held-out error      {100 * profiled['predictor_error']['mape']:.2f} %")
    print(f"MAPE on {len(guesses)} random others    {100 * relative.mean():.2f} % (worst {100 * relative.max():.1f} %)")
    level = float(np.median(truth / guess))
    print(f"of it the machine's level   {100 * (level - 1):+.2f} % from one session to the next (median of the ratios)")
    print(f"without it                  {100 * np.abs(guess * level / truth - 1).mean():.2f} %")
    print(f"Kendall tau                 {kendalltau(truth, guess).statistic:.3f}")
    print(f"inside their 90 % intervals {sum(inside)} of {len(inside)}")
    print(f"kind of model               {predicted['kind']}; noise floor (A/A) {_floor(profiled)}")


def _floor(profiled: dict[str, Any]) -> str:
    floor = profiled["noise_floor"]
    return f"{100 * floor['value']:.2f} %" if floor else "-"


if __name__ == "__main__":
    main()
