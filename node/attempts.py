"""The attempts of one route, over all vnodes of its database, in the order of their settles."""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace

import msgspec

from timemachine import limits
from timemachine.model import AttemptRecord, JobRecord
from timemachine.replica.records import find_attempt, read_attempt, read_job, read_listed, whole
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, read_u64, u64

_CHUNK_ROWS = 16
_STEPS_BETWEEN_YIELDS = 32
_ATTEMPT_BYTES = 1_024

RoutePosition = tuple[bytes, int, int, int]
"""Of an attempt: its row without the route (settled_ms, log index, number), the uid of its
collection, the index of its vnode, its place in that row."""


class AttemptFilter(msgspec.Struct, frozen=True, array_like=True):
    """Which attempts are meant: all, or some.

    statuses        one of these `AttemptStatus`
    response        answered with a status from the first to the last of these; (0, 0) is no answer
    from_ms, to_ms  settled at the one or later, before the other
    """

    statuses: tuple[str, ...] = ()
    response: tuple[int, int] | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def takes(self, attempt: AttemptRecord) -> bool:
        """Whether this one is meant."""
        if self.statuses and attempt.status not in self.statuses:
            return False
        if self.response is not None:
            low, high = self.response
            if not low <= (attempt.response_status or 0) <= high:
                return False
        return (self.from_ms or 0) <= attempt.settled_ms and (
            self.to_ms is None or attempt.settled_ms < self.to_ms
        )


ALL = AttemptFilter()


class RouteAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt with the job that it was made for, and where it stands."""

    position: RoutePosition
    job_id: str
    record: JobRecord
    attempt: AttemptRecord


class AttemptsPage(msgspec.Struct, frozen=True, array_like=True):
    """Attempts, and what to go on behind; None at the end.

    `halted` where it ends because so many were looked at. Else it is full.
    """

    attempts: list[RouteAttempt]
    position: RoutePosition | None
    halted: bool = False


def newest_first(position: RoutePosition) -> tuple[bytes, int, int, int]:
    """A sort key under which attempts stand as they are listed."""
    row, uid, index, place = position
    return _older_first(row), uid, index, -place


def oldest_first(position: RoutePosition) -> tuple[bytes, int, int, int]:
    """The other way round."""
    row, uid, index, place = position
    return row, -uid, -index, place


def _older_first(key: bytes) -> bytes:
    """A sort key under which later rows come first."""
    return bytes(255 - byte for byte in key)


class _Source:
    """The rows of one vnode in a range, read in chunks: `newer` from the first on, or backwards."""

    def __init__(
        self, store: Store, start: bytes, stop: bytes, prefix_bytes: int, *, newer: bool
    ) -> None:
        self._store = store
        self._stop = stop
        self._at = prefix_bytes
        self._newer = newer
        self._rows: list[Row] = []
        self._place = 0
        self._more = True
        self._start = start
        if not newer:
            # Backwards the store would look for a row before the last one, over all that was
            # forgotten, if it did not know which is the last.
            first = store.scan(start, stop, 1)
            self._more = bool(first)
            self._start = first[0][0] if first else start

    def take(self) -> Row | None:
        """The next row, its key without the route; None at the end."""
        if self._place >= len(self._rows):
            if not self._more:
                return None
            self._rows = rows = self._store.scan(
                self._start, self._stop, _CHUNK_ROWS, reverse=not self._newer
            )
            self._place = 0
            self._more = len(rows) == _CHUNK_ROWS
            if not rows:
                return None
            if self._newer:
                self._start = rows[-1][0] + b"\0"
            else:
                self._stop = rows[-1][0]
                self._more = self._more and self._stop > self._start
        key, value = self._rows[self._place]
        self._place += 1
        return key[self._at :], value


def _range(
    keys: ReplicaKeys,
    group: tuple[int, int],
    route_uid: int,
    among: AttemptFilter,
    kept_ms: int,
    position: RoutePosition | None,
    *,
    newer: bool,
) -> tuple[bytes, bytes, int]:
    """Where rows of a vnode may lie that are behind a position, and how long the prefix is."""
    prefix, stop = keys.route_attempts_range(route_uid)
    # What is older is forgotten, or about to be.
    start = prefix + u64(max(kept_ms, among.from_ms or 0))
    if among.to_ms is not None:
        stop = min(stop, prefix + u64(among.to_ms))
    if position is not None:
        # Rows of one moment stand in the order of their vnodes.
        row, *last, _ = position
        if newer:
            start = max(start, prefix + row + (b"" if list(group) <= last else b"\0"))
        else:
            stop = min(stop, prefix + row + (b"\0" if list(group) >= last else b""))
    return start, stop, len(prefix)


def route_attempts(
    store: Store,
    vnodes: list[tuple[int, int, ReplicaKeys]],
    route_uid: int,
    position: RoutePosition | None,
    limit: int,
    bytes_max: int | None = None,
    *,
    newer: bool = False,
    among: AttemptFilter = ALL,
    kept_ms: Mapping[int, int] | None = None,
) -> Iterator[AttemptsPage | None]:
    """Attempts that were settled before a position, the newest first, at most `limit`.

    With `newer` those that were settled after it, the oldest first. `vnodes` are (uid, index, keys)
    in the order of uid and index; `kept_ms` says by uid before which time attempts are forgotten.
    Attempts of jobs that are not kept any more are left out. A page ends, too, after so many were
    looked at; and with `bytes_max` when it has about so many bytes. Yields None whenever the caller
    should let others run, and at last a page.
    """
    sources: list[_Source] = []
    heads: list[tuple[bytes, int, Row]] = []
    for number, (uid, index, keys) in enumerate(vnodes):
        oldest_ms = (kept_ms or {}).get(uid, 0)
        bounds = _range(keys, (uid, index), route_uid, among, oldest_ms, position, newer=newer)
        source = _Source(store, *bounds, newer=newer)
        sources.append(source)
        head = source.take()
        if head is not None:
            heads.append((*_rank(head[0], number, newer=newer), head))
        if number % _STEPS_BETWEEN_YIELDS == _STEPS_BETWEEN_YIELDS - 1:
            yield None
    heapify(heads)
    found: list[RouteAttempt] = []
    steps = size = 0
    while heads:
        number = abs(heads[0][1])
        key, value = heads[0][2]
        uid, index, keys = vnodes[number]
        listed = read_listed(value)
        low, high = 0, len(listed)
        if position is not None and (key, uid, index) == position[:3]:
            low, high = (position[3] + 1, high) if newer else (0, min(high, position[3]))
        for place in range(low, high) if newer else range(high - 1, low - 1, -1):
            job_id, serial = listed[place]
            at = key, uid, index, place
            read = _read(store, keys, job_id, serial, read_u64(key[8:16]))
            if read is not None and among.takes(read[1]):
                found.append(RouteAttempt(at, job_id, *read))
                size += _ATTEMPT_BYTES + len(read[1].response_body)
                if len(found) == limit or (bytes_max is not None and size >= bytes_max):
                    yield AttemptsPage(found, at)
                    return
            steps += 1
            if steps == limits.LIST_ROWS_LOOKED_AT_MAX:
                yield AttemptsPage(found, at, halted=True)
                return
            if steps % _STEPS_BETWEEN_YIELDS == 0:
                yield None
        head = sources[number].take()
        if head is None:
            heappop(heads)
        else:
            heapreplace(heads, (*_rank(head[0], number, newer=newer), head))
    yield AttemptsPage(found, None)


def _rank(row: bytes, number: int, *, newer: bool) -> tuple[bytes, int]:
    """Where a row of the `number`th vnode stands among others."""
    return (row, -number) if newer else (_older_first(row), number)


def _read(
    store: Store,
    keys: ReplicaKeys,
    job_id: str,
    serial: int,
    settled_index: int,
) -> tuple[JobRecord, AttemptRecord] | None:
    raw_id = job_id.encode()
    job = store.get(keys.job + raw_id)
    if job is None:
        return None
    record = read_job(job)
    attempt = find_attempt(store, keys, raw_id, record, serial)
    if attempt is None:
        return None
    made = whole(record, read_attempt(attempt))
    if made.fence > settled_index:
        return None  # the job was purged, and this is of another one with its id
    return record, made
