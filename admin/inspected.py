"""A job's way from its creation to its end, in one line of time. Pure.

What is told is what the API keeps: when a job was created or changed, when each attempt of its
version was claimed, sent and answered, and by whom. When an outcome was committed is not kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from admin import shown
from admin.tables import Parts, Row, grid

PENDING: Final = ("scheduled", "firing", "retrying", "held")
ASKED_FOR: Final = ("manual", "redrive")
"""Triggers of attempts that somebody asked for, whenever they were due."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What nodes told of a job, and of what it depends on; None for what is not there any more.

    job       the job
    attempts  those of its version, the oldest first
    earlier   how many attempts earlier versions had
    route     its route; `stats` is how that does
    vnode     the vnode that keeps the job
    cluster   the nodes
    now_ms    when it was asked, by this machine's clock
    """

    job: Row
    attempts: Sequence[Row] = ()
    earlier: int = 0
    route: Row | None = None
    stats: Row | None = None
    vnode: Row | None = None
    cluster: Row
    now_ms: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the job, or is to happen."""

    time: int
    step: str
    attempt: int | None = None
    node: str | None = None
    term: int | None = None
    detail: str = ""


def steps(facts: Facts) -> list[Step]:
    """All steps, in the order of their times."""
    # Attempts are claimed a little before they are due: nothing but the times gives the order.
    return sorted([*_before(facts), *_attempted(facts), *_after(facts)], key=lambda each: each.time)


def accepted_ms(job: Row) -> int:
    """When this version of a job was taken."""
    created, updated = int(job["created_time"]), int(job["updated_time"])
    # Of one that was cancelled the last change is its end.
    return created if job["state"] == "cancelled" else updated


def first_due_ms(job: Row) -> int:
    """When the first attempt of a job was due; its route may have smeared it."""
    return int(job["trigger_time"]) + int(job.get("smear_ms", 0))


def late_ms(facts: Facts) -> int | None:
    """How late the first attempt began, or is by now; None where it is not due, or was asked for.

    A cancelled job and one that died before it was sent are not late either.
    """
    job, due = facts.job, first_due_ms(facts.job)
    if facts.attempts:
        first = facts.attempts[0]
        if first["trigger"] in ASKED_FOR or first["attempt"] != 1:
            return None
        return int(first["started_time"]) - due
    if job["state"] in PENDING and not job["attempts"] and facts.now_ms >= due:
        return facts.now_ms - due
    return None


def due_ms(facts: Facts, number: int) -> int | None:
    """When an attempt was due, by its place in the list; None if that is not known."""
    attempt = facts.attempts[number]
    if attempt["trigger"] in ASKED_FOR:
        return None
    if attempt["attempt"] == 1:
        return first_due_ms(facts.job)
    found = facts.attempts[number - 1]["next_attempt_time"] if number else None
    return None if found is None else int(found)


def _before(facts: Facts) -> Iterator[Step]:
    job = facts.job
    created, updated = int(job["created_time"]), int(job["updated_time"])
    yield Step(time=created, step="created")
    if job["state"] == "cancelled":
        yield Step(time=updated, step="cancelled")
    elif updated != created:
        yield Step(time=updated, step="changed", detail=f"version {job['version']}")
    if job["state"] != "cancelled" or facts.attempts:
        smeared = int(job.get("smear_ms", 0))
        told = f"smeared by {shown.duration(smeared)}" if smeared else ""
        yield Step(time=first_due_ms(job), step="due", detail=told)


def _attempted(facts: Facts) -> Iterator[Step]:
    for number, attempt in enumerate(facts.attempts):
        by: Any = {
            "attempt": attempt["attempt"],
            "node": attempt["node"],
            "term": attempt["term"],
        }
        due = due_ms(facts, number) if number else None
        if due is not None:
            yield Step(time=due, step="due again", attempt=attempt["attempt"])
        why = f"asked for: {attempt['trigger']}" if attempt["trigger"] in ASKED_FOR else ""
        yield Step(time=attempt["claimed_time"], step="claimed", detail=why, **by)
        if attempt["status"] != "unknown":
            yield Step(time=attempt["started_time"], step="sent", detail=attempt["url"], **by)
        yield Step(
            time=attempt["ended_time"], step=_end_of(attempt), detail=_outcome(attempt), **by
        )


def _after(facts: Facts) -> Iterator[Step]:
    job = facts.job
    due = job["next_attempt_time"]
    if due is not None and job["attempts"]:
        yield Step(time=int(due), step="due again", attempt=int(job["attempts"]) + 1)


def _end_of(attempt: Row) -> str:
    if attempt["status"] == "unknown":
        return "given up"
    return "failed" if attempt["response_status"] is None else "answered"


def _outcome(attempt: Row) -> str:
    if attempt["response_status"] is None:
        told = [attempt["error_code"], attempt["error_message"]]
        return ": ".join(str(each) for each in told if each)
    return f"{attempt['response_status']}, {attempt['status']}; {phases(attempt)}".rstrip("; ")


def phases(attempt: Row) -> str:
    """How long the parts of an attempt took, of those that took any time."""
    return ", ".join(
        f"{name.replace('_', ' ')} {shown.duration(took)}"
        for name, took in attempt["phases_ms"].items()
        if took
    )


def show(facts: Facts, causes: Sequence[str], names: Mapping[str, str]) -> Parts:
    """The line of time, and why it was late as far as that can be told."""
    job = facts.job
    yield (
        f"job {shown.text(job['id'])} of {shown.text(job['db'])}/{shown.text(job['collection'])}:"
        f" {_state(job)}, version {job['version']}{_place(facts, names)}"
    )
    yield _lateness(facts)
    yield ""
    before: int | None = None
    rows = []
    for each in steps(facts):
        rows.append(
            (
                shown.time(each.time),
                "" if before is None else _distance(each.time - before),
                each.step,
                "" if each.attempt is None else str(each.attempt),
                "" if each.node is None else names.get(each.node) or shown.text(each.node),
                "" if each.term is None else str(each.term),
                shown.text(each.detail),
            )
        )
        before = each.time
    yield grid(
        ("time", "distance", "step", "attempt", "node", "term", ""),
        rows,
        right=("distance", "attempt", "term"),
    )
    if facts.earlier:
        yield f"attempts of earlier versions: {facts.earlier}; `timemachine job attempts` has them"
    yield ""
    for cause in causes:
        yield shown.text(cause)


def _distance(ms: int) -> str:
    # Whole seconds would hide what a timer is about.
    return f"+{ms / 1_000:.3f}s" if 1_000 <= ms < 60_000 else f"+{shown.duration(ms)}"


def _state(job: Row) -> str:
    reason = f" ({shown.text(job['reason'])})" if job["reason"] else ""
    return f"{shown.text(job['state'])}{reason}"


def _place(facts: Facts, names: Mapping[str, str]) -> str:
    vnode = facts.vnode
    if vnode is None:
        return f", vnode {facts.job['vnode']}"
    leader = vnode["leader"]
    if leader is None:
        return f", vnode {vnode['index']} without a leader"
    named = names.get(leader) or shown.text(leader)
    return f", vnode {vnode['index']}, led by {named} in term {vnode['term']}"


def _lateness(facts: Facts) -> str:
    late, job = late_ms(facts), facts.job
    if late is None:
        if facts.attempts or job["attempts"]:
            return "how late its first attempt was cannot be told"
        if job["state"] in PENDING:
            return f"due {shown.distance(first_due_ms(job), facts.now_ms)}"
        return "never sent"
    if not facts.attempts:
        return f"due {shown.duration(late)} ago, and not sent yet"
    told = f"first sent {shown.duration(late)} after "
    told += "it was due" if job.get("smear_ms") else "its trigger time"
    if job["state"] == "delivered":
        end = int(facts.attempts[-1]["ended_time"]) - first_due_ms(job)
        told += f", delivered {shown.duration(end)} after it"
    return told
