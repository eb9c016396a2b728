"""What a vnode has to tell of its jobs: written with what it tells of, and kept until it is told.

One route that fails may have a million jobs. So of a kind, a route and an hour few events are
written, and the others counted; when the hour is over, one event tells how many there were.
"""

import msgspec

from timemachine import codec, limits
from timemachine.events import Event, EventKind
from timemachine.model import JobRecord
from timemachine.replica import commands as c
from timemachine.replica.records import EventCount, read_attempt, read_event_count
from timemachine.replica.rows import JobRows
from timemachine.replica.states import DEAD, DELIVERED, RETRYING
from timemachine.storage.keys import u64

_replace = msgspec.structs.replace


# --- what is written -----------------------------------------------------------------------


def settled(
    rows: JobRows, job_id: str, after: JobRecord, item: c.SettleItem, now_ms: int
) -> JobRecord:
    """Write what is to be told of a job that a settle has made `after`; the record with that."""
    if after.state == DELIVERED:
        return delivered(rows, job_id, after, now_ms)
    if item.alert is None:
        return after
    if after.state == DEAD:
        kind, reason = EventKind.DEAD, after.reason
    elif after.state == RETRYING and item.counts and after.tries == limits.EVENT_FAILED_ATTEMPTS:
        kind, reason = EventKind.FAILING, item.reason
    else:
        return after
    key = _count_key(rows, item.route_uid or after.route_uid, kind)
    if not _may_write(rows, key, after.route, item.alert, now_ms, most=limits.EVENTS_PER_HOUR_MAX):
        return after
    status = read_attempt(item.record).response_status if item.record else None
    event = _about(kind, job_id, after, item.alert, now_ms)
    _write(rows, _replace(event, reason=reason, error=after.last_error, status=status))
    return _replace(after, alerted=item.alert)


def delivered(rows: JobRows, job_id: str, after: JobRecord, now_ms: int) -> JobRecord:
    """Write that a job was delivered, if it was told as failing; the record with that.

    Who was told the one is told the other, also where the route names another one by now.
    """
    alert = after.alerted
    if alert is None:
        return after
    key = _count_key(rows, after.route_uid, EventKind.RECOVERED)
    # No more than were told as failing, so the hour has no limit of its own.
    if _may_write(rows, key, after.route, alert, now_ms, most=None):
        _write(rows, _about(EventKind.RECOVERED, job_id, after, alert, now_ms))
    return _replace(after, alerted=None)


def _about(kind: EventKind, job_id: str, job: JobRecord, alert: str, now_ms: int) -> Event:
    return Event(
        kind=kind,
        at_ms=now_ms,
        route=job.route,
        alert_route=alert,
        job_id=job_id,
        uid=job.uid,
        version=job.version,
        occurrence=job.occurrence,
        trigger_ms=job.trigger_ms,
        attempts=job.attempts,
    )


def _write(rows: JobRows, event: Event) -> None:
    state = rows.state
    rows.overlay.put(rows.keys.event + u64(state.events_written), codec.encode(event))
    state.events_written += 1


# --- how many ------------------------------------------------------------------------------


def _count_key(rows: JobRows, route_uid: int, kind: EventKind) -> bytes:
    return rows.keys.event_count + u64(route_uid) + bytes((kind,))


def _may_write(
    rows: JobRows, key: bytes, route: str, alert: str, now_ms: int, *, most: int | None
) -> bool:
    """Whether one more event is written; it is counted either way."""
    state = rows.state
    data = rows.overlay.get(key)
    count = None if data is None else read_event_count(data)
    if count is not None and now_ms >= count.begun_ms + limits.EVENT_HOUR_MS:
        _close(rows, key, count, now_ms)
        count = None
    fits = state.events_written - state.events_told < limits.EVENTS_WAITING_MAX
    if most is None and fits:
        return True
    if count is None:
        state.event_counts += 1
        count = EventCount(now_ms)
    may = fits and most is not None and count.written < most
    after = _replace(
        count,
        written=count.written + may,
        suppressed=count.suppressed + (not may),
        route=route,
        alert_route=alert,
    )
    rows.overlay.put(key, codec.encode(after))
    return may


def _close(rows: JobRows, key: bytes, count: EventCount, now_ms: int) -> None:
    """An hour is over: write how many events were not, if any were not."""
    rows.overlay.delete(key)
    rows.state.event_counts -= 1
    if count.suppressed:
        _write(
            rows,
            Event(
                kind=EventKind.SUPPRESSED,
                at_ms=now_ms,
                route=count.route,
                alert_route=count.alert_route,
                count=count.suppressed,
                of=key[-1],
            ),
        )


def close_hours(rows: JobRows, command: c.CloseEventHours) -> None:
    """Tell what was suppressed in hours that are over, and forget them."""
    for suffix in command.counts:
        key = rows.keys.event_count + suffix
        data = rows.overlay.get(key)
        if data is not None:
            count = read_event_count(data)
            if command.now_ms >= count.begun_ms + limits.EVENT_HOUR_MS:
                _close(rows, key, count, command.now_ms)


# --- what is told --------------------------------------------------------------------------


def told(rows: JobRows, command: c.EventsTold) -> None:
    """Forget the events whose jobs are there."""
    state = rows.state
    for serial in range(state.events_told, min(command.until, state.events_written)):
        rows.overlay.delete(rows.keys.event + u64(serial))
        state.events_told = serial + 1
