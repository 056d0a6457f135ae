"""The records that pass from stage to stage as files.

Frozen, strict (unknown fields are refused), SI units in the names (`_s`, `_bytes`), `schema` on whatever is stored, and
in each file the sha256 of what it was made from. Derived figures are never stored beside the samples they come from.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.files import write_bytes
from toolchain.space import Architecture, SearchSpace

SCHEMA = 1
_LARGEST_RECORD_BYTES = 32 << 20

T = TypeVar("T")
Source = Literal["measured", "predicted", "simulated", "emulated", "counted"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Any record."""


class Stored(Record, frozen=True, kw_only=True):
    """A record with a file of its own."""

    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema < 1:
            raise ValueError(f"there is no schema {self.schema}")


# -- what is asked for -----------------------------------------------------------------------------------------------


class Workload(Record, frozen=True):
    """The shape of one inference: `batch` sequences of `sequence_length` tokens."""

    batch: int = 1
    sequence_length: int = 32

    @property
    def slug(self) -> str:
        return f"b{self.batch}-t{self.sequence_length}"


MixtureKind = Literal["plain", "layer", "neuron"]
RouterSees = Literal["all", "averages"]


class Mixture(Record, frozen=True):
    """How subnets share weights: `plain` slices one weight; `layer` and `neuron` mix the slices of `experts` weights.

    `expert_correlation` is that of two experts' weights at the start of training, `router_spread` the standard
    deviation over the space of what goes into a router's softmax then (0: near-uniform mixing; supernet/README.md).
    Routers see every axis of every layer, or (as in HAT) the averages over the layers. Mixed are the feed-forward
    layers and, with `attention`, the attention projections.
    """

    kind: MixtureKind = "neuron"
    experts: int = 2
    router_width: int = 128
    expert_correlation: float = 0.5
    router_spread: float = 0.0
    router_sees: RouterSees = "all"
    attention: bool = False

    def __post_init__(self) -> None:
        if self.experts < 1 or self.router_width < 1 or not 0 <= self.expert_correlation < 1:
            raise ValueError("a mixture needs experts >= 1, router_width >= 1 and 0 <= expert_correlation < 1")
        if not 0 <= self.router_spread < math.inf:
            raise ValueError("router_spread must be 0 or more")


Task = Literal["mlm", "classify", "regress", "translate"]
Recipe = Literal["sandwich", "single-path", "progressive"]
Precision = Literal["fp32", "bf16"]


class Training(Record, frozen=True):
    """Everything that decides what a training run computes, apart from its data, its space and where it starts.

    An update takes `accumulate` micro-batches of `batch_size` items, or (translation, where it is above zero) of at
    most `batch_tokens` tokens on either side; several processes share them, so their number does not change the result.
    `distill` is the weight of a teacher's answers in the loss: in place (the largest subnet teaches the others), or of
    the teacher a fine-tuning is given.
    """

    task: Task = "classify"
    recipe: Recipe = "sandwich"
    mixture: Mixture = Mixture()
    updates: int = 1000
    batch_size: int = 64
    batch_tokens: int = 0
    accumulate: int = 1
    sequence_length: int = 64
    learning_rate: float = 1e-3
    warmup_updates: int = 100
    weight_decay: float = 0.01
    dropout: float = 0.1
    gradient_clip: float = 1.0
    label_smoothing: float = 0.0
    distill: float = 0.0
    precision: Precision = "fp32"
    evaluate_every: int = 200
    vocabulary_size: int = 8000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "accumulate", "sequence_length", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.batch_tokens < 0:
            raise ValueError("batch_tokens must be 0 or more")
        for name in ("label_smoothing", "distill"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1)")
        if self.sequence_length < 8 or self.vocabulary_size < 64:
            raise ValueError("sequence_length must be at least 8 and vocabulary_size at least 64")
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above zero")
        if not 0 <= self.dropout < 1 or not 0 <= self.weight_decay < math.inf or self.warmup_updates < 0:
            raise ValueError("dropout must be in [0, 1), weight_decay and warmup_updates must be 0 or more")


# -- what a model is worth -------------------------------------------------------------------------------------------


class Quality(Record, frozen=True):
    """One figure of merit on `n` held-out items of a named split.

    `value` is a share: BLEU as sacrebleu prints it, divided by 100. `token_accuracy` is of a translation's next tokens
    given the right ones before. `also` holds further figures of the same answers, by name (GLUE asks for several).
    """

    metric: Literal["accuracy", "masked_accuracy", "token_accuracy", "bleu", "pearson"]
    value: float
    loss: float
    n: int
    split: Literal["validation", "test"]
    also: dict[str, float] = {}

    def __str__(self) -> str:
        also = "".join(f", {name.replace('_', ' ')} {100 * value:.1f} %" for name, value in self.also.items())
        return f"{self.metric.replace('_', ' ')} {100 * self.value:.1f} %{also} on {self.n} {self.split} items"


class Data(Record, frozen=True):
    """What a model was trained on: the files read by name and sha256, and what they held."""

    title: str
    files: dict[str, str]
    sha256: str
    train: int
    validation: int
    test: int
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """Of a translation: from, to."""
    majority_share: float | None = None
    notes: tuple[str, ...] = ()


class TrainingPoint(Record, frozen=True):
    """One look at a training run: training losses since the last look, quality on the validation split.

    Keys are the subnets looked at: largest, smallest, random.
    """

    update: int
    seconds: float
    learning_rate: float
    losses: dict[str, float]
    quality: dict[str, Quality] = {}
    mixture: dict[str, float] = {}
    """How the mixture fares, by the names of supernet.mixture.MixtureState; empty for plain sharing."""


class Origin(Record, frozen=True):
    """What a run started from or learned from: in words, and the sha256 of its checkpoint or weights.

    `notes` say what was left out of it, or made anew.
    """

    title: str
    sha256: str
    notes: tuple[str, ...] = ()


class CheckpointInfo(Stored, frozen=True):
    """A trained supernet: what it is made of and which weights file holds it.

    A run of one architecture (trained alone, or cut out of a supernet and trained on) is one whose space is narrowed.
    """

    space: SearchSpace
    training: Training
    data: Data
    vocabulary_size: int
    updates_done: int
    weights: str
    weights_sha256: str
    tokenizer_sha256: str
    prepared_sha256: str
    parameters: int
    metrics: dict[str, Quality]
    versions: dict[str, str]
    created_at: dt.datetime
    origin: Origin | None = None
    teacher: Origin | None = None


class Artifact(Record, frozen=True):
    """A model file and how it came to be."""

    file: str
    format: Literal["onnx"]
    precision: Literal["fp32"]
    recipe: str
    opset: int
    sha256: str
    size_bytes: int
    parameters: int
    architecture: Architecture
    checkpoint_sha256: str | None = None
    parity_max_abs_error: float | None = None


# -- devices and measurements ----------------------------------------------------------------------------------------


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
    precision: Literal["fp32"]
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
    precision: Literal["fp32"]
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


# -- prediction and search -------------------------------------------------------------------------------------------


class HeldOutError(Record, frozen=True):
    """How wrong a predictor is on rows it has not seen (cross-validated). Relative errors are fractions."""

    n: int
    mape: float
    within_10pct: float
    kendall_tau: float
    worst: float


class PredictorInfo(Stored, frozen=True):
    """A fitted latency predictor: `latency_s = features(architecture) . coefficients`."""

    kind: Literal["linear"]
    target: str
    workload: Workload
    space: SearchSpace
    table_sha256: str
    environment: Environment
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    scale: tuple[float, ...]
    ridge: float
    error: HeldOutError
    interval: float
    coverage: float
    points: tuple[tuple[str, float, float], ...]
    """Per held-out row: architecture id, measured seconds, seconds predicted without having seen it."""


class Budget(Record, frozen=True):
    """A limit a subnet must keep: bytes on disk, parameters, or seconds at the median (`workload` on `target`)."""

    metric: Literal["latency_s", "size_bytes", "parameters"]
    limit: float
    target: str | None = None
    workload: Workload | None = None


class Cost(Record, frozen=True):
    """What a subnet costs in one metric; `upper` is what a budget is compared with."""

    value: float
    upper: float
    source: Source


class Evaluation(Record, frozen=True):
    """One architecture as a search saw it."""

    architecture: Architecture
    quality: Quality
    costs: dict[str, Cost]
    feasible: bool


class SearchResult(Stored, frozen=True):
    """What a search found. `front` holds indices into `evaluations`: not dominated in quality and first cost."""

    space: SearchSpace
    searcher: str
    seed: int
    budgets: tuple[Budget, ...]
    winner: Evaluation
    smallest: Evaluation
    largest: Evaluation
    evaluations: tuple[Evaluation, ...]
    front: tuple[int, ...]
    checkpoint_sha256: str
    target: str | None
    workload: Workload | None
    predictor_sha256: str | None
    created_at: dt.datetime


class BudgetOutcome(Record, frozen=True):
    """A budget beside what the shipped file really takes."""

    budget: Budget
    value: float
    source: Source
    met: bool


class Manifest(Stored, frozen=True):
    """What a bundle is, and the evidence for it.

    `pairs`: it reads two texts at a time. `alone`: it was trained as the one architecture of its run, not inside a
    supernet. `origin` and `teacher` are the run's: see CheckpointInfo.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    artifact: Artifact
    target: str
    workload: Workload
    environment: Environment
    threads: int
    options: dict[str, str]
    maximum_length: int
    vocabulary_size: int
    predicted_s: float | None
    latency: Latency
    peak_memory_bytes: int | None
    quality: Quality
    trivial_quality: float | None
    budgets: tuple[BudgetOutcome, ...]
    data: Data
    training: Training
    checkpoint_sha256: str
    parity_tolerance: float
    created_at: dt.datetime
    files: dict[str, str]
    versions: dict[str, str]
    device_parity_max_abs_error: float | None = None
    provider_options: dict[str, str] = {}
    cores: tuple[int, ...] = ()
    thermal: str = "guard"
    pairs: bool = False
    alone: bool = False
    origin: Origin | None = None
    teacher: Origin | None = None


class RunInfo(Stored, frozen=True):
    """What was asked of one command, kept in the folder it filled."""

    command: str
    arguments: dict[str, str]
    versions: dict[str, str]
    revision: str
    started_at: dt.datetime
    finished_at: dt.datetime
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}


# -- reading and writing ---------------------------------------------------------------------------------------------


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def encode_compact(record: msgspec.Struct) -> bytes:
    """One line of JSON that reads back as the same record.

    Raises:
        MostoolError: it would not. JSON has no NaN and no infinity (they would be stored as null), and text must be
            valid Unicode.
    """
    what = f"a {type(record).__name__} cannot be stored"
    try:
        data = msgspec.json.encode(record)
        same = msgspec.json.decode(data, type=type(record)) == record
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as fault:
        raise MostoolError(
            what, why=str(fault), hint="a figure in it is no finite number, or a text no Unicode"
        ) from fault
    if not same:
        raise MostoolError(what, why="it would read back as another", hint="a figure in it is no finite number")
    return _readable_back(what, data)


def encode_record(record: msgspec.Struct) -> bytes:
    """Readable JSON, the same bytes for the same record; see `encode_compact` for what is refused."""
    data = msgspec.json.format(encode_compact(record), indent=2) + b"\n"
    return _readable_back(f"a {type(record).__name__} cannot be stored", data)


def _readable_back(what: str, data: bytes) -> bytes:
    if len(data) > _LARGEST_RECORD_BYTES:
        raise MostoolError(what, why=f"{len(data)} bytes are more than can be read back")
    return data


def write_record(path: Path, record: msgspec.Struct) -> None:
    write_bytes(path, encode_record(record))


def decode_record(data: bytes, kind: type[T], where: str, error: type[MostoolError] = IntegrityError) -> T:
    """The record of type `kind` in `data`.

    Raises:
        error: not JSON, a field missing, unknown or of the wrong type (the message names its path), or a newer schema.
    """
    if len(data) > _LARGEST_RECORD_BYTES:
        raise error(f"{where} is too large to be a record", why=f"it has more than {_LARGEST_RECORD_BYTES} bytes")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as fault:
        _refuse_newer(_schema_of(data), where, error)
        raise error(f"{where} cannot be read", why=str(fault), hint="is it the right file, and complete?") from fault
    if isinstance(record, Stored):
        _refuse_newer(record.schema, where, error)
    return record


def read_record(path: Path, kind: type[T], error: type[MostoolError] = IntegrityError) -> T:
    """The record of type `kind` in the file `path`; see `decode_record` for what is refused."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_RECORD_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no {path}", hint="check the path") from None
    except OSError as fault:
        raise UsageError(f"cannot read {path}", why=fault.strerror or str(fault)) from fault
    return decode_record(data, kind, str(path), error)


def _refuse_newer(schema: int, where: str, error: type[MostoolError]) -> None:
    if schema > SCHEMA:
        raise error(
            f"{where} was written by a newer mostool",
            why=f"schema {schema}, this one knows {SCHEMA}",
            hint="upgrade mostool",
        )


class _Header(msgspec.Struct):
    schema: int


def _schema_of(data: bytes) -> int:
    try:
        return msgspec.json.decode(data, type=_Header).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return SCHEMA
