"""What state a route is in, as users are told: whether attempts may begin, and if not, why."""

from typing import Final, NamedTuple

from timemachine.delivery.breaker import Phase
from timemachine.model import Route

ACTIVE: Final = "active"
PAUSED: Final = "paused"
DISABLED: Final = "disabled"
THROTTLED: Final = "throttled"
BREAKER_OPEN: Final = "breaker_open"
BREAKER_HALF_OPEN: Final = "breaker_half_open"
STATES: Final = (ACTIVE, PAUSED, DISABLED, THROTTLED, BREAKER_OPEN, BREAKER_HALF_OPEN)


class Span(NamedTuple):
    """Something that goes on, by the wall clock; `until_ms` is None where its end is not known."""

    since_ms: int
    until_ms: int | None


class Condition(NamedTuple):
    """The state of a route, the reason of it, since when it is so and until when.

    Each but the state is None where it is not known, or where there is none.
    """

    state: str
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


def condition(
    route: Route, waits: Span | None = None, breaker: tuple[Phase, Span] | None = None
) -> Condition:
    """The state of a route that waits for its recipient, and whose breaker is not closed, or not.

    What keeps attempts from beginning for longest is told: what people asked for, what the
    system found, and then what ends by itself.
    """
    since_ms = route.closed_ms or None
    if route.paused:
        return Condition(PAUSED, None, since_ms)
    if not route.open:
        return Condition(DISABLED, route.disabled or "not_enabled", since_ms)
    phase, span = breaker if breaker is not None else (Phase.CLOSED, None)
    if span is not None and phase is Phase.OPEN:
        return Condition(BREAKER_OPEN, "attempts_failed", *span)
    if waits is not None:
        return Condition(THROTTLED, "too_many_requests", *waits)
    if span is not None and phase is Phase.HALF_OPEN:
        return Condition(BREAKER_HALF_OPEN, "attempts_failed", *span)
    return Condition(ACTIVE)
