"""Profiling: model files and a device in, measured latencies in a table out (README.md)."""

from toolchain.profiling.groups import Candidate, Spent, measure, noise_floor
from toolchain.profiling.session import (
    InputShape,
    ModelRefusedError,
    Plan,
    ProviderRefusedError,
    RefusedError,
    build_plan,
    peak_memory_bytes,
    read_builder,
    read_environment,
    run_model,
)
from toolchain.profiling.statistics import anchor_s, latency, medians, ratios, undisturbed_s
from toolchain.profiling.table import JOURNAL, REFERENCE, TABLE, LatencyTable, differences, open_table, read_table

__all__ = [
    "JOURNAL",
    "REFERENCE",
    "TABLE",
    "Candidate",
    "InputShape",
    "LatencyTable",
    "ModelRefusedError",
    "Plan",
    "ProviderRefusedError",
    "RefusedError",
    "Spent",
    "anchor_s",
    "build_plan",
    "differences",
    "latency",
    "measure",
    "medians",
    "noise_floor",
    "open_table",
    "peak_memory_bytes",
    "ratios",
    "read_builder",
    "read_environment",
    "read_table",
    "run_model",
    "undisturbed_s",
]
