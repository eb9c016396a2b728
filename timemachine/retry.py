"""What follows from the outcome of an attempt: delivered, tried again at a time, or dead.

One pure function, `decide`, applied by the leader to each attempt that ended. Its rules come from
the Standard Webhooks specification, RFC 9110 and what senders in the field do:

* 200 to 299 is success, whatever happened to the body afterwards; nothing else is.
* 410 ends the delivery (`gone`) and disables the route. The response header `webhook-delivery`
  lets a recipient say `abort-message` (ends this delivery) or `disable` (disables the route).
* Everything else is tried again: each delay runs from the end of the attempt before, the last
  delay of the schedule repeats, and jitter spreads each. Two limits end it, whichever comes
  first: the number of attempts (`exhausted`) and the age of the first (`expired`).
* Retry-After can only make a delay longer, 24 h at most. The schedule is the route's own, also
  after 502, 503, 504 and time-outs: an overloaded recipient is spared by fewer requests at once,
  not by a longer wait than its owner asked for (ADR 0006).
* What was our own fault is made good at once and does not count; where the egress proxy fails, it
  is tried again after a while and does not count.
* A route that delivers at most once never repeats a request that may have been seen: after an
  answer it is `exhausted`, without one `unknown`, for a human to judge.
"""

import re
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

import msgspec

from timemachine import limits
from timemachine.model import DeadReason
from timemachine.model import Retry as RetryPolicy

__all__ = [
    "EGRESS_FAULTS",
    "OWN_FAULTS",
    "AttemptFacts",
    "RetryDecision",
    "RetryPolicy",
    "Verdict",
    "decide",
    "parse_retry_after",
]

OWN_FAULTS: Final = frozenset({"shutdown", "lease_lost", "orphaned"})
"""Error codes of attempts that ended through us: the node stopped, lost its lease, or died.

A fault of ours that would come again at once (a bug in the sender, say) must not be among them,
or it would repeat without end.
"""
EGRESS_FAULTS: Final = frozenset({"proxy_error"})
"""Error codes of attempts that did not get out of our own house. They do not count either, but may
last: the same job is tried again after a pause that grows."""

_STATUS_GONE: Final = 410


class AttemptFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of an attempt that ended.

    status            of the response, None when there was none
    error_code        what failed: `timeout`, `connection_refused`, `shutdown`, ...
    retry_after       the response header Retry-After, as it came
    webhook_delivery  the response header webhook-delivery, as it came
    bytes_sent        whether any byte of the request may have left this node
    """

    status: int | None = None
    error_code: str | None = None
    retry_after: str | None = None
    webhook_delivery: str | None = None
    bytes_sent: bool = True


class Verdict(IntEnum):
    """What becomes of the job."""

    DELIVERED = 0
    RETRY = 1
    DEAD = 2


class RetryDecision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What follows from an attempt.

    retry_at_ms    with RETRY, when the next attempt is due; else 0
    reason         with DEAD, why
    counts         whether the attempt uses up the budget of attempts
    disable_route  None, or why the route must be disabled: `gone` or `disabled_by_recipient`
    """

    verdict: Verdict
    retry_at_ms: int = 0
    reason: DeadReason | None = None
    counts: bool = True
    disable_route: str | None = None


DELIVERED: Final = RetryDecision(verdict=Verdict.DELIVERED)
"""What follows from a success whose recipient wishes nothing else."""


def is_success(status: int | None) -> bool:
    """Whether an attempt that was answered so has delivered."""
    return status is not None and 200 <= status <= 299


def decide(
    facts: AttemptFacts,
    policy: RetryPolicy,
    *,
    attempt: int,
    first_attempt_ms: int,
    ended_ms: int,
    random: float,
    delivery: str = "at_least_once",
    non_retryable_status: tuple[int, ...] = (),
    uncounted: int = 0,
) -> RetryDecision:
    """What follows from an attempt.

    `attempt` numbers it from 1 among those that count against the budget. `first_attempt_ms` is
    when the first of them started, `ended_ms` when this one ended. `random` is uniform in [0, 1).
    `uncounted` tells how many attempts before this one did not count. `delivery` and
    `non_retryable_status` are the route's. A status of `non_retryable_status` is
    dead as `exhausted`: by the route's own rule no attempt is left.
    """
    assert attempt >= 1
    assert 0.0 <= random < 1.0
    wishes = _recipient_wishes(facts.webhook_delivery)
    disable = "disabled_by_recipient" if "disable" in wishes else None
    status = facts.status

    if is_success(status):
        return RetryDecision(verdict=Verdict.DELIVERED, disable_route=disable)
    if status == _STATUS_GONE:
        return _dead(DeadReason.GONE, disable_route="gone")
    if "abort-message" in wishes:
        return _dead(DeadReason.ABORTED, disable_route=disable)

    if delivery == "at_most_once":
        if status is not None:
            return _dead(DeadReason.EXHAUSTED, disable_route=disable)
        if facts.bytes_sent:
            return _dead(DeadReason.UNKNOWN)
    elif status in non_retryable_status:
        return _dead(DeadReason.EXHAUSTED, disable_route=disable)

    if status is None and facts.error_code in OWN_FAULTS:
        return RetryDecision(verdict=Verdict.RETRY, retry_at_ms=ended_ms, counts=False)
    if status is None and facts.error_code in EGRESS_FAULTS:
        retry_at_ms = min(ended_ms + _egress_delay_ms(uncounted, random), limits.TIME_MS_MAX)
        return RetryDecision(verdict=Verdict.RETRY, retry_at_ms=retry_at_ms, counts=False)
    if attempt >= policy.max_attempts or not policy.schedule_ms:
        return _dead(DeadReason.EXHAUSTED, disable_route=disable)
    retry_at_ms = ended_ms + _delay_ms(facts, policy, attempt, ended_ms, random)
    if retry_at_ms - first_attempt_ms > policy.max_age_ms:
        return _dead(DeadReason.EXPIRED, disable_route=disable)
    return RetryDecision(
        verdict=Verdict.RETRY,
        retry_at_ms=min(retry_at_ms, limits.TIME_MS_MAX),
        disable_route=disable,
    )


def _dead(reason: DeadReason, *, disable_route: str | None = None) -> RetryDecision:
    return RetryDecision(verdict=Verdict.DEAD, reason=reason, disable_route=disable_route)


def _recipient_wishes(webhook_delivery: str | None) -> frozenset[str]:
    """The words of a `webhook-delivery` header, lower case."""
    if webhook_delivery is None:
        return frozenset()
    return frozenset(word.strip().lower() for word in webhook_delivery.split(","))


def _egress_delay_ms(uncounted: int, random: float) -> int:
    """Doubled each time up to a bound, and spread by a fifth: all jobs come back at once."""
    doublings = min(uncounted, limits.EGRESS_RETRY_MS_MAX.bit_length())
    delay_ms = min(limits.EGRESS_RETRY_MS << doublings, limits.EGRESS_RETRY_MS_MAX)
    return round(delay_ms * (0.8 + 0.4 * random))


def _delay_ms(
    facts: AttemptFacts, policy: RetryPolicy, attempt: int, ended_ms: int, random: float
) -> int:
    """How long after the end of this attempt the next one is due."""
    schedule_ms = policy.schedule_ms
    # An index, never a power: the ten-thousandth attempt has the last delay, not an overflow.
    base_ms = schedule_ms[min(attempt, len(schedule_ms)) - 1]
    delay_ms = max(0, round(base_ms * (1 + policy.jitter * (2 * random - 1))))
    if facts.status is not None and facts.retry_after is not None:
        asked_ms = parse_retry_after(facts.retry_after, ended_ms)
        if asked_ms is not None:
            delay_ms = max(delay_ms, min(asked_ms, limits.RETRY_AFTER_MS_MAX))
    return delay_ms


# --- Retry-After (RFC 9110, 10.2.3 and 5.6.7) --------------------------------------------------

_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_MONTH: Final = r"(?P<month>[A-Z][a-z]{2})"
_CLOCK: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATE_FORMS: Final = (
    # Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    # Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(rf"[A-Z][a-z]+, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    # Sun Nov  6 08:49:37 1994
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)
_SECONDS: Final = re.compile(r"[0-9]+")


def parse_retry_after(text: str, now_ms: int) -> int | None:
    """How many milliseconds after `now_ms` a Retry-After header asks to wait; 0 for the past.

    Takes whole seconds and all three forms of an HTTP-date. None for anything else: a recipient's
    garbage is no reason to fail. Not capped.
    """
    text = text.strip(" \t")
    if len(text) > limits.RETRY_AFTER_CHARACTERS_MAX:
        return None
    if _SECONDS.fullmatch(text):
        return int(text) * 1000
    for form in _DATE_FORMS:
        if found := form.fullmatch(text):
            at_ms = _date_ms(found, now_ms)
            return None if at_ms is None else max(0, at_ms - now_ms)
    return None


def _date_ms(found: re.Match[str], now_ms: int) -> int | None:
    """The moment that a matched HTTP-date names, or None when there is no such day or hour."""
    month_name = found["month"]
    if month_name not in _MONTHS:
        return None
    month = _MONTHS.index(month_name) + 1
    year = int(found["year"])
    if len(found["year"]) == 2:
        year = _full_year(year, now_ms)
    # A leap second is legal in an HTTP-date, but not in `datetime`.
    second = 59 if found["second"] == "60" else int(found["second"])
    try:
        moment = datetime(
            year,
            month,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            second,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000


def _full_year(two_digits: int, now_ms: int) -> int:
    """The year that ends in `two_digits`, at most 50 years after now (RFC 9110, 5.6.7)."""
    this_year = datetime.fromtimestamp(now_ms / 1000, UTC).year
    year = this_year - this_year % 100 + two_digits
    if year > this_year + 50:
        return year - 100
    if year <= this_year - 50:
        return year + 100
    return year
