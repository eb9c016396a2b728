"""How long a route waits for a recipient that has too much to do."""

import pytest

from tests.unit.delivery.made import due, route
from timemachine import codec, limits
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.waits import Wait, read_wait, wait_ms
from timemachine.retry import RetryPolicy

NOW_MS = 1_700_000_000_000
POLICY = RetryPolicy(schedule_ms=(5_000, 60_000))


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (429, "7", 7_000),
        (429, None, 5_000),
        (429, "soon", 5_000),
        (429, "0", 5_000),
        (429, "2", 5_000),
        (429, "Tue, 14 Nov 2023 22:13:50 GMT", 30_000),
        (429, "999999999", limits.RETRY_AFTER_MS_MAX),
        (503, None, 0),
        (503, "7", 0),
        (500, "7", 0),
        (404, "7", 0),
        (None, None, 0),
    ],
)
def test_a_route_waits_as_long_as_its_recipient_asks(
    status: int | None, retry_after: str | None, expected: int
) -> None:
    """After 429, and no shorter than its own schedule; other answers are about one job."""
    assert expected == wait_ms(status, retry_after, POLICY, NOW_MS)


def test_without_retries_there_is_no_delay_to_go_by() -> None:
    """Only what the recipient says counts then."""
    never = RetryPolicy(schedule_ms=())
    assert (0, 2_000) == (wait_ms(429, None, never, NOW_MS), wait_ms(429, "2", never, NOW_MS))


def test_no_route_waits_longer_than_a_day() -> None:
    """Also where its schedule begins with a longer delay: that is of one job."""
    slow = RetryPolicy(schedule_ms=(limits.RETRY_DELAY_MS_MAX,))
    assert limits.RETRY_AFTER_MS_MAX == wait_ms(429, None, slow, NOW_MS)


def test_what_nodes_tell_each_other_arrives_as_it_was() -> None:
    """As bytes, and back."""
    wait = Wait(7, 2, 1_000)
    assert wait == read_wait(codec.encode(wait))


def test_a_queue_that_waits_begins_nothing() -> None:
    """And needs nothing of what others lend."""
    queue = RouteQueue(route())
    due(queue, 0, "a")
    queue.waits = True
    assert ([], None, 0) == (
        queue.grant(1_000, 1_000, 9),
        queue.opens_in_ms(1_000, 1_000),
        queue.need(1_000, 1_000),
    )
    queue.waits = False
    assert 1 == queue.need(1_000, 1_000)
    assert 1 == len(queue.grant(1_000, 1_000, 9))
