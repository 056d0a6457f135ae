"""What a training run says of where it is; read where there is no torch too."""

from __future__ import annotations

from toolchain.records import Stored, TrainingPoint

STATE_FILE = "training.json"


class TrainingState(Stored, frozen=True):
    """Where a training run is: written last, so the files it names are always whole."""

    digest: str
    update: int
    seconds: float
    curve: tuple[TrainingPoint, ...]
    weights: str
    weights_sha256: str
    optimizer: str
    optimizer_sha256: str
