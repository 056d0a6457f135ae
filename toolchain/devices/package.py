"""toolchain.onboard as one file: a zip that Python runs, the same bytes for the same sources."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

from toolchain import onboard
from toolchain.files import sha256_bytes

_NAME = "mostool_onboard"
_MAIN = f"import sys\nfrom {_NAME}.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@functools.cache
def packed() -> bytes:
    """The zip's content: python FILE worker, python FILE agent ROOT, ... (onboard/__main__.py)."""
    stream = io.BytesIO()
    sources = {f"{_NAME}/{path.name}": path.read_bytes() for path in Path(onboard.__file__).parent.glob("*.py")}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted({"__main__.py": _MAIN.encode(), **sources}.items()):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def packed_sha256() -> str:
    return sha256_bytes(packed())
