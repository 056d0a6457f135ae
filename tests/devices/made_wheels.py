"""Wheels of a few hundred bytes, for boards that are this machine in disguise."""

from __future__ import annotations

import platform
import sys
import zipfile
from pathlib import Path

OWN_PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
OWN_PLATFORM = f"manylinux_2_17_{platform.machine()}"
DIES = "import os\nos.kill(os.getpid(), 4)\n"
BREAKS = "import something_nobody_has\n"


def lives(version: str) -> str:
    return f"__version__ = {version!r}\ndef get_available_providers():\n    return ['CPUExecutionProvider']\n"


def write_wheel(
    folder: Path, name: str, version: str, source: str | None = None, tags: str = f"{OWN_PYTHON}-{OWN_PYTHON}"
) -> Path:
    """A wheel whose package says its version, or is this source."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tags if tags.count('-') > 1 else f'{tags}-{OWN_PLATFORM}'}.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", lives(version) if source is None else source)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: made\nRoot-Is-Purelib: true\nTag: x\n")
        archive.writestr(f"{about}/RECORD", "")
    return path
