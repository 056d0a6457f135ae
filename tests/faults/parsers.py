"""Every door by which data comes in."""

from __future__ import annotations

from pathlib import Path

from .file_parsers import JOURNALS, RECORDS, file_parsers
from .parsing import Parser
from .said_parsers import said_parsers
from .typed_parsers import typed_parsers

NAMES = (
    *RECORDS,
    *JOURNALS,
    *("artifacts", "manifest", "predictor", "table header", "table rows", "imported header", "imported rows"),
    *("csv", "csv.gz", "hat", "jsonl"),
    *("settings", "options", "target", "space", "translation space", "values", "architecture", "architectures"),
    *("message", "worker's times", "worker's answers", "worker's engine", "worker's memory", "worker's machine"),
    *("agent's jobs", "agent's words", "agent's facts"),
)


def parsers(project: Path) -> dict[str, Parser]:
    """All of them by NAMES. `project` is a finished one: its files are the valid examples."""
    return file_parsers(project) | typed_parsers() | said_parsers(project)
