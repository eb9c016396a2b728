"""Backups against the machines: what goes out of one cluster comes into another, once."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.backup.test_fates import ROUTE
from tests.unit.replica.machines import UID, Driven
from timemachine import limits
from timemachine.backup.digest import digests, take
from timemachine.backup.pages import Page, head_of, pages_of, read_page
from timemachine.backup.uploads import commands_of, uploads_of
from timemachine.model import AttemptStatus, PastDue, Restore
from timemachine.replica import commands as c
from timemachine.ring import vnode_of
from timemachine.storage.keys import after_prefix

RESTORE = Restore("r", "b", 9, 25, PastDue.HOLD)
IDS = st.text("ab/é", min_size=1, max_size=4)
JOBS = st.dictionaries(
    IDS,
    st.tuples(
        st.sampled_from([1, 5, 300, 5_000]),  # bytes of its meta
        st.integers(0, 50),  # when it is due
        st.integers(0, 3),  # failed attempts
        st.booleans(),  # delivered at last
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and commands of few jobs."""
    monkeypatch.setattr(limits, "BACKUP_PAGE_BYTES", 700)
    monkeypatch.setattr(limits, "BACKUP_SCAN_BYTES", 250)
    monkeypatch.setattr(limits, "BACKUP_PAGE_JOBS_MAX", 5)
    monkeypatch.setattr(limits, "RESTORE_UPLOAD_BYTES", 6_000)
    monkeypatch.setattr(limits, "RESTORE_COMMAND_BYTES", 600)


def _filled(jobs: dict[str, Any]) -> Driven:
    driven = Driven()
    for job_id, (size, due_ms, failed, delivered) in jobs.items():
        driven.apply(
            c.PutJob(
                now_ms=1,
                job_id=job_id,
                uid=UID,
                trigger_ms=due_ms,
                delay_ms=None,
                route="r",
                route_uid=1,
                meta=b"1" * size,
                tags=("t",) if due_ms % 2 else (),
            )
        )
        for _ in range(failed):
            driven.settle(job_id, driven.claim(job_id), AttemptStatus.FAILED)
        if delivered:
            driven.settle(job_id, driven.claim(job_id), AttemptStatus.SUCCEEDED)
    return driven


def _pages(driven: Driven) -> list[Page]:
    view = driven.store.view()
    head = head_of(view, driven.keys, (3, 0))
    told = [each for each in pages_of(view, driven.keys, head) if each is not None]
    found = [read_page(data) for data, _ in told]
    assert [page.last for page in found] == [last for _, last in told]
    view.close()
    return found


def _table(driven: Driven, prefix: bytes) -> list[tuple[bytes, bytes]]:
    rows = driven.store.scan(prefix, after_prefix(prefix), 10_000)
    return [(key[len(prefix) :], value) for key, value in rows]


@settings(max_examples=60, deadline=None)
@given(JOBS)
def test_pages_hold_all_and_each_is_self_contained(jobs: dict[str, Any]) -> None:
    """Every row once, in order, and a job's meta and attempts in the page that has the job."""
    driven = _filled(jobs)
    pages = _pages(driven)
    assert list(range(len(pages))) == [page.number for page in pages]
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    head = pages[0].head
    assert head is not None
    assert (driven.index, len(jobs)) == (head.position.applied_index, sum(head.counts))
    keys = driven.keys
    assert _table(driven, keys.job) == [row for page in pages for row in page.jobs]
    assert _table(driven, keys.meta) == [row for page in pages for row in page.metas]
    assert _table(driven, keys.attempts) == [row for page in pages for row in page.attempts]
    for page in pages:
        ids = {raw_id for raw_id, _ in page.jobs}
        assert {raw_id for raw_id, _ in page.metas} <= ids
        assert {key[:-5] for key, _ in page.attempts} <= ids


@settings(max_examples=40, deadline=None)
@given(JOBS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_each_job_comes_once_however_often_it_is_sent(
    jobs: dict[str, Any], num_vnodes: int, random: Any
) -> None:
    """Repeats at any time change nothing, also of jobs that are purged by then."""
    driven = _filled(jobs)
    targets = [Driven() for _ in range(num_vnodes)]
    sent: list[tuple[int, c.RestoreJobs]] = []
    for page in _pages(driven):
        for upload in uploads_of(page, 0, {1: "r"}):
            commands, counts = commands_of(upload, RESTORE, num_vnodes, lambda _: ROUTE, 30)
            assert len(upload.jobs) == sum(counts.values())
            for vnode, steps in commands.items():
                for step in steps:
                    targets[vnode].apply(step)
                    sent.append((vnode, step))
    before = digests(2)
    after = digests(2)
    for page in _pages(driven):
        take(page, before)
    for target in targets:
        for page in _pages(target):
            take(page, after)
    assert before == after
    gone = random.choice(sorted(jobs)) if jobs else None
    if gone is not None:
        targets[vnode_of(gone, num_vnodes)].apply(c.DeleteJob(now_ms=40, job_id=gone, purge=True))
    random.shuffle(sent)
    for vnode, step in sent:
        (result,) = targets[vnode].apply(step)
        assert "unchanged" == result.kind
    left = [raw.decode() for target in targets for raw, _ in _table(target, target.keys.job)]
    assert sorted(set(jobs) - {gone}) == sorted(left)


@settings(max_examples=40, deadline=None)
@given(JOBS)
def test_what_was_delivered_is_not_due(jobs: dict[str, Any]) -> None:
    """A restore never sends again what its backup knew as delivered, whatever is chosen."""
    driven = _filled(jobs)
    target = Driven()
    restore = msgspec.structs.replace(RESTORE, past_due=PastDue.FIRE)
    for page in _pages(driven):
        for upload in uploads_of(page, 0, {1: "r"}):
            commands, _ = commands_of(upload, restore, 1, lambda _: ROUTE, 30)
            for step in commands.get(0, []):
                target.apply(step)
    due = {key[8:].decode() for key, _ in _table(target, target.keys.due)}
    assert {job_id for job_id, row in jobs.items() if not row[3]} == due
