"""What creators ask for, where a unit test says more than the integration tests."""

from typing import Any

import msgspec

from tests.unit.replica.machines import UID, Driven
from timemachine.replica import commands as c


def _create(uid: bytes, **more: Any) -> c.PutJob:
    return c.PutJob(
        now_ms=1,
        job_id="job",
        uid=uid,
        trigger_ms=10,
        delay_ms=None,
        route="r",
        route_uid=1,
        meta=b"null",
        create_only=True,
        **more,
    )


def test_a_create_that_a_node_repeats_is_told_as_created() -> None:
    """The uid that was drawn for it is that of the job, so nobody else has created it."""
    driven = Driven()
    (first,) = driven.apply(_create(UID, if_none_match=True))
    (again,) = driven.apply(_create(UID, if_none_match=True))
    assert ("created", "created", False) == (first.kind, again.kind, again.replayed)
    assert first.record == again.record
    (other,) = driven.apply(_create(b"v" * 16))
    assert ("unchanged", True) == (other.kind, other.replayed)
    (absent,) = driven.apply(_create(b"v" * 16, if_none_match=True))
    assert "precondition_failed" == absent.code


def test_a_repeat_is_told_what_the_first_was() -> None:
    """Even if the job was replaced meanwhile: the creator did not ask for that (seed 161)."""
    driven = Driven()
    (first,) = driven.apply(_create(UID))
    replacing = _create(b"w" * 16)
    replacing = msgspec.structs.replace(replacing, create_only=False, trigger_ms=99, now_ms=5)
    (replaced,) = driven.apply(replacing)
    assert 2 == replaced.record.version
    (again,) = driven.apply(msgspec.structs.replace(_create(UID), now_ms=7))
    assert first.record == again.record
    assert ("created", "replaced") == (again.kind, replaced.kind)


def test_a_small_meta_stands_in_the_row_of_its_job() -> None:
    """And a large one in its own, whatever the version before had; a purge leaves neither."""
    driven = Driven()
    row = driven.keys.meta + b"job"
    small, large = b"1" * 256, b"2" * 257
    for meta, version in ((small, 1), (large, 2), (large + b"2", 3), (small, 4)):
        put = msgspec.structs.replace(_create(UID), create_only=False, meta=meta)
        driven.apply(put)
        job = driven.job("job")
        assert version == job.version
        assert (meta if meta is small else None) == job.meta
        assert (None if meta is small else meta) == driven.store.get(row)
        assert meta == driven.machine.read_meta(b"job", job)
        (unchanged,) = driven.apply(put)
        assert ("unchanged", version) == (unchanged.kind, unchanged.record.version)
    (patched,) = driven.apply(c.PatchJob(now_ms=2, job_id="job", trigger_ms=20))
    assert (small, small) == (patched.meta, patched.record.meta)
    driven.apply(c.PatchJob(now_ms=2, job_id="job", meta=large))
    (patched,) = driven.apply(c.PatchJob(now_ms=2, job_id="job", trigger_ms=30))
    assert (large, None) == (patched.meta, patched.record.meta)
    (deleted,) = driven.apply(c.DeleteJob(now_ms=3, job_id="job", purge=True))
    assert large == deleted.meta
    assert driven.store.get(row) is None


def test_to_run_a_job_that_is_due_does_not_make_it_due_later() -> None:
    """Who claims it may have a clock that is behind (cluster simulator, seed 526984873007024)."""
    driven = Driven()
    driven.put("job", trigger_ms=10)
    for now_ms, due_ms in ((200, 10), (5, 5)):
        (ran,) = driven.apply(c.RunJob(now_ms=now_ms, job_id="job"))
        assert ("moved", due_ms) == (ran.kind, ran.record.due_ms)
        assert "manual" == driven.job("job").retry_reason
