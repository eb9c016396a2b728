"""What becomes of each job of a backup when it is restored."""

from typing import Any

import pytest
from msgspec.structs import replace

from timemachine.backup.fates import Fate, Outcome, fate
from timemachine.model import (
    AttemptStatus,
    ClaimMark,
    JobRecord,
    JobState,
    PastDue,
    Queue,
    Restore,
    Route,
)
from timemachine.replica.records import read_attempt

CUT_MS = 1_000
ROUTE = Route(
    uid=7,
    db="default",
    name="hello",
    version=1,
    webhook_url="http://hook.example/",
    created_ms=1,
    updated_ms=1,
    secrets=(),
)
ONCE = replace(ROUTE, delivery="at_most_once")
CLAIM = ClaimMark(3, 44, 2, 5, 90, 95, int(JobState.RETRYING))
CHOICES = list(PastDue)


def job(state: JobState, due_ms: int = 0, **more: Any) -> JobRecord:
    """A job of the cluster that was backed up, with one attempt."""
    pending = state < JobState.DELIVERED
    record = JobRecord(
        uid=b"u" * 16,
        version=3,
        state=int(state),
        trigger_ms=50,
        delay_ms=None,
        route="hello",
        route_uid=2,
        tags=(),
        created_ms=1,
        updated_ms=2,
        due_ms=due_ms,
        queue=int(Queue.DUE if pending else Queue.NONE),
        attempts=1,
        tries=1,
        serial=4,
        finished_ms=0 if pending else 60,
        born_index=9,
        meta=b"1",
    )
    return replace(record, **more)


def restored(
    record: JobRecord, past_due: PastDue = PastDue.HOLD, route: Route | None = ROUTE
) -> Fate:
    """What becomes of it."""
    return fate(record, route, Restore("r", "b", 9, CUT_MS, past_due))


@pytest.mark.parametrize("past_due", CHOICES)
@pytest.mark.parametrize("state", [JobState.DELIVERED, JobState.DEAD, JobState.CANCELLED])
def test_what_had_ended_has_ended(state: JobState, past_due: PastDue) -> None:
    """It is never sent again by itself, whatever was chosen, and is kept as long as anew."""
    record, outcome, opened = restored(job(state), past_due)
    assert (Outcome.ENDED, None) == (outcome, opened)
    assert (state, Queue.NONE, CUT_MS) == (record.state, record.queue, record.finished_ms)


@pytest.mark.parametrize("past_due", CHOICES)
@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
def test_what_is_due_later_is_sent_then(state: JobState, past_due: PastDue) -> None:
    """It stays what it was, bound to the route as it is here now."""
    record, outcome, _ = restored(job(state, CUT_MS + 1), past_due)
    assert Outcome.PENDING == outcome
    assert (state, Queue.DUE, CUT_MS + 1) == (record.state, record.queue, record.due_ms)
    assert (ROUTE.uid, 3, 9) == (record.route_uid, record.version, record.restored)


@pytest.mark.parametrize(
    ("past_due", "outcome", "state", "queue"),
    [
        (PastDue.HOLD, Outcome.HELD, JobState.HELD, Queue.PARKED),
        (PastDue.FIRE, Outcome.FIRED, JobState.RETRYING, Queue.DUE),
        (PastDue.DROP, Outcome.DROPPED, JobState.DEAD, Queue.NONE),
    ],
)
@pytest.mark.parametrize("before", [JobState.RETRYING, JobState.HELD])
def test_what_is_past_due_waits_for_an_admin(
    before: JobState, past_due: PastDue, outcome: Outcome, state: JobState, queue: Queue
) -> None:
    """Held, sent, or dead with a reason; a job that was held by its route is past due as well."""
    record, found, _ = restored(job(before, CUT_MS), past_due)
    assert outcome == found
    assert (state, queue) == (record.state, record.queue)
    assert ("expired" if state == JobState.DEAD else None) == record.reason


def test_an_open_attempt_is_unknown() -> None:
    """The job is retried under the same webhook-id; the attempt is listed as unknown."""
    before = job(JobState.FIRING, 50, claim=CLAIM, attempts=2, serial=5)
    record, outcome, opened = restored(before, PastDue.FIRE)
    assert (Outcome.FIRED, JobState.RETRYING, None) == (outcome, record.state, record.claim)
    assert (before.uid, before.version) == (record.uid, record.version)
    assert "unknown" == record.retry_reason
    assert opened is not None
    assert CLAIM.serial == opened[0]
    assert AttemptStatus.UNKNOWN == read_attempt(opened[1]).status


@pytest.mark.parametrize("past_due", CHOICES)
def test_at_most_once_is_left_to_a_human(past_due: PastDue) -> None:
    """A job that may have been sent is not sent a second time where its route forbids that."""
    before = job(JobState.FIRING, 50, claim=CLAIM, attempts=2, serial=5)
    record, outcome, opened = restored(before, past_due, ONCE)
    assert (Outcome.UNKNOWN, JobState.DEAD, "unknown") == (outcome, record.state, record.reason)
    assert opened is not None


def test_what_was_known_as_delivered_while_another_attempt_was_open_is_delivered() -> None:
    """A late success had been told: nothing more is sent."""
    claim = replace(CLAIM, delivered=True)
    record, outcome, _ = restored(job(JobState.FIRING, 50, claim=claim), PastDue.FIRE)
    assert (Outcome.ENDED, JobState.DELIVERED) == (outcome, record.state)


def test_what_was_deleted_while_it_was_sent_is_cancelled() -> None:
    """No further attempt was to start."""
    before = job(JobState.FIRING, 50, claim=CLAIM, outcome="in_flight")
    record, outcome, _ = restored(before, PastDue.FIRE)
    assert (Outcome.ENDED, JobState.CANCELLED) == (outcome, record.state)
    assert "in_flight" == record.outcome


def test_a_job_without_its_route_ends_as_it_would_have() -> None:
    """The route was deleted, and the job had not been given up yet."""
    record, outcome, _ = restored(job(JobState.SCHEDULED, CUT_MS + 1), route=None)
    assert (Outcome.ROUTELESS, "route_deleted", 0) == (outcome, record.reason, record.route_uid)


def test_a_job_that_waits_for_its_route_to_be_made_goes_on_waiting() -> None:
    """It was accepted before the route existed."""
    record, outcome, _ = restored(job(JobState.SCHEDULED, CUT_MS + 1, route_uid=0), route=None)
    assert (Outcome.PENDING, 0) == (outcome, record.route_uid)
