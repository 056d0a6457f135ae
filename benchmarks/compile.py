"""How fast the files are that mostool makes, beside what others make of the same weights. One command:

    python benchmarks/compile.py [--quick] [--parts encoders,translation,start] [--models "mid 4x512,..."]
        [--lengths 32,128] [--threads 1,2] [--seconds 1.5] [--load 0] [--bundle FOLDER] [--json FILE]

Encoders: plain ones are BERT itself, which every peer can express; in linked ones each layer has its own width, as the
subnets of a run have. Most answer once per text, those named `every` for every token: mostool's files leave out of the
last layer what a single answer does not need, and no peer does. Weights are drawn from a seed: speed does not ask for
better ones, and errors of int8 compare tools with each other and say nothing of a trained model. All contestants take
turns within each round, in one process, batch 1; a figure is the median over rounds, a ratio that of paired rounds:
above 1 mostool's file is faster. At one thread the CPU time of the process is told too, which other work on the machine
disturbs less; `least` compares the least times of both. Files in fp32 are compared with mostool's fp32 file, what
computes in less with its int8 file. Peers (pip install): optimum-onnx, openvino, ctranslate2; who is not installed is
left out and named. `--load N` keeps N processes busy meanwhile.

Translation: greedy, a fixed number of words. The weights go into mostool's one file, into CTranslate2's own format and,
as a Marian model of transformers, through optimum's exporter; all fp32 contestants must give the module's words.

Start: seconds from an artifact to a session, and of a bundle's own example from a cold interpreter.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import inspect
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from compile_encoders import encoders
from compile_models import LABELS, LONGEST, SIZES, build_model
from compile_peers import OURS, OURS_INT8, contestants
from compile_report import summary
from compile_timing import race
from compile_translations import translations
from onnx import TensorProto, helper
from threadpoolctl import threadpool_limits

from toolchain.export import open_session, run_example
from toolchain.onboard.machine import describe
from toolchain.targets import Target, read_target
from toolchain.text import train_tokenizer

HERE = Path(__file__).parent
STARTED = "mid 4x512"
PARTS = ("encoders", "translation", "start")
QUICK = ("tiny 3x128", "mid 4x512 every", "linked small")
PACKAGES = ("onnxruntime", "optimum", "optimum-onnx", "openvino", "ctranslate2", "torch", "transformers", "numpy")


def main() -> None:
    arguments = read_arguments()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # ONNX Runtime's and optimum's tools advise through the root logger
    torch.set_num_threads(1)
    target = read_target("cpu", HERE.parent)
    options = target.runtime.options | dict(one.split("=", 1) for one in arguments.option)
    target = msgspec.structs.replace(target, runtime=msgspec.structs.replace(target.runtime, options=options))
    found: dict[str, Any] = {"machine": machine()}
    print(machine_line(found["machine"]))
    with busy(arguments.load), tempfile.TemporaryDirectory(prefix="compile.") as scratch:
        if "encoders" in arguments.parts:
            found["peaks"] = peaks()
            told = ", ".join(f"{name} {value:.0f}" for name, value in found["peaks"].items())
            print(f"one thread multiplies two 1024 x 1024 fp32 matrices at, GFLOP/s of CPU time at best: {told}\n")
            found["encoders"] = encoders(arguments, Path(scratch), target, max(found["peaks"].values()))
            print(summary(found["encoders"]))
        if "translation" in arguments.parts:
            found["translation"] = translations(arguments, Path(scratch), target)
            print(summary(found["translation"]))
        if "start" in arguments.parts:
            found["start"] = start(Path(scratch) / "start", target, arguments.bundle)
    found["load_after"] = os.getloadavg()[0]
    print(f"load average at the end: {found['load_after']:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer models, less time for each")
    parser.add_argument("--parts", type=words, default=PARTS)
    parser.add_argument("--models", type=words, help=f"of {', '.join(one.name for one in SIZES)}")
    parser.add_argument("--contestants", type=words, default=(), help="beside mostool's own [all]")
    parser.add_argument("--lengths", type=numbers, default=(32, 128))
    parser.add_argument("--threads", type=numbers, help="[1,2; quick 1]")
    parser.add_argument("--seconds", type=float, help="for each model, length and number of threads [1.5; quick 0.6]")
    parser.add_argument("--rounds", type=int, help="at least [7; quick 5]")
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of our sessions, beside the target's")
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.threads = arguments.threads or ((1,) if quick else (1, 2))
    arguments.seconds = arguments.seconds or (0.6 if quick else 1.5)
    arguments.rounds = arguments.rounds or (5 if quick else 7)
    arguments.models = arguments.models or (QUICK if quick else tuple(one.name for one in SIZES))
    for name, known in ((arguments.parts, PARTS), (arguments.models, [one.name for one in SIZES])):
        unknown = sorted(set(name) - set(known))
        if unknown:
            parser.error(f"{unknown[0]!r} is none of {', '.join(known)}")
    return arguments


def words(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(","))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split(","))


# -- the machine -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    told = describe()
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    named = {name: told[name] for name in ("cpu", "cores", "isa", "python")}
    return named | {"versions": versions, "load": os.getloadavg()[0]}


def machine_line(told: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return (
        f"{told['cpu']}, {told['cores']} cores, {' '.join(told['isa'])}; Python {told['python']}, {versions}; "
        f"load average {told['load']:.1f}"
    )


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def peaks(side: int = 1024, seconds: float = 1.0) -> dict[str, float]:
    """GFLOP/s of CPU time at one thread, at best, of the multiplications at hand."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(side, side)).astype(np.float32) for _ in range(2))
    first, second = torch.from_numpy(left), torch.from_numpy(right)
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [side, side])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [side, side], right.tobytes(), raw=True)
    product = helper.make_tensor_value_info("y", TensorProto.FLOAT, [side, side])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [shape], [product], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto)
    session = open_session(proto.SerializeToString(), {}, threads=1)
    runs = {
        "torch": lambda: torch.mm(first, second),
        "numpy": lambda: left @ right,
        "ONNX Runtime": lambda: session.run(None, {"x": left}),
    }
    with threadpool_limits(1):
        times = race(runs, seconds, 5, 1)
    return {name: 2e-9 * side**3 / float(one.cpu.min()) for name, one in times.items()}


# -- starting ----------------------------------------------------------------------------------------------------------


def start(folder: Path, target: Target, bundle: Path | None) -> dict[str, Any]:
    """Opening a file of some 30 MB, and the example of a bundle with it (or of the one given), cold."""
    folder.mkdir()
    whole = next(one for one in SIZES if one.name == STARTED)
    model = build_model(whole._replace(hidden=(512,), heads=(8,), ffn=(2048,)), seed=0)
    found, _ = contestants(model, folder, target, lambda name: name in (OURS, OURS_INT8, "ORT default"))
    told: dict[str, Any] = {}
    for one in found:
        seconds = timed(lambda one=one: one.open(1))  # type: ignore[misc]
        told[one.name] = {"bytes": one.bytes, "open_s": min(seconds), "slowest_s": max(seconds)}
        size = f"{1e-6 * one.bytes:.1f} MB"
        print(f"{one.name}: a file of {size} is open in {min(seconds):.2f} s (at most {max(seconds):.2f})")
    bundle = bundle or shippable(folder, folder / f"{OURS}.onnx", target)
    command = [sys.executable, "run_example.py"]
    seconds = timed(lambda: subprocess.run(command, cwd=bundle, check=True, capture_output=True))
    told["example"] = {"bundle": bundle.name, "s": min(seconds), "slowest_s": max(seconds)}
    print(f"the example of {bundle.name}: {min(seconds):.2f} s with its interpreter (at most {max(seconds):.2f})")
    return told


def timed(run: Callable[[], object], times: int = 5) -> list[float]:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return seconds


def shippable(folder: Path, model: Path, target: Target) -> Path:
    """What a bundle's example reads, around a model; nobody vouches for it."""
    texts = ["the dog sees the sea", "the cat sees the sun"]
    manifest = {
        "task": "classify",
        "pairs": False,
        "labels": [f"label {number}" for number in range(LABELS)],
        "maximum_length": LONGEST,
        "threads": 1,
        "options": target.runtime.options,
        "artifact": {"file": model.name},
        "environment": {"provider": target.runtime.provider},
    }
    train_tokenizer(texts, 80).save(str(folder / "tokenizer.json"))
    for name, content in (("manifest.json", manifest), ("examples.json", texts)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "run_example.py").write_bytes(Path(inspect.getfile(run_example)).read_bytes())
    return folder


if __name__ == "__main__":
    main()
