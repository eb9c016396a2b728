"""Jobs that their route smears: due at their part of the time after their trigger time."""

from typing import Any

import pytest

from tests.unit.replica.machines import UID, Driven
from timemachine import limits
from timemachine.model import AttemptStatus, JobState
from timemachine.replica import commands as c

PUT: dict[str, Any] = {
    "job_id": "a",
    "uid": UID,
    "trigger_ms": 1_000,
    "delay_ms": None,
    "route": "r",
    "route_uid": 1,
    "meta": b"null",
}


def smeared(smear_ms: int = 70, **changes: Any) -> Driven:
    """A job that is due so long after its trigger time, 1,000."""
    driven = Driven()
    driven.apply(c.PutJob(now_ms=1, smear_ms=smear_ms, **(PUT | changes)))
    return driven


def due(driven: Driven, job_id: str = "a") -> tuple[int, int]:
    """(trigger time, time of the next attempt), as the job and as the due index have it."""
    job = driven.job(job_id)
    start = driven.keys.due
    ((key, _),) = driven.store.scan(start, start[:-1] + bytes((start[-1] + 1,)), 10)
    assert job.due_ms == int.from_bytes(key[len(start) :][:8], "big")
    assert 1 == driven.machine.due_counts.count(job.due_ms // 60_000, job.due_ms // 60_000 + 1)
    return job.trigger_ms, job.due_ms


def test_a_job_is_due_at_its_part_of_the_time() -> None:
    """It keeps its trigger time, by which it is listed; the offset is below both."""
    driven = smeared()
    assert (1_000, 1_070) == due(driven)
    job = driven.job("a")
    assert (70, JobState.SCHEDULED) == (job.smear_ms, job.state)
    assert driven.machine.state.offset_due_ms <= 1_070


def test_a_repeat_is_told_the_same() -> None:
    """A command that was proposed twice, and a PUT of what is stored, change nothing."""
    driven = smeared()
    command = c.PutJob(now_ms=9, smear_ms=70, create_only=True, **PUT)
    ((result,),) = [driven.apply(command)]
    assert ("created", 1_070) == (result.kind, result.record.due_ms)
    # Its route may smear otherwise by now: that is for the next change of the job.
    (unchanged,) = driven.apply(c.PutJob(now_ms=9, smear_ms=5, **(PUT | {"uid": b"v" * 16})))
    assert "unchanged" == unchanged.kind
    assert (1_000, 1_070) == due(driven)


def test_a_replaced_job_is_smeared_as_its_route_says_now() -> None:
    """PUT binds a job anew, with all that its route has."""
    driven = smeared()
    driven.apply(c.PutJob(now_ms=2, smear_ms=3, **(PUT | {"trigger_ms": 2_000})))
    assert (2_000, 2_003) == due(driven)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trigger_ms": 2_000}, (2_000, 2_070)),
        ({"meta": b"1"}, (1_000, 1_070)),
        ({"route": "s", "route_uid": 2, "smear_ms": 4}, (1_000, 1_004)),
        ({"route": "s", "route_uid": 2, "trigger_ms": 2_000}, (2_000, 2_000)),
    ],
)
def test_a_patched_job_keeps_its_part_or_gets_that_of_its_new_route(
    changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    """Whoever patches does not say how it is smeared: its route does."""
    driven = smeared()
    driven.apply(c.PatchJob(now_ms=2, job_id="a", **changes))
    assert expected == due(driven)


def test_jobs_that_a_task_moves_to_one_moment_stay_spread() -> None:
    """Rescheduled, each is due at its part of the time after the new moment."""
    driven = smeared()
    item = c.BulkItem("a", UID, 1)
    moved = c.Bulk(now_ms=2, task="t", kind=c.BULK_RESCHEDULE, items=[item], after=b"", cursor=b"1")
    driven.apply(
        c.Bulk(**{name: getattr(moved, name) for name in moved.__struct_fields__} | {"shift_ms": 9})
    )
    assert (1_009, 1_079) == due(driven)


def test_run_means_now() -> None:
    """It is sent at once, also within the time that it is smeared over, and never later."""
    for now_ms in (500, 1_030):
        driven = smeared()
        driven.apply(c.RunJob(now_ms=now_ms, job_id="a"))
        assert (1_000, now_ms) == due(driven)


def test_retries_are_not_smeared() -> None:
    """The retry schedule says when they are due; it has a jitter of its own."""
    driven = smeared(trigger_ms=10)
    driven.settle("a", driven.claim("a"), AttemptStatus.FAILED)
    assert (10, 80) == due(driven), "not before its own time, though it was claimed before"
    driven = smeared(5, trigger_ms=10)
    driven.settle("a", driven.claim("a"), AttemptStatus.FAILED)
    assert (10, 50) == due(driven)


def test_a_redriven_job_is_sent_at_once() -> None:
    """Nobody waits for it any more."""
    driven = smeared()
    job = c.PendingItem("a", UID, 1, 0)
    driven.apply(c.GiveUp(now_ms=2_000, items=[job], reason="route_deleted", error="x"))
    driven.apply(c.RedriveJob(now_ms=3_000, job_id="a", route_uid=2))
    assert (1_000, 3_000) == due(driven)


def test_the_last_moment_is_the_end_of_the_year_9999() -> None:
    """Answers tell times that every calendar knows."""
    driven = smeared(trigger_ms=limits.TIME_MS_MAX)
    assert (limits.TIME_MS_MAX, limits.TIME_MS_MAX) == due(driven)
