"""What people type as limits: units, devices, percentiles and sweeps; and how what is none of these is refused."""

from __future__ import annotations

import contextlib

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from toolchain.cli.values import COUNTS, DROP, ENERGY, ERROR, LATENCY, MEMORY, SIZES, Limits


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("80ms", Limits(None, (0.08,))),
        ("rpi=80ms", Limits("rpi", (0.08,))),
        ("cpu=5ms@p90", Limits("cpu", (0.005,), 90)),
        ("5ms@P99", Limits(None, (0.005,), 99)),
        ("900us @ p50", Limits(None, (0.0009,), 50)),
        ("2ms,5ms, 10ms", Limits(None, (0.002, 0.005, 0.01))),
        ("rpi=10ms,5ms@p90", Limits("rpi", (0.01, 0.005), 90)),
        ("a=b=5ms", Limits("a=b", (0.005,))),
        ("pi@home=5ms@p90", Limits("pi@home", (0.005,), 90)),
        (" rpi = 1e-3s", Limits("rpi", (0.001,))),
    ],
)
def test_a_latency_may_name_its_device_its_percentile_and_several_limits(typed: str, meant: Limits) -> None:
    found = LATENCY.convert(typed, None, None)
    assert (found.device, found.percentile) == (meant.device, meant.percentile)
    assert found.limits == pytest.approx(meant.limits)
    assert found.limit == max(found.limits)


def test_memory_energy_sizes_and_counts() -> None:
    assert MEMORY.convert("rpi=100MiB,50MiB", None, None) == Limits("rpi", (100 * 2.0**20, 50 * 2.0**20))
    assert ENERGY.convert("5mJ", None, None) == Limits(None, (0.005,))
    assert ENERGY.convert("jetson=1.5J", None, None) == Limits("jetson", (1.5,))
    assert SIZES.convert("1MiB,2MiB", None, None) == (2.0**20, 2.0**21)
    assert SIZES.convert("1MiB", None, None) == (2.0**20,)
    assert COUNTS.convert("12000,1.5M", None, None) == (12000.0, 1.5e6)


def test_a_share_may_be_none_at_all() -> None:
    assert [DROP.convert(typed, None, None) for typed in ("0%", "0", "5%", "0.05")] == [0.0, 0.0, 0.05, 0.05]


@pytest.mark.parametrize(
    ("kind", "typed", "said"),
    [
        (LATENCY, "", "'' is no time"),
        (LATENCY, "5", "'5' is no time"),
        (LATENCY, "nan", "'nan' is no time"),
        (LATENCY, "nanms", "'nanms' is no time"),
        (LATENCY, "-5ms", "'-5ms' is no time"),
        (LATENCY, "0ms", "must be above zero"),
        (ERROR, "0%", "must be above zero"),
        (DROP, "-1%", "'-1%' is no share"),
        (DROP, "1e999%", "must be finite"),
        (LATENCY, "1e999s", "must be"),
        (LATENCY, "5MiB", "'5MiB' is no time"),
        (LATENCY, "5ms,", "'' is no time"),
        (LATENCY, ",5ms", "'' is no time"),
        (LATENCY, "5ms,,6ms", "'' is no time"),
        (LATENCY, "1ms,1000us", "one limit twice"),
        (LATENCY, "rpi=", "'' is no time"),
        (LATENCY, "=5ms", "names no device"),
        (LATENCY, " =5ms", "names no device"),
        (LATENCY, "rpi=5ms,cpu=3ms", "repeat the option"),
        (LATENCY, "5ms@", "'@' is no percentile: it is one of p50, p90, p99"),
        (LATENCY, "5ms@p95", "'@p95' is no percentile"),
        (LATENCY, "5ms@90", "'@90' is no percentile"),
        (LATENCY, "5ms@p90@p99", "is no percentile"),
        (LATENCY, "5ms@p90,6ms", "is no percentile"),
        (LATENCY, "@p90", "'' is no time"),
        (MEMORY, "5ms", "'5ms' is no size"),
        (MEMORY, "1MiB@p90", "only a latency has percentiles"),
        (ENERGY, "5ms", "'5ms' is no energy: write it like 5mJ (units: uj, mj, j)"),
        (ENERGY, "0J", "must be above zero"),
        (SIZES, "1MiB,", "'' is no size"),
        (SIZES, "1MiB,1024KiB", "one limit twice"),
        (COUNTS, "many", "'many' is no count"),
    ],
)
def test_what_is_no_limit_is_refused_with_exit_code_2(kind: click.ParamType, typed: str, said: str) -> None:
    @click.command()
    @click.option("--limit", type=kind, multiple=True)
    def ask(limit: object) -> None:
        raise AssertionError(limit)

    told = CliRunner().invoke(ask, ["--limit", typed])
    assert told.exit_code == 2
    assert said in told.output


@given(st.text(max_size=12))
def test_any_text_is_either_a_limit_or_refused(typed: str) -> None:
    with contextlib.suppress(click.BadParameter):
        found = LATENCY.convert(typed, None, None)
        assert all(0 < limit < float("inf") for limit in found.limits)
        assert found.device != ""


def test_help_shows_how_a_limit_is_written() -> None:
    @click.command()
    @click.option("--latency", type=LATENCY, multiple=True)
    @click.option("--size", type=SIZES)
    def ask(latency: object, size: object) -> None: ...

    told = CliRunner().invoke(ask, ["--help"]).output
    assert "[DEVICE=]TIME[@P90]" in told
    assert "SIZE[,...]" in told
