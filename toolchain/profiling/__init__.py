"""Profiling: model files and a device in, measured latencies in a table out (README.md)."""

from toolchain.profiling.groups import Candidate, Spent, measure, noise_floor
from toolchain.profiling.session import InputShape, peak_memory_bytes, read_environment, run_model
from toolchain.profiling.statistics import anchor_s, latency
from toolchain.profiling.table import JOURNAL, REFERENCE, TABLE, LatencyTable, differences, open_table, read_table

__all__ = [
    "JOURNAL",
    "REFERENCE",
    "TABLE",
    "Candidate",
    "InputShape",
    "LatencyTable",
    "Spent",
    "anchor_s",
    "differences",
    "latency",
    "measure",
    "noise_floor",
    "open_table",
    "peak_memory_bytes",
    "read_environment",
    "read_table",
    "run_model",
]
