"""optimum and transformers, called quietly, offline, and only where they are wanted: they take seconds to import."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

from toolchain.errors import UsageError


def load(name: str) -> ModuleType:
    """A module of transformers or optimum.

    Raises:
        UsageError: it is not installed, or does not go with what is.
    """
    try:
        with quietly():
            return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            "models of other makers need optimum, which is not installed here",
            why=str(error).splitlines()[0],
            hint="pip install 'mostool[optimum]'",
        ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without their warnings of what is to change in other versions, and without their log."""
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "onnxruntime", "")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Whatever they look for beside the folder they are given, they do not ask the network."""
    hub, library = load("huggingface_hub.constants"), load("transformers.utils.hub")
    places = [(hub, "HF_HUB_OFFLINE"), (library, "_is_offline_mode")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
