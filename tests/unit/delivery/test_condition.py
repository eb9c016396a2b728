"""What users are told of the state of a route."""

from tests.unit.delivery.made import route
from timemachine.delivery.breaker import Phase
from timemachine.delivery.condition import Condition, Span, condition

OPEN = (Phase.OPEN, Span(5, 90))
HALF_OPEN = (Phase.HALF_OPEN, Span(5, None))
WAITS = Span(7, 80)


def test_a_route_that_is_well_is_active() -> None:
    """And there is nothing more to say."""
    assert Condition("active") == condition(route())


def test_what_people_have_stopped_comes_first() -> None:
    """Whatever else keeps it from sending."""
    closed = route(paused=True, disabled="gone", closed_ms=3)
    assert Condition("paused", None, 3) == condition(closed, WAITS, OPEN)
    assert Condition("disabled", "not_enabled", 3) == condition(route(enabled=False, closed_ms=3))


def test_what_the_system_has_stopped_says_why() -> None:
    """The reason stands in the route."""
    assert Condition("disabled", "failing", 3) == condition(
        route(disabled="failing", closed_ms=3), WAITS, OPEN
    )


def test_what_ends_by_itself_says_when() -> None:
    """An open breaker first, then a wait, then the few that try the recipient."""
    of = route()
    assert Condition("breaker_open", "attempts_failed", 5, 90) == condition(of, WAITS, OPEN)
    assert Condition("throttled", "too_many_requests", 7, 80) == condition(of, WAITS, HALF_OPEN)
    assert Condition("breaker_half_open", "attempts_failed", 5) == condition(of, None, HALF_OPEN)
