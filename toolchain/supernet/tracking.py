"""Training figures sent to an experiment tracker, through accelerate's own interface to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.records import TrainingPoint

Looked = Callable[[TrainingPoint], None]


@contextlib.contextmanager
def start_tracker(name: str | None, folder: Path, settings: Mapping[str, object]) -> Iterator[Looked | None]:
    """Yield what tells the tracker `name` (tensorboard, wandb, mlflow, ...) of each look at a run; None without a name.

    Raises:
        UsageError: accelerate, or the tracker's own package, is not installed.
    """
    if name is None:
        yield None
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise UsageError(
            "tracking needs the package accelerate", why=str(error), hint="pip install 'mostool[track]'"
        ) from error
    if name not in LOGGER_TYPE_TO_CLASS:
        raise UsageError(f"no tracker is known as {name!r}", hint=f"known: {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
    kinds = filter_trackers([name], str(folder))
    if not kinds:
        raise UsageError(f"the tracker {name!r} is not installed", hint=f"pip install {name}")
    kind = LOGGER_TYPE_TO_CLASS[name]
    given = {"logging_dir": str(folder)} if kind.requires_logging_directory else {}
    tracker = kind(folder.name, **given)
    tracker.start()
    tracker.store_init_configuration({key: str(value) for key, value in settings.items()})
    try:
        yield lambda point: tracker.log(_figures(point), step=point.update)
    finally:
        tracker.finish()


def _figures(point: TrainingPoint) -> dict[str, float]:
    """One look as flat names: loss/largest, validation_accuracy/largest, mixture/router_entropy, learning_rate."""
    figures = {"learning_rate": point.learning_rate, "seconds": point.seconds}
    figures |= {f"loss/{name}": value for name, value in point.losses.items()}
    figures |= {f"mixture/{name}": value for name, value in point.mixture.items()}
    for name, quality in point.quality.items():
        figures |= {f"validation_{quality.metric}/{name}": quality.value, f"validation_loss/{name}": quality.loss}
    return figures
