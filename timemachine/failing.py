"""When a route has failed for so long that it is disabled: pure, and replicated in meta.

`disable_after_ms` of failures without a success disable a route. The clock begins only when two
failures lie at least 12 and at most 24 hours apart, so that one bad night does not count as a dead
recipient; where `disable_after_ms` is less than five days, at least a tenth of it. It is a failure
that disables, never silence: a route without traffic stays as it is.

Every node sees its own part of a route's attempts. The meta group keeps what they have told it
(`Failing`), and is told of what changes that, by whoever sees it: a failure in a row of failures
that has lasted for a while, at most a few times in each row, and the success that ends it. A
recipient that fails now and then is never spoken of.
"""

from typing import Final, NamedTuple

from timemachine.model import Failing

_HOUR_MS: Final = 3_600_000
_APART: Final = 10
_TOLD: Final = 12
WITHIN_MS: Final = 24 * _HOUR_MS
"""At most so far apart lie two failures that begin the clock."""


class Periods(NamedTuple):
    """Of one route.

    apart_ms  at least so far apart lie two failures that begin the clock
    told_ms   a row of failures is told when it has lasted so long
    """

    apart_ms: int
    told_ms: int


def periods(disable_after_ms: int) -> Periods:
    """Those of a route with this setting, which is not 0."""
    apart_ms = min(12 * _HOUR_MS, disable_after_ms // _APART)
    return Periods(apart_ms, apart_ms // _TOLD)


def failed(
    known: Failing, since_ms: int, at_ms: int, disable_after_ms: int
) -> tuple[Failing, bool]:
    """What is known after a failure at `at_ms`, and whether the route is to be disabled by it.

    Who saw it has seen failures alone since `since_ms`.
    """
    if not disable_after_ms or at_ms <= known.cleared_ms:
        return known, False
    first_ms = known.first_ms or max(since_ms, known.cleared_ms)
    clock_ms = known.clock_ms
    if clock_ms:
        return known, at_ms - clock_ms >= disable_after_ms
    if at_ms - first_ms > WITHIN_MS:
        first_ms = at_ms
    elif at_ms - first_ms >= periods(disable_after_ms).apart_ms:
        clock_ms = at_ms
    return Failing(first_ms, clock_ms, known.cleared_ms), False


def failure_is_news(known: Failing, since_ms: int, at_ms: int, disable_after_ms: int) -> bool:
    """Whether meta is to be told of a failure, as far as is known here what it knows."""
    if not disable_after_ms:
        return False
    if not known.first_ms:
        since_ms = max(since_ms, known.cleared_ms)
        return at_ms - since_ms >= periods(disable_after_ms).told_ms
    after, disables = failed(known, since_ms, at_ms, disable_after_ms)
    return disables or after != known


def succeeded(known: Failing, at_ms: int) -> Failing:
    """What is known after a success: nothing of failures before it."""
    if known.first_ms == 0 or at_ms < known.first_ms:
        return known
    return Failing(cleared_ms=max(at_ms, known.cleared_ms))
