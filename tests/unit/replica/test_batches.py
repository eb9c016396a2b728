"""Claims of batches in the machine: what they freeze, and what sets their jobs free."""

from typing import Any

import pytest

from tests.unit.replica.machines import UID, Driven
from timemachine.model import AttemptStatus, JobState
from timemachine.replica import commands as c
from timemachine.replica.records import BatchMember, find_leaders
from timemachine.replica.results import BatchDissolved, DueInserted, WaitingFreed
from timemachine.storage.keys import batch_of_due

BATCH = b"b" * 16


def claimed(log: Driven, names: str, *, batch: bytes = BATCH, **fields: Any) -> list[bool]:
    """Ask for one batch of these jobs; which claims hold."""
    items = [
        c.ClaimItem(name, UID, log.job(name).version, log.job(name).attempts + 1, 100)
        for name in names
    ]
    settings = {"max_bytes": 1_000, "item_bytes": 10, **fields}
    (results,) = log.apply(
        c.ClaimBatch(now_ms=2, term=log.term, batch=batch, items=items, **settings)
    )
    return [result.holds for result in results]


def bound(names: str = "abc") -> Driven:
    """Jobs that were sent in a batch, and are to be sent again."""
    log = Driven()
    for name in names:
        log.put(name)
    assert all(claimed(log, names))
    for name in names:
        mark = log.job(name).claim
        assert mark is not None
        log.settle(name, mark, AttemptStatus.FAILED)
    assert {BATCH} == {log.job(name).batch for name in names}
    return log


def members(log: Driven, batch: bytes = BATCH) -> list[str]:
    """The jobs of a batch; none where it is not kept."""
    row = log.machine.batch(batch)
    return [] if row is None else [each.job_id for each in row.members]


def test_frozen_are_the_jobs_that_are_as_they_were_seen() -> None:
    """In the order in which they were asked for."""
    log = Driven()
    for name in "abcd":
        log.put(name)
    log.claim("c")
    assert [True, True, False, True] == claimed(log, "dbca")
    row = log.machine.batch(BATCH)
    assert row is not None
    assert [BatchMember(name, UID, 1) for name in "dba"] == row.members


def test_what_does_not_fit_is_left_out() -> None:
    """From the first on that does not; one job is taken however large it is."""
    log = Driven()
    for name in "abcd":
        log.put(name)
    meta = len(b"null")
    assert [True, True, False, False] == claimed(log, "abcd", max_bytes=2 + 2 * (10 + meta))
    assert [True, False] == claimed(log, "cd", batch=b"c" * 16, max_bytes=1)


def test_a_job_that_is_taken_back_though_it_was_left_out_is_announced() -> None:
    """Its leader forgot it when it revoked the send (seed 163317062425864, S12)."""
    log = Driven()
    for name in "ab":
        log.put(name)
    assert [True, False] == claimed(log, "ab", max_bytes=1)
    log.machine.take_effects()
    for attempt, announced in ((2, []), (1, ["b"])):
        revoked = c.Revoked(UID, 1, attempt, log.term)
        log.apply(c.PatchJob(now_ms=3, job_id="b", if_match=9, revoked=revoked))
        effects = log.machine.take_effects()
        assert announced == [each.job_id for each in effects if isinstance(each, DueInserted)]


def test_a_batch_is_claimed_again_as_it_was_or_not_at_all() -> None:
    """Not in another order, not with one less or more, not by an old leader."""
    log = bound()
    log.put("d")
    for names in ("ab", "acb", "abcd", "abd"):
        assert not any(claimed(log, names, again=True))
    log.term = 2
    items = [c.ClaimItem(name, UID, 1, 2, 100) for name in "abc"]
    stale = c.ClaimBatch(now_ms=2, term=1, batch=BATCH, items=items, again=True)
    assert not any(result.holds for result in log.apply(stale)[0])
    assert [True] * 3 == claimed(log, "abc", again=True, max_bytes=1)
    assert list("abc") == members(log)


@pytest.mark.parametrize(
    "command",
    [
        c.DeleteJob(now_ms=5, job_id="b"),
        c.DeleteJob(now_ms=5, job_id="b", purge=True),
        c.PatchJob(now_ms=5, job_id="b", tags=("t",)),
        c.RunJob(now_ms=5, job_id="b"),
        c.Claim(now_ms=5, term=1, items=[c.ClaimItem("b", UID, 1, 2, 100)]),
        c.GiveUp(now_ms=5, items=[c.PendingItem("b", UID, 1, 1)], reason="gone", error="e"),
        c.Bulk(
            now_ms=5,
            task="t",
            kind=c.BULK_CANCEL,
            items=[c.BulkItem("b", UID, 1)],
            after=b"",
            cursor=b"1",
        ),
        c.Settle(
            now_ms=5, items=[c.SettleItem("b", UID, 1, 1, 1, c.VERDICT_DELIVERED, b"")]
        ),
    ],
    ids=lambda command: type(command).__name__,
)  # fmt: skip
def test_whatever_becomes_of_one_job_sets_the_others_free(command: Any) -> None:
    """And no claim of the batch holds any more."""
    log = bound()
    log.apply(command)
    assert [] == members(log)
    assert {b""} == {log.job(name).batch for name in "ac"}
    assert not any(claimed(log, "ac", again=True))
    assert [True, True] == claimed(log, "ac", batch=b"n" * 16)


def test_a_job_is_never_in_two_batches() -> None:
    """Claimed for another one it leaves the first, which is not sent again."""
    log = bound()
    log.put("d")
    assert [True, True] == claimed(log, "cd", batch=b"n" * 16)
    assert ([], list("cd")) == (members(log), members(log, b"n" * 16))


def test_a_job_that_is_claimed_apart_from_its_batch_is_not_announced() -> None:
    """Its leader has it already, and would claim it twice; the others are, with their new rows."""
    for claim in (
        lambda log: log.claim("a"),
        lambda log: claimed(log, "ab", batch=b"n" * 16),
    ):
        log = bound()
        log.machine.take_effects()
        claim(log)
        told = {
            each.job_id: batch_of_due(each.value)
            for each in log.machine.take_effects()
            if isinstance(each, DueInserted)
        }
        left = {name for name in "abc" if log.job(name).claim is None}
        assert dict.fromkeys(left, b"") == told
        rows = log.store.scan(log.keys.due, log.keys.due_stop, 10)
        assert [b""] * 3 == [batch_of_due(value) for _, value in rows]
        assert [] == members(log)


def test_a_job_of_a_waiting_index_that_is_set_free_is_read_again() -> None:
    """Whoever has read its row has one that is gone (named: it was never sent again)."""
    log = bound()
    log.apply(
        c.Wait(now_ms=5, items=[c.PendingItem(name, UID, 1, 1) for name in "abc"], held=False)
    )
    log.machine.take_effects()
    log.apply(c.DeleteJob(now_ms=6, job_id="b"))
    freed = [each for each in log.machine.take_effects() if isinstance(each, WaitingFreed)]
    assert [("a", b""), ("c", b"")] == [(each.job_id, batch_of_due(each.value)) for each in freed]


def test_of_those_whose_claims_are_open_it_is_told_that_their_batch_is_none() -> None:
    """No row of theirs changes: who waits for the whole batch would not hear of it."""
    log = bound()
    assert all(claimed(log, "abc", again=True))
    log.machine.take_effects()
    mark = log.job("b").claim
    assert mark is not None
    log.settle("b", mark, AttemptStatus.SUCCEEDED)
    told = [each for each in log.machine.take_effects() if isinstance(each, BatchDissolved)]
    assert [BatchDissolved(BATCH, ["a", "c"])] == told


def test_the_leader_of_a_batch_is_noted() -> None:
    """As that of any claim: attempts tell whose they were."""
    log = Driven()
    log.put("a")
    claimed(log, "a", node=7, since_ms=1)
    assert [(log.term, 7, 1)] == [
        (each.term, each.node, each.since_ms) for each in find_leaders(log.store, log.keys)
    ]


def test_waiting_and_being_held_changes_nothing() -> None:
    """A route that is paused and resumed sends the same batch."""
    log = bound()
    seen = [c.PendingItem(name, UID, 1, 1) for name in "abc"]
    log.apply(c.Wait(now_ms=5, items=seen, held=True))
    log.apply(c.Release(now_ms=6, items=seen))
    assert list("abc") == members(log)
    assert [True] * 3 == claimed(log, "abc", again=True)


def test_a_claim_that_is_taken_back_leaves_what_was_before() -> None:
    """Never sent: nothing is frozen. Sent before: it is as it was."""
    log = Driven()
    for name in "ab":
        log.put(name)
    claimed(log, "ab")
    log.apply(c.Unclaim(now_ms=3, items=[c.ClaimItem(name, UID, 1, 1, 0) for name in "ab"]))
    assert ([], b"") == (members(log), log.job("a").batch)
    log = bound("ab")
    claimed(log, "ab", again=True)
    log.apply(c.Unclaim(now_ms=3, items=[c.ClaimItem(name, UID, 1, 2, 0) for name in "ab"]))
    assert (list("ab"), BATCH) == (members(log), log.job("a").batch)
    claimed(log, "ab", again=True)
    log.put("b", 99)
    log.apply(c.Unclaim(now_ms=3, items=[c.ClaimItem(name, UID, 1, 2, 0) for name in "ab"]))
    assert ([], b"", JobState.RETRYING) == (members(log), log.job("a").batch, log.job("a").state)


def test_jobs_that_have_not_been_tried_equally_often_are_a_batch_no_more() -> None:
    """One was taken out before the request left, and its leader was lost (seed 49828981388966)."""
    log = bound("ab")
    claimed(log, "ab", again=True)
    log.apply(c.PatchJob(now_ms=3, job_id="b", if_match=9, revoked=c.Revoked(UID, 1, 2, log.term)))
    mark = log.job("a").claim
    assert mark is not None
    log.settle("a", mark, AttemptStatus.UNKNOWN)
    assert ([2, 1], list("ab")) == ([log.job(name).attempts for name in "ab"], members(log))
    assert [False, False] == claimed(log, "ab", again=True)
    assert ([], {b""}) == (members(log), {log.job(name).batch for name in "ab"})
    assert [True] == claimed(log, "a", batch=b"n" * 16)
    assert [True] == claimed(log, "b", batch=b"m" * 16)


def test_a_part_that_has_lost_a_job_is_not_frozen() -> None:
    """The other one is."""
    log = Driven()
    for name in "abcd":
        log.put(name)
    claimed(log, "abcd")
    log.put("d", 99)
    items = [c.SettleItem(name, UID, 1, 1, 1, c.VERDICT_RETRY, b"", 50) for name in "abcd"]
    parts = [(b"l" * 16, ["a", "b"]), (b"r" * 16, ["c", "d"])]
    split = c.Split(BATCH, "jobs", "job", parts)
    log.apply(c.Settle(now_ms=4, items=items, split=split))
    assert ([], ["a", "b"], []) == tuple(members(log, each) for each in (BATCH, *dict(parts)))
    assert b"" == log.job("c").batch
