"""What is found to be purged, and what goes with it."""

from tests.unit.replica.machines import Driven
from timemachine.forgetting import Ended
from timemachine.model import AttemptStatus
from timemachine.replica import commands as c
from timemachine.storage.keys import after_prefix, u64


def _rows(driven: Driven) -> int:
    """Rows of jobs and whatever else there is of them; not the machine's own ones."""
    keys = driven.keys
    own = (keys.state, keys.route_counters, keys.hard_state)
    rows = driven.store.scan(keys.prefix, after_prefix(keys.prefix), 1000)
    return sum(not key.startswith(own) for key, _ in rows)


def _finished(driven: Driven) -> int:
    return len(driven.store.scan(driven.keys.finished, after_prefix(driven.keys.finished)))


def _purge(driven: Driven, before_ms: int) -> list[str]:
    """What the node does each second."""
    ids, rows = Ended(driven.keys).look(driven.store, 9, before_ms, 0.0)
    driven.apply(c.Purge(now_ms=9, before_ms=before_ms, job_ids=ids, attempt_rows=rows))
    return ids


def test_a_delivered_job_is_found_by_its_attempt() -> None:
    """It has no row of its end: one row less for each job that is fired."""
    driven = Driven()
    driven.put("a")
    driven.settle("a", driven.claim("a"), AttemptStatus.SUCCEEDED)
    assert 0 == _finished(driven)
    assert [] == _purge(driven, 4)
    assert driven.job("a").finished_ms == 4
    assert ["a"] == _purge(driven, 5)
    assert 0 == _rows(driven)


def test_a_job_that_was_sent_again_is_kept() -> None:
    """Its older attempt is forgotten, the job and its newer one are not."""
    driven = Driven()
    driven.put("a")
    driven.settle("a", driven.claim("a"), AttemptStatus.SUCCEEDED)
    driven.put("a", trigger_ms=11)
    assert ["a"] == _purge(driven, 5)
    driven.settle("a", driven.claim("a"), AttemptStatus.SUCCEEDED, version=2)
    assert 0 == _finished(driven)
    assert ["a"] == _purge(driven, 5)
    assert 0 == _rows(driven)


def test_what_ended_otherwise_has_a_row_of_its_end() -> None:
    """A deleted job, and one of a version before, whose delivery had such a row."""
    driven = Driven()
    driven.put("a")
    driven.apply(c.DeleteJob(now_ms=3, job_id="a"))
    driven.put("b")
    driven.settle("b", driven.claim("b"), AttemptStatus.SUCCEEDED)
    row = driven.keys.finished + u64(4) + b"b"
    driven.store.write(driven.store.prepare({row: b""}))
    assert 2 == _finished(driven)
    assert ["a", "b", "b"] == _purge(driven, 5)
    assert 0 == _rows(driven)


def test_no_more_jobs_are_purged_at_a_time_than_are_quickly_erased() -> None:
    """The rows of the attempts go with their jobs, so that none is left behind."""
    driven, jobs = Driven(), 600
    for number in range(jobs):
        driven.put(f"{number:03d}")
        driven.settle(f"{number:03d}", driven.claim(f"{number:03d}"), AttemptStatus.SUCCEEDED)
    assert [500, jobs - 500, 0] == [len(_purge(driven, 5)) for _ in range(3)]
    assert 0 == _rows(driven)
