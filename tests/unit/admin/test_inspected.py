"""The way of a job, for people, as it looks on a terminal of 140 columns."""

from typing import Any

import pytest

from admin.causes import causes
from admin.inspected import Facts, show
from tests.unit.admin.test_tables import AT, look


def step(name: str, ms: int, attempt: int | None = None, **more: Any) -> dict[str, Any]:
    """Something that happened so long after the trigger time."""
    by = {"node": "e1", "term": 4} if attempt is not None else {"node": None, "term": None}
    return {"step": name, "time": AT + ms, "attempt": attempt, "detail": None, **by, **more}


def phase(name: str, took_ms: float, reason: str | None = None) -> dict[str, Any]:
    """Where some time went."""
    return {"phase": name, "attempt": 1, "from_time": AT, "duration_ms": took_ms, "reason": reason}


IN_TIME: dict[str, Any] = {
    "sentence": "Delivered 42 ms after its trigger time: in time.",
    "late_ms": 2,
    "steps": [
        step("accepted", -60_000, node="e9", term=3),
        step("claimed", -15, 1),
        step("due", 0),
        step("sent", 2, 1, detail="https://x/\x1b[2J"),
        step("answered", 42, 1, detail="200, succeeded"),
        step("settled", 44, 1),
    ],
    "phases": [phase("claim", 2), phase("answer", 18.25), phase("settle", 2)],
}
JOB: dict[str, Any] = {
    "id": "order-7",
    "db": "default",
    "collection": "carts",
    "route": "hello",
    "state": "delivered",
    "reason": None,
    "version": 1,
    "vnode": 3,
    "attempts": 1,
    "next_attempt_time": None,
    "explanation": IN_TIME,
}
ROUTE: dict[str, Any] = {
    "name": "hello",
    "state": "open",
    "max_in_flight": 64,
    "rate": {"count": None, "period_ms": 1_000},
}
STATS: dict[str, Any] = {"in_flight": 0, "waiting": 0}
VNODE: dict[str, Any] = {"index": 3, "leader": "e1", "term": 4, "due_backlog": 0}
NODE: dict[str, Any] = {"id": "e1", "name": "n1", "clock_offset_ms": -3}
NAMES = {"e1": "n1"}


def facts(**changes: Any) -> Facts:
    """What nodes told; changes of the job, or of whole members of the facts."""
    whole: dict[str, Any] = {"route": ROUTE, "stats": STATS, "vnode": VNODE, "earlier": 0}
    whole.update((name, changes.pop(name)) for name in [*whole] if name in changes)
    nodes = changes.pop("nodes", [NODE])
    return Facts(job={**JOB, **changes}, cluster={"nodes": nodes}, now_ms=AT + 60_000, **whole)


def seen(told: Facts) -> str:
    """What people see."""
    return look(show(told, causes(told), NAMES), 140)


def test_a_job_in_time() -> None:
    """Each step with its distance; what a node said cannot steer the terminal."""
    assert seen(facts()) == (
        r"""
job order-7 of default/carts: delivered, version 1, vnode 3, led by n1 in term 4
Delivered 42 ms after its trigger time: in time.

time                      distance  step      attempt  node  term
2030-01-31T07:59:00Z                accepted           e9       3
2030-01-31T07:59:59.985Z  +59.985s  claimed         1  n1       4
2030-01-31T08:00:00Z         +15ms  due
2030-01-31T08:00:00.002Z      +2ms  sent            1  n1       4  https://x/\x1b[2J
2030-01-31T08:00:00.042Z     +40ms  answered        1  n1       4  200, succeeded
2030-01-31T08:00:00.044Z      +2ms  settled         1  n1       4

phase   attempt    took  because
claim         1     2ms
answer        1  18.2ms
settle        1     2ms
"""
    )


def test_a_job_that_was_late() -> None:
    """Where the time went stands first; then what happened, what took how long, and why."""
    late = {
        "sentence": "Delivered 59 s after its trigger time; 58 s of it passed while ...",
        "late_ms": 58_000,
        "steps": [
            step("accepted", -60_000, node="e9", term=3),
            step("due", 0),
            step("claimed", 1_000, 1, node="e9", term=3),
            step("given up", 5_000, 1, node="e9", term=3, detail="The node stopped."),
            step("settled", 5_000, 1),
            step("claimed", 58_000, 2),
        ],
        "phases": [
            phase("leader", 1_000),
            phase("lost", 4_000),
            phase("wait", 53_000, "in_flight"),
        ],
    }
    assert seen(facts(explanation=late, earlier=2, version=3, vnode=None)) == (
        """
job order-7 of default/carts: delivered, version 3, vnode 3
Delivered 59 s after its trigger time; 58 s of it passed while ...

time                  distance  step      attempt  node  term
2030-01-31T07:59:00Z            accepted           e9       3
2030-01-31T08:00:00Z       +1m  due
2030-01-31T08:00:01Z   +1.000s  claimed         1  e9       3
2030-01-31T08:00:05Z   +4.000s  given up        1  e9       3  The node stopped.
2030-01-31T08:00:05Z      +0ms  settled         1  n1       4
2030-01-31T08:00:58Z  +53.000s  claimed         2  n1       4
attempts of earlier versions: 2; `timemachine job attempts` has them

phase   attempt     took  because
leader        1   1.000s
lost          1   4.000s
wait          1  53.000s  in_flight
"""
    )


def test_clocks_that_differ_are_named() -> None:
    """For the times are by them; those of nodes that did nothing of it are not."""
    off = [{**NODE, "clock_offset_ms": -250}, {"id": "e5", "name": "n5", "clock_offset_ms": 999}]
    assert [
        (
            "The clock of node n1 is 250ms off that of the node that was asked: its times are by"
            " its own."
        )
    ] == causes(facts(nodes=off))


WAITING: dict[str, Any] = {"state": "scheduled", "attempts": 0, "next_attempt_time": AT}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
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
    assert [expected] == causes(told)
    assert " ".join(seen(told).split()).endswith(f" {expected}")


def test_a_job_that_is_not_due_waits_for_nothing() -> None:
    """Whatever there is of its route and its vnode."""
    busy = {"stats": {"in_flight": 64, "waiting": 9}, "vnode": {**VNODE, "due_backlog": 7}}
    assert [] == causes(facts(**{**WAITING, **busy, "next_attempt_time": AT + 120_000}))
    assert [] == causes(facts(**busy))
