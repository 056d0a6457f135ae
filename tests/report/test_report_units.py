from __future__ import annotations

import math

import msgspec
import pytest
from example_run import SPACE, quality

from toolchain.records import Cost, Workload
from toolchain.report import units


@pytest.mark.parametrize(
    ("metric", "stored", "words"),
    [
        ("latency_s", 0.01234, "12.3 ms"),
        ("latency_s", 0.000234, "0.234 ms"),
        ("latency_s", 2.5, "2,500 ms"),
        ("size_bytes", 4.2 * 2**20, "4.20 MiB"),
        ("parameters", 1234567.0, "1,234,567 parameters"),
        ("latency_s.p90@rpi", 0.01234, "12.3 ms"),
        ("peak_memory_bytes@rpi", 4.2 * 2**20, "4.20 MiB"),
        ("energy_j@rpi", 0.0123, "12.3 mJ"),
        ("energy_j", 12.3, "12.3 J"),
        ("energy_j", math.inf, "unlimited mJ"),
        ("made_up", 0.5, "0.500"),
        ("latency_s", math.inf, "unlimited ms"),
    ],
)
def test_amounts_have_units(metric: str, stored: float, words: str) -> None:
    assert units.amount(metric, stored) == words


@pytest.mark.parametrize(
    ("median_s", "half_width_s", "words"),
    [
        (0.0123, 0.0004, "12.3 ms ± 0.4"),
        (0.0123, 0.00004, "12.30 ms ± 0.04"),
        (0.1, 0.02, "100 ms ± 20"),
        (0.00123, 0.0, "1.23 ms ± 0.00"),
        (2.0, 0.001, "2,000 ms ± 1"),
    ],
)
def test_a_measured_latency_shows_its_uncertainty(median_s: float, half_width_s: float, words: str) -> None:
    assert units.measured_ms(median_s, half_width_s) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(9.996, "10.0"), (0.0, "0"), (-0.0456, "-0.0456"), (123456, "123,456"), (math.nan, "not a number")],
)
def test_three_digits_and_no_exponent(value: float, words: str) -> None:
    assert units.significant(value) == words


def test_words() -> None:
    assert units.quality_words(quality(0.8712, "test", 1872)) == "accuracy 87.1 % on 1,872 test items"
    bleu = msgspec.structs.replace(quality(0.1128, "test", 2000), metric="bleu")
    assert units.quality_words(bleu) == "BLEU 11.3 on 2,000 test items"
    assert units.capital(units.metric_name(bleu)) == "BLEU"
    assert units.merit(msgspec.structs.replace(bleu, value=math.inf)) == "unlimited"
    assert units.workload_words(Workload(batch=2, sequence_length=16)) == "batch 2, 16 tokens"
    assert units.architecture_words(SPACE.smallest()) == "hidden 32, layers 2, ffn 64 64"
    assert units.milliseconds(None) == "not enough samples"
    assert units.cost_words("latency_s", Cost(value=0.01, upper=0.011, source="predicted")) == (
        "10.0 ms predicted (at most 11.0 ms)"
    )
    assert units.unit("latency_s@rpi").axis == "latency (p50), ms"
    assert units.unit("latency_s.p99@rpi").axis == "latency (p99), ms"
    assert units.capital("latency (p90) on RPi") == "Latency (p90) on RPi"
    assert units.cost_words("parameters", Cost(value=9, upper=9, source="counted")) == "9 parameters counted"
