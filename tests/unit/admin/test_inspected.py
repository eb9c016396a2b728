"""The way of a job, for people, as it looks on a terminal of 100 columns."""

from typing import Any

import pytest

from admin.causes import causes
from admin.inspected import Facts, late_ms, show, steps
from tests.unit.admin.test_tables import AT, look

JOB: dict[str, Any] = {
    "id": "order-7",
    "db": "default",
    "collection": "carts",
    "route": "hello",
    "state": "delivered",
    "reason": None,
    "version": 1,
    "vnode": 3,
    "trigger_time": AT,
    "created_time": AT - 60_000,
    "updated_time": AT - 60_000,
    "attempts": 1,
    "next_attempt_time": None,
}
SENT: dict[str, Any] = {
    "attempt": 1,
    "version": 1,
    "status": "succeeded",
    "trigger": "scheduled",
    "url": "https://x/\x1b[2J",
    "node": "e1",
    "term": 4,
    "claimed_time": AT - 15,
    "started_time": AT + 2,
    "ended_time": AT + 42,
    "duration_ms": 40.25,
    "phases_ms": {"resolve": 0.0, "connect": 0.0, "tls": 0.0, "first_byte": 18.0},
    "response_status": 200,
    "error_code": None,
    "error_message": None,
    "retry_after": None,
    "next_attempt_time": None,
}
FAILED: dict[str, Any] = {
    **SENT,
    "status": "failed",
    "response_status": None,
    "error_code": "refused",
    "error_message": "closed",
    "next_attempt_time": AT + 5_042,
}
ROUTE: dict[str, Any] = {
    "name": "hello",
    "state": "active",
    "updated_time": AT - 90_000,
    "max_in_flight": 64,
    "rate": {"count": None, "period_ms": 1_000},
}
STATS: dict[str, Any] = {"in_flight": 0, "waiting": 0}
VNODE: dict[str, Any] = {"index": 3, "leader": "e1", "term": 4, "due_backlog": 0}
NODE: dict[str, Any] = {"id": "e1", "name": "n1", "clock_offset_ms": -3}
NAMES = {"e1": "n1"}


def facts(*attempts: dict[str, Any], **changes: Any) -> Facts:
    """What nodes told; changes of the job, or of whole members of the facts."""
    whole: dict[str, Any] = {"route": ROUTE, "stats": STATS, "vnode": VNODE}
    whole.update((name, changes.pop(name)) for name in whole if name in changes)
    nodes = changes.pop("nodes", [NODE])
    return Facts(
        job={**JOB, **changes},
        attempts=attempts,
        cluster={"nodes": nodes},
        now_ms=AT + 60_000,
        **whole,
    )


def seen(told: Facts) -> str:
    """What people see."""
    return look(show(told, causes(told), NAMES), 140)


def test_a_job_in_time() -> None:
    """Each step with its distance; what a node said cannot steer the terminal."""
    assert seen(facts(SENT)) == (
        r"""
job order-7 of default/carts: delivered, version 1, vnode 3, led by n1 in term 4
first sent 2ms after its trigger time, delivered 42ms after it

time                      distance  step      attempt  node  term
2030-01-31T07:59:00Z                created
2030-01-31T07:59:59.985Z  +59.985s  claimed         1  n1       4
2030-01-31T08:00:00Z         +15ms  due
2030-01-31T08:00:00.002Z      +2ms  sent            1  n1       4  https://x/\x1b[2J
2030-01-31T08:00:00.042Z     +40ms  answered        1  n1       4  200, succeeded; first byte 18ms

It was sent in time.
"""
    )


def test_a_job_that_its_route_smeared() -> None:
    """It is late from the moment on that it was smeared to, and not late before."""
    told = facts({**SENT, "started_time": AT + 502, "ended_time": AT + 542}, smear_ms=500)
    assert 2 == late_ms(told)
    text = seen(told)
    assert "first sent 2ms after it was due, delivered 42ms after it" in text
    assert "smeared by 500ms" in text
    waiting = facts(state="scheduled", attempts=0, smear_ms=70_000, next_attempt_time=AT + 70_000)
    assert None is late_ms(waiting)
    assert "due in 10s" in seen(waiting)


def test_a_job_that_needed_a_retry() -> None:
    """The wait of the schedule is a step of its own, and the cause."""
    again = {
        **SENT,
        "attempt": 2,
        "trigger": "refused",
        "node": "e9",
        "term": 5,
        "claimed_time": AT + 5_040,
        "started_time": AT + 5_043,
        "ended_time": AT + 5_050,
        "phases_ms": {},
    }
    told = facts(FAILED, again, attempts=2)
    assert seen(told) == (
        r"""
job order-7 of default/carts: delivered, version 1, vnode 3, led by n1 in term 4
first sent 2ms after its trigger time, delivered 5s after it

time                      distance  step       attempt  node  term
2030-01-31T07:59:00Z                created
2030-01-31T07:59:59.985Z  +59.985s  claimed          1  n1       4
2030-01-31T08:00:00Z         +15ms  due
2030-01-31T08:00:00.002Z      +2ms  sent             1  n1       4  https://x/\x1b[2J
2030-01-31T08:00:00.042Z     +40ms  failed           1  n1       4  refused: closed
2030-01-31T08:00:05.040Z   +4.998s  claimed          2  e9       5
2030-01-31T08:00:05.042Z      +2ms  due again        2
2030-01-31T08:00:05.043Z      +1ms  sent             2  e9       5  https://x/\x1b[2J
2030-01-31T08:00:05.050Z      +7ms  answered         2  e9       5  200, succeeded

1 attempt failed, the last of them: closed.
After them it waited 5s by the retry schedule of its route.
"""
    )
    asked = facts({**FAILED, "retry_after": "5"}, again, attempts=2)
    assert causes(asked)[-1].endswith("its route and what the recipient asked for (Retry-After).")


def later(**changes: Any) -> dict[str, Any]:
    """An attempt that began a minute after its time."""
    times = {name: SENT[name] + 60_000 for name in ("claimed_time", "started_time", "ended_time")}
    return {**SENT, **times, **changes}


@pytest.mark.parametrize(
    ("told", "late", "expected"),
    [
        (
            facts(later(), created_time=AT + 59_900, updated_time=AT + 59_900),
            60_002,
            ["It was created 59s after its trigger time."],
        ),
        (
            facts(later(), updated_time=AT + 59_900, version=2),
            60_002,
            ["It was changed 59s after its trigger time."],
        ),
        (
            facts(later(), route={**ROUTE, "updated_time": AT + 59_000}),
            60_002,
            [
                "It was due for 59s before it was claimed.",
                (
                    "Its route `hello` was created, changed or paused at 2030-01-31T08:00:59Z,"
                    " between the two: until then it may have been paused or disabled, or absent."
                ),
            ],
        ),
        (
            facts(later(), route={**ROUTE, "rate": {"count": 5, "period_ms": 1_000}}),
            60_002,
            [
                "It was due for 59s before it was claimed.",
                (
                    "What it waited for is not kept: a leader of its vnode, its route that was"
                    " paused or full (max_in_flight 64, 5 attempts in 1s), or jobs that were due"
                    " before it."
                ),
            ],
        ),
        (
            facts({**SENT, "started_time": AT + 200, "ended_time": AT + 240}),
            200,
            ["Attempt 1 was sent 200ms after its claim: its node was busy."],
        ),
        (
            facts({**SENT, "ended_time": AT + 9_002, "duration_ms": 9_000.0}),
            2,
            [
                "The recipient took 9s for attempt 1 (first byte 18ms).",
            ],
        ),
        (
            facts({**SENT, "status": "unknown", "response_status": None}),
            2,
            [
                (
                    "Attempt 1 was open when its node stopped: its outcome is unknown, and"
                    " another leader found that only later."
                ),
            ],
        ),
        (
            facts({**SENT, "trigger": "manual"}),
            None,
            ["Attempt 1 was asked for (manual), whenever it was due."],
        ),
        (
            facts(SENT, nodes=[{**NODE, "clock_offset_ms": -250}]),
            2,
            [
                (
                    "The clock of node n1 is 250ms off that of the node that was asked: its times"
                    " are by its own."
                ),
            ],
        ),
    ],
)
def test_why_a_job_was_late(told: Facts, late: int | None, expected: list[str]) -> None:
    """What can be told is told; what is not kept is said not to be."""
    assert late == late_ms(told)
    causes_told = causes(told)
    assert expected == causes_told


WAITING: dict[str, Any] = {"state": "scheduled", "attempts": 0, "next_attempt_time": AT}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Nothing that is kept tells why."),
        ({"route": None, "stats": None}, "There is no route `hello` now."),
        (
            {"route": {**ROUTE, "state": "paused"}},
            "Its route `hello` is paused: its jobs wait until that ends.",
        ),
        (
            {"state": "held"},
            (
                "It is held though its route is open: so are jobs that were past due when they"
                " were restored, until `timemachine admin past-due` decides on them."
            ),
        ),
        (
            {"vnode": {**VNODE, "leader": None}},
            "Vnode 3 has no leader: its jobs wait until it has one.",
        ),
        (
            {"stats": {"in_flight": 64, "waiting": 9}},
            (
                "Its route has 64 requests under way, of max_in_flight 64: the recipient is slow,"
                " or the limit low."
            ),
        ),
        (
            {
                "stats": {"in_flight": 1, "waiting": 9},
                "route": {**ROUTE, "rate": {"count": 5, "period_ms": 1_000}},
            },
            "9 due jobs wait for its route (max_in_flight 64, 5 attempts in 1s).",
        ),
        ({"vnode": {**VNODE, "due_backlog": 7}}, "7 due jobs of its vnode wait."),
    ],
)
def test_why_a_job_is_late(changes: dict[str, Any], expected: str) -> None:
    """Of one that is due and was not sent: what its route, its vnode and its leader are now."""
    told = facts(**{**WAITING, **changes})
    assert 60_000 == late_ms(told)
    assert [expected] == causes(told)
    assert "\ndue 1m ago, and not sent yet\n" in seen(told)


def test_a_job_that_is_not_due() -> None:
    """It is not late, and nothing has to be explained."""
    told = facts(**{**WAITING, "trigger_time": AT + 120_000, "next_attempt_time": AT + 120_000})
    assert late_ms(told) is None
    assert "\ndue in 1m\n" in seen(told)
    assert "\nNothing that would have to be explained.\n" in seen(told)


def test_a_job_that_was_cancelled() -> None:
    """Its last change is its end, and it never was due."""
    told = facts(state="cancelled", updated_time=AT - 30_000, attempts=0)
    assert ["created", "cancelled"] == [each.step for each in steps(told)]
    assert "\nnever sent\n" in seen(told)
