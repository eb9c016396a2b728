"""What a job becomes: the record after each move, made from the one before.

Nothing is written here. `model.JOB_TRANSITIONS` lists the moves; `JobRows.store` asserts each.
"""

import hashlib
from typing import Final

import msgspec

from timemachine.identifiers import UID_BYTES
from timemachine.model import ClaimMark, DeadReason, JobRecord, Order
from timemachine.replica import commands as c
from timemachine.replica.states import (
    CANCELLED,
    DEAD,
    DELIVERED,
    DUE,
    FIRING,
    NO_QUEUE,
    RETRYING,
    SCHEDULED,
    TERMINAL,
)
from timemachine.smearing import first_due_ms

_replace = msgspec.structs.replace
_RESTORED_DOMAIN: Final = b"timemachine restored uid\0"


# --- by its creator ------------------------------------------------------------------------


def next_version(
    before: JobRecord,
    uid: bytes,
    now_ms: int,
    *,
    trigger_ms: int,
    delay_ms: int | None,
    smear_ms: int,
    route: str,
    route_uid: int,
    tags: tuple[str, ...],
    meta: bytes | None,
    term: int,
) -> tuple[JobRecord, tuple[int, str]]:
    """The changed job, and what became of the version it replaces.

    A terminal job, and one that was deleted while a send was under way, starts a new life.
    `meta` is as in the record.
    """
    new_life = before.state in TERMINAL or before.outcome is not None
    if before.state == FIRING:
        outcome = "in_flight"
    elif before.state == DELIVERED:
        outcome = "already_delivered"
    else:
        outcome = "replaced"
    record = JobRecord(
        uid=uid if new_life else _uid_of_next(before),
        version=before.version + 1,
        state=SCHEDULED,
        trigger_ms=trigger_ms,
        delay_ms=delay_ms,
        route=route,
        route_uid=route_uid,
        tags=tags,
        created_ms=now_ms if new_life else before.created_ms,
        updated_ms=now_ms,
        due_ms=first_due_ms(trigger_ms, smear_ms),
        queue=DUE,
        serial=before.serial,
        born_index=before.born_index,
        meta=meta,
        smear_ms=smear_ms,
        accepted_term=term,
        alerted=None if new_life else before.alerted,
        order=_order_anew(before),
    )
    return record, (before.version, outcome)


def _order_anew(before: JobRecord) -> Order | None:
    """Its order, as of one that has not waited yet."""
    order = before.order
    return None if order is None else Order(order.key, order.number)


def _uid_of_next(before: JobRecord) -> bytes:
    """The uid of the version that follows.

    What came out of a backup gets another one: the cluster that was backed up may have sent a
    version of that number since, and its webhook-id must not stand for two contents.
    """
    if not before.restored:
        return before.uid
    seed = _RESTORED_DOMAIN + before.restored.to_bytes(8, "big") + before.uid
    return hashlib.sha256(seed).digest()[:UID_BYTES]


def deleted(before: JobRecord, now_ms: int) -> tuple[JobRecord, str]:
    """The job, deleted as far as it still can be, and the outcome.

    It is `before` itself where there is nothing left to delete.
    """
    if before.outcome is not None:
        return before, before.outcome
    if before.state == DELIVERED:
        return before, "already_delivered"
    if before.state == DEAD:
        return before, "already_dead"
    if before.state == FIRING:
        return _replace(before, outcome="in_flight", updated_ms=now_ms), "in_flight"
    return cancelled(before, "cancelled", now_ms), "cancelled"


def cancelled(before: JobRecord, outcome: str, now_ms: int) -> JobRecord:
    """Deleted, and nothing of it is under way any more."""
    return _replace(
        before,
        state=CANCELLED,
        queue=NO_QUEUE,
        due_ms=0,
        claim=None,
        outcome=outcome,
        updated_ms=now_ms,
        finished_ms=now_ms,
        retry_reason=None,
        batch=b"",
    )


def redriven(before: JobRecord, route_uid: int, now_ms: int) -> JobRecord:
    """To be sent again, under the same webhook id."""
    return _replace(
        before,
        state=SCHEDULED,
        route_uid=route_uid,
        due_ms=now_ms,
        queue=DUE,
        tries=0,
        first_claim_ms=0,
        reason=None,
        outcome=None,
        finished_ms=0,
        retry_reason="redrive",
        delivering=b"",
        order=_order_anew(before),
    )


def reborn(
    before: JobRecord, uid: bytes, route_uid: int, now_ms: int, term: int
) -> tuple[JobRecord, tuple[int, str]]:
    """To be sent once more as if for the first time; and what became of the version before.

    The same job in a new life, so its webhook id is another one.
    """
    after, previous = next_version(
        before,
        uid,
        now_ms,
        trigger_ms=before.trigger_ms,
        delay_ms=before.delay_ms,
        smear_ms=before.smear_ms,
        route=before.route,
        route_uid=route_uid,
        tags=before.tags,
        meta=before.meta,
        term=term,
    )
    return _replace(after, due_ms=now_ms, retry_reason="redrive"), previous


# --- by its attempts -----------------------------------------------------------------------


def claimed(
    before: JobRecord,
    item: c.ClaimItem,
    term: int,
    index: int,
    now_ms: int,
    batch: bytes = b"",
    *,
    again: bool = False,
) -> JobRecord:
    """Its next attempt is about to be made, in that `batch`; claimed by the entry at `index`.

    `again`: in the one that it is bound to. It is bound to none otherwise.
    """
    serial = before.serial + 1
    return _replace(
        before,
        state=FIRING,
        attempts=item.attempt,
        serial=serial,
        first_claim_ms=before.first_claim_ms or now_ms,
        claim=ClaimMark(
            term,
            index,
            item.attempt,
            serial,
            now_ms,
            item.deadline_ms,
            before.state,
            batch=batch,
        ),
        batch=before.batch if again else b"",
    )


def unclaimed(before: JobRecord, claim: ClaimMark) -> JobRecord:
    """As it was before the claim, which is its own."""
    first = claim.attempt == 1 or before.tries == 0
    return _replace(
        before,
        state=claim.prior,
        attempts=before.attempts - 1,
        serial=before.serial - 1,
        first_claim_ms=0 if first else before.first_claim_ms,
        claim=None,
    )


def settled(before: JobRecord, item: c.SettleItem, now_ms: int, batch: bytes = b"") -> JobRecord:
    """What follows from how its open attempt ended; a retry is made in that `batch`."""
    claim = before.claim
    if item.verdict == c.VERDICT_DELIVERED or (claim is not None and claim.delivered):
        return delivered(before, now_ms)
    tries = before.tries + 1 if item.counts else before.tries
    if before.outcome is not None:
        ended = cancelled(before, before.outcome, now_ms)
        return _replace(ended, tries=tries, last_error=item.error)
    if item.verdict == c.VERDICT_DEAD:
        reason = item.reason or DeadReason.EXHAUSTED.value
        return dead(before, tries, reason, item.error, now_ms)
    return _replace(
        before,
        state=RETRYING,
        queue=DUE,
        # An attempt is claimed a little ahead; when it turns out that it never began (an orphan
        # of a crash, a clock that went back), the next one still waits for the job's time.
        due_ms=max(
            item.retry_ms, min(before.due_ms, first_due_ms(before.trigger_ms, before.smear_ms))
        ),
        claim=None,
        tries=tries,
        last_error=item.error,
        retry_reason=item.reason,
        batch=batch,
    )


def delivered(before: JobRecord, now_ms: int, delivering: bytes = b"") -> JobRecord:
    """A recipient has it; `delivering` is as in the record."""
    return _replace(
        before,
        state=DELIVERED,
        queue=NO_QUEUE,
        due_ms=0,
        claim=None,
        reason=None,
        last_error=None,
        retry_reason=None,
        finished_ms=now_ms,
        delivering=delivering,
        batch=b"",
    )


def dead(before: JobRecord, tries: int, reason: str, error: str | None, now_ms: int) -> JobRecord:
    """Given up."""
    return _replace(
        before,
        state=DEAD,
        queue=NO_QUEUE,
        due_ms=0,
        claim=None,
        tries=tries,
        reason=reason,
        last_error=error,
        retry_reason=None,
        finished_ms=now_ms,
        batch=b"",
    )
