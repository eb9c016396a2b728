"""The circuit breaker of one route: when it opens, what it lets through, when it closes."""

import pytest

from tests.unit.delivery.made import due, route
from timemachine.delivery.breaker import CircuitBreaker, Phase, says
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.shares import SOLE_SHARE
from timemachine.model import Breaker, DeadReason

SETTINGS = Breaker(min_requests=4, window_ms=10_000, open_ms=1_000, half_open_requests=2)


def _tripped() -> CircuitBreaker:
    breaker = CircuitBreaker(SETTINGS)
    assert [False, False, False, True] == [breaker.noted(0, 0.0, good=False) for _ in range(4)]
    return breaker


def test_it_opens_when_too_large_a_share_has_failed() -> None:
    """And not before there were enough to conclude anything of."""
    breaker = _tripped()
    assert (Phase.OPEN, 0, 1_000.0) == (breaker.phase, breaker.room, breaker.until_ms)


def test_it_stays_closed_while_enough_succeed() -> None:
    """Seven of ten are too many, six are not."""
    breaker = CircuitBreaker(Breaker(min_requests=10))
    for _ in range(4):
        breaker.noted(0, 0.0, good=True)
    assert not any(breaker.noted(0, 0.0, good=False) for _ in range(9))
    assert breaker.noted(0, 0.0, good=False)


def test_what_was_well_for_long_does_not_hide_that_it_is_gone() -> None:
    """The latest two tenths of the window are judged alone, too."""
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(1_000):
        breaker.noted(0, 5_000.0, good=True)
    assert [False] * 3 == [breaker.noted(0, 7_000.0, good=False) for _ in range(3)]
    assert breaker.noted(0, 8_500.0, good=False)


def test_a_moment_of_failures_among_successes_is_nothing() -> None:
    """Where thousands a second succeed, a restart of some milliseconds does not open it."""
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(1_000):
        breaker.noted(0, 5_900.0, good=True)
    assert not any(breaker.noted(0, 6_050.0, good=False) for _ in range(100))


def test_what_left_the_window_does_not_count() -> None:
    """Three failures a minute ago are no reason to open after one now."""
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(3):
        breaker.noted(0, 0.0, good=False)
    assert not breaker.noted(0, 60_000.0, good=False)


def test_after_a_while_a_few_try_the_recipient() -> None:
    """Not earlier; as many as the route says, and one less for each that fails."""
    breaker = _tripped()
    assert not breaker.may_be_tried(999.0)
    assert breaker.may_be_tried(1_000.0)
    assert (Phase.HALF_OPEN, 2) == (breaker.phase, breaker.room)
    assert breaker.noted(breaker.trial, 1_010.0, good=False)
    assert (Phase.HALF_OPEN, 1) == (breaker.phase, breaker.room)
    assert not breaker.may_be_tried(9_000.0)


def test_the_first_that_succeeds_closes_it() -> None:
    """And what failed before is forgotten."""
    breaker = _tripped()
    breaker.may_be_tried(1_000.0)
    breaker.noted(breaker.trial, 1_010.0, good=False)
    assert breaker.noted(breaker.trial, 1_020.0, good=True)
    assert (Phase.CLOSED, None) == (breaker.phase, breaker.room)
    assert not any(breaker.noted(breaker.trial, 1_030.0, good=False) for _ in range(3))


def test_when_all_have_failed_it_is_open_again() -> None:
    """For another while; users are told since when it is not closed."""
    breaker = _tripped()
    breaker.may_be_tried(1_000.0)
    for _ in range(2):
        assert breaker.noted(breaker.trial, 1_100.0, good=False)
    assert (Phase.OPEN, 2_100.0) == (breaker.phase, breaker.until_ms)
    assert 0.0 == breaker.since_ms


def test_it_opens_for_longer_each_time_until_it_is_closed() -> None:
    """A second at first, twice as long after each trial in vain, up to what the route says."""

    def opens_for_ms(breaker: CircuitBreaker, now_ms: float) -> float:
        while breaker.phase is not Phase.OPEN:
            breaker.noted(breaker.trial, now_ms, good=False)
        return breaker.until_ms - now_ms

    breaker = CircuitBreaker(Breaker(open_ms=5_000))
    now_ms = 0.0
    seen: list[float] = []
    for _ in range(40):
        seen.append(opens_for_ms(breaker, now_ms))
        now_ms = breaker.until_ms
        assert breaker.may_be_tried(now_ms)
    assert [1_000.0, 2_000.0, 4_000.0] + [5_000.0] * 37 == seen
    breaker.noted(breaker.trial, now_ms, good=True)
    assert 1_000.0 == opens_for_ms(breaker, now_ms)


def test_what_was_begun_before_does_not_count() -> None:
    """Requests that hang time out when the recipient is well again."""
    breaker = _tripped()
    assert not breaker.noted(0, 500.0, good=True)
    breaker.may_be_tried(1_000.0)
    assert not breaker.noted(0, 1_001.0, good=False)
    breaker.noted(breaker.trial, 1_002.0, good=True)
    assert not any(breaker.noted(0, 1_003.0, good=False) for _ in range(100))


@pytest.mark.parametrize(
    ("status", "error_code", "reason", "expected"),
    [
        (200, None, None, True),
        (204, None, None, True),
        (500, None, None, False),
        (404, None, None, False),
        (302, None, None, False),
        (500, None, DeadReason.EXHAUSTED, False),
        (None, "timeout", None, False),
        (None, "connection_refused", None, False),
        (429, None, None, None),
        (410, None, DeadReason.GONE, None),
        (422, None, DeadReason.EXHAUSTED, None),
        (400, None, DeadReason.ABORTED, None),
        (None, "shutdown", None, None),
        (None, "lease_lost", None, None),
    ],
)
def test_what_an_outcome_says_of_the_recipient(
    status: int | None, error_code: str | None, reason: DeadReason | None, expected: bool | None
) -> None:
    """Neither our faults nor what was answered on purpose says that it is not well."""
    of = route(non_retryable_status=(422,))
    assert expected is says(status, error_code, reason, of)


def test_a_queue_begins_what_its_breaker_lets_through() -> None:
    """Nothing while that is open, a few while it is half-open; nothing is borrowed for it."""
    queue = RouteQueue(route(breaker=SETTINGS))
    for number in range(9):
        due(queue, 0, f"job-{number}")
    breaker = queue.breaker
    assert breaker is not None
    for _ in range(4):
        breaker.noted(0, 0.0, good=False)
    queue.heed_breaker()
    assert queue.held_up
    assert [] == queue.grant(0, 0.0, 100)
    assert queue.opens_in_ms(0, 0.0) is None
    breaker.may_be_tried(1_000.0)
    queue.heed_breaker()
    granted = queue.grant(1_000, 1_000.0, 100)
    assert [breaker.trial] * 2 == [item.trial for item in granted]
    assert (False, 2) == (queue.is_full, queue.need(1_000, 1_000.0))
    breaker.noted(breaker.trial, 1_001.0, good=True)
    queue.heed_breaker()
    assert 7 == len(queue.grant(1_001, 1_001.0, 100))


def test_a_new_version_of_the_route_has_a_new_breaker() -> None:
    """Its owner has changed something; another share of the limits is no new version."""
    of = route(breaker=SETTINGS)
    queue = RouteQueue(of)
    before = queue.breaker
    assert before is not None
    for _ in range(4):
        before.noted(0, 0.0, good=False)
    queue.heed_breaker()
    queue.set_limits(of, SOLE_SHARE)
    assert queue.shut
    queue.set_limits(route(breaker=SETTINGS, version=2), SOLE_SHARE)
    assert not queue.shut
    queue.set_limits(route(breaker=None, version=3), SOLE_SHARE)
    assert queue.breaker is None
