"""Records of a run in, one self-contained HTML page out."""

from toolchain.report.evidence import warnings
from toolchain.report.page import render_report
from toolchain.report.story import Agreement, Block, Breakdown, DeviceTable, Row, Samples, Story

__all__ = [
    "Agreement",
    "Block",
    "Breakdown",
    "DeviceTable",
    "Row",
    "Samples",
    "Story",
    "render_report",
    "warnings",
]
