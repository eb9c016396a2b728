"""What is committed of an attempt."""

import msgspec
import pytest

from tests.unit.delivery.made import due, route
from timemachine import codec, limits
from timemachine.delivery.item import SENDING, Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.settlement import settle_orphan, settle_outcome
from timemachine.model import (
    AttemptRecord,
    ClaimMark,
    HeldUp,
    JobRecord,
    JobState,
    Retry,
    Route,
)
from timemachine.outbound import Outcome
from timemachine.replica.commands import (
    VERDICT_DEAD,
    VERDICT_DELIVERED,
    VERDICT_RETRY,
    SettleItem,
)

_CLAIM = ClaimMark(
    term=3, index=40, attempt=2, serial=5, claimed_ms=990, deadline_ms=16_000, prior=0
)
_RECORD = JobRecord(
    uid=b"u" * 16,
    version=4,
    state=int(JobState.FIRING),
    trigger_ms=1_000,
    delay_ms=None,
    route="r",
    route_uid=7,
    tags=(),
    created_ms=0,
    updated_ms=0,
    due_ms=1_000,
    queue=1,
    attempts=2,
    tries=1,
    first_claim_ms=500,
    claim=_CLAIM,
)
_URL = "http://recipient.test/before-the-route-changed"
_read = codec.decoder(AttemptRecord)


def _sent(of: Route) -> Item:
    item = due(RouteQueue(of), 1_000, "job", attempts=1)
    item.record = _RECORD
    item.stage = SENDING
    item.started_ms = 1_001
    item.route = msgspec.structs.replace(of, webhook_url=_URL)
    return item


def _settled(of: Route, outcome: Outcome) -> tuple[SettleItem, AttemptRecord]:
    settle, decision = settle_outcome(_sent(of), outcome, node_id="n", now_ms=1_050, random=0.5)
    assert int(decision.verdict) == settle.verdict
    assert (b"u" * 16, 4, 2, 5, 7) == (
        settle.uid,
        settle.version,
        settle.attempt,
        settle.serial,
        settle.route_uid,
    )
    attempt: AttemptRecord = _read(settle.record)
    assert (2, "n", 3, 40, _URL) == (
        attempt.attempt,
        attempt.node,
        attempt.term,
        attempt.fence,
        attempt.url,
    )
    assert (990, 1_001, 1_050) == (attempt.claimed_ms, attempt.started_ms, attempt.ended_ms)
    return settle, attempt


def test_delivered() -> None:
    """No error, no reason, no next attempt."""
    settle, attempt = _settled(route(), Outcome(status=204, bytes_sent=True))
    assert (VERDICT_DELIVERED, None, None) == (settle.verdict, settle.reason, settle.error)
    assert ("succeeded", None, None) == (
        attempt.status,
        attempt.error_code,
        attempt.next_attempt_ms,
    )


def test_tried_again() -> None:
    """The reason says how it failed; the record says when it is tried again."""
    of = route(retry=Retry(schedule_ms=(50, 100), jitter=0.0))
    outcome = Outcome(status=503, headers={"retry-after": "1"}, bytes_sent=True)
    settle, attempt = _settled(of, outcome)
    assert (VERDICT_RETRY, "status_503", 2_050) == (settle.verdict, settle.reason, settle.retry_ms)
    assert settle.counts
    assert ("failed", "status", "1", 2_050) == (
        attempt.status,
        attempt.error_code,
        attempt.retry_after,
        attempt.next_attempt_ms,
    )
    assert "The recipient answered 503." == settle.error == attempt.error_message


def test_an_error_tells_its_own_sentence() -> None:
    """And is the reason of the next attempt."""
    outcome = Outcome(error_code="timeout", error_message="Too slow.", error_phase="headers")
    settle, attempt = _settled(route(), outcome)
    assert ("timeout", "Too slow.") == (settle.reason, settle.error)
    assert ("timeout", "headers") == (attempt.error_code, attempt.error_phase)


def test_dead() -> None:
    """The reason is why nothing follows."""
    of = route(retry=Retry(schedule_ms=(50,), max_attempts=2))
    settle, attempt = _settled(of, Outcome(status=500, bytes_sent=True))
    assert (VERDICT_DEAD, "exhausted") == (settle.verdict, settle.reason)
    assert attempt.next_attempt_ms is None


@pytest.mark.parametrize(
    ("delivery", "verdict", "next_ms"),
    [("at_least_once", VERDICT_RETRY, 9_000), ("at_most_once", VERDICT_DEAD, None)],
)
def test_an_orphan_is_unknown(delivery: str, verdict: int, next_ms: int | None) -> None:
    """It is tried again without using up an attempt, or left to a human."""
    settle = settle_orphan(
        "job", _RECORD, _CLAIM, route(delivery=delivery), node_id="n", now_ms=9_000
    )
    assert (verdict, "unknown", False) == (settle.verdict, settle.reason, settle.counts)
    attempt: AttemptRecord = _read(settle.record)
    assert ("unknown", "orphaned", next_ms) == (
        attempt.status,
        attempt.error_code,
        attempt.next_attempt_ms,
    )


def test_an_orphan_whose_route_was_deleted_is_due_at_once() -> None:
    """It ends with the route when it is looked at next; it is listed with the route it had."""
    settle = settle_orphan("job", _RECORD, _CLAIM, None, node_id="n", now_ms=2_000)
    assert (VERDICT_RETRY, 2_000, 0) == (settle.verdict, settle.retry_ms, settle.route_uid)
    assert "" == _read(settle.record).url


@pytest.mark.parametrize(("before", "delay_ms"), [("proxy_error", 4_000), ("timeout", 1_000)])
def test_a_fault_of_the_egress_proxy(before: str, delay_ms: int) -> None:
    """Nothing of the budget is used; the pause grows with those of its kind right before."""
    claim = msgspec.structs.replace(_CLAIM, attempt=4)
    item = _sent(route())
    item.record = msgspec.structs.replace(_RECORD, claim=claim, attempts=4, retry_reason=before)
    outcome = Outcome(error_code="proxy_error", error_phase="connect", error_message="no way")
    settle, decision = settle_outcome(item, outcome, node_id="n", now_ms=1_050, random=0.5)
    assert (VERDICT_RETRY, False, "proxy_error") == (settle.verdict, settle.counts, settle.reason)
    assert 1_050 + delay_ms == settle.retry_ms == decision.retry_at_ms


def test_a_record_fits_whatever_the_recipient_answers() -> None:
    """R43: the longest headers and body that are kept, none of them ASCII, after a long wait."""
    names = "content-type", "date", "location", "retry-after", "server", "webhook-delivery"
    outcome = Outcome(
        status=599,
        headers=dict.fromkeys(names, "\xff" * 1024),
        body=b"\xff" * limits.ATTEMPT_BODY_BYTES_MAX,
        truncated=True,
        remote_ip="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        queue_ms=0.1,
        resolve_ms=0.1,
        connect_ms=0.1,
        tls_ms=0.1,
        first_byte_ms=0.1,
        total_ms=0.1,
    )
    item = _sent(route())
    item.key_ids = (2**32 - 1,) * (1 + limits.SECRETS_OLD_MAX)
    item.route = route(webhook_url="http://" + "x" * (limits.URL_BYTES_MAX - 7))
    settle, _ = settle_outcome(item, outcome, node_id="n" * 64, now_ms=1_050, random=0.5)
    attempt = _read(settle.record)
    stored = msgspec.structs.replace(
        attempt,
        uid=b"u" * 16,
        trigger_ms=limits.TIME_MS_MAX,
        route="r" * limits.NAME_CHARACTERS_MAX,
        due_ms=limits.TIME_MS_MAX,
        settled_ms=limits.TIME_MS_MAX,
        settled_term=2**64 - 1,
        batch=b"b" * limits.BATCH_ID_BYTES,
        batch_size=limits.ROUTE_BATCH_JOBS_MAX,
        answer_in="j" * limits.JOB_ID_BYTES_MAX,
    )
    assert len(codec.encode(stored)) < limits.ATTEMPT_RECORD_BYTES_MAX
    assert len(codec.encode(settle)) < limits.ATTEMPT_RECORD_BYTES_MAX


def test_what_the_job_tells_is_left_out() -> None:
    """When it was due only where that was not its trigger time; the queue, and the keys, are in."""
    item = _sent(route())
    item.key_ids, item.held_up = (7, 9), int(HeldUp.RATE)
    settle, _ = settle_outcome(
        item, Outcome(status=200, queue_ms=2.5), node_id="n", now_ms=1_050, random=0.5
    )
    made = _read(settle.record)
    assert (b"", None, "", 0, 0) == (
        made.uid,
        made.trigger_ms,
        made.route,
        made.due_ms,
        made.settled_ms,
    )
    assert ((7, 9), HeldUp.RATE, 2.5) == (made.key_ids, made.held_up, made.queue_ms)
    item.record = msgspec.structs.replace(_RECORD, due_ms=6_000)
    item.held_up, item.waiting = 0, True
    settle, _ = settle_outcome(item, Outcome(status=200), node_id="n", now_ms=6_050, random=0.5)
    made = _read(settle.record)
    assert (6_000, HeldUp.ROUTE) == (made.due_ms, made.held_up)
