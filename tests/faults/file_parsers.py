"""Files that are read: every stored record, journals, latency tables of ours and of others."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tables.made_tables import HAT_NAMES, HAT_ROWS, HAT_SPACE, NAMES, ROWS, SPACE

from toolchain import profiling, tables
from toolchain.errors import MostoolError
from toolchain.export.bundle import read_manifest
from toolchain.journal import Journal, read_journal
from toolchain.pipeline.answering import Answered
from toolchain.pipeline.course import _Course
from toolchain.predict.apply import apply
from toolchain.records import (
    AnyManifest,
    ArtifactsInfo,
    CheckpointInfo,
    ImportedInfo,
    ImportedRow,
    Measurement,
    PredictorInfo,
    RunInfo,
    SearchResult,
    TableInfo,
    Workload,
    decode_record,
    encode_compact,
    encode_record,
    now,
)
from toolchain.search.loop import Step
from toolchain.space import Architecture
from toolchain.supernet.state import TrainingState
from toolchain.text.dataset import Examples, Prepared

from .parsing import Parse, Parser, reads_back, sealed

# -- records -----------------------------------------------------------------------------------------------------------

_MOST_SEALED_BYTES = 1 << 17
"""Of lines that get checksums: short ones grow twentyfold by them."""

RECORDS: dict[str, type] = {
    "runs/*/checkpoint.json": CheckpointInfo,
    "runs/*/training.json": TrainingState,
    "runs/*/run.json": RunInfo,
    "runs/*/data/data.json": Prepared,
    "runs/*/data/examples.json": Examples,
    "runs/*/search/result.json": SearchResult,
    "runs/*/search/*/course.json": _Course,
    "profiles/*/*/table.json": TableInfo,
    "profiles/*/*/predictor.json": PredictorInfo,
    "bundles/*/manifest.json": AnyManifest,
}
"""Every record with a file of its own, by where a project has it."""
JOURNALS: dict[str, type] = {
    "runs/*/architectures.jsonl": Architecture,
    "runs/*/search/answers.jsonl": Answered,
    "runs/*/search/*/steps.jsonl": Step,
    "profiles/*/*/journal.jsonl": Measurement,
}


def _record(kind: type) -> Parse:
    return lambda data, _: reads_back(decode_record(data, kind, "here"), kind)


def _journal(kind: type) -> Parse:
    """Read, or refused; then repaired, after which it is read."""

    def parse(data: bytes, scratch: Path) -> None:
        path = scratch / "journal.jsonl"
        path.write_bytes(data)
        try:
            before = read_journal(path, kind)
        except MostoolError:
            before = None
        with Journal(path, kind) as journal:
            kept = list(journal.records)
        assert before is None or kept == before
        assert read_journal(path, kind) == kept
        for one in kept:
            assert decode_record(encode_compact(one), kind, "here") == one

    return parse


def _manifest(data: bytes, scratch: Path) -> None:
    (scratch / "manifest.json").write_bytes(data)
    manifest = read_manifest(scratch)
    reads_back(manifest, type(manifest))


def _predictor(features: Sequence[str]) -> Parse:
    """Whatever is read as a predictor predicts."""
    asked = {name: np.array([1.0, 1e6]) for name in features}

    def parse(data: bytes, _: Path) -> None:
        info = decode_record(data, PredictorInfo, "here")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            apply(info, asked | {name: np.array([1.0, 1e6]) for name in info.features})

    return parse


# -- tables ------------------------------------------------------------------------------------------------------------


def _header(journal: bytes) -> Parse:
    def parse(data: bytes, scratch: Path) -> None:
        (scratch / "table.json").write_bytes(data)
        (scratch / "journal.jsonl").write_bytes(journal)
        profiling.read_table(scratch)

    return parse


def _rows(header: bytes) -> Parse:
    """Rows whose checksums fit, whatever they hold."""

    def parse(data: bytes, scratch: Path) -> None:
        (scratch / "table.json").write_bytes(header)
        (scratch / "journal.jsonl").write_bytes(sealed(data[:_MOST_SEALED_BYTES]))
        for row in profiling.read_table(scratch)[1]:
            assert decode_record(encode_compact(row), Measurement, "here") == row

    return parse


def _imported_info() -> ImportedInfo:
    return ImportedInfo(
        target="board",
        workload=Workload(),
        space=SPACE,
        precision="fp32",
        threads=1,
        runtime="other",
        unit="ms",
        columns={"depth": "layers"},
        origins={"t.csv": "0" * 64},
        created_at=now(),
    )


_IMPORTED_ROW = encode_compact(
    ImportedRow(
        axes={"embedding": 16.0, "depth": 2.0, "hidden": (8.0, 16.5), "heads": (2.0, 2.0)},
        latency_s=0.01,
        spread_s=0.001,
    )
)


def _imported_header(data: bytes, scratch: Path) -> None:
    (scratch / tables.folder.HEADER).write_bytes(data)
    (scratch / tables.folder.ROWS).write_bytes(sealed(_IMPORTED_ROW))
    info, rows = tables.read_imported(scratch)
    tables.folder.to_axis_arrays(info.space, rows)


def _imported_rows(data: bytes, scratch: Path) -> None:
    (scratch / tables.folder.HEADER).write_bytes(encode_record(_imported_info()))
    (scratch / tables.folder.ROWS).write_bytes(sealed(data[:_MOST_SEALED_BYTES]))
    info, rows = tables.read_imported(scratch)
    tables.folder.to_axis_arrays(info.space, rows)
    assert all(tables.folder.row_id(info.space, row) for row in rows)


def _sheet(name: str, space: Any = SPACE) -> Parse:
    """A table of others: its rows keep, and are in the space."""

    def parse(data: bytes, scratch: Path) -> None:
        path = scratch / name
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        found = tables.read_file(path, space)
        for row in found.rows:
            assert decode_record(encode_compact(row), ImportedRow, "here") == row
        tables.to_axis_arrays(space, found.rows)

    return parse


_CSV = "\n".join([NAMES, *ROWS]).encode()
_HAT = "\n".join([HAT_NAMES, *HAT_ROWS]).encode()
_JSONL = b"\n".join(
    json.dumps({"embedding": 16, "hidden": [8] * depth, "depth": depth, "latency_ms": 2.5 * depth}).encode()
    for depth in (1, 2, 3)
)


def file_parsers(project: Path) -> dict[str, Parser]:
    """Each by its name; valid examples are the files of a finished project."""

    def files(pattern: str) -> list[bytes]:
        found = [path.read_bytes() for path in sorted(project.glob(pattern))]
        assert found, pattern
        return found

    (header,), (journal,) = files("profiles/*/*/table.json"), files("profiles/*/*/journal.jsonl")
    (predictor,) = files("profiles/*/*/predictor.json")
    rows = b"\n".join(msgspec.json.encode(json.loads(line)["record"]) for line in journal.splitlines()[:2])
    features = msgspec.json.decode(predictor, type=PredictorInfo).features
    found = {path: Parser("json", files(path), _record(kind)) for path, kind in RECORDS.items()}
    found |= {path: Parser("lines", _short(files(path)), _journal(kind)) for path, kind in JOURNALS.items()}
    return found | {
        "artifacts": Parser("json", [_artifacts(files("bundles/*/manifest.json")[0], header)], _record(ArtifactsInfo)),
        "manifest": Parser("json", files("bundles/*/manifest.json"), _manifest),
        "predictor": Parser("json", [predictor], _predictor(features)),
        "table header": Parser("json", [header], _header(journal)),
        "table rows": Parser("lines", [rows], _rows(header)),
        "imported header": Parser("json", [encode_record(_imported_info())], _imported_header),
        "imported rows": Parser("lines", [_IMPORTED_ROW], _imported_rows),
        "csv": Parser("csv", [_CSV], _sheet("t.csv")),
        "csv.gz": Parser("csv", [_CSV], _sheet("t.csv.gz")),
        "hat": Parser("csv", [_HAT], _sheet("t.csv", HAT_SPACE)),
        "jsonl": Parser("lines", [_JSONL], _sheet("t.jsonl")),
    }


def _short(journals: list[bytes]) -> list[bytes]:
    return [b"".join(one.splitlines(keepends=True)[:3]) for one in journals]


def _artifacts(manifest: bytes, header: bytes) -> bytes:
    """The record of a folder of files to be measured elsewhere, which hold what a bundle and a table say."""
    shipped, table = json.loads(manifest), json.loads(header)
    file = shipped["artifact"]
    found = {name: table[name] for name in ("space", "workload", "recipe", "created_at")}
    found |= {name: shipped[name] for name in ("inputs", "vocabulary_size", "checkpoint_sha256")}
    found |= {name: shipped["environment"][name] for name in ("engine", "provider", "machine")}
    found |= {
        "run": "made",
        "precision": "fp32",
        "reference": file,
        "artifacts": [file],
        "planned": [file["architecture"]],
    }
    return json.dumps(found).encode()
