"""A latency table: the folder `profiles/<device>/<workload>/` with all measurements made in one environment.

`table.json` says what they share, `journal.jsonl` holds them one a line, `reference.onnx` is the model they are paired
with. A table never mixes environments, and holds one latency for an architecture.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from toolchain.errors import DeviceError, IntegrityError, UsageError
from toolchain.files import set_aside, sha256_bytes, sha256_file, write_bytes
from toolchain.journal import Journal, read_journal
from toolchain.records import Failed, Measurement, NoiseFloor, TableInfo, Timed, read_record, write_record
from toolchain.space import Architecture

TABLE = "table.json"
JOURNAL = "journal.jsonl"
REFERENCE = "reference.onnx"

_SHARED = (
    *("target", "workload", "space", "recipe", "precision", "threads", "cores", "options", "provider_options"),
    *("thermal", "reference_sha256"),
)
"""What the rows of a table have in common beside their environment."""


def open_table(folder: Path, info: TableInfo, reference: Path | bytes, *, fresh: bool = False) -> LatencyTable:
    """The table of `folder` for appending, made where there is none; enter it to lock it and read its rows.

    `fresh` moves what is there aside first.

    Raises:
        DeviceError: the folder's table was measured in another environment, with another space, workload or reference;
            or (on entering) another mostool is filling it.
        IntegrityError: `reference` or the stored reference is not what its sha256 says.
    """
    content = reference if isinstance(reference, bytes) else reference.read_bytes()
    if sha256_bytes(content) != info.reference_sha256:
        raise IntegrityError(f"the reference model for {folder} is not the one its table is to name")
    return LatencyTable(folder, info, content, fresh=fresh)


def read_table(folder: Path) -> tuple[TableInfo, list[Measurement]]:
    """A table's header and its rows, oldest first: one per architecture, the latency where there is one.

    Raises:
        UsageError: there is no table.
        IntegrityError: the table is damaged, or a row is of another environment than its header.
    """
    if not (folder / TABLE).is_file():
        raise UsageError(
            f"there is no latency table in {folder}", hint="measure some subnets first: mostool profile --device NAME"
        )
    info = read_record(folder / TABLE, TableInfo)
    measurements = read_journal(folder / JOURNAL, Measurement)
    _check_rows(folder, info, measurements)
    return info, list(_standing(measurements).values())


def differences(stored: TableInfo, wanted: TableInfo) -> list[str]:
    """What keeps the two from sharing a table: one `name: old -> new` for each field that differs."""
    found = []
    for name in msgspec.structs.asdict(stored.environment):
        old, new = (getattr(info.environment, name) for info in (stored, wanted))
        if old != new and name not in ("boot_id", "governor", "memory_bytes"):
            found.append(f"environment.{name}: {_shown(old)} -> {_shown(new)}")
    if not found and stored.environment.fingerprint != wanted.environment.fingerprint:
        old, new = stored.environment.memory_bytes, wanted.environment.memory_bytes
        found.append(f"environment.memory_bytes: {old} -> {new}")
    for name in _SHARED:
        old, new = getattr(stored, name), getattr(wanted, name)
        if old != new:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


class LatencyTable:
    """A latency table open for appending, by one process at a time. Made by `open_table`.

    Attributes:
        info: the stored header.
        repairs: one sentence for each damaged line that was set aside on opening.
        set_aside: where the former table went, when `fresh` was asked for and there was one.
    """

    def __init__(self, folder: Path, info: TableInfo, reference: bytes, *, fresh: bool) -> None:
        self.folder = folder
        self.info = info
        self.set_aside: Path | None = None
        self._reference = reference
        self._fresh = fresh
        self._journal = Journal(folder / JOURNAL, Measurement)

    def __enter__(self) -> Self:
        if self._fresh and self.folder.exists():
            with contextlib.suppress(IntegrityError), Journal(self.folder / JOURNAL, Measurement):
                pass  # nobody else may be filling it; that it is damaged is no reason to keep it
            self.set_aside = set_aside(self.folder)
        self._journal.__enter__()
        try:
            self._settle_header()
            _check_rows(self.folder, self.info, self._journal.records)
        except BaseException:
            self._journal.__exit__(None, None, None)
            raise
        self._rows = _standing(self._journal.records)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, value, trace)

    @property
    def repairs(self) -> list[str]:
        return self._journal.repairs

    @property
    def measurements(self) -> list[Measurement]:
        """One row per architecture, in the order they were first measured."""
        return list(self._rows.values())

    def done(self, architecture: Architecture, *, retry_failed: bool = False) -> bool:
        """Whether the architecture needs no measuring: it has a latency, or it failed and is not to be tried again."""
        row = self._rows.get(architecture.id)
        return row is not None and not (retry_failed and isinstance(row.outcome, Failed))

    def append(self, measurement: Measurement) -> None:
        """Add a row; when this returns it survives a crash.

        Raises:
            DeviceError: the row was measured in another environment than the table's.
            UsageError: the table has the architecture's latency already.
        """
        wrong = _foreign(self.info, measurement)
        if wrong:
            raise DeviceError(f"a measurement does not belong in {self.folder}", why=wrong, hint=_HINT)
        row = self._rows.get(measurement.architecture.id)
        if row is not None and isinstance(row.outcome, Timed):
            raise UsageError(f"{measurement.architecture.id} has been measured in {self.folder} already")
        self._journal.append(measurement)
        self._rows[measurement.architecture.id] = measurement

    def note_noise_floor(self, found: NoiseFloor) -> None:
        """Say in the header what an A/A test on the device has found."""
        self.info = msgspec.structs.replace(self.info, noise_floor=found)
        write_record(self.folder / TABLE, self.info)

    def _settle_header(self) -> None:
        """Adopt the stored header, or write the new one; the reference goes first, so that a header implies it."""
        path, reference = self.folder / TABLE, self.folder / REFERENCE
        if not path.exists():
            if self._journal.records:
                raise IntegrityError(f"{self.folder} holds measurements but no {TABLE}", hint=_HINT)
            write_bytes(reference, self._reference)
            write_record(path, self.info)
            return
        stored = read_record(path, TableInfo)
        changes = differences(stored, self.info)
        if changes:
            raise DeviceError(f"{self.folder} holds measurements of another kind", why="; ".join(changes), hint=_HINT)
        if not reference.is_file() or sha256_file(reference) != stored.reference_sha256:
            raise IntegrityError(f"{reference} is not the model the table was measured with", hint=_HINT)
        self.info = stored


_HINT = "start a new table with --fresh; the old one is moved aside, not deleted"


def _standing(measurements: list[Measurement]) -> dict[str, Measurement]:
    """The row that counts for each architecture: its first latency, else its last failure."""
    rows: dict[str, Measurement] = {}
    for measurement in measurements:
        row = rows.get(measurement.architecture.id)
        if row is None or isinstance(row.outcome, Failed):
            rows[measurement.architecture.id] = measurement
    return rows


def _check_rows(folder: Path, info: TableInfo, measurements: list[Measurement]) -> None:
    for number, measurement in enumerate(measurements, start=1):
        wrong = _foreign(info, measurement)
        if wrong:
            raise IntegrityError(f"{folder / JOURNAL}: record {number} is of another table", why=wrong, hint=_HINT)


def _foreign(info: TableInfo, measurement: Measurement) -> str:
    """What keeps a row out of the table; empty where nothing does."""
    if measurement.fingerprint != info.environment.fingerprint:
        return f"fingerprint: {info.environment.fingerprint} -> {measurement.fingerprint}"
    for name in ("target", "workload", "recipe", "precision", "threads"):
        old, new = getattr(info, name), getattr(measurement, name)
        if old != new and not (name == "precision" and old == "mixed"):  # of which each row has its own
            return f"{name}: {_shown(old)} -> {_shown(new)}"
    if measurement.architecture.family != info.space.family:
        return f"family: {info.space.family} -> {measurement.architecture.family}"
    return ""


def _shown(value: object) -> str:
    """A field's value, short enough for a message."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:117]}..."
