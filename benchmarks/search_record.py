"""Makes a problem of a supernet's recorded evaluations: `python benchmarks/search_record.py RECORDING.npz --name NAME`.

The recording was made where the supernet was trained. `RECORDING.npz` has a row for each subnet: `choices` [n, genes]
and `value` [n], more is better. `RECORDING.json` beside it says what was evaluated; of it are read `family` and
`space`, a space's name; `fixed`, the value of an axis in all subnets; `choices`, by axis what its genes count; and
`genes`, their order: `depth`, or `hidden1` for the first layer's `hidden`. A missing layer's genes are not read.

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

from toolchain.arrays import AxisArrays, Floats, present_layers, to_arrays
from toolchain.pipeline.predict import predict_arrays
from toolchain.records import PredictorInfo, Workload, read_record
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families import declaration

MILLIONS_PER_S = 2e4
WORK = ("dense", "attention", "head")
"""The features of the family `bert` that count multiply-adds."""
STAND_IN = "multiply-adds at a made-up rate: no device"


def space_of(header: dict[str, Any], only: dict[str, list[int]]) -> SearchSpace:
    """The space that was recorded, or the part of it that is asked for."""
    declared: SearchSpace = declaration(header["family"]).SPACES[header["space"]]

    def cut(axis: Axis) -> Axis:
        recorded = header["choices"].get(axis.name) or [header["fixed"][axis.name]]
        return msgspec.structs.replace(axis, choices=tuple(only.get(axis.name, recorded)))

    return msgspec.structs.replace(
        declared, name=f"{declared.name}-recorded", axes=tuple(cut(axis) for axis in declared.axes)
    )


def recorded_arrays(
    header: dict[str, Any], space: SearchSpace, choices: npt.NDArray[np.integer[Any]]
) -> tuple[AxisArrays, npt.NDArray[np.intp]]:
    """The architectures of the space among those that were recorded, and their rows [n] in the recording."""
    genes = {name: choices[:, at] for at, name in enumerate(header["genes"])}
    arrays: dict[str, Floats] = {}
    inside = np.ones(len(choices), dtype=np.bool_)

    def values(axis: Axis, gene: str) -> Floats:
        meant = np.array(header["choices"][axis.name], dtype=np.float64)
        found: Floats = meant[np.minimum(genes[gene], len(meant) - 1)]
        return found

    for axis in sorted(space.axes, key=lambda axis: axis.per is not None):
        if axis.per is None:
            fixed = axis.name not in header["choices"]
            arrays[axis.name] = np.full(len(choices), axis.choices[0], float) if fixed else values(axis, axis.name)
            inside &= np.isin(arrays[axis.name], axis.choices)
            continue
        layers = range(1, space.axis(axis.per).choices[-1] + 1)
        present = present_layers(arrays[axis.per], len(layers))
        if axis.name not in header["choices"]:
            arrays[axis.name] = axis.choices[0] * present.astype(np.float64)
            continue
        arrays[axis.name] = np.stack([values(axis, f"{axis.name}{n}") for n in layers], axis=1) * present
        inside &= (np.isin(arrays[axis.name], axis.choices) | ~present).all(axis=1)
    rows = np.flatnonzero(inside)
    return {name: array[rows] for name, array in arrays.items()}, rows


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
    split = (text.partition("=") for text in arguments.only)
    space = space_of(header, {axis: [int(number) for number in numbers.split(",")] for axis, _, numbers in split})
    arrays, rows = recorded_arrays(header, space, choices)
    places = positions(space, arrays)
    if len(missing := set(range(space.size())) - set(places.tolist())) or len(places) != space.size():
        raise SystemExit(f"{len(missing)} of the space's {space.size()} subnets are missing: cut it down with --only")
    ordered = np.empty(len(places), dtype=np.float32)
    ordered[places] = value[rows]
    latency_s, told = latencies(space, arguments.predictor)
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(
        RECORDED / f"{arguments.name}.npz",
        header=json.dumps({**header, "latency": told}),
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
