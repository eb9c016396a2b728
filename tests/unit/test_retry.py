"""What follows from an attempt, one test a rule."""

from datetime import UTC, datetime
from typing import Any

import pytest

from timemachine.limits import TIME_MS_MAX
from timemachine.model import DeadReason
from timemachine.retry import (
    AttemptFacts,
    RetryDecision,
    RetryPolicy,
    Verdict,
    decide,
    parse_retry_after,
)

T0 = 1_700_000_000_000
HOUR_MS = 3_600_000
MIDDLE = 0.5
"""The dice that leave a delay as it is."""


def decided(
    facts: AttemptFacts,
    policy: RetryPolicy = RetryPolicy(),
    *,
    attempt: int = 1,
    first_attempt_ms: int = T0,
    ended_ms: int = T0,
    random: float = MIDDLE,
    delivery: str = "at_least_once",
    non_retryable_status: tuple[int, ...] = (),
    uncounted: int = 0,
) -> RetryDecision:
    """`decide`, with what a test does not care about filled in."""
    return decide(
        facts,
        policy,
        attempt=attempt,
        first_attempt_ms=first_attempt_ms,
        ended_ms=ended_ms,
        random=random,
        delivery=delivery,
        non_retryable_status=non_retryable_status,
        uncounted=uncounted,
    )


def answer(status: int, **more: Any) -> AttemptFacts:
    """An attempt that was answered."""
    return AttemptFacts(status=status, **more)


def delay_ms(
    facts: AttemptFacts, policy: RetryPolicy = RetryPolicy(), *, random: float = MIDDLE
) -> int:
    """The delay after a first attempt."""
    found = decided(facts, policy, random=random)
    assert found.verdict is Verdict.RETRY
    return found.retry_at_ms - T0


DELIVERED = RetryDecision(verdict=Verdict.DELIVERED)


def dead(reason: DeadReason, disable_route: str | None = None) -> RetryDecision:
    """The decision that gives up."""
    return RetryDecision(verdict=Verdict.DEAD, reason=reason, disable_route=disable_route)


# --- success and failure -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
def test_2xx_is_delivered(status: int, delivery: str) -> None:
    """Every status from 200 to 299 is success."""
    assert DELIVERED == decided(answer(status), delivery=delivery)


STATUSES = [0, 100, 101, 199, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 413, 422]


@pytest.mark.parametrize("status", [*STATUSES, 429, 499, 500, 501, 505, 599, 600, 999])
def test_everything_else_is_tried_again(status: int) -> None:
    """Every other status, redirects and 404 among them, is a failure that is tried again."""
    assert 5_000 == delay_ms(answer(status))


@pytest.mark.parametrize(
    "error_code",
    [
        "dns_error",
        "connection_refused",
        "connection_reset",
        "network_unreachable",
        "tls_error",
        "network_error",
        "blocked_address",
        "protocol_error",
        None,
    ],
)
def test_network_errors_are_tried_again(error_code: str | None) -> None:
    """A failure without an answer is a delivery failure and follows the schedule."""
    assert 5_000 == delay_ms(AttemptFacts(error_code=error_code))


def test_answer_counts_although_its_body_failed() -> None:
    """Once the 2xx status arrived, a failure while reading the body changes nothing."""
    assert DELIVERED == decided(AttemptFacts(status=200, error_code="connection_reset"))
    assert DELIVERED == decided(AttemptFacts(status=200, error_code="shutdown"))
    assert DELIVERED == decided(
        AttemptFacts(status=200, error_code="timeout"), delivery="at_most_once"
    )


def test_410_is_gone_and_disables_the_route() -> None:
    """410 ends the delivery at once and disables the route."""
    assert dead(DeadReason.GONE, "gone") == decided(answer(410))
    assert dead(DeadReason.GONE, "gone") == decided(answer(410), delivery="at_most_once")


@pytest.mark.parametrize(
    "value", ["abort-message", "Abort-Message", " abort-message ", "x, abort-message"]
)
def test_recipient_can_abort_a_delivery(value: str) -> None:
    """`webhook-delivery: abort-message` ends this delivery only."""
    assert dead(DeadReason.ABORTED) == decided(answer(500, webhook_delivery=value))


def test_recipient_can_disable_the_route() -> None:
    """`webhook-delivery: disable` disables the route; the job is tried again or delivered."""
    found = decided(answer(500, webhook_delivery="disable"))
    assert (Verdict.RETRY, "disabled_by_recipient") == (found.verdict, found.disable_route)
    found = decided(answer(200, webhook_delivery="disable"))
    assert (Verdict.DELIVERED, "disabled_by_recipient") == (found.verdict, found.disable_route)


def test_success_cannot_be_aborted() -> None:
    """A 2xx is delivered, whatever the control header says."""
    assert DELIVERED == decided(answer(200, webhook_delivery="abort-message"))


@pytest.mark.parametrize("value", ["", "abort", "abort-message-not", "disabled", ",,;"])
def test_unknown_wishes_are_ignored(value: str) -> None:
    """Other words in the control header mean nothing."""
    found = decided(answer(500, webhook_delivery=value))
    assert (Verdict.RETRY, None) == (found.verdict, found.disable_route)


def test_non_retryable_status_ends_the_delivery() -> None:
    """A status that the route calls final leaves no attempt."""
    assert dead(DeadReason.EXHAUSTED) == decided(answer(400), non_retryable_status=(400, 401))
    assert Verdict.RETRY is decided(answer(402), non_retryable_status=(400, 401)).verdict


# --- the schedule ------------------------------------------------------------------------------


def test_default_schedule_is_that_of_standard_webhooks() -> None:
    """Ten attempts; each delay runs from the end of the attempt before; 75:35:05 in all."""
    now_ms, delays_s = T0, []
    for attempt in range(1, 10):
        found = decided(
            answer(500), attempt=attempt, first_attempt_ms=T0, ended_ms=now_ms, random=MIDDLE
        )
        assert Verdict.RETRY is found.verdict
        delays_s.append((found.retry_at_ms - now_ms) // 1000)
        now_ms = found.retry_at_ms
    assert [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400] == delays_s
    assert (75 * 3600 + 35 * 60 + 5) * 1000 == now_ms - T0
    last = decided(answer(500), attempt=10, first_attempt_ms=T0, ended_ms=now_ms)
    assert dead(DeadReason.EXHAUSTED) == last


def test_delay_runs_from_the_end_of_the_attempt() -> None:
    """A slow attempt does not eat its delay."""
    found = decided(answer(500), first_attempt_ms=T0, ended_ms=T0 + 15_000)
    assert T0 + 15_000 + 5_000 == found.retry_at_ms


def test_last_delay_repeats() -> None:
    """After the end of the schedule its last entry goes on."""
    policy = RetryPolicy(schedule_ms=(1, 20), max_attempts=1000, jitter=0.0)
    delays = [decided(answer(500), policy, attempt=n).retry_at_ms - T0 for n in (1, 2, 3, 999)]
    assert [1, 20, 20, 20] == delays


def test_huge_attempt_numbers_do_not_overflow() -> None:
    """The ten-thousandth attempt still has the last delay of the schedule."""
    policy = RetryPolicy(max_attempts=10**9, max_age_ms=10**15, jitter=0.2)
    assert T0 + 86_400_000 == decided(answer(500), policy, attempt=10_000).retry_at_ms


def test_retry_time_stays_within_the_calendar() -> None:
    """At the end of the year 9999 a retry is due then, and not later."""
    policy = RetryPolicy(max_age_ms=10**15)
    found = decided(answer(500), policy, first_attempt_ms=TIME_MS_MAX, ended_ms=TIME_MS_MAX)
    assert TIME_MS_MAX == found.retry_at_ms


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(schedule_ms=()),
        RetryPolicy(max_attempts=1),
        RetryPolicy(schedule_ms=(), max_attempts=1),
    ],
)
def test_no_retries_when_either_says_so(policy: RetryPolicy) -> None:
    """An empty schedule, or one attempt, means that the first failure is final."""
    assert dead(DeadReason.EXHAUSTED) == decided(answer(500), policy)


@pytest.mark.parametrize("attempts", [1, 2, 3, 10, 100])
def test_limit_of_n_gives_exactly_n_attempts(attempts: int) -> None:
    """The first attempt counts."""
    policy = RetryPolicy(schedule_ms=(0,), max_attempts=attempts)
    made = 1
    while decided(answer(500), policy, attempt=made).verdict is Verdict.RETRY:
        made += 1
    assert attempts == made


def test_age_limit_ends_before_the_attempts_do() -> None:
    """When the next attempt would be older than allowed, the delivery has expired."""
    policy = RetryPolicy(schedule_ms=(10_000,), max_age_ms=60_000, jitter=0.0)
    found = decided(answer(500), policy, first_attempt_ms=T0, ended_ms=T0 + 50_000)
    assert Verdict.RETRY is found.verdict
    found = decided(answer(500), policy, first_attempt_ms=T0, ended_ms=T0 + 50_001)
    assert dead(DeadReason.EXPIRED) == found


def test_age_limit_of_zero_means_no_retry() -> None:
    """No age is allowed, so the first failure is final."""
    assert dead(DeadReason.EXPIRED) == decided(answer(500), RetryPolicy(max_age_ms=0))


# --- jitter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("random", "expected"), [(0.0, 8_000), (0.25, 9_000), (0.5, 10_000), (0.75, 11_000)]
)
def test_jitter_is_uniform_around_the_delay(random: float, expected: int) -> None:
    """With jitter 0.2 a delay is between 0.8 and 1.2 of itself, in proportion to the dice."""
    policy = RetryPolicy(schedule_ms=(10_000,), jitter=0.2)
    assert expected == delay_ms(answer(500), policy, random=random)


@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("random", [0.0, 0.5, 0.999999999])
@pytest.mark.parametrize("base_ms", [0, 1, 5_000, 30 * 86_400_000])
def test_jitter_stays_in_its_bounds(jitter: float, random: float, base_ms: int) -> None:
    """No dice make a delay negative or push it out of its range."""
    policy = RetryPolicy(schedule_ms=(base_ms,), jitter=jitter, max_age_ms=10**12)
    found = delay_ms(answer(500), policy, random=random)
    assert round(base_ms * (1 - jitter)) <= found <= round(base_ms * (1 + jitter))


@pytest.mark.parametrize("random", [-0.1, 1.0])
def test_dice_out_of_range_are_a_bug(random: float) -> None:
    """`random` is within [0, 1)."""
    with pytest.raises(AssertionError):
        decided(answer(500), random=random)


# --- overload ----------------------------------------------------------------------------------

OVERLOADS = [answer(502), answer(503), answer(504), AttemptFacts(error_code="timeout")]


@pytest.mark.parametrize("facts", OVERLOADS)
def test_overload_keeps_the_schedule_of_the_route(facts: AttemptFacts) -> None:
    """After 502, 503, 504 and a time-out the delay is the one that the route's owner chose."""
    policy = RetryPolicy(schedule_ms=(200,), jitter=0.0)
    assert 200 == delay_ms(facts, policy)


def test_timeout_after_the_status_goes_by_the_status() -> None:
    """A body that came too slowly does not make a 500 an overload."""
    assert 5_000 == delay_ms(AttemptFacts(status=500, error_code="timeout"))


# --- Retry-After -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
def test_retry_after_makes_a_delay_longer(status: int) -> None:
    """On any status that is no success Retry-After is honoured."""
    assert 600_000 == delay_ms(answer(status, retry_after="600"))


def test_retry_after_does_not_make_a_delay_shorter() -> None:
    """The schedule is the least."""
    assert 5_000 == delay_ms(answer(500, retry_after="1"))
    assert 5_000 == delay_ms(answer(503, retry_after="0"))


def test_retry_after_is_capped_at_a_day() -> None:
    """No recipient can push a job further than 24 h at a time."""
    assert 24 * HOUR_MS == delay_ms(answer(429, retry_after="86401"))
    assert 24 * HOUR_MS == delay_ms(answer(429, retry_after="9" * 60))
    assert 24 * HOUR_MS == delay_ms(answer(429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"))


def test_retry_after_as_a_date_is_seen_from_the_end_of_the_attempt() -> None:
    """A date is a moment: it counts from the end of the attempt, not from its start."""
    ended_ms = T0 + 7_000
    found = decided(answer(503, retry_after="Tue, 14 Nov 2023 23:13:20 GMT"), ended_ms=ended_ms)
    assert T0 + HOUR_MS == found.retry_at_ms


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "+5", "5 s", "٥", "Sun, 99 Nov 1994"])
def test_garbage_is_ignored(text: str) -> None:
    """A Retry-After that is none changes nothing."""
    assert 5_000 == delay_ms(answer(500, retry_after=text))


def test_retry_after_can_let_a_delivery_expire() -> None:
    """When the recipient asks for more than the age allows, waiting would be in vain."""
    policy = RetryPolicy(max_age_ms=HOUR_MS)
    assert dead(DeadReason.EXPIRED) == decided(answer(429, retry_after="3601"), policy)


NOV_1994_MS = int(datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "  Sun, 06 Nov 1994 08:49:37 GMT\t",
    ],
)
def test_all_three_forms_of_a_date(text: str) -> None:
    """The three forms of RFC 9110, 5.6.7 name the same moment; a past one means no wait."""
    assert 5_000 == parse_retry_after(text, NOV_1994_MS - 5_000)
    assert 0 == parse_retry_after(text, NOV_1994_MS)
    assert 0 == parse_retry_after(text, NOV_1994_MS + 1)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 06 08:49:37 94",
        "Sun Nov    08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT" + " x" * 40,
    ],
)
def test_what_is_no_date_is_ignored(text: str) -> None:
    """Days that do not exist, other zones and other forms are garbage."""
    assert parse_retry_after(text, NOV_1994_MS - 5_000) is None


def test_leap_second_is_taken_for_the_second_before() -> None:
    """RFC 9110 allows second 60."""
    now_ms = int(datetime(2016, 12, 31, 23, 59, 50, tzinfo=UTC).timestamp()) * 1000
    assert 9_000 == parse_retry_after("Sat, 31 Dec 2016 23:59:60 GMT", now_ms)


@pytest.mark.parametrize(
    ("this_year", "two_digits", "expected"),
    [
        (2026, "26", 2026),
        (2026, "27", 2027),
        (2026, "76", 2076),
        (2026, "77", 1977),
        (2099, "00", 2100),
        (1994, "94", 1994),
    ],
)
def test_two_digit_years_lie_within_fifty_years(
    this_year: int, two_digits: str, expected: int
) -> None:
    """A year of two digits is never more than 50 years ahead (RFC 9110, 5.6.7)."""
    now_ms = int(datetime(this_year, 6, 1, tzinfo=UTC).timestamp()) * 1000
    then_ms = int(datetime(expected, 6, 2, tzinfo=UTC).timestamp()) * 1000
    text = f"Monday, 02-Jun-{two_digits} 00:00:00 GMT"
    assert max(0, then_ms - now_ms) == parse_retry_after(text, now_ms)


# --- our own faults ----------------------------------------------------------------------------


@pytest.mark.parametrize("error_code", ["shutdown", "lease_lost", "orphaned"])
def test_own_faults_are_made_good_at_once_and_do_not_count(error_code: str) -> None:
    """What ended through us is sent again at once, even when the budget is used up."""
    policy = RetryPolicy(schedule_ms=(), max_attempts=1, max_age_ms=0)
    found = decided(AttemptFacts(error_code=error_code), policy, ended_ms=T0 + 9)
    assert RetryDecision(verdict=Verdict.RETRY, retry_at_ms=T0 + 9, counts=False) == found


@pytest.mark.parametrize(
    ("uncounted", "random", "delay_ms"),
    [
        (0, MIDDLE, 1_000),
        (0, 0.0, 800),
        (1, MIDDLE, 2_000),
        (3, MIDDLE, 8_000),
        (9, MIDDLE, 300_000),
        (9, 0.0, 240_000),
        (10**6, MIDDLE, 300_000),
    ],
)
def test_faults_of_the_egress_proxy_do_not_count(
    uncounted: int, random: float, delay_ms: int
) -> None:
    """They cost neither attempts nor age, and are tried again after a pause that grows."""
    policy = RetryPolicy(schedule_ms=(), max_attempts=1, max_age_ms=0)
    for delivery in ("at_least_once", "at_most_once"):
        found = decided(
            AttemptFacts(error_code="proxy_error", bytes_sent=False),
            policy,
            ended_ms=T0 + 9,
            random=random,
            delivery=delivery,
            uncounted=uncounted,
        )
        expected = T0 + 9 + delay_ms
        assert RetryDecision(verdict=Verdict.RETRY, retry_at_ms=expected, counts=False) == found


def test_an_answer_is_not_our_fault() -> None:
    """A status that arrived before our shutdown is the recipient's answer and counts."""
    found = decided(AttemptFacts(status=500, error_code="shutdown"))
    assert (T0 + 5_000, True) == (found.retry_at_ms, found.counts)


# --- at most once ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 404, 429, 500, 503])
def test_at_most_once_ends_with_any_answer(status: int) -> None:
    """The recipient has seen the request: it is not sent a second time."""
    found = decided(answer(status, retry_after="5"), delivery="at_most_once")
    assert dead(DeadReason.EXHAUSTED) == found


@pytest.mark.parametrize(
    "error_code", ["timeout", "connection_reset", "shutdown", "orphaned", None]
)
def test_at_most_once_leaves_what_is_unknown_to_a_human(error_code: str | None) -> None:
    """When a byte may have left and no answer came, nobody knows; it is never sent again."""
    facts = AttemptFacts(error_code=error_code, bytes_sent=True)
    assert dead(DeadReason.UNKNOWN) == decided(facts, delivery="at_most_once")


def test_at_most_once_retries_what_was_never_sent() -> None:
    """No byte left: the recipient cannot have seen it, so the schedule goes on."""
    facts = AttemptFacts(error_code="connection_refused", bytes_sent=False)
    found = decided(facts, delivery="at_most_once")
    assert RetryDecision(verdict=Verdict.RETRY, retry_at_ms=T0 + 5_000) == found
    facts = AttemptFacts(error_code="shutdown", bytes_sent=False)
    found = decided(facts, delivery="at_most_once")
    assert RetryDecision(verdict=Verdict.RETRY, retry_at_ms=T0, counts=False) == found


def test_at_most_once_obeys_the_recipient_too() -> None:
    """Aborting and disabling mean the same as elsewhere."""
    facts = answer(500, webhook_delivery="abort-message, disable")
    expected = dead(DeadReason.ABORTED, "disabled_by_recipient")
    assert expected == decided(facts, delivery="at_most_once")
