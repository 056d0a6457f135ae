"""What a host asks of the TensorRT engines, and how it is refused."""

from typing import Any

import pytest

from toolchain.onboard.channel import RefusalError


def request(engine: str = "tensorrt_rtx", **options: str) -> dict[str, Any]:
    """`__` in an option's name stands for a dot."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    return {"engine": engine, "provider": "", "threads": 1, "options": named, "provider_options": {}, "cores": []}


def refusal_of(kind: str, words: str) -> Any:
    return pytest.raises(RefusalError, match=words, check=lambda refusal: refusal.kind == kind)
