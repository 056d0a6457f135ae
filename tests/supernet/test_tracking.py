"""Figures told to a tracker can be read back from it; one that is not there is refused at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolchain.errors import UsageError
from toolchain.records import Quality, TrainingPoint
from toolchain.supernet.tracking import TRACKING_FOLDER, find_tracker, start_tracker

tracking = pytest.importorskip("accelerate.tracking")


def point(update: int) -> TrainingPoint:
    seen = Quality(metric="accuracy", value=0.5, loss=0.75, n=8, split="validation", also={"f1": 0.25})
    return TrainingPoint(
        update=update,
        seconds=2.0 * update,
        learning_rate=0.125,
        losses={"largest": 1.0 / update, "smallest": 2.0},
        quality={"largest": seen, "smallest": seen},
        mixture={"router_entropy": 1.0},
    )


def test_what_tensorboard_was_told_can_be_read_back(tmp_path: Path) -> None:
    """Told by two trackers, as of a run that was resumed; in a process of its own, where warnings are errors."""
    pytest.importorskip("tensorboard")
    subprocess.run([sys.executable, "-W", "error", __file__, str(tmp_path / "run")], check=True, timeout=120)
    from tensorboard.backend.event_processing import event_accumulator  # noqa: PLC0415 - slow to import

    assert [path.name for path in (tmp_path / "run").iterdir()] == [TRACKING_FOLDER]
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / TRACKING_FOLDER / "run")).Reload()
    read = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert read.keys() == {
        *("learning_rate", "seconds", "mixture/router_entropy"),
        *("loss/largest", "loss/smallest"),
        *(f"validation_{figure}/{name}" for figure in ("accuracy", "loss", "f1") for name in ("largest", "smallest")),
    }
    assert read["loss/largest"] == [(1, 1.0), (2, 0.5), (4, 0.25)]
    assert read["validation_f1/smallest"] == [(1, 0.25), (2, 0.25), (4, 0.25)]
    assert read["seconds"] == [(1, 2.0), (2, 4.0), (4, 8.0)]


def test_a_tracker_hears_the_settings_the_looks_and_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where training fails. A tracker that keeps no files is given the run's name alone."""
    heard: list[Any] = []

    class Tracker(tracking.GeneralTracker):  # type: ignore[misc,name-defined]
        name = "wandb"
        requires_logging_directory = False
        tracker = None

        def __init__(self, run_name: str) -> None:
            super().__init__()
            heard.append(run_name)

        def start(self) -> None:
            heard.append("start")

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            heard.append(values)

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            heard.append((step, values["loss/largest"]))

        def finish(self) -> None:
            heard.append("finish")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["wandb"])

    def fail() -> None:
        with start_tracker("wandb", tmp_path / "runs" / "mine", {"updates": 3, "mixture": {"kind": "layer"}}) as look:
            assert look is not None
            look(point(4))
            raise UsageError("bad data")

    with pytest.raises(UsageError, match="bad data"):
        fail()
    settings = {"updates": "3", "mixture": "{'kind': 'layer'}"}
    assert heard == ["mine", "start", settings, (4, 0.25), "finish"]
    assert not list(tmp_path.iterdir())


def test_without_a_name_nothing_is_tracked(tmp_path: Path) -> None:
    with start_tracker(None, tmp_path / "run", {}) as look:
        assert look is None
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no tracker is known as 'notebook'") as refusal:
        find_tracker("notebook")
    assert "tensorboard, trackio, wandb" in refusal.value.hint
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(UsageError, match="'wandb' is not installed") as refusal:
        find_tracker("wandb")
    assert refusal.value.hint == "pip install wandb"
    assert find_tracker("tensorboard").requires_logging_directory
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UsageError, match="accelerate") as refusal:
        find_tracker("tensorboard")
    assert "mostool[track]" in refusal.value.hint


if __name__ == "__main__":
    for updates in ((1, 2), (4,)):
        with start_tracker("tensorboard", Path(sys.argv[1]), {"updates": 3}) as look:
            for update in updates:
                assert look is not None
                look(point(update))
