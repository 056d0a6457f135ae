"""Which packages belong to which extra of mostool (pyproject.toml), so that what lacks one can name the other."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("torch", "safetensors", "tokenizers", "sacrebleu"),
        "onnx": ("onnx", "onnxscript"),
        "search": ("pymoo",),
        "tables": ("pyarrow",),
        "track": ("accelerate", "tensorboard"),
        "hf": ("datasets", "huggingface_hub"),
        "cluster": ("distributed",),
        "optimum": ("optimum", "transformers"),
        "peers": ("ctranslate2", "openvino"),
        "tensorrt": ("tensorrt",),
        "tensorrt-rtx": ("tensorrt_rtx",),
    }
)
"""What each brings, as modules. `onnx` brings what `train` does too, `search` what `onnx` does; `all` is these
and `tables`. `gpu` brings no module: see ONE_OF.
"""
ONE_OF = ("onnxruntime", "onnxruntime-gpu")
"""Two packages of one module: where both are installed, whichever was unpacked last is the one that runs."""
INSTEAD = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
"""How the one that knows GPUs comes to stand alone."""

_OF_COMMAND: Mapping[str, str] = MappingProxyType({"train": "train", "search": "search", "demo": "all"})
"""What a command wants as a whole; what makes files of a run wants `onnx`."""
_STAGES = ("train", "onnx", "search")


def extra_of(module: str, command: str = "") -> str | None:
    """The extra that brings a module to a command; None for a module that mostool does not know.

    Of those that bring one another it is the one with which the command lacks nothing more.
    """
    root = module.partition(".")[0]
    found = next((extra for extra, modules in EXTRAS.items() if root in modules), None)
    return _OF_COMMAND.get(command, max(found, "onnx", key=_STAGES.index)) if found in _STAGES else found


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed. Nothing is imported."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def require(extra: str) -> None:
    """Raise ModuleNotFoundError where a module of an extra is missing that would be imported only later on."""
    for module in missing(extra):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def both_runtimes() -> bool:
    """Whether the packages of which there should be one are both installed."""
    names = {(one.metadata["Name"] or "").lower() for one in importlib.metadata.distributions()}
    return set(ONE_OF) <= names
