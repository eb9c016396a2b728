"""How long a whole route waits because its recipient is overloaded, and how nodes tell each other.

429 says that there were too many requests, whichever job they were of (RFC 6585, 4). Nothing of
the route is begun until both its Retry-After (RFC 9110, 10.2.3) and the first delay of the route's
own schedule are over. What is under way goes on. Other answers may be about one job only: their
Retry-After is for its next attempt.
"""

from typing import Final

import msgspec

from timemachine import codec, limits
from timemachine.retry import RetryPolicy, parse_retry_after

_TOO_MANY: Final = 429


class Wait(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node tells others: this route, as it is in that version, waits for so long from now on."""

    route_uid: int
    version: int
    wait_ms: int


read_wait = codec.decoder(Wait)


def wait_ms(status: int | None, retry_after: str | None, policy: RetryPolicy, now_ms: int) -> int:
    """How long a route waits after an attempt was answered so at `now_ms`; 0 for not at all."""
    if status != _TOO_MANY:
        return 0
    asked_ms = None if retry_after is None else parse_retry_after(retry_after, now_ms)
    first_ms = policy.schedule_ms[0] if policy.schedule_ms else 0
    return min(max(asked_ms or 0, first_ms), limits.RETRY_AFTER_MS_MAX)
