"""Attempts over changes of leader: what is settled late, twice, or by another leader's node."""

import msgspec
import pytest

from tests.unit.replica.machines import UID, Driven
from timemachine import codec, limits
from timemachine.model import AttemptRecord, AttemptStatus, ClaimMark, JobState
from timemachine.replica import commands as c
from timemachine.replica.records import find_leaders, read_attempt, read_job, whole
from timemachine.storage.keys import u32

SUCCEEDED, FAILED, UNKNOWN = AttemptStatus


def _orphaned() -> tuple[Driven, ClaimMark]:
    """A job whose first attempt the leader of term 2 has given up as unknown."""
    log = Driven()
    log.put("a")
    first = log.claim("a")
    log.term = 2
    log.settle("a", first, UNKNOWN)
    assert JobState.RETRYING == log.job("a").state
    return log, first


def test_a_late_success_completes_a_job_whose_retry_was_not_claimed() -> None:
    """Whatever the term: it is the attempt that counts."""
    log, first = _orphaned()
    log.settle("a", first, SUCCEEDED)
    assert JobState.DELIVERED == log.job("a").state
    assert "succeeded" == log.status("a", 1)
    assert 1 == log.listed(), "an attempt is listed once with its route"


@pytest.mark.parametrize("second", [FAILED, UNKNOWN, SUCCEEDED])
def test_the_attempt_after_a_late_success_is_the_last(second: AttemptStatus) -> None:
    """It was under way when the success of the one before became known; nothing follows it."""
    log, first = _orphaned()
    mark = log.claim("a")
    log.settle("a", first, SUCCEEDED)
    assert JobState.FIRING == log.job("a").state
    log.settle("a", mark, second)
    assert JobState.DELIVERED == log.job("a").state
    assert second.value == log.status("a", 2)


def test_a_claim_taken_back_after_a_late_success_is_not_made_again() -> None:
    """The job has been delivered, by the attempt before."""
    log, first = _orphaned()
    mark = log.claim("a")
    log.settle("a", first, SUCCEEDED)
    log.apply(c.Unclaim(now_ms=5, items=[c.ClaimItem("a", UID, 1, mark.attempt, 0)]))
    assert JobState.DELIVERED == log.job("a").state


@pytest.mark.parametrize(("term", "outcome"), [(1, "cancelled"), (2, "in_flight")])
def test_the_claim_of_a_leader_before_is_not_taken_back(term: int, outcome: str) -> None:
    """What this leader removed is a claim that did not hold; the other one may have been sent.

    (Named: a delete while a new leader asked for an attempt that the one before had sent answered
    `cancelled`, and the same attempt was sent again.)
    """
    log = Driven()
    log.put("a")
    assert 1 == log.claim("a").term
    log.term = 2
    revoked = c.Revoked(UID, 1, 1, term)
    (result,) = log.apply(c.DeleteJob(now_ms=5, job_id="a", revoked=revoked))
    assert outcome == result.outcome
    item = c.ClaimItem("a", UID, 1, 1, 0)
    log.apply(c.Unclaim(now_ms=5, items=[item], term=2))
    assert (JobState.CANCELLED if term == 1 else JobState.FIRING) == log.job("a").state


def test_a_late_failure_corrects_the_record_and_nothing_else() -> None:
    """The retry that unknown led to goes its own way."""
    log, first = _orphaned()
    before = log.job("a")
    log.settle("a", first, FAILED)
    assert before == log.job("a")
    assert "failed" == log.status("a", 1)
    assert 1 == log.listed()


def test_what_is_known_of_an_attempt_is_not_given_up_as_unknown() -> None:
    """Its outcome overtook the new leader, which had found the claim open."""
    log = Driven()
    log.put("a")
    first = log.claim("a")
    log.settle("a", first, FAILED)
    log.term = 2
    before = log.job("a")
    log.settle("a", first, UNKNOWN)
    assert before == log.job("a")
    assert "failed" == log.status("a", 1)
    assert 1 == log.listed()


def test_an_outcome_told_twice_does_not_end_a_redriven_job() -> None:
    """Forwarded once more after the job was delivered, and a human asked for another delivery."""
    log = Driven()
    log.put("a")
    first = log.claim("a")
    log.settle("a", first, SUCCEEDED)
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1, force=True))
    log.settle("a", first, SUCCEEDED)
    assert JobState.SCHEDULED == log.job("a").state


def test_a_late_settle_never_touches_another_version() -> None:
    """Neither one that waits nor one that is under way."""
    log, first = _orphaned()
    log.put("a", 20)
    before = log.job("a")
    log.settle("a", first, SUCCEEDED)
    assert before == log.job("a")
    mark = log.claim("a")
    assert mark.attempt == first.attempt
    before = log.job("a")
    log.settle("a", first, SUCCEEDED)
    assert before == log.job("a")


def test_handover_marks_the_claim_and_nothing_else() -> None:
    """The next leader reads of it until when to wait; indexes and delivery learn nothing."""
    log = Driven()
    log.put("a")
    mark = log.claim("a")
    log.machine.take_effects()
    before = log.store.image()
    log.hand_over("a", mark, 777)
    claim = log.job("a").claim
    assert claim is not None
    assert (True, 777) == (claim.handed_over, claim.deadline_ms)
    assert [] == log.machine.take_effects()
    changed = {key for key, row in log.store.image().items() if before.get(key) != row}
    assert {log.keys.job + b"a", log.keys.state} == changed
    log.term = 2
    log.settle("a", mark, SUCCEEDED)
    assert JobState.DELIVERED == log.job("a").state


def test_handover_of_what_is_not_open_changes_nothing() -> None:
    """Another attempt, another version, a job that is settled, or gone."""
    log = Driven()
    log.put("a")
    mark = log.claim("a")
    before = log.job("a")
    for uid, version, attempt in [(b"x" * 16, 1, 1), (UID, 2, 1), (UID, 1, 2)]:
        item = c.ClaimItem("a", uid, version, attempt, 777)
        log.apply(c.Handover(now_ms=3, items=[item, c.ClaimItem("b", UID, 1, 1, 777)]))
        assert before == log.job("a")
    log.settle("a", mark, SUCCEEDED)
    before = log.job("a")
    log.hand_over("a", mark, 777)
    assert before == log.job("a")


def test_claims_of_before_are_read() -> None:
    """A job that was stored while a claim had none of its three last fields, byte for byte."""
    log = Driven()
    log.put("a")
    log.claim("a")
    now = log.job("a")
    claim = now.claim
    assert claim is not None
    assert (False, False, b"") == (claim.handed_over, claim.delivered, claim.batch)
    fields = list(msgspec.to_builtins(claim))
    assert [1, 2, 1, 1, 2, 100, 0, False, False, ""] == fields
    assert bytes.fromhex("9a01020101026400c2c2c400") in codec.encode(now)
    stored = codec.encode(now).replace(
        bytes.fromhex("9a01020101026400c2c2c400"), bytes.fromhex("9701020101026400")
    )
    assert now == read_job(stored)


def _delivered(body: bytes) -> tuple[Driven, bytes]:
    """A job whose recipient has answered so; the row that its attempt has when it has one."""
    log = Driven()
    log.put("a")
    mark = log.claim("a")
    record = AttemptRecord(
        attempt=1,
        version=1,
        status=SUCCEEDED.value,
        node="n",
        term=1,
        fence=mark.index,
        url="http://hook.example/",
        claimed_ms=2,
        started_ms=2,
        ended_ms=3,
        response_body=body,
        response_headers=(("retry-after", "7"),),
        retry_after="7",
    )
    item = c.SettleItem("a", UID, 1, 1, 1, c.VERDICT_DELIVERED, codec.encode(record), 0)
    log.apply(c.Settle(now_ms=4, items=[item]))
    assert JobState.DELIVERED == log.job("a").state
    return log, log.keys.attempts + b"a\0" + u32(1)


def test_the_attempt_that_delivers_stands_in_the_row_of_its_job() -> None:
    """Until another one follows: then it gets a row of its own, with what the job's row had."""
    log, row = _delivered(b"welcome")
    kept = read_attempt(log.job("a").delivering)
    assert (b"welcome", None) == (kept.response_body, log.store.get(row))
    attempt = codec.encode(
        msgspec.structs.replace(
            kept, uid=UID, trigger_ms=10, route="r", due_ms=10, settled_ms=4, settled_term=1
        )
    )
    assert attempt == codec.encode(whole(log.job("a"), kept))
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1, force=True))
    assert (b"", attempt) == (log.job("a").delivering, log.store.get(row))
    log.settle("a", log.claim("a"), SUCCEEDED)
    assert ("succeeded", attempt) == (log.status("a", 2), log.store.get(row))
    assert 2 == log.listed()
    log.apply(c.DeleteJob(now_ms=6, job_id="a", purge=True))
    assert [] == log.store.scan(*log.keys.attempts_range(b"a"))


def test_another_life_keeps_the_attempt_that_delivered() -> None:
    """A replaced job numbers its attempts on."""
    log, row = _delivered(b"welcome")
    attempt = codec.encode(whole(log.job("a"), read_attempt(log.job("a").delivering)))
    log.put("a", 20)
    assert (b"", attempt) == (log.job("a").delivering, log.store.get(row))
    assert 2 == log.claim("a").serial


def test_a_long_answer_is_kept_beside_the_job() -> None:
    """Lists of jobs read their rows."""
    log, row = _delivered(b"x" * 512)
    assert (b"", "succeeded") == (log.job("a").delivering, log.status("a", 1))
    assert log.store.get(row) is not None


def test_what_was_answered_is_forgotten_wherever_it_stands() -> None:
    """And nothing else of the job is."""
    for body in (b"welcome", b"x" * 512):
        log, _ = _delivered(body)
        before = log.job("a")
        (result,) = log.apply(c.ForgetContent(now_ms=5, job_id="a", attempt=1))
        assert "changed" == result.kind
        attempt = log.machine.read_attempt(b"a", log.job("a"), 1)
        assert attempt is not None
        emptied = read_attempt(attempt)
        assert (b"", (), None, True) == (
            emptied.response_body,
            emptied.response_headers,
            emptied.retry_after,
            emptied.content_removed,
        )
        after = log.job("a")
        assert before == msgspec.structs.replace(after, delivering=before.delivering)


def test_an_answer_that_is_kept_for_repeats_is_without_what_a_recipient_answered() -> None:
    """Nobody could have it forgotten there; a repeat is answered as before but for that."""
    log, _ = _delivered(b"welcome")
    request = c.Request(b"k" * 16, b"f" * 16)
    redrive = c.RedriveJob(now_ms=5, job_id="a", route_uid=1, request=request)
    (first,) = log.apply(redrive)
    assert "job_delivered" == first.code
    log.apply(c.ForgetContent(now_ms=5, job_id="a", attempt=1))
    assert [] == [key for key, row in log.store.scan(b"", b"\xff", 999) if b"welcome" in row]
    (again,) = log.apply(redrive)
    assert msgspec.structs.replace(first.record, delivering=b"") == again.record


def test_a_delivery_that_is_told_twice_changes_nothing() -> None:
    """The first telling counts, wherever the attempt stands."""
    for body in (b"welcome", b"x" * 512):
        log, _ = _delivered(body)
        before = log.job("a")
        mark = ClaimMark(1, before.born_index + 1, 1, 1, 2, 100, 0)
        log.settle("a", mark, FAILED)
        assert (before, 1) == (log.job("a"), log.listed())
        assert "succeeded" == log.status("a", 1)


def test_who_led_when_it_claimed_is_kept() -> None:
    """A row for each leader, and for one that began anew; none for each claim; the last ones."""
    log = Driven()
    spans = []
    for number in range(limits.LEADERS_PER_VNODE_KEPT + 3):
        log.term = 1 + number // 2
        log.put(f"j{number}")
        item = c.ClaimItem(f"j{number}", UID, 1, 1, 100)
        spans.append((log.term, 7, number))
        for _ in range(2):
            log.apply(c.Claim(log.term, [item], 7, number, now_ms=2))
    kept = find_leaders(log.store, log.keys)
    assert spans[3:] == [(each.term, each.node, each.since_ms) for each in kept]


def test_what_is_settled_late_says_when_and_by_whom() -> None:
    """Under another version the trigger time and the route of its own are not known any more."""
    log = Driven()
    log.put("a")
    mark = log.claim("a")
    log.put("a", 20)
    log.term = 3
    log.settle("a", mark, SUCCEEDED)
    data = log.machine.read_attempt(b"a", log.job("a"), mark.serial)
    assert data is not None
    late = read_attempt(data)
    assert (UID, None, "", 0, 4, 3) == (
        late.uid,
        late.trigger_ms,
        late.route,
        late.due_ms,
        late.settled_ms,
        late.settled_term,
    )


def test_a_delivery_that_another_leader_commits_stands_beside_the_job() -> None:
    """For the job's row says nothing of the term of the settle."""
    log = Driven()
    log.put("a")
    mark = log.claim("a")
    log.hand_over("a", mark, 100)
    log.term = 2
    log.settle("a", mark, SUCCEEDED)
    job = log.job("a")
    assert (JobState.DELIVERED, b"") == (job.state, job.delivering)
    data = log.machine.read_attempt(b"a", job, mark.serial)
    assert data is not None
    attempt = read_attempt(data)
    assert (1, 2, 10, "r") == (
        attempt.term,
        attempt.settled_term,
        attempt.due_ms,
        attempt.route,
    )
