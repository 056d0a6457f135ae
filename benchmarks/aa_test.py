"""How wrong a latency is that should be the same twice: `python benchmarks/aa_test.py [--trials 20] [--width 512]`.

In each trial one model is measured as two candidates, by mostool's protocol (interleaved, paired with a reference) and
after the other for as long, as most tools do. The true ratio is 1 in both; the table shows how far off each was.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from toolchain.devices.local import LocalDevice
from toolchain.profiling import Candidate, InputShape, anchor_s, latency, measure
from toolchain.records import Timed
from toolchain.targets import Target

BATCH = 32
WITHIN = 2.0
"""In percent: two latencies of one model that differ by more are called different."""


def write_mlp(path: Path, width: int, layers: int, seed: int) -> None:
    """A perceptron of `layers` square layers, float32 (BATCH, width) -> (BATCH, width)."""
    rng = np.random.default_rng(seed)
    weights, nodes, name = [], [], "x"
    for layer in range(layers):
        weight = rng.normal(0, width**-0.5, (width, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"h{layer}"]))
        name = f"h{layer}"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [BATCH, width]) for end in ("x", name)]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def sequential_medians(path: Path, width: int, threads: int, seconds: float) -> list[list[float]]:
    """Call times of the model measured twice, one after the other, `seconds` each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    feed = {"x": np.random.default_rng(0).uniform(-1, 1, (BATCH, width)).astype(np.float32)}
    calls: list[list[float]] = []
    for _ in range(2):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(50):
            session.run(None, feed)
        mine: list[float] = []
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            session.run(None, feed)
            mine.append(time.perf_counter() - start)
        calls.append(mine)
    return calls


def error_row(name: str, ratios: list[float]) -> str:
    off = 100 * np.abs(np.array(ratios) - 1)
    within = f"{(off <= WITHIN).sum()} of {len(off)}"
    return f"{name:<46}{within:>10}{np.sqrt(np.mean(off**2)):8.2f}{np.median(off):8.2f}{off.max():8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seconds", type=float, help="of each candidate [as long as the default protocol takes]")
    parser.add_argument("--width", type=int, default=704, help="layer width; 704 is about 1 ms a call")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    target = Target(id="cpu", title="this machine")
    runtime = msgspec.structs.replace(target.runtime, threads=arguments.threads)
    settings = target.measure
    if arguments.seconds:
        settings = msgspec.structs.replace(settings, minimum_s=arguments.seconds, maximum_s=arguments.seconds)
    device = LocalDevice(msgspec.structs.replace(target, measure=settings, runtime=runtime))
    inputs = {"x": InputShape(dtype="float32", shape=(BATCH, arguments.width), low=-1.0, high=1.0)}
    ratios: dict[str, list[float]] = {"paired": [], "raw": [], "mean": [], "median": [], "fastest": []}
    widths, call_s, took_s = [], [], []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model, reference = Path(folder) / "model.onnx", Path(folder) / "reference.onnx"
        write_mlp(model, arguments.width, 3, seed=1)
        write_mlp(reference, arguments.width, 3, seed=2)
        pair = [Candidate("first", model), Candidate("second", model)]
        for trial in range(arguments.trials):
            outcomes = [outcome for _, outcome in measure(pair, reference, inputs, device, trial)]
            timed = [outcome for outcome in outcomes if isinstance(outcome, Timed)]
            assert len(timed) == 2, outcomes
            first, second = (latency(one, anchor_s(timed)) for one in timed)
            ratios["paired"].append(first.median_s / second.median_s)
            ratios["raw"].append(first.raw_median_s / second.raw_median_s)
            widths.append(first.half_width_s / first.median_s)
            call_s.append(first.median_s)
            took_s.append(arguments.seconds or float(np.mean([sum(map(sum, _walls(one))) for one in timed])))
            one, two = sequential_medians(model, arguments.width, arguments.threads, took_s[-1])
            ratios["mean"].append(float(np.mean(one) / np.mean(two)))
            ratios["median"].append(float(np.median(one) / np.median(two)))
            ratios["fastest"].append(min(one) / min(two))
    print(f"{arguments.trials} trials of the same model twice, {1e3 * np.median(call_s):.2f} ms a call, measured;")
    lasted = f"{np.median(took_s):.2g} s per candidate, {time.monotonic() - start:.0f} s in all"
    print(f"{arguments.threads} thread(s), {lasted}")
    print(f"{'|ratio - 1| in %':<46}{f'within {WITHIN:g}':>10}{'rms':>8}{'median':>8}{'worst':>8}")
    print(error_row("mostool: interleaved, paired with a reference", ratios["paired"]))
    print(error_row("  its raw medians, interleaved but not paired", ratios["raw"]))
    print(error_row("one after the other, mean", ratios["mean"]))
    print(error_row("one after the other, median", ratios["median"]))
    print(error_row("one after the other, fastest call", ratios["fastest"]))
    print(f"half-width mostool states (95 %, median): {100 * np.median(widths):.2f} %")


def _walls(timed: Timed) -> list[tuple[float, ...]]:
    return [turn.wall_s for turn in timed.rounds]


if __name__ == "__main__":
    main()
