"""Makes a problem of a supernet's recorded evaluations: `python benchmarks/search_record.py RECORDING.npz --name NAME`.

The recording was made where the supernet was trained. `RECORDING.npz` has a row for each subnet: `choices` [n, genes]
and `value` [n], more is better. `RECORDING.json` beside it says what was evaluated; of it are read `space`, and
`genes`, their order: `depth`, or `hidden1` for the first layer's `hidden`. A gene is an index into its axis' choices;
those of missing layers are not read.

The subnets must be all those of a space, which `--only AXIS=A,B` cuts down to these choices. With `--predictor FILE`,
the predictor.json of a table that `mostool profile` measured, each gets its predicted latency; without, its
multiply-adds at a made-up rate, which says nothing about a device. `recorded/NAME.npz` is what search_quality.py reads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from search_problems import RECORDED, front_of, load_problem, positions

from toolchain.arrays import AxisArrays, Floats, part, present_layers, to_arrays
from toolchain.pipeline.predict import predict_arrays
from toolchain.records import PredictorInfo, Workload, read_record
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families import declaration

MILLIONS_PER_S = 2e4
WORK = ("dense", "attention", "head")
"""The features of the family `bert` that count multiply-adds."""
STAND_IN = "multiply-adds at a made-up rate: no device"


def cut_down(space: SearchSpace, only: dict[str, tuple[int, ...]]) -> SearchSpace:
    """The space with only these choices, by axis."""
    axes = (msgspec.structs.replace(axis, choices=only.get(axis.name, axis.choices)) for axis in space.axes)
    return msgspec.structs.replace(space, axes=tuple(axes))


def recorded_arrays(space: SearchSpace, genes: dict[str, npt.NDArray[np.uint8]]) -> AxisArrays:
    """The architectures that were recorded, by their genes [n]."""
    arrays: dict[str, Floats] = {}

    def values(axis: Axis, gene: str) -> Floats:
        meant = np.array(axis.choices, dtype=np.float64)
        found: Floats = meant[np.minimum(genes[gene], len(meant) - 1)]
        return found

    for axis in sorted(space.axes, key=lambda axis: axis.per is not None):
        if axis.per is None:
            arrays[axis.name] = values(axis, axis.name)
            continue
        layers = range(1, space.axis(axis.per).choices[-1] + 1)
        present = present_layers(arrays[axis.per], len(layers))
        arrays[axis.name] = np.stack([values(axis, f"{axis.name}{n}") for n in layers], axis=1) * present
    return arrays


def latencies(space: SearchSpace, predictor: Path | None) -> tuple[Floats, dict[str, Any]]:
    """Seconds of every architecture, in `enumerate`'s order, and where they come from."""
    every = list(space.enumerate())
    if predictor is None:
        features = declaration(space.family).features(space, to_arrays(space, every), Workload())
        counted = np.sum([values for name, values in features.items() if name in WORK], axis=0)
        return counted / MILLIONS_PER_S, {"source": STAND_IN}
    info = read_record(predictor, PredictorInfo)
    info.space.check(every[0])
    info.space.check(every[-1])
    told: dict[str, Any] = {"source": f"predicted from a table that was {info.source}", "target": info.target}
    told |= msgspec.to_builtins({"workload": info.workload, "held_out_error": info.error})
    if (where := info.environment) is not None:
        told |= {"cpu": where.cpu, "cores": where.cores, "engine": f"{where.engine} {where.engine_version}"}
    return predict_arrays(info, to_arrays(info.space, every)).latency_s, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--predictor", type=Path)
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=A,B,...")
    arguments = parser.parse_args()
    header = json.loads(arguments.recording.with_suffix(".json").read_text())
    with np.load(arguments.recording) as stored:
        choices, value = stored["choices"], stored["value"]
    whole = msgspec.convert(header["space"], SearchSpace)
    split = (text.partition("=") for text in arguments.only)
    space = cut_down(whole, {axis: tuple(map(int, numbers.split(","))) for axis, _, numbers in split})
    arrays = recorded_arrays(whole, dict(zip(header["genes"], choices.T, strict=True)))
    # A missing layer holds 0.
    inside = [
        np.isin(arrays[axis.name], (0, *axis.choices)).reshape(len(choices), -1).all(axis=1) for axis in space.axes
    ]
    rows = np.flatnonzero(np.all(inside, axis=0))
    places = positions(space, part(arrays, rows))
    if len(missing := set(range(space.size())) - set(places.tolist())) or len(places) != space.size():
        raise SystemExit(f"{len(missing)} of the space's {space.size()} subnets are missing: cut it down with --only")
    ordered = np.empty(len(places), dtype=np.float32)
    ordered[places] = value[rows]
    latency_s, told = latencies(space, arguments.predictor)
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(
        RECORDED / f"{arguments.name}.npz",
        header=json.dumps({**header, "latency": told, "only": arguments.only}),
        space=msgspec.json.encode(space).decode(),
        value=ordered,
        latency_s=latency_s.astype(np.float32),
    )
    problem = load_problem(f"recorded-{arguments.name}")
    front = len(front_of(latency_s, ordered.astype(np.float64)))
    print(f"{problem.name}: {space.size()} architectures, latency {told['source']}; {problem.corners}")
    print(f"the true front has {front} of them and hypervolume {problem.front:.4f}")


if __name__ == "__main__":
    main()
