"""What is committed of an attempt that ended, or that nobody saw end.

The rules are those of `timemachine.retry`; here they become the command's item, with the record of
the attempt that users are shown.
"""

from timemachine import codec
from timemachine.delivery.item import Item
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    ClaimMark,
    DeadReason,
    HeldUp,
    JobRecord,
    Route,
)
from timemachine.outbound import Outcome
from timemachine.replica.commands import (
    VERDICT_DEAD,
    VERDICT_DELIVERED,
    VERDICT_RETRY,
    SettleItem,
)
from timemachine.retry import (
    DELIVERED,
    AttemptFacts,
    RetryDecision,
    Verdict,
    decide,
    is_success,
)

_SUCCEEDED = AttemptStatus.SUCCEEDED.value
_FAILED = AttemptStatus.FAILED.value
_APART = int(HeldUp.ROUTE)


def settle_outcome(
    item: Item, outcome: Outcome, *, node_id: str, now_ms: int, random: float
) -> tuple[SettleItem, RetryDecision]:
    """How a request ended becomes what is committed of its attempt, by the rules of its route.

    `item` was sent from `node_id`, and its request ended now. `random` is uniform in
    [0, 1); of a success it is of no account.
    """
    record = item.record
    assert record is not None
    claim = record.claim
    assert claim is not None
    route = item.queue.route
    headers = outcome.headers
    retry_after = headers.get("retry-after")
    if is_success(outcome.status) and "webhook-delivery" not in headers:
        # As nearly all end, so what `decide` would say is not made anew for each.
        decision = DELIVERED
    else:
        decision = decide(
            AttemptFacts(
                status=outcome.status,
                error_code=outcome.error_code,
                retry_after=retry_after,
                webhook_delivery=headers.get("webhook-delivery"),
                bytes_sent=outcome.bytes_sent,
            ),
            route.retry,
            attempt=record.tries + 1,
            first_attempt_ms=record.first_claim_ms,
            ended_ms=now_ms,
            random=random,
            delivery=route.delivery,
            non_retryable_status=route.non_retryable_status,
            # Of those alone that failed for the same reason, right before.
            uncounted=(
                max(0, claim.attempt - 1 - record.tries)
                if record.retry_reason == outcome.error_code
                else 0
            ),
        )
    delivered = decision is DELIVERED or decision.verdict is Verdict.DELIVERED
    retry = not delivered and decision.verdict is Verdict.RETRY
    error = None
    if not delivered:
        error = outcome.error_message or f"The recipient answered {outcome.status}."
    # By position: so many keywords cost more than sending does.
    attempt = AttemptRecord(
        claim.attempt,
        record.version,
        _SUCCEEDED if delivered else _FAILED,
        node_id,
        claim.term,
        claim.index,
        item.route.webhook_url,
        claim.claimed_ms,
        item.started_ms,
        now_ms,
        outcome.resolve_ms,
        outcome.connect_ms,
        outcome.tls_ms,
        outcome.first_byte_ms,
        outcome.total_ms,
        outcome.remote_ip,
        outcome.status,
        tuple(headers.items()),
        outcome.body,
        outcome.truncated,
        outcome.error_code or (None if delivered else "status"),
        error,
        outcome.error_phase,
        retry_after,
        decision.retry_at_ms if retry else None,
        record.retry_reason or "scheduled",
        False,
        # What the job's row has is left out: uid, trigger time, route; when it was due if that was
        # the trigger time; and what the settle adds.
        b"",
        None,
        "",
        0 if record.due_ms == record.trigger_ms else record.due_ms,
        0,
        0,
        outcome.queue_ms or 0,
        item.key_ids,
        item.held_up or (_APART if item.waiting else 0),
    )
    reason = decision.reason.value if decision.reason is not None else None
    if retry:
        reason = outcome.error_code or f"status_{outcome.status}"
    settle = SettleItem(
        item.job_id,
        record.uid,
        record.version,
        claim.attempt,
        claim.serial,
        VERDICT_DELIVERED if delivered else int(decision.verdict),
        codec.encode(attempt),
        decision.retry_at_ms,
        reason,
        error,
        decision.counts,
        route.uid,
    )
    return settle, decision


def settle_orphan(
    job_id: str,
    record: JobRecord,
    claim: ClaimMark,
    route: Route | None,
    *,
    node_id: str,
    now_ms: int,
) -> SettleItem:
    """The claim of a leader that is gone, never settled: its outcome is unknown.

    `node_id` is that of the leader who made it, as far as is known. It is tried again at once; of a
    route that delivers at most once it is left to a human.
    Without a route, which was deleted, it is due at once too, and that ends it.
    """
    once = route is not None and route.delivery == "at_most_once"
    attempt = AttemptRecord(
        attempt=claim.attempt,
        version=record.version,
        status=AttemptStatus.UNKNOWN.value,
        node=node_id,
        term=claim.term,
        fence=claim.index,
        url="" if route is None else route.webhook_url,
        claimed_ms=claim.claimed_ms,
        started_ms=claim.claimed_ms,
        ended_ms=now_ms,
        error_code="orphaned",
        error_message="The node stopped while this attempt was open; its outcome is unknown.",
        next_attempt_ms=None if once else now_ms,
        trigger=record.retry_reason or "scheduled",
        due_ms=0 if record.due_ms == record.trigger_ms else record.due_ms,
    )
    return SettleItem(
        job_id=job_id,
        uid=record.uid,
        version=record.version,
        attempt=claim.attempt,
        serial=claim.serial,
        verdict=VERDICT_DEAD if once else VERDICT_RETRY,
        record=codec.encode(attempt),
        retry_ms=now_ms,
        reason=DeadReason.UNKNOWN.value if once else "unknown",
        error=attempt.error_message,
        counts=False,
        route_uid=0 if route is None else route.uid,
    )
