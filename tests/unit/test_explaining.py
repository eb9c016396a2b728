"""Why a job was late: what happened, and where the time went."""

from typing import Any

import msgspec
import pytest

from timemachine.explaining import Explanation, Facts, Phase, duration, explain
from timemachine.model import (
    AttemptRecord,
    ClaimMark,
    HeldUp,
    JobRecord,
    JobState,
    Leadership,
    Order,
    Queue,
)

AT = 1_700_000_000_000
JOB = JobRecord(
    uid=b"u" * 16,
    version=1,
    state=int(JobState.DELIVERED),
    trigger_ms=AT,
    delay_ms=None,
    route="hello",
    route_uid=1,
    tags=(),
    created_ms=AT - 60_000,
    updated_ms=AT - 60_000,
    due_ms=0,
    queue=0,
    attempts=1,
    accepted_term=3,
)
SENT = AttemptRecord(
    attempt=1,
    version=1,
    status="succeeded",
    node="e1",
    term=4,
    fence=9,
    url="https://x/",
    claimed_ms=AT - 15,
    started_ms=AT + 2,
    ended_ms=AT + 42,
    total_ms=40.0,
    connect_ms=10.0,
    first_byte_ms=25.0,
    response_status=200,
    uid=b"u" * 16,
    trigger_ms=AT,
    route="hello",
    due_ms=AT,
    settled_ms=AT + 43,
    settled_term=4,
)
FAILED = msgspec.structs.replace(
    SENT,
    status="failed",
    response_status=None,
    error_code="timeout",
    error_message="No answer in time.",
    error_phase="headers",
    connect_ms=0.0,
    first_byte_ms=0.0,
)
LEADERS = (Leadership(3, 1, AT - 90_000), Leadership(4, 2, AT - 30_000))
_replace = msgspec.structs.replace


def told(*attempts: AttemptRecord, closed: str | None = None, **changes: Any) -> Explanation:
    """What is told of the job with these changes, two minutes after its time."""
    leaders = changes.pop("leaders", LEADERS)
    now_ms = changes.pop("now_ms", AT + 120_000)
    return explain(Facts(_replace(JOB, **changes), attempts, leaders, closed, now_ms))


def later(ms: int, of: AttemptRecord = SENT, /, **changes: Any) -> AttemptRecord:
    """An attempt that was claimed, and all that followed, so much later."""
    names = "claimed_ms", "started_ms", "ended_ms", "settled_ms"
    return _replace(of, **{name: getattr(of, name) + ms for name in names} | changes)


def pending(**changes: Any) -> dict[str, Any]:
    """Changes that make a job of it that was never attempted."""
    return {"state": int(JobState.SCHEDULED), "attempts": 0, "due_ms": AT, "queue": 1, **changes}


def phases(explanation: Explanation) -> list[tuple[str, float, str | None]]:
    """Where time went, without the when."""
    return [(each.phase, each.duration_ms, each.reason) for each in explanation.phases]


def test_a_job_in_time() -> None:
    """What happened in the order of time, by whom in which term; each phase from its moment on."""
    explanation = told(SENT)
    assert ("Delivered 42 ms after its trigger time: in time.", 2) == (
        explanation.sentence,
        explanation.late_ms,
    )
    assert [
        ("accepted", -60_000, None, 3, 1, None),
        ("claimed", -15, 1, 4, "e1", None),
        ("due", 0, None, None, None, None),
        ("sent", 2, 1, 4, "e1", "https://x/"),
        ("answered", 42, 1, 4, "e1", "200, succeeded"),
        ("settled", 43, 1, 4, "e1", None),
    ] == [
        (each.step, each.time_ms - AT, each.attempt, each.term, each.node, each.detail)
        for each in explanation.steps
    ]
    assert [
        Phase("claim", 1, AT, 2),
        Phase("connect", 1, AT + 2, 10.0),
        Phase("answer", 1, AT + 12, 25.0),
        Phase("body", 1, AT + 37, 5.0),
        Phase("settle", 1, AT + 42, 1.0),
    ] == explanation.phases


def test_phases_leave_nothing_out() -> None:
    """From the trigger time to the settle of the last attempt each moment is in one phase."""
    failed = _replace(FAILED, ended_ms=AT + 42, next_attempt_ms=AT + 5_043)
    again = later(5_043, due_ms=AT + 5_043, attempt=2, trigger="timeout", held_up=HeldUp.RATE)
    explanation = told(failed, later(1_000, again), attempts=2)
    at_ms: float = AT
    for each in explanation.phases:
        assert int(at_ms) == each.from_ms
        at_ms += each.duration_ms
    assert AT + 6_086 == at_ms
    assert [("answer", 40.0, None), ("settle", 1.0, None), ("retry", 5_000, "timeout")] == (
        phases(explanation)[1:4]
    )
    assert ("wait", 985, "rate") == phases(explanation)[4]


@pytest.mark.parametrize(
    ("attempts", "changes", "sentence"),
    [
        (
            [later(60_000)],
            {"created_ms": AT + 59_900, "updated_ms": AT + 59_900},
            (
                "Delivered 1 min after its trigger time; 59.9 s of it passed before this version"
                " was created."
            ),
        ),
        (
            [later(60_000)],
            {"leaders": (Leadership(4, 2, AT + 58_000),)},
            (
                "Delivered 1 min after its trigger time; 58 s of it passed while no leader fired"
                " for its vnode."
            ),
        ),
        (
            [later(60_000, held_up=int(HeldUp.IN_FLIGHT))],
            {},
            (
                "Delivered 1 min after its trigger time; 59.98 s of it passed while its route had"
                " as many attempts in flight as it may."
            ),
        ),
        (
            [later(60_000, held_up=int(HeldUp.BATCH))],
            {},
            (
                "Delivered 1 min after its trigger time; 59.98 s of it passed while its batch"
                " waited for other jobs."
            ),
        ),
        (
            [later(7_200_000, held_up=int(HeldUp.ROUTE))],
            {},
            (
                "Delivered 2 h after its trigger time; 1 h 59 min of it passed while its route was"
                " paused, disabled, failing or far behind."
            ),
        ),
        (
            [later(60_000)],
            {},
            (
                "Delivered 1 min after its trigger time; 59.98 s of it passed while it waited for"
                " its turn."
            ),
        ),
        (
            [_replace(SENT, started_ms=AT + 900, ended_ms=AT + 940, settled_ms=AT + 941)],
            {},
            (
                "Delivered 940 ms after its trigger time; 900 ms of it passed until its claim was"
                " committed and it was sent."
            ),
        ),
        (
            [_replace(SENT, ended_ms=AT + 9_002, total_ms=9_000.0, first_byte_ms=8_000.0)],
            {},
            "Delivered 9 s after its trigger time; 8 s of it passed until the recipient answered.",
        ),
        (
            [
                _replace(SENT, status="unknown", ended_ms=AT + 3_000, settled_ms=AT + 3_000),
                later(3_020, attempt=2, trigger="unknown", due_ms=AT + 3_000, term=5),
            ],
            {},
            (
                "Delivered 3.06 s after its trigger time; 3 s of it passed until an attempt was"
                " given up whose leader was lost."
            ),
        ),
        (
            [FAILED, later(5_000, attempt=2, trigger="timeout", due_ms=AT + 5_000)],
            {},
            (
                "Delivered 5.04 s after its trigger time; 4.96 s of it passed until the next"
                " attempt was due, since one had failed (timeout)."
            ),
        ),
        (
            [SENT, later(90_000_000, attempt=2, trigger="redrive", due_ms=AT + 90_000_000)],
            {},
            (
                "Delivered 1 d 1 h after its trigger time; 1 d of it passed after it had ended,"
                " until somebody had it sent again."
            ),
        ),
        (
            [FAILED],
            {"state": int(JobState.DEAD), "reason": "exhausted", "finished_ms": AT + 43},
            (
                "Given up (exhausted) 43 ms after its trigger time; 40 ms of it passed until the"
                " recipient answered."
            ),
        ),
        (
            [],
            {"state": int(JobState.CANCELLED), "finished_ms": AT - 5, "outcome": "cancelled"},
            "It was cancelled before it was sent.",
        ),
        ([], pending(now_ms=AT - 90_000), "It is due in 1 min 30 s."),
        (
            [],
            pending(closed="paused"),
            (
                "Not delivered 2 min after its trigger time; 2 min of it passed while its route was"
                " paused, disabled, failing or far behind."
            ),
        ),
        (
            # For its route's breaker, say.
            [],
            pending(queue=int(Queue.WAITING)),
            (
                "Not delivered 2 min after its trigger time; 2 min of it passed while its route was"
                " paused, disabled, failing or far behind."
            ),
        ),
        (
            [],
            pending(closed="missing"),
            (
                "Not delivered 2 min after its trigger time; 2 min of it passed while there was no"
                " such route."
            ),
        ),
        (
            [],
            pending(state=int(JobState.HELD), queue=int(Queue.PARKED)),
            (
                "Not delivered 2 min after its trigger time; 2 min of it passed while it was held"
                " by a restore."
            ),
        ),
        (
            [FAILED],
            pending(state=int(JobState.RETRYING), attempts=1, due_ms=AT + 300_000),
            (
                "Not delivered 2 min after its trigger time, attempt 2 is due in 3 min; 1 min 59 s"
                " of it passed until the next attempt was due, since one had failed."
            ),
        ),
        (
            [],
            pending(
                state=int(JobState.FIRING),
                attempts=1,
                claim=ClaimMark(4, 9, 1, 1, AT + 100_000, AT + 200_000, 0),
            ),
            (
                "Attempt 1 is open 2 min after its trigger time; 1 min 40 s of it passed while it"
                " waited for its turn."
            ),
        ),
    ],
)
def test_one_sentence_says_where_most_of_the_time_went(
    attempts: list[AttemptRecord], changes: dict[str, Any], sentence: str
) -> None:
    """Whatever it was."""
    assert sentence == told(*attempts, **changes).sentence


def test_an_open_claim_is_a_step() -> None:
    """By whom it is; also one that was handed over."""
    mark = ClaimMark(4, 9, 1, 1, AT + 1, AT + 200_000, 0, handed_over=True)
    explanation = told(**pending(state=int(JobState.FIRING), attempts=1, claim=mark))
    last = explanation.steps[-1]
    assert ("claimed", 4, 2, "handed over by a leader") == (
        last.step,
        last.term,
        last.node,
        last.detail,
    )


def test_claims_name_the_batch_that_a_job_went_in() -> None:
    """By the id that its recipient sees; so do an open claim and what is due again."""
    batch, name = b"b" * 16, "MJRGEYTCMJRGEYTCMJRGEYTCMI"
    told_of = {
        each.step: each.detail for each in told(_replace(SENT, batch=batch, batch_size=3)).steps
    }
    assert (f"in batch {name} of 3", "https://x/") == (told_of["claimed"], told_of["sent"])
    mark = ClaimMark(4, 9, 1, 1, AT + 1, AT + 200_000, 0, handed_over=True, batch=batch)
    opened = told(**pending(state=int(JobState.FIRING), attempts=1, claim=mark))
    assert f"in batch {name}, handed over by a leader" == opened.steps[-1].detail
    again = pending(state=int(JobState.RETRYING), attempts=1, batch=batch, retry_reason="timeout")
    last = told(FAILED, **{**again, "due_ms": AT + 300_000}).steps[-1]
    assert ("due", f"timeout, in batch {name}") == (last.step, last.detail)


def test_who_settled_what_another_had_sent() -> None:
    """The leader of the term of the settle; nobody where that is not known any more."""
    for term, node in ((3, 1), (9, None)):
        last = told(_replace(SENT, settled_term=term)).steps[-1]
        assert ("settled", term, node) == (last.step, last.term, last.node)


def test_lateness_is_that_of_the_first_attempt() -> None:
    """Not of one that somebody asked for, nor of what is not due."""
    assert 5_002 == told(later(5_000)).late_ms
    assert told(_replace(SENT, trigger="manual")).late_ms is None
    assert 120_000 == told(**pending()).late_ms
    assert told(**pending(now_ms=AT - 1)).late_ms is None
    assert told(state=int(JobState.CANCELLED), outcome="cancelled").late_ms is None


def test_durations() -> None:
    """In their two largest units."""
    assert ["0 ms", "999 ms", "1 s", "59.99 s", "1 min", "1 h 1 min", "2 d"] == [
        duration(ms) for ms in (0, 999, 1_000, 59_990, 60_000, 3_660_000, 172_800_000)
    ]


def test_a_job_that_waits_for_its_turn() -> None:
    """It is said for which one of its ordering key, and when it had its turn that it waited."""
    waiting = msgspec.structs.replace(
        JOB,
        state=int(JobState.SCHEDULED),
        queue=int(Queue.BEHIND),
        due_ms=AT,
        attempts=0,
        order=Order("cart", 4),
    )
    told = explain(Facts(waiting, [], [], None, AT + 5_000, "first"))
    assert ("behind", "job first") == (told.steps[-1].step, told.steps[-1].detail)
    assert told.sentence == (
        "Not delivered 5 s after its trigger time; 5 s of it passed while an earlier job of its"
        " ordering key had not ended."
    )
    turn_ms = AT + 5_000
    sent = msgspec.structs.replace(
        SENT,
        due_ms=turn_ms,
        claimed_ms=turn_ms,
        started_ms=turn_ms,
        ended_ms=turn_ms + 40,
        settled_ms=turn_ms + 41,
    )
    done = msgspec.structs.replace(JOB, order=Order("cart", 4, turn_ms, "first"))
    told = explain(Facts(done, [sent], [], None, AT + 9_000))
    assert Phase("wait", 1, AT, 5_000, "order") == told.phases[0]
    assert ("due", turn_ms, "after job first") in [
        (each.step, each.time_ms, each.detail) for each in told.steps
    ]
    assert "an earlier job of its ordering key had not ended" in told.sentence
