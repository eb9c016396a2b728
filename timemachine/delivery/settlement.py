"""What is committed of an attempt that ended, or that nobody saw end.

The rules are those of `timemachine.retry`; here they become the command's item, with the record of
the attempt that users are shown.
"""

from collections.abc import Callable

import msgspec

from timemachine import codec
from timemachine.delivery.forming import Batch
from timemachine.delivery.item import Item
from timemachine.events import alert_of
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
    Split,
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
_TOO_LARGE = 413
_replace = msgspec.structs.replace


def settle_outcome(
    item: Item, outcome: Outcome, *, node_id: str, now_ms: int, random: float
) -> tuple[SettleItem, RetryDecision]:
    """How a request ended becomes what is committed of its attempt, by the rules of its route.

    `item` was sent from `node_id`, and its request ended now. `random` is uniform in
    [0, 1); of a success it is of no account.
    """
    record, claim = _claimed(item)
    decision = _decision(item, record, claim, outcome, now_ms=now_ms, random=random)
    return _settle(item, record, claim, outcome, decision, node_id=node_id, now_ms=now_ms), decision


def settle_batch(
    batch: Batch,
    outcome: Outcome,
    *,
    node_id: str,
    now_ms: int,
    random: float,
    draw: Callable[[], bytes],
) -> tuple[list[SettleItem], RetryDecision, Split | None]:
    """What `settle_outcome` does, for each job of a batch; and the decision for the first of them.

    They are tried again together, when the last of them may be. One whose attempts are used up ends
    alone, and so the batch with it: the others go on in new ones. Too large a batch (413) goes on
    in two halves, at once; `draw` gives their ids. That is our own affair, and uses up no attempt.
    """
    items = batch.items
    first = items[0]
    if is_success(outcome.status) and "webhook-delivery" not in outcome.headers:
        return _settle_delivered(batch, outcome, node_id=node_id, now_ms=now_ms), DELIVERED, None
    decisions = []
    for item in items:
        record, claim = _claimed(item)
        decisions.append(_decision(item, record, claim, outcome, now_ms=now_ms, random=random))
    split = None
    if _is_too_large(batch, outcome, decisions[0]):
        split = _halves(batch, draw)
        decisions = [RetryDecision(verdict=Verdict.RETRY, retry_at_ms=now_ms, counts=False)] * len(
            items
        )
    else:
        retry_at_ms = max([each.retry_at_ms for each in decisions])
        decisions = [
            _replace(each, retry_at_ms=retry_at_ms) if each.verdict is Verdict.RETRY else each
            for each in decisions
        ]
    settles = []
    others = _unanswered(outcome)
    for item, decision in zip(items, decisions, strict=True):
        record, claim = _claimed(item)
        # What was answered is kept once.
        told = outcome if item is first else others
        settle = _settle(item, record, claim, told, decision, node_id=node_id, now_ms=now_ms)
        settles.append(settle)
    return settles, decisions[0], split


def _settle_delivered(
    batch: Batch, outcome: Outcome, *, node_id: str, now_ms: int
) -> list[SettleItem]:
    """As nearly all end. The records of most attempts are the same, and are made once."""
    settles = []
    records: dict[object, bytes] = {}
    told = outcome
    for item in batch.items:
        record, claim = _claimed(item)
        # All that differs between two attempts of a batch, but for the answer in the first one.
        due_ms, held_up = _due_ms(record), _held_up(item)
        key = record.version, claim.attempt, record.retry_reason, due_ms, held_up
        attempt = records.get(key)
        if attempt is None:
            settle = _settle(item, record, claim, told, DELIVERED, node_id=node_id, now_ms=now_ms)
            if told is outcome:
                told = _unanswered(outcome)
            else:
                records[key] = settle.record
        else:
            settle = SettleItem(
                item.job_id,
                record.uid,
                record.version,
                claim.attempt,
                claim.serial,
                VERDICT_DELIVERED,
                attempt,
                route_uid=item.queue.route.uid,
            )
        settles.append(settle)
    return settles


def _claimed(item: Item) -> tuple[JobRecord, ClaimMark]:
    """The job as it was sent, and its claim."""
    record = item.record
    assert record is not None
    claim = record.claim
    assert claim is not None
    return record, claim


def _is_too_large(batch: Batch, outcome: Outcome, decision: RetryDecision) -> bool:
    route = batch.items[0].queue.route
    return (
        outcome.status == _TOO_LARGE
        and len(batch.items) > 1
        and route.delivery == "at_least_once"
        and _TOO_LARGE not in route.non_retryable_status
        and decision.reason is not DeadReason.ABORTED
    )


def _halves(batch: Batch, draw: Callable[[], bytes]) -> Split:
    row = batch.row
    assert row is not None
    ids = [item.job_id for item in batch.items]
    middle = (len(ids) + 1) // 2
    parts = [(draw(), ids[:middle]), (draw(), ids[middle:])]
    return Split(batch.id, row.format, row.body, parts)


def _unanswered(outcome: Outcome) -> Outcome:
    """How a request ended, without the answer's headers and body."""
    return _replace(outcome, headers={}, body=b"", truncated=False)


def _decision(
    item: Item,
    record: JobRecord,
    claim: ClaimMark,
    outcome: Outcome,
    *,
    now_ms: int,
    random: float,
) -> RetryDecision:
    route = item.queue.route
    headers = outcome.headers
    if is_success(outcome.status) and "webhook-delivery" not in headers:
        # As nearly all end, so what `decide` would say is not made anew for each.
        return DELIVERED
    return decide(
        AttemptFacts(
            status=outcome.status,
            error_code=outcome.error_code,
            retry_after=headers.get("retry-after"),
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


def _settle(
    item: Item,
    record: JobRecord,
    claim: ClaimMark,
    outcome: Outcome,
    decision: RetryDecision,
    *,
    node_id: str,
    now_ms: int,
) -> SettleItem:
    route = item.queue.route
    headers = outcome.headers
    retry_after = headers.get("retry-after")
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
        _due_ms(record),
        0,
        0,
        outcome.queue_ms or 0,
        item.key_ids,
        _held_up(item),
    )
    batch = item.batch
    if batch is not None:
        first = batch.items[0]
        attempt = _replace(
            attempt,
            batch=batch.id,
            batch_size=len(batch.items),
            answer_in=None if item is first else first.job_id,
        )
    reason = decision.reason.value if decision.reason is not None else None
    if retry:
        reason = outcome.error_code or f"status_{outcome.status}"
    return SettleItem(
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
        None if delivered else alert_of(route, item.head.collection),
    )


def _due_ms(record: JobRecord) -> int:
    """When an attempt was due, as its record has it."""
    return 0 if record.due_ms == record.trigger_ms else record.due_ms


def _held_up(item: Item) -> int:
    return item.held_up or (_APART if item.waiting else 0)


def settle_orphan(
    job_id: str,
    record: JobRecord,
    claim: ClaimMark,
    route: Route | None,
    *,
    node_id: str,
    now_ms: int,
    collection: str = "",
) -> SettleItem:
    """The claim of a leader that is gone, never settled: its outcome is unknown.

    `node_id` is that of the leader who made it, as far as is known; `collection` is the job's. It
    is tried again at once; of a route that delivers at most once it is left to a human.
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
        due_ms=_due_ms(record),
        batch=claim.batch,
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
        alert=alert_of(route, collection),
    )
