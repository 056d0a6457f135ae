from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> None:
    """Tiny matrices are slower on two threads, and the figures of two runs are compared bit by bit."""
    torch.set_num_threads(1)
