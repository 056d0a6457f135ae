"""How a materialized subnet becomes a file: its family's way, in the form that suits what will run it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from toolchain import export, text
from toolchain.errors import UsageError
from toolchain.records import Artifact, Environment, FilePrecision, Task
from toolchain.space import Architecture
from toolchain.supernet.decoding import Marks, greedy, translating
from toolchain.supernet.families.translation.graphs import translator_graphs
from toolchain.supernet.module import Subnet
from toolchain.targets import Runtime

MARKS = Marks(begin=text.CLS, end=text.SEP, never=(text.PAD, text.UNK, text.CLS, text.MASK))
TRANSLATOR_PRECISIONS: tuple[FilePrecision, ...] = ("fp32", "int8", "int4")
_ASKED = 8
"""So many rows of held-out text are what files are compared on."""
_CALIBRATED = 64


class Built(NamedTuple):
    """A model file's record, the questions it was asked, and the graphs that ship beside it, by their names."""

    artifact: Artifact
    checks: export.Checks
    further: Mapping[str, bytes] = MappingProxyType({})


class Wanted(NamedTuple):
    """The file that is wanted: see `Run.build`."""

    precision: FilePrecision
    modules: Collection[str]
    runtime: Runtime
    device: export.DeviceKind
    checkpoint_sha256: str
    maximum_length: int

    @property
    def options(self) -> dict[str, str]:
        """The session settings a file is compared with here, where its engine is one that this machine has too."""
        return self.runtime.options if self.runtime.engine == "onnxruntime" else {}


def device_kind(runtime: Runtime, environment: Environment | None, *, searched: bool = False) -> export.DeviceKind:
    """What a file depends on of what will run it; of a machine nobody knows it takes nothing for granted.

    searched: the precision of its weights is that of an architecture with bits. Such a file is the same for all
    processors of a kind, so that what a search judges here is what ships elsewhere.
    """
    known = environment
    return export.DeviceKind(
        engine=runtime.engine,
        provider=runtime.provider,
        machine=known.machine if known else "x86_64",
        isa=known.isa if known and not searched else (),
        version=known.engine_version if known else "",
    )


def recipe_of(task: Task, runtime: Runtime, environment: Environment | None, *, mixed: bool = False) -> str:
    """Names how the files of a latency table are made: a table holds those of one recipe."""
    if task == "translate":
        return export.TRANSLATOR_RECIPE
    kind = device_kind(runtime, environment, searched=True)
    return export.recipe_for(kind, "mixed" if mixed else "fp32")


def compile_encoder(subnet: Subnet, architecture: Architecture, path: Path, data: Path, wanted: Wanted) -> Built:
    """An encoder's file at `path`, compared with its module on the run's own held-out text.

    Raises:
        ParityError: it differs; no file is left.
        UsageError: what will run it has no such precision.
    """
    ids = text.read_split(data, "test").ids[:_ASKED].astype(np.int64)
    artifact, checks = export.export_encoder(
        subnet,
        architecture,
        path,
        export.build_checks(subnet, ids, padding=text.PAD),
        device=wanted.device,
        precision=wanted.precision,
        modules=wanted.modules,
        calibration=_calibration(data) if wanted.precision == "int8-static" else (),
        checkpoint_sha256=wanted.checkpoint_sha256,
        options=wanted.options,
    )
    return Built(artifact, checks)


def _calibration(data: Path) -> list[dict[str, npt.NDArray[np.int64]]]:
    """Held-out text, row by row: what shows the ranges of a model's numbers."""
    ids = text.read_split(data, "validation").ids[:_CALIBRATED].astype(np.int64)
    return [{"input_ids": row[None], "attention_mask": (row[None] != text.PAD).astype(np.int64)} for row in ids]


def compile_translator(subnet: Subnet, architecture: Architecture, path: Path, data: Path, wanted: Wanted) -> Built:
    """A translator's file at `path`, whose words were compared with its module's on the run's own held-out text.

    Raises:
        ParityError: they differ; no file is left.
        UsageError: what will run it has no such precision.
    """
    if wanted.runtime.engine != "onnxruntime":
        raise UsageError(
            f"{wanted.runtime.engine} takes no translation model",
            why="what it remembers of its words grows in a loop, which the engine does not allow",
            hint="--device with onnxruntime",
        )
    if wanted.precision not in TRANSLATOR_PRECISIONS:
        raise UsageError(
            f"a translation model has no {wanted.precision} form", hint=f"it has {', '.join(TRANSLATOR_PRECISIONS)}"
        )
    longest = wanted.maximum_length - 1
    model = translating(subnet)
    held_out = text.read_parallel_split(data, "test")
    _, ids, _ = next(iter(text.source_batches(held_out, limit=_ASKED, batch=_ASKED)))
    checks = export.build_token_checks(
        lambda words, mask, most: greedy(model, words, mask, MARKS, most), ids, MARKS, longest, padding=text.PAD
    )
    artifact, checks, further = export.export_translator(
        cast("Any", translator_graphs(cast("Any", subnet), wanted.maximum_length)),
        architecture,
        path,
        checks,
        MARKS,
        precision=wanted.precision,  # type: ignore[arg-type]  # one of those above
        paired=wanted.device.int8.paired,
        checkpoint_sha256=wanted.checkpoint_sha256,
        options=wanted.options,
    )
    return Built(artifact, checks, further)
