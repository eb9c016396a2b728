"""What holds for every attempt, whatever the recipient answers."""

from hypothesis import given
from hypothesis import strategies as st

from timemachine.limits import RETRY_AFTER_MS_MAX, TIME_MS_MAX
from timemachine.retry import (
    AttemptFacts,
    RetryPolicy,
    Verdict,
    decide,
    parse_retry_after,
)

POLICIES = st.builds(
    RetryPolicy,
    schedule_ms=st.lists(st.integers(0, 30 * 86_400_000), max_size=100).map(tuple),
    max_attempts=st.integers(1, 1000),
    max_age_ms=st.integers(0, 366 * 86_400_000),
    jitter=st.floats(0, 1),
)
HEADERS = st.none() | st.text(max_size=80) | st.integers().map(str)
FACTS = st.builds(
    AttemptFacts,
    status=st.none() | st.integers(0, 999),
    error_code=st.none() | st.sampled_from(["timeout", "shutdown", "connection_reset"]),
    retry_after=HEADERS,
    webhook_delivery=HEADERS | st.sampled_from(["abort-message", "disable"]),
    bytes_sent=st.booleans(),
)
RANDOM = st.floats(0, 1, exclude_max=True)


@given(
    FACTS,
    POLICIES,
    st.integers(1, 10_000),
    st.integers(0, TIME_MS_MAX),
    st.integers(0, 400 * 86_400_000),
    RANDOM,
    st.sampled_from(["at_least_once", "at_most_once"]),
)
def test_every_decision_is_sound(
    facts: AttemptFacts,
    policy: RetryPolicy,
    attempt: int,
    first_attempt_ms: int,
    lasted_ms: int,
    random: float,
    delivery: str,
) -> None:
    """A retry is neither in the past nor beyond the limits; dead has a reason; 2xx is delivered."""
    ended_ms = min(first_attempt_ms + lasted_ms, TIME_MS_MAX)
    found = decide(
        facts,
        policy,
        attempt=attempt,
        first_attempt_ms=first_attempt_ms,
        ended_ms=ended_ms,
        random=random,
        delivery=delivery,
    )
    success = facts.status is not None and 200 <= facts.status <= 299
    assert success == (found.verdict is Verdict.DELIVERED)
    assert (found.reason is not None) == (found.verdict is Verdict.DEAD)
    assert (found.retry_at_ms != 0) <= (found.verdict is Verdict.RETRY)
    if found.verdict is Verdict.RETRY:
        assert ended_ms <= found.retry_at_ms <= TIME_MS_MAX
        if found.counts:
            assert attempt < policy.max_attempts
            assert found.retry_at_ms - first_attempt_ms <= policy.max_age_ms
            longest_ms = max(*policy.schedule_ms, 60_000) * (1 + policy.jitter)
            assert found.retry_at_ms - ended_ms <= max(longest_ms, RETRY_AFTER_MS_MAX) + 1
        if delivery == "at_most_once":
            assert facts.status is None
            assert not facts.bytes_sent


@given(st.text(max_size=100) | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} .*"))
def test_no_retry_after_makes_us_fail(text: str) -> None:
    """Whatever the header holds, it is a wait that is not negative, or nothing."""
    wait_ms = parse_retry_after(text, 1_700_000_000_000)
    assert wait_ms is None or wait_ms >= 0
