"""Records of a run in, one self-contained HTML page out."""

from toolchain.report.page import render_report
from toolchain.report.story import Story

__all__ = ["Story", "render_report"]
