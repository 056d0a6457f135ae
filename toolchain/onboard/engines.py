"""The engines that can run a model, by the name a target calls them."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from .channel import RefusalError, Request

_MODULES = {
    "onnxruntime": "onnxruntime_engine",
    "tensorrt": "tensorrt_engine",
    "tensorrt_rtx": "tensorrt_engine",
}


class Runner(Protocol):
    """A model that is loaded, its inputs in place.

    Attributes:
        names: of the outputs, in the model's own order.
        flags: remarks for the measurement, such as `enqueue-bound`.
    """

    names: list[str]
    flags: list[str]

    def run(self) -> None:
        """One inference; its outputs are computed when this returns. Raises one of the engine's `errors`."""

    def outputs(self) -> list[Any]:
        """The outputs of the last inference as numpy arrays."""


class Engine(Protocol):
    """A module with these functions; `request` names the engine, provider, threads and options."""

    def describe(self, request: Request) -> dict[str, str]:
        """engine, engine_version, provider, accelerator and driver (empty: none), as they are here.

        Raises:
            RefusalError: the engine is not installed (`engine`), or lacks what was asked for (`provider`).
        """

    def errors(self) -> tuple[type[BaseException], ...]:
        """What it raises about a model."""

    def open_model(self, path: str, request: Request, inputs: dict[str, Any]) -> Runner:
        """Load the ONNX file at `path` and put `inputs` (numpy arrays by name) in place.

        Raises:
            RefusalError: `load` where the model is refused, `provider` where another would run it than was asked.
        """

    def forks(self, request: Request) -> bool:
        """Whether a model may be tried in a forked process first (not once an accelerator's driver is in use)."""

    def on_nvidia(self, request: Request) -> bool:
        """Whether it is an NVIDIA GPU that will run the model, whose sensors then count."""


def engine_of(request: Request) -> Engine:
    """The engine a request names."""
    name = request["engine"]
    if name not in _MODULES:
        raise RefusalError("engine", f"this worker knows no engine {name!r}")
    return cast("Engine", importlib.import_module(f".{_MODULES[name]}", __package__))
