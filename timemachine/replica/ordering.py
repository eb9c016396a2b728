"""Jobs with an ordering key: one after the other, of each route and key.

All jobs of a key live in one vnode, that of the key. Those of one route that are pending stand in
the order table by their trigger times, then as they were made. One of them has the *turn*: the
first, or the one that had an attempt and has not ended. Only that one can be claimed. Any other may
stand in the due index until it is due; then it stands aside (`Queue.BEHIND`), out of the way of the
window and of the offset, until it gets its turn. It is due at that moment.

When a job is replaced or purged, or was given up by another leader, a request of it may be under
way that nobody waits for any more. Until that must have ended nobody's turn begins. Only the next
attempt of what was given up need not wait, for it is the same webhook; when that has delivered it,
those behind it need not wait either.
"""

from typing import TYPE_CHECKING

import msgspec

from timemachine import codec, limits
from timemachine.model import JobRecord
from timemachine.replica.records import Turn, read_turn
from timemachine.replica.states import (
    BEHIND,
    DELIVERED,
    DUE,
    FIRING,
    HELD,
    RETRYING,
    SCHEDULED,
    TERMINAL,
    WAITING,
)
from timemachine.storage.keys import u64

if TYPE_CHECKING:
    from timemachine.replica.rows import JobRows

_replace = msgspec.structs.replace

_QUEUED = (DUE, WAITING)
_ID_AT = 16


def group_of(record: JobRecord) -> bytes:
    """What names those that a job is in order with: its key and its route."""
    assert record.order is not None
    return record.order.key.encode() + b"\0" + record.route.encode() + b"\0"


def place_of(job_id: str, record: JobRecord) -> bytes:
    """Where it stands among those. The id tells two apart that came from different clusters."""
    assert record.order is not None
    return u64(record.trigger_ms) + u64(record.order.number) + job_id.encode()


def is_begun(record: JobRecord) -> bool:
    """Whether it had an attempt and goes on: nothing may come between its attempts."""
    state = record.state
    return state in (FIRING, RETRYING) or (state == HELD and record.attempts > 0)


def turn_of(rows: "JobRows", record: JobRecord) -> Turn | None:
    """Whose turn it is among those that a job is in order with."""
    return _read(rows, group_of(record))


def has_turn(rows: "JobRows", job_id: str, record: JobRecord) -> bool:
    """Whether it is a pending job's turn."""
    turn = turn_of(rows, record)
    return turn is not None and turn.head == job_id


def may_be_claimed(rows: "JobRows", job_id: str, record: JobRecord, now_ms: int) -> bool:
    """Whether it is a pending job's turn, and its time, by the clock of the leader that claims.

    Its time may have been moved since the leader saw it: to when an attempt must have ended that
    nobody waits for (`give_turns`).
    """
    return record.due_ms <= now_ms + limits.CLAIM_LEAD_MS and has_turn(rows, job_id, record)


def moved(
    rows: "JobRows", job_id: str, before: JobRecord | None, after: JobRecord | None
) -> JobRecord | None:
    """Keep the order when a job is made, changed or forgotten, before its own rows are written.

    Returns `after`, which is due no earlier than its turn may begin.
    """
    old, new = _standing(job_id, before), _standing(job_id, after)
    free_ms = 0 if before is None else _open_until(rows, before, after)
    if old is not None and old != new:
        last = after if after is not None else before
        assert last is not None
        if before is not None and last.state == DELIVERED and is_begun(before):
            _forget_open(rows, job_id, old[0])
        _leave(rows, job_id, *old, free_ms, max(last.updated_ms, last.finished_ms))
    if new is None or after is None:
        return after
    if old != new:
        turn = _enter(rows, job_id, after, *new)
    else:
        turn = _stay(rows, job_id, after, *new, free_ms)
    if turn.head == job_id and after.queue in _QUEUED and _is_early(after, turn):
        return _replace(after, due_ms=turn.free_ms)
    return after


def give_turns(
    rows: "JobRows", job_id: str, before: JobRecord | None, after: JobRecord | None
) -> None:
    """After a job was made, changed or forgotten: have the one be due whose turn it is now."""
    for record in (before, after):
        if record is None or (record is after and before is not None and _alike(before, after)):
            continue
        turn = turn_of(rows, record)
        if turn is None or not turn.head:
            continue
        head = rows.read(turn.head)
        assert head is not None, "whose turn it is, is there"
        assert head.order is not None
        if head.queue == BEHIND:
            last = after if after is not None else record
            due_ms = max(head.due_ms, last.updated_ms, last.finished_ms, turn.free_ms)
        elif head.queue in _QUEUED and _is_early(head, turn):
            due_ms = turn.free_ms
        else:
            continue
        order = _replace(head.order, turn_ms=due_ms, behind=job_id)
        queue = DUE if head.queue == BEHIND else head.queue
        given = _replace(head, queue=queue, due_ms=due_ms, order=order)
        rows.store(turn.head, turn.head.encode(), head, given)


def put_behind(rows: "JobRows", job_id: str, before: JobRecord) -> None:
    """Have a job stand aside that is due, unless it is its turn."""
    if before.queue not in _QUEUED or has_turn(rows, job_id, before):
        return
    state = before.state
    if state == HELD:
        state = RETRYING if before.attempts else SCHEDULED
    rows.store(job_id, job_id.encode(), before, _replace(before, queue=BEHIND, state=state))


# --- the tables --------------------------------------------------------------------------------


def _read(rows: "JobRows", group: bytes) -> Turn | None:
    data = rows.overlay.get(rows.keys.turn + group)
    return None if data is None else read_turn(data)


def _write(rows: "JobRows", group: bytes, turn: Turn) -> Turn:
    rows.overlay.put(rows.keys.turn + group, codec.encode(turn))
    return turn


def _standing(job_id: str, record: JobRecord | None) -> tuple[bytes, bytes] | None:
    """The group and the place of a job, while it is pending."""
    if record is None or record.state in TERMINAL:
        return None
    return group_of(record), place_of(job_id, record)


def _alike(before: JobRecord, after: JobRecord | None) -> bool:
    return after is not None and group_of(before) == group_of(after)


def _is_early(head: JobRecord, turn: Turn) -> bool:
    """Whether a turn is to begin later. One that has begun waits for no attempt but its own."""
    return head.due_ms < turn.free_ms and not is_begun(head)


def _open_until(rows: "JobRows", before: JobRecord, after: JobRecord | None) -> int:
    """Until when a request may be under way of an attempt that is not waited for any more."""
    claim = before.claim
    if claim is None:
        return 0
    if after is None or after.version != before.version:
        return claim.deadline_ms
    given_up = after.state == RETRYING or (after.state in TERMINAL and after.state != DELIVERED)
    return claim.deadline_ms if given_up and claim.term != rows.term else 0


def _forget_open(rows: "JobRows", job_id: str, group: bytes) -> None:
    """A job that had the turn is delivered: what was open of it was the same webhook."""
    turn = _read(rows, group)
    if turn is not None and turn.head == job_id and turn.free_ms:
        _write(rows, group, _replace(turn, free_ms=0))


def _leave(
    rows: "JobRows", job_id: str, group: bytes, place: bytes, free_ms: int, now_ms: int
) -> None:
    rows.overlay.put_listed(rows.keys.order + group, place, None)
    turn = _read(rows, group)
    assert turn is not None, "who stands in order is counted"
    turn = _replace(turn, count=turn.count - 1, free_ms=max(turn.free_ms, free_ms))
    if turn.head != job_id:
        _write(rows, group, turn)
    elif turn.count:
        _write(rows, group, _first(rows, group, turn))
    elif turn.free_ms > now_ms:
        _write(rows, group, _replace(turn, head="", at=b"", begun=False, low=b""))
    else:
        rows.overlay.delete(rows.keys.turn + group)


def _enter(rows: "JobRows", job_id: str, record: JobRecord, group: bytes, place: bytes) -> Turn:
    rows.overlay.put_listed(rows.keys.order + group, place, b"")
    turn, begun = _read(rows, group), is_begun(record)
    if turn is None or not turn.count:
        free_ms = 0 if turn is None else turn.free_ms
        return _write(rows, group, Turn(1, job_id, place, begun, place, free_ms))
    turn = _replace(turn, count=turn.count + 1, low=min(turn.low, place))
    if not turn.begun and (begun or place < turn.at):
        turn = _replace(turn, head=job_id, at=place, begun=begun)
    return _write(rows, group, turn)


def _stay(
    rows: "JobRows", job_id: str, record: JobRecord, group: bytes, place: bytes, free_ms: int
) -> Turn:
    """It stands where it stood. What came while it was begun may come before it now."""
    turn = _read(rows, group)
    assert turn is not None, "who stands in order is counted"
    after = _replace(turn, free_ms=max(turn.free_ms, free_ms))
    if turn.head == job_id:
        after = _replace(after, begun=is_begun(record))
        if not after.begun and after.low < place:
            after = _first(rows, group, after)
    return turn if after == turn else _write(rows, group, after)


def _first(rows: "JobRows", group: bytes, turn: Turn) -> Turn:
    """Give the turn to the first one that is there."""
    table = rows.keys.order + group
    found = rows.overlay.first(table, turn.low)
    assert found is not None, "as many stand in order as are counted"
    place = found[0]
    head = place[_ID_AT:].decode()
    record = rows.read(head)
    return _replace(
        turn, head=head, at=place, begun=record is not None and is_begun(record), low=place
    )
