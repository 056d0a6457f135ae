"""Figures from recorded rounds; nothing is timed here."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.profiling.statistics import anchor_s, half_width, latency
from toolchain.records import Round, Timed

from .models import timed

SECONDS = st.floats(1e-5, 1.0)


@st.composite
def measurements(draw: st.DrawFn) -> Timed:
    """Up to 20 rounds of three calls, any of which may have waited for a processor."""
    rounds = []
    for _ in range(draw(st.integers(1, 20))):
        walls = draw(st.tuples(SECONDS, SECONDS, SECONDS))
        reference = sorted(draw(st.tuples(SECONDS, SECONDS)))
        rounds.append(
            Round(
                wall_s=walls,
                cpu_s=walls,
                delay_s=draw(st.tuples(*[st.sampled_from([0.0, 1e-5, 0.5])] * 3)),
                reference_wall_s=reference[1],
                reference_cpu_s=reference[1],
                reference_fastest_s=reference[0],
            )
        )
    return Timed(rounds=tuple(rounds), session_s=0.0, first_run_s=0.0)


def noisy(rounds: int, ratio: float, seed: int = 0) -> tuple[list[list[float]], list[float]]:
    """A candidate `ratio` times as slow as the reference's 10 ms, both with 2 % of noise."""
    rng = np.random.default_rng(seed)
    walls = 0.01 * ratio * (1 + 0.02 * rng.random((rounds, 6)))
    reference = 0.01 * (1 + 0.02 * rng.random((rounds, 6)).min(axis=1))
    return walls.tolist(), reference.tolist()


@given(measurements())
@settings(max_examples=30)
def test_figures_are_positive_and_in_order(one: Timed) -> None:
    found = latency(one, anchor_s([one]))
    assert 0 < found.median_s < np.inf
    assert 0 <= found.half_width_s < np.inf
    assert found.minimum_s <= found.median_s * (1 + 1e-9)
    assert found.minimum_s * (1 - 1e-9) <= found.mean_s
    assert found.drift >= 1
    assert 0 <= found.share_kept <= 1
    assert ("contended" in found.status) == (found.share_kept < 0.5)
    assert 1 <= found.n <= 3 * found.rounds
    assert found == latency(one, anchor_s([one]))


@given(measurements(), st.floats(1e-2, 1e2))
@settings(max_examples=30)
def test_what_is_slower_throughout_is_slower_in_every_figure(one: Timed, factor: float) -> None:
    """Delays are left out: what counts as one has an absolute floor of 20 us."""
    plain = [msgspec.structs.replace(turn, delay_s=(0.0,) * 3) for turn in one.rounds]
    slower = [
        msgspec.structs.replace(
            turn,
            wall_s=tuple(factor * wall for wall in turn.wall_s),
            cpu_s=tuple(factor * cpu for cpu in turn.cpu_s),
            reference_wall_s=factor * turn.reference_wall_s,
            reference_fastest_s=factor * turn.reference_fastest_s,
        )
        for turn in plain
    ]
    before, after = (
        latency(again, anchor_s([again]))
        for again in (msgspec.structs.replace(one, rounds=tuple(rounds)) for rounds in (plain, slower))
    )
    for name in ("median_s", "raw_median_s", "cpu_median_s", "mean_s", "minimum_s"):
        assert getattr(after, name) == pytest.approx(factor * getattr(before, name), rel=1e-9)
    assert after.half_width_s == pytest.approx(factor * before.half_width_s, rel=1e-6, abs=1e-12)
    assert after.drift == pytest.approx(before.drift)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.0])
def test_a_slow_stretch_that_hits_both_alike_moves_the_paired_median_little(ratio: float) -> None:
    walls, reference = noisy(60, ratio)
    calm = timed(walls, reference)
    anchor = anchor_s([calm])
    for turn in range(10, 25):
        walls[turn] = [10 * wall for wall in walls[turn]]
        reference[turn] *= 10
    found = latency(timed(walls, reference), anchor)
    assert found.median_s == pytest.approx(latency(calm, anchor).median_s, rel=0.005)
    assert found.mean_s > 2 * latency(calm, anchor).mean_s
    assert found.status == ("drifted",)
    assert found.drift == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.0])
def test_the_interval_holds_the_true_latency(ratio: float) -> None:
    walls, reference = noisy(100, ratio)
    one = timed(walls, reference)
    found = latency(one, 0.01)
    assert abs(found.median_s - 0.01 * ratio) < 2 * found.half_width_s + 0.001 * ratio * 0.01
    assert 0 < found.half_width_s < 0.01 * found.median_s
    assert found.status == ()


def test_more_rounds_narrow_the_interval() -> None:
    few, many = (latency(timed(*noisy(rounds, 1.0)), 0.01).half_width_s for rounds in (10, 400))
    assert many < few / 2


def test_the_bootstrap_agrees_with_itself_in_one_piece_and_in_many() -> None:
    rng = np.random.default_rng(0)
    small, large = (half_width(rng.normal(1, 0.1, n)) * np.sqrt(n) for n in (1000, 10_000))
    assert small == pytest.approx(large, rel=0.3)
    assert small == pytest.approx(1.96 * 0.1 * np.sqrt(np.pi / 2), rel=0.3)


def test_samples_that_waited_are_left_out_unless_all_of_a_round_did() -> None:
    walls, reference = [[0.01, 0.01, 0.05], [0.02, 0.02, 0.02]], [0.01, 0.01]
    one = timed(walls, reference)
    delays = [(0.0, 0.0, 0.04), (0.01, 0.01, 0.01)]
    rounds = [
        msgspec.structs.replace(*pair, delay_s=delay) for pair, delay in zip(zip(one.rounds), delays, strict=True)
    ]
    found = latency(msgspec.structs.replace(one, rounds=tuple(rounds)), 0.01)
    assert found.n == 5
    assert found.share_kept == pytest.approx(2 / 6)
    assert found.status == ("contended",)
    assert found.raw_median_s == 0.02


@pytest.mark.parametrize(("samples", "p90", "p99"), [(63, False, False), (64, True, False), (662, True, True)])
def test_high_percentiles_need_enough_samples(samples: int, p90: bool, p99: bool) -> None:
    found = latency(timed([[0.01]] * samples, [0.01] * samples), 0.01)
    assert (found.p90_s is not None, found.p99_s is not None) == (p90, p99)


def test_all_percentiles_stand_on_the_scale_of_the_paired_median() -> None:
    """An hour in which everything took twice as long moves the raw median, and no other figure."""
    walls, reference = noisy(200, 1.0)
    calm = latency(timed(walls, reference), 0.01)
    busy = latency(timed([[2 * wall for wall in turn] for turn in walls], [2 * one for one in reference]), 0.01)
    assert busy.raw_median_s == pytest.approx(2 * calm.raw_median_s)
    for found in (calm, busy):
        assert found.p90_s is not None
        assert found.p99_s is not None
        assert found.minimum_s <= found.median_s <= found.p90_s <= found.p99_s
    for name in ("median_s", "mean_s", "minimum_s", "p90_s", "p99_s"):
        assert getattr(busy, name) == pytest.approx(getattr(calm, name), rel=1e-9)


def test_the_workers_flags_become_a_status_where_they_cast_doubt() -> None:
    one = timed([[0.01]] * 5, [0.01] * 5, flags=("delay-unknown", "unstable", "not-steady"))
    assert latency(one, 0.01).status == ("unstable", "not-steady")


def test_the_anchor_is_the_typical_reference_whoever_had_more_rounds() -> None:
    calm = [timed([[0.01]] * 5, [0.010 + 0.001 * i] * 5) for i in range(3)]
    restless = timed([[0.01]] * 500, [0.5] * 500)
    assert anchor_s(calm) == pytest.approx(0.011)
    assert anchor_s([*calm, restless]) == pytest.approx(0.0115)
    with pytest.raises(UsageError):
        anchor_s([])
