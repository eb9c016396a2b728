"""A rate of bytes is kept over any time, and what fits into the burst does not wait."""

from random import Random

import pytest

from timemachine.byterate import ByteRate


def test_what_fits_into_the_burst_leaves_at_once() -> None:
    """And again when so much time has gone by."""
    rate = ByteRate(1_000, 500)
    assert 0.0 == rate.book(500, 10_000)
    assert 100.0 == rate.book(100, 10_000)
    assert 0.0 == rate.book(500, 11_000)


def test_a_pause_saves_no_more_than_the_burst() -> None:
    """A day without a byte is no right to a day's bytes."""
    rate = ByteRate(1_000, 100)
    assert 0.0 == rate.book(100, 0)
    assert 0.0 == rate.book(100, 86_400_000)
    assert 50.0 == rate.book(50, 86_400_000)


def test_those_who_share_a_rate_take_turns() -> None:
    """Each waits for what was booked before it."""
    rate = ByteRate(1_000, 0)
    assert [10.0, 20.0, 30.0] == [rate.book(10, 5) for _ in range(3)]


def test_more_than_the_burst_leaves_too() -> None:
    """Later: a single row may be larger than any burst."""
    assert 900.0 == ByteRate(1_000, 100).book(1_000, 0)


@pytest.mark.parametrize("seed", range(50))
def test_the_rate_holds_over_any_time(seed: int) -> None:
    """Between any two moments no more leaves than the burst and what the time allows."""
    rng = Random(seed)
    per_s, burst = rng.choice([(1_000, 0), (1_000, 300), (50_000, 5_000)])
    rate = ByteRate(per_s, burst)
    now_ms = 0.0
    left: list[tuple[float, int]] = []
    for _ in range(60):
        now_ms += rng.choice([0, 0, rng.uniform(0, 20), rng.uniform(0, 1_000)])
        size = rng.randrange(1, 400)
        left.append((now_ms + rate.book(size, now_ms), size))
    for at, (begin_ms, first) in enumerate(left):
        total = 0
        for end_ms, size in left[at:]:
            total += size
            at_once = max(burst, first)
            assert total <= at_once + (end_ms - begin_ms) * per_s / 1_000 + 1e-6
