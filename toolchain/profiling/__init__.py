"""Profiling: model files and a target in, measured latencies in a table out (README.md)."""

from toolchain.profiling.session import Candidate, InputShape, measure, peak_memory_bytes, read_environment, run_model
from toolchain.profiling.statistics import anchor_s, latency
from toolchain.profiling.table import JOURNAL, REFERENCE, TABLE, LatencyTable, differences, open_table, read_table

__all__ = [
    "JOURNAL",
    "REFERENCE",
    "TABLE",
    "Candidate",
    "InputShape",
    "LatencyTable",
    "anchor_s",
    "differences",
    "latency",
    "measure",
    "open_table",
    "peak_memory_bytes",
    "read_environment",
    "read_table",
    "run_model",
]
