"""The circuit breaker of one route on one node: whether its recipient is worth a request now.

As in Nygard's "Release It!": closed while all is well; open, so that nothing is sent, after too
large a share of attempts has failed; half-open when it has been open for a while, to try the
recipient with a few. The first of these that succeeds closes it, and when all have failed it is
open again, for twice as long: what is back after seconds is not made to wait for half a minute.

The share is looked at over a window that slides in tenths, and over its latest two tenths alone:
a recipient that was well for long, and is gone now, has many successes in the window.

What was begun before the present phase does not count: when a recipient comes back, requests that
hung are still timing out. So each attempt remembers the `trial` that it was begun in.
"""

from enum import IntEnum
from typing import Final

from timemachine.model import Breaker, DeadReason, Route
from timemachine.retry import OWN_FAULTS, is_success

TENTHS: Final = 10
_LATEST: Final = 2
_TOO_MANY: Final = 429
_OPEN_FIRST_MS: Final = 1_000


class Phase(IntEnum):
    """What the breaker lets through: all, nothing, a few."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


def says(
    status: int | None, error_code: str | None, reason: DeadReason | None, route: Route
) -> bool | None:
    """Whether the outcome of an attempt says that the recipient is well, or not; None for neither.

    `reason` is why its job is dead by it, if it is. Not counted are our own faults, answers that
    the recipient or the owner of the route has called final for that one job, 410, which disables
    the route, and 429, which has it wait.
    """
    if is_success(status):
        return True
    if status is None:
        return None if error_code in OWN_FAULTS else False
    if status == _TOO_MANY or status in route.non_retryable_status:
        return None
    return None if reason in (DeadReason.GONE, DeadReason.ABORTED) else False


class CircuitBreaker:
    """All times are of the monotonic clock of its node.

    phase     what it lets through
    trial     changes with every phase
    since_ms  when it left CLOSED
    until_ms  while it is OPEN, when it may be tried again
    """

    __slots__ = (
        "_failures",
        "_open_ms",
        "_tenths",
        "phase",
        "settings",
        "since_ms",
        "trial",
        "until_ms",
    )

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.phase = Phase.CLOSED
        self.trial = 0
        self.since_ms = 0.0
        self.until_ms = 0.0
        # While CLOSED, the tenths of the window in which anything ended, oldest first: the number
        # of each since the clock began, how many attempts succeeded in it, how many failed.
        self._tenths: list[list[int]] = []
        # While HALF_OPEN, how many have failed in this trial.
        self._failures = 0
        # For how long it was open the last time since it was closed; 0 if it was not.
        self._open_ms = 0

    @property
    def room(self) -> int | None:
        """How many attempts may be under way; None if that is not for the breaker to say."""
        if self.phase is Phase.CLOSED:
            return None
        if self.phase is Phase.OPEN:
            return 0
        return self.settings.half_open_requests - self._failures

    def noted(self, trial: int, now_ms: float, *, good: bool) -> bool:
        """An attempt that began in that trial has ended; whether that changed what is let through.

        `good` says whether it succeeded.
        """
        if trial != self.trial or self.phase is Phase.OPEN:
            return False
        if self.phase is Phase.HALF_OPEN:
            if good:
                self._open_ms = 0
                self._enter(Phase.CLOSED)
                return True
            self._failures += 1
            if self._failures >= self.settings.half_open_requests:
                self._open(now_ms)
            return True
        tenth = self._tenth(now_ms)
        if good:
            tenth[1] += 1
            return False
        tenth[2] += 1
        if self._is_failing(tenth[0] - TENTHS) or self._is_failing(tenth[0] - _LATEST):
            self.since_ms = now_ms
            self._open(now_ms)
            return True
        return False

    def may_be_tried(self, now_ms: float) -> bool:
        """It has been open for long enough: from now on it is half-open. False if not."""
        if self.phase is not Phase.OPEN or now_ms < self.until_ms:
            return False
        self._enter(Phase.HALF_OPEN)
        return True

    def _tenth(self, now_ms: float) -> list[int]:
        """The present tenth of the window; those that have left it are forgotten."""
        tenths = self._tenths
        number = int(now_ms * TENTHS // self.settings.window_ms)
        if not tenths or tenths[-1][0] != number:
            while tenths and tenths[0][0] <= number - TENTHS:
                del tenths[0]
            tenths.append([number, 0, 0])
        return tenths[-1]

    def _is_failing(self, after: int) -> bool:
        """Whether too large a share has failed in the tenths after that one."""
        failed = total = 0
        for number, good, bad in self._tenths:
            if number > after:
                failed += bad
                total += good + bad
        settings = self.settings
        return total >= settings.min_requests and failed >= settings.failure_ratio * total

    def _open(self, now_ms: float) -> None:
        self._enter(Phase.OPEN)
        self._open_ms = min(2 * self._open_ms or _OPEN_FIRST_MS, self.settings.open_ms)
        self.until_ms = now_ms + self._open_ms

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.trial += 1
        self._failures = 0
        self._tenths.clear()
