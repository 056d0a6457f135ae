"""What a report is told: the records of one run, some of which may not exist yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from toolchain.records import CheckpointInfo, Manifest, PredictorInfo, SearchResult, TrainingPoint


class Story(NamedTuple):
    """One run from training to the shipped file.

    Attributes:
        title: the page's name, as the reader will see it; free text.
        checkpoint: the trained supernet.
        curve: its training run, oldest look first; empty where it was not kept.
        predictor: the latency predictor the search used; None without a device.
        search: None before the search.
        manifest: the exported and measured winner; None before the export.
        versions: of the software that writes this report, by name.
    """

    title: str
    checkpoint: CheckpointInfo
    curve: Sequence[TrainingPoint] = ()
    predictor: PredictorInfo | None = None
    search: SearchResult | None = None
    manifest: Manifest | None = None
    versions: Mapping[str, str] = MappingProxyType({})
