"""Which device is meant: the one that is named, first of all by --device, else the one profiled last."""

from __future__ import annotations

import pytest

from toolchain.pipeline.wishes import Limits, Objective, Wish

FAST, SMALL = Limits("latency_s", (0.005,), "rpi"), Limits("parameters", (1e6,))
HERE = Limits("latency_s", (0.005,))


@pytest.mark.parametrize(
    ("wish", "meant"),
    [
        (Wish(), None),
        (Wish(limits=(SMALL, HERE)), None),
        (Wish(limits=(SMALL, FAST, Limits("latency_s", (1.0,), "cpu"))), "rpi"),
        (Wish(limits=(HERE,), objectives=(Objective("energy_j", "jetson"),)), "jetson"),
        (Wish(limits=(FAST,), device="cpu"), "cpu"),
    ],
)
def test_the_device_that_is_meant(wish: Wish, meant: str | None) -> None:
    assert wish.main == meant
