"""Steps of bulk tasks."""

from tests.unit.replica.machines import UID, Driven
from timemachine.replica import commands as c
from timemachine.replica.results import BulkProgress


def _step(after: bytes, cursor: bytes, *jobs: str, finished: bool = False) -> c.Bulk:
    return c.Bulk(
        now_ms=20,
        task="t",
        kind=c.BULK_RESCHEDULE,
        items=[c.BulkItem(job, UID, 1) for job in jobs],
        after=after,
        cursor=cursor,
        shift_ms=1_000,
        finished=finished,
    )


def test_a_step_is_done_once() -> None:
    """Its repeat is answered with how far the task is."""
    driven = Driven()
    driven.put("a")
    for _ in range(2):
        (progress,) = driven.apply(_step(b"", b"1", "a"))
        assert BulkProgress(b"1", {"rescheduled": 1}) == progress
    assert 1_010 == driven.job("a").trigger_ms


def test_after_the_end_nothing_is_done() -> None:
    """Who leads the vnode next may look at it from the last step on."""
    driven = Driven()
    driven.put("a")
    driven.apply(_step(b"", b"1", "a"))
    (ended,) = driven.apply(_step(b"1", b"1", finished=True))
    assert BulkProgress(b"1", {"rescheduled": 1}, finished=True) == ended
    driven.put("b")
    (progress,) = driven.apply(_step(b"1", b"2", "b"))
    assert ended == progress
    assert 10 == driven.job("b").trigger_ms
