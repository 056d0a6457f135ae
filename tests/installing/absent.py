"""Processes in which some packages are not installed, though they are: what a machine without torch would see."""

from __future__ import annotations

import os
from pathlib import Path

BASE_LACKS = ("torch", "onnx", "onnxscript", "safetensors", "tokenizers", "sacrebleu", "pymoo", "pyarrow")
"""What comes with the extras that make up `all`."""

_HIDING = """\
import importlib.machinery
import os

_absent = set(os.environ["ABSENT"].split(","))
_found = importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in _absent else _found(name, path, target)


importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


def without(folder: Path, *modules: str) -> dict[str, str]:
    """Variables for a process, and those it starts, that finds none of the modules. `folder` is for its use."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HIDING)
    paths = (str(folder), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "ABSENT": ",".join(modules)}
