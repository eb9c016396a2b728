"""What becomes of each job of a backup when it is restored.

What had ended has ended, and is never sent again by itself. A job that was being sent when the
backup was taken has an attempt whose outcome is unknown: it is sent again under the same
webhook-id, or, where its route delivers at most once, ends as dead with that reason, as when a
node is lost. Of jobs that are due by the time of the restore nobody knows what the cluster that
was backed up has made of them since: they are past due, and an admin decides.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from timemachine import codec
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    ClaimMark,
    DeadReason,
    JobRecord,
    PastDue,
    Restore,
    Route,
)
from timemachine.replica.restoring import DROPPED
from timemachine.replica.states import (
    DUE,
    HELD,
    NO_QUEUE,
    PARKED,
    RETRYING,
    SCHEDULED,
    TERMINAL,
)
from timemachine.replica.transitions import cancelled, dead, delivered

_replace = msgspec.structs.replace
_UNKNOWN = "The cluster was backed up while this attempt was open; its outcome is unknown."


class Outcome(StrEnum):
    """What became of a job, as a restore counts it."""

    ENDED = "ended"
    """It had ended."""
    PENDING = "pending"
    """It will be due, and is sent then."""
    HELD = "held"
    """It is past due, and held."""
    FIRED = "fired"
    """It is past due, and sent now."""
    DROPPED = "dropped"
    """It is past due, and dead."""
    UNKNOWN = "unknown"
    """It was being sent at most once: dead, and listed for a human."""
    ROUTELESS = "routeless"
    """Its route was deleted before the backup: dead."""


class Fate(NamedTuple):
    """A job as it is restored, and the encoded AttemptRecord of the attempt that was open."""

    record: JobRecord
    outcome: Outcome
    opened: tuple[int, bytes] | None = None


def fate(before: JobRecord, route: Route | None, restore: Restore) -> Fate:
    """What becomes of a job whose route has come back as `route`, None if it has not."""
    route_uid = 0 if route is None else route.uid
    unbound = before.route_uid == 0
    record = _replace(before, route_uid=route_uid, restored=restore.epoch)
    opened = None
    claim = before.claim
    if claim is not None:
        if claim.delivered:
            record = delivered(record, restore.cut_ms)
        else:
            opened = (claim.serial, codec.encode(_unknown(before, claim, route, restore)))
            if before.outcome is not None:
                record = cancelled(record, before.outcome, restore.cut_ms)
            elif route is not None and route.delivery == "at_most_once":
                reason = DeadReason.UNKNOWN.value
                record = dead(record, before.tries, reason, _UNKNOWN, restore.cut_ms)
                return Fate(record, Outcome.UNKNOWN, opened)
            else:
                record = _replace(
                    record,
                    state=RETRYING,
                    claim=None,
                    last_error=_UNKNOWN,
                    retry_reason="unknown",
                )
    if record.state in TERMINAL:
        # Kept for as long as anew: who creates it again is to find it.
        finished_ms = max(record.finished_ms, restore.cut_ms)
        return Fate(
            _replace(record, queue=NO_QUEUE, finished_ms=finished_ms), Outcome.ENDED, opened
        )
    if route is None and not unbound:
        reason, error = DeadReason.ROUTE_DELETED.value, "The route was deleted."
        record = dead(record, record.tries, reason, error, restore.cut_ms)
        return Fate(record, Outcome.ROUTELESS, opened)
    if record.state == HELD:
        record = _replace(record, state=RETRYING if record.attempts else SCHEDULED)
    if record.due_ms > restore.cut_ms:
        return Fate(_replace(record, queue=DUE), Outcome.PENDING, opened)
    match restore.past_due:
        case PastDue.HOLD:
            return Fate(_replace(record, state=HELD, queue=PARKED), Outcome.HELD, opened)
        case PastDue.FIRE:
            return Fate(_replace(record, queue=DUE), Outcome.FIRED, opened)
        case PastDue.DROP:
            reason = DeadReason.EXPIRED.value
            record = dead(record, record.tries, reason, DROPPED, restore.cut_ms)
            return Fate(record, Outcome.DROPPED, opened)


def _unknown(
    before: JobRecord, claim: ClaimMark, route: Route | None, restore: Restore
) -> AttemptRecord:
    return AttemptRecord(
        attempt=claim.attempt,
        version=before.version,
        status=AttemptStatus.UNKNOWN.value,
        node="",
        term=claim.term,
        fence=claim.index,
        url="" if route is None else route.webhook_url,
        claimed_ms=claim.claimed_ms,
        started_ms=claim.claimed_ms,
        ended_ms=max(claim.claimed_ms, restore.cut_ms),
        error_code="orphaned",
        error_message=_UNKNOWN,
        trigger=before.retry_reason or "scheduled",
        uid=before.uid,
        trigger_ms=before.trigger_ms,
        route=before.route,
        due_ms=before.due_ms,
        batch=claim.batch,
    )
