"""What a vnode stores beside the types of `model`, and how all of its rows are read."""

from collections.abc import Callable
from typing import Final

import msgspec

from timemachine import codec
from timemachine.events import Event
from timemachine.model import AttemptRecord, JobRecord, JobState, Leadership
from timemachine.replica.results import BulkProgress
from timemachine.storage.api import Getting
from timemachine.storage.keys import ReplicaKeys, u32

NEVER_MS: Final = 1 << 62
"""Later than any job can be due."""


class MachineState(msgspec.Struct, array_like=True):
    """What a machine remembers beside its rows; written with every batch that changes it.

    `sealed` is the entry of the meta group that a leader must know to fire. `changed_index` is the
    last entry that may have changed a job: what is read of jobs is the same until another one does.
    `events_written` numbers the events to be told, `events_told` those of them that were; there are
    `event_counts` hours of them that have not been closed.
    `ordered` is the last number given to a job that has an ordering key.
    """

    applied_index: int = 0
    applied_term: int = 0
    offset_due_ms: int = 0
    offset_job_id: str = ""
    low_due_ms: int = NEVER_MS
    low_index: int = 0
    floor_index: int = 0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(JobState))
    requests: int = 0
    sealed: int = 0
    changed_index: int = 0
    events_written: int = 0
    events_told: int = 0
    event_counts: int = 0
    ordered: int = 0


class RouteCounts(msgspec.Struct, array_like=True):
    """Jobs of one route in one vnode: pending ones, and those of them in the waiting index."""

    pending: int = 0
    waiting: int = 0


class BatchMember(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job of a batch, as it was when that was frozen."""

    job_id: str
    uid: bytes
    version: int


class BatchRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is sent under the id of a batch, whenever it is: the members in their order.

    `format` and `body` are the route's as they were. With the jobs, of just these versions, they
    determine every byte of the body.
    """

    format: str
    body: str
    members: list[BatchMember]


class EventCount(msgspec.Struct, frozen=True, array_like=True):
    """Events of one kind and one route since `begun_ms`: how many were written, and how many not.

    `route` and `alert_route` are their names.
    """

    begun_ms: int
    written: int = 0
    suppressed: int = 0
    route: str = ""
    alert_route: str = ""


class Turn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The pending jobs of one route that have one ordering key, and whose turn it is.

    count    how many there are
    head     the id of the one whose turn it is; empty where there is none
    at       its place among them: `replica.ordering.place_of`
    begun    whether it had an attempt and has not ended: then none comes before it
    low      none of them stands before this place
    free_ms  until then an attempt may be under way that the log does not wait for any more
    """

    count: int
    head: str
    at: bytes
    begun: bool
    low: bytes
    free_ms: int = 0


class Alias(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the job of an id lives that has an ordering key: in the vnode of that key.

    `placed_ms` is when it was written last, by the clock of who led: a create of then may still be
    on its way.
    """

    key: str
    placed_ms: int


read_job: Callable[[bytes], JobRecord] = codec.decoder(JobRecord)
read_attempt: Callable[[bytes], AttemptRecord] = codec.decoder(AttemptRecord)
read_state: Callable[[bytes], MachineState] = codec.decoder(MachineState)
read_turn: Callable[[bytes], Turn] = codec.decoder(Turn)
read_alias: Callable[[bytes], Alias] = codec.decoder(Alias)
read_route_counts: Callable[[bytes], RouteCounts] = codec.decoder(RouteCounts)
read_progress: Callable[[bytes], BulkProgress] = codec.decoder(BulkProgress)
read_event: Callable[[bytes], Event] = codec.decoder(Event)
read_event_count: Callable[[bytes], EventCount] = codec.decoder(EventCount)
read_leaders: Callable[[bytes], list[Leadership]] = codec.decoder(list[Leadership])
read_batch: Callable[[bytes], BatchRow] = codec.decoder(BatchRow)
read_listed: Callable[[bytes], list[tuple[str, int]]] = codec.decoder(list[tuple[str, int]])


def read_meta(store: Getting, keys: ReplicaKeys, raw_id: bytes, record: JobRecord) -> bytes:
    """The meta of a job whose record was just read from `store`."""
    meta = find_meta(store, keys, raw_id, record)
    return b"null" if meta is None else meta


def find_meta(store: Getting, keys: ReplicaKeys, raw_id: bytes, record: JobRecord) -> bytes | None:
    """The same; None where its row is not there."""
    return store.get(keys.meta + raw_id) if record.meta is None else record.meta


def find_attempt(
    store: Getting, keys: ReplicaKeys, raw_id: bytes, record: JobRecord, serial: int
) -> bytes | None:
    """The encoded AttemptRecord of a job's attempt; None where it is not settled, or removed."""
    if record.delivering and serial == record.serial:
        return record.delivering
    return store.get(keys.attempts + raw_id + b"\0" + u32(serial))


def find_leaders(store: Getting, keys: ReplicaKeys) -> list[Leadership]:
    """The last leaders of a vnode that have claimed something, the oldest first."""
    data = store.get(keys.leaders)
    return [] if data is None else read_leaders(data)


def without_content(attempt: AttemptRecord) -> AttemptRecord:
    """An attempt whose recipient's answer is forgotten; itself where nothing was answered."""
    if not (attempt.response_headers or attempt.response_body or attempt.retry_after):
        return attempt
    return msgspec.structs.replace(
        attempt,
        response_headers=(),
        response_body=b"",
        retry_after=None,
        content_removed=True,
    )


def whole(record: JobRecord, attempt: AttemptRecord) -> AttemptRecord:
    """An attempt of this job with all of its fields.

    One that is kept in the job's row leaves out what that has.
    """
    if attempt.uid:
        return attempt
    return msgspec.structs.replace(
        attempt,
        uid=record.uid,
        trigger_ms=record.trigger_ms,
        route=record.route,
        due_ms=attempt.due_ms or record.trigger_ms,
        settled_ms=record.finished_ms,
        settled_term=attempt.term,
    )
