"""The engines that can run a model, by the name a target calls them."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, Protocol, cast

from .channel import RefusalError, Request

_MODULES = {
    "onnxruntime": "onnxruntime_engine",
    "tensorrt": "tensorrt_engine",
    "tensorrt_rtx": "tensorrt_engine",
}
_BUILDERS = ("tensorrt", "tensorrt_rtx")


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
        """Load the ONNX file, or what the engine has built of one, and put `inputs` (numpy arrays by name) in place.

        Raises:
            RefusalError: `load` where the model is refused, `provider` where another would run it than was asked.
        """

    def forks(self, request: Request) -> bool:
        """Whether a model may be tried in a forked process first (not once an accelerator's driver is in use)."""

    def on_nvidia(self, request: Request) -> bool:
        """Whether it is an NVIDIA GPU that will run the model, whose sensors then count."""


class Built(NamedTuple):
    """What an engine makes of a model, to be loaded later.

    Attributes:
        plan: the content of its file.
        version: the engine's, which must load it.
        capability: the compute capabilities of the GPUs it is for, as `8.9` or `8.6,8.9`.
    """

    plan: bytes
    version: str
    capability: str


class Builder(Engine, Protocol):
    """An engine that compiles models for a GPU."""

    def describe_builder(self, request: Request) -> dict[str, str]:
        """As `describe`; accelerator and driver are empty where it builds for a GPU that is not here.

        Raises:
            RefusalError: as `describe`; `provider` where it does not build without a GPU, or none is named.
        """

    def build(self, path: str, request: Request, shapes: dict[str, tuple[int, ...]]) -> Built:
        """Compile the ONNX file for the range of shapes that the options name, to be fast at these.

        Raises:
            RefusalError: as `describe_builder`; `load` where the model cannot be had in this engine.
        """


def builder_of(request: Request) -> Builder:
    """The engine a request names, which must be one that builds."""
    if request["engine"] not in _BUILDERS:
        raise RefusalError("request", f"{request['engine']} builds no engines; {' and '.join(_BUILDERS)} do")
    return cast("Builder", engine_of(request))


def engine_of(request: Request) -> Engine:
    """The engine a request names."""
    name = request["engine"]
    if name not in _MODULES:
        raise RefusalError("engine", f"this worker knows no engine {name!r}")
    return cast("Engine", importlib.import_module(f".{_MODULES[name]}", __package__))
