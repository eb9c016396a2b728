"""What a node counts of a rate, and for how long. How queues keep to it: `test_routequeue`."""

from timemachine.delivery.ratelimit import RateLimit
from timemachine.delivery.shares import SOLE_SHARE
from timemachine.model import Rate


def _limit(count: int = 10, period_ms: int = 1_000) -> RateLimit:
    limit = RateLimit()
    limit.set_limit(Rate(count=count, period_ms=period_ms), SOLE_SHARE)
    return limit


def test_what_is_to_begin_later_counts_from_then() -> None:
    """What is begun right after it counts as long: nothing is free too early."""
    limit = _limit()
    limit.begin(4, 0, 5_000.0, ahead_ms=20.0)
    assert 6 == limit.free(0, 5_000.0)
    limit.begin(1, 0, 5_001.0)
    assert [5, 5, 0] == [limit.used(each) for each in (5_001.0, 6_019.0, 6_020.0)]


def test_the_most_of_this_period_and_the_one_before_is_known() -> None:
    """Then it is forgotten; what still counts is not."""
    limit = _limit()
    assert 0 == limit.recent(0.0)
    limit.begin(4, 0, 5_900.0)
    assert [4, 4, 4, 0] == [limit.recent(each) for each in (5_900.0, 6_100.0, 6_999.0, 7_000.0)]
    limit.begin(2, 0, 8_100.0)
    limit.begin(3, 0, 8_200.0)
    limit.begin(1, 0, 9_150.0)
    assert 5 == limit.recent(9_500.0)
    assert 4 == limit.recent(10_100.0)
    assert 0 == limit.recent(20_000.0)
