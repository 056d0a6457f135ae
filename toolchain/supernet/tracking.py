"""Training figures sent to an experiment tracker, through accelerate's own interface to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolchain.errors import UsageError
from toolchain.records import TrainingPoint

Looked = Callable[[TrainingPoint], None]

TRACKING_FOLDER = "tracking"
"""In a run's folder: where a tracker that keeps its logs in files keeps them."""


def find_tracker(name: str) -> Any:
    """accelerate's class for the tracker `name`.

    Raises:
        UsageError: nobody knows it, or it or accelerate is not installed.
    """
    try:
        from accelerate import tracking  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise UsageError(
            "tracking needs the package accelerate", why=str(error), hint="pip install 'mostool[track]'"
        ) from error
    known = tracking.LOGGER_TYPE_TO_CLASS
    if name not in known:
        raise UsageError(f"no tracker is known as {name!r}", hint=f"known: {', '.join(sorted(map(str, known)))}")
    if name not in {str(one) for one in tracking.get_available_trackers()}:
        raise UsageError(f"the tracker {name!r} is not installed", hint=f"pip install {name}")
    return known[name]


@contextlib.contextmanager
def start_tracker(name: str | None, folder: Path, settings: Mapping[str, object]) -> Iterator[Looked | None]:
    """Yield what tells the tracker `name` (tensorboard, wandb, mlflow, ...) of each look at a run; None without a name.

    The run is called what its folder is called. Of several processes that train together, one starts a tracker.

    Raises:
        UsageError: see `find_tracker`.
    """
    if name is None:
        yield None
        return
    kind = find_tracker(name)
    _set_up_accelerate()
    run = folder.resolve().name
    tracker = kind(run, logging_dir=str(folder / TRACKING_FOLDER)) if kind.requires_logging_directory else kind(run)
    tracker.start()
    tracker.store_init_configuration({key: str(value) for key, value in settings.items()})
    try:
        yield lambda point: tracker.log(_figures(point), step=point.update)
    finally:
        tracker.finish()


def _set_up_accelerate() -> None:
    """Its trackers ask it which process they are in. On `cpu` it looks no further than at the group that is joined."""
    from accelerate.state import PartialState  # noqa: PLC0415

    PartialState(cpu=True)


def _figures(point: TrainingPoint) -> dict[str, float]:
    """One look as flat names: loss/largest, validation_accuracy/largest, mixture/router_entropy, learning_rate."""
    figures = {"learning_rate": point.learning_rate, "seconds": point.seconds}
    figures |= {f"loss/{name}": value for name, value in point.losses.items()}
    figures |= {f"mixture/{name}": value for name, value in point.mixture.items()}
    for name, quality in point.quality.items():
        figures |= {f"validation_{quality.metric}/{name}": quality.value, f"validation_loss/{name}": quality.loss}
        figures |= {f"validation_{metric}/{name}": value for metric, value in quality.also.items()}
    return figures
