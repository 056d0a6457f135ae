"""How much of a profile is spent inside inferences: `python benchmarks/profile_overhead.py [--device cpu] [--n 24]`.

A supernet of the space `tiny` is trained for a few updates on the built-in text (its latencies do not depend on what it
has learned), and `--n` of its subnets are profiled as a user would. `--project` takes a folder of yours instead, whose
targets/ know the device: a board behind ssh, say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRAIN = ("train", "--space", "tiny", "--updates", "5", "--evaluate-every", "5", "--sequence-length", "32")


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
    parser.add_argument("--device", action="append", help="repeatable [cpu]")
    parser.add_argument("--n", type=int, default=24, help="subnets to profile")
    parser.add_argument("--project", type=Path, help="[a new one]")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        project = arguments.project or Path(scratch)
        if arguments.project is None:
            mostool(project, *TRAIN)
        for device in arguments.device or ["cpu"]:
            found = mostool(project, "profile", "--device", device, "--n", str(arguments.n), "--fresh")
            environment = found["environment"]
            share = found["called_s"] / found["elapsed_s"]
            rows.append((device, environment["cpu"], found["source"], found["timed"], found["elapsed_s"], share, found))
    print(
        f"{'device':<12}{'processor':<28}{'numbers are':<12}{'subnets':>8}{'seconds':>9}{'inside calls':>14}{'A/A':>8}"
    )
    for device, cpu, source, timed, elapsed_s, share, found in rows:
        floor = f"{100 * found['noise_floor']['value']:.2f} %" if found["noise_floor"] else "-"
        print(f"{device:<12}{cpu[:26]:<28}{source:<12}{timed:>8}{elapsed_s:>9.0f}{100 * share:>12.1f} %{floor:>8}")


if __name__ == "__main__":
    main()
