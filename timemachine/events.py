"""Operational events: what is told of jobs and routes that fail, by another route than that.

A route may name an `alert_route`. Then what fails of it becomes webhooks of that route: ordinary
jobs in the collection `timemachine.events` of the same database, which are signed, tried again and
listed as all are. An event is written by the same log entry as what it tells of, and is forgotten
when its job is there: so it is told at least once. Its job's uid, and with it the `webhook-id`,
follows from where the event stands, so that a repeat makes the same job.

Of jobs of that collection nothing is told: events about events could go on for ever.
"""

import hashlib
from datetime import UTC, datetime
from enum import IntEnum
from struct import Struct
from typing import Any, Final

import msgspec

from timemachine.identifiers import UID_BYTES, webhook_id
from timemachine.model import Route

EVENTS_COLLECTION: Final = "timemachine.events"
"""Where the jobs are that tell of events, in each database."""

_DOMAIN: Final = b"timemachine event uid\0"
_pack_place = Struct(">QIQB").pack
_json = msgspec.json.encode


class EventKind(IntEnum):
    """What has happened. The number is stored; the text is the `type` that recipients see."""

    FAILING = 1
    """A job has failed for the fourth time."""
    DEAD = 2
    """A job was given up after an attempt."""
    RECOVERED = 3
    """A job was delivered that was told as failing or dead."""
    SUPPRESSED = 4
    """So many events of one kind were not told one by one."""
    DISABLED = 5
    """The system has stopped a route."""

    @property
    def text(self) -> str:
        """The `type` that recipients see."""
        return _TEXTS[self]


_TEXTS: Final = {
    EventKind.FAILING: "job.failing",
    EventKind.DEAD: "job.dead",
    EventKind.RECOVERED: "job.recovered",
    EventKind.SUPPRESSED: "events.suppressed",
    EventKind.DISABLED: "route.disabled",
}
TYPES: Final = tuple(_TEXTS.values())


class Event(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Something to be told.

    route         the name of the route that it is about; `alert_route` of the one that is told
    job_id        and what follows: of the job, if it is about one
    reason        why it is dead, will be tried again, or the route was stopped
    error         what went wrong in its last attempt, and `status` what was answered to that
    count         how many events `of` that kind were not told one by one
    """

    kind: int
    at_ms: int
    route: str
    alert_route: str
    job_id: str = ""
    uid: bytes = b""
    version: int = 0
    occurrence: int = 0
    trigger_ms: int = 0
    attempts: int = 0
    reason: str | None = None
    error: str | None = None
    status: int | None = None
    count: int = 0
    of: int = 0


def alert_of(route: Route | None, collection: str) -> str | None:
    """The name of the route that is told what fails of jobs of this collection, if any is."""
    return None if route is None or collection == EVENTS_COLLECTION else route.alert_route


def event_uid(group: tuple[int, int], serial: int, event: Event) -> bytes:
    """The uid of the job that tells of the `serial`th event of a group (collection uid, vnode)."""
    place = _pack_place(*group, serial, event.kind)
    return hashlib.sha256(_DOMAIN + place + event.uid).digest()[:UID_BYTES]


def event_body(event: Event, db: str, collection: str) -> bytes:
    """The event as its recipient gets it: the envelope of Standard Webhooks, as JSON."""
    kind = EventKind(event.kind)
    data: dict[str, Any] = {"db": db, "route": event.route}
    if kind is EventKind.DISABLED:
        data["reason"] = event.reason
    elif kind is EventKind.SUPPRESSED:
        data |= {
            "collection": collection,
            "suppressed_type": EventKind(event.of).text,
            "suppressed": event.count,
        }
    else:
        data |= {
            "collection": collection,
            "job": event.job_id,
            "version": event.version,
            "webhook_id": webhook_id(event.uid, event.version, event.occurrence),
            "trigger_time": event.trigger_ms,
            "attempts": event.attempts,
            "reason": event.reason,
            "last_error": event.error,
            "response_status": event.status,
        }
    return _json({"type": kind.text, "timestamp": _iso(event.at_ms), "data": data})


def _iso(time_ms: int) -> str:
    """ISO 8601, in UTC with milliseconds."""
    time = datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
