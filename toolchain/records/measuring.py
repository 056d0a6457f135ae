"""Model files, devices, and what was measured there."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from typing import Annotated, Literal

import msgspec

from toolchain.records.storing import Record, Source, Stored
from toolchain.space import Architecture, SearchSpace


class Workload(Record, frozen=True):
    """The shape of one inference: `batch` sequences of `sequence_length` tokens."""

    batch: int = 1
    sequence_length: int = 32

    @property
    def slug(self) -> str:
        return f"b{self.batch}-t{self.sequence_length}"


FilePrecision = Literal["fp32", "fp16", "int8", "int8-static", "int4", "mixed"]
"""Of a file's weight matrices: all of a kind, or (mixed) some int8 and some fp32.

int8 quantises what multiplies the weights as it comes, int4 block by block; int8-static by ranges found beforehand on
real text. fp16 is of everything, for GPUs.
"""

FileFormat = Literal["onnx", "tensorrt"]
"""Of what runs: an ONNX file, or an engine that TensorRT has built of one for a kind of GPU."""


class ModelInput(Record, frozen=True):
    """One input of a model: token ids, the mask of real tokens or the types of tokens, [batch, sequence]; or how many
    words a translation has, [1]: at the least, at the most."""

    name: str
    role: Literal["ids", "mask", "types", "least", "most"]
    dtype: Literal["int64", "int32"] = "int64"


ENCODER_INPUTS = (ModelInput(name="input_ids", role="ids"), ModelInput(name="attention_mask", role="mask"))
TRANSLATOR_INPUTS = (
    *ENCODER_INPUTS,
    ModelInput(name="shortest", role="least"),
    ModelInput(name="longest", role="most"),
)


class ModelFile(Record, frozen=True):
    """A model file and how it came to be; without an architecture it is of a model that mostool did not make.

    `parity_max_abs_error` is between the fp32 file and the module it was made from; where weights were quantised after
    that, `quantised_max_abs_error` is what the file that ships differs from that module by.
    """

    file: str
    format: FileFormat
    precision: FilePrecision
    recipe: str
    opset: int
    sha256: str
    size_bytes: int
    parameters: int
    architecture: Architecture | None = None
    checkpoint_sha256: str | None = None
    parity_max_abs_error: float | None = None
    quantised_max_abs_error: float | None = None


class Artifact(ModelFile, frozen=True):
    """The file of a subnet."""

    architecture: Architecture


class Environment(Record, frozen=True):
    """The machine and the runtime a measurement was made with. No host name, no serial number.

    `unit` tells two boards of one kind apart (the beginning of a hash); `emulator` is what pretends to be the
    processor, empty on a real one; `accelerator` and `driver` are those the provider uses, empty where it uses none.
    """

    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    os: str
    kernel: str
    governor: str
    python: str
    engine: str
    engine_version: str
    provider: str
    isa: tuple[str, ...] = ()
    board: str = ""
    unit: str = ""
    bits: int = 64
    libc: str = ""
    accelerator: str = ""
    driver: str = ""
    emulator: str = ""
    boot_id: str = ""

    @property
    def source(self) -> Source:
        """What a number that was clocked here is: measured, or emulated, which says nothing about a real device."""
        return "emulated" if self.emulator else "measured"

    @property
    def fingerprint(self) -> str:
        """What may not change within one latency table: all of it but the boot and the governor.

        Memory counts by whole GiB, rounded up: the kernel's own share of it differs from boot to boot.
        """
        memory = math.ceil(self.memory_bytes / (1 << 30)) << 30
        stable = msgspec.structs.replace(self, boot_id="", governor="", memory_bytes=memory)
        return hashlib.sha256(msgspec.json.encode(stable, order="sorted")).hexdigest()[:12]


Elapsed = Annotated[float, msgspec.Meta(ge=1e-9, le=1e6)]
"""Seconds something took: above zero, and no more than days."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Round(Record, frozen=True):
    """One candidate's turn in one interleaved round, and the reference model's time around it.

    Lists run over the samples of the turn: wall-clock time of a call, its process CPU time, and how long the process
    waited for a processor during the sample. The reference's figures are the means over its turns before and after: of
    their medians, and of their fastest calls.
    """

    wall_s: Annotated[tuple[Elapsed, ...], msgspec.Meta(min_length=1)]
    cpu_s: tuple[Seconds, ...]
    delay_s: tuple[Seconds, ...]
    reference_wall_s: Elapsed
    reference_cpu_s: Seconds
    reference_fastest_s: Elapsed

    def __post_init__(self) -> None:
        if not len(self.wall_s) == len(self.cpu_s) == len(self.delay_s):
            raise ValueError("wall_s, cpu_s and delay_s must have the same length")


class Conditions(Record, frozen=True):
    """What the device's sensors said while a group was measured; None is what it does not tell.

    `throttled` is a Raspberry Pi's word of bits. Rounds that were measured hot or throttled are discarded and made
    again; `cooled_s` is how long that had to wait.
    """

    temperature_start_c: float | None = None
    temperature_end_c: float | None = None
    temperature_highest_c: float | None = None
    frequency_lowest_hz: float | None = None
    throttled_start: int | None = None
    throttled_end: int | None = None
    rounds_discarded: Annotated[int, msgspec.Meta(ge=0)] = 0
    cooled_s: Seconds = 0.0
    load_per_core: float = 0.0


class Energy(Record, frozen=True):
    """What a call costs beyond an idle device, by a sensor and with its limits in words."""

    sensor: str
    joules_per_call: float
    idle_w: float
    busy_w: float
    calls: Annotated[int, msgspec.Meta(ge=1)]
    window_s: Elapsed
    limits: str = ""


class Timed(Record, frozen=True, tag="timed"):
    """A latency that was measured. Raw rounds; the figures are derived by profiling/statistics.py.

    `model_memory_bytes` is how far loading and running the model lifts the peak memory of a process of its own.
    `flags` are the worker's remarks: `unstable` (the interval was still too wide when its time was up), `not-steady`
    (warm-up never settled), `delay-unknown` (this system does not say how long a process waits for a processor),
    `enqueue-bound` (a GPU waited for its host).
    """

    rounds: Annotated[tuple[Round, ...], msgspec.Meta(min_length=1)]
    session_s: Seconds
    first_run_s: Seconds
    model_memory_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    energy: Energy | None = None
    conditions: Conditions = Conditions()
    flags: tuple[str, ...] = ()


class Failed(Record, frozen=True, tag="failed"):
    """A latency that could not be had, and why: `stage` is build, load, run, memory (it does not fit) or the worker."""

    stage: str
    error: str


class Measurement(Stored, frozen=True):
    """One subnet on one device: a line of a latency table."""

    architecture: Architecture
    artifact_sha256: str
    recipe: str
    size_bytes: int
    parameters: int
    workload: Workload
    target: str
    fingerprint: str
    precision: FilePrecision
    threads: int
    started_at: dt.datetime
    outcome: Timed | Failed


class NoiseFloor(Record, frozen=True):
    """What measuring one and the same model several times shows as differences: smaller ones between models are ties.

    `value` is the largest |ratio - 1| among `copies` of the reference, measured as candidates of one group.
    """

    value: float
    copies: Annotated[int, msgspec.Meta(ge=2)]


class TableInfo(Stored, frozen=True):
    """The header of a latency table: all its measurements share this."""

    target: str
    environment: Environment
    workload: Workload
    space: SearchSpace
    recipe: str
    precision: FilePrecision
    threads: int
    options: dict[str, str]
    reference_sha256: str
    created_at: dt.datetime
    provider_options: dict[str, str] = {}
    cores: tuple[int, ...] = ()
    thermal: str = "guard"
    noise_floor: NoiseFloor | None = None


class Latency(Record, frozen=True):
    """The figures of one measured latency. `median_s` is paired with the reference model, so free of slow drift.

    All stand on its scale, the mean, the minimum and the high percentiles too, but `raw_median_s` and `cpu_median_s`:
    those are what the clocks said.
    """

    median_s: float
    half_width_s: float
    raw_median_s: float
    cpu_median_s: float
    mean_s: float
    minimum_s: float
    p90_s: float | None
    p99_s: float | None
    n: int
    rounds: int
    drift: float
    share_kept: float
    status: tuple[str, ...]


class Unbuilt(Record, frozen=True):
    """A subnet that could not become a file, and why."""

    architecture: Architecture
    error: str


class ArtifactsInfo(Stored, frozen=True):
    """A folder of model files that wait to be measured where there is no torch: what a latency table needs of them.

    `planned` are the subnets the table is to hold, first to last; of each there is an artifact, or why there is none.
    The files suit `engine` with `provider`, and where some of them multiply integers (`precision` is mixed), processors
    of `machine` alone.
    """

    run: str
    space: SearchSpace
    workload: Workload
    precision: Literal["fp32", "mixed"]
    engine: str
    provider: str
    machine: str
    recipe: str
    inputs: Annotated[tuple[ModelInput, ...], msgspec.Meta(min_length=1)]
    vocabulary_size: Annotated[int, msgspec.Meta(ge=1)]
    checkpoint_sha256: str
    created_at: dt.datetime
    reference: Artifact
    planned: Annotated[tuple[Architecture, ...], msgspec.Meta(min_length=1)]
    artifacts: tuple[Artifact, ...] = ()
    failed: tuple[Unbuilt, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        told = self._told
        if len(set(told)) < len(told) or not set(told) <= {one.id for one in self.planned}:
            raise ValueError("its artifacts and failures must be of planned architectures, once each")

    @property
    def waiting(self) -> list[Architecture]:
        """Those planned of which there is neither a file nor a reason."""
        told = set(self._told)
        return [one for one in self.planned if one.id not in told]

    @property
    def _told(self) -> list[str]:
        return [one.architecture.id for one in self.artifacts] + [one.architecture.id for one in self.failed]
