"""Pending jobs that cannot be sent now: they wait for their route, are held, or are given up."""

import msgspec

from timemachine.model import JobRecord
from timemachine.replica import commands as c
from timemachine.replica import ordering
from timemachine.replica.rows import JobRows
from timemachine.replica.states import BEHIND, CLAIMABLE, HELD, RETRYING, SCHEDULED, WAITING
from timemachine.replica.transitions import dead

_replace = msgspec.structs.replace


def wait(rows: JobRows, command: c.Wait) -> None:
    """Move due jobs to their route's waiting index."""
    for item in command.items:
        before = as_seen(rows, item)
        if before is None:
            continue
        state = HELD if command.held else before.state
        if before.queue == BEHIND or (before.queue == WAITING and state == before.state):
            continue
        route_uid = before.route_uid or item.route_uid
        after = _replace(before, queue=WAITING, state=state, route_uid=route_uid)
        rows.store(item.job_id, item.job_id.encode(), before, after)


def stand_aside(rows: JobRows, command: c.StandAside) -> None:
    """Have due jobs wait until it is their turn."""
    for item in command.items:
        before = as_seen(rows, item)
        if before is not None and before.order is not None:
            ordering.put_behind(rows, item.job_id, before)


def release(rows: JobRows, command: c.Release) -> None:
    """Held jobs whose route is open again are scheduled or retrying once more."""
    for item in command.items:
        before = as_seen(rows, item)
        if before is None or before.state != HELD:
            continue
        after = _replace(before, state=RETRYING if before.attempts else SCHEDULED)
        rows.store(item.job_id, item.job_id.encode(), before, after)


def give_up(rows: JobRows, command: c.GiveUp) -> None:
    """End pending jobs as dead without an attempt."""
    for item in command.items:
        before = as_seen(rows, item)
        if before is None:
            continue
        after = dead(before, before.tries, command.reason, command.error, command.now_ms)
        rows.store(item.job_id, item.job_id.encode(), before, after)


def seal(rows: JobRows, command: c.Seal) -> None:
    """Have only leaders fire that know the meta group up to that entry."""
    rows.state.sealed = max(rows.state.sealed, command.meta_index)


def as_seen(rows: JobRows, item: c.PendingItem) -> JobRecord | None:
    """The job, if it still is pending and just as the leader saw it."""
    before = rows.read(item.job_id)
    if (
        before is None
        or before.uid != item.uid
        or before.version != item.version
        or before.attempts != item.attempts
        or before.state not in CLAIMABLE
    ):
        return None
    return before
